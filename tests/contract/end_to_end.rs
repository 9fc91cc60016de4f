//! Once with real clients: moto's server as SSM, boto3 reading the kit back with decryption.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{Hub, python, root};

/// A moto server; stopped at the end.
pub struct Moto(Child, pub String);

impl Moto {
    pub fn start() -> Moto {
        let mut child = Command::new(python())
            .arg(root().join("tests/contract/moto_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.trim().is_empty(), "moto's server did not start");
        Moto(child, format!("http://127.0.0.1:{}", port.trim()))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn boto3(endpoint: &str, code: &str) -> String {
    let code = format!(
        "import boto3\nssm = boto3.client('ssm', region_name='eu-west-2', endpoint_url='{endpoint}')\n{code}"
    );
    let output = Command::new(python())
        .args(["-c", &code])
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn boto3_reads_the_kit_back_from_moto_and_its_key_has_the_rows_hash() {
    let moto = Moto::start();
    let mut hub = Hub::new();
    let register = |hub: &Hub, code: &str| {
        hub.program(&[
            "--name",
            "Guy's \u{e9}",
            "--code",
            code,
            "--out-ssm-parameter",
            "/flip/trust-kits/ephemeral/1",
        ])
        .env("AWS_REGION", "eu-west-2")
        .env("AWS_ENDPOINT_URL", moto.1.as_str())
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AES_KEY_BASE64", "c2VjcmV0")
        .run()
    };
    register(&hub, "GSTT").exits(0).prints("/flip/trust-kits/ephemeral/1\n");
    let read = "p = ssm.get_parameter(Name='/flip/trust-kits/ephemeral/1', WithDecryption=True)['Parameter']
print(p['Type'], p['Version'], p['Value'])";
    let answer = boto3(&moto.1, read);
    // A put that was tried again counts twice.
    let (version, kit) = answer.strip_prefix("SecureString ").unwrap().split_once(' ').unwrap();
    let version: u32 = version.parse().unwrap();
    let kit: serde_json::Value = serde_json::from_str(kit).unwrap();
    assert_eq!(kit[0]["hub_shared"]["AES_KEY_BASE64"], "c2VjcmV0");
    hub.assert_registered(&kit);

    // Read without decryption it is no kit.
    let raw = boto3(
        &moto.1,
        "print(ssm.get_parameter(Name='/flip/trust-kits/ephemeral/1')['Parameter']['Value'])",
    );
    assert!(!raw.starts_with("[{"), "{raw}");

    register(&hub, "GSTT").exits(0).says("can still be read as /flip/trust-kits/ephemeral/1:");
    let again = boto3(&moto.1, read);
    let (later, kit) = again.strip_prefix("SecureString ").unwrap().split_once(' ').unwrap();
    assert!(later.parse::<u32>().unwrap() > version && kit.starts_with("[{"), "{again}");
}
