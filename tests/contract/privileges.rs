//! doc/deploy.md, "The role on the hub": what the role needs on the hub, column by column
//! (`sql/grants.sql`).

use crate::support::{Hub, Program, Run};

const NEW: [&str; 4] = ["--name", "New", "--code", "N"];
const OLD: [&str; 2] = ["--name", "Old"];
const PASSWORD: &str = "of the role";

/// The run that needs a privilege.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    /// That of a trust that is there.
    Look,
    Register,
    /// One that finds no slot in the pool.
    Reconcile,
}

/// The contract's list: privilege, table, columns, and the first run that needs them.
const LEAST: [(&str, &str, &[&str], Need); 7] = [
    ("SELECT", "trust", &["id", "name", "created_at"], Need::Look),
    (
        "INSERT",
        "trust",
        &["id", "name", "code", "region", "api_key_hash", "created_at"],
        Need::Register,
    ),
    ("SELECT", "fl_kit_slot", &["slot_name", "slot_number", "assigned_to_trust_id"], Need::Look),
    ("UPDATE", "fl_kit_slot", &["assigned_to_trust_id"], Need::Register),
    ("UPDATE", "fl_kit_slot", &["assigned_at"], Need::Register),
    ("INSERT", "fl_kit_slot", &["slot_name", "slot_number"], Need::Reconcile),
    (
        "INSERT",
        "trusts_audit",
        &["id", "trust_id", "trust_name", "action", "audit_date"],
        Need::Register,
    ),
];

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A hub on which the trust `Old` is registered, with a role that may do nothing yet.
struct Guarded {
    hub: Hub,
    role: String,
}

impl Guarded {
    fn new() -> Guarded {
        let mut hub = Hub::new();
        // A name that has to be quoted.
        let role = format!("The \"Least\" of {}", hub.database);
        hub.execute(&format!("CREATE ROLE {} LOGIN PASSWORD '{PASSWORD}'", quoted(&role)));
        hub.program(&["--name", "Old", "--code", "O"]).run().full_kit();
        Guarded { hub, role }
    }

    /// With the script's grants.
    fn least() -> Guarded {
        let guarded = Guarded::new();
        guarded.run_grants();
        guarded
    }

    fn run_grants(&self) {
        let role = format!("role={}", self.role);
        let (granted, said) = self.hub.psql("sql/grants.sql", &["-v", &role]);
        assert!(granted, "{said}");
    }

    /// A statement in which `ROLE` is the role.
    fn execute(&mut self, sql: &str) {
        self.hub.execute(&sql.replace("ROLE", &quoted(&self.role)));
    }

    fn program(&self, arguments: &[&str]) -> Program {
        let program = self.hub.program(arguments).env("POSTGRES_USER", &self.role);
        program.env("POSTGRES_PASSWORD", PASSWORD)
    }

    fn reconcile(&self) -> Run {
        self.program(&NEW).env("FL_KIT_SLOT_NAMES", r#"["Trust_1", "Trust_77"]"#).run()
    }

    /// Takes all free slots out of the pool.
    fn drain(&mut self) {
        self.hub.execute("DELETE FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL");
    }

    fn id_of_old(&mut self) -> String {
        self.hub.value("SELECT id::text FROM trust WHERE name = 'Old'")
    }

    /// All rows, as one text.
    fn rows(&mut self) -> String {
        self.hub.value(
            "SELECT string_agg(line, ' ' ORDER BY line) FROM (
                 SELECT trust::text AS line FROM trust
                 UNION ALL SELECT fl_kit_slot::text FROM fl_kit_slot
                 UNION ALL SELECT trusts_audit::text FROM trusts_audit) AS lines",
        )
    }

    /// Runs this and sees it refused; nothing was changed.
    #[track_caller]
    fn refused(&mut self, what: &str, run: impl FnOnce(&Guarded) -> Run) {
        let before = self.rows();
        let run = run(self).fails();
        let run = run.says("permission denied for table").says("(SQLSTATE 42501)");
        run.says("what sql/grants.sql lists");
        assert_eq!(self.rows(), before, "without {what}");
        self.hub.assert_no_session();
    }
}

