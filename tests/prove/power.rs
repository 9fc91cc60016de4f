//! The power of the operator's machine fails before any command of the scripts. What was not synced
//! may be lost, and is. `POWER_CUTS` says before how many commands (`all`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checker::say;
use crate::contract::ecs_faults;
use crate::contract::hand_over::{Place, in_a_group, text};
use crate::support::power::{NAMES, Names, SYNC, durable, left, restore};
use crate::support::{break_script, root};

/// The commands to strike at, spread evenly.
fn chosen<T: Clone>(steps: &[T]) -> Vec<T> {
    let cuts = match std::env::var("POWER_CUTS").as_deref() {
        Ok("all") => steps.len(),
        Ok(cuts) => cuts.parse().unwrap(),
        Err(_) => 12,
    };
    let cuts = cuts.min(steps.len());
    (0..cuts).map(|cut| steps[cut * steps.len() / cuts + steps.len() / cuts / 2].clone()).collect()
}

/// The sink's own part of the promise.
const SINK: [(&str, &str); 1] =
    [("KIT_SINK", "f=$(mktemp sunk/XXXXXX) && cat >$f && sync $f sunk .")];

/// The power fails at this command. What is left of the kit: of no trust, of one whose kit is there
/// whichever names got to the disk, or of one whose kit is lost.
enum Cut {
    NotRegistered,
    Kept,
    Lost(String),
}

fn cut(place: &mut Place, n: usize, step: &str, more: &[(&str, &str)]) -> Cut {
    let (name, folder) = (format!("Cut {n}"), format!("kits-{n}"));
    let (key, file) = place.hook(&format!("[ \"$at\" != '{step}' ] || kill -KILL 0"));
    let durable = durable();
    let at = durable.to_str().unwrap().to_owned();
    let env =
        [&[("TRUST_1_NAME", name.as_str()), ("KITS", &folder), ("DURABLE", &at)], more].concat();
    let script = ["deploy/register.sh", "1"];
    let run = in_a_group(place.command(&script, &[&env[..], &[(key, &file)]].concat()));
    place.settled(&folder);
    let id = place.id(&name);
    let ways = NAMES.map(|names| {
        [left(&durable, &place.dir, &folder, names), left(&durable, &place.dir, "sunk", names)]
    });
    let valid = |content: &Vec<u8>| {
        let kit = serde_json::from_slice::<Value>(content).ok();
        kit.filter(|kit| kit[0]["trust_id"].as_str() == id.as_deref())
    };
    if id.is_some() {
        for (names, way) in NAMES.iter().zip(&ways) {
            let Some(kit) = way.iter().flat_map(BTreeMap::values).find_map(valid) else {
                return Cut::Lost(format!("before {step}, with {names:?}: {}", text(&run)));
            };
            place.hub.assert_registered(&kit);
        }
    }
    // The next run begins with what is left.
    let [kits, sunk] = &ways[n % NAMES.len()];
    restore(&place.dir.join(&folder), kits);
    restore(&place.dir.join("sunk"), sunk);
    let next = place.call(&script, &env);
    assert!(next.status.success(), "{}\nand then {}", text(&run), text(&next));
    let id = place.id(&name).unwrap();
    let kits = [place.kits(&folder), place.kits("sunk")].concat();
    let handed = |(path, kit): &(PathBuf, Value)| {
        kit[0]["trust_id"] == *id && (path.ends_with("trust-1.json") || !more.is_empty())
    };
    assert!(kits.iter().any(handed), "{}\nand then {}", text(&run), text(&next));
    if ways.iter().any(|[kits, _]| kits.values().any(|it| valid(it).is_some())) {
        Cut::Kept
    } else {
        Cut::NotRegistered
    }
}

fn place() -> Place {
    let place = Place::new();
    place.tool("sync", SYNC);
    fs::create_dir(place.dir.join("sunk")).unwrap();
    place
}

