//! `deploy/ecs.sh` is held to what the model says of its script: each history of the model's is
//! played on it call by call, between a task, a Parameter Store and a log of the test's own.
//! Compared at the end: how it ended, what it said of the trust, and who holds the kit. Then another
//! run has to settle what was left.

use std::collections::BTreeSet;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::ecs::{Ecs, Scope, Script, State};
use super::rules::{Rule, Rules};
use super::search::{Search, Trace, follow};
use crate::contract::ecs_faults::Place;
use crate::prove::storm::side_by_side;
use crate::support::{Group, break_script, eventually, root};

/// A command that makes a kit or a note durable waits until the test lets it go, or fail.
const SYNC: &str = r#"#!/bin/sh
case "${GATE+gate} $*" in gate*/.task-1.* | gate*/.trust-1.*) ;; *) exec /bin/sync "$@" ;; esac
echo sync >>at
n=$(wc -l <at)
until [ -e "go-$n" ] || [ -e go-all ]; do sleep 0.02; done
status=1
grep -sq full "go-$n" || { /bin/sync "$@"; status=$?; }
rm -f "go-$n"
exit $status
"#;

const STALE: &str = "SSM: answers what was there before";

/// What happened, and what the model says of the end: the script's, whether the trust is committed,
/// and whether its kit is held.
type History = (Vec<&'static str>, Script, bool, bool);

/// What `ecs.sh` can notice. All else that happens to the program and the hub is in replay.rs.
fn is_noticed(what: &str) -> bool {
    let what = what.strip_prefix("program: ").unwrap_or(what);
    ["script: ", "ECS: ", "SSM: ", "log: ", "disk: "].iter().any(|who| what.starts_with(who))
        || ["knows: aborted", "says that the outcome is unknown", "prints the receipt"]
            .contains(&what)
}

fn histories() -> BTreeSet<History> {
    let home = |rules| Ecs { rules, scope: Scope::Script };
    let whole = home(Rules::default());
    let mut histories = Search::run(&whole).pairs(&whole);
    for rule in Rule::ECS {
        if let Some(broken) = Search::run(&home(Rules::without(&[*rule]))).broken {
            histories.extend(follow(&whole, &broken.trace));
        }
    }
    // A power loss has tests of its own: prove::power.
    histories.retain(|(trace, _)| trace.iter().all(|step| step.what != "power: fails"));
    let history = |(trace, state): (Trace, State)| {
        let steps = trace.iter().map(|step| step.what).filter(|what| is_noticed(what)).collect();
        (steps, state.scripts[0], state.hub.committed(0), state.holds(0))
    };
    histories.into_iter().map(history).collect()
}

#[test]
fn the_script_for_ecs_agrees_with_the_model() {
    let histories = histories();
    println!("ecs.sh: {} histories", histories.len());
    assert!(histories.len() > 40, "{}", histories.len());
    let play = |history: History| play(&history, Place::new());
    side_by_side("ecs.sh", 4, histories.into_iter().collect(), play);
}

/// The script without one of its rules, and a step of the histories that show it.
#[test]
fn a_script_for_ecs_that_breaks_a_rule_disagrees_with_the_model() {
    let breaks = [
        ("[ -n \"$found\" ] || wrong=\"without its receipt\"", ":", "log: is late"),
        ("[ -n \"$doubt\" ] || return 1", "return 1", "script: gives up, and names the parameter"),
        ("if [ -z \"$started$log\" ]", "if true", "script: reads the log"),
        ("keep || exit 1\n", "forget; keep || exit 1\n", "disk: is full"),
        (
            "--client-token \"$token\"",
            "--client-token \"$(new_token)\"",
            "script: tries again, and is told the same task",
        ),
        (
            "*ParameterNotFound* ]] || return 1",
            "*ParameterNotFound* ]] || return 1; break",
            "SSM: answers what was there before",
        ),
    ];
    side_by_side("", 2, breaks.to_vec(), |(text, instead, step)| {
        let mut histories = histories();
        histories.retain(|(steps, ..)| steps.contains(&step));
        assert!(!histories.is_empty(), "no history has {step:?}");
        let noticed = histories.iter().any(|history| {
            let place = Place::new();
            let copy =
                Command::new("cp").arg("-R").arg(root().join("deploy")).arg(&place.dir).status();
            assert!(copy.unwrap().success());
            break_script(&place.dir, "ecs.sh", text, instead);
            *place.scripts.borrow_mut() = place.dir.join("deploy");
            std::panic::catch_unwind(AssertUnwindSafe(|| play(history, place))).is_err()
        });
        assert!(noticed, "nobody notices {instead:?} in place of {text:?}");
    });
}

fn play((steps, end, committed, holds): &History, place: Place) {
    let mut stage = Stage::set(steps, place);
    for (n, step) in steps.iter().enumerate() {
        let is_the_scripts = |step: &&&str| {
            ["script: ", "disk: ", "SSM: answers "].iter().any(|who| step.starts_with(who))
        };
        stage.take(step, steps[n + 1..].iter().find(is_the_scripts).copied());
    }
    stage.finish();
    if *committed {
        stage.world("commit");
    }
    stage.world("stop");
    let place = &stage.place;
    let ended = place.ended(stage.output.take().unwrap());
    let said = format!("{steps:#?}\n{end:?}, committed: {committed}\n{}", ended.stderr);
    let state = ended.stderr.lines().find(|line| line.starts_with("ERROR state: "));
    let says_nothing_is_registered = state.is_some_and(|state| {
        state.contains("nothing was registered") || state.contains("registered nothing")
    });
    match end {
        Script::Succeeded(Some(0)) => assert!(ended.success, "{said}"),
        Script::SaidNothing => assert!(!ended.success && says_nothing_is_registered, "{said}"),
        Script::NamedIt => assert!(state.is_some() && !says_nothing_is_registered, "{said}"),
        Script::Dead => assert!(ended.stderr.ends_with("(killed)"), "{said}"),
        _ => panic!("the script has not ended: {said}"),
    }
    assert!(place.holds_the_kit() || !holds, "nobody holds the kit; {said}");
    if ended.success {
        place.is_handed_on();
    }
    let next = place.run(json!({}));
    assert!(next.success, "{said}\nand then {}", next.stderr);
    place.is_handed_on();
}

/// A run of the script. Each of its calls waits to be answered.
struct Stage<'a> {
    steps: &'a [&'static str],
    place: Place,
    script: Option<Group>,
    output: Option<Output>,
    answered: usize,
    /// The put that may be stored yet.
    late: &'static str,
}

