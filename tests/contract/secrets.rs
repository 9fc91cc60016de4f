//! doc/reference.md, "Logs and secrets": none on stderr at any verbosity, none in argv.

use crate::support::relay::{Strike, When};
use crate::support::{Answer, Hub, Program, Relay, Run, Ssm, sha256_hex};

const PASSWORD: &str = "the-hub-password-1234";

fn loud(program: Program) -> Program {
    let program = program
        .env("LOG_LEVEL", "DEBUG")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
        .arg("-vvvv");
    ["AES_KEY_BASE64", "CENTRAL_HUB_API_URL", "DOCKER_REGISTRY"]
        .iter()
        .fold(program, |program, key| program.env(key, format!("hub-shared-{key}-value")))
}

#[track_caller]
fn assert_no_secret(run: &Run, kits: &[String]) {
    let mut secrets =
        vec!["hub-shared-".to_owned(), PASSWORD.to_owned(), "wJalrXUtnFEMI".to_owned()];
    secrets.push(Hub::cluster().env["POSTGRES_PASSWORD"].clone());
    for kit in kits.iter().filter(|kit| kit.starts_with("[{")) {
        let kit: serde_json::Value = serde_json::from_str(kit).unwrap();
        for key in ["trust_api_key", "trust_internal_service_key"] {
            if let Some(key) = kit[0][key].as_str() {
                secrets.extend([key.to_owned(), sha256_hex(key)]);
            }
        }
    }
    for secret in secrets {
        assert!(!run.stderr.contains(&secret), "stderr holds the secret {secret}{}", run.dump());
    }
}

#[test]
fn no_secret_reaches_stderr_when_all_goes_well() {
    let hub = Hub::new();
    let run = loud(hub.program(&["--name", "A", "--code", "A"])).run();
    run.full_kit();
    assert_no_secret(&run, std::slice::from_ref(&run.stdout));
    let ssm = Ssm::new();
    let run = ssm
        .serve(loud(hub.program(&["--name", "B", "--code", "B", "--out-ssm-parameter", "/k"])))
        .run()
        .exits(0);
    assert_no_secret(&run, &ssm.versions("/k"));
    let run =
        ssm.serve(loud(hub.program(&["--name", "B", "--out-ssm-parameter", "/k"]))).run().exits(0);
    assert_no_secret(&run, &ssm.versions("/k"));
}

#[test]
fn no_secret_reaches_stderr_when_ssm_quotes_the_kit() {
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Quote]);
    let run = ssm
        .serve(loud(hub.program(&["--name", "A", "--code", "A", "--out-ssm-parameter", "/k"])))
        .run()
        .exits(1);
    let sent = ssm.requests()[0].1["Value"].as_str().unwrap().to_owned();
    assert!(sent.contains("trust_api_key"));
    assert_no_secret(&run, &[sent]);
    run.says("ValidationException (HTTP 400, request req-400): the message is not shown, because it may quote a secret");
}

#[test]
fn no_part_of_a_token_reaches_stderr_when_ssm_quotes_it_in_capitals() {
    let token = "JeSMWwHjeeHrldJPs4RHqGyJKDiQppgMkgwR8K7mzRzpTWFqz4hVbnBGcVVARsgM6z";
    let part = "QGYJKDIQPPGMKGWR8K7MZR";
    assert!(token.to_uppercase().contains(part));
    let ssm = Ssm::new().always(Answer::Refuse(400, "ExpiredTokenException", part));
    let run = Hub::new().program(&["--name", "A", "--code", "A", "--out-ssm-parameter", "/k"]);
    let run = ssm.serve(loud(run)).env("AWS_SESSION_TOKEN", token).run().exits(1);
    assert!(!run.stderr.to_uppercase().contains(part), "{}", run.dump());
}

#[test]
fn no_secret_reaches_stderr_when_ssm_fails_in_other_ways() {
    let hub = Hub::new();
    for answer in [
        Answer::DropAfter,
        Answer::Garbage("nonsense"),
        Answer::Refuse(500, "x", "y"),
        Answer::DropBefore,
    ] {
        let ssm = Ssm::new().always(answer);
        let run = ssm
            .serve(loud(hub.program(&["--name", "A", "--code", "A", "--out-ssm-parameter", "/k"])))
            .run()
            .exits(1);
        let sent = ssm.requests()[0].1["Value"].as_str().unwrap().to_owned();
        assert_no_secret(&run, &[sent]);
    }
}

#[test]
fn no_secret_reaches_stderr_when_the_hub_quotes_the_row() {
    let mut hub = Hub::new();
    // DETAIL shows the failing row, with the hash.
    hub.execute("ALTER TABLE trust ADD required text NOT NULL");
    let run = loud(hub.program(&["--name", "A", "--code", "A"])).run().fails();
    assert!(!run.stderr.contains("Failing row"), "{}", run.dump());
    run.says("null value in column \"required\"");
    // A trigger's message does, too.
    hub.execute(
        "ALTER TABLE trust DROP required;
         CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE NOTICE 'row %', NEW; RAISE 'row %', NEW USING HINT = NEW.api_key_hash; END $$;
         CREATE TRIGGER quote BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION quote()",
    );
    let run = loud(hub.program(&["--name", "A", "--code", "A"])).run().fails();
    let hex = run.stderr.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64);
    assert!(!hex, "{}", run.dump());
    run.says("the message is not shown, because it may quote a secret (SQLSTATE P0001)");
    // And so does one that is deferred to the commit.
    hub.execute(
        "DROP TRIGGER quote ON trust; CREATE CONSTRAINT TRIGGER quote AFTER INSERT ON trust
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION quote()",
    );
    let run = loud(hub.program(&["--name", "A", "--code", "A"])).run().exits(1);
    let kit = run.stdout.lines().next().unwrap().to_owned();
    assert_no_secret(&run, &[kit]);
    hub.assert_untouched();
}

