//! doc/reference.md, "Delivery": SSM.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Hub, Program, Run, Ssm, eventually};

const NEW: [&str; 6] = ["--name", "A", "--code", "GSTT", "--out-ssm-parameter", "/flip/kit"];

fn register(hub: &Hub, ssm: &Ssm) -> Run {
    ssm.serve(hub.program(&NEW)).run()
}

fn kit(ssm: &Ssm) -> serde_json::Value {
    serde_json::from_str(&ssm.latest("/flip/kit").expect("nothing was stored")).unwrap()
}

#[test]
fn the_kit_goes_into_one_secure_string_and_stdout_gets_only_its_name() {
    let mut hub = Hub::new();
    let ssm = Ssm::new();
    let run = register(&hub, &ssm).exits(0).prints("/flip/kit\n");
    run.never_says("WARN");
    hub.assert_registered(&kit(&ssm));
    let requests = ssm.requests();
    assert_eq!(requests.len(), 1);
    let (head, body) = &requests[0];
    assert!(head.starts_with("post / http/1.1"), "{head}");
    assert!(head.contains("x-amz-target: amazonssm.putparameter"), "{head}");
    assert!(head.contains("aws4-hmac-sha256 credential=akidexample/"), "{head}");
    assert!(head.contains("/eu-west-2/ssm/aws4_request"), "{head}");
    let description = body["Description"].as_str().unwrap();
    assert!(
        description.contains("Ephemeral trust-kit hand-off, to be deleted after reading")
            && description.contains("deleted after reading")
    );
    let mut rest = body.clone();
    rest["Description"].take();
    rest["Value"].take();
    assert_eq!(
        rest,
        json!({"Name": "/flip/kit", "Type": "SecureString", "Overwrite": true, "Description": null, "Value": null})
    );
}

#[test]
fn the_kit_is_put_before_it_is_committed() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Hold]);
    let run = ssm.serve(hub.program(&NEW)).spawn();
    eventually("the kit is being put", || ssm.requests().len() == 1);
    assert_eq!(hub.count("trust"), 0);
    ssm.release();
    run.wait().exits(0).prints("/flip/kit\n");
    hub.assert_registered(&kit(&ssm));
}

#[test]
fn a_run_that_is_killed_in_its_delivery_registers_nothing() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Hold]);
    let run = ssm.serve(hub.program(&NEW)).spawn();
    eventually("the kit is being put", || ssm.requests().len() == 1);
    drop(run);
    hub.assert_untouched();
}

#[test]
fn what_was_throttled_dropped_or_got_a_5xx_is_tried_again() {
    for answers in [
        &[Answer::Refuse(400, "ThrottlingException", "Rate exceeded")][..],
        &[Answer::Refuse(429, "x", "slow down")],
        &[Answer::Refuse(400, "TooManyUpdates", "concurrent updates")],
        &[Answer::Refuse(500, "InternalServerError", "oops"), Answer::Refuse(503, "", "")],
        &[Answer::DropBefore, Answer::DropBefore],
        &[Answer::DropAfter],
        &[Answer::DropAfter, Answer::Refuse(502, "", ""), Answer::DropBefore],
    ] {
        let mut hub = Hub::new();
        let ssm = Ssm::new().script(answers);
        register(&hub, &ssm)
            .exits(0)
            .prints("/flip/kit\n")
            .says("WARNING SSM: ")
            .says("trying again");
        hub.assert_registered(&kit(&ssm));
        assert_eq!(ssm.requests().len(), answers.len() + 1);
    }
}

#[test]
fn an_attempt_that_hangs_is_given_up_after_ten_seconds_and_tried_again() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Hang]);
    let run = register(&hub, &ssm)
        .exits(0)
        .prints("/flip/kit\n")
        .within(15)
        .says("no answer within 10 s");
    assert!(run.took > Duration::from_secs(9), "{}", run.dump());
    hub.assert_registered(&kit(&ssm));
}

#[test]
fn a_refusal_is_final_and_leaves_an_empty_array() {
    let mut hub = Hub::new();
    for (code, next) in [
        ("AccessDeniedException", "allow the role ssm:PutParameter"),
        ("ExpiredTokenException", "renew the AWS credentials"),
        ("ParameterMaxVersionLimitExceeded", "delete the parameter or choose another name"),
        ("com.amazonaws.ssm#ValidationException", "correct what AWS names"),
    ] {
        let ssm = Ssm::new().script(&[Answer::Refuse(400, code, "AWS's own words")]);
        let run =
            register(&hub, &ssm).exits(1).prints("/flip/kit\n").says("AWS's own words").says(next);
        let code = code.rsplit('#').next().unwrap();
        run.says(&format!(
            "ERROR cannot put /flip/kit into SSM: {code} (HTTP 400, request req-400): "
        ));
        assert_eq!(ssm.requests().len(), 2);
        assert_eq!(ssm.latest("/flip/kit").unwrap(), "[]");
        hub.assert_untouched();
    }
}

