//! doc/reference.md, "Environment": production. Verified TLS and IAM tokens against a real
//! PostgreSQL that hands the password to a directory server of the test's own (`ldap` in
//! pg_hba.conf).

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use crate::support::hub::Cluster;
use crate::support::relay::{Strike, When};
use crate::support::{Answer, Hub, Program, Relay, Ssm, certificates, eventually, python, root};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// Every password that PostgreSQL was given, as it came.
static PASSWORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Tls {
    cluster: Cluster,
    files: PathBuf,
}

static TLS: LazyLock<Tls> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("register-trust-{}-tls", std::process::id()));
    // Below the cluster's folder, which is removed at the end.
    let files = dir.join("files");
    fs::create_dir_all(&files).unwrap();
    certificates(&files, "DNS:localhost");
    let port = directory_server();
    let hba = "local all all scram-sha-256
host all hub 127.0.0.1/32 scram-sha-256
hostssl all +rds_iam 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport=PORT ldapprefix=\"cn=\" ldapsuffix=\",dc=hub\"
hostnossl all +rds_iam 127.0.0.1/32 password\n";
    fs::write(files.join("pg_hba.conf"), hba.replace("PORT", &port.to_string())).unwrap();
    let path = files.display();
    let options = format!(
        "-c fsync=off -c max_connections=200 -c hba_file={path}/pg_hba.conf -c ssl=on \
         -c ssl_cert_file={path}/server.crt -c ssl_key_file={path}/pg.key"
    );
    let mut cluster = Cluster::start(dir, &options);
    // DROP DATABASE signals every session; one that waits for the directory server takes that for a no.
    cluster.keeps_databases = true;
    let mut admin = cluster.connect("hub");
    admin
        .batch_execute("CREATE ROLE rds_iam; CREATE ROLE iam_user LOGIN IN ROLE rds_iam SUPERUSER")
        .unwrap();
    Tls { cluster, files }
});

/// Takes LDAP's simple bind (RFC 4511 section 4.2), notes the password, and says yes.
fn directory_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || accept_bind(stream));
        }
    });
    port
}

fn accept_bind(mut stream: TcpStream) {
    let mut bytes = vec![0; 8192];
    // Somebody may look whether the port is free.
    let Ok(read @ 1..) = stream.read(&mut bytes) else { return };
    let text = &bytes[..read];
    // A length takes one byte, or tells in it how many more.
    let body = |at: usize| at + if text[at] < 0x80 { 1 } else { 1 + usize::from(text[at] & 0x7f) };
    let id = text[body(1) + 2];
    // The password is the last element, with tag 0x80, behind the name.
    let tag = text.windows(6).position(|window| window == b"dc=hub").unwrap() + 6;
    assert_eq!(text[tag], 0x80);
    let password = String::from_utf8(text[body(tag + 1)..].to_vec()).unwrap();
    PASSWORDS.lock().unwrap().push(password);
    let _ = stream.write_all(&[0x30, 0x0c, 2, 1, id, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0]);
    // Unbind.
    let _ = stream.read(&mut bytes);
}

/// A hub that is reached over verified TLS.
pub fn hub() -> Hub {
    Hub::on(&TLS.cluster)
}

/// The program in production mode, with everything right.
pub fn production(hub: &Hub, arguments: &[&str]) -> Program {
    let program = hub.program(arguments).without("POSTGRES_PASSWORD").env("ENV", "production");
    program
        .env("DB_HOST", "localhost")
        .env("POSTGRES_USER", "iam_user")
        .env("PGSSLROOTCERT", TLS.files.join("ca.crt"))
        .env("AWS_REGION", "eu-west-2")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

/// The tokens that were given for this port.
fn tokens(port: u16) -> Vec<String> {
    let address = format!(":{port}/?");
    PASSWORDS.lock().unwrap().iter().filter(|token| token.contains(&address)).cloned().collect()
}

#[test]
fn a_trust_is_registered_over_verified_tls_with_a_token_whose_signature_aws_own_signer_confirms() {
    for session in [None, Some("a/session+token==")] {
        let mut hub = Hub::on(&TLS.cluster);
        let relay = Relay::to(&TLS.cluster);
        let mut program = production(&hub, &NEW).env("DB_PORT", relay.port().to_string());
        if let Some(session) = session {
            program = program.env("AWS_SESSION_TOKEN", session);
        }
        let run = program.run();
        hub.assert_registered(&run.full_kit());
        let tokens = tokens(relay.port());
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        let output = Command::new(python())
            .arg(root().join("tests/contract/iam_token.py"))
            .args([&tokens[0], "wJalrXUtnFEMI/K7MDENG+secret", session.unwrap_or_default()])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            tokens[0],
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!run.stderr.contains("X-Amz"), "{}", run.dump());
    }
}

