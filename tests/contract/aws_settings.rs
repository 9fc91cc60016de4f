//! doc/reference.md, "Environment": AWS's variables and files as every AWS SDK reads them, and what
//! is not supported named as such.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use crate::support::hub::Cluster;
use crate::support::not_run::not_run;
use crate::support::run::PROGRAM;
use crate::support::{Hub, Program, Run, Ssm, certificates};

/// It fails for want of a database, and leaves its verdict in SSM: no kit goes anywhere.
const VERDICT: [&str; 6] = ["--name", "A", "--code", "X", "--out-ssm-parameter", "/kit"];

fn verdict() -> Program {
    Program::new(&VERDICT).env("POSTGRES_USER", "x")
}

fn keys(program: Program) -> Program {
    program.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "x")
}

/// Runs the program without any network, so that it names the host that it cannot find.
fn without_network(program: Program) -> Option<String> {
    let call = program.command();
    let mut around = Command::new("unshare");
    around.arg(if Cluster::is_root() { "-n" } else { "-rn" }).arg(PROGRAM).args(call.get_args());
    around.env_clear().envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = around.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (!stderr.contains("unshare failed")).then_some(stderr)
}

#[test]
fn each_region_is_asked_at_the_host_of_its_own_partition() {
    let cases = [
        ("eu-west-2", "", "ssm.eu-west-2.amazonaws.com"),
        ("eu-west-2", "FIPS", "ssm-fips.eu-west-2.amazonaws.com"),
        ("eu-west-2", "DUALSTACK", "ssm.eu-west-2.api.aws"),
        ("ca-central-1", "FIPS DUALSTACK", "ssm-fips.ca-central-1.api.aws"),
        ("us-gov-west-1", "", "ssm.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", "FIPS", "ssm.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", "FIPS DUALSTACK", "ssm-fips.us-gov-west-1.api.aws"),
        ("cn-north-1", "", "ssm.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", "DUALSTACK", "ssm.cn-north-1.api.amazonwebservices.com.cn"),
        ("us-iso-east-1", "", "ssm.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "", "ssm.us-isob-east-1.sc2s.sgov.gov"),
        ("us-isof-south-1", "", "ssm.us-isof-south-1.csp.hci.ic.gov"),
        ("eu-isoe-west-1", "", "ssm.eu-isoe-west-1.cloud.adc-e.uk"),
        ("eusc-de-east-1", "", "ssm.eusc-de-east-1.amazonaws.eu"),
    ];
    let runs = cases.map(|(region, flags, host)| {
        thread::spawn(move || {
            let mut program = keys(verdict()).env("AWS_DEFAULT_REGION", region);
            for flag in flags.split_whitespace() {
                program = program.env(&format!("AWS_USE_{flag}_ENDPOINT"), "True");
            }
            (without_network(program), host)
        })
    });
    for run in runs {
        let (stderr, host) = run.join().unwrap();
        let Some(stderr) = stderr else {
            return not_run(
                "the host that each AWS region is asked at (needs a network namespace)",
            );
        };
        assert!(stderr.contains(&format!("cannot find {host}:")), "{host}: {stderr}");
    }
}

#[test]
fn the_region_comes_from_aws_region_and_else_from_aws_default_region() {
    for (region, default, signed) in
        [("eu-west-2", "us-east-1", "eu-west-2"), ("", "us-east-1", "us-east-1")]
    {
        let ssm = Ssm::new();
        let program = ssm.serve(verdict()).env("AWS_REGION", region);
        program.env("AWS_DEFAULT_REGION", default).run().exits(1).prints("/kit\n");
        assert!(ssm.requests()[0].0.contains(&format!("/{signed}/ssm/aws4_request")));
    }
    let run = keys(verdict()).run().exits(1).prints("").says("AWS_REGION is not set");
    run.says("the verdict [] could not be left");
}

#[test]
fn an_endpoint_with_user_information_is_refused_and_not_repeated() {
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM"] {
        for url in ["http://me:hunter2@127.0.0.1:9", "https://hunter2@x", "hunter2@x"] {
            let program = keys(verdict()).env("AWS_REGION", "eu-west-2").env(variable, url);
            let run = program.run().exits(1).prints("").says(variable);
            run.never_says("hunter2").says("user name or a password");
        }
    }
}

#[test]
fn what_does_not_go_together_or_cannot_be_read_is_refused_by_name() {
    for (variable, value) in [
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "TRUE"),
        ("AWS_USE_FIPS_ENDPOINT", "yes"),
        ("AWS_ENDPOINT_URL_SSM", "ssm.example"),
        ("AWS_ENDPOINT_URL_SSM", "http://host/path"),
        ("AWS_ENDPOINT_URL_SSM", "http://"),
        ("AWS_REGION", "eu-west-2.evil.example/"),
    ] {
        let ssm = Ssm::new();
        let run = ssm.serve(verdict()).env(variable, value).run().exits(1).prints("");
        run.says(variable);
        assert!(ssm.requests().is_empty());
    }
    // A configured endpoint that is to be ignored is.
    let ssm = Ssm::new();
    let program = ssm.serve(verdict()).env("AWS_REGION", "nowhere-1");
    if let Some(stderr) =
        without_network(program.env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"))
    {
        assert!(stderr.contains("cannot find ssm.nowhere-1.amazonaws.com"), "{stderr}");
    }
}

