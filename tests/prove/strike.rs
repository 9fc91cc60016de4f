//! A signal at a random instant to a process group, or to one process of it.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use super::checker::{Tally, say};
use super::random::{Random, seed};

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Whom {
    Group,
    /// One process: make, a shell of the script's, the program, the client, the sink or a tool.
    One,
    /// A process of the engine's client. The program lives on.
    Client,
}

/// Processes of a group that have not ended, by their names.
fn processes(group: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let living = pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let [state, _, its, ..] = after.split(' ').collect::<Vec<_>>()[..] else { return None };
        let name = before.split_once('(')?.1.to_owned();
        (its == group.to_string() && state != "Z").then_some((pid, name))
    });
    living.collect()
}

/// When the run with this number is struck: the first never and the second at once, so that somebody
/// gets through and somebody does not, whatever the machine's speed.
pub fn instant(n: usize, longest: Duration, random: &mut Random) -> Duration {
    let chosen = Duration::from_nanos(random.below(longest.as_nanos() as usize) as u64);
    [Duration::MAX, Duration::ZERO].get(n).copied().unwrap_or(chosen)
}

/// Waits for the instant, and strikes. Whom it met; `None` if the run was over.
pub fn strike(
    run: &mut Child,
    whom: Whom,
    instant: Duration,
    random: &mut Random,
) -> Option<String> {
    if instant == Duration::MAX {
        return None;
    }
    let group = run.id();
    let signal = random.word("KILL|KILL|INT|TERM|HUP");
    let signal = |target: String| {
        let sent = Command::new("kill").args(["-s", signal, "--", &target]).output();
        sent.unwrap().status.success()
    };
    if whom == Whom::Group {
        sleep(instant);
        let there = !processes(group).is_empty() && signal(format!("-{group}"));
        return there.then(|| "the group".to_owned());
    }
    // The program is there for a small part of a run: it is waited for in a half of the cases.
    let wanted = match whom {
        Whom::Client => "docker|docker-compose|cat",
        _ if random.once_in(2) => "register-trust|cat",
        _ => "",
    };
    let living = || {
        let mut by_name: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (pid, name) in processes(group) {
            if wanted.is_empty() || wanted.split('|').any(|wanted| wanted == name) {
                by_name.entry(name).or_default().push(pid);
            }
        }
        by_name.into_iter().collect::<Vec<_>>()
    };
    sleep(if wanted.is_empty() { instant } else { instant / 2 });
    let mut waited = wanted.is_empty();
    while run.try_wait().unwrap().is_none() {
        let groups = living();
        if !groups.is_empty() && !std::mem::replace(&mut waited, true) {
            sleep(instant / 8);
        } else if !groups.is_empty() {
            // No name is more likely than another, however many processes have it.
            let (name, pids) = random.pick(&groups);
            if signal(random.pick(&pids).to_string()) {
                return Some(name);
            }
        }
        sleep(Duration::from_millis(1));
    }
    None
}

/// Runs batches until so many were struck. `batch` tells whom it struck, and what came of it.
pub fn storm(
    what: &str,
    total: usize,
    mut batch: impl FnMut(usize, &mut Random) -> (Vec<String>, Tally),
) {
    say(&format!("{what}: {total} strikes, SEED={}", seed()));
    let (mut random, mut tally) = (Random(seed()), Tally::default());
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut round = 0;
    while met.values().sum::<usize>() < total {
        let (struck, its) = batch(round, &mut random);
        struck.into_iter().for_each(|name| *met.entry(name).or_default() += 1);
        tally += its;
        round += 1;
        let done = met.values().sum::<usize>();
        say(&format!("{what}: {done}/{total}, {tally}; struck: {met:?}"));
    }
    // A storm in which nobody got through, or everybody did, has shown nothing.
    assert!(tally.committed > 0 && tally.committed < tally.runs, "{what}: {tally}");
}
