//! deploy/ecs.sh between an ECS that loses answers, is slow or lies, and whoever kills the script:
//! no trust is registered whose kit nobody can find. `aws` is ecs_aws.py.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{python, root};

/// The scripts forget `BASH_ENV`, so it is set where bash becomes ecs.sh.
const BASH: &str = r#"#!/bin/sh
case $1 in */ecs.sh) export BASH_ENV="$STRIKE" ;; esac
exec /bin/bash "$@"
"#;

/// What that bash reads first: it tells `aws` whom to kill, and strikes at the script's command AT.
const STRIKE: &str = r#"
unset BASH_ENV
export SCRIPT=$$
[ -n "${AT-}" ] || return
set -T
command_number=0
strike() {
    case $SIGNAL in
        # Ctrl-C goes to all; the second time comes with the next command.
        INT) kill -INT 0 ;;
        # The machine is without power.
        POWER) kill -KILL 0 ;;
        *) kill -"$SIGNAL" $$ ;;
    esac
}
trap 'command_number=$((command_number + 1))
    [ "$AT" != count ] || echo $command_number >commands
    [ "$command_number" != "$AT" ] || strike
    [ "${SIGNAL-}" != INT ] || [ "$command_number" != $((AT + 1)) ] || strike' DEBUG
"#;

/// An account, a hub and a machine that registers trust 1.
pub struct Place {
    pub dir: PathBuf,
    /// Where the scripts are.
    pub scripts: RefCell<PathBuf>,
    runs: Cell<u32>,
    /// All that the operator has seen.
    pub seen: RefCell<String>,
}

pub struct Ended {
    pub success: bool,
    stdout: String,
    pub stderr: String,
    calls: Vec<String>,
}

impl Place {
    pub fn new() -> Place {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ecs-faults-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::create_dir_all(dir.join("tmp")).unwrap();
        let aws = format!("#!{} -SEs\n{}", python().display(), include_str!("ecs_aws.py"));
        let sync = "#!/bin/sh
case \"$FULL $*\" in
    yes*/.trust-1.*) echo 'sync: No space left on device' >&2; exit 1 ;;
    *) exec /bin/sync \"$@\" ;;
