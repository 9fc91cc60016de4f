//! What this machine does not let a test prove is said at the end of `make test`, which fails where
//! the machine could have: see `deploy/dev/test.sh`.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use super::hub::Cluster;
use super::root;

/// Notes it, in one line.
pub fn not_run(what: &str) {
    let path = root().join("target/not-run");
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// Whether this machine gives a process a network of its own.
pub fn networks() -> bool {
    namespace(if Cluster::is_root() { &["-n"] } else { &["-Un", "--map-current-user"] })
}

/// Whether this machine gives a process file systems of its own.
pub fn mounts() -> bool {
    namespace(if Cluster::is_root() { &["-m"] } else { &["-rm"] })
}

fn namespace(options: &[&str]) -> bool {
    let output = Command::new("unshare").args(options).arg("true").output();
    output.is_ok_and(|output| output.status.success())
}
