//! doc/deploy.md, "The image and the binary": in a root that holds nothing but the binary, a CA
//! bundle, /etc/hosts and /etc/resolv.conf, it resolves names, verifies TLS to PostgreSQL and to an
//! https endpoint of SSM, and registers. In namespaces of its own: nothing but loopback is there.
//! In an ordinary container, which has none, in a plain chroot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::support::hub::Cluster;
use crate::support::not_run::{networks, not_run};
use crate::support::{certificates, root};

struct World {
    dir: std::path::PathBuf,
    /// On loopback; of this run alone, for without namespaces other runs are in the same network.
    address: String,
    own_network: bool,
}

impl World {
    fn new() -> World {
        let dir = std::env::temp_dir().join(format!("empty-root-{}", std::process::id()));
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = format!("127.83.{high}.{}", low.clamp(1, 254));
        fs::create_dir_all(dir.join("root/etc/ssl/certs")).unwrap();
        fs::create_dir_all(dir.join("root/dev")).unwrap();
        certificates(&dir, "DNS:hub.flip.test,DNS:hub-in-hosts,DNS:ssm.eu-west-2.amazonaws.com");
        let binary = std::path::Path::new(crate::support::run::PROGRAM);
        let interpreter = fs::read(binary).unwrap().windows(9).any(|bytes| bytes == b"/ld-linux");
        assert!(!interpreter, "the binary is not static: run 'make test', which builds it so");
        assert!(
            fs::metadata(binary).unwrap().len() <= 8 * 1024 * 1024,
            "the static binary is larger than 8 MiB"
        );
        fs::copy(binary, dir.join("root/register-trust")).unwrap();
        fs::set_permissions(dir.join("root/register-trust"), fs::Permissions::from_mode(0o755))
            .unwrap();
        fs::copy(dir.join("ca.crt"), dir.join("root/etc/ssl/certs/ca-certificates.crt")).unwrap();
        fs::write(dir.join("root/etc/hosts"), "127.0.0.1 localhost hub-in-hosts\n").unwrap();
        fs::write(dir.join("root/etc/resolv.conf"), format!("nameserver {address}\n")).unwrap();
        World { dir, address, own_network: networks() }
    }

    /// Starts a hub and the world, in a network namespace where there are such, and runs the program
    /// in the empty root.
    fn run(&self, arguments: &[&str], env: &[(&str, &str)]) -> Output {
        let files = self.dir.display();
        let options = format!(
            "-c fsync=off -c ssl=on -c ssl_cert_file={files}/server.crt -c ssl_key_file={files}/pg.key"
        );
        let env: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
        let around = match (self.own_network, Cluster::is_root()) {
            (false, _) => &["env"][..],
            (true, true) => &["unshare", "-n"],
            (true, false) => &["unshare", "-Un", "--map-current-user", "--keep-caps"],
        };
        Command::new(around[0])
            .args(&around[1..])
            .arg("sh")
            .arg(root().join("tests/contract/empty_root.sh"))
            .args(arguments)
            .env("HUB", root().join("deploy/dev/hub.sh"))
            .env("DIR", &self.dir)
            .env("ADDRESS", &self.address)
            .env("OWN_NETWORK", if self.own_network { "yes" } else { "" })
            .env("WORLD", root().join("tests/contract/empty_root.py"))
            .env("PYTHON", crate::support::python())
            .env("HUB_OPTIONS", options)
            .env("ENV", serde_json::to_string(&env).unwrap())
            .output()
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn the_static_binary_does_everything_in_an_empty_root() {
    let world = World::new();
    if !world.own_network && !Cluster::is_root() {
        return not_run(
            "the static binary in an empty root (needs a namespace, or root for chroot)",
        );
    }
    let register = |name: &str, env: &[(&str, &str)]| {
        let output =
            world.run(&["--name", name, "--code", "X", "--out-ssm-parameter", "/flip/kit"], env);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // The name of the hub from DNS and from /etc/hosts; SSM at AWS's own name, over https; the
    // credentials from the task's relative URI.
    let path = "/v2/credentials/task";
    let full = format!("http://{}{path}", world.address);
    let task = if world.own_network {
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", path)
    } else {
        not_run("an ECS task's credentials at 169.254.170.2 (needs a network namespace)");
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str())
    };
    let ecs = [("AWS_REGION", "eu-west-2"), task];
    for host in ["hub.flip.test", "hub-in-hosts"] {
        let env = [&ecs[..], &[("DB_HOST", host), ("PGSSLMODE", "verify-full")]].concat();
        let (code, stdout, stderr) = register("A", &env);
        assert_eq!((code, stdout.as_str()), (Some(0), "/flip/kit\n"), "{host}: {stderr}");
        let stored = fs::read_to_string(world.dir.join("stored")).unwrap();
        assert!(stored.contains("trust_api_key"), "{stored}");
    }
    // Where the machine asks for more than the two look-ups that the binary has, getent is asked:
    // one that is not there, and one that knows no name.
    let nsswitch = world.dir.join("root/etc/nsswitch.conf");
    fs::write(&nsswitch, "hosts: files mdns4_minimal [NOTFOUND=return] dns\n").unwrap();
    let env = [&ecs[..], &[("DB_HOST", "hub-in-hosts"), ("PGSSLMODE", "verify-full")]].concat();
    let (code, _, stderr) = register("A", &env);
    let missing = "/etc/nsswitch.conf asks for more than files and dns, which this static binary looks up by /usr/bin/getent: No such file or directory";
    assert!(code == Some(1) && stderr.contains(missing), "{stderr}");
    fs::create_dir_all(world.dir.join("root/usr/bin")).unwrap();
    fs::copy(world.dir.join("root/register-trust"), world.dir.join("root/usr/bin/getent")).unwrap();
    fs::write(world.dir.join("root/dev/null"), "").unwrap();
    let (code, _, stderr) = register("A", &env);
    let unknown = "cannot look up the name hub-in-hosts: the name is not known";
    assert!(code == Some(1) && stderr.contains(unknown), "{stderr}");
    fs::remove_file(&nsswitch).unwrap();
    fs::remove_file(world.dir.join("root/dev/null")).unwrap();
    // Without a CA bundle: an error, not a panic.
    fs::remove_file(world.dir.join("root/etc/ssl/certs/ca-certificates.crt")).unwrap();
    let env = [&ecs[..], &[("DB_HOST", "hub-in-hosts"), ("PGSSLMODE", "verify-full")]].concat();
    let (code, stdout, stderr) = register("A", &env);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(
        stderr.contains("this machine has no CA bundle to verify a certificate with")
            && stderr.contains("install the system's CA bundle"),
        "{stderr}"
    );
    assert!(
        stderr.contains(
            "check the authorities (AWS_CA_BUNDLE, SSL_CERT_FILE) and the endpoint's certificate"
        ) && !stderr.contains("internal error"),
        "{stderr}"
    );
}
