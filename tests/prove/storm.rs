//! Many runs at once, and what the storms share.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::checker::{Record, say};
use crate::support::relay::{Relay, Step};
use crate::support::{Hub, Program, Run, Ssm};

/// A hub with this many free slots.
pub fn hub(slots: usize) -> Hub {
    let mut hub = Hub::new();
    hub.fill_pool(slots);
    hub
}

/// A registration to come.
pub struct Job {
    pub name: String,
    parameter: Option<String>,
    pub program: Program,
}

impl Job {
    /// The registration of trust `trust` by run `run`, which alone writes to its parameter.
    pub fn new(hub: &Hub, ssm: &Ssm, trust: usize, run: usize, through_ssm: bool) -> Job {
        let name = format!("Trust {trust}");
        let parameter = through_ssm.then(|| format!("/kits/{run}"));
        let program = ssm.serve(hub.program(&["--name", &name, "--code", "GSTT"]));
        let program = match &parameter {
            Some(parameter) => program.arg("--out-ssm-parameter").arg(parameter),
            None => program,
        };
        Job { name, parameter, program }
    }

    /// What is left to be recorded of it.
    pub fn split(self) -> (Program, impl FnOnce(&Run, &Ssm) -> Record) {
        let Job { name, parameter, program } = self;
        (program, move |run: &Run, ssm: &Ssm| {
            let record = Record::of(&name, run);
            match parameter {
                Some(parameter) => record.with(ssm, &parameter),
                None => record,
            }
        })
    }
}

/// Every moment of a run's conversations, from a run that nobody disturbs; on the hub it ran on.
pub fn every_step(ssm: &Ssm, through_ssm: bool) -> (Hub, Vec<Step>, Record) {
    let hub = hub(400);
    let (program, record) = Job::new(&hub, ssm, 0, 0, through_ssm).split();
    let relay = Relay::new().and_to(ssm);
    let run = relay.serve(program).run().exits(0);
    (hub, relay.steps(), record(&run, ssm))
}

/// At how many at once they start one after the other: a crowd that starts in one moment would meet
/// the program's limits for want of a processor.
const CROWD: usize = 9;
static START: Mutex<()> = Mutex::new(());

/// Works on all of it, so many at once, and tells about every second how far it is;
/// without a name it works in silence.
pub fn side_by_side<J: Send, T: Send>(
    what: &str,
    at_once: usize,
    jobs: Vec<J>,
    work: impl Fn(J) -> T + Sync,
) -> Vec<T> {
    let total = jobs.len();
    let jobs = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new((Vec::with_capacity(total), Instant::now()));
    let worker = || {
        while let Some((n, job)) = { jobs.lock().unwrap().next() } {
            if at_once >= CROWD {
                let _turn = START.lock().unwrap();
                std::thread::sleep(Duration::from_millis(40));
            }
            let result = work(job);
            let mut done = done.lock().unwrap();
            done.0.push((n, result));
            if !what.is_empty() && done.1.elapsed() > Duration::from_secs(1) {
                done.1 = Instant::now();
                say(&format!("{what}: {}/{total}", done.0.len()));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(total) {
            scope.spawn(worker);
        }
    });
    let mut results = done.into_inner().unwrap().0;
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Sends a signal to a process that has not been waited for.
pub fn signal(signal: &str, process: u32) {
    let mut kill = std::process::Command::new("kill");
    let kill = kill.arg(format!("-{signal}")).arg(process.to_string());
    assert!(kill.status().unwrap().success(), "cannot send {signal}");
}
