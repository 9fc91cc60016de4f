//! Two faults at once: one of the hub, at any message to or from it, and one of the transport: the
//! script or its disk fails at any command, or SSM at any put. `PAIRS` sets how many of the pairs are
//! tried.

use std::fs;

use super::checker::{Tally, check, say};
use super::random::{Random, number, seed};
use super::storm::{Job, every_step, side_by_side};
use crate::contract::hand_over::{Place, in_a_group, text};
use crate::model::log;
use crate::support::relay::{Relay, Step, Strike, Talk, When};
use crate::support::{Answer, Ssm};

const BATCH: usize = 30;

fn pairs() -> usize {
    number("PAIRS").map_or(BATCH, |pairs| pairs as usize)
}

fn of_the_hub(steps: Vec<Step>) -> Vec<Step> {
    steps.into_iter().filter(|step| step.talk == Talk::Hub).collect()
}

/// One of the messages, every other time one of the last: there the outcome is in doubt.
fn message(messages: &[Step], random: &mut Random) -> Step {
    let late = random.once_in(2);
    random.pick(if late { &messages[messages.len() * 3 / 4..] } else { messages })
}

/// What befalls the script before one of its commands.
const FAULTS: &str =
    "kill -KILL 0|kill -KILL $BASHPID|kill -INT 0|{ trap '' XFSZ; ulimit -S -f 0; }";

#[test]
fn no_kit_is_lost_when_the_hub_and_the_script_fail_in_one_run() {
    let (total, mut random, mut tally) = (pairs(), Random(seed()), Tally::default());
    say(&format!("pairs, register.sh: {total} runs, SEED={}", seed()));
    while tally.runs < total {
        tally += batch(&mut random);
        say(&format!("pairs, register.sh: {}/{total}, {tally}", tally.runs));
    }
    assert!(tally.committed > 0 && tally.committed < tally.runs, "{tally}");
}

fn batch(random: &mut Random) -> Tally {
    let mut place = Place::new();
    place.hub.fill_pool(2 * BATCH + 5);
    // As often one of the reader's, who has the kit.
    let commands = place.steps(&[]);
    let readers: Vec<_> = commands.iter().filter(|it| it.starts_with("reader")).cloned().collect();
    let to_hub = |relay: &Relay| {
        [("DB_HOST", "127.0.0.1".to_owned()), ("DB_PORT", relay.port().to_string())]
    };
    let relay = Relay::new();
    let [host, port] = to_hub(&relay);
    let dry = place.register(&[(host.0, &host.1), (port.0, &port.1), ("TRUST_1_NAME", "Dry")]);
    assert!(dry.status.success(), "{}", text(&dry));
    let messages = of_the_hub(relay.steps());
    let mut tally = Tally::default();
    for n in 0..BATCH {
        let (name, folder) = (format!("Pair {n}"), format!("kits-{n}"));
        let among = if random.once_in(2) { &readers } else { &commands };
        // The first pair is none, so that somebody gets through whatever the others meet.
        let command = if n == 0 { "none".to_owned() } else { random.pick(among) };
        let fault = random.word(FAULTS);
        let message = message(&messages, random);
        let strike = [Strike::Cut, Strike::Reset][random.below(2)];
        let relay = Relay::new();
        let relay = if n == 0 { relay } else { relay.strike(When::At(message), strike) };
        let [host, port] = to_hub(&relay);
        let (hook, file) = place.hook(&format!("[ \"$at\" != '{command}' ] || {fault}"));
        let own = [("TRUST_1_NAME", name.as_str()), ("KITS", &folder)];
        let env = [(host.0, host.1.as_str()), (port.0, &port.1), (hook, &file)];
        let run = place.command(&["deploy/register.sh", "1"], &[&own[..], &env].concat());
        let run = in_a_group(run);
        let context =
            format!("{strike:?} at {message:?}, {fault} before {command}: {}", text(&run));
        log::assert_known(&text(&run), false);
        place.settled(&folder);
        let (id, kits) = (place.id(&name), place.kits(&folder));
        let valid = kits.iter().find(|(_, kit)| kit[0]["trust_id"].as_str() == id.as_deref());
        if id.is_some() {
            let (_, kit) = valid.unwrap_or_else(|| panic!("LOST {context}"));
            place.hub.assert_registered(kit);
        }
        tally += Tally {
            runs: 1,
            ended: usize::from(run.status.code().is_none()),
            committed: usize::from(id.is_some()),
            metadata_only: 0,
            worthless: usize::from(!kits.is_empty() && valid.is_none()),
        };
        let next = place.register(&own);
        assert!(next.status.success(), "{context}\nand then {}", text(&next));
        let id = place.id(&name).unwrap();
        let kit = fs::read_to_string(place.dir.join(&folder).join("trust-1.json")).unwrap();
        assert!(kit.contains(&id), "{context}\nand then {}", text(&next));
    }
    tally
}

/// What SSM answers to the first puts of the kit, and to all of `[]`.
fn ssm(random: &mut Random) -> Ssm {
    let answers = [
        Answer::Store,
        Answer::Refuse(400, "AccessDeniedException", "no"),
        Answer::Refuse(500, "InternalServerError", "later"),
        Answer::DropBefore,
        Answer::DropAfter,
        Answer::Garbage("<html>"),
    ];
    let kits: Vec<_> = (0..random.below(4)).map(|_| random.pick(&answers)).collect();
    Ssm::new().verdicts(random.pick(&answers)).script(&kits)
}

#[test]
fn no_kit_is_lost_when_the_hub_and_ssm_fail_in_one_run() {
    let (total, mut random) = (4 * pairs(), Random(seed()));
    say(&format!("pairs, SSM: {total} runs, SEED={}", seed()));
    let (mut hub, messages, dry) = every_step(&Ssm::new(), true);
    hub.fill_pool(total);
    let messages = of_the_hub(messages);
    let jobs = (0..total).map(|n| {
        let (ssm, message) = (ssm(&mut random), message(&messages, &mut random));
        let strike = [Strike::Cut, Strike::Reset][random.below(2)];
        let relay = Relay::new().and_to(&ssm).strike(When::At(message), strike);
        (Job::new(&hub, &ssm, n + 1, n + 1, true), ssm, relay)
    });
    let runs =
        side_by_side("pairs, SSM", 16, jobs.collect(), |(job, ssm, relay): (Job, Ssm, Relay)| {
            let (program, record) = job.split();
            record(&relay.serve(program).run(), &ssm)
        });
    let tally = check(&mut hub, &[vec![dry], runs].concat());
    say(&format!("pairs, SSM: {total} runs, {tally}"));
    assert!(tally.committed > 1 && tally.committed < total, "{tally}");
}
