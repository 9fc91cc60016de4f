//! doc/reference.md, "Command line": `--check-kit` says in one word whether a kit is valid.

use crate::support::hub::{Cluster, Pool, Pooler, Standby};
use crate::support::{Hub, Program, Relay, Run, eventually};

const NOBODY: &str = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";

fn check(hub: &Hub, name: &str, id: &str) -> Program {
    hub.program(&["--name", name, "--check-kit", id])
}

fn register(hub: &Hub, name: &str) -> String {
    let kit = hub.program(&["--name", name, "--code", "GSTT"]).run().full_kit();
    kit[0]["trust_id"].as_str().unwrap().to_owned()
}

/// It cannot say, and says why.
#[track_caller]
fn cannot_say(run: Run) -> Run {
    run.exits(1).prints("unknown\n").says("ERROR cannot tell whether the kit is valid: ")
}

#[test]
fn a_kit_is_valid_if_a_trust_of_that_name_has_its_id_and_worthless_otherwise() {
    let mut hub = Hub::new();
    let (first, other) = (register(&hub, "A"), register(&hub, "B"));
    // Older hubs allowed several of one name: any of them counts, not the oldest alone.
    hub.execute(&format!(
        "INSERT INTO trust (id, name, created_at) VALUES ('{NOBODY}', 'A', now() + interval '1 day')"
    ));
    for id in [&first, &first.to_uppercase(), NOBODY] {
        check(&hub, " A ", id).run().exits(0).prints("valid\n");
    }
    check(&hub, "A", &other).run().exits(1).prints("worthless\n").never_says("ERROR");
    check(&hub, "C", NOBODY).run().exits(1).prints("worthless\n");
    hub.assert_no_session();
}

#[test]
fn a_registration_of_that_name_is_waited_for() {
    let mut hub = Hub::new();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &vec![b'x'; 64 * 1024]).unwrap();
    let run = hub.program(&["--name", "A", "--code", "X"]).stdout(writer).spawn();
    eventually("the run delivers", || hub.delivering() == 1);
    let question = check(&hub, "A", NOBODY).spawn();
    eventually("the question waits", || hub.waiting() == 1);
    std::io::Read::read_exact(&mut reader, &mut [0; 64 * 1024]).unwrap();
    run.wait().exits(0);
    question.wait().exits(1).prints("worthless\n");
}

#[test]
fn nobody_but_the_primary_says_what_a_kit_is_worth() {
    let cluster = Cluster::own("check-kit", &[]);
    let mut hub = Hub::on(cluster);
    let id = register(&hub, "A");
    let standby = Standby::of(cluster);
    standby.catch_up(&mut hub);
    for id in [&id, NOBODY] {
        cannot_say(standby.serve(check(&hub, "A", id)).run()).says("standby");
    }
    // What it was sent and has not replayed it does not see; after its promotion it does.
    standby.pause_replay();
    let late = register(&hub, "B");
    let asked = standby.serve(check(&hub, "B", &late)).run();
    cannot_say(asked);
    standby.promote();
    hub.admin = standby.session(&hub);
    eventually("it is promoted", || hub.value("SELECT NOT pg_is_in_recovery()"));
    standby.serve(check(&hub, "B", &late)).run().exits(0).prints("valid\n");
}

#[test]
fn a_kit_that_the_hub_cannot_be_asked_about_is_unknown() {
    let mut hub = Hub::new();
    let id = register(&hub, "A");
    cannot_say(check(&hub, "A", &id).env("DB_PORT", "1").run());
    cannot_say(check(&hub, "A", &id).without("POSTGRES_DB").run()).says("POSTGRES_DB");
    cannot_say(check(&hub, "A", &id).env("LOG_LEVEL", "LOUD").run()).says("LOG_LEVEL");
    // The lock of the name is not held where a pooler runs the question elsewhere.
    let relay = Relay::new().rewrite("SAVEPOINT claim;", "ROLLBACK;       ");
    cannot_say(relay.serve(check(&hub, "A", NOBODY)).env("PGSSLMODE", "disable").run());
    cannot_say(Pooler::before(hub.cluster, Pool::Statements).serve(check(&hub, "A", NOBODY)).run());
    // A row that a policy hides is there all the same.
    hub.execute(
        "DROP ROLE IF EXISTS blind; CREATE ROLE blind LOGIN PASSWORD 'x';
         GRANT SELECT ON trust, fl_kit_slot TO blind;
         ALTER TABLE trust ENABLE ROW LEVEL SECURITY;
         CREATE POLICY none ON trust TO blind USING (false)",
    );
    let run =
        check(&hub, "A", &id).env("POSTGRES_USER", "blind").env("POSTGRES_PASSWORD", "x").run();
    cannot_say(run).says("policy");
    hub.execute("DROP OWNED BY blind; DROP ROLE blind");
}

#[test]
fn the_right_to_read_is_enough_to_check_a_kit() {
    let mut hub = Hub::new();
    let id = register(&hub, "A");
    // The trigger matters only to somebody who registers.
    hub.execute(
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'x';
         GRANT SELECT (id, name, created_at) ON trust TO reader;
         GRANT SELECT (slot_name, slot_number, assigned_to_trust_id) ON fl_kit_slot TO reader;
         CREATE FUNCTION alter_hash() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.api_key_hash = 'x'; RETURN NEW; END $$;
         CREATE TRIGGER alter_hash BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION alter_hash()",
    );
    let reader = |program: Program| {
        program.env("POSTGRES_USER", "reader").env("POSTGRES_PASSWORD", "x").run()
    };
    reader(check(&hub, "A", &id)).exits(0).prints("valid\n");
    reader(check(&hub, "A", NOBODY)).exits(1).prints("worthless\n");
    let found = reader(hub.program(&["--name", "A", "--require-existing"])).metadata_only_kit();
    assert_eq!(found[0]["trust_id"], id.as_str());
    reader(hub.program(&["--name", "B", "--require-existing"])).fails().says("no trust \"B\"");
    hub.execute("DROP OWNED BY reader; DROP ROLE reader");
}

#[test]
fn no_other_option_goes_with_check_kit() {
    let other: [&[&str]; 7] = [
        &["--code", "X"],
        &["--code="],
        &["--region", "X"],
        &["--require-existing"],
        &["--await-ack"],
        &["--out-ssm-parameter", "/x"],
        &["--check-kit", NOBODY],
    ];
    for other in other {
        let arguments = [&["--name", "A", "--check-kit", NOBODY], other].concat();
        Program::new(&arguments).run().exits(2).prints("").says("usage: ");
    }
    for id in ["", "x", "6d0d9d8e3f6e4b4e9d6a0d5c8b9a7f10", "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f1g"]
    {
        Program::new(&["--name", "A", "--check-kit", id]).run().exits(2).prints("");
    }
}