#[test]
fn a_proxy_that_is_not_used_is_named_where_aws_cannot_be_reached() {
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let program = keys(verdict()).env("AWS_REGION", "eu-west-2").env(variable, "http://p:1");
        let run = program.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").run().exits(1);
        run.says(&format!("{variable} is set, but proxies are not supported"));
    }
}

/// What is asked without a signature, by method and path, and answered from this list.
type Asked = Arc<Mutex<Vec<String>>>;

fn metadata(answers: &[(&str, &str)]) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers: HashMap<String, String> =
        answers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let asked = Asked::default();
    let noted = asked.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let Ok(read) = stream.read(&mut bytes) else { continue };
            let head = String::from_utf8_lossy(&bytes[..read]).to_lowercase();
            let line = head.lines().next().unwrap_or_default().replace(" http/1.1", "");
            let (status, text) = match answers.get(&line) {
                Some(text) => (200, text.as_str()),
                None => (404, ""),
            };
            noted.lock().unwrap().push(head);
            let length = text.len();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}");
        }
    });
    (url, asked)
}

const ROLE: &str =
    "{\"AccessKeyId\":\"AKIDROLE\",\"SecretAccessKey\":\"s\",\"Token\":\"the-token\"}";

/// Without keys in variables and without a home.
fn keyless(ssm: &Ssm) -> Program {
    let program = ssm.serve(verdict()).without("AWS_EC2_METADATA_DISABLED");
    program.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY")
}

#[track_caller]
fn assert_signed_by(ssm: &Ssm, id: &str, run: &Run) {
    let requests = ssm.requests();
    assert_eq!(requests.len(), 1, "{}", run.dump());
    assert!(requests[0].0.contains(&format!("credential={id}/").to_lowercase()), "{}", run.dump());
}

#[test]
fn an_instance_is_asked_for_its_role_by_metadata_version_2() {
    let path = "/latest/meta-data/iam/security-credentials/";
    let (url, asked) = metadata(&[
        ("put /latest/api/token", "a-session"),
        (&format!("get {path}"), "my-role"),
        (&format!("get {path}my-role"), ROLE),
    ]);
    for slash in ["", "/"] {
        let ssm = Ssm::new();
        let program =
            keyless(&ssm).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("{url}{slash}"));
        let run = program.run().exits(1).prints("/kit\n");
        assert_signed_by(&ssm, "AKIDROLE", &run);
        assert!(ssm.requests()[0].0.contains("x-amz-security-token: the-token"));
    }
    let asked = asked.lock().unwrap();
    assert!(asked[0].contains("x-aws-ec2-metadata-token-ttl-seconds: "), "{asked:?}");
    assert!(asked[1..3].iter().all(|head| head.contains("x-aws-ec2-metadata-token: a-session")));
    // Version 1, which asks for no token first, is not fallen back to.
    let (url, asked) = metadata(&[(&format!("get {path}"), "r"), (&format!("get {path}r"), ROLE)]);
    let ssm = Ssm::new();
    let run = keyless(&ssm).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", url).run().exits(1).prints("");
    run.says("no AWS credentials").says("HTTP 404");
    assert!(ssm.requests().is_empty());
    assert!(asked.lock().unwrap().iter().all(|head| head.starts_with("put ")));
}

#[test]
fn a_container_is_asked_with_its_authorization_and_only_on_its_own_host() {
    let (url, asked) = metadata(&[("get /creds", ROLE)]);
    let ssm = Ssm::new();
    let program = keyless(&ssm).env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer abc");
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let run = program.env(full, format!("{url}/creds")).run().exits(1).prints("/kit\n");
    assert_signed_by(&ssm, "AKIDROLE", &run);
    assert!(asked.lock().unwrap()[0].contains("authorization: bearer abc"));
    for (variable, value) in [
        (full, "http://192.0.2.1/creds"),
        (full, "http://127.0.0.1@192.0.2.1/creds"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@192.0.2.1/creds"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ".evil.example/creds"),
    ] {
        let ssm = Ssm::new();
        let run = keyless(&ssm).env(variable, value).run().exits(1).prints("");
        run.says("no AWS credentials").says("an address of this host");
    }
}

/// The run with these two files as its profile.
fn with_profile(config: &str, credentials: &str, profile: Option<&str>) -> (Ssm, Run) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let home = std::env::temp_dir().join(format!("aws-home-{}-{number}", std::process::id()));
    fs::create_dir_all(home.join(".aws")).unwrap();
    fs::write(home.join(".aws/config"), config).unwrap();
    fs::write(home.join(".aws/credentials"), credentials).unwrap();
    let ssm = Ssm::new();
    let program = keyless(&ssm).env("HOME", &home).env("AWS_EC2_METADATA_DISABLED", "true");
    let run = profile.into_iter().fold(program, |it, name| it.env("AWS_PROFILE", name)).run();
    fs::remove_dir_all(home).unwrap();
    (ssm, run.exits(1))
}

