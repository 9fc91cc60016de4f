//! doc/reference.md, "Registration": the slot pool.

use crate::support::{Hub, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

fn slots(hub: &mut Hub) -> String {
    hub.value("SELECT coalesce(string_agg(slot_name || '=' || slot_number, ' ' ORDER BY slot_number, slot_name), '') FROM fl_kit_slot")
}

#[test]
fn the_lowest_number_is_claimed_first_and_then_the_first_name() {
    let mut hub = Hub::with_slots(&["b_7", "a_7", "z_3", "Trust_10"]);
    for (name, slot) in [("A", "z_3"), ("B", "a_7"), ("C", "b_7"), ("D", "Trust_10")] {
        let kit = hub.program(&["--name", name, "--code", "X"]).run().full_kit();
        assert_eq!(kit[0]["fl_kit_slot"], slot);
        hub.assert_registered(&kit);
    }
}

#[test]
fn a_slot_that_another_registration_has_locked_is_skipped() {
    let hub = Hub::with_slots(&["Trust_1", "Trust_2"]);
    let mut other = hub.session();
    let mut transaction = other.transaction().unwrap();
    transaction.execute("SELECT 1 FROM fl_kit_slot WHERE slot_number = 1 FOR UPDATE", &[]).unwrap();
    let kit = hub.program(&NEW).run().full_kit();
    assert_eq!(kit[0]["fl_kit_slot"], "Trust_2");
}

#[test]
fn on_an_empty_pool_the_configured_names_are_added_and_one_is_claimed() {
    let mut hub = Hub::with_slots(&[]);
    let names = r#"["Trust_2", "Trust_007", "K8s", "a_b_1", "Trust_", "x_2y", "9", "Trust_2", "z_2147483647", "\u00e9_3"]"#;
    let kit = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", names).run().full_kit();
    assert_eq!(kit[0]["fl_kit_slot"], "a_b_1");
    assert_eq!(
        slots(&mut hub),
        "a_b_1=1 Trust_2=2 \u{e9}_3=3 Trust_007=7 9=10000 K8s=10000 Trust_=10000 x_2y=10000 z_2147483647=2147483647"
    );
}

#[test]
fn a_slot_that_is_there_is_never_touched() {
    let mut hub = Hub::with_slots(&["Trust_1", "Trust_2"]);
    hub.program(&NEW).run().full_kit();
    hub.program(&["--name", "B", "--code", "B"]).run().full_kit();
    hub.execute("UPDATE fl_kit_slot SET slot_number = 77 WHERE slot_name = 'Trust_2'");
    let before: String =
        hub.value("SELECT string_agg(fl_kit_slot::text, ' ' ORDER BY slot_name) FROM fl_kit_slot");
    let run = hub
        .program(&["--name", "C", "--code", "C"])
        .env("FL_KIT_SLOT_NAMES", r#"["Trust_1", "Trust_2", "Trust_3"]"#);
    assert_eq!(run.run().full_kit()[0]["fl_kit_slot"], "Trust_3");
    let after: String = hub.value(
        "SELECT string_agg(fl_kit_slot::text, ' ' ORDER BY slot_name) FROM fl_kit_slot WHERE slot_name <> 'Trust_3'",
    );
    assert_eq!(before, after);
}

#[test]
fn the_configured_names_are_looked_at_only_when_no_slot_is_free() {
    let mut hub = Hub::with_slots(&["Trust_5"]);
    let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", "nonsense").run();
    run.full_kit();
    run.never_says("FL_KIT_SLOT_NAMES");
    assert_eq!(slots(&mut hub), "Trust_5=5");
}

#[test]
fn names_that_cannot_be_read_or_used_are_logged_and_count_as_none() {
    let mut hub = Hub::with_slots(&[]);
    for (names, said) in [
        ("Trust_1", "no slot names from FL_KIT_SLOT_NAMES: it is not a JSON list of strings"),
        (r#"{"a": 1}"#, "no slot names from FL_KIT_SLOT_NAMES: it is not a JSON list of strings"),
        (
            r#"["Trust_1", 2]"#,
            "no slot names from FL_KIT_SLOT_NAMES: it is not a JSON list of strings",
        ),
        (r#""Trust_1""#, "no slot names from FL_KIT_SLOT_NAMES: it is not a JSON list of strings"),
        ("null", "no slot names from FL_KIT_SLOT_NAMES: it is not a JSON list of strings"),
        (
            r#"["Trust_2147483648"]"#,
            "slot name \"Trust_2147483648\" in FL_KIT_SLOT_NAMES cannot be used",
        ),
        (r#"["a_99999999999999999999"]"#, "cannot be used"),
        (
            r#"["", "a\u0000_1", "b\n_2"]"#,
            "slot name \"b\\n_2\" in FL_KIT_SLOT_NAMES cannot be used",
        ),
        ("[]", "no free FL kit slot"),
        ("", "WARNING no slot names from FL_KIT_SLOT_NAMES: it is not set"),
    ] {
        let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", names).run().fails();
        run.says(said)
            .says("ERROR no free FL kit slot: all are taken")
            .says("add their slot names to FL_KIT_SLOT_NAMES");
        hub.assert_untouched();
        assert_eq!(slots(&mut hub), "");
    }
    // The usable ones of a list are used.
    let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", r#"["a_99999999999", "ok_1"]"#).run();
    assert_eq!(run.full_kit()[0]["fl_kit_slot"], "ok_1");
    run.says("WARNING slot name \"a_99999999999\"");
}

#[test]
fn slots_that_the_hub_does_not_take_register_nothing() {
    let mut hub = Hub::with_slots(&[]);
    hub.execute("ALTER TABLE fl_kit_slot ADD CHECK (slot_name <> 'Trust_1')");
    let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", r#"["Trust_1"]"#).run().fails();
    run.says("cannot add the configured slots: new row for relation");
    hub.assert_untouched();
}

#[test]
fn a_slot_name_that_no_index_takes_is_left_out() {
    let hub = Hub::with_slots(&[]);
    let long: String = (0..9000).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect();
    let names = format!(r#"["{long}","Trust_1"]"#);
    let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", names).run();
    run.full_kit();
    run.says("cannot be used; it is ignored");
}

#[test]
fn of_many_slot_names_that_cannot_be_used_ten_are_named_and_the_rest_is_counted() {
    let hub = Hub::with_slots(&[]);
    let names = format!(r#"[{}"Trust_1"]"#, r#""", "#.repeat(30_000));
    let run = hub.program(&NEW).env("FL_KIT_SLOT_NAMES", names).run();
    run.full_kit();
    assert_eq!(run.stderr.matches("it is ignored\n").count(), 10, "{}", run.dump());
    run.says("WARNING 29990 more slot names in FL_KIT_SLOT_NAMES cannot be used\n");
}

#[test]
fn slots_added_by_a_registration_that_fails_are_not_there() {
    let mut hub = Hub::with_slots(&[]);
    hub.execute("ALTER TABLE trusts_audit ADD CHECK (trust_name <> 'A')");
    hub.program(&NEW)
        .env("FL_KIT_SLOT_NAMES", r#"["Trust_1"]"#)
        .run()
        .fails()
        .says("cannot find or register the trust: new row for relation")
        .says("violates check constraint");
    hub.assert_untouched();
    assert_eq!(slots(&mut hub), "");
}

#[test]
fn a_run_waits_for_slots_that_registrations_under_way_have_locked() {
    let mut hub = Hub::with_slots(&["Trust_1"]);
    let mut other = hub.session();
    let mut transaction = other.transaction().unwrap();
    transaction.execute("UPDATE fl_kit_slot SET assigned_at = now()", &[]).unwrap();
    let run = hub.program(&NEW).spawn();
    eventually("the run waits", || hub.waiting() == 1);
    transaction.rollback().unwrap();
    let kit = run.wait().full_kit();
    hub.assert_registered(&kit);

    // And gives up when the slot it waited for is taken after all.
    hub.execute("INSERT INTO fl_kit_slot VALUES ('Trust_2', 2)");
    let mut transaction = other.transaction().unwrap();
    transaction
        .execute("UPDATE fl_kit_slot SET assigned_to_trust_id = (SELECT id FROM trust) WHERE slot_number = 2", &[])
        .unwrap();
    let run = hub.program(&["--name", "B", "--code", "B"]).spawn();
    eventually("the second run waits", || hub.waiting() == 1);
    transaction.commit().unwrap();
    run.wait().fails().says("no free FL kit slot");
    assert_eq!(hub.count("trust"), 1);
}

/// Two runs that held such locks and waited for each other were a deadlock.
#[test]
fn a_run_that_waits_for_a_slot_holds_no_slot_that_another_run_took_meanwhile() {
    let mut hub = Hub::with_slots(&["Trust_1", "Trust_2"]);
    // Whoever reads that trust stops at the gate, with a snapshot that is growing old.
    hub.execute(
        "INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'Old', now());
         ALTER TABLE trust RENAME TO trusts;
         CREATE FUNCTION gate() RETURNS boolean LANGUAGE sql COST 0.001 AS
             $$ SELECT pg_advisory_xact_lock_shared(1) IS NOT NULL $$;
         CREATE VIEW trust AS SELECT * FROM trusts WHERE gate()",
    );
    let (mut keeper, mut other) = (hub.session(), hub.session());
    keeper.execute("SELECT pg_advisory_lock(1)", &[]).unwrap();
    let run = hub.program(&NEW).spawn();
    eventually("the run stands at the gate", || hub.waiting() == 1);
    hub.execute("UPDATE fl_kit_slot SET assigned_to_trust_id = (SELECT id FROM trusts) WHERE slot_number = 2");
    let mut transaction = other.transaction().unwrap();
    transaction.execute("SELECT FROM fl_kit_slot WHERE slot_number = 1 FOR UPDATE", &[]).unwrap();
    keeper.execute("SELECT pg_advisory_unlock(1)", &[]).unwrap();
    eventually("the run waits for the first slot", || {
        hub.runs("wait_event_type = 'Lock' AND query LIKE '%wait until%'") == 1
    });
    transaction
        .execute("SELECT FROM fl_kit_slot WHERE slot_number = 2 FOR UPDATE NOWAIT", &[])
        .expect("the second slot is locked");
    transaction.rollback().unwrap();
    assert_eq!(run.wait().full_kit()[0]["fl_kit_slot"], "Trust_1");
}

#[test]
fn a_run_that_waits_for_a_second_slot_does_not_hold_the_first_one_that_it_lost() {
    let mut hub = Hub::with_slots(&["Trust_1", "Trust_2"]);
    hub.execute(
        "INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'Old', now())",
    );
    let (mut winner, mut other) = (hub.session(), hub.session());
    let mut winner = winner.transaction().unwrap();
    let take = "UPDATE fl_kit_slot SET assigned_to_trust_id = (SELECT id FROM trust) WHERE slot_number = 1";
    winner.execute(take, &[]).unwrap();
    let mut other = other.transaction().unwrap();
    let row = other
        .query_one("SELECT pg_backend_pid() FROM fl_kit_slot WHERE slot_number = 2 FOR UPDATE", &[])
        .unwrap();
    let other_pid: i32 = row.get(0);
    let run = hub.program(&NEW).spawn();
    eventually("the run waits for the first slot", || hub.waiting() == 1);
    winner.commit().unwrap();
    eventually("the run waits for the second slot", || {
        hub.runs(&format!("pg_blocking_pids(pid) = ARRAY[{other_pid}]")) == 1
    });
    other
        .execute("SELECT FROM fl_kit_slot WHERE slot_number = 1 FOR UPDATE NOWAIT", &[])
        .expect("the first slot is locked");
    other.rollback().unwrap();
    assert_eq!(run.wait().full_kit()[0]["fl_kit_slot"], "Trust_2");
}