#[test]
fn a_power_loss_before_any_command_of_the_script_loses_no_kit() {
    for sink in [&[][..], &SINK] {
        let mut place = place();
        let dry = durable();
        let steps = place.steps(&[&[("DURABLE", dry.to_str().unwrap())], sink].concat());
        let steps = chosen(&steps);
        place.hub.fill_pool(2 * steps.len() + 10);
        let mut kept = 0;
        for (n, step) in steps.iter().enumerate() {
            match cut(&mut place, n + 1, step, sink) {
                Cut::Lost(why) => panic!("LOST {why}"),
                Cut::Kept => kept += 1,
                Cut::NotRegistered => {}
            }
        }
        say(&format!(
            "power, register.sh: {} cuts, {kept} with a committed trust, 0 lost",
            steps.len()
        ));
        assert!(kept > 0 && kept < steps.len(), "{kept} of {}", steps.len());
    }
}

/// What makes a file that is stored outlast a power loss.
const STORE: &str = "durable \"$1\" \"$(dirname \"$1\")\"";

/// The scripts without one of their syncs: the test sees that a kit is lost.
#[test]
fn a_power_loss_finds_every_sync_that_is_missing() {
    for (sync, instead) in [
        (STORE, "durable \"$1\""),
        (STORE, "durable \"$(dirname \"$1\")\""),
        ("durable \"$final\" \"$3\"", "true"),
        ("durable \"$part\"", "true"),
    ] {
        let mut place = place();
        let dry = durable();
        let steps = place.steps(&[("DURABLE", dry.to_str().unwrap())]);
        break_script(&place.dir, "lib.sh", sync, instead);
        place.hub.fill_pool(2 * steps.len() + 10);
        let last = |step: &&String| step.starts_with("script ");
        let mut steps: Vec<_> = steps.iter().filter(last).collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step[7..].parse::<u32>().unwrap()));
        let lost = steps
            .iter()
            .enumerate()
            .any(|(n, step)| matches!(cut(&mut place, n + 1, step, &[]), Cut::Lost(_)));
        assert!(lost, "nothing is lost with {instead:?} in place of {sync:?}");
    }
}

/// The power fails at this command of ecs.sh. The operator has seen nothing: only notes count.
fn cut_in_ecs(at: usize, scripts: &Path, names: Names) -> bool {
    let place = ecs_faults::Place::new();
    *place.scripts.borrow_mut() = scripts.to_owned();
    let sync = place.dir.join("bin/sync");
    fs::write(&sync, SYNC).unwrap();
    let durable = durable();
    let at = at.to_string();
    let env = [("AT", at.as_str()), ("SIGNAL", "POWER"), ("DURABLE", durable.to_str().unwrap())];
    place.run_with(&[], &json!({}), &env);
    place.seen.borrow_mut().clear();
    restore(&place.folder(), &left(&durable, &place.dir, "kits/stag", names));
    place.no_kit_is_lost();
    let committed = place.state()["hub"] != json!({});
    let next = place.run_with(&[], &json!({}), &env[2..]);
    assert!(next.success, "before command {at}, {names:?}: {}", next.stderr);
    place.all_is_settled();
    committed
}

#[test]
fn a_power_loss_before_any_command_of_the_script_for_ecs_loses_no_kit() {
    let scripts = root().join("deploy");
    let commands: Vec<_> = (1..=ecs_faults::commands(&ecs_faults::Place::new())).collect();
    let commands = chosen(&commands);
    let mut kept = 0;
    for (n, at) in commands.iter().enumerate() {
        kept += usize::from(cut_in_ecs(*at, &scripts, NAMES[n % NAMES.len()]));
    }
    say(&format!("power, ecs.sh: {} cuts, {kept} with a committed trust, 0 lost", commands.len()));
    assert!(kept > 0 && kept < commands.len(), "{kept} of {}", commands.len());
}

#[test]
fn a_power_loss_finds_that_the_note_is_not_synced() {
    let place = Place::new();
    let (scripts, commands) =
        (place.dir.join("deploy"), ecs_faults::commands(&ecs_faults::Place::new()));
    break_script(&place.dir, "lib.sh", STORE, "durable \"$1\"");
    let lost = (1..=commands).rev().step_by(9).any(|at| {
        let cut = std::panic::catch_unwind(|| cut_in_ecs(at, &scripts, Names::None));
        let why = cut.err().and_then(|why| why.downcast::<String>().ok());
        why.is_some_and(|why| why.starts_with("a registered trust has no kit"))
    });
    assert!(lost, "nothing is lost without the sync of the note's folder");
}
