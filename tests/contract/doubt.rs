//! doc/reference.md, "Delivery": what is said of versions and of doubts, and what is not.

use crate::support::{Answer, Hub, Ssm};

const NEW: [&str; 6] = ["--name", "A", "--code", "GSTT", "--out-ssm-parameter", "/kit"];
const ALARM: &str = "may come to hold a kit that was never registered";

/// A parameter that holds two versions of somebody else's.
fn in_use() -> Ssm {
    let ssm = Ssm::new();
    ssm.store("/kit", "one");
    ssm.store("/kit", "two");
    ssm
}

#[test]
fn every_path_warns_once_of_a_version_that_it_overwrote() {
    let mut hub = Hub::new();
    let warning = "WARNING /kit existed and was overwritten; the earlier version can still be read \
                   as /kit:2\n";
    let once = |stderr: &str| assert_eq!(stderr.matches("was overwritten").count(), 1, "{stderr}");
    // The kit is put, and taken back.
    hub.refuse_commits();
    let run = in_use().serve(hub.program(&NEW)).run().exits(1).prints("/kit\n").says(warning);
    once(&run.stderr);
    // The verdict is the first that is put.
    let program = in_use().serve(hub.program(&NEW)).without("POSTGRES_DB");
    once(&program.run().exits(1).prints("/kit\n").says(warning).stderr);
    // The kit is put and stays.
    hub.execute("DROP TRIGGER refuse ON trust");
    once(&in_use().serve(hub.program(&NEW)).run().exits(0).says(warning).stderr);
    // A kit without credentials.
    once(&in_use().serve(hub.program(&NEW)).run().exits(0).says(warning).stderr);
    // Nothing of somebody else's.
    let fresh = Ssm::new();
    fresh.serve(hub.program(&NEW)).run().exits(0).never_says("WARNING");
}

#[test]
fn what_was_never_sent_raises_no_alarm() {
    let mut hub = Hub::new();
    // Nobody is there.
    let run =
        Ssm::new().serve(hub.program(&NEW)).env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").run();
    run.exits(1).prints("").never_says(ALARM).says("cannot leave [] as the verdict either");
    // The kit is too long.
    let ssm = Ssm::new();
    let run = ssm.serve(hub.program(&NEW)).env("FL_BACKEND", "x".repeat(5000)).run().exits(1);
    run.prints("/kit\n").says("it was not sent").never_says(ALARM);
    assert_eq!(ssm.versions("/kit"), ["[]"]);
    // There is nothing to sign with.
    let ssm = Ssm::new();
    let program = ssm.serve(hub.program(&NEW)).without("AWS_ACCESS_KEY_ID");
    program.without("AWS_SECRET_ACCESS_KEY").run().exits(1).prints("").never_says(ALARM);
    assert!(ssm.requests().is_empty());
    hub.assert_untouched();
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_end_the_doubt() {
    let mut hub = Hub::new();
    for lost in
        [Answer::DropBefore, Answer::DropAfter, Answer::Garbage("<html>"), Answer::StoreLate]
    {
        let refused = Answer::Refuse(400, "AccessDeniedException", "no");
        let ssm = Ssm::new().script(&[lost.clone(), refused]);
        let run = ssm.serve(hub.program(&NEW)).run().exits(1);
        // Garbage is final: the verdict is what gets the refusal then.
        run.prints("").says(ALARM);
        hub.assert_untouched();
    }
}

#[test]
fn a_verdict_that_cannot_be_put_over_the_kit_is_no_receipt() {
    let mut hub = Hub::new();
    hub.refuse_commits();
    let ssm = Ssm::new().verdicts(Answer::Refuse(400, "AccessDeniedException", "no"));
    let run = ssm.serve(hub.program(&NEW)).run().exits(1).prints("");
    // It is there already, and not only to come.
    run.says("cannot leave [] as the verdict either")
        .says("/kit may hold a kit that was never registered: delete it");
    hub.assert_untouched();
}
