//! What is linked in and what releases and images are made of: the newest OpenSSL and glibc, what is
//! committed, and base images by digest.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::root;

/// A machine of Debian's in a folder: its programs, of which some are stand-ins, and nothing else.
struct Machine(PathBuf);

const LINKED: &str = "openssl 3.0.19 3.0.19-1\nglibc 2.36 2.36-9\n";

impl Machine {
    fn new(name: &str) -> Machine {
        let dir = std::env::temp_dir().join(format!("supply-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let machine = Machine(dir);
        for tool in
            ["bash", "env", "grep", "sed", "mktemp", "chmod", "mkdir", "rm", "tr", "realpath"]
        {
            let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .map(|folder| folder.join(tool))
                .find(|path| path.exists());
            symlink(real.unwrap(), machine.0.join(tool)).unwrap();
        }
        machine.put("cc", "echo /lib/${1#*=}");
        machine.put("getconf", "echo glibc 2.36");
        machine.put(
            "pkg-config",
            "case $* in
            *zlib) echo 1.3.1 ;;
            --modversion*) echo 3.0.19 ;;
            --variable=libdir*) echo /lib ;;
            --static*) echo -lssl -ldl -lcrypto -ldl $OTHERS ;;
            *) exit 1 ;;
            esac",
        );
        machine.put(
            "dpkg-query",
            "case $* in
            *-S*libssl.a) echo \"libssl-dev:amd64: /lib/libssl.a\" ;;
            *-S*libc.a) echo \"libc6-dev:amd64: /lib/libc.a\" ;;
            *-S*libz.a) echo \"zlib1g-dev:amd64: /lib/libz.a\" ;;
            *zlib1g-dev:amd64) echo 1.3-2 ;;
            *libssl-dev:amd64) echo 3.0.19-1 ;;
            *libc6-dev:amd64) echo 2.36-9 ;;
            *) exit 1 ;;
            esac",
        );
        machine
            .put("apt-get", "[ -z \"${APT_SAYS-}\" ] || { echo \"$APT_SAYS\"; exit $APT_EXITS; }");
        machine.offers("3.0.19-1", "2.36-9");
        machine
    }

    fn put(&self, name: &str, script: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the package source has.
    fn offers(&self, openssl: &str, glibc: &str) {
        self.put(
            "apt-cache",
            &format!(
                "case $* in *libssl-dev:amd64) newest={openssl} ;; *libc6-dev:amd64) newest={glibc} ;; *) newest=1.3-2 ;; esac
                echo \"  Candidate: $newest\"
                echo \"        500 http://deb.example.org/debian stable/main amd64 Packages\"
                echo \"        100 /var/lib/dpkg/status\""
            ),
        );
    }

    /// Whether the script succeeds, its stdout, and its stderr.
    fn newest(&self, env: &[(&str, &str)]) -> (bool, String, String) {
        let mut command = Command::new(self.0.join("bash"));
        command.arg(root().join("deploy/dev/newest.sh")).env_clear().env("PATH", &self.0);
        let output = command.envs(env.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// Refused with these words, unless this very version is named on purpose.
    fn refuses(&self, words: &str, allow: (&str, &str), env: &[(&str, &str)]) {
        let with = |value| [env, &[(allow.0, value)]].concat();
        for env in [env.to_vec(), with("3.0.18-1"), with("")] {
            let (success, _, stderr) = self.newest(&env);
            assert!(!success && stderr.contains(words), "{words}: {stderr}");
            assert!(stderr.contains(&format!("set {}={}", allow.0, allow.1)), "{stderr}");
        }
        let (success, stdout, stderr) = self.newest(&with(allow.1));
        assert!(success && stdout.starts_with("openssl 3.0.19 "), "{words}: {stderr}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_newest_openssl_and_glibc_are_linked_in() {
    let machine = Machine::new("newest");
    let (success, stdout, stderr) = machine.newest(&[]);
    assert!(success, "{stderr}");
    assert_eq!(stdout, LINKED);
}

#[test]
fn an_older_openssl_than_the_package_source_offers_is_refused() {
    let machine = Machine::new("older-openssl");
    machine.offers("3.0.22-1", "2.36-9");
    machine.refuses("offers 3.0.22-1", ("ALLOW_OPENSSL", "3.0.19-1"), &[]);
}

#[test]
fn an_older_glibc_than_the_package_source_offers_is_refused() {
    let machine = Machine::new("older-glibc");
    machine.offers("3.0.19-1", "2.36-10");
    machine.refuses("offers 2.36-10", ("ALLOW_GLIBC", "2.36-9"), &[]);
}

#[test]
fn what_openssl_links_in_besides_is_checked_too() {
    let machine = Machine::new("others");
    let (success, stdout, stderr) = machine.newest(&[("OTHERS", "-lz")]);
    assert!(success, "{stderr}");
    assert_eq!(stdout, format!("{LINKED}zlib 1.3.1 1.3-2\n"));
    machine.put("dpkg-query", "case $* in *libz.a*) exit 1 ;; *-S*) echo x: y ;; esac");
    let (success, _, stderr) =
        machine.newest(&[("OTHERS", "-lz"), ("ALLOW_OPENSSL", ""), ("ALLOW_GLIBC", "")]);
    assert!(!success && stderr.contains("zlib 1.3.1 would be linked in"), "{stderr}");
    let (success, _, stderr) = machine.newest(&[("OTHERS", "-lbrotli")]);
    assert!(!success && stderr.contains("OpenSSL would link -lbrotli in"), "{stderr}");
}

#[test]
fn an_openssl_that_cannot_be_checked_is_refused() {
    let words = "it cannot be checked whether that is the newest: ";
    let refuses = |machine: &Machine, why: &str, env: &[(&str, &str)]| {
        let env = [env, &[("ALLOW_GLIBC", "2.36")]].concat();
        machine.refuses(&format!("{words}{why}"), ("ALLOW_OPENSSL", "3.0.19"), &env);
    };
    let machine = Machine::new("unknown");
    let elsewhere = [("OPENSSL_DIR", "/opt/openssl")];
    refuses(&machine, "OPENSSL_DIR is set", &elsewhere);
    let elsewhere = [("X86_64_UNKNOWN_LINUX_GNU_OPENSSL_LIB_DIR", "/opt/openssl")];
    refuses(&machine, "X86_64_UNKNOWN_LINUX_GNU_OPENSSL_LIB_DIR is set", &elsewhere);
    machine.put("apt-cache", "echo '  Candidate: 3.0.19-1'; echo '   100 /var/lib/dpkg/status'");
    let (success, _, stderr) = machine.newest(&[]);
    assert!(!success && stderr.contains("no package source has libssl-dev"), "{stderr}");
    machine.put("dpkg-query", "exit 1");
    refuses(&machine, "/lib/libssl.a belongs to no package", &[]);
    fs::remove_file(machine.0.join("apt-get")).unwrap();
    refuses(&machine, "there is no apt-get here", &[]);
}

#[test]
fn a_package_source_that_does_not_answer_is_no_proof() {
    let machine = Machine::new("silent");
    // apt's older versions call it a success.
    for status in ["0", "100"] {
        let apt = [("APT_SAYS", "Err:1 http://deb.example.org stable"), ("APT_EXITS", status)];
        let (success, _, stderr) = machine.newest(&apt);
        assert!(!success && stderr.contains("the package source does not answer"), "{stderr}");
        assert!(stderr.contains("Err:1 http://deb.example.org"), "{stderr}");
    }
}

fn make(target: &str, images: [&str; 2]) -> (bool, String) {
    let mut command = Command::new("make");
    command.arg("--no-print-directory").arg(target).current_dir(root());
    command.args([format!("BUILD_IMAGE={}", images[0]), format!("RUNTIME_IMAGE={}", images[1])]);
    // Nothing must be built here, whatever is committed.
    let output = command.env("PATH", stub_docker()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The ordinary programs, but a Docker that does nothing.
fn stub_docker() -> std::ffi::OsString {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-docker");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("docker");
    if !path.exists() {
        let new = dir.join(format!("docker.{}", std::process::id()));
        fs::write(&new, "#!/bin/sh\nexit 9\n").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &path).unwrap();
    }
    let ordinary = std::env::var_os("PATH").unwrap();
    std::env::join_paths([dir].into_iter().chain(std::env::split_paths(&ordinary))).unwrap()
}

#[test]
fn an_image_to_release_is_built_from_digests() {
    let digest = format!("example.org/rust@sha256:{}", "0a".repeat(32));
    let short = &digest[..digest.len() - 1];
    for images in [["rust:1", &digest], [&digest, "static:nonroot"], [short, &digest]] {
        let (success, said) = make("release-image", images);
        assert!(!success && said.contains("is a tag: name the image by its digest"), "{said}");
    }
    let (success, said) = make("release-image", [&digest, &digest]);
    assert!(!success && !said.contains("is a tag"), "{said}");
}

#[test]
fn a_release_is_made_of_what_is_committed() {
    let dir = std::env::temp_dir().join(format!("supply-release-{}", std::process::id()));
    fs::create_dir_all(dir.join("deploy/dev")).unwrap();
    for file in ["Cargo.toml", "deploy/dev/release.sh"] {
        fs::copy(root().join(file), dir.join(file)).unwrap();
    }
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=test", "-c", "user.email=test@example.org"];
        let run = Command::new("git").current_dir(&dir).args(who).args(arguments).output().unwrap();
        assert!(run.status.success(), "{run:?}");
    };
    let check = |dirty: &str| {
        let mut command = Command::new(dir.join("deploy/dev/release.sh"));
        let output = command.arg("--check").env("ALLOW_DIRTY", dirty).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "all"]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(check(""), (true, format!("{version}\n")));
    fs::write(dir.join("new"), "").unwrap();
    let (success, said) = check("");
    assert!(!success && said.contains("?? new") && said.contains("ALLOW_DIRTY=yes"), "{said}");
    assert_eq!(check("yes"), (true, format!("{version}-dirty\n")));
    fs::remove_dir_all(&dir).unwrap();
}
