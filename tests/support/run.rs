//! Running the program and looking at what it did.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::hub::Cluster;

/// What `make build` made: the very file that is shipped.
pub const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/register-trust");

/// Fails if the sources are newer than the program.
fn assert_built() {
    let newest = |command: &str| {
        let find = format!("find {command} -type f -printf '%T@\\n' | sort -n | tail -n 1");
        let output = Command::new("sh").args(["-c", &find]).current_dir(super::root()).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().parse::<f64>().unwrap_or(0.0)
    };
    let sources = newest("src sql doc/help.txt Cargo.lock");
    assert!(newest("target/release/register-trust") >= sources, "run 'make build' first");
}

/// A command in a process group of its own, which ends with this value.
pub struct Group(Option<Child>);

impl Group {
    pub fn of(command: &mut Command) -> Group {
        Group(Some(command.process_group(0).spawn().unwrap()))
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn kill(&self) {
        if let Some(child) = &self.0 {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).output();
        }
    }

    /// Waits for the last process that has its stdout or stderr.
    pub fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A call of the program, in an environment that holds only what the test puts there.
pub struct Program {
    arguments: Vec<OsString>,
    env: Vec<(String, OsString)>,
    stdout: Option<Stdio>,
    around: Vec<String>,
}

/// What came of it.
pub struct Run {
    arguments: Vec<OsString>,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Program {
    pub fn new(arguments: &[&str]) -> Program {
        Program {
            arguments: arguments.iter().map(Into::into).collect(),
            env: Vec::new(),
            stdout: None,
            around: Vec::new(),
        }
    }

    pub fn arg(mut self, argument: impl Into<OsString>) -> Program {
        self.arguments.push(argument.into());
        self
    }

    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Program {
        self.env.retain(|(other, _)| other != key);
        self.env.push((key.to_owned(), value.into()));
        self
    }

    pub fn without(mut self, key: &str) -> Program {
        self.env.retain(|(other, _)| other != key);
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Program {
        self.stdout = Some(stdout.into());
        self
    }

    /// The environment that it would be called in.
    pub fn environment(self) -> std::collections::BTreeMap<String, OsString> {
        self.env.into_iter().collect()
    }

    pub fn spawn(self) -> Running {
        let arguments = self.arguments.clone();
        Running { child: self.command().spawn().unwrap(), arguments, start: Instant::now() }
    }

    /// The call itself, for those who run it in a way of their own.
    pub fn command(self) -> Command {
        static BUILT: LazyLock<()> = LazyLock::new(assert_built);
        LazyLock::force(&BUILT);
        let mut words = self.around.iter().map(String::as_str).chain([PROGRAM]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(&self.arguments).env_clear().envs(self.env);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        command
    }

    pub fn run(self) -> Run {
        self.spawn().wait()
    }

    /// Through a shell that does something to its descriptors, as `>&-` does.
    pub fn run_in_shell(self, redirection: &str) -> Run {
        self.behind("", redirection).run()
    }

    /// Through a shell, behind something that it is to do first, such as setting a limit.
    pub fn behind(self, first: &str, redirection: &str) -> Program {
        self.inside(&["sh", "-c", &format!("{first}\nexec \"$0\" \"$@\" {redirection}")])
    }

    /// Through another command, which gets the call as its last arguments.
    pub fn inside(mut self, command: &[&str]) -> Program {
        self.around.splice(..0, command.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Where only these names have addresses: as /etc/hosts tells them, in a namespace of its own.
    pub fn where_hosts_are(self, hosts: &str) -> Program {
        let show = format!(
            "mount -t tmpfs none /mnt && printf '{hosts}' >/mnt/hosts && mount --bind /mnt/hosts /etc/hosts"
        );
        let user = if Cluster::is_root() { "-m" } else { "-rm" };
        self.behind(&show, "").inside(&["unshare", user])
    }
}

/// A call under way; killed if the test gives up on it.
pub struct Running {
    pub child: Child,
    arguments: Vec<OsString>,
    start: Instant,
}

impl Running {
    pub fn wait(mut self) -> Run {
        fn read(pipe: Option<impl std::io::Read>) -> String {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8(bytes).expect("output is UTF-8")
        }
        // Both at once: neither may fill up while the other is read.
        let stderr = self.child.stderr.take();
        let stderr = std::thread::spawn(move || read(stderr));
        let stdout = read(self.child.stdout.take());
        let stderr = stderr.join().unwrap();
        let status = self.child.wait().unwrap();
        let arguments = std::mem::take(&mut self.arguments);
        Run { arguments, status, stdout, stderr, took: self.start.elapsed() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// Everything that is known, for a failed assertion.
    pub fn dump(&self) -> String {
        let mut dump = String::from("\nregister-trust");
        for argument in &self.arguments {
            let _ = write!(dump, " {argument:?}");
        }
        let _ = write!(dump, "\n{} after {:?}", self.status, self.took);
        let _ = write!(dump, "\n--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr);
        dump
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{} (signal {:?})",
            self.dump(),
            self.status.signal()
        );
        self
    }

    #[track_caller]
    pub fn prints(self, stdout: &str) -> Run {
        assert_eq!(self.stdout, stdout, "{}", self.dump());
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Run {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}{}", self.dump());
        self
    }

    #[track_caller]
    pub fn never_says(self, text: &str) -> Run {
        assert!(!self.stderr.contains(text), "stderr holds {text:?}{}", self.dump());
        self
    }

    /// Exit 1, an error with what to do next, and the verdict `[]` on stdout.
    #[track_caller]
    pub fn fails(self) -> Run {
        self.exits(1).prints("[]\n").says("ERROR ").says("nothing was registered\nERROR next: ")
    }

    /// Exit 0 and a kit on stdout: one line of JSON.
    #[track_caller]
    pub fn kit(&self) -> serde_json::Value {
        assert_eq!(self.status.code(), Some(0), "{}", self.dump());
        let line =
            self.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line{}", self.dump()));
        assert!(
            line.starts_with("[{") && !line.contains('\n') && line.is_ascii(),
            "{}",
            self.dump()
        );
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}{}", self.dump()))
    }

    #[track_caller]
    pub fn full_kit(&self) -> serde_json::Value {
        let kit = self.kit();
        assert!(kit[0]["trust_api_key"].is_string(), "no credentials{}", self.dump());
        kit
    }

    #[track_caller]
    pub fn metadata_only_kit(&self) -> serde_json::Value {
        let kit = self.kit();
        let object = kit[0].as_object().unwrap();
        assert!(!object.contains_key("trust_api_key"), "credentials{}", self.dump());
        assert!(!object.contains_key("trust_internal_service_key"), "credentials{}", self.dump());
        kit
    }

    #[track_caller]
    pub fn within(self, seconds: u64) -> Run {
        assert!(self.took < Duration::from_secs(seconds), "too slow{}", self.dump());
        self
    }
}
