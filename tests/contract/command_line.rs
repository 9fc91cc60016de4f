//! doc/reference.md, "Command line".

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Hub, Program};

#[test]
fn help_goes_to_stdout_and_works_without_any_environment() {
    for option in ["-h", "--help"] {
        let run = Program::new(&[option]).run().exits(0);
        assert!(run.stderr.is_empty(), "{}", run.dump());
        assert!(run.stdout.starts_with("Register one trust on the FLIP hub"), "{}", run.dump());
        for option in [
            "--name NAME",
            "--code CODE",
            "--region REGION",
            "--require-existing",
            "--out-ssm-parameter NAME",
            "--await-ack",
            "--check-kit TRUST_ID",
            "-v, --verbose",
            "-q, --quiet",
            "-h, --help",
            "-V, --version",
        ] {
            assert!(run.stdout.contains(option), "{option}{}", run.dump());
        }
    }
}

#[test]
fn version_goes_to_stdout_and_works_without_any_environment() {
    for option in ["-V", "--version"] {
        let run = Program::new(&[option]).run().exits(0);
        let run = run.prints(&format!("register-trust {}\n", env!("CARGO_PKG_VERSION")));
        assert!(run.stderr.is_empty(), "{}", run.dump());
    }
}

#[test]
fn help_that_cannot_be_printed_is_an_error() {
    let run = Program::new(&["--help"]).run_in_shell(">/dev/full").exits(1);
    run.says("ERROR cannot deliver to stdout: No space left on device");
}

const ID: &str = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
const ALONE: &str = "--check-kit can only be combined with --name, -v and -q";

#[test]
fn a_usage_error_exits_with_2_prints_nothing_on_stdout_and_opens_no_connection() {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hub.local_addr().unwrap().port().to_string();
    let long = format!("/{}", "a".repeat(1011));
    let deep = "/l".repeat(16);
    let cases: &[(&[&str], &str)] = &[
        (&[], "--name is required"),
        (&["--name"], "--name has no value"),
        (&["--name", ""], "--name is blank"),
        (&["--name="], "--name is blank"),
        (&["--name", " \u{2003}\t"], "--name is blank"),
        (&["--name", "--require-existing"], "--name has no value"),
        (&["--name", "A", "--code"], "--code has no value"),
        (&["--name", "A", "--code", "--region", "R"], "--code has no value"),
        (&["--name", "A", "--name", "B"], "--name is given twice"),
        (&["--name", "A", "--code", "X", "--code=X"], "--code is given twice"),
        (&["--name", "A", "--region=X", "--region=X"], "--region is given twice"),
        (
            &["--name", "A", "--require-existing", "--require-existing"],
            "--require-existing is given twice",
        ),
        (&["--name", "A", "-q", "--quiet"], "--quiet is given twice"),
        (
            &["--name", "A", "--require-existing=yes"],
            "unexpected argument for option '--require-existing'",
        ),
        (&["--name", "A", "--nam", "B"], "invalid option '--nam'"),
        (&["--name", "A", "-x"], "invalid option '-x'"),
        (&["--name", "A", "stray"], "unexpected argument \"stray\""),
        (&["--name", "A", "--", "stray"], "unexpected argument \"stray\""),
        (&["--name", "A", "--out-ssm-parameter"], "--out-ssm-parameter has no value"),
        (&["--name", "A", "--out-ssm-parameter", ""], "does not start with '/'"),
        (&["--name", "A", "--out-ssm-parameter=/a", "--out-ssm-parameter=/a"], "given twice"),
        (&["--name", "A", "--out-ssm-parameter", "kit"], "does not start with '/'"),
        (&["--name", "A", "--out-ssm-parameter", "/"], "has an empty level"),
        (&["--name", "A", "--out-ssm-parameter", "//a"], "has an empty level"),
        (&["--name", "A", "--out-ssm-parameter", "/a//b"], "has an empty level"),
        (&["--name", "A", "--out-ssm-parameter", "/a/"], "has an empty level"),
        (&["--name", "A", "--out-ssm-parameter", "/a b"], "holds a character other than"),
        (&["--name", "A", "--out-ssm-parameter", " /a"], "does not start with '/'"),
        (&["--name", "A", "--out-ssm-parameter", "/caf\u{e9}"], "holds a character other than"),
        (&["--name", "A", "--out-ssm-parameter", "/a:1"], "holds a character other than"),
        (&["--name", "A", "--out-ssm-parameter", "/aws/kit"], "which AWS reserves"),
        (&["--name", "A", "--out-ssm-parameter", "/SSMkit"], "which AWS reserves"),
        (&["--name", "A", "--out-ssm-parameter", "/AwS"], "which AWS reserves"),
        (&["--name", "A", "--out-ssm-parameter", &long], "is longer than 1,011 characters"),
        (&["--name", "A", "--out-ssm-parameter", &deep], "has more than 15 levels"),
        (&["--name", "A", "--await-ack", "--await-ack"], "--await-ack is given twice"),
        (&["--name", "A", "--await-ack=yes"], "unexpected argument for option '--await-ack'"),
        (
            &["--name", "A", "--await-ack", "--out-ssm-parameter", "/a"],
            "--await-ack and --out-ssm-parameter cannot be combined",
        ),
        (&["--check-kit", ID], "--name is required"),
        (&["--name", "A", "--check-kit"], "--check-kit has no value"),
        (&["--name", "A", "--check-kit", ID, "--check-kit", ID], "--check-kit is given twice"),
        (&["--name", "A", "--check-kit", ""], "--check-kit \"\" is not a UUID"),
        (&["--name", "A", "--check-kit", &ID[1..]], "is not a UUID"),
        (&["--name", "A", "--check-kit", &ID.replace('-', "")], "is not a UUID"),
        (&["--name", "A", "--check-kit", &ID.replace('d', "g")], "is not a UUID"),
        (&["--name", "A", "--check-kit", ID, "--code", "X"], ALONE),
        (&["--name", "A", "--check-kit", ID, "--region", "X"], ALONE),
        (&["--name", "A", "--check-kit", ID, "--require-existing"], ALONE),
        (&["--name", "A", "--check-kit", ID, "--await-ack"], ALONE),
        (&["--name", "A", "--check-kit", ID, "--out-ssm-parameter", "/a"], ALONE),
    ];
    for (arguments, message) in cases {
        let run = Program::new(arguments)
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", port.as_str())
            .env("POSTGRES_USER", "hub")
            .env("POSTGRES_DB", "hub")
            .run();
        let run = run
            .exits(2)
            .prints("")
            .says(message)
            .says("; nothing was done\nusage: register-trust --name NAME");
        run.says("ERROR ");
    }
    hub.set_nonblocking(true).unwrap();
    assert!(hub.accept().is_err(), "a usage error opened a connection");
}

