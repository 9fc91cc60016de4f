//! doc/reference.md, "Delivery": with `--await-ack` the reader says that it has the kit; then it is
//! committed.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::support::relay::{Later, Strike, When};
use crate::support::{Hub, Program, Relay, eventually};

const NEW: [&str; 5] = ["--name", "A", "--code", "GSTT", "--await-ack"];

/// A run whose stdin and stdout the test holds. It is killed if the test gives up on it.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

struct End {
    code: Option<i32>,
    /// What followed on stdout.
    stdout: String,
    stderr: String,
}

impl Talk {
    fn of(program: Program) -> Talk {
        let mut child = program.command().stdin(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Talk { child, stdin, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    fn kit(&mut self) -> serde_json::Value {
        let kit: serde_json::Value = serde_json::from_str(&self.line()).unwrap();
        assert!(kit[0]["trust_api_key"].is_string(), "no credentials");
        kit
    }

    fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn end(mut self) -> End {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        if let Some(mut rest) = self.stdout.take() {
            rest.read_to_string(&mut stdout).unwrap();
        }
        End { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    #[track_caller]
    fn is(&self, code: i32, stdout: &str, stderr: &str) {
        let holds =
            self.code == Some(code) && self.stdout == stdout && self.stderr.contains(stderr);
        assert!(holds, "exit {:?}\n{}\n{}", self.code, self.stdout, self.stderr);
    }
}

fn id(kit: &serde_json::Value) -> &str {
    kit[0]["trust_id"].as_str().unwrap()
}

#[test]
fn a_kit_is_committed_after_its_acknowledgement_and_then_the_receipt_is_printed() {
    let mut hub = Hub::new();
    let mut talk = Talk::of(hub.program(&NEW));
    let kit = talk.kit();
    eventually("the run waits", || hub.delivering() == 1);
    assert_eq!(hub.count("trust"), 0, "committed before the acknowledgement");
    talk.say(&format!("{}\n", id(&kit)));
    talk.end().is(0, &format!("{}\n", id(&kit)), "");
    hub.assert_registered(&kit);
}

#[test]
fn any_other_line_or_the_end_of_stdin_registers_nothing_and_is_not_repeated() {
    let mut hub = Hub::new();
    let others: [fn(&str) -> String; 9] = [
        |_| String::new(),
        |_| "\n".to_owned(),
        |_| "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10\n".to_owned(),
        |id| id.to_owned(),
        |id| format!("{id}\r\n"),
        |id| format!(" {id}\n"),
        |id| format!("{id}x\n"),
        |id| id.to_uppercase() + "\n",
        |id| format!("yes\n{id}\n"),
    ];
    for other in others {
        let mut talk = Talk::of(hub.program(&NEW));
        let kit = talk.kit();
        let said = other(id(&kit));
        talk.say(&said);
        drop(talk.stdin.take());
        let end = talk.end();
        end.is(1, "[]\n", "ERROR the kit was not acknowledged: ");
        assert!(said.trim().is_empty() || !end.stderr.contains(said.trim()), "{}", end.stderr);
        hub.assert_untouched();
    }
}

#[test]
fn silence_registers_nothing() {
    let mut hub = Hub::new();
    let mut talk = Talk::of(hub.program(&NEW));
    talk.kit();
    talk.end().is(1, "[]\n", "no acknowledgement within 30 s; nothing was registered");
    hub.assert_untouched();
}

#[test]
fn a_reader_that_is_gone_registers_nothing() {
    let mut hub = Hub::new();
    let mut talk = Talk::of(hub.program(&NEW));
    talk.kit();
    // A client that was killed: neither descriptor leads anywhere any more.
    drop(talk.stdout.take());
    drop(talk.stdin.take());
    talk.end().is(1, "", "cannot leave [] as the verdict either");
    hub.assert_untouched();
}

#[test]
fn a_commit_that_is_refused_after_the_acknowledgement_takes_the_kit_back() {
    let mut hub = Hub::new();
    hub.refuse_commits();
    let mut talk = Talk::of(hub.program(&NEW));
    let kit = talk.kit();
    talk.say(&format!("{}\n", id(&kit)));
    talk.end().is(1, "[]\n", "not today");
    hub.assert_untouched();
}

#[test]
fn an_unknown_outcome_is_neither_taken_back_nor_confirmed() {
    let mut hub = Hub::new();
    let relay = Relay::new().strike(When::After("COMMIT"), Strike::Cut).later(Later::Closed);
    let mut talk = Talk::of(relay.serve(hub.program(&NEW)));
    let kit = talk.kit();
    talk.say(&format!("{}\n", id(&kit)));
    talk.end().is(1, "", &format!("--check-kit {}", id(&kit)));
    hub.assert_registered(&kit);
}

#[test]
fn a_receipt_that_cannot_be_printed_is_reported_and_the_kit_is_safe() {
    let mut hub = Hub::new();
    let mut talk = Talk::of(hub.program(&NEW));
    let kit = talk.kit();
    drop(talk.stdout.take());
    talk.say(&format!("{}\n", id(&kit)));
    talk.end().is(1, "", "the trust is registered and its kit is safe");
    hub.assert_registered(&kit);
}

#[test]
fn a_kit_without_credentials_needs_no_acknowledgement() {
    let hub = Hub::new();
    let kit = hub.program(&["--name", "A", "--code", "GSTT"]).run().full_kit();
    let run = hub.program(&["--name", "A", "--await-ack"]).run().exits(0);
    let (first, receipt) = run.stdout.split_once('\n').unwrap();
    let first: serde_json::Value = serde_json::from_str(first).unwrap();
    assert_eq!((id(&first), first[0].get("trust_api_key")), (id(&kit), None));
    assert_eq!(receipt, format!("{}\n", id(&kit)));
    // Nothing is lost with it.
    hub.program(&["--name", "A", "--await-ack"]).run_in_shell(">/dev/null").exits(0);
    hub.program(&["--name", "A"]).run_in_shell(">/dev/null").exits(0);
}
