//! README, "Try it": the Makefile's targets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{Hub, lay_checkout};

/// A checkout of its own with the built program in its place, so that nothing of the
/// developer's is touched.
struct Checkout(PathBuf);

impl Checkout {
    fn new(name: &str) -> Checkout {
        let dir = std::env::temp_dir().join(format!("checkout-{name}-{}", std::process::id()));
        lay_checkout(&dir);
        Checkout(dir)
    }

    fn make(&self, target: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new("make");
        command.arg("-C").arg(&self.0).arg("--no-print-directory").args(target);
        command.env_clear().envs(std::env::vars().filter(|(key, _)| {
            ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME"].contains(&key.as_str())
        }));
        command.envs(env.iter().copied()).output().unwrap()
    }

    fn kit(&self, name: &str) -> serde_json::Value {
        let path = self.0.join("kits").join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.make(&["clean"], &[]);
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_development_hub_is_started_and_the_kit_left_in_a_file_of_its_owner() {
    let checkout = Checkout::new("embedded");
    let first = checkout.make(&["register-trust-1"], &[]);
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("kits/trust-1.json"), "{}", text(&first));
    let kit = checkout.kit("trust-1.json");
    assert!(kit[0]["trust_api_key"].is_string());
    assert!(
        !text(&first).contains(kit[0]["trust_api_key"].as_str().unwrap()),
        "the key is on the terminal"
    );

    // Again: the skip. The kit with the credentials stays.
    let again = checkout.make(&["register-trust-1"], &[]);
    assert!(
        again.status.success() && text(&again).contains("already registered"),
        "{}",
        text(&again)
    );
    assert_eq!(checkout.kit("trust-1.json"), kit);
    assert_eq!(checkout.kit("trust-1.metadata.json")[0]["trust_id"], kit[0]["trust_id"]);

    let sync = checkout.make(&["sync-trust-kit-1"], &[("DOCKER_TAG", "v9")]);
    assert!(sync.status.success(), "{}", text(&sync));
    assert_eq!(checkout.kit("trust-1.metadata.json")[0]["hub_shared"]["DOCKER_TAG"], "v9");
    assert_eq!(checkout.kit("trust-1.json"), kit);

    let unknown = checkout.make(&["sync-trust-kit-2"], &[]);
    assert!(
        !unknown.status.success() && text(&unknown).contains("run 'make register-trust-<n>' first"),
        "{}",
        text(&unknown)
    );
    assert!(!checkout.0.join("kits/trust-2.json").exists());

    // Another trust under the same number does not overwrite a kit.
    let other =
        checkout.make(&["register-trust-1"], &[("TRUST_1_NAME", "Another"), ("TRUST_1_CODE", "X")]);
    assert!(!other.status.success(), "{}", text(&other));
    assert!(text(&other).contains("kits/trust-1.json holds another kit"), "{}", text(&other));
    assert_eq!(checkout.kit("trust-1.json"), kit);
    let check = checkout.make(&["check-kit-1"], &[]);
    assert!(check.status.success(), "{}", text(&check));
    assert!(text(&check).contains("kits/trust-1.json valid\n"), "{}", text(&check));
    assert_eq!(text(&check).matches(" valid\n").count(), 2, "{}", text(&check));

    let stopped = checkout.make(&["hub-stop"], &[]);
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert!(checkout.make(&["clean"], &[]).status.success());
    assert!(!checkout.0.join(".hub").exists() && checkout.0.join("kits").exists());
}

#[test]
fn names_with_odd_characters_pass_through_unharmed() {
    let checkout = Checkout::new("odd");
    let mut hub = Hub::new();
    let env = &Hub::cluster().env;
    let name = "St \"Q\" O'Neil $HOME $(id) $(shell touch pwned) `id` #1 & \\ \u{e9};*?! %s";
    for (n, by_argument) in [(4, false), (5, true)] {
        let name = format!("{name} {n}");
        let (variable, target) = (format!("TRUST_{n}_NAME"), format!("register-trust-{n}"));
        let (code, region) = (format!("TRUST_{n}_CODE"), format!("TRUST_{n}_REGION"));
        let argument = format!("{variable}={name}");
        let mut variables: Vec<(&str, &str)> =
            env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        variables.extend([
            ("POSTGRES_DB", hub.database.as_str()),
            (&code, "C'$x"),
            (&region, "R $y"),
        ]);
        let mut target = vec![target.as_str()];
        if by_argument {
            target.push(&argument);
        } else {
            variables.push((&variable, &name));
        }
        let output = checkout.make(&target, &variables);
        assert!(output.status.success(), "{}", text(&output));
        let kit = checkout.kit(&format!("trust-{n}.json"));
        assert_eq!(kit[0]["trust_name"], name.as_str());
        hub.assert_registered(&kit);
    }
    assert_eq!(hub.count("trust WHERE code = 'C''$x' AND region = 'R $y'"), 2);
    assert!(
        !checkout.0.join(".hub").exists(),
        "DB_HOST was set, and the embedded hub was started all the same"
    );
}

#[test]
fn a_failure_leaves_no_kit_and_fails_the_target() {
    let checkout = Checkout::new("failure");
    let hub = Hub::new();
    let env = &Hub::cluster().env;
    let mut variables: Vec<(&str, &str)> =
        env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    variables.extend([("POSTGRES_DB", hub.database.as_str()), ("TRUST_7_NAME", "Seven")]);
    let output = checkout.make(&["register-trust-7"], &variables);
    assert!(
        !output.status.success() && text(&output).contains("--code is missing"),
        "{}",
        text(&output)
    );
    let kits: Vec<_> = fs::read_dir(checkout.0.join("kits"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(kits, [".lock-trust-7"], "{}", text(&output));
    let output = checkout.make(&["register-trust-8"], &variables);
    assert!(
        !output.status.success() && text(&output).contains("TRUST_8_NAME is not set"),
        "{}",
        text(&output)
    );
}

#[test]
fn all_configured_trusts_are_registered_side_by_side_and_one_failure_stops_no_other() {
    let checkout = Checkout::new("all");
    let mut hub = Hub::new();
    let (env, database) = (&Hub::cluster().env, hub.database.clone());
    let mut variables: Vec<(&str, &str)> =
        env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    variables.extend([("POSTGRES_DB", database.as_str()), ("TRUST_4_NAME", "No code")]);
    let file = fs::read_to_string(checkout.0.join(".env.development")).unwrap();
    fs::write(
        checkout.0.join(".env.development"),
        format!("{file}TRUST_15_NAME=\"In quotes\"\nTRUST_15_CODE=Q\r\n"),
    )
    .unwrap();
    let output = checkout.make(&["-j4", "register-trusts"], &variables);
    assert!(!output.status.success(), "{}", text(&output));
    for n in [1, 2, 3, 15] {
        hub.assert_registered(&checkout.kit(&format!("trust-{n}.json")));
    }
    assert_eq!(checkout.kit("trust-15.json")[0]["trust_name"], "In quotes");
    assert!(text(&output).contains("--code is missing"), "{}", text(&output));
    assert_eq!(hub.count("trust"), 4);
    variables.push(("TRUST_4_CODE", "N"));
    let output = checkout.make(&["-j4", "register-trusts"], &variables);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(hub.count("trust"), 5);
}

#[test]
fn a_sink_and_a_folder_keep_their_dollars_and_a_kit_that_was_left_behind_is_named() {
    let checkout = Checkout::new("sink");
    let folder = "KITS=my $HOME kits";
    let sink = "KIT_SINK=x=sunk; cat > $x; false";
    let failed = checkout.make(&["register-trust-1", folder, sink], &[]);
    assert!(!failed.status.success(), "{}", text(&failed));
    let left = "my $HOME kits/.trust-1.";
    let said = format!("ERROR KIT_SINK failed; the kit stays in {left}");
    assert!(text(&failed).contains(&said), "{}", text(&failed));
    assert!(fs::read_to_string(checkout.0.join("sunk")).unwrap().contains("trust_api_key"));

    let again = checkout.make(&["register-trust-1", folder], &[]);
    assert!(again.status.success(), "{}", text(&again));
    let said = format!("WARNING an earlier run left {left}");
    assert!(text(&again).contains(&said), "{}", text(&again));
    let picked_up = fs::read_to_string(checkout.0.join("my $HOME kits/trust-1.json")).unwrap();
    assert_eq!(picked_up, fs::read_to_string(checkout.0.join("sunk")).unwrap());
}