esac";
        for (name, text) in
            [("aws", aws.as_str()), ("sleep", "#!/bin/sh\n"), ("sync", sync), ("bash", BASH)]
        {
            let path = dir.join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.join("strike"), STRIKE).unwrap();
        let scripts = RefCell::new(root().join("deploy"));
        let place = Place { dir, scripts, runs: Cell::new(0), seen: RefCell::default() };
        place.save(&json!({"account": "123456789012", "calls": {}, "tasks": {}, "parameters": {}, "puts": {}, "hub": {}}));
        place
    }

    fn save(&self, state: &Value) {
        fs::write(self.dir.join("account"), state.to_string()).unwrap();
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.dir.join("account")).unwrap()).unwrap()
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.join("kits/stag")
    }

    pub fn command(&self, options: &[&str], faults: &Value, env: &[(&str, &str)]) -> Command {
        self.runs.set(self.runs.get() + 1);
        let mut command = Command::new("bash");
        // Where core dumps are allowed at all, the script has to forbid them.
        command
            .args(["-c", "ulimit -c 1 2>/dev/null; exec bash \"$@\"", "bash"])
            .arg(self.scripts.borrow().join("register.sh"))
            .arg("1")
            .args(options)
            .current_dir(&self.dir)
            .process_group(0)
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.join("bin").display()),
            )
            .env("TMPDIR", self.dir.join("tmp"))
            .env("ACCOUNT", self.dir.join("account"))
            .env("RUN", self.runs.get().to_string())
            .env("FAULTS", faults.to_string())
            .env("STRIKE", self.dir.join("strike"))
            .env("AWS_REGION", "eu-west-2")
            .env("PROD", "stag")
            .env("TRUST_1_NAME", "A \"quoted\" \\ $HOME")
            .env("TRUST_1_CODE", "B")
            .envs(env.iter().copied());
        command
    }

    /// Runs the script, and looks that no kit is lost and none lies about.
    #[track_caller]
    pub fn run_with(&self, options: &[&str], faults: &Value, env: &[(&str, &str)]) -> Ended {
        // This ends with the last process of the run, the script's orphans included.
        let output = self.command(options, faults, env).output().unwrap();
        self.ended(output)
    }

    #[track_caller]
    pub fn ended(&self, output: Output) -> Ended {
        let stderr = String::from_utf8(output.stderr).unwrap();
        self.seen.borrow_mut().push_str(&stderr);
        self.no_kit_is_lost();
        let calls = self.state()["calls"][self.runs.get().to_string()].clone();
        let calls = calls.as_array().into_iter().flatten();
        Ended {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: format!("{stderr}{}", output.status.signal().map_or("", |_| "(killed)")),
            calls: calls.map(|call| call.as_str().unwrap().to_owned()).collect(),
        }
    }

    #[track_caller]
    pub fn run(&self, faults: Value) -> Ended {
        self.run_with(&[], &faults, &[])
    }

    #[track_caller]
    pub fn no_kit_is_lost(&self) {
        let state = self.state();
        let (kits, known) = self.kits();
        for trust in state["hub"].as_object().unwrap().values() {
            let key = trust["key"].as_str().unwrap();
            assert!(holds(&kits, key), "a registered trust has no kit:\n{known}\n{state:#}");
        }
        for (name, tasks) in state["puts"].as_object().unwrap() {
            let first = &tasks[0];
            assert!(
                tasks.as_array().unwrap().iter().all(|task| task == first),
                "{name} was reused"
            );
        }
    }

    /// Whether somebody has the whole kit of the only task.
    pub fn holds_the_kit(&self) -> bool {
        let state = self.state();
        let task = state["tasks"].as_object().unwrap().values().next();
        task.is_some_and(|task| holds(&self.kits().0, task["key"].as_str().unwrap()))
    }

    /// All kits that somebody can find, and what names the parameters.
    #[track_caller]
    fn kits(&self) -> (Vec<String>, String) {
        let state = self.state();
        let mut known = self.seen.borrow().clone();
        let mut kits = Vec::new();
        for (path, text) in files(&self.dir) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with(".task-1.") {
                known.push_str(&text);
            }
            if path.starts_with(self.folder()) && name.starts_with(".trust-1.")
                || name == "trust-1.json"
            {
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                kits.push(text);
            } else if !name.starts_with("account") {
                for task in state["tasks"].as_object().unwrap().values() {
                    let key = task["key"].as_str().unwrap();
                    assert!(!text.contains(key), "a key is in {}", path.display());
                }
            }
        }
        for (name, value) in state["parameters"].as_object().unwrap() {
            if known.contains(name) {
                kits.push(format!("{}\n", value.as_str().unwrap()));
            }
        }
        (kits, known)
    }

    /// The hub has one trust, and the operator its kit.
    #[track_caller]
    pub fn is_handed_on(&self) {
        let state = self.state();
        let [trust] = &state["hub"].as_object().unwrap().values().collect::<Vec<_>>()[..] else {
            panic!("no trust, or several: {state:#}");
        };
        let kit: Value =
            serde_json::from_str(&fs::read_to_string(self.folder().join("trust-1.json")).unwrap())
                .unwrap();
        assert_eq!(kit[0]["trust_api_key"], trust["key"]);
        assert_eq!(kit[0]["trust_id"], trust["id"]);
    }

    /// Everything is where it belongs: the valid kit in its file, and nothing else anywhere.
    #[track_caller]
    pub fn all_is_settled(&self) {
        self.settled_but(&[]);
    }

    #[track_caller]
    fn settled_but(&self, besides: &[&str]) {
        self.is_handed_on();
        assert_eq!(self.state()["parameters"], json!({}));
        let names: Vec<_> = files(&self.folder())
            .into_iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
            .filter(|name| {
                ![".lock-trust-1", "trust-1.json", "trust-1.metadata.json"].contains(&name.as_str())
                    && !besides.iter().any(|besides| name.starts_with(besides))
            })
            .collect();
        assert_eq!(names, [""; 0]);
        assert_eq!(files(&self.dir.join("tmp")).len(), 0);
    }

    fn notes(&self) -> usize {
        let is_note =
            |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with(".task-1.");
        files(&self.folder()).iter().filter(|(path, _)| is_note(path)).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn holds(kits: &[String], key: &str) -> bool {
    let key = format!("\"trust_api_key\":\"{key}\"");
    kits.iter().any(|kit| kit.contains(&key) && kit.ends_with("}]\n"))
}

/// All files below a folder, and their text.
fn files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.push((path, text));
        }
    }
    found
}

