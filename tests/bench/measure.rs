//! Running commands and measuring them.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Makes a command, ready to run, a new one each time: a name is registered but once.
pub type Make<'a> = Box<dyn Fn() -> Command + 'a>;

/// What is measured, in the order of the table.
pub type Commands<'a> = Vec<(&'static str, Make<'a>)>;

/// Sorted times, in ms.
pub struct Times(Vec<f64>);

impl Times {
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn quantile(&self, part: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }

    pub fn spread(&self) -> String {
        format!("{:.1} – {:.1}", self.quantile(0.1), self.quantile(0.9))
    }
}

/// Times by command.
pub type Measured = HashMap<&'static str, Times>;

/// Runs the commands in turn, so that the machine's moods hit all alike.
pub fn interleave(samples: usize, commands: &Commands, mut prepare: impl FnMut()) -> Measured {
    let mut all: HashMap<_, _> = commands.iter().map(|(label, _)| (*label, Vec::new())).collect();
    for round in 0..=samples {
        prepare();
        for (label, make) in commands {
            // The server is done with the one before.
            thread::sleep(Duration::from_millis(5));
            let took = time(make());
            // The first round warms what is cold.
            if round > 0 {
                all.get_mut(label).unwrap().push(took);
            }
        }
    }
    all.values_mut().for_each(|times| times.sort_by(f64::total_cmp));
    all.into_iter().map(|(label, times)| (label, Times(times))).collect()
}

/// From before the start of the process to its end; of pgbench, what it says itself: that is the
/// transaction with its connection, and without the process.
fn time(mut command: Command) -> f64 {
    let start = Instant::now();
    let output = command.output().unwrap();
    let took = start.elapsed().as_secs_f64() * 1e3;
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {says}", command.get_program().to_string_lossy());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let latency = stdout.split("latency average = ").nth(1);
    latency.map_or(took, |text| text.split(' ').next().unwrap().parse().unwrap())
}

/// What a run costs besides time.
#[derive(Clone, Copy)]
pub struct Cost {
    pub user: f64,
    pub system: f64,
    pub peak: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // A process may be too short to be looked at.
        let peak = if self.peak > 0.0 { format!("{:.1}", self.peak) } else { "–".to_owned() };
        write!(f, "{:.1} + {:.1} | {peak}", self.user, self.system)
    }
}

/// CPU and memory of one run. The kernel counts CPU in steps of 10 ms, so many runs are summed up.
pub fn cost(runs: usize, make: &Make, mut prepare: impl FnMut()) -> Cost {
    let mut peak: f64 = 0.0;
    let before = children();
    for _ in 0..runs {
        prepare();
        time(make());
    }
    let after = children();
    for _ in 0..10 {
        prepare();
        peak = peak.max(peak_memory(make()));
    }
    let [user, system] = [0, 1].map(|part| (after[part] - before[part]) * 10.0 / runs as f64);
    Cost { user, system, peak }
}

/// User and system time of all children that ended, in 10 ms: proc(5), `cutime` and `cstime`.
fn children() -> [f64; 2] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [fields[13], fields[14]].map(|field| field.parse().unwrap())
}

/// The high-water mark of the resident set, in MiB: the last one seen before the process ends.
/// `getrusage` would count what this process held when it forked.
fn peak_memory(mut command: Command) -> f64 {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0.0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.split_whitespace().next()) {
            peak = f64::max(peak, kib.parse::<f64>().unwrap() / 1024.0);
        }
    }
    peak
}

/// Registrations per second, `side_by_side` at any time, `each` one after the other.
pub fn throughput(side_by_side: usize, each: usize, make: &Make) -> f64 {
    let lanes: Vec<Vec<_>> =
        (0..side_by_side).map(|_| (0..each).map(|_| make()).collect()).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(|| lane.into_iter().for_each(|command| _ = time(command)));
        }
    });
    (side_by_side * each) as f64 / start.elapsed().as_secs_f64()
}