impl<'a> Stage<'a> {
    fn set(steps: &'a [&'static str], place: Place) -> Stage<'a> {
        fs::write(place.dir.join("bin/sync"), SYNC).unwrap();
        let mut command = place.command(&[], &json!({"task": "is told"}), &[("GATE", "yes")]);
        let script = Group::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        Stage { steps, place, script: Some(script), output: None, answered: 0, late: "" }
    }

    /// The call that waits; `None` if the script has ended instead.
    fn call(&mut self) -> Option<String> {
        let at = self.place.dir.join("at");
        let mut call = None;
        eventually(&format!("a call in {:?}", self.steps), || {
            let calls = fs::read_to_string(&at).unwrap_or_default();
            call = calls.lines().nth(self.answered).map(str::to_owned);
            call.is_some() || self.script.as_mut().unwrap().has_ended()
        });
        call
    }

    /// Returns when the call is over.
    fn answer(&mut self, how: &str) {
        self.answered += 1;
        let [go, mine] = ["go".to_owned(), format!("go-{}", self.answered)]
            .map(|name| self.place.dir.join(name));
        fs::write(&go, how).unwrap();
        fs::rename(&go, &mine).unwrap();
        eventually("the end of a call", || !mine.exists());
    }

    #[track_caller]
    fn comes(&mut self, call: &str) {
        assert_eq!(self.call().as_deref(), Some(call), "{:?}", self.steps);
    }

    #[track_caller]
    fn comes_and_gets(&mut self, call: &str, how: &str) {
        self.comes(call);
        self.answer(how);
    }

    /// All calls of this kind, one after the other.
    fn each_gets(&mut self, call: &str, how: &str) {
        while self.call().as_deref() == Some(call) {
            self.answer(how);
        }
    }

    /// The task goes on.
    fn world(&self, step: &str) {
        let account = self.place.dir.join("account");
        let mut aws = Command::new(self.place.dir.join("bin/aws"));
        aws.args(["-", "world", step]).env("ACCOUNT", account).env("AWS_REGION", "eu-west-2");
        aws.env("AWS_DEFAULT_REGION", "eu-west-2").env("RUN", "1").env_remove("GATE");
        let output = aws.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Nothing is held back any more.
    fn finish(&mut self) {
        if let Some(script) = self.script.take() {
            fs::write(self.place.dir.join("go-all"), "none").unwrap();
            self.output = Some(script.output());
        }
    }

    /// `next` is the script's next step.
    fn take(&mut self, step: &str, next: Option<&str>) {
        match step {
            "script: keeps the parameter's name in a file" => {
                for call in ["get", "describe-services", "describe-task-definition"] {
                    self.comes_and_gets(call, "none");
                }
                self.comes("sync");
            }
            "script: syncs that file" | "script: syncs the kit and its folder" => {
                self.comes_and_gets("sync", "none");
            }
            "ECS: starts the task" | "script: tries again, and is told the same task" => {
                self.comes_and_gets("run-task", "none");
            }
            "ECS: starts the task, and its answer is lost" => {
                self.comes_and_gets("run-task", "lose");
            }
            "ECS: refuses to start the task" => {
                self.comes_and_gets("run-task", "refuse");
                self.finish();
            }
            "script: gives up, and names the parameter" => {
                self.each_gets("run-task", "lose");
                self.comes_and_gets("list-tasks", "stale");
                self.finish();
            }
            "script: reads the log" | "log: is late" => {
                self.world("stop");
                self.comes_and_gets("wait", "none");
                self.comes_and_gets("describe-tasks", "none");
                self.each_gets(
                    "get-log-events",
                    if step == "log: is late" { "stale" } else { "none" },
                );
                self.comes("get-parameter");
            }
            "script: reads the parameter" | STALE => {
                let how = if step == STALE { "before" } else { "none" };
                self.comes_and_gets("get-parameter", how);
                if ![Some("script: reads the parameter"), Some(STALE)].contains(&next) {
                    // It asks again for what is not there, and for the log of a kit with its receipt.
                    self.each_gets("get-parameter", how);
                    self.each_gets("get-log-events", "none");
                }
                if next.is_none() {
                    self.finish();
                }
            }
            "script: stores the kit" => self.comes("sync"),
            "disk: is full" => {
                self.comes_and_gets("sync", "full");
                self.finish();
            }
            "script: deletes the parameter and its name"
            | "script: deletes the parameter, says 'nothing registered'" => self.finish(),
            "script: is killed" => {
                self.script.as_ref().unwrap().kill();
                self.finish();
            }
            "SSM: stores the kit" => self.world("put"),
            "SSM: stores []" => self.world("empty"),
            "SSM: stores the kit, and its answer is lost for good" => {
                self.world("put");
                self.world("error");
            }
            "SSM: stores [], and its answer is lost for good" => self.world("empty"),
            "SSM: the put of the kit times out and may be stored later; it is tried again" => {
                self.late = "put";
            }
            "SSM: the put of the kit times out for good and may be stored later" => {
                self.late = "put";
                self.world("error");
            }
            "SSM: the put of [] times out and may be stored later; it is tried again"
            | "SSM: the put of [] times out for good and may be stored later" => {
                self.late = "empty";
            }
            "SSM: stores the put that was late" => self.world(self.late),
            "SSM: refuses []" => {}
            "SSM: refuses the kit"
            | "program: knows: aborted"
            | "program: says that the outcome is unknown" => self.world("error"),
            "program: prints the receipt" => self.world("receipt"),
            _ => panic!("nobody can play {step:?}"),
        }
    }
}