#[test]
fn every_connection_gets_its_own_token_even_the_one_that_asks_for_the_outcome() {
    let mut hub = Hub::on(&TLS.cluster);
    let relay = Relay::to(&TLS.cluster).strike(When::Armed, Strike::Cut);
    let ssm = Ssm::new().script(&[Answer::Hold]);
    let program = ssm.serve(production(&hub, &NEW).arg("--out-ssm-parameter").arg("/kit"));
    let run = program.env("DB_PORT", relay.port().to_string()).spawn();
    eventually("the run delivers", || !ssm.requests().is_empty());
    relay.arm();
    // Another second, another signature.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ssm.release();
    run.wait().exits(0).prints("/kit\n");
    hub.assert_registered(&serde_json::from_str(&ssm.latest("/kit").unwrap()).unwrap());
    let tokens: HashSet<_> = tokens(relay.port()).into_iter().collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
}

#[test]
fn weak_modes_sockets_and_missing_settings_are_refused() {
    let mut hub = Hub::on(&TLS.cluster);
    for mode in ["disable", "prefer"] {
        let run = production(&hub, &NEW).env("PGSSLMODE", mode).run().fails();
        run.says(&format!("PGSSLMODE is \"{mode}\", not one of require, verify-ca, verify-full"));
    }
    let run = production(&hub, &NEW).env("DB_HOST", "/var/run/postgresql").run().fails();
    run.says("DB_HOST is \"/var/run/postgresql\", not a host that can be reached over TLS");
    production(&hub, &NEW).without("AWS_REGION").run().fails().says("AWS_REGION is not set");
    let run = production(&hub, &NEW)
        .env("PGSSLROOTCERT", "system")
        .env("PGSSLMODE", "require")
        .run()
        .fails();
    run.says("PGSSLROOTCERT is \"system\", not allowed below PGSSLMODE=verify-full");
    let run = production(&hub, &NEW)
        .without("AWS_ACCESS_KEY_ID")
        .env("HOME", "/nonexistent")
        .run()
        .fails();
    // The secret key alone is none.
    run.says("cannot sign the login to the hub: no AWS credentials (no variables, no profile and no container endpoint are set");
    let run = production(&hub, &NEW).without("AWS_SECRET_ACCESS_KEY").run().fails();
    run.says("no AWS credentials (AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY)");
    hub.assert_untouched();
}

#[test]
fn a_certificate_a_host_name_or_a_file_that_is_wrong_is_named_with_what_to_set() {
    let mut hub = Hub::on(&TLS.cluster);
    let relay = Relay::to(&TLS.cluster);
    let port = relay.port().to_string();
    let production =
        |hub: &Hub, arguments: &[&str]| production(hub, arguments).env("DB_PORT", port.as_str());
    let wrong =
        |variable: &str, value: &Path| production(&hub, &NEW).env(variable, value).run().fails();
    let run = wrong("PGSSLROOTCERT", &TLS.files.join("other.crt"));
    run.says("certificate verify failed").says("next: set PGSSLROOTCERT to a PEM file of the authorities that signed the hub's certificate (RDS: AWS's global-bundle.pem), or install the system's CA bundle");
    let run = wrong("DB_HOST", Path::new("127.0.0.1"));
    run.says("certificate verify failed: IP address mismatch")
        .says("next: set DB_HOST to a name that the hub's certificate holds");
    let run = wrong("PGSSLROOTCERT", &TLS.files.join("none.crt"));
    run.says("none.crt\" cannot be used: No such file or directory")
        .says("next: set PGSSLROOTCERT to a PEM file of the authorities that signed the hub's certificate");
    let run = wrong("PGSSLROOTCERT", &TLS.files.join("pg_hba.conf"));
    run.says("pg_hba.conf\" cannot be used: it holds no certificate")
        .says("next: set PGSSLROOTCERT to a PEM file");
    // Without a file of one's own the system's authorities count.
    let run = production(&hub, &NEW).without("PGSSLROOTCERT").run().fails();
    run.says("certificate verify failed").says("next: set PGSSLROOTCERT");
    let run = production(&hub, &NEW).env("PGSSLROOTCERT", "system").run().fails();
    run.says("certificate verify failed");
    let run = production(&hub, &NEW)
        .without("PGSSLROOTCERT")
        .env("SSL_CERT_FILE", "/none")
        .env("SSL_CERT_DIR", "/none")
        .run();
    run.fails()
        .says("SSL_CERT_FILE \"/none\" cannot be used: No such file or directory")
        .says("install the system's CA bundle");
    assert!(tokens(relay.port()).is_empty(), "a token was sent to a server that was not verified");
    hub.assert_untouched();
}