#[test]
fn arguments_that_are_not_utf8_are_a_usage_error() {
    let bytes = OsStr::from_bytes(b"Gu\xff");
    Program::new(&["--name"])
        .arg(bytes)
        .run()
        .exits(2)
        .prints("")
        .says("the value of --name is not UTF-8");
    Program::new(&["--name", "A"]).arg(bytes).run().exits(2).prints("").says("unexpected argument");
    Program::new(&["--name", "A"])
        .arg(OsStr::from_bytes(b"--\xff"))
        .run()
        .exits(2)
        .prints("")
        .says("invalid option");
    let value = OsStr::from_bytes(b"--code=\xff");
    Program::new(&["--name", "A"])
        .arg(value)
        .run()
        .exits(2)
        .prints("")
        .says("the value of --code is not UTF-8");
}

#[test]
fn parameter_names_that_ssm_takes_are_accepted() {
    let long = format!("/{}", "a".repeat(1010));
    let deep = "/l".repeat(15);
    for name in
        ["/a", "/flip/kit", "/A.b-c_9", "/flip/aws", "/flip/ssm/x", "/aw", "/ss", &long, &deep]
    {
        // Past the usage check the missing region is what fails.
        let run = Program::new(&["--name", "A", "--out-ssm-parameter", name]).run();
        run.exits(1).prints("").says("AWS_REGION is not set; nothing was registered");
    }
}

#[test]
fn values_may_follow_a_space_or_an_equals_sign_and_may_start_with_a_dash_behind_the_latter() {
    let mut hub = Hub::new();
    let kit =
        hub.program(&["--name=-St Thomas'", "--code=-G", "--region", "London"]).run().full_kit();
    assert_eq!(kit[0]["trust_name"], "-St Thomas'");
    assert_eq!(hub.value::<String>("SELECT code || '/' || region FROM trust"), "-G/London");
}

#[test]
fn verbosity_follows_the_options_and_without_them_log_level() {
    let hub = Hub::new();
    hub.program(&["--name", "A", "--code", "A"]).run().full_kit();
    let levels = |arguments: &[&str], log_level: &str| {
        let arguments = [&["--name", "A"], arguments].concat();
        let run = hub.program(&arguments).env("LOG_LEVEL", log_level).run().exits(0);
        let mut levels: Vec<_> =
            run.stderr.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        levels.sort();
        levels.dedup();
        levels.join(" ")
    };
    assert_eq!(levels(&[], ""), "INFO");
    assert_eq!(levels(&[], "info"), "INFO");
    assert_eq!(levels(&[], "INFO"), "INFO");
    assert_eq!(levels(&[], "Debug"), "DEBUG INFO");
    for quiet in ["WARNING", "error", "CRITICAL"] {
        assert_eq!(levels(&[], quiet), "");
    }
    assert_eq!(levels(&["-v"], "ERROR"), "DEBUG INFO");
    assert_eq!(levels(&["-q"], "DEBUG"), "");
    assert_eq!(levels(&["-vvvv"], "nonsense"), "DEBUG INFO");
    assert_eq!(levels(&["--quiet", "--verbose"], ""), "");
}

#[test]
fn at_info_one_line_says_what_was_registered_or_found() {
    let hub = Hub::new();
    let run = hub.program(&["--name", "A", "--code", "A"]).run();
    let id = run.full_kit()[0]["trust_id"].as_str().unwrap().to_owned();
    assert_eq!(run.stderr, format!("INFO registered trust \"A\" as {id} with slot Trust_1\n"));
    let run = hub.program(&["--name", "A"]).run();
    run.metadata_only_kit();
    assert_eq!(
        run.stderr,
        format!("INFO trust \"A\" is already registered as {id}; its kit has no credentials\n")
    );
}
