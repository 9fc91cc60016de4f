//! doc/reference.md, "Signals": TERM, INT and HUP end a run promptly, also as process 1, and leave
//! a verdict.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::not_run::not_run;
use crate::support::relay::{Later, Strike, When};
use crate::support::run::{PROGRAM, Running};
use crate::support::{Answer, Hub, Program, Relay, Ssm, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];
const SIGNALS: [&str; 3] = ["TERM", "INT", "HUP"];

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// The process has set its handlers: it catches HUP, INT and TERM (proc(5)).
fn watches(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16).unwrap();
    [1, 2, 15].iter().all(|signal| caught >> (signal - 1) & 1 == 1)
}

fn interrupt(run: &Running, name: &str) {
    eventually("the run watches for signals", || watches(run.child.id()));
    signal(name, run.child.id());
}

#[test]
fn a_run_that_connects_is_interrupted() {
    let hub = Hub::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    for name in SIGNALS {
        let run =
            hub.program(&NEW).env("DB_PORT", port.as_str()).env("DB_HOST", "127.0.0.1").spawn();
        let (_stream, _) = silent.accept().unwrap();
        interrupt(&run, name);
        run.wait().fails().says(&format!("interrupted by SIG{name}")).never_says("no answer");
    }
}

#[test]
fn a_run_that_waits_for_the_lock_of_its_name_is_interrupted() {
    let mut hub = Hub::new();
    for name in SIGNALS {
        let first = hub.program(&NEW).stdout(full_pipe().1).spawn();
        eventually("the first run delivers", || hub.delivering() == 1);
        let second = hub.program(&NEW).spawn();
        eventually("the second run waits", || hub.waiting() == 1);
        interrupt(&second, name);
        second.wait().fails().says(&format!("interrupted by SIG{name}"));
        drop(first);
        hub.assert_untouched();
    }
}

/// A pipe that takes nothing more.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'x'; 64 * 1024]).unwrap();
    // The reader lives as long as the process, so that the pipe does not break.
    std::mem::forget(reader.try_clone().unwrap());
    (reader, writer)
}

#[test]
fn a_run_that_prints_its_kit_is_interrupted_and_the_verdict_comes_last() {
    let mut hub = Hub::new();
    for name in SIGNALS {
        let (mut reader, writer) = full_pipe();
        let run = hub.program(&NEW).stdout(writer).spawn();
        eventually("the run delivers", || hub.delivering() == 1);
        interrupt(&run, name);
        // While the run leaves its verdict behind the kit, somebody begins to read.
        thread::sleep(Duration::from_millis(100));
        let mut stdout = Vec::new();
        let read = thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            reader.read_exact(&mut chunk).unwrap();
            // The other copy of the reader is this process's own; what is there is read.
            while !stdout.ends_with(b"[]\n") {
                let read = reader.read(&mut chunk).unwrap();
                stdout.extend_from_slice(&chunk[..read]);
            }
            String::from_utf8(stdout).unwrap()
        });
        run.wait().exits(1).says(&format!("interrupted by SIG{name}"));
        assert_eq!(read.join().unwrap().lines().last().unwrap(), "[]");
        hub.assert_untouched();
    }
}

#[test]
fn a_run_that_puts_its_kit_is_interrupted_and_says_that_the_put_is_in_doubt() {
    let mut hub = Hub::new();
    for name in SIGNALS {
        let ssm = Ssm::new().script(&[Answer::StoreLate]);
        let program = hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit");
        let run = ssm.serve(program).spawn();
        eventually("the run puts", || !ssm.requests().is_empty());
        interrupt(&run, name);
        let run = run.wait().exits(1).prints("").says(&format!("interrupted by SIG{name}"));
        run.says("may come to hold a kit that was never registered");
        assert_eq!(ssm.versions("/kit"), ["[]"]);
        hub.assert_untouched();
    }
}

#[test]
fn a_signal_shortens_the_wait_for_a_verdict_that_is_being_put() {
    let ssm = Ssm::new().always(Answer::Hang);
    // No hub: the run has nothing to do but to leave its verdict.
    let program = Program::new(&NEW).arg("--out-ssm-parameter").arg("/kit");
    let program = program.env("POSTGRES_USER", "x").env("POSTGRES_DB", "x").env("DB_HOST", "/none");
    let run = ssm.serve(program).spawn();
    eventually("the run puts its verdict", || !ssm.requests().is_empty());
    interrupt(&run, "TERM");
    let run = run.wait().exits(1).prints("").says("cannot leave [] as the verdict either");
    // A container's engine waits for ten seconds; the put alone would have taken thirty.
    run.within(20);
}

#[test]
fn a_run_that_awaits_an_acknowledgement_is_interrupted() {
    let mut hub = Hub::new();
    for name in SIGNALS {
        let program = hub.program(&NEW).arg("--await-ack");
        let mut child = program.command().stdin(Stdio::piped()).spawn().unwrap();
        eventually("the run waits", || hub.delivering() == 1);
        eventually("the run watches for signals", || watches(child.id()));
        signal(name, child.id());
        let _stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stdout.ends_with("}]\n[]\n") || stdout == "[]\n", "{stdout}");
        assert!(stderr.contains(&format!("interrupted by SIG{name}")), "{stderr}");
        hub.assert_untouched();
    }
}

