//! From the real thing to the model: what a storm has said, and what passed through the relay, are
//! steps that the model knows, or words about none. Anything else fails the storm.

use std::collections::BTreeSet;

use super::ecs::{self, Ecs};
use super::rules::Rules;
use super::search::{Home, Search};
use super::stdout::{Scope, Stdout};
use crate::support::root;

/// A piece of a line on stderr, and the model's step that it tells of.
const LINES: [(&str, &str); 55] = [
    // The program.
    ("registered trust ", "program: prints the receipt"),
    ("is already registered", "program: finds the trust"),
    (" trusts are named ", "program: finds the trust"),
    ("connect to the hub at ", "program: prints []"),
    ("cannot register the new trust ", "program: prints []"),
    ("open the registration", "program: prints []"),
    ("find or register the trust", "program: prints []"),
    ("no free FL kit slot: ", "program: prints []"),
    (" into SSM", "SSM: refuses the kit"),
    ("the run was interrupted by ", "program: gets TERM"),
    ("the kit was not acknowledged: ", "program: reads the end of stdin"),
    ("did not say whether it was committed: ", "program: says that the outcome is unknown"),
    ("the hub did not commit: ", "primary: rolls back"),
    ("cannot deliver to stdout: ", "program: cannot print the kit"),
    ("cannot print the receipt", "client: is killed"),
    ("cannot leave [] as the verdict", "client: is killed"),
    (
        "WARNING SSM: ",
        "SSM: the put of the kit times out and may be stored later; it is tried again",
    ),
    (" existed and was overwritten; ", "SSM: stores the put that was late"),
    (" can reappear after it was deleted", "SSM: stores the put that was late"),
    // deploy/register.sh and lib.sh.
    (" is in ", "script: removes the other name"),
    ("KIT_SINK has taken the kit of trust ", "sink: stores the kit"),
    ("ERROR KIT_SINK failed; the kit stays in ", "sink: a stage fails"),
    ("ERROR nothing was registered for trust ", "script: deletes its file"),
    ("without a kit; nothing was registered for trust ", "script: reads the end, and no kit"),
    ("without a verdict: it is not known whether ", "script: reads the end, and names its file"),
    ("ERROR its kit stays in ", "script: reads the end, and names its file"),
    ("ERROR the kit cannot be stored in ", "disk: is full"),
    (" cannot be named ", "script: cannot link, and names its file"),
    (" holds another kit; the kit of the trust ", "script: cannot link, and names its file"),
    ("WARNING an earlier run left ", "operator: runs again"),
    (", the beginning of a kit that was never registered", "operator: runs again"),
    (", a kit without credentials that an earlier run left", "operator: runs again"),
    (", which an earlier run left, is the valid kit of ", "script: links the final name"),
    ("no file can be made in ", "script: is killed"),
    ("cannot be made, or cannot be synced", "script: is killed"),
    // deploy/ecs.sh.
    ("will come through ", "script: keeps the parameter's name in a file"),
    ("the note ", "script: keeps the parameter's name in a file"),
    ("the task ", "ECS: starts the task"),
    (" is running; waiting for its end", "ECS: starts the task, and its answer is lost"),
    ("cannot start the task: ", "ECS: refuses to start the task"),
    ("WARNING an earlier run did not end; ", "operator: runs again"),
    (" held a kit with credentials, which is now in ", "script: stores the kit"),
    (" held no credentials", "script: reads the parameter"),
    (" does not exist; if it appears later, ", "script: reads the parameter"),
    ("ERROR cannot read ", "script: reads the parameter"),
    ("ERROR cannot delete ", "script: deletes the parameter and its name"),
    ("ERROR the task left ", "script: gives up, and names the parameter"),
    (
        "ERROR the trust was not registered",
        "script: deletes the parameter, says 'nothing registered'",
    ),
    ("ERROR waiting for the task ", "script: gives up, and names the parameter"),
    ("cannot see whether its task is still running", "script: gives up, and names the parameter"),
    ("WARNING the task left no log in ", "log: is late"),
    ("ERROR what it holds is stored or worthless; ", "script: deletes the parameter and its name"),
    ("interrupted", "script: is killed"),
    ("ERROR cannot look at ", "script: is killed"),
    ("ERROR no active service ", "script: is killed"),
];

