//! doc/reference.md, "Delivery": a put whose answer never came may still be stored later.

use crate::support::{Answer, Hub, Run, Ssm};

const NEW: [&str; 6] = ["--name", "A", "--code", "GSTT", "--out-ssm-parameter", "/kit"];

fn register(hub: &Hub, ssm: &Ssm) -> Run {
    ssm.serve(hub.program(&NEW)).run()
}

#[test]
fn a_failed_run_prints_no_receipt_while_a_put_of_its_kit_is_in_doubt() {
    let mut hub = Hub::new();
    hub.refuse_commits();
    let ssm = Ssm::new().script(&[Answer::StoreLate]);
    let run = register(&hub, &ssm).exits(1).prints("");
    run.says("may come to hold a kit that was never registered");
    assert_eq!(ssm.latest("/kit").unwrap(), "[]");
    // And so it does.
    assert_eq!(ssm.store_late(), 1);
    assert!(ssm.latest("/kit").unwrap().starts_with("[{"));
    hub.assert_untouched();
}

#[test]
fn a_run_that_gives_up_because_no_put_was_answered_prints_no_receipt() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::StoreLate).verdicts(Answer::Store);
    let run = register(&hub, &ssm).exits(1).prints("");
    run.says("may come to hold a kit that was never registered");
    assert!(ssm.store_late() > 1);
    hub.assert_untouched();
}

#[test]
fn a_successful_run_with_a_put_in_doubt_warns_that_the_parameter_can_reappear() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::StoreLate]);
    let run = register(&hub, &ssm).exits(0).prints("/kit\n");
    run.says("WARNING ").says("can reappear");
    let kit = ssm.latest("/kit").unwrap();
    hub.assert_registered(&serde_json::from_str(&kit).unwrap());
    // What reappears is the same kit.
    assert_eq!(ssm.store_late(), 1);
    assert_eq!(ssm.versions("/kit"), [kit.clone(), kit]);
}

#[test]
fn a_put_that_ssm_refused_leaves_no_doubt() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Refuse(400, "AccessDeniedException", "no")]);
    let run = register(&hub, &ssm).exits(1).prints("/kit\n");
    run.never_says("may come to hold");
    assert_eq!(ssm.versions("/kit"), ["[]"]);
    hub.assert_untouched();
}

#[test]
fn an_answer_that_never_ends_is_not_read_to_its_end_and_leaves_a_doubt() {
    let mut hub = Hub::new();
    for text in ["{\"Version\": 1, \"x\": \"", "        "] {
        let ssm = Ssm::new()
            .script(&[Answer::Endless(text)])
            .always(Answer::Refuse(400, "AccessDeniedException", "no"))
            .verdicts(Answer::Store);
        // Far more than a run needs, and far less than comes in ten seconds.
        let program = ssm.serve(hub.program(&NEW)).behind("ulimit -d 65536", "");
        let run = program.run().exits(1).prints("").says("nothing was registered");
        run.says("the answer has no end").says("may come to hold a kit that was never registered");
        hub.assert_untouched();
    }
}