#[test]
fn a_slot_whose_name_repeats_the_password_is_not_named() {
    let mut hub = Hub::new();
    hub.execute(
        "DELETE FROM fl_kit_slot; INSERT INTO fl_kit_slot VALUES ('for Correct Horse', 1);
         CREATE ROLE clerk_with_words LOGIN SUPERUSER PASSWORD 'correct horse'",
    );
    let program =
        hub.program(&["--name", "A", "--code", "A"]).env("POSTGRES_USER", "clerk_with_words");
    let run = loud(program).env("POSTGRES_PASSWORD", "correct horse").run().exits(0);
    assert_eq!(run.full_kit()[0]["fl_kit_slot"], "for Correct Horse");
    assert!(!run.stderr.to_lowercase().contains("correct horse"), "{}", run.dump());
    run.says("with slot a name that is not shown, because it repeats the password");
    hub.execute("DROP ROLE clerk_with_words");
}

#[test]
fn a_hash_that_a_trigger_spells_otherwise_is_not_repeated() {
    for spelt in [
        "left(h, 32) || ' and ' || right(h, 32)",
        "left(h, 16) || '-' || substr(h, 17, 16) || '-' || substr(h, 33, 16) || '-' || right(h, 16)",
        "upper(h)",
        "encode(convert_to(h, 'UTF8'), 'base64')",
        "encode(convert_to(h, 'UTF8'), 'hex')",
        "'x' || left(h, 40) || 'x'",
    ] {
        let mut hub = Hub::new();
        hub.execute(&format!(
            "CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE h text := NEW.api_key_hash; BEGIN RAISE '%', {spelt}; END $$;
             CREATE TRIGGER quote BEFORE INSERT ON trust FOR EACH ROW EXECUTE FUNCTION quote()"
        ));
        let run = loud(hub.program(&["--name", "A", "--code", "A"])).run().fails();
        run.says("the message is not shown, because it may quote a secret (SQLSTATE P0001)");
    }
}

#[test]
fn no_secret_reaches_stderr_when_the_login_or_the_commit_fails() {
    let hub = Hub::new();
    let run = loud(hub.program(&["--name", "A", "--code", "A"]))
        .env("POSTGRES_PASSWORD", PASSWORD)
        .run()
        .fails();
    assert_no_secret(&run, &[]);
    let relay = Relay::new().strike(When::Before("COMMIT"), Strike::Cut);
    let run = relay.serve(loud(hub.program(&["--name", "A", "--code", "A"]))).run().exits(1);
    let kit = run.stdout.lines().next().unwrap().to_owned();
    assert_no_secret(&run, &[kit]);
}

#[test]
fn no_secret_is_in_argv_or_on_stderr_of_a_run_under_way() {
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Hold]);
    let run = ssm
        .serve(hub.program(&["--name", "A", "--code", "A", "--out-ssm-parameter", "/k"]))
        .spawn();
    crate::support::eventually("the run delivers", || !ssm.requests().is_empty());
    let argv = std::fs::read(format!("/proc/{}/cmdline", run.child.id())).unwrap();
    ssm.release();
    let run = run.wait().exits(0);
    let kit = ssm.latest("/k").unwrap();
    let kit: serde_json::Value = serde_json::from_str(&kit).unwrap();
    let argv = String::from_utf8_lossy(&argv).into_owned();
    for key in ["trust_api_key", "trust_internal_service_key"] {
        assert!(!argv.contains(kit[0][key].as_str().unwrap()));
    }
    assert!(argv.contains("--out-ssm-parameter"));
    assert_no_secret(&run, &[ssm.latest("/k").unwrap()]);
}

#[test]
fn the_text_of_a_secret_is_exposed_only_where_the_contract_says_it_goes() {
    let mut found = Vec::new();
    for file in std::fs::read_dir(crate::support::root().join("src")).unwrap() {
        let path = file.unwrap().path();
        let uses = std::fs::read_to_string(&path).unwrap().matches(".expose()").count();
        if uses > 0 {
            found.push(format!("{} {uses}", path.file_name().unwrap().to_str().unwrap()));
        }
    }
    found.sort();
    assert_eq!(found, EXPOSED, "a secret is exposed in a new place: is that right?");
}

const EXPOSED: [&str; 10] = [
    // A put's length, value, and what AWS must not repeat of it; the presigned URL loses its scheme;
    // a key and a token sign.
    "aws.rs 6",
    // What AWS's words must not repeat.
    "aws_error.rs 1",
    // A key's id, an instance's token and role, and the answer with the keys.
    "credentials.rs 4",
    // The kit is printed; a kit is told from []; no later answer may quote it.
    "delivery.rs 3",
    // The password.
    "hub.rs 1",
    // The hub-shared values go into the kit.
    "kit.rs 1",
    // So do the keys.
    "secret.rs 1",
    // What the hub's words must not repeat.
    "settings.rs 1",
    // The kit's line.
    "stdio.rs 1",
    // The key's hash, written and read back.
    "transaction.rs 1",
];