#[test]
fn tls_that_cannot_begin_is_told_from_a_certificate_that_is_wrong() {
    let mut hub = Hub::on(&TLS.cluster);
    let config = TLS.files.join("openssl.cnf");
    let provider =
        "openssl_conf = a\n[a]\nproviders = b\n[b]\nc = d\n[d]\nmodule = /none.so\nactivate = 1\n";
    fs::write(&config, provider).unwrap();
    let run = production(&hub, &NEW).env("OPENSSL_CONF", &config).run().fails();
    run.says("OpenSSL does not start: ")
        .says("; OPENSSL_CONF is set")
        .says("next: check TLS at the hub's database and OPENSSL_CONF, and run again");
    // Where it is only preferred, it is gone without; both reasons are told.
    let run = hub.program(&NEW).env("POSTGRES_USER", "nobody").run().fails();
    run.says("no encryption (SQLSTATE 28000); with TLS: no pg_hba.conf entry");
    // An endpoint of AWS that speaks no TLS.
    let program = production(&hub, &NEW).arg("--out-ssm-parameter").arg("/kit");
    let port = Hub::cluster().port();
    let program = program.env("AWS_ENDPOINT_URL_SSM", format!("https://127.0.0.1:{port}"));
    let run = program.env("AWS_CA_BUNDLE", TLS.files.join("ca.crt")).run().exits(1).prints("");
    run.says("the TLS handshake failed: ").says("next: check the endpoint, and run again");
    hub.assert_untouched();
}

#[test]
fn a_certificate_that_is_out_of_date_is_named_as_such() {
    let hub = Hub::on(&TLS.cluster);
    let path = TLS.files.display();
    let options = format!(
        "-c fsync=off -c ssl=on -c ssl_cert_file={path}/expired.crt -c ssl_key_file={path}/pg.key"
    );
    let dir = std::env::temp_dir().join(format!("register-trust-{}-expired", std::process::id()));
    let expired = Cluster::start(dir, &options);
    let program = production(&hub, &NEW).env("DB_PORT", expired.port().to_string());
    let run = program.run().fails().says("certificate verify failed: certificate has expired");
    run.says(
        "next: renew the certificate of the hub's database, or correct the clock of this host",
    );
}