#[test]
fn where_even_the_empty_array_cannot_be_put_stdout_stays_empty() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::Refuse(400, "AccessDeniedException", "no"));
    register(&hub, &ssm)
        .exits(1)
        .prints("")
        .says("nothing was registered")
        .says("cannot leave [] as the verdict either");
    assert_eq!(ssm.requests().len(), 2);
    hub.assert_untouched();
}

#[test]
fn an_endpoint_that_is_unreachable_or_not_ssm_registers_nothing() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::Garbage("<html>"));
    register(&hub, &ssm).exits(1).prints("").says("the answer does not come from SSM");
    hub.assert_untouched();
    let run =
        Ssm::new().serve(hub.program(&NEW)).env("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1").run();
    run.exits(1)
        .prints("")
        .says("Connection refused")
        .says("check AWS_REGION, the endpoint and the network")
        .within(40);
    hub.assert_untouched();
}

#[test]
fn all_attempts_together_end_within_thirty_seconds() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Hang, Answer::Hang, Answer::Hang]);
    // The attempts may still be stored, over the []: there is no receipt.
    let run = register(&hub, &ssm).exits(1).prints("").within(35);
    run.says("cannot put /flip/kit into SSM: no answer within")
        .says("/flip/kit may come to hold a kit that was never registered: delete it");
    assert_eq!(ssm.latest("/flip/kit").unwrap(), "[]");
    hub.assert_untouched();
}

#[test]
fn a_value_that_is_too_long_is_refused_before_it_is_sent() {
    let mut hub = Hub::new();
    let ssm = Ssm::new();
    // What is not the value of CENTRAL_HUB_API_URL has the same length in every full kit of "A".
    let other = 4096
        - {
            let kit =
                hub.program(&["--name", "A", "--code", "G"]).env("CENTRAL_HUB_API_URL", "x").run();
            kit.full_kit();
            hub.execute("DELETE FROM trusts_audit; UPDATE fl_kit_slot SET assigned_to_trust_id = NULL, assigned_at = NULL; DELETE FROM trust");
            kit.stdout.len() - 2
        };
    let run = ssm.serve(hub.program(&NEW)).env("CENTRAL_HUB_API_URL", "x".repeat(other + 1)).run();
    run.exits(1).prints("/flip/kit\n").says(
        "the kit has 4097 characters, but an SSM parameter holds at most 4096; it was not sent",
    );
    assert_eq!(ssm.versions("/flip/kit"), ["[]"]);
    hub.assert_untouched();
    let run = ssm.serve(hub.program(&NEW)).env("CENTRAL_HUB_API_URL", "x".repeat(other)).run();
    run.exits(0).prints("/flip/kit\n");
    hub.assert_registered(&kit(&ssm));
}

const NO_CREDENTIALS: &str = "no AWS credentials (no variables, no profile and no container \
    endpoint are set, and AWS_EC2_METADATA_DISABLED is true)";

#[test]
fn without_credentials_the_sources_that_were_tried_are_named() {
    let mut hub = Hub::new();
    let ssm = Ssm::new();
    let run =
        ssm.serve(hub.program(&NEW)).without("AWS_ACCESS_KEY_ID").env("HOME", "/nonexistent").run();
    run.exits(1)
        .prints("")
        .says(NO_CREDENTIALS)
        .says("next: give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        .within(20);
    assert!(ssm.requests().is_empty());
    hub.assert_untouched();
}

#[test]
fn credentials_come_from_a_profile_or_the_container_endpoint_too() {
    let mut hub = Hub::new();
    let bare = |ssm: &Ssm, name: &str| {
        let program = hub.program(&["--name", name, "--code", "X", "--out-ssm-parameter", "/k"]);
        ssm.serve(program)
            .without("AWS_ACCESS_KEY_ID")
            .without("AWS_SECRET_ACCESS_KEY")
            .env("HOME", "/nonexistent")
    };
    let path = std::env::temp_dir().join(format!("credentials-{}", hub.database));
    std::fs::write(&path, "[other]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = x\n")
        .unwrap();
    let ssm = Ssm::new();
    let program = bare(&ssm, "A")
        .env("AWS_SHARED_CREDENTIALS_FILE", path.as_os_str())
        .env("AWS_PROFILE", "other");
    program.run().exits(0).prints("/k\n");
    std::fs::remove_file(&path).unwrap();
    assert!(ssm.requests()[0].0.contains("credential=akidprofile/"), "{}", ssm.requests()[0].0);

    let metadata = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = metadata.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = metadata.accept().unwrap();
        let mut request = [0; 2048];
        let read = std::io::Read::read(&mut stream, &mut request).unwrap();
        assert!(
            String::from_utf8_lossy(&request[..read])
                .to_lowercase()
                .contains("authorization: task-token")
        );
        let body = r#"{"AccessKeyId":"AKIDTASK","SecretAccessKey":"s","Token":"tok","Expiration":"2099-01-01T00:00:00Z"}"#;
        std::io::Write::write_all(
            &mut stream,
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes(),
        )
        .unwrap();
    });
    let program =
        bare(&ssm, "B").env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/task"));
    program.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "task-token").run().exits(0).prints("/k\n");
    let head = &ssm.requests()[1].0;
    assert!(
        head.contains("credential=akidtask/") && head.contains("x-amz-security-token: tok"),
        "{head}"
    );
    assert_eq!(hub.count("trust"), 2);
}

