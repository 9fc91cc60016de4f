//! What the tests and the benchmark stand on.

pub mod hub;
pub mod not_run;
pub mod power;
pub mod relay;
pub mod run;
pub mod ssm;

pub use hub::Hub;
pub use relay::Relay;
pub use run::{Group, Program, Run};
pub use ssm::{Answer, Ssm};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The real Python, with moto and boto3.
pub fn python() -> PathBuf {
    let python = root().join("target/python/bin/python");
    assert!(python.exists(), "{python:?} is not there: run 'make test', which installs it");
    python
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

/// Two authorities, and a server's certificate by the first of them for these names.
pub fn certificates(dir: &std::path::Path, names: &str) {
    let mut make = std::process::Command::new("sh");
    make.arg(root().join("tests/support/certificates.sh")).arg(dir).arg(names);
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lays a checkout into this folder, with the built program in its place: the developer's own is not
/// touched.
pub fn lay_checkout(dir: &std::path::Path) {
    std::fs::create_dir_all(dir.join("target/release")).unwrap();
    for entry in
        ["Cargo.toml", "Cargo.lock", "Makefile", ".env.development", "doc", "src", "sql", "deploy"]
    {
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("-R").arg(root().join(entry)).arg(dir).status().unwrap();
        assert!(copied.success(), "{entry}");
    }
    // Newer than the sources, so that nothing is built.
    std::fs::copy(run::PROGRAM, dir.join("target/release/register-trust")).unwrap();
}

/// Breaks a script of a copied checkout: in `deploy/<file>` another text is in place of this one.
pub fn break_script(checkout: &std::path::Path, file: &str, text: &str, instead: &str) {
    let path = checkout.join("deploy").join(file);
    let script = std::fs::read_to_string(&path).unwrap();
    assert_eq!(script.matches(text).count(), 1, "{file}: {text}");
    std::fs::write(&path, script.replace(text, instead)).unwrap();
}
