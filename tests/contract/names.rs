//! doc/reference.md, "Environment": a host's name is found as this machine finds it, without a
//! crash: the static binary cannot load glibc's look-up modules.

use std::process::{Command, Stdio};

use crate::support::not_run::not_run;
use crate::support::run::PROGRAM;
use crate::support::{Hub, Program};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// Runs the program where /etc/nsswitch.conf is this, in a mount namespace of its own; `None` where
/// this machine refuses one.
fn with_nsswitch(program: Program, text: &str) -> Option<std::process::Output> {
    with_nsswitch_and(":", program, text)
}

fn with_nsswitch_and(first: &str, program: Program, text: &str) -> Option<std::process::Output> {
    let file = std::env::temp_dir().join(format!("nsswitch-{}", uuid()));
    std::fs::write(&file, text).unwrap();
    let script =
        format!("{first} && mount --bind \"$0\" /etc/nsswitch.conf || exit 99; exec \"$@\"");
    let call = program.command();
    let mut around = Command::new("unshare");
    around.args(if crate::support::hub::Cluster::is_root() { ["-m"] } else { ["-rm"] });
    around.args(["sh", "-c", &script]).arg(&file).arg(PROGRAM).args(call.get_args()).env_clear();
    around.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = around.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).output().unwrap();
    let _ = std::fs::remove_file(&file);
    let refused = output.status.code() == Some(99)
        || String::from_utf8_lossy(&output.stderr).contains("unshare failed");
    (!refused).then_some(output)
}

fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

#[test]
fn a_machine_whose_look_ups_need_modules_does_not_crash_the_program_and_finds_the_host() {
    let mut hub = Hub::new();
    for (number, hosts) in [
        "files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns myhostname",
        "files myhostname resolve dns",
        "resolve [!UNAVAIL=return] files myhostname dns",
        "mymachines files dns",
        "files dns",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("T{number}");
        let program = hub.program(&["--name", &name, "--code", "X"]).env("DB_HOST", "localhost");
        let text =
            format!("passwd: files systemd sss\ngroup: files systemd\nhosts: {hosts} # end\n");
        let Some(output) = with_nsswitch(program, &text) else {
            return not_run("look-ups that need modules (needs a mount namespace)");
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{hosts}: {:?} {stderr}", output.status);
        hub.assert_registered(&serde_json::from_slice(&output.stdout).unwrap());
        // A name that nobody knows is said to be unknown.
        let program = hub.program(&NEW).env("DB_HOST", "nobody.invalid");
        let output = with_nsswitch(program, &text).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{hosts}: {:?} {stderr}", output.status);
        assert!(stderr.contains("nobody.invalid"), "{stderr}");
    }
}

#[test]
fn a_getent_that_is_missing_is_named_with_what_to_install() {
    let program = Hub::new().program(&NEW).env("DB_HOST", "localhost");
    let hidden = "mount --bind /dev/null /usr/bin/getent";
    let Some(output) = with_nsswitch_and(hidden, program, "hosts: files resolve dns\n") else {
        return not_run("look-ups that need modules (needs a mount namespace)");
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("; install getent (Debian: libc-bin), or use DB_HOST's address"),
        "{stderr}"
    );
}

#[test]
fn a_user_without_an_entry_and_without_home_does_not_crash_the_program() {
    let hub = Hub::new();
    let program = hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit");
    let program = program.env("AWS_REGION", "eu-west-2").env("AWS_EC2_METADATA_DISABLED", "true");
    let call = program.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").command();
    let mut around = if crate::support::hub::Cluster::is_root() {
        let mut around = Command::new("setpriv");
        around.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(PROGRAM);
        around
    } else {
        Command::new(PROGRAM)
    };
    around.args(call.get_args()).env_clear();
    around.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = around.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?} {stderr}", output.status);
    assert!(stderr.contains("no AWS credentials"), "{stderr}");
}