#[test]
fn a_commit_under_way_is_not_interrupted_and_its_outcome_is_found_out() {
    let mut hub = Hub::new();
    for (number, name) in SIGNALS.iter().enumerate() {
        let relay = Relay::new().strike(When::After("COMMIT"), Strike::Hold);
        let trust = format!("T{number}");
        let program = hub.program(&["--name", &trust, "--code", "X"]);
        let (run, struck) = relay.run(program, |run| {
            signal(name, run);
            signal(name, run);
            thread::sleep(Duration::from_millis(200));
            relay.release();
        });
        assert!(struck, "{}", run.dump());
        hub.assert_registered(&run.full_kit());
    }
    // Also where the outcome must be asked for.
    let relay = Relay::new()
        .strike(When::After("COMMIT"), Strike::Cut)
        .strike(When::Before("pg_is_in_recovery"), Strike::Hold)
        .later(Later::Served);
    let (run, struck) = relay.run(hub.program(&["--name", "Z", "--code", "X"]), |run| {
        signal("TERM", run);
        thread::sleep(Duration::from_millis(200));
        relay.release();
    });
    assert!(struck, "{}", run.dump());
    hub.assert_registered(&run.full_kit());
}

#[test]
fn a_question_about_a_kit_is_interrupted_and_stays_unknown() {
    let mut hub = Hub::new();
    let first = hub.program(&NEW).stdout(full_pipe().1).spawn();
    eventually("the first run delivers", || hub.delivering() == 1);
    let id = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    let question = hub.program(&["--name", "A", "--check-kit", id]).spawn();
    eventually("the question waits", || hub.waiting() == 1);
    interrupt(&question, "TERM");
    question.wait().exits(1).prints("unknown\n").says("interrupted by SIGTERM");
    drop(first);
}

/// The wait for the line that says so must not be ended by the signal, too.
#[test]
fn a_late_reader_of_stderr_learns_why_a_question_was_interrupted() {
    let mut hub = Hub::new();
    let first = hub.program(&NEW).stdout(full_pipe().1).spawn();
    eventually("the first run delivers", || hub.delivering() == 1);
    let (mut reader, stderr) = full_pipe();
    let id = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    let question = hub.program(&["--name", "A", "--check-kit", id]);
    let question = question.command().stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    eventually("the question waits", || hub.waiting() == 1);
    signal("TERM", question.id());
    thread::sleep(Duration::from_millis(500));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let said = said.trim_start_matches('x');
    assert!(said.starts_with("ERROR cannot tell whether the kit is valid: "), "{said}");
    assert!(said.contains(": the run was interrupted by SIGTERM\n"), "{said}");
    assert_eq!(question.wait_with_output().unwrap().stdout, b"unknown\n");
    drop(first);
}

/// Process 1 of a PID namespace has no default reaction to a signal, as in a container.
#[test]
fn a_run_that_is_process_1_is_interrupted() {
    let mut hub = Hub::new();
    let namespace = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !namespace.is_ok_and(|output| output.status.success()) {
        return not_run("the program as process 1 is interrupted (needs a PID namespace)");
    }
    for name in SIGNALS {
        let ssm =
            Ssm::new().script(&[Answer::Refuse(500, "InternalServerError", "x"), Answer::Hang]);
        let program = hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit");
        let call = ssm.serve(program).command();
        let mut around = Command::new("unshare");
        around.args(["--pid", "--fork", "--kill-child"]).arg(call.get_program());
        around.args(call.get_args()).env_clear();
        around.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
        around.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = around.spawn().unwrap();
        eventually("the run puts again", || ssm.requests().len() == 2);
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let inside = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        signal(name, inside);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(&format!("interrupted by SIG{name}")), "{stderr}");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(ssm.latest("/kit").as_deref(), Some("[]"), "{stderr}");
        hub.assert_untouched();
    }
}

/// The same in a container, by its engine. Where none runs, the namespace above has shown it.
#[test]
fn a_container_that_is_stopped_ends_its_run_in_order() {
    let mut hub = Hub::new();
    let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
    if !docker(&["info"]).is_ok_and(|output| output.status.success()) {
        return not_run("a container is stopped (needs a container engine that runs)");
    }
    let name = format!("register-trust-{}-{}", std::process::id(), hub.database.replace('_', "-"));
    let import = "tar -C \"$(dirname \"$0\")\" -c \"$(basename \"$0\")\" | docker import - \"$1\"";
    let image = Command::new("sh").args(["-c", import, PROGRAM, &name]).output().unwrap();
    assert!(image.status.success(), "{}", String::from_utf8_lossy(&image.stderr));
    let mut call = Command::new("docker");
    call.args(["run", "-i", "--network=host", "--name", &name]);
    for (key, value) in hub.program(&[]).environment() {
        call.arg("-e").arg(format!("{key}={}", value.to_str().unwrap()));
    }
    call.args([name.as_str(), "/register-trust"]).args(NEW).arg("--await-ack");
    call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = call.spawn().unwrap();
    eventually("the run waits", || hub.delivering() == 1);
    // A run that does not hear the signal is killed: its exit status tells, not the time.
    let stopped = docker(&["stop", "-t", "20", &name]).unwrap();
    let output = child.wait_with_output().unwrap();
    let _ = (docker(&["rm", "-f", &name]), docker(&["rmi", "-f", &name]));
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(stopped.status.success() && output.status.code() == Some(1), "{stderr}");
    assert!(stdout.ends_with("[]\n") && stderr.contains("interrupted by SIGTERM"), "{stderr}");
    hub.assert_untouched();
}
