//! doc/reference.md, "Time limits": a stdout or stderr that nobody reads ends no run in silence,
//! and holds none up for ever.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::process::{Command, Stdio};

use crate::support::{Hub, Ssm, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// A pipe that takes nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'x'; 64 * 1024]).unwrap();
    (reader, writer)
}

#[test]
fn a_stdout_that_nobody_reads_registers_nothing() {
    let mut hub = Hub::new();
    let (_reader, writer) = full_pipe();
    let run = hub.program(&NEW).stdout(writer).run().exits(1);
    run.says("cannot deliver to stdout: nobody reads it; nothing was registered")
        .says("cannot leave [] as the verdict either");
    hub.assert_untouched();
}

#[test]
fn a_stdout_that_is_read_too_late_ends_with_the_verdict() {
    let mut hub = Hub::new();
    let (mut reader, writer) = full_pipe();
    let mut run = hub.program(&NEW).stdout(writer).spawn();
    let mut stderr = BufReader::new(run.child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("nobody reads it; nothing was registered"), "{line}");
    let mut stdout = Vec::new();
    reader.read_to_end(&mut stdout).unwrap();
    let stdout = String::from_utf8(stdout.split_off(64 * 1024)).unwrap();
    assert_eq!(stdout.lines().last(), Some("[]"), "{stdout}");
    assert_eq!(run.child.wait().unwrap().code(), Some(1));
    hub.assert_untouched();
}

#[test]
fn a_stderr_that_nobody_reads_does_not_hold_the_receipt_back() {
    let mut hub = Hub::new();
    for arguments in [&["--out-ssm-parameter", "/kit"][..], &["--out-ssm-parameter", "/kit", "-v"]]
    {
        let ssm = Ssm::new();
        let (_reader, writer) = full_pipe();
        let program = ssm.serve(hub.program(&[&NEW[..], arguments].concat()));
        let child = program.command().stderr(writer).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"/kit\n"[..]));
        hub.assert_registered(&serde_json::from_str(&ssm.latest("/kit").unwrap()).unwrap());
        hub.execute("UPDATE fl_kit_slot SET assigned_to_trust_id = NULL; DELETE FROM trust");
    }
    // Quiet, the receipt is all that there is.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (_unread, stderr) = full_pipe();
    let program = hub.program(&NEW).stdout(writer).arg("--await-ack");
    let mut child = program.command().stdin(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let mut lines = BufReader::new(reader.by_ref()).lines();
    let kit: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let id = kit[0]["trust_id"].as_str().unwrap();
    writeln!(child.stdin.take().unwrap(), "{id}").unwrap();
    // It comes before the log line that nobody reads.
    assert_eq!(lines.next().unwrap().unwrap(), id);
    hub.assert_registered(&kit);
    let _ = (child.kill(), child.wait());
}

#[test]
fn where_no_thread_can_be_started_the_failure_and_the_verdict_are_said_all_the_same() {
    let mut hub = Hub::new();
    // No room for a thread's stack.
    let run = hub.program(&NEW).behind("ulimit -v 14000", "").run().fails();
    run.says("cannot start a thread")
        .says("next: raise the limit of processes (ulimit -u, a container's pids), and run again");
    hub.assert_untouched();
}

#[test]
fn an_interrupted_run_leaves_its_verdict_though_nobody_reads_stderr() {
    let mut hub = Hub::new();
    let (_reader, stderr) = full_pipe();
    let program = hub.program(&NEW).arg("--await-ack");
    let child = program.command().stdin(Stdio::piped()).stderr(stderr).spawn().unwrap();
    eventually("the run waits", || hub.delivering() == 1);
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.ends_with(b"[]\n"));
    hub.assert_untouched();
}
