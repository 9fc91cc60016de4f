//! `deploy/register.sh` is held to what the model says of its script: each history of the model's,
//! as far as it is the script's, is played on it with a program of the test's own, command by command.
//! Compared at the end: its exit, its last words, and which file holds the kit.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Command, Output};

use super::rules::{Rule, Rules};
use super::search::{Search, Trace, follow};
use super::stdout::{Scope, Script, State, Stdout};
use crate::contract::hand_over::{Place, text};
use crate::support::{Group, break_script, eventually};

const ID: &str = "7e57ab1e-0000-4000-8000-000000000001";

/// The engine's client: it prints what the test writes into `out`, and keeps what it is told.
const CLIENT: &str = "#!/bin/bash
[ \"$1 $2\" != 'compose version' ] || exit 0
cat <&0 >told &
exec cat out
";

/// A command that handles the kit's file waits until the test lets it go, or fail.
const TOOL: &str = r#"#!/bin/sh
tool=${0##*/}
case $* in *trust-1.*) ;; *) exec "/usr/bin/$tool" "$@" ;; esac
echo "$tool" >>at
n=$(wc -l <at)
until [ -e "go-$n" ]; do sleep 0.02; done
[ "$(cat "go-$n")" != fail ] || exit 1
exec "/usr/bin/$tool" "$@"
"#;

