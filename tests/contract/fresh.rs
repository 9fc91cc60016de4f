//! The Makefile and the scripts of development in the surroundings that people have: copied and
//! moved checkouts, other users, other shells, files in the way, and what is not installed yet.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::hub::{Cluster, postgres_bin};
use crate::support::not_run::not_run;
use crate::support::{eventually, lay_checkout, root};

/// A folder of the test's own; what hubs there are in it are removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("fresh-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Folder(dir.canonicalize().unwrap())
    }

    fn hub(&self, name: &str) -> Home {
        Home(self.0.join(name))
    }

    /// A checkout with the built program in its place.
    fn checkout(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        lay_checkout(&dir);
        dir
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let script = "for lock in \"$0\"/lock \"$0\"/*/lock \"$0\"/*/.hub/lock; do
                [ ! -e \"$lock\" ] || \"$1\" remove \"${lock%/lock}\"
            done; rm -rf \"$0\"";
        let script = ["-c", script];
        let hub = root().join("deploy/dev/hub.sh");
        let _ = Command::new("sh").args(script).arg(&self.0).arg(hub).output();
    }
}

/// A development hub.
struct Home(PathBuf);

impl Home {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(root().join("deploy/dev/hub.sh"));
        command.arg(verb).arg(&self.0);
        command
    }

    fn start(&self) -> String {
        succeeds(&mut self.command("start"))
    }

    fn server(&self) -> PathBuf {
        fs::read_to_string(self.0.join("home")).unwrap().trim().into()
    }

    fn pid(&self) -> u32 {
        let file = fs::read_to_string(self.server().join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    /// The number that `mark` left in this hub's database; it leaves 7.
    fn ask(&self, sql: &str) -> String {
        let env = fs::read_to_string(self.0.join("env")).unwrap();
        let value = |key: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap();
            line.to_owned()
        };
        let mut psql = Command::new(postgres_bin().join("psql"));
        psql.args(["-XAtq", "-h", "127.0.0.1", "-U", "hub", "-d", "hub", "-c", sql]);
        succeeds(psql.args(["-p", &value("DB_PORT")]).env("PGPASSWORD", value("POSTGRES_PASSWORD")))
    }

    fn mark(&self) {
        self.ask("CREATE TABLE mark AS SELECT 7 AS n");
    }

    fn is_marked(&self) -> bool {
        self.ask("SELECT n FROM mark") == "7\n"
    }
}

fn text(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What it printed.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeds: {}", text(&output));
    text(&output)
}

