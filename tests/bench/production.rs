//! Production's rows: verified TLS to the hub, SSM over https, credentials from a container endpoint.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use crate::measure::{Commands, Make, Measured, cost, interleave};
use crate::rivals::Rivals;
use crate::support::hub::Cluster;
use crate::support::{Hub, Relay, Ssm, certificates, root};
use crate::{FREE, fresh, hub, refill, table};

/// As many as Debian's `ca-certificates` has.
const AUTHORITIES: usize = 144;

/// The network's round trips, in ms; the last one is long enough to count them on.
const WIRES: [u64; 2] = [1, 10];

/// Registrations, by what is different.
const NONE: &str = "no TLS";
const ONE_ROOT: &str = "verify-full, one root";
const BUNDLE: &str = "verify-full, bundle";
const HTTP: &str = "no TLS, SSM over http";
const HTTPS_ONE_ROOT: &str = "verify-full + https SSM, one root";
const HTTPS_FOLDER: &str = "verify-full + https SSM, hashed folder";
const HTTPS_BUNDLE: &str = "verify-full + https SSM, one bundle for both";
const HTTPS_BUNDLES: &str = "verify-full + https SSM, a bundle for each";
const PRODUCTION: &str = "the same with a token and a container's credentials";
const PSQL: [&str; 3] =
    ["psql: no TLS", "psql: verify-full, one root", "psql: verify-full, bundle"];

/// Where the servers are.
struct Ports {
    hub: u16,
    http: u16,
    https: u16,
}

struct Production<'a> {
    hub: &'a Hub,
    rivals: &'a Rivals,
    files: PathBuf,
    container: u16,
}

