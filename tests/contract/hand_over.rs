//! From the program to the operator's disk: `deploy/register.sh`, whichever process dies, and
//! whatever the disk, the engine's client or the sink does.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::hub::Cluster;
use crate::support::not_run::{mounts, not_run};
use crate::support::{Hub, eventually, root};

/// A checkout of its own beside a hub of its own. Tools in its `bin` come before the system's.
pub struct Place {
    pub dir: PathBuf,
    pub hub: Hub,
}

impl Place {
    pub fn new() -> Place {
        Place::with(Hub::new())
    }

    pub fn with(hub: Hub) -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hand-over-{}-{number}", std::process::id()));
        for folder in ["bin", "target/release"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for entry in ["Cargo.toml", "Cargo.lock", "Makefile", "doc", "src", "sql", "deploy"] {
            let copied =
                Command::new("cp").arg("-R").arg(root().join(entry)).arg(&dir).status().unwrap();
            assert!(copied.success());
        }
        // Newer than the sources, so that nothing is built.
        fs::copy(crate::support::run::PROGRAM, dir.join("target/release/register-trust")).unwrap();
        Place { dir, hub }
    }

    /// A call in this place, in an environment that holds its hub, trust 1 and these variables.
    pub fn command(&self, call: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(call[0]);
        command.args(&call[1..]).current_dir(&self.dir).env_clear().stdin(Stdio::null());
        let path = format!("{}/bin:{}", self.dir.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HOME", &self.dir).envs(&self.hub.cluster.env);
        command.env("POSTGRES_DB", &self.hub.database);
        command.env("TRUST_1_NAME", "One").env("TRUST_1_CODE", "O");
        command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn call(&self, call: &[&str], env: &[(&str, &str)]) -> Output {
        self.command(call, env).output().unwrap()
    }

    pub fn register(&self, env: &[(&str, &str)]) -> Output {
        self.call(&["deploy/register.sh", "1"], env)
    }

    /// Puts a tool before the system's own.
    pub fn tool(&self, name: &str, script: &str) {
        let path = self.dir.join("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Has every later run of `register.sh` call `hook` before each of its commands; `at` is the
    /// command's place: `script` or `reader`, and its number there.
    pub fn hook(&self, hook: &str) -> (&'static str, String) {
        let file = self.dir.join("hook");
        let script = format!(
            "[[ $0 == */register.sh ]] || return 0
count=0 at=''
before() {{
    local who=script
    [[ \" ${{FUNCNAME[*]}} \" != *' converse '* ]] || who=reader
    [ $who = reader ] || [ $BASHPID = $$ ] || return 0
    [ \"${{at%% *}}\" = $who ] || count=0
    count=$((count + 1)) at=\"$who $count\"
    {hook}
}} 2>/dev/null
set -T
trap before DEBUG
"
        );
        fs::write(&file, script).unwrap();
        ("BASH_ENV", file.to_str().unwrap().to_owned())
    }

    /// The places of all commands that a run goes through.
    pub fn steps(&self, env: &[(&str, &str)]) -> Vec<String> {
        let (key, file) = self.hook("printf '%s\\n' \"$at\" >>steps");
        let own = [(key, file.as_str()), ("KITS", "steps-kits"), ("TRUST_1_NAME", "Steps")];
        let run = self.register(&[&own, env].concat());
        assert!(run.status.success(), "{}", text(&run));
        let steps = fs::read_to_string(self.dir.join("steps")).unwrap();
        let steps: BTreeSet<_> = steps.lines().map(str::to_owned).collect();
        assert!(steps.len() > 50, "{steps:?}");
        assert!(steps.contains("reader 5"), "{steps:?}");
        steps.into_iter().collect()
    }

    /// Every whole kit with credentials in that folder, by its file.
    pub fn kits(&self, folder: &str) -> Vec<(PathBuf, Value)> {
        let Ok(entries) = fs::read_dir(self.dir.join(folder)) else { return Vec::new() };
        let mut kits = Vec::new();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if !path.is_file() {
                continue;
            }
            let metadata = fs::metadata(&path).unwrap();
            let Ok(kit) = serde_json::from_str::<Value>(&fs::read_to_string(&path).unwrap()) else {
                continue;
            };
            if kit[0]["trust_api_key"].is_string() {
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{path:?}");
                kits.push((path, kit));
            }
        }
        kits
    }

    /// The id of the trust of that name.
    pub fn id(&mut self, name: &str) -> Option<String> {
        let rows = self.hub.admin.query("SELECT id::text FROM trust WHERE name = $1", &[&name]);
        rows.unwrap().first().map(|row| row.get(0))
    }

    /// The file that holds the valid kit of the trust of that name, if that is registered.
    #[track_caller]
    fn valid_kit(&mut self, name: &str, folder: &str, context: &str) -> Option<PathBuf> {
        let id = self.id(name)?;
        let kits = self.kits(folder);
        let Some((path, kit)) = kits.into_iter().find(|(_, kit)| kit[0]["trust_id"] == *id) else {
            panic!("{name} is registered, and its kit is lost; {context}");
        };
        self.hub.assert_registered(&kit);
        Some(path)
    }

    /// Waits until no process of a run of trust 1 is left.
    pub fn settled(&self, folder: &str) {
        let lock = self.dir.join(folder).join(".lock-trust-1");
        eventually("the lock is free", || {
            !lock.exists()
                || Command::new("flock")
                    .arg("-n")
                    .arg(&lock)
                    .arg("true")
                    .status()
                    .unwrap()
                    .success()
        });
        let mut session = self.hub.session();
        eventually("no session of the program is left", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                          AND application_name = 'register-trust'";
            session.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
pub fn says(output: &Output, what: &str) {
    assert!(text(output).contains(what), "lacks {what:?}: {}", text(output));
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[track_caller]
fn fails(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs a command in a process group of its own, as a terminal does, and reads both outputs.
pub fn in_a_group(mut command: Command) -> Output {
    command.process_group(0).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn killed_before_any_of_its_commands_the_script_or_its_reader_loses_no_kit() {
    let mut place = Place::new();
    let steps = place.steps(&[]);
    place.hub.fill_pool(2 * steps.len() + 10);
    let mut committed = 0;
    for (n, step) in steps.iter().enumerate() {
        let (key, file) = place.hook(&format!("[ \"$at\" != '{step}' ] || kill -KILL $BASHPID"));
        let (name, folder) = (format!("Killed {n}"), format!("kits-{n}"));
        let env = [("TRUST_1_NAME", name.as_str()), ("KITS", &folder)];
        let run = place.register(&[&env[..], &[(key, &file)]].concat());
        place.settled(&folder);
        let context = format!("killed before {step}: {}", text(&run));
        let kit = place.valid_kit(&name, &folder, &context);
        committed += usize::from(kit.is_some());
        // The next run names the kit that is there, and makes it the trust's.
        let next = place.register(&env);
        let context = format!("{context}\nand then {}", text(&next));
        assert!(next.status.success(), "{context}");
        let last = place.valid_kit(&name, &folder, &context).unwrap();
        assert_eq!(last, place.dir.join(&folder).join("trust-1.json"), "{context}");
        if let Some(kit) = kit.filter(|kit| *kit != last) {
            let left = kit.strip_prefix(&place.dir).unwrap().to_str().unwrap().to_owned();
            let said = format!("WARNING an earlier run left {left}");
            assert!(text(&next).contains(&said) && text(&next).contains(": valid\n"), "{context}");
        }
        for name in names(&place.dir.join(&folder)) {
            let known = [".lock-trust-1", "trust-1.json", "trust-1.metadata.json"];
            // A kit that was never registered stays where it is until somebody deletes it.
            let worthless = text(&next).contains(&format!("{folder}/{name}, the kit of the trust"))
                && text(&next).contains(": worthless\n");
            assert!(known.contains(&name.as_str()) || worthless, "{name} is left; {context}");
        }
    }
    assert!(committed > 5 && committed < steps.len(), "{committed} of {}", steps.len());
}

/// Sends the signal to the script's whole group before each of these commands.
fn interrupt(signal: &str, chosen: impl Fn(usize) -> bool) {
    let mut place = Place::new();
    let steps = place.steps(&[]);
    place.hub.fill_pool(steps.len() + 10);
    let (mut committed, mut refused) = (0, 0);
    for (n, step) in steps.iter().enumerate().filter(|(n, _)| chosen(*n)) {
        let (key, file) = place.hook(&format!("[ \"$at\" != '{step}' ] || kill -{signal} 0"));
        let (name, folder) = (format!("Interrupted {n}"), format!("kits-{n}"));
        let run = in_a_group(place.command(
            &["deploy/register.sh", "1"],
            &[("TRUST_1_NAME", &name), ("KITS", &folder), (key, &file)],
        ));
        place.settled(&folder);
        let context = format!("{signal} before {step}: {}", text(&run));
        if let Some(kit) = place.valid_kit(&name, &folder, &context) {
            committed += 1;
            let kit = kit.strip_prefix(&place.dir).unwrap().to_str().unwrap().to_owned();
            assert!(text(&run).contains(&kit), "{kit} is not named; {context}");
            assert_eq!(run.status.success(), kit.ends_with("/trust-1.json"), "{context}");
        } else {
            refused += 1;
            assert!(!run.status.success(), "{context}");
            for (path, _) in place.kits(&folder) {
                let path = path.strip_prefix(&place.dir).unwrap().to_str().unwrap().to_owned();
                assert!(text(&run).contains(&path), "{path} is not named; {context}");
            }
        }
    }
    assert!(committed > 3 && refused > 3, "{committed} committed, {refused} not");
}

#[test]
fn interrupted_before_any_command_the_script_says_what_it_left() {
    interrupt("INT", |_| true);
}

#[test]
fn ended_or_without_its_terminal_the_script_says_what_it_left() {
    interrupt("TERM", |n| n % 3 == 0);
    interrupt("HUP", |n| n % 3 == 1);
    interrupt("QUIT", |n| n % 3 == 2);
}

#[test]
fn a_make_that_is_killed_leaves_the_script_to_finish_its_work() {
    let mut place = Place::new();
    place.tool(
        "sync",
        "#!/bin/sh\ncase $* in *.trust-*) while [ -e hold ]; do sleep 0.05; done;; esac\nexec /usr/bin/sync \"$@\"\n",
    );
    fs::write(place.dir.join("hold"), "").unwrap();
    let mut make = place.command(&["make", "register-trust-1"], &[]).spawn().unwrap();
    eventually("the script stores its kit", || place.hub.delivering() == 1);
    make.kill().unwrap();
    fs::remove_file(place.dir.join("hold")).unwrap();
    let said = read_until(&mut make, "the kit is in kits/trust-1.json\n");
    make.wait().unwrap();
    assert!(place.valid_kit("One", "kits", &said).unwrap().ends_with("trust-1.json"));
}

#[test]
fn a_disk_that_fills_before_any_command_loses_no_kit() {
    let mut place = Place::new();
    let steps = place.steps(&[]);
    place.hub.fill_pool(steps.len() + 10);
    // Where no file system can be mounted, no file of the script's grows from that command on.
    let own_disk = mounts();
    if !own_disk {
        not_run("a disk that fills before any command of the hand-over (needs a mount namespace)");
    }
    let (mut committed, mut refused) = (0, 0);
    for (n, step) in steps.iter().enumerate() {
        let fill = if own_disk {
            "{ cat /dev/zero >\"$KITS/fill\"; i=0; while : >\"$KITS/i$((i += 1))\"; do :; done; } || :"
        } else {
            "{ trap '' XFSZ; ulimit -S -f 0; }"
        };
        let (key, file) = place.hook(&format!("[ \"$at\" != '{step}' ] || {fill}"));
        let (name, folder) = (format!("Full {n}"), format!("kits-{n}"));
        fs::create_dir(place.dir.join(&folder)).unwrap();
        // A file system of the run's own, gone with it: what it held at the end is copied.
        let script = "[ -z \"$OWN_DISK\" ] ||
                mount -t tmpfs -o size=256k,nr_inodes=64,mode=0700 none $KITS || exit 99
            deploy/register.sh 1; status=$?
            mkdir copy-$KITS && find $KITS -size -20k -type f -name '*trust*' -exec cp -p {} copy-$KITS ';'
            exit $status";
        let (around, own): (&[&str], &str) = match (own_disk, Cluster::is_root()) {
            (false, _) => (&["env"][..], ""),
            (true, true) => (&["unshare", "-m"], "yes"),
            (true, false) => (&["unshare", "-rm"], "yes"),
        };
        let run = place.call(
            &[around, &["sh", "-c", script]].concat(),
            &[("TRUST_1_NAME", &name), ("KITS", &folder), ("OWN_DISK", own), (key, &file)],
        );
        let context = format!("full before {step}: {}", text(&run));
        assert!(matches!(run.status.code(), Some(0 | 1)), "{context}");
        if let Some(kit) = place.valid_kit(&name, &format!("copy-{folder}"), &context) {
            committed += 1;
            let kit = format!("{folder}/{}", kit.file_name().unwrap().to_str().unwrap());
            assert!(text(&run).contains(&kit), "{kit} is not named; {context}");
            assert_eq!(run.status.success(), kit.ends_with("/trust-1.json"), "{context}");
        } else {
            refused += 1;
            assert_eq!(run.status.code(), Some(1), "{context}");
            assert!(text(&run).contains("ERROR"), "{context}");
        }
    }
    assert!(committed > 5 && refused > 5, "{committed} committed, {refused} not");
}

#[test]
fn the_kit_is_synced_before_it_is_acknowledged_and_linked_before_its_first_name_goes() {
    let place = Place::new();
    for tool in ["sync", "ln", "rm", "mv"] {
        let log = "printf '%s\\n' \"${0##*/} $*\" | sed 's/trust-1\\.[A-Za-z0-9]\\{6\\}/trust-1.NEW/' >>log";
        place.tool(tool, &format!("#!/bin/sh\n{log}\nexec /usr/bin/{tool} \"$@\"\n"));
    }
    let run = place.register(&[("KITS", "a/b/kits")]);
    succeeds(&run);
    let log = fs::read_to_string(place.dir.join("log")).unwrap();
    assert_eq!(
        log,
        "sync -- a/b/kits\nsync -- a/b\nsync -- a\nsync -- .\n\
         rm -f -- a/b/kits/.ack-trust-1\n\
         sync -- a/b/kits/.trust-1.NEW a/b/kits\n\
         rm -f -- a/b/kits/.ack-trust-1\n\
         ln -- a/b/kits/.trust-1.NEW a/b/kits/trust-1.json\n\
         sync -- a/b/kits/trust-1.json a/b/kits\n\
         rm -f -- a/b/kits/.trust-1.NEW\n"
    );
}

#[test]
fn a_kit_that_cannot_be_synced_is_not_acknowledged_and_nothing_is_registered() {
    let mut place = Place::new();
    place.tool("sync", "#!/bin/sh\ncase $* in *.trust-*) echo 'sync: error' >&2; exit 1;; esac\n");
    let run = place.register(&[]);
    fails(&run);
    says(&run, "ERROR the kit cannot be stored in kits/.trust-1.");
    says(&run, "ERROR nothing was registered for trust 1\n");
    place.hub.assert_untouched();
    assert_eq!(names(&place.dir.join("kits")), BTreeSet::from([".lock-trust-1".to_owned()]));
}

#[test]
fn a_kit_that_cannot_be_linked_stays_in_its_own_file_which_is_named_and_picked_up() {
    let mut place = Place::new();
    place.tool("ln", "#!/bin/sh\necho 'ln: no hard links here' >&2; exit 1\n");
    let run = place.register(&[]);
    fails(&run);
    says(&run, "ln: no hard links here");
    says(&run, "cannot be named kits/trust-1.json; it stays in kits/.trust-1.");
    assert!(place.valid_kit("One", "kits", "").is_some());
    fs::remove_file(place.dir.join("bin/ln")).unwrap();
    let next = place.register(&[]);
    succeeds(&next);
    says(&next, "which an earlier run left, is the valid kit of the trust");
    let kit = place.valid_kit("One", "kits", "").unwrap();
    assert_eq!(kit, place.dir.join("kits/trust-1.json"));
    let left = [".lock-trust-1", "trust-1.json", "trust-1.metadata.json"].map(str::to_owned);
    assert_eq!(names(&place.dir.join("kits")), BTreeSet::from(left));
}

#[test]
fn a_final_name_that_another_kit_has_is_not_taken_over() {
    let mut place = Place::new();
    succeeds(&place.register(&[]));
    let first = fs::read(place.dir.join("kits/trust-1.json")).unwrap();
    let other = place.register(&[("TRUST_1_NAME", "Another")]);
    fails(&other);
    says(&other, "ERROR kits/trust-1.json holds another kit; the kit of the trust ");
    assert_eq!(fs::read(place.dir.join("kits/trust-1.json")).unwrap(), first);
    let kit = place.valid_kit("Another", "kits", "").unwrap();
    assert!(text(&other).contains(kit.file_name().unwrap().to_str().unwrap()), "{}", text(&other));
    // Both are told apart by what the hub says, and not by the name that is set now.
    let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &[("TRUST_1_NAME", "")]);
    succeeds(&check);
    let lines = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(lines.contains("kits/trust-1.json valid\n"), "{lines}");
    assert_eq!(lines.matches(" valid\n").count(), 2, "{lines}");
}

#[test]
fn two_runs_of_one_number_take_turns() {
    let mut place = Place::new();
    // The first one is held before it syncs its kit until the second one waits.
    place.tool(
        "sync",
        "#!/bin/sh\ncase $* in *.trust-*) while [ -e hold ]; do sleep 0.05; done;; esac\nexec /usr/bin/sync \"$@\"\n",
    );
    fs::write(place.dir.join("hold"), "").unwrap();
    let script = ["deploy/register.sh", "1"];
    let first = place.command(&script, &[]).spawn().unwrap();
    eventually("the first run stores its kit", || place.hub.delivering() == 1);
    let mut second = place.command(&script, &[("TRUST_1_NAME", "Two")]).spawn().unwrap();
    read_until(&mut second, "waiting for another run of trust 1\n");
    assert_eq!(place.hub.runs("true"), 1);
    fs::remove_file(place.dir.join("hold")).unwrap();
    succeeds(&first.wait_with_output().unwrap());
    let second = second.wait_with_output().unwrap();
    fails(&second);
    says(&second, "kits/trust-1.json holds another kit");
    assert!(place.valid_kit("One", "kits", "").is_some());
    assert!(place.valid_kit("Two", "kits", "").is_some());
}

/// Reads a child's stderr up to some text.
fn read_until(child: &mut Child, what: &str) -> String {
    let stderr = child.stderr.as_mut().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&said).contains(what) {
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_terminal_that_is_gone_does_not_stop_the_hand_over() {
    for redirection in ["2>&- >&-", "2>&1 | true", "2>/dev/full >/dev/full"] {
        let mut place = Place::new();
        // The second one has no reader any more when the script speaks first.
        let script = format!("{{ sleep 0.2; exec deploy/register.sh 1; }} {redirection}");
        place.call(&["bash", "-c", &script], &[]);
        place.settled("kits");
        let kit = place.valid_kit("One", "kits", redirection).unwrap();
        eventually("the kit has its name", || place.dir.join("kits/trust-1.json").exists());
        drop(kit);
    }
}

#[test]
fn a_sink_gets_the_stored_kit_and_the_trusts_description() {
    let mut place = Place::new();
    let sink = "echo \"$TRUST_NUMBER,$TRUST_NAME,$TRUST_CODE,$TRUST_REGION,$(ulimit -c)\" >words; \
                cat >\"sunk $TRUST_NUMBER\"";
    let name = "St \"Q\" O'Neil $HOME é";
    let env = [("KIT_SINK", sink), ("TRUST_1_NAME", name), ("TRUST_1_REGION", "The North")];
    let run = place.register(&env);
    succeeds(&run);
    says(&run, "KIT_SINK has taken the kit of trust 1");
    let words = fs::read_to_string(place.dir.join("words")).unwrap();
    assert_eq!(words, format!("1,{name},O,The North,0\n"));
    let kit: Value = serde_json::from_slice(&fs::read(place.dir.join("sunk 1")).unwrap()).unwrap();
    place.hub.assert_registered(&kit);
    assert_eq!(names(&place.dir.join("kits")), BTreeSet::from([".lock-trust-1".to_owned()]));
    // The sink can tell another trust's kit apart.
    let env = [("KIT_SINK", sink), ("TRUST_2_NAME", "Two"), ("TRUST_2_CODE", "T")];
    succeeds(&place.call(&["deploy/register.sh", "2"], &env));
    assert_eq!(names(&place.dir).iter().filter(|name| name.starts_with("sunk")).count(), 2);
}

#[test]
fn a_sink_that_fails_in_any_stage_leaves_the_kit_to_the_next_run() {
    for sink in ["missing | cat >sunk", "cat >sunk | false", "kill -KILL $$", "exec 0<&-; exit 3"] {
        let mut place = Place::new();
        let run = place.register(&[("KIT_SINK", sink)]);
        fails(&run);
        says(&run, "ERROR KIT_SINK failed; the kit stays in kits/.trust-1.");
        assert!(place.valid_kit("One", "kits", sink).is_some());
        // A run that must not see credentials leaves it alone.
        let sync = place
            .call(&["deploy/register.sh", "1", "--require-existing"], &[("KIT_SINK", "cat >>got")]);
        succeeds(&sync);
        says(&sync, ": valid\n");
        let got = fs::read_to_string(place.dir.join("got")).unwrap();
        assert!(got.contains("trust_id") && !got.contains("trust_api_key"), "{got}");
        let next = place.register(&[("KIT_SINK", "cat >>handed")]);
        succeeds(&next);
        let handed = fs::read_to_string(place.dir.join("handed")).unwrap();
        let kits: Vec<Value> =
            handed.lines().map(|kit| serde_json::from_str(kit).unwrap()).collect();
        place.hub.assert_registered(&kits[0]);
        assert!(kits.len() == 2 && kits[1][0]["trust_api_key"].is_null(), "{}", text(&next));
        assert_eq!(names(&place.dir.join("kits")), BTreeSet::from([".lock-trust-1".to_owned()]));
    }
}

/// A client of an engine: `docker` in the place's `bin`, which runs the program as a shell script
/// of the test's own says. The program is `"$@"`.
fn engine(place: &Place, script: &str) -> Vec<(&'static str, String)> {
    let docker = format!(
        "#!/bin/bash
if [ \"$1 $2\" = 'compose version' ]; then exit; fi
[ \"$1 $2 $3 $4\" = 'compose exec -T flip-api' ] || exit 64
shift 4
{script}
"
    );
    place.tool("docker", &docker);
    let program = place.dir.join("target/release/register-trust");
    vec![("HUB", "compose".to_owned()), ("COMMAND", program.to_str().unwrap().to_owned())]
}

/// Carries bytes between the script and a program that it does not own, until the program ends.
const CLIENT: &str = "mkfifo in.$$ out.$$
    setsid \"$@\" <in.$$ >out.$$ 2>>log &
    cat out.$$ & out=$!
    cat <&0 >in.$$ & in=$!
    trap 'kill -KILL $out $in; exit 130' INT
    wait $out; kill $in";

pub fn with<'a>(
    env: &'a [(&'static str, String)],
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(key, value)| (*key, value.as_str())).chain(more.iter().copied()).collect()
}

#[test]
fn a_client_that_dies_while_the_program_lives_on_registers_nothing_before_the_acknowledgement() {
    let mut place = Place::new();
    place.hub.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let mut gate = place.hub.session();
    gate.batch_execute("SELECT pg_advisory_lock(4711)").unwrap();
    let env = engine(&place, CLIENT);
    let script = place
        .command(&["deploy/register.sh", "1"], &with(&env, &[]))
        .process_group(0)
        .spawn()
        .unwrap();
    eventually("the program waits", || place.hub.waiting() == 1);
    let interrupted =
        Command::new("kill").args(["-INT", "--", &format!("-{}", script.id())]).status();
    assert!(interrupted.unwrap().success());
    let run = script.wait_with_output().unwrap();
    fails(&run);
    says(&run, "without a kit; nothing was registered for trust 1\n");
    gate.batch_execute("SELECT pg_advisory_unlock(4711)").unwrap();
    place.hub.assert_untouched();
}

#[test]
fn a_clients_exit_status_decides_nothing() {
    // It reports success for a program that rolled back, and failure for one that committed.
    let mut place = Place::new();
    place.hub.refuse_commits();
    let env = engine(&place, "\"$@\"; exit 0");
    let run = place.register(&with(&env, &[]));
    fails(&run);
    says(&run, "ERROR nothing was registered for trust 1\n");
    assert!(place.kits("kits").is_empty());
    place.hub.execute("DROP TRIGGER refuse ON trust");
    let env = engine(&place, "\"$@\"; exit 255");
    succeeds(&place.register(&with(&env, &[])));
    assert!(place.dir.join("kits/trust-1.json").exists());
}

#[test]
fn without_receipt_and_verdict_the_kit_stays_and_check_kit_tells_what_it_is_worth() {
    for (client, word, status) in [
        // It loses what comes after the kit: the program commits.
        ("exec 3>&1; \"$@\" | { head -n 1 >&3; cat >/dev/null; }", "valid", 0),
        // It loses the acknowledgement: the program rolls back.
        ("\"$@\" </dev/null | head -n 1; exit 0", "worthless", 1),
    ] {
        let mut place = Place::new();
        let env = engine(&place, client);
        let run = place.register(&with(&env, &[]));
        fails(&run);
        says(&run, "it is not known whether trust 1 is registered");
        says(&run, "ERROR its kit stays in kits/.trust-1.");
        says(&run, "ERROR next: 'make check-kit-1 HUB=compose' tells whether it is valid");
        let env = engine(&place, "exec \"$@\"");
        let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &with(&env, &[]));
        assert_eq!(check.status.code(), Some(status), "{}", text(&check));
        let line = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(
            line.starts_with("kits/.trust-1.") && line.ends_with(&format!(" {word}\n")),
            "{line}"
        );
        assert_eq!(place.kits("kits").len(), 1, "a check deleted something");
        // Without a hub to ask, nothing is said of it.
        let down = engine(&place, "exec env DB_PORT=1 \"$@\"");
        let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &with(&down, &[]));
        fails(&check);
        assert!(String::from_utf8_lossy(&check.stdout).ends_with(" unknown\n"), "{}", text(&check));
        let env = engine(&place, "exec \"$@\"");
        let next = place.register(&with(&env, &[]));
        succeeds(&next);
        says(&next, &format!(": {word}\n"));
        let kit = place.valid_kit("One", "kits", "").unwrap();
        assert!(kit.ends_with("kits/trust-1.json"), "{kit:?}");
    }
}

#[test]
fn what_an_engine_prints_before_the_kit_is_shown_and_does_not_hide_the_kit() {
    let mut place = Place::new();
    let env = engine(&place, "echo 'Starting \"flip-api\"'; printf 'ready: '; exec \"$@\"");
    let run = place.register(&with(&env, &[]));
    succeeds(&run);
    says(&run, "Starting \"flip-api\"\nready: \n");
    assert!(place.valid_kit("One", "kits", "").unwrap().ends_with("trust-1.json"));
    // A line of a terminal's.
    let env = engine(&place, "\"$@\" | sed -u 's/$/\\r/'");
    succeeds(&place.register(&with(&env, &[("TRUST_1_NAME", "Two"), ("KITS", "two")])));
    assert!(place.valid_kit("Two", "two", "").is_some());
}

#[test]
fn an_engines_own_error_on_stdout_is_shown_and_no_reason_is_claimed_where_there_is_none() {
    let mut place = Place::new();
    let error = "OCI runtime exec failed: exec: \"/opt/x\": no such file: unknown";
    let env = engine(&place, &format!("echo '{error}'; exit 126"));
    let run = place.register(&with(&env, &[]));
    fails(&run);
    says(
        &run,
        &format!(
            "{error}\nERROR the run ended (exit status 126) without a kit; nothing was registered for trust 1\n"
        ),
    );
    let env = engine(&place, "exit 1");
    let run = place.register(&with(&env, &[]));
    fails(&run);
    assert_eq!(
        String::from_utf8_lossy(&run.stderr),
        "ERROR the run ended (exit status 1) without a kit; nothing was registered for trust 1\n\
         ERROR next: see the lines above; if there are none, compose found no container: check \
         COMPOSE_FILE, COMPOSE_PROJECT_NAME and SERVICE, and that 'docker compose up -d' ran with \
         deploy/compose.yaml\n"
    );
    // A part of a kit is never shown.
    let env = engine(&place, "\"$@\" | head -c 250; exit 1");
    let run = place.register(&with(&env, &[]));
    fails(&run);
    assert!(!text(&run).contains("trust_api_key"), "{}", text(&run));
    says(&run, "that may hold a part of a kit; it is not shown");
    place.hub.assert_untouched();
}

#[test]
fn a_program_that_is_too_old_is_recognised() {
    let place = Place::new();
    // What version 0.1.0 does.
    let old = "case \"$*\" in *--await-ack*)
        echo \"ERROR invalid option '--await-ack'; nothing was done\" >&2; exit 2;; esac";
    let run = place.register(&with(&engine(&place, old), &[]));
    fails(&run);
    says(&run, "nothing was registered for trust 1\n");
    says(&run, "is too old to wait for an acknowledgement");
    says(&run, "deploy/compose.yaml");
    // Another usage error is not taken for that.
    let run = place.call(&["deploy/register.sh", "1", "--nonsense"], &[]);
    fails(&run);
    says(&run, "nonsense");
    assert!(!text(&run).contains("too old"), "{}", text(&run));
}

#[test]
fn a_kit_is_neither_in_argv_nor_in_the_environment_nor_in_a_trace() {
    let mut place = Place::new();
    // Every process is looked at while the kit is being synced.
    let look = "for pid in /proc/[0-9]*; do tr '\\0' '\\n' <$pid/cmdline; tr '\\0' '\\n' <$pid/environ; done 2>/dev/null";
    place.tool("sync", &format!("#!/bin/sh\ncase $* in *.trust-*) {{ {look}; }} >>seen;; esac\nexec /usr/bin/sync \"$@\"\n"));
    let run = place.register(&[("SHELLOPTS", "xtrace"), ("KIT_SINK", "cat >sunk; ps aux >>seen")]);
    succeeds(&run);
    let kit: Value = serde_json::from_slice(&fs::read(place.dir.join("sunk")).unwrap()).unwrap();
    place.hub.assert_registered(&kit);
    let seen = fs::read(place.dir.join("seen")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("TRUST_NUMBER=1") && seen.contains("--await-ack"));
    for key in ["trust_api_key", "trust_internal_service_key"] {
        let key = kit[0][key].as_str().unwrap();
        assert!(!seen.contains(key) && !text(&run).contains(key));
    }
}

#[test]
fn without_flock_and_sync_of_files_as_on_macos_perl_does_both() {
    let mut place = Place::new();
    let bin = place.dir.join("only");
    fs::create_dir(&bin).unwrap();
    for tool in [
        "bash", "env", "dirname", "mkdir", "mkfifo", "mktemp", "ln", "rm", "mv", "cmp", "grep",
        "cat", "perl",
    ] {
        let found =
            Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        std::os::unix::fs::symlink(found.trim(), bin.join(tool)).unwrap();
    }
    let path = bin.to_str().unwrap();
    let env = [("PATH", path), ("OSTYPE", "darwin23")];
    succeeds(&place.register(&env));
    assert!(place.valid_kit("One", "kits", "").unwrap().ends_with("trust-1.json"));
    // The lock holds.
    let lock = place.dir.join("kits/.lock-trust-1");
    let mut holder = Command::new("flock")
        .arg(&lock)
        .args(["-c", "echo held; read x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let mut waiting = place.command(&["deploy/register.sh", "1"], &env).spawn().unwrap();
    read_until(&mut waiting, "waiting for another run of trust 1\n");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    succeeds(&waiting.wait_with_output().unwrap());
    // Without perl nothing is begun.
    fs::remove_file(bin.join("perl")).unwrap();
    let run = place.register(&[env[0], env[1], ("TRUST_1_NAME", "Two"), ("KITS", "two")]);
    fails(&run);
    says(&run, "perl");
    assert_eq!(place.hub.count("trust"), 1);
}

#[test]
fn a_check_decodes_the_names_that_a_kit_holds() {
    let mut place = Place::new();
    let names = ["Łódź \u{1f600} \u{ffff}", "a \"b\" \\ c/d\\u0041", "\u{7f}tail é"];
    for (n, name) in names.iter().enumerate() {
        let (folder, key) = (format!("kits-{n}"), "TRUST_1_NAME");
        if name.contains('\u{7f}') {
            let run = place.register(&[(key, name), ("KITS", &folder)]);
            fails(&run);
            says(&run, "TRUST_1_NAME holds a line break or another control character");
            continue;
        }
        succeeds(&place.register(&[(key, name), ("KITS", &folder)]));
        let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &[("KITS", &folder)]);
        succeeds(&check);
        assert_eq!(
            String::from_utf8_lossy(&check.stdout),
            format!("{folder}/trust-1.json valid\n")
        );
    }
    let none = place.call(&["deploy/register.sh", "1", "--check-kits"], &[("KITS", "none")]);
    fails(&none);
    says(&none, "no kit with credentials of trust 1 is in none");
    place.hub.execute(
        "DELETE FROM fl_kit_slot WHERE assigned_to_trust_id IS NOT NULL; DELETE FROM trust",
    );
    let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &[("KITS", "kits-0")]);
    fails(&check);
    assert_eq!(String::from_utf8_lossy(&check.stdout), "kits-0/trust-1.json worthless\n");
}

#[test]
fn what_an_earlier_run_left_is_told_apart() {
    let place = Place::new();
    succeeds(&place.register(&[]));
    let kit = fs::read_to_string(place.dir.join("kits/trust-1.json")).unwrap();
    let kits = place.dir.join("kits");
    // The valid kit once more; the beginning of one; nothing; a kit without credentials; a note.
    fs::write(kits.join(".trust-1.again1"), &kit).unwrap();
    fs::write(kits.join(".trust-1.torn00"), &kit[..200]).unwrap();
    fs::write(kits.join(".trust-1.empty0"), "").unwrap();
    fs::write(kits.join(".trust-1.noted0"), "something else\n").unwrap();
    succeeds(&place.register(&[]));
    fs::copy(kits.join("trust-1.metadata.json"), kits.join(".trust-1.meta00")).unwrap();
    fs::set_permissions(kits.join(".trust-1.noted0"), PermissionsExt::from_mode(0o600)).unwrap();
    let run = place.register(&[]);
    succeeds(&run);
    says(&run, "WARNING kits/.trust-1.noted0 holds no kit");
    says(&run, "removing kits/.trust-1.meta00, a kit without credentials");
    let left = [".lock-trust-1", ".trust-1.noted0", "trust-1.json", "trust-1.metadata.json"];
    assert_eq!(names(&kits), BTreeSet::from(left.map(str::to_owned)));
    assert_eq!(fs::read_to_string(kits.join("trust-1.json")).unwrap(), kit);
}

/// The environment that reaches a hub's container with the program in it, by compose and the engine
/// that runs here. Where none runs, a client of the test's own takes its place.
pub struct Container {
    dir: PathBuf,
    real: bool,
    pub env: Vec<(&'static str, String)>,
}

const COMPOSE: &str =
    "compose='docker compose'; $compose version >log 2>&1 || compose=docker-compose
";

impl Container {
    pub fn new(place: &Place) -> Container {
        let dir = place.dir.clone();
        let runs = format!("set -e; docker info; {COMPOSE} $compose version");
        if !place.call(&["sh", "-c", &runs], &[]).status.success() {
            return Container { dir, real: false, env: engine(place, CLIENT) };
        }
        let script = "set -e
            mkdir -p image/opt/register-trust
            cp target/release/register-trust image/opt/register-trust/
            echo 'int pause(void); int main(void) { for (;;) pause(); }' >pause.c
            cc -static -o image/pause pause.c
            tar -C image -c . | docker import - \"$COMPOSE_PROJECT_NAME\"
            env | grep -E '^(DB|POSTGRES)_' >container.env
            cat >hub.yaml <<YAML
version: '3.7'
services:
  flip-api: {image: $COMPOSE_PROJECT_NAME, command: [/pause], network_mode: host, env_file: container.env}
YAML
            $compose up -d";
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let env = vec![
            ("HUB", "compose".to_owned()),
            ("COMPOSE_FILE", "hub.yaml".to_owned()),
            ("COMPOSE_PROJECT_NAME", name),
        ];
        let up = place.call(&["sh", "-c", &format!("{COMPOSE}{script}")], &with(&env, &[]));
        assert!(up.status.success(), "{}", text(&up));
        Container { dir, real: true, env }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.real {
            let down =
                format!("{COMPOSE} $compose down -t 0; docker rmi \"$COMPOSE_PROJECT_NAME\"");
            let mut command = Command::new("sh");
            command.args(["-c", &down]).current_dir(&self.dir).envs(self.env.iter().cloned());
            let _ = command.output();
        }
    }
}

#[test]
fn a_hub_in_a_container_is_served_and_its_engines_client_may_die_at_any_time() {
    let mut place = Place::new();
    let container = Container::new(&place);
    let env = |more| with(&container.env, more);
    let run = place.call(&["make", "register-trust-1"], &env(&[]));
    succeeds(&run);
    says(&run, "the kit is in kits/trust-1.json\n");
    assert!(place.valid_kit("One", "kits", "").is_some());
    let check = place.call(&["make", "check-kit-1"], &env(&[]));
    succeeds(&check);
    says(&check, "kits/trust-1.json valid\n");

    // Ctrl-C while the program waits for the hub: version 0.1.0 said "got no kit", and the program
    // went on in its container and registered the trust.
    place.hub.execute(
        "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
         CREATE TRIGGER gate BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION gate()",
    );
    let mut gate = place.hub.session();
    gate.batch_execute("SELECT pg_advisory_lock(4711)").unwrap();
    let two = env(&[("TRUST_1_NAME", "Two"), ("KITS", "two")]);
    let make = place.command(&["make", "register-trust-1"], &two).process_group(0).spawn().unwrap();
    eventually("the program waits", || place.hub.waiting() == 1);
    let group = format!("-{}", make.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let run = make.wait_with_output().unwrap();
    gate.batch_execute("SELECT pg_advisory_unlock(4711)").unwrap();
    assert!(!run.status.success(), "{}", text(&run));
    says(&run, "nothing was registered for trust 1\n");
    place.hub.assert_no_session();
    assert_eq!(place.id("Two"), None);

    // The clients are killed while the script stores the kit: the acknowledgement is lost.
    place.tool(
        "sync",
        "#!/bin/bash
group=$(($(ps -o pgid= -p $$)))
clients() {
    ps -e -o pid= -o pgid= -o args= |
        awk -v group=$group '$2 == group && !/register.sh|make|sync|awk|ps -e/ { print $1 }'
}
case $* in *.trust-*) while pids=$(clients) && [ -n \"$pids\" ]; do kill -KILL $pids; sleep 0.05; done 2>/dev/null;; esac
exec /usr/bin/sync \"$@\"
",
    );
    let run = in_a_group(place.command(&["make", "register-trust-1"], &two));
    assert!(!run.status.success(), "{}", text(&run));
    says(&run, "it is not known whether trust 1 is registered");
    place.hub.assert_no_session();
    assert_eq!(place.id("Two"), None);
    fs::remove_file(place.dir.join("bin/sync")).unwrap();
    let next = place.call(&["make", "register-trust-1"], &two);
    succeeds(&next);
    says(&next, ": worthless\n");
    assert!(place.valid_kit("Two", "two", "").unwrap().ends_with("trust-1.json"));
}

#[test]
fn ctrl_c_stops_a_sink_and_leaves_the_kit() {
    let mut place = Place::new();
    let sink = "echo $$ >running; exec sleep 60";
    let script = place
        .command(&["make", "register-trust-1"], &[("KIT_SINK", sink)])
        .process_group(0)
        .spawn()
        .unwrap();
    eventually("the sink runs", || {
        fs::read_to_string(place.dir.join("running")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let group = format!("-{}", script.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let run = script.wait_with_output().unwrap();
    assert!(!run.status.success(), "{}", text(&run));
    says(&run, "ERROR KIT_SINK failed; the kit stays in kits/.trust-1.");
    assert!(place.valid_kit("One", "kits", "").is_some());
}