/// Whether there is such a process, and no mere zombie of it.
fn lives(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

fn make(checkout: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(checkout).arg("--no-print-directory").args(arguments).env_clear();
    let kept = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"];
    make.envs(std::env::vars().filter(|(key, _)| kept.contains(&key.as_str())));
    make.envs(env.iter().copied());
    make
}

#[test]
fn a_copied_hub_is_another_one_and_its_model_is_never_touched() {
    let folder = Folder::new("copied");
    let model = folder.hub("model");
    model.start();
    model.mark();
    let pid = model.pid();
    let copy = folder.hub("copy");
    succeeds(Command::new("cp").arg("-a").arg(&model.0).arg(&copy.0));
    // It has the model's process number in it.
    succeeds(&mut copy.command("stop"));
    assert!(lives(pid) && model.is_marked());
    assert!(copy.start().contains("is up"));
    assert!(copy.is_marked() && copy.pid() != pid);
    copy.ask("DROP TABLE mark");
    let its_own = copy.pid();
    succeeds(&mut copy.command("remove"));
    assert!(!copy.0.exists() && !lives(its_own));
    assert!(lives(pid) && model.is_marked());
}

#[test]
fn a_moved_hub_is_the_same_one_even_if_its_server_runs_meanwhile() {
    let folder = Folder::new("moved");
    let (old, new) = (folder.hub("old"), folder.hub("new"));
    old.start();
    old.mark();
    let pid = old.pid();
    fs::rename(&old.0, &new.0).unwrap();
    assert!(!new.start().contains("making"));
    assert!(new.is_marked(), "the running server");
    succeeds(&mut new.command("stop"));
    assert!(!lives(pid));
    fs::rename(&new.0, &old.0).unwrap();
    old.start();
    assert!(old.is_marked(), "the data");
    assert!(!new.0.exists(), "the place that it was moved from is made again");
}

#[test]
fn a_process_number_that_was_left_behind_is_not_taken_for_the_hubs() {
    let folder = Folder::new("stale");
    let hub = folder.hub("hub");
    hub.start();
    hub.mark();
    let pid = hub.pid();
    succeeds(Command::new("kill").args(["-KILL", &pid.to_string()]));
    eventually("the server is gone", || !lives(pid));
    // A stranger of the same user gets its number, so to speak.
    let data = hub.server().join("data");
    let owner = fs::metadata(&data).unwrap();
    let mut stranger = Command::new("setpriv");
    if Cluster::is_root() {
        stranger.args(["--reuid", &owner.uid().to_string(), "--clear-groups"]);
    }
    let mut stranger = stranger.args(["sleep", "300"]).stdin(Stdio::null()).spawn().unwrap();
    let file = data.join("postmaster.pid");
    let left = fs::read_to_string(&file).unwrap();
    fs::write(&file, left.replacen(&pid.to_string(), &stranger.id().to_string(), 1)).unwrap();
    succeeds(&mut hub.command("stop"));
    hub.start();
    assert!(hub.is_marked());
    succeeds(&mut hub.command("remove"));
    let lived = lives(stranger.id());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(lived, "somebody else's process was ended");
}

#[test]
fn a_server_that_cannot_be_reached_is_not_said_to_have_stopped() {
    let folder = Folder::new("elsewhere");
    let hub = folder.hub("hub");
    hub.start();
    succeeds(&mut hub.command("stop"));
    // As from another container: its lock is held, and its number is nobody's here.
    let mut other = Command::new("flock");
    let other = other.arg(hub.0.join("running")).args(["-c", "echo; read _"]);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read(other.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    for (verb, said) in
        [("stop", "does not stop"), ("remove", "does not stop"), ("start", "another container")]
    {
        let output = fails(&mut hub.command(verb));
        assert!(output.contains("ERROR ") && output.contains(said), "{output}");
    }
    assert!(hub.server().join("data").exists());
    drop(other.stdin.take());
    other.wait().unwrap();
    hub.start();
}

#[test]
fn the_server_inherits_neither_variables_nor_descriptors_and_root_writes_through_no_link_of_its_users()
 {
    let folder = Folder::new("inherits");
    let hub = folder.hub("hub");
    let secret = folder.0.join("secret");
    fs::write(&secret, "a secret").unwrap();
    fs::create_dir_all(hub.0.join("server")).unwrap();
    for name in ["pwfile", "of", "data.new"] {
        symlink(&secret, hub.0.join("server").join(name)).unwrap();
    }
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(&secret).unwrap();
    if Cluster::is_root() {
        let user =
            "user=$(id -un postgres 2>/dev/null || echo nobody); chown -h $user \"$0\" \"$0\"/*";
        succeeds(Command::new("sh").args(["-c", user]).arg(hub.0.join("server")));
    }
    let mut start = Command::new("bash");
    let script = "exec 5>\"$0\"; ulimit -c unlimited 2>/dev/null; shift 0; exec \"$@\"";
    start.args(["-c", script]).arg(folder.0.join("held")).arg(root().join("deploy/dev/hub.sh"));
    let mut start = start.arg("start").arg(&hub.0);
    start = start.env("AWS_SECRET_ACCESS_KEY", "of the operator").env("PGHOST", "/nowhere");
    if Cluster::is_root() {
        // Refused or not: the file is root's.
        let _ = start.output().unwrap();
        let after = fs::metadata(&secret).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret");
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        for name in ["pwfile", "of", "data.new"] {
            let _ = fs::remove_file(hub.0.join("server").join(name));
        }
    } else {
        fs::remove_dir_all(hub.0.join("server")).unwrap();
    }
    succeeds(start);
    let proc = PathBuf::from(format!("/proc/{}", hub.pid()));
    let read = "tr '\\0' '\\n' <\"$0\"/environ; cat \"$0\"/limits; ls -l \"$0\"/fd";
    let mut look = Command::new("setpriv");
    if Cluster::is_root() {
        let uid = fs::metadata(hub.server()).unwrap().uid().to_string();
        let gid = fs::metadata(hub.server().join("data")).unwrap().gid().to_string();
        look.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
    }
    let seen = succeeds(look.args(["sh", "-c", read]).arg(proc).current_dir("/"));
    assert!(seen.contains("LC_ALL=C") && seen.contains("running"), "{seen}");
    assert!(!seen.contains("of the operator") && !seen.contains("/nowhere"), "{seen}");
    assert!(!seen.contains("/held") && !seen.contains("/lock"), "{seen}");
    let core = seen.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
}

#[test]
fn root_and_the_owner_of_a_checkout_take_turns_and_everything_stays_the_owners() {
    if !Cluster::is_root() {
        return not_run("root and the owner of a checkout take turns (needs root)");
    }
    let folder = Folder::new("turns");
    let user =
        succeeds(Command::new("sh").args(["-c", "id -u postgres 2>/dev/null || id -u nobody"]));
    let user = user.trim().to_owned();
    let checkout = folder.checkout("checkout");
    succeeds(Command::new("chown").args(["-R", &user]).arg(&checkout));
    let hub = Home(checkout.join(".hub"));
    // The checkout's own script, which its owner can read wherever this one is.
    let script = checkout.join("deploy/dev/hub.sh");
    let as_root = |verb: &str| succeeds(Command::new(&script).arg(verb).arg(&hub.0));
    as_root("start");
    hub.mark();
    let as_owner = |verb: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--clear-groups"]).arg(&script);
        command.arg(verb).arg(&hub.0);
        command
    };
    let foreign = format!("find \"$0\" ! -uid {user}");
    let foreign = || succeeds(Command::new("sh").args(["-c", &foreign]).arg(&hub.0));
    assert_eq!(foreign(), "");
    succeeds(&mut as_owner("start"));
    succeeds(&mut as_owner("stop"));
    succeeds(&mut as_owner("start"));
    assert!(hub.is_marked());
    as_root("start");
    as_root("stop");
    as_root("start");
    assert!(hub.is_marked());
    assert_eq!(foreign(), "");
    // A hub of root's is not the owner's to use, and that is said, also where it cannot be seen.
    let roots = folder.0.join("roots");
    fs::create_dir(&roots).unwrap();
    let of_root = Home(roots.join("hub"));
    of_root.start();
    for (verb, mode, said) in
        [("stop", 0o755, "belongs to root"), ("remove", 0o700, "is closed to")]
    {
        fs::set_permissions(&roots, fs::Permissions::from_mode(mode)).unwrap();
        let refused = fails(
            Command::new("setpriv")
                .args(["--reuid", &user, "--clear-groups"])
                .arg(&script)
                .arg(verb)
                .arg(&of_root.0)
                .current_dir("/"),
        );
        assert!(refused.contains(said), "{refused}");
    }
    assert!(lives(of_root.pid()));
    succeeds(&mut of_root.command("remove"));
    succeeds(&mut as_owner("remove"));
}

#[test]
fn a_folder_that_the_servers_user_cannot_enter_has_its_data_elsewhere_and_clean_removes_it() {
    if !Cluster::is_root() {
        return not_run("a development hub of root's below a closed folder (needs root)");
    }
    let folder = Folder::new("closed");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
    let hub = folder.hub("hub");
    let said = hub.start();
    hub.mark();
    let data = hub.server();
    assert!(data.starts_with("/var/tmp") && said.contains(data.to_str().unwrap()), "{said}");
    assert!(!hub.start().contains("making"));
    // A copy gets a place of its own; a moved one keeps its place.
    let copy = folder.hub("copy");
    succeeds(Command::new("cp").arg("-a").arg(&hub.0).arg(&copy.0));
    succeeds(&mut copy.command("stop"));
    copy.start();
    assert!(copy.server() != data && hub.is_marked());
    succeeds(&mut copy.command("remove"));
    let moved = folder.hub("moved");
    fs::rename(&hub.0, &moved.0).unwrap();
    moved.start();
    assert!(moved.server() == data && moved.is_marked());
    let pid = moved.pid();
    succeeds(&mut moved.command("remove"));
    assert!(!data.exists() && !moved.0.exists() && !lives(pid));
}

#[test]
fn clean_removes_from_the_hubs_folder_only_what_is_the_hubs() {
    let folder = Folder::new("shared");
    fs::write(folder.0.join("mine"), "mine").unwrap();
    let hub = Home(folder.0.clone());
    hub.start();
    succeeds(&mut hub.command("remove"));
    let left: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
}

#[test]
fn a_name_with_a_newline_is_no_command_and_a_file_called_like_a_target_changes_nothing() {
    let folder = Folder::new("names");
    let checkout = folder.checkout("it's a \"checkout\" of $HOME & more");
    for file in ["register-trust-1", "register-trust-4", "sync-trust-kit-1", "hub-stop", "clean"] {
        fs::write(checkout.join(file), "").unwrap();
    }
    let name = "St A\ntouch pwned\n$(shell touch pwned)";
    let argument = format!("TRUST_4_NAME={name}");
    for (arguments, env) in [
        (vec!["-i", "register-trust-4", &argument], vec![]),
        (vec!["-i", "register-trust-4"], vec![("TRUST_4_NAME", name)]),
    ] {
        let mut env = env;
        env.push(("TRUST_4_CODE", "A"));
        let output = make(&checkout, &arguments, &env).output().unwrap();
        assert!(text(&output).contains("control character"), "{}", text(&output));
        assert!(!checkout.join("pwned").exists(), "{}", text(&output));
    }
    succeeds(&mut make(&checkout, &["register-trust-1"], &[]));
    assert!(checkout.join("kits/trust-1.json").exists());
    succeeds(&mut make(&checkout, &["sync-trust-kit-1"], &[]));
    succeeds(&mut make(&checkout, &["hub-stop"], &[]));
    succeeds(&mut make(&checkout, &["clean"], &[]));
    assert!(!checkout.join(".hub").exists() && !checkout.join("target").exists());
}

#[test]
fn what_a_person_has_in_the_shell_changes_nothing() {
    let folder = Folder::new("shell");
    let checkout = folder.checkout("checkout");
    fs::create_dir_all(folder.0.join("deploy/dev")).unwrap();
    let bash_env = folder.0.join("bash_env");
    fs::write(&bash_env, "echo from BASH_ENV; cd /; alias cp=false").unwrap();
    let env = [
        ("BASH_ENV", bash_env.to_str().unwrap()),
        ("CDPATH", folder.0.to_str().unwrap()),
        ("GREP_OPTIONS", "--color=always -v"),
        ("POSIXLY_CORRECT", "1"),
        ("IFS", "/"),
        ("TMPDIR", "/nowhere/at/all"),
        ("LC_ALL", "zz_ZZ.ISO-8859-1"),
        ("MAKELEVEL", "3"),
        ("PGHOST", "/nowhere"),
        ("PGPORT", "1"),
        ("PGDATA", "/nowhere"),
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGSERVICE", "nobody"),
    ];
    for umask in ["000", "077"] {
        // All three descriptors are closed.
        let made = make(&checkout, &["register-trust-1"], &env);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $0; exec \"$@\" <&- >&- 2>&-", umask]).arg(made.get_program());
        shell.args(made.get_args()).env_clear();
        shell.envs(made.get_envs().filter_map(|(key, value)| value.map(|value| (key, value))));
        let output = shell.output().unwrap();
        let said = make(&checkout, &["sync-trust-kit-1"], &env).output().unwrap();
        assert!(output.status.success() && said.status.success(), "umask {umask}: {}", text(&said));
        assert!(!text(&said).contains("from BASH_ENV"), "{}", text(&said));
        for secret in [".hub/env", ".hub/password", "kits/trust-1.json"] {
            let mode = fs::metadata(checkout.join(secret)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}, umask {umask}");
        }
        succeeds(&mut make(&checkout, &["clean"], &env));
        fs::remove_dir_all(checkout.join("kits")).unwrap();
        let target = checkout.join("target/release");
        fs::create_dir_all(&target).unwrap();
        fs::copy(crate::support::run::PROGRAM, target.join("register-trust")).unwrap();
    }
}

