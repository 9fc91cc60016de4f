//! doc/reference.md, "The commit": the program asks for the commit's outcome, and assumes nothing.

use crate::support::relay::{
    Later,
    Strike::{Cut, Hold},
    When::*,
};
use crate::support::{Hub, Relay, Ssm};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

#[test]
fn a_commit_that_was_done_before_the_connection_broke_is_a_success() {
    let mut hub = Hub::new();
    let relay = Relay::new().strike(After("COMMIT"), Cut);
    let run = relay.serve(hub.program(&NEW)).run();
    hub.assert_registered(&run.full_kit());
    assert_eq!(relay.connections(), 2);
}

#[test]
fn a_commit_that_never_reached_the_server_is_a_failure() {
    let mut hub = Hub::new();
    let relay = Relay::new().strike(Before("COMMIT"), Cut);
    let run = relay
        .serve(hub.program(&NEW))
        .run()
        .exits(1)
        .says("the hub did not commit")
        .says("nothing was registered");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("[{") && lines[1] == "[]", "{}", run.dump());
    hub.assert_untouched();
}

#[test]
fn after_a_failed_commit_the_parameter_holds_an_empty_array() {
    let mut hub = Hub::new();
    let ssm = Ssm::new();
    let relay = Relay::new().strike(Before("COMMIT"), Cut);
    let run =
        ssm.serve(relay.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit"))).run();
    run.exits(1).prints("/kit\n").says("the hub did not commit");
    let versions = ssm.versions("/kit");
    assert!(
        versions.len() == 2 && versions[0].starts_with("[{") && versions[1] == "[]",
        "{versions:?}"
    );
    hub.assert_untouched();
}

#[test]
fn a_commit_that_was_done_before_the_connection_broke_gives_a_receipt() {
    let hub = Hub::new();
    let ssm = Ssm::new();
    let relay = Relay::new().strike(After("COMMIT"), Cut);
    let run =
        ssm.serve(relay.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit"))).run();
    run.exits(0).prints("/kit\n");
    assert_eq!(ssm.versions("/kit").len(), 1);
}

#[test]
fn without_an_answer_the_kit_is_left_in_place_and_the_operator_is_told_how_to_find_out() {
    for when in [After("COMMIT"), Before("COMMIT")] {
        let mut hub = Hub::new();
        let relay = Relay::new().strike(when, Cut).later(Later::Closed);
        let run = relay.serve(hub.program(&NEW)).run().exits(1).within(25);
        let run = run
            .says("did not say whether it was committed")
            .says("left in place")
            .never_says("nothing was registered");
        let kit: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let id = kit[0]["trust_id"].as_str().unwrap();
        let next = "next: keep the kit, and ask when the hub's primary is up: register-trust";
        run.says(&format!("{next} --name NAME --check-kit {id}\n"));
        let answer = hub.program(&["--name", "A", "--check-kit", id]).run();
        if when == After("COMMIT") {
            answer.exits(0).prints("valid\n");
            hub.assert_registered(&kit);
        } else {
            answer.exits(1).prints("worthless\n");
            hub.assert_untouched();
        }
    }
}

/// Something hides it, or somebody has deleted it.
#[test]
fn a_committed_trust_whose_row_cannot_be_seen_is_an_unknown_outcome() {
    let mut hub = Hub::new();
    let mut other = hub.session();
    let relay = Relay::new().strike(After("COMMIT"), Cut).strike(Before("pg_is_in_recovery"), Hold);
    let (run, struck) = relay.run(hub.program(&NEW), |_| {
        let hide = "ALTER TABLE trust RENAME TO trusts; CREATE VIEW trust AS SELECT * FROM trusts WHERE false";
        other.batch_execute(hide).unwrap();
        relay.release();
    });
    assert!(struck, "{}", run.dump());
    other.batch_execute("DROP VIEW trust; ALTER TABLE trusts RENAME TO trust").unwrap();
    let run = run.exits(1).says("then its transaction is committed, and its row not seen");
    let run = run.says("left in place").never_says("nothing was registered");
    hub.assert_registered(&serde_json::from_str(&run.stdout).unwrap());
}

#[test]
fn without_an_answer_there_is_no_receipt_and_the_parameter_keeps_the_kit() {
    let hub = Hub::new();
    let ssm = Ssm::new();
    let relay = Relay::new().strike(After("COMMIT"), Cut).later(Later::Closed);
    let run =
        ssm.serve(relay.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit"))).run();
    run.exits(1).prints("").says("did not say whether it was committed");
    assert_eq!(ssm.versions("/kit").len(), 1);
    assert!(ssm.latest("/kit").unwrap().starts_with("[{"));
}

#[test]
fn a_commit_that_the_server_refuses_is_a_failure() {
    let mut hub = Hub::new();
    hub.refuse_commits();
    let run = hub
        .program(&NEW)
        .run()
        .exits(1)
        .says("the hub did not commit: not today (SQLSTATE P0001); nothing was registered");
    assert_eq!(run.stdout.lines().last(), Some("[]"), "{}", run.dump());
    hub.assert_untouched();
}

#[test]
fn a_session_that_the_server_ends_during_the_delivery_is_a_failure() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[crate::support::Answer::Hold]);
    let run = ssm.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit")).spawn();
    crate::support::eventually("the run delivers", || !ssm.requests().is_empty());
    hub.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'register-trust'",
    );
    ssm.release();
    run.wait()
        .exits(1)
        .prints("/kit\n")
        .says("the hub did not commit: terminating connection due to administrator command");
    assert_eq!(ssm.latest("/kit").unwrap(), "[]");
    hub.assert_untouched();
}
