//! tests/fuzz: random answers of a hub, an SSM and metadata endpoints. `make fuzz` runs it for an hour.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::run::PROGRAM;
use crate::support::{Program, root};

/// Whether it found nothing, and what it says.
fn fuzz(program: &str, runs: &str) -> (bool, String) {
    let mut fuzz = Command::new("python3");
    fuzz.arg(root().join("tests/fuzz/fuzz.py")).env("PROGRAM", program).env("RUNS", runs);
    let output = fuzz.env("W", "2").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn peers_that_say_anything_get_no_secret_no_forged_line_no_crash_and_no_endless_run() {
    // Fails if the program is older than its sources.
    Program::new(&["--version"]).run().exits(0);
    let (nothing, said) = fuzz(PROGRAM, "100");
    assert!(nothing && said.contains("0 findings"), "{said}");
}

#[test]
fn the_fuzzer_sees_each_kind_of_harm() {
    let path = std::env::temp_dir().join(format!("harm-{}", std::process::id()));
    for (script, finding) in [
        (
            "echo \"ERROR $AWS_ENDPOINT_URL $POSTGRES_USER $FL_BACKEND$AES_KEY_BASE64\" >&2",
            "is on stderr",
        ),
        ("printf 'INFO \\033[2J\\n' >&2", "characters that steer"),
        ("printf 'INFO \\342\\200\\256x\\n' >&2", "characters that steer"),
        ("echo 'memory allocation failed' >&2", "a forged line"),
        ("echo 'ERROR internal error at src/x.rs:1; please report it' >&2", "a panic"),
        ("exit 101", "it ended with 101"),
        ("kill -ABRT $$", "it ended with -6"),
        ("echo no kit", "no line of stdout's"),
        ("echo '[{\"trust_id\": 1}]'", "no line of stdout's"),
        ("exit 0", "exit 0 after ''"),
    ] {
        fs::write(&path, format!("#!/bin/sh\n{script}\nexit 1\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (nothing, said) = fuzz(path.to_str().unwrap(), "4");
        assert!(!nothing && said.contains(finding), "{script}: {said}");
        let said = said.split("make fuzz RUNS=1 SEED=").nth(1);
        assert!(said.is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit())), "{script}");
    }
    fs::remove_file(path).unwrap();
}
