//! What the tests stand on.

pub mod hub;
pub mod proxy;
pub mod run;
pub mod ssm;

pub use hub::Hub;
pub use proxy::{Cut, Proxy};
pub use run::{Program, Run};
pub use ssm::{Answer, Ssm};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `holds`, and fails after 20 seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lower-case hex SHA-256, by another implementation than the program's.
pub fn sha256_hex(text: &str) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}
