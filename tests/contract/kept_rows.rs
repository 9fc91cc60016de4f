//! doc/reference.md, "Registration": what was written is checked. A trigger, rule or policy that
//! swallows or alters one of the three rows is a failure, and nothing is registered.

use crate::support::{Hub, Program};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];
const TABLES: [&str; 3] = ["trust", "fl_kit_slot", "trusts_audit"];

/// A login of the test's own with the least privileges; gone with its database's test.
fn least(hub: &mut Hub, more: &str) -> impl Fn(Program) -> Program + use<> {
    let role = format!("least_{}", hub.database);
    hub.execute(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'x';
         GRANT SELECT (id, name, created_at), INSERT (id, name, code, region, api_key_hash, created_at)
            ON trust TO {role};
         GRANT SELECT (slot_name, slot_number, assigned_to_trust_id), INSERT (slot_name, slot_number),
            UPDATE (assigned_to_trust_id, assigned_at) ON fl_kit_slot TO {role};
         GRANT INSERT (id, trust_id, trust_name, action, audit_date) ON trusts_audit TO {role};
         {}",
        more.replace("ROLE", &role)
    ));
    move |program| program.env("POSTGRES_USER", &role).env("POSTGRES_PASSWORD", "x")
}

fn forget(hub: &mut Hub) {
    let role = format!("least_{}", hub.database);
    hub.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A trigger before each row of a table, with this body.
fn trigger(table: &str, body: &str) -> String {
    let event = if table == "fl_kit_slot" { "UPDATE" } else { "INSERT" };
    format!(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE TRIGGER meddle BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION meddle()"
    )
}

/// What names the row that is missing.
fn named(table: &str) -> &'static str {
    match table {
        "trust" => "the hub did not keep the trust's row (trust)",
        "fl_kit_slot" => "the hub did not keep the claim of the slot (fl_kit_slot)",
        _ => "the hub did not keep the audit row (trusts_audit)",
    }
}

#[test]
fn a_trigger_that_swallows_a_row_registers_nothing_and_the_row_is_named() {
    for table in TABLES {
        let mut hub = Hub::new();
        let least = least(&mut hub, "");
        hub.execute(&trigger(table, "RETURN NULL;"));
        for program in [hub.program(&NEW), least(hub.program(&NEW))] {
            let run = program.run().fails();
            // Where the hash cannot be read back, that is what is said first of this trigger.
            let unread = table == "trust" && run.stderr.contains("may not read it back");
            assert!(unread || run.stderr.contains(named(table)), "{}", run.dump());
            hub.assert_untouched();
        }
        forget(&mut hub);
    }
}

#[test]
fn a_trigger_that_alters_the_trust_or_the_claim_registers_nothing() {
    for (table, body) in [
        ("trust", "NEW.api_key_hash = upper(NEW.api_key_hash); RETURN NEW;"),
        ("trust", "NEW.api_key_hash = NULL; RETURN NEW;"),
        ("trust", "NEW.name = NEW.name || ' '; RETURN NEW;"),
        ("trust", "NEW.id = gen_random_uuid(); RETURN NEW;"),
        ("fl_kit_slot", "NEW.assigned_to_trust_id = NULL; RETURN NEW;"),
        ("fl_kit_slot", "RETURN OLD;"),
    ] {
        let mut hub = Hub::new();
        hub.execute(&trigger(table, body));
        hub.program(&NEW).run().fails().says(named(table));
        hub.assert_untouched();
    }
}

/// A trigger that runs once the rows are written.
fn afterwards(table: &str, each: &str, body: &str) -> String {
    let event = if table == "fl_kit_slot" { "UPDATE" } else { "INSERT" };
    format!(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;
         CREATE TRIGGER meddle AFTER {event} ON {table} FOR EACH {each} EXECUTE FUNCTION meddle()"
    )
}

#[test]
fn a_trigger_that_alters_the_trust_or_the_claim_afterwards_registers_nothing() {
    let (trust, slot) = (named("trust"), named("fl_kit_slot"));
    for (table, each, body, said) in [
        ("trust", "ROW", "UPDATE trust SET api_key_hash = upper(api_key_hash);", trust),
        ("trust", "STATEMENT", "UPDATE trust SET api_key_hash = NULL;", trust),
        ("fl_kit_slot", "ROW", "UPDATE trust SET name = name || ' ';", trust),
        ("trusts_audit", "ROW", "UPDATE trust SET api_key_hash = upper(api_key_hash);", trust),
        ("trusts_audit", "ROW", "UPDATE fl_kit_slot SET assigned_to_trust_id = NULL;", slot),
        ("trusts_audit", "STATEMENT", "UPDATE fl_kit_slot SET assigned_to_trust_id = NULL;", slot),
    ] {
        let mut hub = Hub::new();
        hub.execute(&afterwards(table, each, body));
        let run = hub.program(&NEW).run().fails().says(said);
        assert!(!run.stdout.contains("trust_api_key"), "{}", run.dump());
        hub.assert_untouched();
    }
}