fn section(name: &str, id: &str) -> String {
    format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key=s=s\n")
}

#[test]
fn static_keys_of_a_profile_are_read_as_the_sdks_read_them() {
    let (mine, other) = (section("default", "AKIDMINE"), section("other", "AKIDOTHER"));
    let long = section("profile other", "AKIDOTHER");
    for (config, credentials, profile, id) in [
        ("", mine.clone(), None, "AKIDMINE"),
        (&*mine, String::new(), None, "AKIDMINE"),
        (&section("default", "AKIDX"), mine.clone(), None, "AKIDMINE"),
        ("", mine.clone() + &other, Some("other"), "AKIDOTHER"),
        (&long, mine.clone(), Some("other"), "AKIDOTHER"),
        // What stands behind a section's name is no part of it, and ends the section before.
        ("", mine.clone() + &other.replace("]", "] # old"), None, "AKIDMINE"),
        ("", other.replace("]", "] ; x") + &mine, Some("other"), "AKIDOTHER"),
        ("", mine.replace('\n', "\r\n") + &other, None, "AKIDMINE"),
        ("", format!("# [other]\n{mine}  s3 = x\n  aws_access_key_id = no\n"), None, "AKIDMINE"),
        ("", format!("{mine}aws_session_token =\n"), None, "AKIDMINE"),
    ] {
        let (ssm, run) = with_profile(config, &credentials, profile);
        assert_signed_by(&ssm, id, &run);
        assert!(!ssm.requests()[0].0.contains("x-amz-security-token"), "{}", run.dump());
    }
}

#[test]
fn what_would_lead_the_sdks_elsewhere_is_named_and_nothing_is_sent() {
    let mine = section("default", "AKIDMINE");
    let keys = "role_arn sso_session sso_start_url credential_process endpoint_url services \
                use_fips_endpoint use_dualstack_endpoint ca_bundle";
    for key in keys.split(' ') {
        for keys in ["[default]\n", &mine] {
            let (ssm, run) = with_profile(&format!("{keys}{key} = x\n"), "", None);
            run.prints("").says("no AWS credentials").says(key).says("not supported");
            assert!(ssm.requests().is_empty());
        }
    }
    let (ssm, run) = with_profile("", &mine, Some("nobody"));
    run.prints("").says("AWS_PROFILE is \"nobody\"");
    assert!(ssm.requests().is_empty());
    for variable in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID"] {
        let ssm = Ssm::new();
        keyless(&ssm).env(variable, "x").run().exits(1).prints("").says(variable);
        assert!(ssm.requests().is_empty());
    }
    let ssm = Ssm::new();
    let program = keyless(&ssm).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/");
    let variable = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    program.env(variable, "/x").run().exits(1).prints("").says(variable);
}

#[test]
fn production_over_plain_http_is_warned_of_unless_it_meets_no_network() {
    let hub = Hub::new();
    let warning = "WARNING the endpoint of SSM is plain http";
    for (url, warns) in [
        ("http://ssm.example", true),
        ("http://192.0.2.1:8080", true),
        ("http://127.0.0.1:9", false),
        ("http://localhost:9", false),
        ("http://[::1]:9", false),
        ("https://ssm.example", false),
    ] {
        let program = keys(hub.program(&["--name", "A", "--code", "X"])).env("ENV", "production");
        let program = program.env("DB_PORT", "1").env("PGSSLMODE", "require");
        let run = program.env("AWS_REGION", "eu-west-2").env("AWS_ENDPOINT_URL", url).run().fails();
        assert_eq!(run.stderr.contains(warning), warns, "{url}{}", run.dump());
    }
}

#[test]
fn authorities_of_aws_are_those_that_aws_ca_bundle_names() {
    let dir = std::env::temp_dir().join(format!("aws-ca-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    certificates(&dir, "DNS:localhost");
    let server = dir.join("server");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut acceptor =
        openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls()).unwrap();
    let pem = openssl::ssl::SslFiletype::PEM;
    acceptor.set_certificate_file(server.with_extension("crt"), pem).unwrap();
    acceptor.set_private_key_file(server.with_extension("key"), pem).unwrap();
    let acceptor = acceptor.build();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            let _ = stream.read(&mut [0; 8192]);
            let _ = write!(stream, "HTTP/1.1 200 X\r\ncontent-length: 13\r\n\r\n{{\"Version\":1}}");
        }
    });
    let run = |bundle: &str| {
        let program = keys(verdict()).env("AWS_REGION", "eu-west-2");
        let program = program.env("AWS_ENDPOINT_URL", format!("https://localhost:{port}"));
        program.env("AWS_CA_BUNDLE", bundle).run().exits(1)
    };
    run(dir.join("ca.crt").to_str().unwrap()).prints("/kit\n");
    run("").prints("").says("certificate verify failed");
    run(dir.join("server.key").to_str().unwrap()).prints("").says("AWS_CA_BUNDLE");
    run("/nonexistent").prints("").says("AWS_CA_BUNDLE");
    fs::remove_dir_all(dir).unwrap();
}