#[test]
fn the_script_grants_what_the_contract_lists_and_nothing_else_however_often_it_runs() {
    let mut guarded = Guarded::least();
    let mut expected: Vec<String> = LEAST
        .iter()
        .flat_map(|(privilege, table, columns, _)| {
            columns.iter().map(move |column| format!("{table} {privilege} {column}"))
        })
        .collect();
    expected.sort();
    for _ in 0..2 {
        let granted = guarded.hub.admin.query(
            "SELECT concat_ws(' ', table_name, privilege_type, column_name)
               FROM information_schema.column_privileges WHERE grantee = $1",
            &[&guarded.role],
        );
        let mut granted: Vec<String> = granted.unwrap().iter().map(|row| row.get(0)).collect();
        granted.sort();
        assert_eq!(granted, expected);
        guarded.run_grants();
    }
    let whole_tables =
        format!("information_schema.role_table_grants WHERE grantee = '{}'", guarded.role);
    assert_eq!(guarded.hub.count(&whole_tables), 0, "a whole table is granted");
    let (granted, said) = guarded.hub.psql("sql/grants.sql", &["-v", "role=nobody at all"]);
    assert!(!granted && said.contains("does not exist"), "{said}");
}

#[test]
fn with_the_least_privileges_everything_works() {
    let mut guarded = Guarded::least();
    let kit = guarded.program(&["--name", "New", "--code", "N", "--region", "R"]).run().full_kit();
    guarded.hub.assert_registered(&kit);
    guarded.program(&OLD).run().metadata_only_kit();
    guarded.program(&[&OLD[..], &["--require-existing"]].concat()).run().metadata_only_kit();
    let check = |id: &str| guarded.program(&["--name", "New", "--check-kit", id]).run();
    check(kit[0]["trust_id"].as_str().unwrap()).exits(0).prints("valid\n");
    check("6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10").exits(1).prints("worthless\n");
    let (looked, said) = psql_as_role(&guarded, "sql/status.sql");
    assert!(looked && said.contains("Trust_2"), "{said}");
    guarded.drain();
    let name = ["--name", "Reconciled", "--code", "R"];
    let run = guarded.program(&name).env("FL_KIT_SLOT_NAMES", r#"["Trust_77"]"#).run();
    assert_eq!(run.full_kit()[0]["fl_kit_slot"], "Trust_77");
}

/// The answer to an unknown outcome is asked for with the same privileges.
#[test]
fn with_the_least_privileges_a_commit_whose_answer_is_lost_is_asked_for() {
    use crate::support::Relay;
    use crate::support::relay::{Strike, When};
    let mut guarded = Guarded::least();
    let relay = Relay::new().strike(When::After("COMMIT"), Strike::Cut);
    let run = relay.serve(guarded.program(&NEW)).env("PGSSLMODE", "disable").run();
    assert!(relay.connections() > 1, "nobody was asked{}", run.dump());
    guarded.hub.assert_registered(&run.full_kit());
}

#[test]
fn without_any_one_column_of_the_grants_the_run_that_needs_it_fails_and_names_the_script() {
    let mut guarded = Guarded::least();
    for (privilege, table, columns, need) in LEAST {
        for column in columns {
            let what = format!("{privilege} ({column}) ON {table}");
            if need == Need::Reconcile {
                guarded.drain();
            }
            guarded.execute(&format!("REVOKE {what} FROM ROLE"));
            guarded.refused(&what, |guarded| match need {
                Need::Look => guarded.program(&OLD).arg("--require-existing").run(),
                Need::Register => guarded.program(&NEW).run(),
                Need::Reconcile => guarded.reconcile(),
            });
            guarded.execute(&format!("GRANT {what} TO ROLE"));
            guarded.hub.fill_pool(10);
        }
    }
    // With all of them back, the same runs succeed.
    guarded.program(&OLD).arg("--require-existing").run().metadata_only_kit();
    guarded.drain();
    assert_eq!(guarded.reconcile().full_kit()[0]["fl_kit_slot"], "Trust_77");
}

#[test]
fn without_the_insert_for_the_reconcile_a_pool_that_somebody_else_fills_is_enough() {
    let mut guarded = Guarded::least();
    guarded.execute("REVOKE INSERT (slot_name, slot_number) ON fl_kit_slot FROM ROLE");
    let kit = guarded.program(&NEW).run().full_kit();
    guarded.hub.assert_registered(&kit);
}

#[test]
fn to_look_for_a_trust_or_check_a_kit_select_on_two_tables_is_enough() {
    let mut guarded = Guarded::new();
    guarded.execute("GRANT SELECT ON trust, fl_kit_slot TO ROLE");
    looks(&mut guarded);
    let mut guarded = Guarded::new();
    guarded.execute(
        "GRANT SELECT (id, name, created_at) ON trust TO ROLE;
         GRANT SELECT (slot_name, slot_number, assigned_to_trust_id) ON fl_kit_slot TO ROLE",
    );
    looks(&mut guarded);
    // Nothing is inserted by these, so that no trigger stands in their way.
    trigger(&mut guarded, "RETURN NEW");
    looks(&mut guarded);
}

fn looks(guarded: &mut Guarded) {
    let id = guarded.id_of_old();
    let run = guarded.program(&OLD).arg("--require-existing").run();
    assert_eq!(run.metadata_only_kit()[0]["trust_id"], *id);
    assert_eq!(run.metadata_only_kit()[0]["fl_kit_slot"], "Trust_1");
    let run = guarded.program(&[&NEW[..], &["--require-existing"]].concat()).run().fails();
    run.says("no trust \"New\" is registered");
    guarded.program(&[&OLD[..], &["--check-kit", &id]].concat()).run().exits(0).prints("valid\n");
    let other = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    let run = guarded.program(&[&OLD[..], &["--check-kit", other]].concat()).run();
    run.exits(1).prints("worthless\n");
    guarded.refused("INSERT", |guarded| guarded.program(&NEW).run());
}

#[test]
fn a_kit_cannot_be_checked_without_select_and_the_script_is_named() {
    let mut guarded = Guarded::least();
    let id = guarded.id_of_old();
    for column in ["id", "name"] {
        guarded.execute(&format!("REVOKE SELECT ({column}) ON trust FROM ROLE"));
        let run = guarded.program(&[&OLD[..], &["--check-kit", &id]].concat()).run().exits(1);
        run.prints("unknown\n").says("permission denied").says("sql/grants.sql");
        guarded.execute(&format!("GRANT SELECT ({column}) ON trust TO ROLE"));
    }
}

/// A trigger before each insert of a trust, with this body.
fn trigger(guarded: &mut Guarded, body: &str) {
    guarded.hub.execute(&format!(
        "CREATE OR REPLACE FUNCTION before_insert() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN {body}; END $$;
         DROP TRIGGER IF EXISTS before_insert ON trust;
         CREATE TRIGGER before_insert BEFORE INSERT ON trust
             FOR EACH ROW EXECUTE FUNCTION before_insert()"
    ));
}

#[test]
fn a_hash_that_the_role_may_not_read_back_is_trusted_only_where_no_trigger_can_alter_it() {
    let mut guarded = Guarded::least();
    trigger(&mut guarded, "RETURN NEW");
    let before = guarded.rows();
    let run = guarded.program(&NEW).run().fails().says("a trigger that can alter the key's hash");
    run.says("GRANT SELECT (api_key_hash) ON trust").says("sql/grants.sql");
    assert_eq!(guarded.rows(), before);
    // A trust that is there needs no hash.
    guarded.program(&OLD).run().metadata_only_kit();
    // The grant that the message asks for.
    guarded.execute("GRANT SELECT (api_key_hash) ON trust TO ROLE");
    let kit = guarded.program(&NEW).run().full_kit();
    guarded.hub.assert_registered(&kit);
    trigger(&mut guarded, "NEW.api_key_hash := 'altered'; RETURN NEW");
    let before = guarded.rows();
    let run = guarded.program(&["--name", "Newer", "--code", "N"]).run().fails();
    run.says("did not keep the trust's row");
    assert_eq!(guarded.rows(), before);
    // A trigger that is off, or fires only before updates, alters nothing.
    guarded.execute(
        "REVOKE SELECT (api_key_hash) ON trust FROM ROLE;
         ALTER TABLE trust DISABLE TRIGGER before_insert;
         CREATE TRIGGER before_update BEFORE UPDATE ON trust
             FOR EACH ROW EXECUTE FUNCTION before_insert()",
    );
    let kit = guarded.program(&["--name", "Newer", "--code", "N"]).run().full_kit();
    guarded.hub.assert_registered(&kit);
    // One that fires afterwards can.
    guarded.execute(
        "CREATE TRIGGER after_insert AFTER INSERT ON trust
             FOR EACH ROW EXECUTE FUNCTION before_insert()",
    );
    let run = guarded.program(&["--name", "Newest", "--code", "N"]).run().fails();
    run.says("a trigger that can alter the key's hash");
}

/// What psql says on stdout to this role.
fn psql_as_role(guarded: &Guarded, script: &str) -> (bool, String) {
    let env = &guarded.hub.cluster.env;
    let output = std::process::Command::new(crate::support::hub::postgres_bin().join("psql"))
        .args(["-X", "-q", "-h", &env["DB_HOST"], "-p", &env["DB_PORT"], "-U", &guarded.role])
        .args(["-d", &guarded.hub.database, "-f"])
        .arg(crate::support::root().join(script))
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}
