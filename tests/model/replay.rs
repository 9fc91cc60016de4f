//! The release binary is held to what the model says of its program: one history for every pair of
//! a step and a fault is played on it, step by step, against a real PostgreSQL.
//!
//! The gate lets nothing pass before its step, so each history happens exactly as it is told. What
//! is compared at the end: the rows, the last line and the exit status, the kit, the parameter.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ecs::{self, Ecs};
use super::gate::{COMMIT, Gate, Put, Puts, RECOVERY, ROW, STATUS};
use super::rules::{Rule, Rules};
use super::search::{Home, Search, Trace, follow};
use super::stdout::{self, Line, Scope, Stdout};
use crate::support::hub::{Cluster, Standby};
use crate::support::{Hub, eventually};

const POOLED: &str = "pooler: runs the statements outside the transaction";
const ROW_ELSEWHERE: &str = "pooler: asks a standby that lags for the row";

/// The steps for which there must be a standby.
const WITH_STANDBY: [&str; 2] = ["standby: is promoted", "program: reaches the standby"];

/// What the model says of a run's end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct End {
    committed: bool,
    killed: bool,
    /// What it printed last, besides a kit.
    line: Said,
    /// Somebody was there to read it.
    heard: bool,
    parameter: Option<Held>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Said {
    Nothing,
    Registered,
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Held {
    Nothing,
    Kit,
    Empty,
}

impl End {
    fn on_stdout(state: &stdout::State) -> End {
        let run = &state.runs[0];
        End {
            committed: state.hub.committed(0),
            killed: run.program == stdout::Program::Killed,
            line: match run.printed {
                None => Said::Nothing,
                Some(Line::Receipt) => Said::Registered,
                Some(Line::Empty) => Said::Failed,
            },
            heard: run.is_heard(),
            parameter: None,
        }
    }

    fn in_ecs(state: &ecs::State) -> End {
        let task = &state.tasks[0];
        End {
            committed: state.hub.committed(0),
            killed: task.program == ecs::Program::Killed,
            line: match task.receipt {
                None => Said::Nothing,
                Some(ecs::Receipt::Registered) => Said::Registered,
                Some(ecs::Receipt::Failed) => Said::Failed,
            },
            heard: true,
            parameter: Some(match state.parameters[0].now {
                ecs::Value::Kit(_) => Held::Kit,
                ecs::Value::Empty => Held::Empty,
                ecs::Value::Absent | ecs::Value::Metadata => Held::Nothing,
            }),
        }
    }
}

#[test]
fn the_binary_agrees_with_the_model_of_stdout() {
    let home = |rules| Stdout { rules, scope: Scope::One };
    let rules = [Rule::OUTCOME, Rule::PROGRAM, Rule::ACKNOWLEDGEMENT];
    replay_all("stdout", &histories(home, &rules.concat(), End::on_stdout));
}

#[test]
fn the_binary_agrees_with_the_model_of_ecs() {
    let home = |rules| Ecs { rules, scope: ecs::Scope::Task };
    replay_all("ECS", &histories(home, &[Rule::OUTCOME, Rule::ECS].concat(), End::in_ecs));
}

/// One history for every pair of a step and a fault; and for every rule the one that would break
/// a promise without it, as it goes on with the rule. Those with a standby take servers of their
/// own and seconds each: of them `REPLAY=all` plays the pairs, too.
fn histories<H: Home>(
    home: fn(Rules) -> H,
    rules: &[Rule],
    end: fn(&H::State) -> End,
) -> Vec<(Trace, End)> {
    let whole = home(Rules::default());
    let mut histories = Search::run(&whole).pairs(&whole);
    if std::env::var_os("REPLAY").is_none() {
        histories.retain(|(trace, _)| !trace.iter().any(|step| WITH_STANDBY.contains(&step.what)));
    }
    for rule in rules {
        if let Some(broken) = Search::run(&home(Rules::without(&[*rule]))).broken {
            histories.extend(follow(&whole, &broken.trace));
        }
    }
    histories.into_iter().map(|(trace, state)| (trace, end(&state))).collect()
}

/// Replays side by side; many of the runs only wait for their limits.
fn replay_all(what: &str, histories: &[(Trace, End)]) {
    // What the driver does nothing for makes no history of its own.
    let chosen: BTreeSet<_> = histories
        .iter()
        .map(|(trace, end)| {
            let steps = trace.iter().map(|step| step.what).filter(|step| does_something(step));
            (steps.collect::<Vec<_>>(), end.clone())
        })
        .collect();
    println!("{what}: {} histories", chosen.len());
    assert!(!chosen.is_empty());
    let jobs = Mutex::new(chosen.into_iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let Some((steps, end)) = jobs.lock().unwrap().next() else { return };
                    let play = || Stage::set(&steps, &end).play();
                    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(play))
                    {
                        let why = panic.downcast::<String>().map_or_else(
                            |panic| panic.downcast::<&str>().unwrap().to_string(),
                            |text| *text,
                        );
                        let text = format!("{}\n{end:?}\n{why}\n", steps.join("\n"));
                        failures.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} disagree:\n{}", failures.len(), failures.join("\n"));
}

/// A run of the program, and the model's steps that are to be taken with it.
struct Stage<'a> {
    steps: &'a [&'static str],
    end: &'a End,
    hub: Hub,
    standby: Option<Standby>,
    /// Where the primary is.
    primary: SocketAddr,
    gate: Gate,
    puts: Puts,
    child: Child,
    stdin: Option<UnixStream>,
    stdout: UnixStream,
    lines: Receiver<String>,
    kit: Option<Value>,
    /// A put that has come before its step.
    early: Option<Put>,
    /// What the parameter held, one after the other; and puts that may be stored late.
    versions: Vec<String>,
    late: Vec<Put>,
    /// Somebody else's transaction, and whether it has the number of the run's.
    committed: String,
    reused: bool,
    /// What becomes of all other puts of the kit.
    for_good: Option<&'static str>,
}