#[test]
fn another_postgresql_is_named_by_pg_and_does_not_touch_the_hub_of_this_one() {
    let folder = Folder::new("versions");
    let hub = folder.hub("hub");
    hub.start();
    hub.mark();
    succeeds(&mut hub.command("stop"));
    let said = fails(hub.command("start").env("PG", "/nowhere"));
    assert!(said.contains("ERROR PG is '/nowhere', and there is no initdb"), "{said}");
    let newer =
        path(&folder, &[], &[("initdb", ""), ("postgres", "echo 'postgres (PostgreSQL) 99.1'")]);
    let said = fails(hub.command("start").env("PG", newer));
    assert!(said.contains("was made by PostgreSQL ") && said.contains("99.1"), "{said}");
    succeeds(hub.command("start").env("PG", postgres_bin()));
    assert!(hub.is_marked());
}

/// A path that holds these commands of the machine and these stand-ins, and no others.
fn path(folder: &Folder, commands: &[&str], stand_ins: &[(&str, &str)]) -> PathBuf {
    let bin = folder.0.join("bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir_all(&bin).unwrap();
    for command in commands {
        let real = succeeds(Command::new("sh").args(["-c", &format!("command -v {command}")]));
        symlink(real.trim(), bin.join(command)).unwrap();
    }
    for (name, script) in stand_ins {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

const TOOLS: [&str; 15] = [
    "bash", "sh", "env", "dirname", "sed", "sort", "head", "tail", "tr", "flock", "mktemp", "rm",
    "cut", "cat", "mkdir",
];

#[test]
fn an_old_or_incomplete_rust_is_named_before_anything_is_installed() {
    let folder = Folder::new("rust");
    let installed = folder.0.join("installed");
    let apt = format!("echo \"$@\" >>{}", installed.display());
    let tried = |rustc: &str, cargo: &str| {
        let stand_ins =
            [("apt-get", apt.as_str()), ("id", "echo 0"), ("rustc", rustc), ("cargo", cargo)];
        let bin =
            path(&folder, &TOOLS, if rustc.is_empty() { &stand_ins[..2] } else { &stand_ins });
        let mut need = Command::new(root().join("deploy/dev/need.sh"));
        let said = fails(need.args(["build", "postgres", "tests"]).env("PATH", bin));
        assert!(!installed.exists(), "{said}");
        said
    };
    let said = tried("", "");
    assert!(said.contains("ERROR there is no cargo: install Rust 1."), "{said}");
    let said = tried("echo 'rustc 1.63.0 (4b91a6ea7 2022-08-08)'", "true");
    assert!(said.contains("this is Rust 1.63.0, and the project needs 1."), "{said}");
    assert!(said.contains("rustup update"), "{said}");
    let said = tried("echo 'rustc 1.200.0-nightly (4b91a6ea7 2029-08-08)'", "[ \"$1\" != fmt ]");
    assert!(said.contains("rustup component add rustfmt clippy"), "{said}");
}

#[test]
fn a_user_without_sudo_or_whose_sudo_refuses_is_told_all_packages_in_one_line() {
    let folder = Folder::new("packages");
    let installed = folder.0.join("installed");
    let log = format!("echo \"$@\" >>{}", installed.display());
    let rust = [("rustc", "echo 'rustc 1.200.0 (x)'"), ("cargo", "true")];
    let with = |others: &[(&str, &str)]| {
        let bin = path(&folder, &TOOLS, &[&rust[..], &[("apt-get", &log)], others].concat());
        let mut need = Command::new(root().join("deploy/dev/need.sh"));
        need.arg("build").env("PATH", bin).env_remove("SSL_CERT_FILE");
        need
    };
    let line = |said: &str| {
        let line =
            said.lines().find(|line| line.starts_with("  apt-get update && apt-get install"));
        line.unwrap_or_else(|| panic!("no line in {said}")).to_owned()
    };
    let said = fails(&mut with(&[("id", "echo 1000")]));
    let named = line(&said);
    // The tests' too, though only a build was asked for: no second errand to root.
    for package in
        ["gcc", "libc6-dev", "pkg-config", "libssl-dev", "procps", "shellcheck", "python3-venv"]
    {
        assert!(named.contains(&format!(" {package} ")), "no {package} in {named}");
    }
    assert!(!installed.exists());
    // A sudo that refuses: the same line.
    let said = fails(&mut with(&[
        ("id", "echo 1000"),
        ("sudo", "echo not in the sudoers file >&2; exit 1"),
    ]));
    assert!(said.contains("not in the sudoers file"), "{said}");
    assert_eq!(line(&said), named);
    assert!(!installed.exists());
}

#[test]
fn a_checkout_with_windows_line_endings_configured_has_scripts_that_run() {
    let folder = Folder::new("crlf");
    let script = "set -e; cd \"$0\"; git init -q model; cp \"$1\"/.gitattributes model/
mkdir -p model/deploy; cp -R \"$1\"/deploy/dev \"$1\"/deploy/lib.sh model/deploy/; cp \"$1\"/Makefile \"$1\"/.env.development model/
cd model; git add -A; git -c user.name=x -c user.email=x@example.org commit -qm x; cd ..
git -c core.autocrlf=true -c core.eol=crlf clone -q model clone
cd clone; ! grep -rl \"$(printf '\\r')\" Makefile deploy .env.development";
    succeeds(Command::new("sh").args(["-c", script]).arg(&folder.0).arg(root()));
}

#[test]
fn a_long_step_says_that_it_is_still_at_work_and_a_failure_shows_the_end_of_its_log() {
    let folder = Folder::new("live");
    let mut live = Command::new(root().join("deploy/dev/live.sh"));
    let said = fails(live.arg(folder.0.join("log")).args([
        "sh",
        "-c",
        "echo unpacking; sleep 23; echo broken; exit 3",
    ]));
    assert!(said.contains("s: unpacking\n") && said.ends_with("broken\n"), "{said}");
}
