//! The network fails at every message: it cuts, it resets, it freezes, it is slow.

use std::thread;
use std::time::{Duration, Instant};

use super::checker::{Tally, check, say};
use super::storm::{Job, every_step, hub, side_by_side};
use crate::support::Ssm;
use crate::support::relay::{Later, Relay, Strike, When};

#[test]
fn no_kit_is_lost_when_a_connection_breaks_at_any_message() {
    for through_ssm in [false, true] {
        for strike in [Strike::Cut, Strike::Reset] {
            struck_at_every_message(&[(strike, Later::Served)], through_ssm, 4);
        }
    }
}

/// All of them wait for the program's own limits: side by side.
#[test]
fn no_kit_is_lost_when_a_connection_freezes_at_any_message() {
    thread::scope(|scope| {
        for through_ssm in [false, true] {
            let freeze = [Later::Served, Later::Held].map(|later| (Strike::Hold, later));
            scope.spawn(move || struck_at_every_message(&freeze, through_ssm, 400));
        }
    });
}

fn struck_at_every_message(strikes: &[(Strike, Later)], through_ssm: bool, at_once: usize) {
    let ssm = Ssm::new();
    let (mut hub, steps, undisturbed) = every_step(&ssm, through_ssm);
    let plans: Vec<_> = strikes
        .iter()
        .flat_map(|(strike, later)| steps.iter().map(move |step| (*step, *strike, *later)))
        // Before one and after the one before it is the same thing to a connection that freezes.
        .filter(|(step, strike, later)| {
            *strike != Strike::Hold || step.passed == (*later == Later::Held)
        })
        .collect();
    let jobs = plans.iter().enumerate().map(|(n, (step, strike, later))| {
        let relay = Relay::new().and_to(&ssm).strike(When::At(*step), *strike).later(*later);
        (Job::new(&hub, &ssm, n + 1, n + 1, through_ssm), relay)
    });
    let what =
        format!("{strikes:?} at every message, {}", if through_ssm { "SSM" } else { "stdout" });
    let runs = side_by_side(&what, at_once, jobs.collect(), |(job, relay)| {
        let (program, record) = job.split();
        let (run, struck) = relay.run(program, |_| {});
        (run, struck, record, relay)
    });
    // The hub has not heard of the ends of the frozen runs: its own limits end what they left.
    // Only for a session that waits for the rest of a batch of messages PostgreSQL has no limit: it
    // ends with its connection.
    let start = Instant::now();
    while hub.delivering() > 0 {
        assert!(start.elapsed() < Duration::from_secs(75), "the hub waits for ever");
        thread::sleep(Duration::from_millis(50));
    }
    let mut records = vec![undisturbed];
    for ((run, struck, record, _), plan) in runs.into_iter().zip(&plans) {
        assert!(struck, "{plan:?} was not reached{}", run.dump());
        // Connecting, a statement, the commit's outcome; both puts of SSM.
        assert!(run.took < Duration::from_secs(75), "{plan:?} has no end{}", run.dump());
        let next = run.stderr.contains("\nERROR next: ");
        assert!(next || run.status.success(), "{plan:?} leaves the operator alone{}", run.dump());
        records.push(record(&run, &ssm));
    }
    let tally = check(&mut hub, &records);
    say(&format!("{what}: {} runs, {tally}", records.len()));
    // Behind the commit, and where SSM is asked again, they go on.
    assert!(tally.committed > 1 && tally.committed < records.len(), "{tally}");
    assert_eq!(tally.ended, 0, "{tally}");
}

#[test]
fn a_network_that_is_slow_by_a_second_each_way_does_no_harm() {
    let (mut hub, ssm) = (hub(10), Ssm::new());
    // A second in each direction.
    let relay = Relay::new().and_to(&ssm).late(Duration::from_secs(2));
    let jobs = [false, true].map(|through_ssm| {
        let n = usize::from(through_ssm);
        let mut job = Job::new(&hub, &ssm, n, n, through_ssm);
        job.program = relay.serve(job.program);
        job
    });
    let records = side_by_side("slow", 2, jobs.into(), |job: Job| {
        let (program, record) = job.split();
        let run = program.run().exits(0);
        // Four round trips of the login and three more.
        assert!(run.took > Duration::from_secs(14), "it was not slow{}", run.dump());
        record(&run, &ssm)
    });
    let tally = Tally { runs: 2, committed: 2, ..Tally::default() };
    assert_eq!(check(&mut hub, &records), tally);
}