/// The tables, and the rows of the table of targets: what, its value, and the most it may be.
pub fn production(
    dir: &Path,
    rivals: &Rivals,
    samples: usize,
) -> (String, Vec<(&'static str, f64, f64)>) {
    // Where the server's user can read them.
    let files = std::env::temp_dir().join(format!("register-trust-bench-{}", std::process::id()));
    let cluster = Box::leak(Box::new(secure_cluster(&dir.with_extension("secure"), &files)));
    let hub = hub(cluster, rivals, 10, false);
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key_file(files.join("server.key"), SslFiletype::PEM).unwrap();
    acceptor.set_certificate_chain_file(files.join("server.crt")).unwrap();
    let (http, https) = (Ssm::new(), Ssm::with_tls(acceptor.build()));
    let container = container_endpoint();
    let ours = Production { hub: &hub, rivals, files, container };
    let mut session = hub.session();

    let near =
        Ports { hub: cluster.port(), http: http.address().port(), https: https.address().port() };
    let commands = ours.commands(&near);
    let measured = interleave(samples, &commands, || refill(&mut session, FREE));
    let wires = WIRES.map(|ms| {
        let to = |ssm| Relay::to(cluster).and_to(ssm).late(Duration::from_millis(ms));
        (to(&http), to(&https))
    });
    let ports = |(http, https): &(Relay, Relay)| Ports {
        hub: http.port(),
        http: http.ssm_port(),
        https: https.ssm_port(),
    };
    let late = wires.each_ref().map(|wire| {
        let commands = ours.commands(&ports(wire));
        interleave(samples.div_ceil(10), &commands, || refill(&mut session, FREE))
    });
    let [.., slowest] = &wires;
    let counted = ours.commands(&ports(slowest));
    let mut most_memory: f64 = 0.0;
    let mut rows = Vec::new();
    for ((label, make), (_, count)) in commands.iter().zip(&counted) {
        refill(&mut session, FREE);
        assert!(count().output().unwrap().status.success());
        let (login, after) = slowest.0.round_trips();
        let ssm = if label.contains("https") || *label == PRODUCTION {
            slowest.1.ssm_round_trips().to_string()
        } else if *label == HTTP {
            slowest.0.ssm_round_trips().to_string()
        } else {
            "–".to_owned()
        };
        let cost = cost(samples.div_ceil(2), make, || refill(&mut session, FREE));
        if !PSQL.contains(label) {
            most_memory = most_memory.max(cost.peak);
        }
        let times = &measured[label];
        let late = late.each_ref().map(|at| format!("{:.0}", at[label].median()));
        rows.push(format!(
            "{label} | {:.1} | {} | {cost} | {} | {ssm} | {}",
            times.median(),
            times.spread(),
            login + after,
            late.join(" | ")
        ));
    }
    let head = "production | median ms | p10 – p90 | user + system ms | peak MiB | trips to the hub | to SSM | 1 ms | 10 ms";
    let tables = format!("{}\n{}", table(head, rows), ours.steps(&measured));
    let median = |label: &str| measured[label].median();
    let targets = vec![
        ("verify-full with one root ÷ no TLS", median(ONE_ROOT) / median(NONE), 1.6),
        (
            "verify-full + https SSM, bundle ÷ no TLS, http SSM (the goal is 4)",
            median(HTTPS_BUNDLE) / median(HTTP),
            7.0,
        ),
        ("peak memory in production, MiB", most_memory, 16.0),
    ];
    fs::remove_dir_all(&ours.files).unwrap();
    (tables, targets)
}

impl Production<'_> {
    fn commands(&self, ports: &Ports) -> Commands<'_> {
        let [one_root, bundle, folder] =
            ["ca.crt", "bundle.crt", "authorities"].map(|name| self.files.join(name));
        let (root, file, dir) = ("PGSSLROOTCERT", "SSL_CERT_FILE", "SSL_CERT_DIR");
        let http = format!("http://localhost:{}", ports.http);
        let https = format!("https://localhost:{}", ports.https);
        let container = format!("http://127.0.0.1:{}/", self.container);
        let hub = ports.hub;
        let stdout = |label, mode, env: &[(&'static str, &PathBuf)]| {
            (label, self.program(hub, mode, None, owned(env)))
        };
        let ssm = |label, mode, url: &String, env: &[(&'static str, &PathBuf)]| {
            (label, self.program(hub, mode, Some(url.clone()), owned(env)))
        };
        let production = self.program(
            hub,
            "verify-full",
            Some(https.clone()),
            owned(&[(root, &bundle), (file, &bundle)]),
        );
        let production: Make = Box::new(move || {
            let mut command = production();
            for key in ["POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
                command.env_remove(key);
            }
            command.env("ENV", "production").env("POSTGRES_USER", "iam_user");
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container);
            command
        });
        let [psql, psql_one_root, psql_bundle] = PSQL;
        vec![
            stdout(NONE, "disable", &[]),
            stdout(ONE_ROOT, "verify-full", &[(root, &one_root)]),
            stdout(BUNDLE, "verify-full", &[(root, &bundle)]),
            ssm(HTTP, "disable", &http, &[]),
            ssm(HTTPS_ONE_ROOT, "verify-full", &https, &[(file, &one_root)]),
            ssm(HTTPS_FOLDER, "verify-full", &https, &[(dir, &folder)]),
            ssm(HTTPS_BUNDLE, "verify-full", &https, &[(file, &bundle)]),
            ssm(HTTPS_BUNDLES, "verify-full", &https, &[(root, &bundle), (file, &bundle)]),
            (PRODUCTION, production),
            (psql, self.psql(hub, "disable", &one_root)),
            (psql_one_root, self.psql(hub, "verify-full", &one_root)),
            (psql_bundle, self.psql(hub, "verify-full", &bundle)),
        ]
    }

    /// A registration, to stdout or into SSM.
    fn program(
        &self,
        port: u16,
        mode: &'static str,
        ssm: Option<String>,
        env: Vec<(&'static str, PathBuf)>,
    ) -> Make<'_> {
        Box::new(move || {
            let mut program = self.hub.program(&["--name", &fresh(), "--code", "NEW"]);
            program = program.env("DB_HOST", "localhost").env("DB_PORT", port.to_string());
            program = program.env("PGSSLMODE", mode);
            for (key, value) in &env {
                program = program.env(key, value);
            }
            if let Some(url) = &ssm {
                program = program.arg("--out-ssm-parameter").arg("/bench");
                program = program.env("AWS_ENDPOINT_URL", url).env("AWS_REGION", "eu-west-2");
                program = program.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
                program = program.env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-secret");
            }
            program.command()
        })
    }

    fn psql(&self, port: u16, mode: &'static str, root: &Path) -> Make<'_> {
        let (make, root) = (self.rivals.psql_script(self.hub, port, true), root.to_owned());
        Box::new(move || {
            let mut command: Command = make();
            command.env("PGHOST", "localhost").env("PGSSLMODE", mode).env("PGSSLROOTCERT", &root);
            command
        })
    }

    /// What each step adds: differences of medians.
    fn steps(&self, measured: &Measured) -> String {
        let more = |with: &str, without: &str| measured[with].median() - measured[without].median();
        let pem = fs::read(self.files.join("bundle.crt")).unwrap();
        let mut read: Vec<_> = (0..21).map(|_| read_bundle(&pem)).collect();
        read.sort_by(f64::total_cmp);
        let (alone, put) = (read[10], more(HTTP, NONE));
        let bundle = format!("a bundle of {AUTHORITIES} certificates in place of one root");
        let rows = [
            ("TLS with the hub, one root".to_owned(), more(ONE_ROOT, NONE)),
            (bundle.clone(), more(BUNDLE, ONE_ROOT)),
            ("OpenSSL alone, reading that bundle".to_owned(), alone),
            ("a put into SSM over http".to_owned(), put),
            ("TLS with SSM, one root".to_owned(), more(HTTPS_ONE_ROOT, ONE_ROOT) - put),
            (format!("{bundle}, for both"), more(HTTPS_BUNDLE, HTTPS_ONE_ROOT)),
            (
                "a hashed folder in place of one root, for both".to_owned(),
                more(HTTPS_FOLDER, HTTPS_ONE_ROOT),
            ),
            ("a second bundle".to_owned(), more(HTTPS_BUNDLES, HTTPS_BUNDLE)),
            (
                "a token and a container's credentials in place of a password".to_owned(),
                more(PRODUCTION, HTTPS_BUNDLES),
            ),
        ];
        table("step | adds ms", rows.map(|(step, ms)| format!("{step} | {ms:.1}")))
    }
}

fn owned(env: &[(&'static str, &PathBuf)]) -> Vec<(&'static str, PathBuf)> {
    env.iter().map(|(key, value)| (*key, (*value).clone())).collect()
}

/// How long OpenSSL reads a bundle as src/tls.rs has it read, in ms.
fn read_bundle(pem: &[u8]) -> f64 {
    let start = Instant::now();
    let mut store = X509StoreBuilder::new().unwrap();
    let authorities = X509::stack_from_pem(pem).unwrap();
    assert_eq!(authorities.len(), AUTHORITIES);
    authorities.into_iter().for_each(|authority| store.add_cert(authority).unwrap());
    start.elapsed().as_secs_f64() * 1e3
}

/// A server with TLS, where `iam_user` logs in by any password that is sent over it.
fn secure_cluster(dir: &Path, files: &Path) -> Cluster {
    fs::create_dir_all(files).unwrap();
    certificates(files, "DNS:localhost");
    let script = root().join("tests/bench/certificates.sh");
    let made = Command::new("sh").arg(script).arg(files).arg(AUTHORITIES.to_string()).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let hba = format!(
        "local all all scram-sha-256
host all hub 127.0.0.1/32 scram-sha-256
hostssl all iam_user 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={} ldapprefix=\"cn=\" ldapsuffix=\",dc=hub\"\n",
        directory_server()
    );
    fs::write(files.join("pg_hba.conf"), hba).unwrap();
    let path = files.display();
    let options = format!(
        "-c max_connections=200 -c hba_file={path}/pg_hba.conf -c ssl=on \
         -c ssl_cert_file={path}/server.crt -c ssl_key_file={path}/pg.key"
    );
    let cluster = Cluster::start(dir.to_owned(), &options);
    let role = "CREATE ROLE iam_user LOGIN SUPERUSER";
    cluster.connect("postgres").batch_execute(role).unwrap();
    cluster
}

/// Says yes to LDAP's first bind (RFC 4511, section 4.2).
fn directory_server() -> u16 {
    answer(|bytes| {
        (!bytes.is_empty()).then(|| vec![0x30, 0x0c, 2, 1, 1, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0])
    })
}

/// Gives out a task's credentials, as ECS does.
fn container_endpoint() -> u16 {
    let body = format!(
        r#"{{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","Token":"{}","Expiration":"2099-01-01T00:00:00Z"}}"#,
        "token".repeat(200)
    );
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    answer(move |bytes| {
        bytes.ends_with(b"\r\n\r\n").then(|| [head.as_bytes(), body.as_bytes()].concat())
    })
}

/// A server that gives each connection one answer, once the question is complete.
fn answer(to: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut question, mut chunk) = (Vec::new(), [0; 8192]);
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                question.extend_from_slice(&chunk[..read]);
                if let Some(answer) = to(&question) {
                    let _ = stream.write_all(&answer);
                    // The client leaves first.
                    let _ = stream.read(&mut chunk);
                    break;
                }
            }
        }
    });
    port
}
