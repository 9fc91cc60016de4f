//! Storms at the ends: at random instants a run of the scripts loses its whole process group, one
//! process of it, or the client of its engine. Then the next run settles what was left, and every
//! committed trust is compared with every kit file. `GROUP_KILLS`, `PROCESS_KILLS`, `CLIENT_KILLS`
//! and `ECS_RANDOM_KILLS` set how many.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use super::checker::{Record, Tally, check};
use super::random::{Random, number};
use super::storm::side_by_side;
use super::strike::{Whom, instant, storm, strike};
use crate::contract::ecs_faults;
use crate::contract::hand_over::{Container, Place, text, with};
use crate::model::log;
use crate::support::Hub;
use crate::support::hub::Cluster;

const BATCH: usize = 20;

/// Every third run hands its kit to a sink.
const SINK: (&str, &str) = ("KIT_SINK", "cat >\"$(mktemp \"sunk/$KITS.XXXXXX\")\" && sleep 0.05");

/// A run of `make register-trust-1` under a name of its own, with a folder of its own.
struct Way {
    name: String,
    kits: String,
    env: Vec<(&'static str, String)>,
}

impl Way {
    fn new(n: usize, env: &[(&'static str, String)], sinks: bool) -> Way {
        let (name, kits) = (format!("Trust {n}"), format!("kits-{n}"));
        let mut env = env.to_vec();
        env.extend([("TRUST_1_NAME", name.clone()), ("KITS", kits.clone())]);
        if sinks && n.is_multiple_of(3) {
            env.push((SINK.0, SINK.1.to_owned()));
        }
        Way { name, kits, env }
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = place.command(&["make", "register-trust-1"], &with(&self.env, &[]));
        if self.env.iter().any(|(key, _)| *key == "HUB_DIR") {
            command.env_remove("DB_HOST");
        }
        command.process_group(0);
        command
    }

    /// Every whole kit that the run's owner has, and the runs that may have left it.
    fn records(
        &self,
        place: &Place,
        struck: &Output,
        next: Option<(&Output, &[Record])>,
    ) -> Vec<Record> {
        let sunk = place.kits("sunk").into_iter().filter(|(path, _)| {
            path.file_stem().is_some_and(|stem| stem.to_str() == Some(&self.kits))
        });
        let found = place.kits(&self.kits).into_iter().chain(sunk);
        let mut records: Vec<Record> = Vec::new();
        for (_, kit) in found {
            let stdout = format!("{kit}\n");
            if records.iter().any(|record| record.stdout == stdout) {
                continue;
            }
            let known =
                |(_, before): &(&Output, &[Record])| !before.iter().any(|it| it.stdout == stdout);
            let (run, exit) =
                next.filter(known).map_or((struck, None), |(next, _)| (next, Some(0)));
            let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
            records.push(self.record(stdout, stderr, exit));
        }
        if records.is_empty() {
            records.push(self.record(String::new(), text(struck), None));
        }
        records
    }

    /// The valid kit of the trust, which is where a run that succeeds leaves it.
    fn settled(&self, place: &mut Place) -> Record {
        let id = place.id(&self.name).expect("a run that succeeds registers");
        let sinks = self.env.iter().any(|(key, _)| *key == SINK.0);
        let kits = place.kits(if sinks { "sunk" } else { &self.kits });
        let kit = kits.into_iter().find(|(path, kit)| {
            kit[0]["trust_id"] == *id && (sinks || path.ends_with("trust-1.json"))
        });
        let (_, kit): (_, Value) = kit.unwrap_or_else(|| panic!("LOST: the kit of {}", self.name));
        self.record(format!("{kit}\n"), String::new(), Some(0))
    }

    /// What somebody got, and from a run that ended so; `None`: it was struck.
    fn record(&self, stdout: String, stderr: String, exit: Option<i32>) -> Record {
        let (name, killed) = (self.name.clone(), exit.is_none());
        Record { name, killed, exit, stdout, stderr, parameter: None }
    }
}

/// One place's worth of strikes: all that is left is compared, then settled, and compared again.
fn batch(
    place: &mut Place,
    env: &[(&'static str, String)],
    whom: Whom,
    random: &mut Random,
) -> (Vec<String>, Tally) {
    const MEASURED: usize = 4;
    place.hub.fill_pool(2 * BATCH + MEASURED);
    fs::create_dir(place.dir.join("sunk")).unwrap();
    let sinks = whom != Whom::Client;
    let ways: Vec<_> = (0..BATCH + MEASURED).map(|n| Way::new(n, env, sinks)).collect();
    let (measured, ways) = ways.split_at(MEASURED);
    let jobs = measured.iter().map(|way| way.command(place)).collect();
    let took = side_by_side("", 2, jobs, |mut run: Command| {
        let start = Instant::now();
        let run = run.output().unwrap();
        assert!(run.status.success(), "{}", text(&run));
        start.elapsed()
    });
    let longest = took.into_iter().min().unwrap() * 11 / 10;
    let jobs = ways.iter().enumerate().map(|(n, way)| {
        let instant = instant(n, longest, random);
        (way.command(place), instant, Random(random.below(usize::MAX) as u64))
    });
    let jobs = jobs.collect();
    let struck = side_by_side("", 2, jobs, |(mut run, instant, mut random): (Command, _, _)| {
        let mut run = run.spawn().unwrap();
        let met = strike(&mut run, whom, instant, &mut random);
        // This ends with the last process that has the run's stderr.
        (met, run.wait_with_output().unwrap())
    });
    let measured: Vec<_> = measured.iter().map(|way| way.settled(place)).collect();
    let mut records: Vec<Vec<Record>> = Vec::new();
    for (way, (_, run)) in ways.iter().zip(&struck) {
        log::assert_known(&text(run), !sinks);
        records.push(way.records(place, run, None));
    }
    let all = |records: &[Vec<Record>]| [&measured[..], &records.concat()].concat();
    let mut tally = check(&mut place.hub, &all(&records));
    tally.ended = struck.iter().filter(|(met, _)| met.is_some()).count();
    (tally.runs, tally.committed) = (BATCH, tally.committed - MEASURED);

    let jobs = ways.iter().map(|way| way.command(place)).collect();
    let next = side_by_side("", 2, jobs, |mut run: Command| run.output().unwrap());
    for (((way, next), (_, run)), before) in ways.iter().zip(&next).zip(&struck).zip(&mut records) {
        assert!(next.status.success(), "{}\nand then {}", text(run), text(next));
        log::assert_known(&text(next), !sinks);
        let handed = way.settled(place);
        *before = way.records(place, run, Some((next, before)));
        assert!(before.iter().any(|record| record.stdout == handed.stdout), "{}", text(next));
    }
    assert_eq!(check(&mut place.hub, &all(&records)).committed, BATCH + MEASURED);
    (struck.into_iter().filter_map(|(met, _)| met).collect(), tally)
}

fn asked(variable: &str, otherwise: usize) -> usize {
    number(variable).map_or(otherwise, |kills| kills as usize)
}

/// In turn on a hub that `DB_HOST` names and on an embedded one.
fn on_both_hubs(what: &str, total: usize, whom: Whom) {
    let cluster = Cluster::own(what, &[]);
    let mut embedded = Place::with(Hub::embedded(cluster));
    let env = [("HUB_DIR", cluster.dir.to_str().unwrap().to_owned())];
    storm(what, total, |round, random| {
        if round % 2 == 0 {
            return batch(&mut Place::new(), &[], whom, random);
        }
        embedded.hub.execute("TRUNCATE trust, fl_kit_slot, trusts_audit");
        let folders = fs::read_dir(&embedded.dir).unwrap().map(|entry| entry.unwrap());
        for folder in folders.filter(|folder| {
            folder.file_name().to_str().is_some_and(|it| it == "sunk" || it.starts_with("kits-"))
        }) {
            fs::remove_dir_all(folder.path()).unwrap();
        }
        batch(&mut embedded, &env, whom, random)
    });
}

#[test]
fn no_kit_is_lost_when_the_whole_group_of_a_run_is_struck_at_random_instants() {
    on_both_hubs("group", asked("GROUP_KILLS", 2 * BATCH), Whom::Group);
}

#[test]
fn no_kit_is_lost_when_any_one_process_of_a_run_is_struck_at_random_instants() {
    on_both_hubs("process", asked("PROCESS_KILLS", 2 * BATCH), Whom::One);
}

#[test]
fn no_kit_is_lost_when_the_engines_client_is_struck_at_random_instants() {
    storm("client", asked("CLIENT_KILLS", BATCH), |_, random| {
        let mut place = Place::new();
        let container = Container::new(&place);
        batch(&mut place, &container.env, Whom::Client, random)
    });
}

#[test]
fn no_kit_is_lost_when_the_script_for_ecs_is_struck_at_random_instants() {
    let total = asked("ECS_RANDOM_KILLS", BATCH / 2);
    storm("ECS", total, |_, random| {
        let took = (0..3).map(|_| ecs_faults::undisturbed()).min().unwrap();
        let whom = [Whom::Group, Whom::One];
        let jobs = (0..BATCH.min(total)).map(|n| {
            (whom[n % 2], instant(n, took, random), Random(random.below(usize::MAX) as u64))
        });
        let struck =
            side_by_side("", 2, jobs.collect(), |(whom, instant, mut random): (_, _, Random)| {
                let mut met = None;
                let (said, committed) = ecs_faults::struck(|run| {
                    met = strike(run, whom, instant, &mut random);
                });
                log::assert_known(&said, true);
                (met, committed)
            });
        let committed = struck.iter().filter(|(_, committed)| *committed).count();
        let tally = Tally { runs: struck.len(), committed, ..Tally::default() };
        (struck.into_iter().filter_map(|(met, _)| met).collect(), tally)
    });
}