#[test]
fn a_put_that_overwrites_something_warns_and_says_how_to_read_it() {
    let hub = Hub::new();
    let ssm = Ssm::new();
    register(&hub, &ssm).exits(0).never_says("WARN");
    let run =
        ssm.serve(hub.program(&["--name", "A", "--out-ssm-parameter", "/flip/kit"])).run().exits(0);
    run.prints("/flip/kit\n")
        .says("WARNING /flip/kit existed and was overwritten")
        .says("can still be read as /flip/kit:1");
    let versions = ssm.versions("/flip/kit");
    assert!(versions[0].contains("trust_api_key") && !versions[1].contains("trust_api_key"));
    // A full kit, too, may lie over the only copy of another one.
    ssm.store("/other", "[]");
    let program = hub.program(&["--name", "B", "--code", "B", "--out-ssm-parameter", "/other"]);
    ssm.serve(program).run().exits(0).says("can still be read as /other:1");
}

#[test]
fn a_failure_before_the_put_leaves_an_empty_array_and_prints_the_name() {
    let mut hub = Hub::new();
    let cases: &[(&str, &dyn Fn(Program) -> Program)] = &[
        ("cannot connect to the hub", &|program| program.env("DB_PORT", "1")),
        ("POSTGRES_DB is not set", &|program| program.without("POSTGRES_DB")),
        ("LOG_LEVEL is", &|program| program.env("LOG_LEVEL", "LOUD")),
        ("no trust \"A\" is registered", &|program| program.arg("--require-existing")),
    ];
    for (message, change) in cases {
        let ssm = Ssm::new();
        ssm.store("/flip/kit", "something old");
        change(ssm.serve(hub.program(&NEW))).run().exits(1).prints("/flip/kit\n").says(message);
        assert_eq!(ssm.latest("/flip/kit").unwrap(), "[]");
        hub.assert_untouched();
    }
}

#[test]
fn settings_without_which_nothing_can_be_put_leave_stdout_empty() {
    let mut hub = Hub::new();
    for (variable, value) in [
        ("AWS_REGION", ""),
        ("AWS_REGION", "eu west"),
        ("AWS_ENDPOINT_URL", "localhost:4566"),
        ("AWS_ENDPOINT_URL_SSM", "ftp://x"),
        ("AWS_ENDPOINT_URL_SSM", "http://"),
        ("AWS_ENDPOINT_URL_SSM", "http://h/path"),
    ] {
        let ssm = Ssm::new();
        let run = ssm.serve(hub.program(&NEW)).env(variable, value).run().exits(1).prints("");
        run.says(&format!("ERROR {variable} is "))
            .says("nothing was registered")
            .says("ERROR the verdict [] could not be left");
        assert!(ssm.requests().is_empty());
        hub.assert_untouched();
    }
}

#[test]
fn ssms_own_endpoint_comes_before_the_common_one_and_may_end_with_a_slash() {
    let hub = Hub::new();
    let (own, common) = (Ssm::new(), Ssm::new());
    let program =
        common.serve(hub.program(&NEW)).env("AWS_ENDPOINT_URL_SSM", format!("{}/", own.url()));
    program.run().exits(0).prints("/flip/kit\n");
    assert_eq!((own.requests().len(), common.requests().len()), (1, 0));
}

#[test]
fn a_receipt_that_cannot_be_printed_says_that_the_kit_is_safe() {
    let register = |why: &str, run: &dyn Fn(Program) -> Run| {
        let mut hub = Hub::new();
        let ssm = Ssm::new();
        let run = run(ssm.serve(hub.program(&NEW))).exits(1).says(why);
        run.says("the trust is registered and its kit is safe in /flip/kit")
            .says("next: read the kit there, then delete the parameter")
            .never_says("nothing was registered");
        hub.assert_registered(&kit(&ssm));
        assert_eq!(ssm.versions("/flip/kit").len(), 1);
    };
    register("Broken pipe", &|program| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        program.stdout(writer).run()
    });
    register("Bad file descriptor", &|program| program.run_in_shell("1</etc/hostname"));
}

#[test]
fn a_stdout_that_takes_no_receipt_is_refused_before_anything_is_put() {
    let mut hub = Hub::new();
    for redirection in [">&-", ">/dev/null", ">/dev/full"] {
        let ssm = Ssm::new();
        let run = ssm.serve(hub.program(&NEW)).run_in_shell(redirection).exits(1);
        run.says("it is closed, or leads to /dev/null")
            .says("nothing was registered")
            .says("ERROR the verdict [] could not be left");
        assert!(ssm.requests().is_empty());
        hub.assert_untouched();
    }
}

#[test]
fn a_header_that_is_not_ascii_does_no_harm() {
    let mut hub = Hub::new();
    let answer = |_: &str| b"HTTP/1.1 200 OK\r\nx: \xff\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    let run = register(&hub, &Ssm::new().always(Answer::Raw(answer)));
    run.exits(1).prints("").says("nothing was registered");
    hub.assert_untouched();
}
