//! SSM fails at every put, that of the kit and that of the `[]` that takes it back.

use super::checker::{check, say};
use super::storm::{Job, hub, side_by_side};
use crate::support::{Answer, Ssm};

const ANSWERS: [Answer; 7] = [
    Answer::Store,
    Answer::Refuse(400, "AccessDeniedException", "no"),
    Answer::Refuse(500, "InternalServerError", "later"),
    Answer::DropBefore,
    Answer::DropAfter,
    Answer::Hang,
    Answer::Garbage("<html>"),
];

/// What SSM answers to every put of the kit, or only to the first put of all, and then to `[]`.
#[derive(Clone, Debug)]
struct Fault {
    kit: Answer,
    once: bool,
    verdict: Answer,
}

impl Fault {
    fn ssm(&self) -> Ssm {
        let ssm = Ssm::new().verdicts(self.verdict.clone());
        if self.once {
            ssm.script(std::slice::from_ref(&self.kit))
        } else {
            ssm.always(self.kit.clone())
        }
    }

    /// Whether the kit gets there, if need be when it is put again.
    fn delivers(&self) -> bool {
        match self.kit {
            Answer::Store => true,
            Answer::Refuse(400, ..) | Answer::Garbage(_) => false,
            _ => self.once,
        }
    }
}

/// All of them wait for the program's own limits: side by side.
#[test]
fn no_kit_is_lost_when_ssm_fails_at_any_put_and_the_hub_commits_or_does_not() {
    let faults: Vec<_> = ANSWERS
        .iter()
        .flat_map(|kit| ANSWERS.iter().map(move |verdict| (kit, verdict)))
        .flat_map(|(kit, verdict)| [true, false].map(|once| (kit.clone(), once, verdict.clone())))
        .map(|(kit, once, verdict)| Fault { kit, once, verdict })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| storm(&faults, true));
        scope.spawn(|| storm(&faults, false));
    });
}

fn storm(faults: &[Fault], commits: bool) {
    let mut hub = hub(faults.len());
    if !commits {
        hub.refuse_commits();
    }
    let jobs = faults.iter().enumerate().map(|(n, fault)| {
        let ssm = fault.ssm();
        (Job::new(&hub, &ssm, n, n, true), ssm, fault.clone())
    });
    let what =
        format!("SSM fails, the hub {}", if commits { "commits" } else { "does not commit" });
    let records = side_by_side(
        &what,
        faults.len(),
        jobs.collect(),
        |(job, ssm, fault): (Job, Ssm, Fault)| {
            let (program, record) = job.split();
            let succeeds = commits && fault.delivers();
            let run = program.run();
            assert_eq!(run.status.code(), Some(i32::from(!succeeds)), "{fault:?}{}", run.dump());
            // Two calls of SSM of thirty seconds each.
            let run = run.within(70);
            record(&run, &ssm)
        },
    );
    let tally = check(&mut hub, &records);
    say(&format!("{what}: {} runs, {tally}", tally.runs));
    let delivered = faults.iter().filter(|fault| fault.delivers()).count();
    assert_eq!(tally.committed, if commits { delivered } else { 0 });
}