const LATE_FOR_GOOD: &str = "SSM: the put of the kit times out for good and may be stored later";
const LOST_FOR_GOOD: &str = "SSM: stores the kit, and its answer is lost for good";

fn does_something(step: &str) -> bool {
    let nothing = [
        "program: knows",
        "program: prints the kit",
        "program: takes unknown",
        "program: finds",
        "program: gives up",
        "script: reads",
        "script: writes",
        "script: syncs",
        "script: acknowledges",
        "script: links",
        "script: removes",
        "script: deletes",
        "script: cannot link",
        "primary: receives",
        "network: loses COMMIT",
        "standby: replays the commit",
    ];
    !nothing.iter().any(|start| step.starts_with(start))
}

impl<'a> Stage<'a> {
    fn set(steps: &'a [&'static str], end: &'a End) -> Stage<'a> {
        let with_standby = steps.iter().any(|step| WITH_STANDBY.contains(step));
        let mut hub = if with_standby {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("replay-{}", NEXT.fetch_add(1, Ordering::Relaxed));
            Hub::on(Cluster::own(&name, &[]))
        } else {
            Hub::new()
        };
        let standby = with_standby.then(|| {
            let standby = Standby::of(hub.cluster);
            standby.catch_up(&mut hub);
            standby.pause_replay();
            standby
        });
        if steps.contains(&"primary: refuses to commit") {
            hub.refuse_commits();
        }
        if steps.contains(&"hub: a trigger alters the hash") {
            hub.execute(
                "CREATE FUNCTION alter_hash() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.api_key_hash = 'x'; RETURN NEW; END $$;
                 CREATE TRIGGER alter_hash BEFORE INSERT ON trust
                 FOR EACH ROW EXECUTE FUNCTION alter_hash()",
            );
        }
        let committed = hub.value("SELECT pg_current_xact_id()::text");
        let gate = Gate::to(hub.cluster.address());
        if steps.contains(&POOLED) {
            gate.pool_statements();
        }
        let puts = Puts::new();
        let (stdout, theirs) = UnixStream::pair().unwrap();
        let (stdin, its) = UnixStream::pair().unwrap();
        if steps.contains(&"program: cannot print the kit") {
            stdout.shutdown(Shutdown::Both).unwrap();
        }
        let transport = match end.parameter {
            None => "--await-ack",
            Some(_) => "--out-ssm-parameter=/kit",
        };
        let program = hub
            .program(&["--name", "Name", "--code", "CODE", transport])
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", gate.port.to_string())
            .env("AWS_REGION", "eu-west-2")
            .env("AWS_ENDPOINT_URL", puts.url.as_str())
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-secret")
            .stdout(OwnedFd::from(theirs));
        let mut command = program.command();
        command.stdin(OwnedFd::from(its)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // The parent's copies of the descriptors.
        drop(command);
        let (send, lines) = mpsc::channel();
        let reader = BufReader::new(stdout.try_clone().unwrap());
        thread::spawn(move || {
            reader.lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        Stage {
            steps,
            end,
            primary: hub.cluster.address(),
            hub,
            standby,
            gate,
            puts,
            child,
            stdin: Some(stdin),
            stdout,
            lines,
            kit: None,
            early: None,
            versions: Vec::new(),
            late: Vec::new(),
            committed,
            reused: false,
            for_good: None,
        }
    }

    fn play(&mut self) {
        for (at, step) in self.steps.iter().enumerate() {
            let next = self.steps.get(at + 1).copied().unwrap_or_default();
            let dies = next == "power: fails" || next.ends_with(": is killed");
            // Nobody can kill it between hearing and saying: it dies as it is about to hear.
            if !(dies && step.starts_with("program: hears")) {
                self.step(step);
            }
        }
        self.compare();
    }

    fn step(&mut self, step: &'static str) {
        match step {
            "program: registers, uncommitted" => {
                // It has once its kit comes.
                if self.end.parameter.is_some() {
                    self.early = Some(self.puts.next());
                } else if !self.steps.contains(&"program: cannot print the kit") {
                    let line = self.lines.recv_timeout(Duration::from_secs(20));
                    self.kit = serde_json::from_str(&line.expect("no kit is printed")).ok();
                }
            }
            "program: reads the acknowledgement" => {
                let id = self.kit.as_ref().unwrap()[0]["trust_id"].as_str().unwrap().to_owned();
                self.tell(&id);
            }
            "program: reads another line" => self.tell("another line"),
            "program: reads the end of stdin" | "disk: is full" => self.stdin = None,
            "client: is killed" | "script: is killed" => self.leave(),
            "power: fails" => {
                self.leave();
                self.child.kill().unwrap();
            }
            "program: is killed" | "task: is killed" => self.child.kill().unwrap(),
            "program: gets TERM" => {
                let kill = format!("kill -TERM {}", self.child.id());
                assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            }
            // It has; the end is waited for.
            "program: has waited for 30 s" => {}
            "stdin: another line comes" | "program: cannot print the kit" => {}
            "hub: a trigger alters the hash" | POOLED => {}
            "primary: crashes, and gives its number to another" => self.crash(),
            // With it the run ends.
            "program: prints the receipt"
            | "program: prints []"
            | "program: says that the outcome is unknown" => drop(self.wait()),
            "program: sends COMMIT" => self.gate.await_question(COMMIT),
            "primary: commits" | "primary: refuses to commit" => self.gate.pass(COMMIT),
            "primary: rolls back" => self.gate.pass_as_rollback(),
            "program: hears 'committed'"
            | "program: hears 'aborted'"
            | "program: hears an error, and no outcome" => self.gate.pass_answer(),
            "network: breaks the connection" => self.gate.cut(),
            "primary: notices that the connection is gone" => {
                self.gate.notice();
                eventually("the primary notices", || self.hub.delivering() == 0);
            }
            "program: reaches the primary" => self.gate.admit(self.primary),
            "program: reaches the standby" => {
                self.gate.admit(self.standby.as_ref().unwrap().address());
            }
            "standby: is promoted" => self.promote(),
            "program: asks whether it is in recovery" => self.gate.pass(RECOVERY),
            "program: asks for the status" => {
                if self.reused {
                    self.gate.ask_instead(STATUS, &self.committed);
                }
                self.gate.pass(STATUS);
            }
            "program: asks for the row" => self.gate.pass(ROW),
            ROW_ELSEWHERE => {
                self.gate.ask_instead(ROW, "7e57ab1e-0000-4000-8000-000000000001");
                self.gate.pass(ROW);
            }
            "SSM: stores the kit" => self.store("[{"),
            "SSM: stores []" => self.store("[]"),
            "SSM: refuses the kit" => self.next_put("[{").refused(),
            "SSM: the put of the kit times out and may be stored later; it is tried again" => {
                let put = self.next_put("[{");
                self.late.push(put);
            }
            LATE_FOR_GOOD => {
                let put = self.next_put("[{");
                self.late.push(put);
                self.for_good = Some(step);
            }
            LOST_FOR_GOOD => {
                let put = self.next_put("[{");
                self.versions.push(put.value);
                self.for_good = Some(step);
            }
            "SSM: stores the put that was late" => {
                self.versions.extend(self.late.iter().map(|put| put.value.clone()));
            }
            _ => panic!("the driver does not know the step {step:?}"),
        }
    }

    /// The transaction is gone, and its number is that of somebody else's commit.
    fn crash(&mut self) {
        self.gate.cut();
        self.gate.notice();
        eventually("the primary has lost it", || self.hub.delivering() == 0);
        self.reused = true;
    }

    /// The standby has all that the primary wrote, and takes its place.
    fn promote(&mut self) {
        if self.end.committed && self.gate.has_come(COMMIT) {
            self.gate.pass(COMMIT);
        }
        let standby = self.standby.as_ref().unwrap();
        let written: String = self.hub.value("SELECT pg_current_wal_flush_lsn()::text");
        let received = format!("SELECT pg_last_wal_receive_lsn() >= '{written}'");
        let mut session = standby.session(&self.hub);
        eventually("the standby has received it", || {
            session.query_one(&received, &[]).unwrap().get(0)
        });
        self.gate.cut();
        assert!(self.hub.cluster.pg_ctl("stop -m immediate"), "the primary does not stop");
        standby.promote();
        eventually("the standby is the primary", || {
            !session.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0)
        });
        self.primary = standby.address();
        self.hub.admin = session;
    }

    fn tell(&mut self, line: &str) {
        let mut stdin = self.stdin.as_ref().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Nobody reads or writes any more.
    fn leave(&mut self) {
        self.stdin = None;
        let _ = self.stdout.shutdown(Shutdown::Both);
    }

    /// The next put of this kind. Before `[]` there may be more tries of a kit.
    fn next_put(&mut self, start: &str) -> Put {
        loop {
            let put = self.early.take().unwrap_or_else(|| self.puts.next());
            if put.value.starts_with(start) {
                return put;
            }
            match self.for_good {
                Some(LATE_FOR_GOOD) => self.late.push(put),
                Some(LOST_FOR_GOOD) => self.versions.push(put.value),
                _ => panic!("a put that nobody expected"),
            }
        }
    }

    fn store(&mut self, start: &str) {
        let put = self.next_put(start);
        self.versions.push(put.value.clone());
        put.stored(self.versions.len());
    }

    /// What became of it, and what the model says.
    fn compare(&mut self) {
        let status = self.wait();
        let stderr = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        let (end, hub) = (self.end, &mut self.hub);
        // Nobody hears from this run any more.
        self.gate.close();
        hub.assert_no_session();
        let next = || self.lines.recv_timeout(Duration::from_secs(20)).ok();
        let lines: Vec<_> = std::iter::from_fn(next).collect();
        let said = format!("{status}, lines {lines:?}\n{stderr}");

        assert_eq!(hub.count("trust"), i64::from(end.committed), "rows; {said}");
        match &self.kit {
            Some(kit) if end.committed => hub.assert_registered(kit),
            _ if !end.committed => hub.assert_untouched(),
            _ => {}
        }
        let code = match end.line {
            _ if end.killed => None,
            Said::Registered => Some(0),
            _ => Some(1),
        };
        let receipt = match (end.parameter, &self.kit) {
            (Some(_), _) => Some("/kit"),
            (None, kit) => kit.as_ref().and_then(|kit| kit[0]["trust_id"].as_str()),
        };
        let last = match end.line {
            Said::Nothing => None,
            Said::Failed if end.parameter.is_none() => Some("[]"),
            _ => receipt,
        };
        if end.killed {
            assert_eq!(status.signal(), Some(9), "{said}");
        } else if end.heard {
            assert_eq!(status.code(), code, "{said}");
            assert_eq!(lines.last().map(String::as_str), last, "{said}");
        } else {
            assert!(status.code().is_some(), "{said}");
        }
        if let Some(held) = end.parameter {
            let now = match self.versions.last().map(String::as_str) {
                None => Held::Nothing,
                Some("[]") => Held::Empty,
                Some(_) => Held::Kit,
            };
            assert_eq!(now, held, "{said}");
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
