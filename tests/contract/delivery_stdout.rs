//! doc/reference.md, "Delivery": stdout.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::run::PROGRAM;
use crate::support::{Hub, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

#[test]
fn a_closed_stdout_or_dev_null_is_refused_before_anything_is_registered() {
    let mut hub = Hub::new();
    for redirection in [">&-", ">/dev/null", "1</dev/null", "1<>/dev/null"] {
        let run = hub.program(&NEW).run_in_shell(redirection).exits(1);
        run.says(NOWHERE);
        hub.assert_untouched();
    }
}

const NOWHERE: &str = "cannot deliver to stdout: it is closed, or leads to /dev/null or another \
    device that keeps nothing; nothing was registered";

#[test]
fn a_device_that_keeps_nothing_is_refused_before_anything_is_registered() {
    let mut hub = Hub::new();
    for redirection in [">/dev/full", ">/dev/zero", "1<>/dev/urandom"] {
        hub.program(&NEW).run_in_shell(redirection).exits(1).says(NOWHERE);
        hub.assert_untouched();
    }
}

#[test]
fn a_terminal_takes_the_kit() {
    let mut hub = Hub::new();
    let program = hub.program(&NEW).environment();
    let call = format!("'{PROGRAM}' {}", NEW.join(" "));
    let mut terminal = Command::new("script");
    let terminal = terminal.args(["-qec", &call, "/dev/null"]).env_clear().envs(program);
    let output = terminal.env("SHELL", "/bin/sh").stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let kit =
        shown.lines().find(|line| line.starts_with("[{")).unwrap_or_else(|| panic!("{shown}"));
    assert!(output.status.success(), "{shown}");
    hub.assert_registered(&serde_json::from_str(kit).unwrap());
}

#[test]
fn a_kit_without_credentials_may_go_to_dev_null() {
    let hub = Hub::new();
    hub.program(&NEW).run().full_kit();
    for redirection in [">&-", ">/dev/null", ">/dev/zero"] {
        let run = hub.program(&["--name", "A"]).run_in_shell(redirection).exits(0);
        run.says("INFO trust \"A\" is already registered");
    }
    // That it cannot be written is noticed all the same.
    let run = hub.program(&["--name", "A"]).run_in_shell(">/dev/full").exits(1);
    run.says("cannot deliver to stdout: No space left on device");
}

/// Where mounting is allowed the kit goes to a file system that is full, otherwise into a file that
/// may not grow.
#[test]
fn a_full_disk_registers_nothing() {
    let mut hub = Hub::new();
    let dir = std::env::temp_dir().join(format!("full-{}", hub.database));
    fs::create_dir(&dir).unwrap();
    let mount = "mount -t tmpfs -o size=4k none \"$0\" && : >\"$0/kit\" && head -c 4096 /dev/zero >\"$0/rest\"";
    let mut unshare = Command::new("unshare");
    let mountable = unshare.args(["-m", "sh", "-c", mount]).arg(&dir).output().unwrap();
    let call = "exec \"$1\" --name A --code GSTT >\"$0/kit\"";
    let mut command = if mountable.status.success() {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{mount} && {call}")]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f 0; {call}")]);
        command
    };
    command.arg(&dir).arg(PROGRAM).env_clear().envs(hub.program(&NEW).environment());
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let why = if mountable.status.success() { "No space left on device" } else { "File too large" };
    assert!(stderr.contains(&format!("cannot deliver to stdout: {why}")), "{stderr}");
    assert!(stderr.contains("nothing was registered"), "{stderr}");
    assert!(stderr.contains("cannot leave [] as the verdict either"), "{stderr}");
    hub.assert_untouched();
}

#[test]
fn a_descriptor_that_cannot_be_written_registers_nothing() {
    let mut hub = Hub::new();
    let run = hub.program(&NEW).run_in_shell("1</etc/hostname").exits(1);
    run.says("cannot deliver to stdout: Bad file descriptor").says("nothing was registered");
    hub.assert_untouched();
}

#[test]
fn a_broken_pipe_registers_nothing() {
    let mut hub = Hub::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = hub.program(&NEW).stdout(writer).run().exits(1);
    run.says("cannot deliver to stdout: Broken pipe").says("nothing was registered");
    hub.assert_untouched();
}

#[test]
fn a_file_takes_the_kit_even_if_it_is_appended_to() {
    let mut hub = Hub::new();
    let path = std::env::temp_dir().join(format!("kit-{}", hub.database));
    fs::write(&path, "before\n").unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    hub.program(&NEW).stdout(file).run().exits(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (before, kit) = text.split_once('\n').unwrap();
    assert_eq!(before, "before");
    hub.assert_registered(&serde_json::from_str(kit).unwrap());
}

#[test]
fn a_file_that_reaches_its_limit_in_the_middle_of_the_kit_registers_nothing() {
    let mut hub = Hub::new();
    let path = std::env::temp_dir().join(format!("torn-{}", hub.database));
    // One block of 512 bytes; a kit that is longer.
    let program = hub.program(&NEW).env("FL_BACKEND", "x".repeat(600));
    // SIGXFSZ ignored, as some supervisors do: then the write itself fails.
    let program = program.behind("trap '' XFSZ; ulimit -f 1", "");
    let run = program.stdout(File::create(&path).unwrap()).run();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    run.exits(1).says("cannot deliver to stdout: File too large");
    assert!(text.len() <= 1024 && !text.ends_with("]\n"), "{text}");
    hub.assert_untouched();
}

#[test]
fn the_kit_is_printed_before_it_is_committed() {
    let mut hub = Hub::new();
    // A pipe that is full: the run must hang in the delivery, and the hub must know nothing.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let filler = vec![b'x'; 64 * 1024];
    std::io::Write::write_all(&mut writer, &filler).unwrap();
    let run = hub.program(&NEW).stdout(writer).spawn();
    eventually("the run is in its delivery", || hub.delivering() == 1);
    assert_eq!(hub.count("trust"), 0);
    let mut drained = vec![0; filler.len()];
    reader.read_exact(&mut drained).unwrap();
    let run = run.wait().exits(0);
    let mut kit = String::new();
    reader.read_to_string(&mut kit).unwrap();
    hub.assert_registered(
        &serde_json::from_str(&kit).unwrap_or_else(|_| panic!("{kit}{}", run.dump())),
    );
}

#[test]
fn a_run_that_is_killed_in_its_delivery_registers_nothing() {
    let mut hub = Hub::new();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, &vec![b'x'; 64 * 1024]).unwrap();
    let mut run = hub.program(&NEW).stdout(writer).spawn();
    eventually("the run is in its delivery", || hub.delivering() == 1);
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    hub.assert_untouched();
}

#[test]
fn a_closed_stderr_or_a_full_one_is_no_reason_to_fail() {
    let mut hub = Hub::new();
    for (name, redirection) in [("A", "2>&-"), ("B", "2>/dev/full")] {
        let run = hub.program(&["--name", name, "--code", "X"]).run_in_shell(redirection);
        hub.assert_registered(&run.full_kit());
    }
}
