//! doc/reference.md, "Time limits": an answer that does not end is not read to its end. SSM's are
//! in `doubtful_puts.rs`.

use crate::support::relay::{Strike, When};
use crate::support::{Answer, Hub, Program, Relay, Ssm};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// Far more than a run needs, and far less than comes before it has to give up.
fn in_little_memory(program: Program) -> Program {
    program.behind("ulimit -d 65536", "")
}

#[test]
fn a_hub_whose_answer_does_not_end_registers_nothing() {
    let mut hub = Hub::new();
    // A row of nearly 2 GiB, and an error as long.
    for head in [b"D\x7f\xff\xff\xff", b"E\x7f\xff\xff\xff"] {
        for when in [When::Before("BEGIN"), When::After("fl_kit_slot")] {
            let relay = Relay::new().strike(when, Strike::Flood(head));
            let run = in_little_memory(relay.serve(hub.program(&NEW))).run().fails();
            run.says("the hub's answer has no end");
            hub.assert_untouched();
        }
    }
}

#[test]
fn credentials_that_do_not_end_register_nothing() {
    let mut hub = Hub::new();
    let (ssm, endpoint) = (Ssm::new(), Ssm::new().always(Answer::Endless("{\"Token\": \"")));
    let program = hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit");
    let program = ssm.serve(program).without("AWS_ACCESS_KEY_ID").env("HOME", "/nonexistent");
    let program = program.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", endpoint.url());
    let run = in_little_memory(program).run().exits(1).prints("");
    run.says("no AWS credentials").says("nothing was registered");
    assert!(!endpoint.requests().is_empty() && ssm.requests().is_empty());
    hub.assert_untouched();
}