#[test]
fn a_trigger_that_only_takes_note_afterwards_hinders_nothing_where_the_hash_can_be_read() {
    for table in TABLES {
        let mut hub = Hub::new();
        hub.execute("CREATE TABLE notes (at timestamptz)");
        hub.execute(&afterwards(table, "ROW", "INSERT INTO notes VALUES (now());"));
        let least = least(&mut hub, "GRANT INSERT ON notes TO ROLE;");
        hub.assert_registered(&hub.program(&NEW).run().full_kit());
        let program = hub.program(&["--name", "B", "--code", "B"]);
        least(program).run().fails().says("POSTGRES_USER may not read it back");
        let role = format!("least_{}", hub.database);
        hub.execute(&format!("GRANT SELECT (api_key_hash) ON trust TO {role}"));
        let program = hub.program(&["--name", "B", "--code", "B"]);
        hub.assert_registered(&least(program).run().full_kit());
        forget(&mut hub);
    }
}

#[test]
fn a_hash_that_cannot_be_read_back_is_believed_only_where_no_trigger_can_alter_it() {
    let mut hub = Hub::new();
    let least = least(&mut hub, "");
    let kit = least(hub.program(&NEW)).run().full_kit();
    hub.assert_registered(&kit);
    // One that does nothing, and one that does something elsewhere.
    hub.execute(&trigger("trust", "RETURN NEW;"));
    let run = least(hub.program(&["--name", "B", "--code", "B"])).run().fails();
    run.says("POSTGRES_USER may not read it back").says("GRANT SELECT (api_key_hash) ON trust");
    // A trust that is there needs no insert.
    least(hub.program(&NEW)).run().metadata_only_kit();
    least(hub.program(&["--name", "A"])).run().metadata_only_kit();
    least(hub.program(&["--name", "A", "--require-existing"])).run().metadata_only_kit();
    // Switched off it alters nothing; and a role that reads the hash sees that it was kept.
    hub.execute("ALTER TABLE trust DISABLE TRIGGER meddle");
    hub.assert_registered(&least(hub.program(&["--name", "B", "--code", "B"])).run().full_kit());
    hub.execute("ALTER TABLE trust ENABLE TRIGGER meddle");
    let role = format!("least_{}", hub.database);
    hub.execute(&format!("GRANT SELECT (api_key_hash) ON trust TO {role}"));
    hub.assert_registered(&least(hub.program(&["--name", "C", "--code", "C"])).run().full_kit());
    forget(&mut hub);
}

#[test]
fn a_rule_that_drops_or_redirects_a_row_registers_nothing() {
    for rule in [
        "CREATE RULE meddle AS ON INSERT TO trust DO INSTEAD NOTHING",
        "CREATE RULE meddle AS ON UPDATE TO fl_kit_slot DO INSTEAD NOTHING",
        "CREATE RULE meddle AS ON INSERT TO trusts_audit DO INSTEAD NOTHING",
        "CREATE RULE meddle AS ON INSERT TO trusts_audit DO ALSO DELETE FROM trust",
        "CREATE RULE meddle AS ON UPDATE TO fl_kit_slot DO ALSO DELETE FROM trust",
    ] {
        let mut hub = Hub::new();
        hub.execute(rule);
        hub.program(&NEW).run().fails().says("SQLSTATE");
        hub.assert_untouched();
    }
}

#[test]
fn a_policy_that_hides_or_refuses_a_row_registers_nothing() {
    for (table, policy) in [
        // Writing is allowed, and what was written cannot be seen, or cannot be written.
        ("trust", "FOR INSERT TO ROLE WITH CHECK (false)"),
        ("fl_kit_slot", "FOR UPDATE TO ROLE USING (false)"),
        ("fl_kit_slot", "FOR SELECT TO ROLE USING (false)"),
        ("fl_kit_slot", "TO ROLE USING (assigned_to_trust_id IS NULL)"),
        ("trusts_audit", "FOR INSERT TO ROLE WITH CHECK (false)"),
    ] {
        let mut hub = Hub::new();
        let least = least(&mut hub, "");
        let role = format!("least_{}", hub.database);
        hub.execute(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY meddle ON {table} {}",
            policy.replace("ROLE", &role)
        ));
        least(hub.program(&NEW)).run().fails();
        hub.assert_untouched();
        forget(&mut hub);
    }
}
