//! Runs are killed, at random instants and at every step. Whatever they were at, no trust is
//! registered without its kit.

use std::time::Duration;

use super::checker::{Tally, check, say};
use super::random::{Random, number, seed};
use super::storm::{Job, every_step, hub, side_by_side, signal};
use crate::support::Ssm;
use crate::support::relay::{Relay, Strike, When};

#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Term,
    /// Stopped first: what it had sent goes on being answered.
    StopAndKill(Duration),
}

impl End {
    fn of(self, process: u32) {
        match self {
            End::Kill => signal("KILL", process),
            End::Term => signal("TERM", process),
            End::StopAndKill(pause) => {
                signal("STOP", process);
                std::thread::sleep(pause);
                signal("KILL", process);
            }
        }
    }
}

/// `KILLS=5000` in the environment asks for that many.
fn kills() -> Option<usize> {
    number("KILLS").map(|kills| kills as usize)
}

/// One hub's worth of random kills.
const BATCH: usize = 100;

#[test]
fn no_kit_is_lost_when_runs_are_killed_at_random_instants() {
    let total = kills().unwrap_or(BATCH);
    say(&format!("kills: {total} runs, SEED={}", seed()));
    let (mut random, mut tally) = (Random(seed()), Tally::default());
    while tally.runs < total {
        // Measured again and again: other storms begin and end meanwhile.
        tally += batch(BATCH.min(total - tally.runs), median(), &mut random);
        say(&format!("kills: {}/{total}, {tally}", tally.runs));
    }
    // A storm in which nobody got through, or everybody did, has shown nothing.
    assert!(tally.ended > total / 10 && tally.committed > total / 10, "{tally}");
}

/// How long a run takes that nobody kills, four at once.
fn median() -> Duration {
    let (mut hub, ssm) = (hub(16), Ssm::new());
    let jobs = (0..16).map(|n| Job::new(&hub, &ssm, n, n, n % 2 == 0)).collect();
    let runs = side_by_side("kills: measuring", 4, jobs, |job: Job| {
        let (program, record) = job.split();
        let run = program.run();
        (record(&run, &ssm), run.took)
    });
    let (records, mut took): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    assert_eq!(check(&mut hub, &records).committed, 16);
    took.sort();
    took[8]
}

fn batch(size: usize, median: Duration, random: &mut Random) -> Tally {
    let (mut hub, ssm) = (hub(size), Ssm::new());
    let jobs = (0..size).map(|run| {
        // Every fourth run is of the name before: they meet, or the second heals the first.
        let trust = if run % 4 == 3 { run - 1 } else { run };
        let job = Job::new(&hub, &ssm, trust, run, random.once_in(2));
        let instant = Duration::from_nanos(random.below(median.as_nanos() as usize * 3 / 2) as u64);
        let pause = Duration::from_micros(random.below(5_000) as u64);
        (job, instant, [End::Kill, End::Term, End::StopAndKill(pause)][random.below(3)])
    });
    let runs = side_by_side("", 4, jobs.collect(), |(job, instant, end): (Job, _, End)| {
        let (program, record) = job.split();
        let running = program.spawn();
        std::thread::sleep(instant);
        end.of(running.child.id());
        (running.wait(), record)
    });
    // Only now: a put that was under way when its run was killed counts, too.
    let records: Vec<_> =
        runs.into_iter().map(|(run, record)| record(&run, &ssm).killed()).collect();
    check(&mut hub, &records)
}

#[test]
fn no_kit_is_lost_when_runs_are_killed_at_any_step() {
    let pause = Duration::from_millis(30);
    let mut ends = vec![End::Kill];
    if kills().is_some() {
        ends.extend([End::Term, End::StopAndKill(pause)]);
    }
    for through_ssm in [false, true] {
        for end in &ends {
            killed_at_every_step(through_ssm, *end);
        }
    }
}

fn killed_at_every_step(through_ssm: bool, end: End) {
    let ssm = Ssm::new();
    let (mut hub, steps, dry) = every_step(&ssm, through_ssm);
    let jobs = steps.iter().enumerate().map(|(n, step)| {
        (
            Job::new(&hub, &ssm, n + 1, n + 1, through_ssm),
            Relay::new().and_to(&ssm).strike(When::At(*step), Strike::Hold),
        )
    });
    let what = format!("{end:?} at every step, {}", if through_ssm { "SSM" } else { "stdout" });
    let runs = side_by_side(&what, 4, jobs.collect(), |(job, relay)| {
        let (program, record) = job.split();
        let (run, struck) = relay.run(program, |process| {
            if let End::StopAndKill(_) = end {
                signal("STOP", process);
                relay.release();
            }
            end.of(process);
        });
        (run, struck, record)
    });
    let mut records = vec![dry];
    for ((run, struck, record), step) in runs.into_iter().zip(&steps) {
        assert!(struck, "{step:?} was not reached{}", run.dump());
        records.push(record(&run, &ssm).killed());
    }
    let tally = check(&mut hub, &records);
    say(&format!("{what}: {} steps, {tally}", steps.len()));
    // Nobody survives a KILL; one who is told to end does so in order.
    let ended = if let End::Term = end { 0..1 } else { steps.len() / 2 + 1..usize::MAX };
    assert!(ended.contains(&tally.ended) && tally.committed > 1, "{tally}");
}
