//! doc/reference.md, "Logs and secrets": no core dump of the program holds a secret, for there is
//! none.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use crate::support::{Hub, eventually};

#[test]
fn a_run_that_dies_with_its_keys_in_memory_leaves_no_core_dump() {
    let mut hub = Hub::new();
    // Not SEGV: the runtime catches it, and ignores one that no memory access has caused.
    for signal in ["ABRT", "QUIT", "SYS"] {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'x'; 64 * 1024]).unwrap();
        let program = hub.program(&["--name", "A", "--code", "GSTT"]).stdout(writer);
        let mut run = program.behind("ulimit -c unlimited", "").spawn();
        eventually("the run delivers", || hub.delivering() == 1);
        let pid = run.child.id();
        // The limit covers dumps into files; a kernel that pipes them asks whether the process allows
        // it (core(5)), and hides what belongs to one that does not (proc(5)).
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert_eq!(core.split_whitespace().nth(5), Some("0"), "{core}");
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.unwrap().success());
        let status = run.child.wait().unwrap();
        assert!(status.signal().is_some() && !status.core_dumped(), "{status:?}");
        hub.assert_untouched();
    }
}