/// What is about no step: settings, what is to be done next, and the words of the development hub, a sink,
/// make and bash.
const WORDS: [&str; 17] = [
    "ERROR next: ",
    "ERROR state: ",
    "WARNING no slot names from ",
    "ERROR the run ended (exit status ",
    "making a development hub in ",
    "the development hub is up on ",
    "ERROR the development hub ",
    // A sink's shell.
    "bash: line ",
    "make: ",
    "make[",
    "waiting for another run of trust ",
    "exit status: ",
    "signal: ",
    "Killed",
    "Terminated",
    "Hangup",
    "Interrupt",
];

/// The tools of the scripts, which tell in words of their own what became of a reader or a writer.
const TOOLS: [&str; 15] = [
    "cat", "dirname", "flock", "head", "id", "ln", "mkdir", "mkfifo", "mktemp", "mv", "rm", "sed",
    "stat", "sync", "tr",
];

/// Whether bash tells in this line of a process that it started: `deploy/x.sh: line 1: 23 Killed`.
fn is_a_processs_end(line: &str) -> bool {
    let ends = ["Killed", "Terminated", "Hangup", "Interrupt", "Exit ", "Done", "Broken pipe"];
    let words = line.rsplit_once(": ").map_or(line, |(_, words)| words).trim_start();
    let number = words.trim_start_matches(|letter: char| letter.is_ascii_digit());
    number != words && ends.iter().any(|end| number.trim_start().starts_with(end))
}

/// Fails at a line that tells of no step of the model's. Tools that are not the project's, an
/// engine's client or the AWS CLI, say what they like: of theirs only what looks like a log line counts.
#[track_caller]
pub fn assert_known(said: &str, others: bool) {
    for line in said.lines().filter(|line| !line.trim().is_empty()) {
        let step = LINES.iter().any(|(piece, _)| line.contains(piece));
        let tool = line.split_once(": ").is_some_and(|(tool, _)| TOOLS.contains(&tool));
        let word = WORDS.iter().any(|word| line.starts_with(word));
        let disk = line.starts_with("deploy/") && line.contains(": write error: ");
        let word = word || tool || disk || is_a_processs_end(line);
        let log = ["ERROR ", "WARNING ", "INFO "].iter().any(|level| line.starts_with(level));
        let other = others && !log;
        assert!(step || word || other, "the model knows nothing of this: {line:?} in\n{said}");
    }
}

fn steps<H: Home>(home: &H) -> BTreeSet<&'static str> {
    Search::run(home).steps()
}

#[test]
fn every_line_of_the_table_is_in_the_program_or_the_scripts() {
    let mut sources = String::new();
    for folder in ["src", "deploy"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    // Rust's strings go on in the next line.
    let sources: Vec<_> = sources.split("\\\n").map(str::trim_start).collect();
    let sources = sources.concat();
    for (piece, _) in LINES {
        let piece = piece.trim_start_matches("ERROR ").trim_start_matches("WARNING ");
        assert!(sources.contains(piece), "nobody says {piece:?}");
    }
}

#[test]
fn every_line_of_a_log_tells_of_a_step_that_is_in_the_model() {
    let rules = Rules::default();
    let mut known = steps(&Stdout { rules, scope: Scope::Files });
    known.extend(steps(&Stdout { rules, scope: Scope::Sink }));
    known.extend(steps(&Ecs { rules, scope: ecs::Scope::Both }));
    for (line, step) in LINES {
        assert!(known.contains(step), "{line:?} tells of {step:?}, which the model does not know");
    }
}