#[test]
fn the_other_modes_have_libpqs_meanings() {
    let hub = Hub::on(&TLS.cluster);
    let run = |mode: &str, host: &str, file: &str| {
        let program = production(&hub, &NEW).env("PGSSLMODE", mode).env("DB_HOST", host);
        let program = match file {
            "" => program.without("PGSSLROOTCERT"),
            file => program.env("PGSSLROOTCERT", TLS.files.join(file)),
        };
        program.run().status.code()
    };
    assert_eq!(run("verify-ca", "127.0.0.1", "ca.crt"), Some(0));
    assert_eq!(run("verify-ca", "localhost", "other.crt"), Some(1));
    // With the system's authorities any host could show a certificate that passes.
    let program = production(&hub, &["--name", "B", "--code", "B"]).env("PGSSLMODE", "verify-ca");
    let refused = program.without("PGSSLROOTCERT").run().fails();
    refused
        .says("PGSSLMODE is verify-ca, and PGSSLROOTCERT names no file")
        .says("next: correct PGSSLROOTCERT and run again");
    assert_eq!(run("require", "127.0.0.1", ""), Some(0));
    assert_eq!(run("require", "127.0.0.1", "ca.crt"), Some(0));
    assert_eq!(run("require", "127.0.0.1", "other.crt"), Some(1));
    assert_eq!(run("verify-full", "localhost", "ca.crt"), Some(0));
    // In development, too.
    let own = |mode: &str, file: &str| {
        let program =
            hub.program(&["--name", "A"]).env("PGSSLMODE", mode).env("DB_HOST", "localhost");
        program.env("PGSSLROOTCERT", TLS.files.join(file)).run().status.code()
    };
    assert_eq!(own("verify-full", "ca.crt"), Some(0));
    assert_eq!(own("verify-full", "other.crt"), Some(1));
    assert_eq!(own("prefer", "other.crt"), Some(0));
    let mut watched = hub.session();
    watched.batch_execute("CREATE TABLE seen (ssl boolean); CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO seen SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid(); RETURN NEW; END $$;
        CREATE TRIGGER see AFTER INSERT ON trust FOR EACH ROW EXECUTE FUNCTION see()").unwrap();
    hub.program(&["--name", "B", "--code", "B"]).run().full_kit();
    assert!(
        watched.query_one("SELECT bool_and(ssl) FROM seen", &[]).unwrap().get::<_, bool>(0),
        "prefer did not use TLS"
    );
}

#[test]
fn a_server_without_tls_gets_no_token_in_any_mode() {
    let mut hub = Hub::new();
    let seen = Relay::new();
    for mode in ["require", "verify-ca", "verify-full"] {
        let program =
            production(&hub, &NEW).env("PGSSLMODE", mode).env("DB_PORT", seen.port().to_string());
        program
            .run()
            .fails()
            .says("the server does not support TLS")
            .says("next: turn on TLS at the hub's database");
    }
    // The request for TLS, and nothing after it.
    assert_eq!(seen.questions(), 3);
    hub.assert_untouched();
}

#[test]
fn the_slot_names_come_from_ssm_when_no_slot_is_free_and_only_then() {
    let mut hub = Hub::on(&TLS.cluster);
    let ssm = Ssm::new();
    ssm.store("/flip/fl_kit_slot_names", r#"["Trust_11", "Trust_12"]"#);
    let register = |hub: &Hub, name: &str| {
        ssm.serve(production(hub, &["--name", name, "--code", "X"]))
            .env("FL_KIT_SLOT_NAMES", r#"["Trust_99"]"#)
            .run()
    };
    register(&hub, "A").full_kit();
    assert!(ssm.requests().is_empty(), "the names were read though a slot was free");
    hub.execute("DELETE FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL");
    assert_eq!(register(&hub, "B").full_kit()[0]["fl_kit_slot"], "Trust_11");
    let (head, body) = &ssm.requests()[0];
    assert!(head.contains("amazonssm.getparameter"), "{head}");
    assert_eq!(body["Name"], "/flip/fl_kit_slot_names");
    assert_eq!(
        hub.count("fl_kit_slot WHERE slot_name = 'Trust_12' AND assigned_to_trust_id IS NULL"),
        1
    );
}

#[test]
fn slot_names_that_cannot_be_read_from_ssm_are_logged_with_what_to_run_and_count_as_none() {
    let mut hub = Hub::on(&TLS.cluster);
    hub.execute("DELETE FROM fl_kit_slot");
    let fails = |ssm: Ssm| {
        let run = ssm
            .serve(production(&hub, &NEW))
            .run()
            .fails()
            .says("no free FL kit slot: all are taken");
        let run =
            run.says("WARNING no slot names from the SSM parameter /flip/fl_kit_slot_names: ");
        run.says("add their slot names to the SSM parameter /flip/fl_kit_slot_names")
    };
    fails(Ssm::new())
        .says("ParameterNotFound")
        .says("create it: aws ssm put-parameter --type String --value '[\"Trust_1\"]' --name /flip/fl_kit_slot_names");
    let denied =
        Answer::Refuse(400, "AccessDeniedException", "not authorized to perform: ssm:GetParameter");
    fails(Ssm::new().script(&[denied]))
        .says("not authorized")
        .says("ssm:GetParameter on the slot names");
    let malformed = Ssm::new();
    malformed.store("/flip/fl_kit_slot_names", "Trust_1,Trust_2");
    fails(malformed).says("it is not a JSON list of strings");
    hub.assert_untouched();
}