/// What the script did, and what the model says of its end.
type History = (Vec<&'static str>, Script, bool, bool);

fn histories(scope: Scope, rules: &[Rule]) -> BTreeSet<History> {
    let home = |rules| Stdout { rules, scope };
    let whole = home(Rules::default());
    let mut histories = Search::run(&whole).pairs(&whole);
    for rule in rules {
        if let Some(broken) = Search::run(&home(Rules::without(&[*rule]))).broken {
            histories.extend(follow(&whole, &broken.trace));
        }
    }
    // A power loss has tests of its own: prove::power.
    histories.retain(|(trace, _)| trace.iter().all(|step| step.what != "power: fails"));
    let is_the_scripts =
        |what: &&str| ["script: ", "disk: ", "sink: "].iter().any(|who| what.starts_with(who));
    let history = |(trace, state): (Trace, State)| {
        let steps = trace.iter().map(|step| step.what).filter(is_the_scripts).collect();
        (steps, state.runs[0].script, state.holds(0), state.sunk[0])
    };
    histories.into_iter().map(history).collect()
}

fn of_files() -> BTreeSet<History> {
    histories(Scope::One, &[Rule::FILES, Rule::ACKNOWLEDGEMENT].concat())
}

fn of_a_sink() -> BTreeSet<History> {
    histories(Scope::OneSink, Rule::SINK)
}

#[test]
fn the_script_agrees_with_the_model_of_files() {
    replay_all("register.sh, files", &of_files());
}

#[test]
fn the_script_agrees_with_the_model_of_a_sink() {
    replay_all("register.sh, sink", &of_a_sink());
}

fn replay_all(what: &str, histories: &BTreeSet<History>) {
    println!("{what}: {} histories", histories.len());
    assert!(histories.len() > 10, "{}", histories.len());
    replay(&Place::new(), histories);
}

/// The script without one of its rules, and a step of the histories that show it.
#[test]
fn a_script_that_breaks_a_rule_disagrees_with_the_model() {
    let [stores, tells_first] =
        ["if store_line \"$1\"", "printf '%s\\n' \"$kit_id\" >&3; if store_line \"$1\""];
    for (file, text, instead, sinks, step) in [
        ("register.sh", stores, tells_first, false, "disk: is full"),
        (
            "register.sh",
            "if [ -n \"$kit_keys\" ]; then\n    say \"ERROR the run",
            "if false; then\n    say \"the run",
            false,
            "script: reads the end, and names its file",
        ),
        (
            "register.sh",
            "verdict=1 kit",
            "verdict=0 kit",
            false,
            "script: reads the end, and names its file",
        ),
        ("lib.sh", "ln -- ", "mv -f -- ", false, "script: links the final name"),
        (
            "lib.sh",
            "; } && durable \"$final\" \"$3\"; then",
            "; }; then",
            false,
            "script: syncs the folder again",
        ),
        ("lib.sh", "-o pipefail", "", true, "sink: a stage fails"),
    ] {
        let place = Place::new();
        break_script(&place.dir, file, text, instead);
        let mut histories = if sinks { of_a_sink() } else { of_files() };
        histories.retain(|(steps, ..)| steps.contains(&step));
        assert!(!histories.is_empty(), "no history has {step:?}");
        let replay = std::panic::catch_unwind(AssertUnwindSafe(|| replay(&place, &histories)));
        assert!(replay.is_err(), "nobody notices {instead:?} in place of {text:?}");
    }
}

fn replay(place: &Place, histories: &BTreeSet<History>) {
    place.tool("docker", CLIENT);
    ["sync", "ln", "rm"].iter().for_each(|tool| place.tool(tool, TOOL));
    let sinks = histories.iter().any(|(steps, ..)| steps.iter().any(|it| it.starts_with("sink: ")));
    for (n, history) in histories.iter().enumerate() {
        let dir = place.dir.join(format!("history-{n}"));
        fs::create_dir(&dir).unwrap();
        let sink = if history.0.contains(&"sink: a stage fails") {
            "cat | false | cat"
        } else {
            "cat >sunk"
        };
        let env = [("HUB", "compose"), (if sinks { "KIT_SINK" } else { "NONE" }, sink)];
        let script = place.dir.join("deploy/register.sh");
        let mut command = place.command(&[script.to_str().unwrap(), "1"], &env);
        play(history, command.current_dir(&dir), &dir);
    }
}

fn play(history: &History, command: &mut Command, dir: &Path) {
    let steps = &history.0;
    assert!(Command::new("mkfifo").arg(dir.join("out")).status().unwrap().success());
    let mut script = Group::of(command);
    let there = || dir.join("told").exists();
    eventually("the client", || there() || script.has_ended());
    if !there() {
        panic!("no client: {}", text(&script.output()));
    }
    // This waits until it reads.
    let out = RefCell::new(Some(File::options().write(true).open(dir.join("out")).unwrap()));
    let prints = |line: &str| writeln!(out.borrow().as_ref().unwrap(), "{line}").unwrap();
    // Nothing follows the last line.
    let ends_with = |line: &str| {
        prints(line);
        out.take();
    };
    let kit = format!(
        r#"[{{"trust_id":"{ID}","trust_name":"One","trust_api_key":"k","hub_shared":{{}}}}]"#
    );
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let mut commands = 0;
    let mut comes = |tool: &str| {
        commands += 1;
        let n = commands;
        let come = || read("at").lines().nth(n - 1).map(str::to_owned);
        eventually(&format!("{tool} in {steps:?}"), || come().is_some());
        assert_eq!(come().unwrap(), tool, "{steps:?}");
        n
    };
    let goes = |n: usize, how: &str| {
        fs::write(dir.join("go"), how).unwrap();
        fs::rename(dir.join("go"), dir.join(format!("go-{n}"))).unwrap();
    };
    let mut at = 0;
    for step in steps {
        match *step {
            "script: reads the kit" => prints(&kit),
            "script: writes the kit into its file" => at = comes("sync"),
            "disk: is full" => goes(comes("sync"), "fail"),
            "script: syncs the folder and its parent" => goes(at, ""),
            "script: acknowledges" => {
                eventually("the acknowledgement", || read("told") == format!("{ID}\n"));
            }
            "script: reads the receipt" => ends_with(ID),
            "script: reads []" | "script: reads [] and no kit" => ends_with("[]"),
            "script: links the final name" => goes(comes("ln"), ""),
            "script: syncs the folder again" => goes(comes("sync"), ""),
            "script: removes the other name" | "script: deletes its file" => goes(comes("rm"), ""),
            "script: is killed" => script.kill(),
            "script: syncs its file" | "script: reads the end, and no kit" => {}
            "script: reads the end, and names its file"
            | "sink: stores the kit"
            | "sink: a stage fails" => {}
            _ => panic!("nobody can play {step:?}"),
        }
    }
    out.take();
    // A file without a kit goes at the end.
    (commands + 1..commands + 4).for_each(|n| goes(n, ""));
    compare(history, &kit, &script.output(), dir);
}

fn compare((steps, end, holds, sunk): &History, kit: &str, run: &Output, dir: &Path) {
    let said = format!("{steps:?}\n{end:?}\n{}", text(run));
    let ends = |code: i32, words: &str| {
        assert!(run.status.code() == Some(code) && said.contains(words), "lacks {words:?}: {said}");
    };
    match end {
        Script::Succeeded => ends(0, "the kit"),
        Script::SaidNothing | Script::GotNothing => ends(1, "nothing was registered for trust 1"),
        Script::NamedItsFile => ends(1, "kit stays in kits/.trust-1."),
        Script::Dead => assert_eq!(run.status.signal(), Some(9), "{said}"),
        _ => panic!("the script has not ended: {said}"),
    }
    let has = |path: &Path| path.is_file() && fs::read_to_string(path).unwrap().trim_end() == kit;
    let mut files = fs::read_dir(dir.join("kits")).unwrap().map(|entry| entry.unwrap().path());
    let sunk_now = has(&dir.join("sunk"));
    let held = sunk_now || files.any(|path| has(&path));
    // Who was killed, or had a full disk, may have written more than the model says.
    let exact = *end != Script::Dead && !steps.contains(&"disk: is full");
    assert!(held == *holds || held && !exact, "held: {held}, in the model: {holds}; {said}");
    assert!(sunk_now == *sunk || !exact, "in the sink: {sunk_now}, in the model: {sunk}; {said}");
    let told = dir.join("told").metadata().unwrap().len() > 0;
    assert_eq!(told, steps.contains(&"script: acknowledges"), "the acknowledgement; {said}");
    let named = dir.join("kits/trust-1.json").exists();
    assert!(*end != Script::Succeeded || named || *sunk, "{said}");
}