impl Ended {
    #[track_caller]
    fn succeeds(self) -> Ended {
        assert!(self.success, "{}", self.stderr);
        self
    }

    #[track_caller]
    fn fails(self) -> Ended {
        assert!(!self.success, "{}", self.stderr);
        assert!(self.stderr.contains("ERROR state: "), "{}", self.stderr);
        assert!(self.stderr.contains("ERROR next: "), "{}", self.stderr);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Ended {
        assert!(self.stderr.contains(text), "lacks {text:?}:\n{}", self.stderr);
        self
    }

    #[track_caller]
    fn never_says(self, text: &str) -> Ended {
        assert!(!self.stderr.contains(text), "has {text:?}:\n{}", self.stderr);
        self
    }

    #[track_caller]
    fn calls(self, verb: &str, times: usize) -> Ended {
        assert_eq!(
            self.calls.iter().filter(|call| *call == verb).count(),
            times,
            "{:?}",
            self.calls
        );
        self
    }
}

// --- Starting the task -----------------------------------------------------------------------

#[test]
fn the_parameters_name_is_said_and_stored_before_the_task_is_started() {
    let place = Place::new();
    let ended = place.run(json!({"kill": [3, "before", "KILL"]}));
    assert_eq!(ended.calls.last().unwrap(), "run-task");
    assert!(ended.stderr.contains("will come through /flip/trust-kits/ephemeral/1-"));
    assert_eq!(place.notes(), 1);
    place.run(json!({})).succeeds().says("an earlier run did not end");
    place.all_is_settled();
}

#[test]
fn a_throttled_run_task_is_tried_again() {
    let place = Place::new();
    place.run(json!({"run-task": ["throttle", "throttle"]})).succeeds().calls("run-task", 3);
    place.all_is_settled();
}

#[test]
fn a_run_task_that_stays_throttled_started_nothing() {
    let place = Place::new();
    place
        .run(json!({"run-task": ["throttle*"]}))
        .fails()
        .says("(ThrottlingException)")
        .says("no task was started; nothing was registered");
    assert_eq!(place.notes(), 0);
}

#[test]
fn a_run_task_whose_answer_is_lost_starts_no_second_task() {
    for fault in ["lose", "break"] {
        let place = Place::new();
        place.run(json!({"run-task": [fault, "throttle", fault]})).succeeds().calls("run-task", 4);
        assert_eq!(place.state()["tasks"].as_object().unwrap().len(), 1);
        place.all_is_settled();
    }
}

#[test]
fn a_task_whose_every_answer_was_lost_is_found_in_the_list() {
    let place = Place::new();
    place.run(json!({"task": "works until the next run", "run-task": ["lose*"], "describe-tasks": ["stale*"]}))
        .fails()
        .calls("list-tasks", 1)
        .says("waiting for the task arn:aws:ecs:");
    place.run(json!({})).succeeds();
    place.all_is_settled();
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_mean_that_nothing_was_started() {
    let place = Place::new();
    place.run(json!({"task": "hangs", "run-task": ["lose", "refuse"], "list-tasks": ["deny"], "describe-tasks": ["deny"]}))
        .fails()
        .never_says("nothing was registered");
    assert_eq!(place.notes(), 1);
}

#[test]
fn a_task_that_may_have_started_and_is_nowhere_to_be_seen_is_not_forgotten() {
    let place = Place::new();
    place
        .run(json!({"run-task": ["lose*"], "list-tasks": ["stale*"]}))
        .fails()
        .says("Read timeout")
        .says("nobody knows whether the trust is registered; /flip/")
        .says("run 'make register-trust-1 PROD=stag' again: it settles that first");
    assert_eq!(place.notes(), 1);
    place
        .run(json!({}))
        .succeeds()
        .says("held a kit with credentials, which is now in kits/stag/.trust-1.");
    place.all_is_settled();
}

#[test]
fn a_task_that_was_not_started_leaves_nothing_behind() {
    for (fault, said) in [("refuse", "AccessDeniedException"), ("no capacity", "RESOURCE:FARGATE")]
    {
        let place = Place::new();
        place.run(json!({"run-task": [fault]})).fails().says(said).says("nothing was registered");
        assert_eq!(place.notes(), 0);
        assert_eq!(place.state()["tasks"], json!({}));
    }
    let place = Place::new();
    place
        .run(json!({"task": "never starts"}))
        .fails()
        .says("the task ended before its container ran; nothing was registered")
        .calls("delete-parameter", 0);
    assert_eq!(place.notes(), 0);
}

// --- What the task leaves --------------------------------------------------------------------

#[test]
fn a_warning_of_the_task_reaches_the_operator() {
    let place = Place::new();
    place.run(json!({"task": "warns"})).succeeds().says("can reappear after it was deleted");
    place.all_is_settled();
}

#[test]
fn a_failed_registration_shows_the_tasks_error_and_deletes_the_parameter() {
    let place = Place::new();
    place
        .run(json!({"task": "fails"}))
        .fails()
        .says("ERROR something broke; nothing was registered")
        .says("state: this run registered nothing");
    assert_eq!(place.state()["parameters"], json!({}));
    assert_eq!(place.notes(), 0);
}

#[test]
fn a_kit_beside_a_receipt_and_an_error_is_not_believed() {
    let place = Place::new();
    place
        .run(json!({"task": "fails, and its kit comes late"}))
        .fails()
        .says("a kit beside an ERROR")
        .says("make check-kit-1 PROD=stag");
    assert!(!place.folder().join("trust-1.json").exists());
    // The trust is registered anew, and the dead kit is named until somebody deletes it.
    place.run(json!({})).succeeds().says("WARNING an earlier run left the kit kits/stag/.trust-1.");
    place.settled_but(&[".trust-1."]);
}

#[test]
fn a_kit_without_a_receipt_is_kept_and_handed_on_once_the_hub_knows_it() {
    let place = Place::new();
    place
        .run(json!({"task": "loses its receipt"}))
        .fails()
        .says("a kit without its receipt")
        .says("make check-kit-1 PROD=stag");
    assert!(!place.folder().join("trust-1.json").exists());
    place.run(json!({})).succeeds().says("is the valid kit of the trust");
    place.all_is_settled();
}

#[test]
fn an_empty_kit_without_a_receipt_is_looked_at_again() {
    let place = Place::new();
    place
        .run(json!({"task": "fails, and its kit comes in the next run"}))
        .fails()
        .says("may still come to hold a kit, which was never registered")
        .calls("delete-parameter", 0);
    assert_eq!(place.notes(), 1);
    place.run(json!({})).succeeds().says("held a kit with credentials");
    place.settled_but(&[".trust-1."]);
}

#[test]
fn a_parameter_that_is_not_seen_at_once_is_asked_for_again() {
    let place = Place::new();
    place
        .run(json!({"get-parameter": ["stale", "stale", "stale"]}))
        .succeeds()
        .calls("get-parameter", 4);
    place.all_is_settled();
}

#[test]
fn a_parameter_that_is_not_found_is_neither_deleted_nor_called_unregistered() {
    for (task, said) in
        [("works", "though it printed the receipt"), ("loses its receipt", "left no kit;")]
    {
        let place = Place::new();
        place
            .run(json!({"task": task, "get-parameter": ["stale*"]}))
            .fails()
            .says(said)
            .says("nobody knows whether the trust is registered")
            .never_says("nothing was registered")
            .calls("delete-parameter", 0);
        assert_eq!(place.notes(), 1);
        place.run(json!({})).succeeds();
        place.all_is_settled();
    }
}

#[test]
fn a_task_that_died_before_its_put_is_settled_by_the_next_run() {
    let place = Place::new();
    place
        .run(json!({"task": "dies before its put"}))
        .fails()
        .says("left no kit")
        .calls("delete-parameter", 0);
    place.run(json!({})).succeeds().says("does not exist; if it appears later");
    place.all_is_settled();
}

#[test]
fn a_task_that_is_still_running_is_waited_for() {
    let place = Place::new();
    let ended = place.run(json!({"task": "works until the next run"}));
    ended
        .fails()
        .says("after ten minutes ECS called it RUNNING")
        .says("may hold its kit, or come to hold it")
        .calls("get-parameter", 0)
        .calls("delete-parameter", 0);
    place.run(json!({})).succeeds().says("is running; waiting for its end");
    place.all_is_settled();

    let place = Place::new();
    place.run(json!({"task": "hangs", "kill": [4, "after", "KILL"]}));
    place
        .run(json!({}))
        .fails()
        .says("is running; waiting for its end")
        .says("ECS called it RUNNING")
        .calls("run-task", 0)
        .calls("delete-parameter", 0);
}

#[test]
fn a_parameter_that_cannot_be_read_stays() {
    for (faults, said) in [
        (json!({"get-parameter": ["deny"]}), "allow ssm:GetParameter"),
        (json!({"task": "leaves rubbish"}), "is not a kit"),
    ] {
        let place = Place::new();
        place.run(faults).fails().says(said).calls("delete-parameter", 0);
        assert_eq!(place.notes(), 1);
        assert_eq!(place.state()["parameters"].as_object().unwrap().len(), 1);
    }
    let place = Place::new();
    place.run(json!({"get-parameter": ["deny"]})).fails();
    place
        .run(json!({"get-parameter": ["deny"]}))
        .fails()
        .says("cannot read /flip/")
        .calls("run-task", 0);
    place.run(json!({})).succeeds();
    place.all_is_settled();
}

#[test]
fn a_parameter_that_cannot_be_deleted_is_deleted_by_the_next_run() {
    let place = Place::new();
    place
        .run(json!({"delete-parameter": ["deny"]}))
        .fails()
        .says("the kit is in kits/stag/trust-1.json")
        .says("cannot delete /flip/")
        .says("ssm:DeleteParameter");
    place.run(json!({})).succeeds().calls("list-tasks", 0);
    place.all_is_settled();
}

// --- Sinks, syncs and checks -----------------------------------------------------------------

#[test]
fn a_sink_that_fails_leaves_the_kit_in_a_file_that_the_next_run_hands_on() {
    let place = Place::new();
    let sink = [("KIT_SINK", "missing | cat >sunk")];
    place
        .run_with(&[], &json!({}), &sink)
        .fails()
        .says("KIT_SINK failed; the kit stays in kits/stag/.trust-1.");
    place.run(json!({})).succeeds().says("is the valid kit of the trust");
    place.all_is_settled();
}

#[test]
fn a_sync_leaves_a_registrations_note_to_a_registration() {
    let place = Place::new();
    place.run(json!({"kill": [5, "after", "KILL"]}));
    let sync =
        || place.run_with(&["--require-existing"], &json!({}), &[("KIT_SINK", "cat >>sunk")]);
    sync()
        .fails()
        .says("may hold credentials, which are not for a sync")
        .says("run 'make register-trust-1 PROD=stag', which settles it")
        .calls("get-parameter", 0)
        .calls("run-task", 0);
    assert!(!place.dir.join("sunk").exists());
    place.run(json!({})).succeeds();
    place.all_is_settled();
    sync().succeeds();
    assert!(!fs::read_to_string(place.dir.join("sunk")).unwrap().contains("trust_api_key"));
    place.all_is_settled();
}

#[test]
fn a_sync_that_was_killed_is_settled_by_the_next_one() {
    let place = Place::new();
    place.run(json!({})).succeeds();
    place.run_with(&["--require-existing"], &json!({"kill": [7, "after", "KILL"]}), &[]);
    assert_eq!(place.notes(), 1);
    place.run_with(&["--require-existing"], &json!({}), &[]).succeeds().says("held no credentials");
    place.all_is_settled();
}

#[test]
fn a_check_prints_the_programs_word_for_each_kit_and_changes_nothing() {
    let place = Place::new();
    place.run(json!({"task": "fails, and its kit comes late"})).fails();
    place.run(json!({})).succeeds();
    let check = |faults: Value| {
        let ended = place.run_with(&["--check-kits"], &faults, &[]);
        let mut words = ended.stdout.lines().map(|line| line.rsplit_once(' ').unwrap());
        let words = [words.next().unwrap(), words.next().unwrap()];
        assert_eq!(words[0].0, "kits/stag/trust-1.json");
        assert!(words[1].0.starts_with("kits/stag/.trust-1."), "{words:?}");
        words.map(|(_, word)| word.to_owned())
    };
    assert_eq!(check(json!({})), ["valid", "worthless"]);
    // A task that says nothing, or another word, has said nothing that counts.
    for task in ["unknown", "silent", "valid enough"] {
        assert_eq!(check(json!({"task": task})), ["unknown"; 2]);
    }
    assert_eq!(check(json!({"run-task": ["refuse*"]})), ["unknown"; 2]);
    place.settled_but(&[".trust-1."]);
}

// --- The operator's machine ------------------------------------------------------------------

#[test]
fn an_earlier_run_in_another_account_is_not_settled_in_this_one() {
    let place = Place::new();
    place.run(json!({"kill": [4, "after", "KILL"]}));
    let with_account = |account: &str| {
        let mut state = place.state();
        state["account"] = account.into();
        place.save(&state);
    };
    with_account("210987654321");
    place
        .run(json!({}))
        .fails()
        .says("set AWS_PROFILE, AWS_REGION and ECS_CLUSTER as they were")
        .calls("run-task", 0);
    with_account("123456789012");
    place.run(json!({})).succeeds();
    place.all_is_settled();
}

#[test]
fn either_of_the_regions_variables_is_enough_for_either_version_of_the_cli() {
    let place = Place::new();
    place
        .run_with(&[], &json!({}), &[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-west-2")])
        .succeeds();
    place.run_with(&[], &json!({}), &[("AWS_DEFAULT_REGION", "us-east-1")]).succeeds();
    place.all_is_settled();
}

#[test]
fn a_cli_that_would_store_the_kit_in_its_history_is_refused() {
    let place = Place::new();
    let ended = place.run_with(&[], &json!({}), &[("HISTORY", "enabled")]);
    ended.fails().says("cli_history is enabled").calls("run-task", 0);
}

#[test]
fn a_disk_that_does_not_take_the_kit_leaves_it_in_the_parameter_for_the_next_run() {
    let place = Place::new();
    let ended = place.run_with(&[], &json!({}), &[("FULL", "yes")]);
    ended
        .fails()
        .says("the kit cannot be stored")
        .says("make room in kits/stag")
        .calls("delete-parameter", 0);
    place.run(json!({})).succeeds();
    place.all_is_settled();
}

#[test]
fn a_script_without_a_stderr_leaves_no_copy_of_the_kit() {
    let place = Place::new();
    for (faults, closed) in
        [(json!({"task": "loses its receipt"}), "2>&-"), (json!({}), ">&- 2>&-")]
    {
        let command = place.command(&[], &faults, &[]);
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("exec bash \"$@\" {closed}"), "bash"]).args(command.get_args());
        shell.env_clear().current_dir(&place.dir);
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        assert_eq!(shell.output().unwrap().status.success(), closed != "2>&-");
        place.no_kit_is_lost();
    }
    place.all_is_settled();
}

// --- Kills -----------------------------------------------------------------------------------

/// A run that is killed, and one that is not: it has to settle everything.
#[track_caller]
fn killed(signal: &str, what: &str, faults: Value, env: &[(&str, &str)]) {
    let place = Place::new();
    let ended = place.run_with(&[], &faults, env);
    // What the operator was told of was not given up without a word, unless the script itself was killed.
    if !ended.success && signal != "KILL" && ended.stderr.contains("will come through") {
        assert!(ended.stderr.contains("ERROR state: "), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains("ERROR next: "), "{what}: {}", ended.stderr);
    }
    let next = place.run(json!({}));
    assert!(next.success, "{what}:\n{}\nthen:\n{}", ended.stderr, next.stderr);
    place.all_is_settled();
}

#[test]
fn whichever_call_of_aws_a_kill_meets_the_next_run_settles_it() {
    let place = Place::new();
    let calls = place.run(json!({})).succeeds().calls.len();
    assert!(calls > 8, "{calls}");
    for signal in ["TERM", "INT", "KILL"] {
        for when in ["before", "after"] {
            for call in 1..=calls {
                let what = format!("{signal} {when} call {call}");
                killed(signal, &what, json!({"kill": [call, when, signal]}), &[]);
            }
        }
    }
}

/// Kills the script at ECS_KILLS of its commands, spread evenly; ECS_KILLS=all is every command.
fn whichever_command(signal: &str, offset: usize) {
    let commands = commands(&Place::new());
    assert!(commands > 100, "{commands}");
    let kills = match std::env::var("ECS_KILLS").as_deref() {
        Ok("all") => commands,
        Ok(kills) => kills.parse().unwrap(),
        Err(_) => 20,
    };
    for kill in 0..kills {
        let at = (kill * commands / kills + offset) % commands + 1;
        let env = [("AT", at.to_string()), ("SIGNAL", signal.to_owned())];
        let env = env.each_ref().map(|(key, value)| (*key, value.as_str()));
        killed(signal, &format!("{signal} at command {at}"), json!({}), &env);
    }
}

#[test]
fn whichever_command_a_term_meets_the_next_run_settles_it() {
    whichever_command("TERM", 0);
}

#[test]
fn whichever_command_ctrl_c_twice_meets_the_next_run_settles_it() {
    whichever_command("INT", 2);
}

#[test]
fn whichever_command_a_kill_meets_the_next_run_settles_it() {
    whichever_command("KILL", 4);
}

// --- For storms ------------------------------------------------------------------------------

/// How many commands the script goes through.
pub fn commands(place: &Place) -> usize {
    place.run_with(&[], &json!({}), &[("AT", "count")]).succeeds();
    let commands = fs::read_to_string(place.dir.join("commands")).unwrap();
    commands.trim().parse().unwrap()
}

/// How long a run takes that nobody strikes.
pub fn undisturbed() -> Duration {
    let (place, start) = (Place::new(), Instant::now());
    place.run(json!({})).succeeds();
    start.elapsed()
}

/// A run that `strike` strikes, and one that settles it: what both said, and whether the first one
/// registered the trust.
pub fn struck(strike: impl FnOnce(&mut Child)) -> (String, bool) {
    let place = Place::new();
    let mut command = place.command(&[], &json!({}), &[]);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    strike(&mut run);
    let ended = place.ended(run.wait_with_output().unwrap());
    let committed = place.state()["hub"] != json!({});
    let next = place.run(json!({}));
    assert!(next.success, "{}\nthen:\n{}", ended.stderr, next.stderr);
    place.all_is_settled();
    (ended.stderr + &next.stderr, committed)
}
