//! README, "In production": in a root that holds nothing but the binary, a CA bundle,
//! /etc/hosts and /etc/resolv.conf, it resolves names, verifies TLS to PostgreSQL and to an https
//! endpoint of SSM, and registers. In namespaces of its own: nothing but loopback is there. In an
//! ordinary container, which has none, in a plain chroot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::support::hub::Cluster;
use crate::support::not_run::{networks, not_run};
use crate::support::{certificates, root};

/// Runs SSM, a name server and the task's credentials on ADDRESS, in a network of its own at the ECS
/// endpoint's true address too; then the program in its root.
const WORLD: &str = r#"
import json, os, shutil, socket, ssl, struct, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
root, files = sys.argv[1:3]
address = os.environ['ADDRESS']
stored = []

class Ssm(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['content-length'])))
        assert 'AKIDTASK' in self.headers['authorization'] and self.headers['x-amz-security-token'] == 'task-token'
        stored.append(body['Value'])
        self.answer({'Version': len(stored), 'Tier': 'Standard'})
    def do_GET(self):
        assert self.path == '/v2/credentials/task', self.path
        self.answer({'AccessKeyId': 'AKIDTASK', 'SecretAccessKey': 's', 'Token': 'task-token',
                     'Expiration': '2099-01-01T00:00:00Z'})
    def answer(self, what):
        data = json.dumps(what).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass

def names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, client = server.recvfrom(512)
        end = query.index(b'\0', 12) + 5
        name = query[12:end]
        found = query[end - 4:end - 2] == b'\0\1' and (b'ssm' in name or b'hub' in name)
        answer = query[:2] + b'\x81\x80' + query[4:6] + struct.pack('>HHH', int(found), 0, 0) + name
        if found:
            answer += b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4' + socket.inet_aton(address if b'ssm' in name else '127.0.0.1')
        server.sendto(answer, client)
threading.Thread(target=names, daemon=True).start()
secure = ThreadingHTTPServer((address, 443), Ssm)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(files + '/server.crt', files + '/server.key')
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever, daemon=True).start()
for place in [address] + (['169.254.170.2'] if os.environ['OWN_NETWORK'] else []):
    task = ThreadingHTTPServer((place, 80), Ssm)
    threading.Thread(target=task.serve_forever, daemon=True).start()

env = dict(json.loads(sys.argv[3]))
run = subprocess.run([shutil.which('chroot'), root, '/register-trust', *sys.argv[4:]], env=env, capture_output=True, text=True)
sys.stdout.write(run.stdout)
sys.stderr.write(run.stderr)
json.dump(stored, open(files + '/stored', 'w'))
sys.exit(run.returncode)
"#;

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
        fs::write(dir.join("world.py"), WORLD).unwrap();
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
        let script = "if [ -n \"$OWN_NETWORK\" ]; then
    ip link set lo up && ip address add 169.254.170.2/32 dev lo || exit 99
fi
\"$HUB\" start \"$DIR/hub\" >/dev/null 2>&1 || exit 98
trap '\"$HUB\" remove \"$DIR/hub\"' EXIT
env=$(\"$PYTHON\" -c 'import json, sys
env = dict(line.rstrip().split(\"=\", 1) for line in open(sys.argv[1]))
env.update(json.loads(sys.argv[2]))
print(json.dumps(env))' \"$DIR/hub/env\" \"$ENV\")
\"$PYTHON\" \"$DIR/world.py\" \"$DIR/root\" \"$DIR\" \"$env\" \"$@\"";
        let env: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
        let around = match (self.own_network, Cluster::is_root()) {
            (false, _) => &["env"][..],
            (true, true) => &["unshare", "-n"],
            (true, false) => &["unshare", "-Un", "--map-current-user", "--keep-caps"],
        };
        Command::new(around[0])
            .args(&around[1..])
            .args(["sh", "-c", script, "sh"])
            .args(arguments)
            .env("HUB", root().join("deploy/dev/hub.sh"))
            .env("DIR", &self.dir)
            .env("ADDRESS", &self.address)
            .env("OWN_NETWORK", if self.own_network { "yes" } else { "" })
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
    // Without a CA bundle: an error, not a panic.
    fs::remove_file(world.dir.join("root/etc/ssl/certs/ca-certificates.crt")).unwrap();
    let env = [&ecs[..], &[("DB_HOST", "hub-in-hosts"), ("PGSSLMODE", "verify-full")]].concat();
    let (code, stdout, stderr) = register("A", &env);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(
        stderr.contains("certificate verify failed")
            && stderr.contains("install the system's CA bundle"),
        "{stderr}"
    );
    assert!(
        stderr.contains("check the CA bundle (SSL_CERT_FILE) and the endpoint's certificate")
            && !stderr.contains("internal error"),
        "{stderr}"
    );
}
