//! doc/reference.md, "Time limits": every wait is bounded. And what a run weighs.

use std::net::TcpListener;

use crate::support::relay::{Strike, When};
use crate::support::{Answer, Hub, Relay, Ssm, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

#[test]
fn a_hub_that_accepts_and_falls_silent_is_given_up_after_ten_seconds() {
    let hub = Hub::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    for mode in ["prefer", "disable"] {
        let program = hub
            .program(&NEW)
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", port.as_str())
            .env("PGSSLMODE", mode);
        program.run().fails().says("no answer within 10 s").within(13);
    }
}

#[test]
fn a_connection_that_freezes_at_a_statement_is_given_up() {
    let hub = Hub::new();
    let relay = Relay::new().strike(When::Before("fl_kit_slot"), Strike::Hold);
    relay
        .serve(hub.program(&NEW))
        .run()
        .fails()
        .says("cannot find or register the trust: no answer within 32 s")
        .within(40);
}

#[test]
fn a_connection_that_freezes_at_the_commit_ends_in_time_with_or_without_an_outcome() {
    let mut hub = Hub::new();
    let relay = Relay::new().strike(When::Before("COMMIT"), Strike::Hold);
    let run = relay.serve(hub.program(&NEW)).run().exits(1).within(90);
    // The server waits in the open transaction until its own limit of a minute. Why the last question
    // had no answer depends on when it was asked.
    let run = run.says("did not say whether it was committed: no answer within 32 s; then ");
    let (_, last) = run.stderr.split_once("; then ").unwrap();
    let why = ["the transaction is still in progress", "no answer within"];
    assert!(why.iter().any(|why| last.contains(why)), "{}", run.dump());
    assert_eq!(run.stdout.lines().count(), 1, "{}", run.dump());
    eventually("the server gives up", || hub.count("trust") == 0);
}

#[test]
fn the_name_of_a_registration_that_does_not_end_is_waited_for_at_most_thirty_seconds() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::Hold);
    let first = ssm.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit")).spawn();
    eventually("the first run delivers", || !ssm.requests().is_empty());
    // Held by another session, for the first run's own limits would end it.
    let key: i64 = hub.value(
        "SELECT ((classid::bigint << 32) | objid::bigint) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    drop(first);
    let mut holder = hub.session();
    holder.execute("SELECT pg_advisory_lock($1)", &[&key]).unwrap();
    let run = hub.program(&NEW).run().fails().within(35);
    run.says(
        "cannot open the registration: canceling statement due to lock timeout (SQLSTATE 55P03)",
    )
    .says("next: find who holds the lock in the hub's pg_stat_activity, and run again");
    drop(holder);
    hub.assert_untouched();
}

#[test]
fn a_reader_of_stdout_that_does_not_read_is_waited_for_at_most_thirty_seconds() {
    let mut hub = Hub::new();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &vec![b'x'; 64 * 1024]).unwrap();
    // The kit, and then the verdict.
    let run = hub.program(&NEW).stdout(writer).run().exits(1).within(90);
    run.says("cannot deliver to stdout: nobody reads it; nothing was registered")
        .says("cannot leave [] as the verdict either: cannot deliver to stdout: nobody reads it");
    hub.assert_untouched();
}

#[test]
fn slots_that_stay_locked_are_waited_for_at_most_thirty_seconds() {
    let mut hub = Hub::with_slots(&["Trust_1"]);
    let mut other = hub.session();
    let mut transaction = other.transaction().unwrap();
    transaction.execute("SELECT FROM fl_kit_slot FOR UPDATE", &[]).unwrap();
    let run = hub.program(&NEW).arg("-v").run().fails().within(35);
    run.says("DEBUG waiting for the slots that other registrations hold").says(
        "cannot wait for a free slot: canceling statement due to lock timeout (SQLSTATE 55P03)",
    );
    transaction.rollback().unwrap();
    hub.assert_untouched();
}

#[test]
fn a_table_that_stays_locked_is_waited_for_at_most_thirty_seconds() {
    let mut hub = Hub::new();
    let mut migration = hub.session();
    let mut transaction = migration.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE trust IN ACCESS EXCLUSIVE MODE").unwrap();
    let run = hub.program(&NEW).run().fails().within(35);
    run.says("(SQLSTATE 55P03)");
    transaction.rollback().unwrap();
    hub.assert_untouched();
}

#[test]
fn a_statement_that_takes_too_long_is_ended_by_the_server() {
    let mut hub = Hub::new();
    hub.execute(
        "CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
         CREATE TRIGGER sleepy BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION sleepy()",
    );
    hub.program(&NEW).run().fails().says("statement timeout (SQLSTATE 57014)").within(35);
    hub.assert_untouched();
}

#[test]
fn the_server_ends_a_transaction_whose_client_stopped_after_a_minute() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::Hold);
    let run = ssm.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit")).spawn();
    eventually("the run delivers", || !ssm.requests().is_empty());
    assert_eq!(hub.delivering(), 1);
    let pid = run.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    std::thread::sleep(std::time::Duration::from_secs(50));
    hub.assert_no_session();
    drop(run);
    hub.assert_untouched();
}

#[test]
fn a_run_needs_at_most_16_mib_even_with_ssm() {
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Refuse(500, "x", "y"), Answer::Hold]);
    let run = ssm.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit")).spawn();
    eventually("the run delivers", || ssm.requests().len() == 2);
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.child.id())).unwrap();
    ssm.release();
    run.wait().exits(0);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak <= 16 * 1024, "{peak} KiB at the peak");
}
