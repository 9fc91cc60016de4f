//! doc/reference.md, "Environment".

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::Hub;

#[test]
fn a_variable_that_is_missing_or_invalid_fails_and_is_named_with_its_value() {
    let mut hub = Hub::new();
    let register = ["--name", "A", "--code", "A"];
    for variable in ["POSTGRES_USER", "POSTGRES_DB"] {
        hub.program(&register)
            .without(variable)
            .run()
            .fails()
            .says(&format!("{variable} is not set"))
            .says(&format!("next: set {variable} and run again"));
        hub.program(&register)
            .env(variable, "")
            .run()
            .fails()
            .says(&format!("{variable} is not set"));
    }
    for (variable, value) in [
        ("ENV", "staging"),
        ("DB_PORT", "x"),
        ("DB_PORT", "0"),
        ("DB_PORT", "65536"),
        ("PGSSLMODE", "allow"),
        ("PGSSLMODE", "Require"),
        ("LOG_LEVEL", "LOUD"),
    ] {
        let run = hub.program(&register).env(variable, value).run().fails();
        run.says(&format!("ERROR {variable} is \"{value}\", not "))
            .says(&format!("next: correct {variable} and run again"));
    }
    hub.assert_untouched();
}

#[test]
fn a_value_that_is_not_utf8_fails_without_being_shown() {
    let hub = Hub::new();
    for variable in ["POSTGRES_PASSWORD", "AES_KEY_BASE64", "DB_HOST"] {
        let run = hub.program(&["--name", "A", "--code", "A"]);
        let run = run.env(variable, OsStr::from_bytes(b"geheim\xff")).run().fails();
        run.says(&format!("ERROR {variable} is not UTF-8;")).never_says("geheim");
    }
}

#[test]
fn text_that_is_not_a_host_is_refused_before_any_look_up_and_not_shown() {
    let mut hub = Hub::new();
    for host in [
        "postgres://hub:geheim@127.0.0.1/hub",
        "hub:geheim@127.0.0.1",
        "127.0.0.1:5432",
        "geheim hub",
        "geheim,127.0.0.1",
        "-\u{e9}geheim",
        "a..geheim",
    ] {
        let run = hub.program(&["--name", "A", "--code", "A"]).env("DB_HOST", host).run().fails();
        run.says("ERROR DB_HOST is not a host name, an address or the path of a directory;")
            .says("next: correct DB_HOST and run again")
            .never_says("geheim")
            .never_says("127.0.0.1");
    }
    hub.assert_untouched();
}

#[test]
fn the_login_sends_no_startup_options() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let hub = Hub::new();
    let run =
        hub.program(&["--name", "A"]).env("DB_PORT", port).env("PGSSLMODE", "disable").spawn();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = [0; 512];
    let read = std::io::Read::read(&mut stream, &mut bytes).unwrap();
    drop(stream);
    run.wait().fails();
    let words: Vec<_> = bytes[8..read]
        .split(|b| *b == 0)
        .map(String::from_utf8_lossy)
        .filter(|w| !w.is_empty())
        .collect();
    let keys: Vec<_> = words.chunks(2).map(|pair| pair[0].to_string()).collect();
    assert_eq!(keys, ["client_encoding", "user", "database", "application_name"]);
}

#[test]
fn development_is_the_default_even_if_env_is_empty() {
    let hub = Hub::new();
    hub.program(&["--name", "A", "--code", "A"]).env("ENV", "").run().full_kit();
    hub.program(&["--name", "A"]).env("ENV", "development").run().metadata_only_kit();
}

#[test]
fn a_host_that_is_a_path_is_a_socket_directory_and_needs_no_tls() {
    let hub = Hub::new();
    let dir = Hub::cluster().dir.join("server");
    let run = hub
        .program(&["--name", "A", "--code", "A"])
        .env("DB_HOST", dir)
        .env("PGSSLMODE", "require")
        .run();
    run.full_kit();
}

#[test]
fn tls_that_is_required_of_a_server_without_it_fails() {
    let mut hub = Hub::new();
    for mode in ["require", "verify-full"] {
        let run = hub.program(&["--name", "A", "--code", "A"]).env("PGSSLMODE", mode).run().fails();
        run.says("the server does not support TLS");
    }
    let verify_ca = || hub.program(&["--name", "A", "--code", "A"]).env("PGSSLMODE", "verify-ca");
    verify_ca().run().fails().says("PGSSLMODE is verify-ca, and PGSSLROOTCERT names no file");
    // What stands in the file does not matter before there is TLS.
    let run = verify_ca().env("PGSSLROOTCERT", "/no/such/file").run().fails();
    run.says("the server does not support TLS");
    hub.assert_untouched();
    for mode in ["disable", "prefer", ""] {
        hub.program(&["--name", mode, "--code", "A"]).arg("--name").run().exits(2);
        hub.program(&["--name", "A", "--code", "A"]).env("PGSSLMODE", mode).run().exits(0);
    }
}

#[test]
fn the_password_is_stripped_and_may_hold_any_characters() {
    let hub = Hub::new();
    let password = "p'a\"s$s w\\o:r@d/%41\u{e9}?#&=";
    let quoted = password.replace('\'', "''");
    let role = format!("odd_{}", hub.database);
    let mut admin = hub.session();
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{quoted}'"))
        .unwrap();
    let program = |password: String| {
        let program =
            hub.program(&["--name", "A", "--code", "A"]).env("POSTGRES_USER", role.as_str());
        program.env("POSTGRES_PASSWORD", password)
    };
    program(format!(" \t{password}\u{a0}\n")).run().exits(0);
    program("wrong".to_owned())
        .run()
        .fails()
        .says("(SQLSTATE 28P01)")
        .says("next: check POSTGRES_USER");
    program(" ".to_owned()).run().fails().says("next: set POSTGRES_PASSWORD");
    admin.batch_execute(&format!("DROP ROLE {role}")).unwrap();
}

#[test]
fn a_database_that_is_not_there_or_does_not_answer_fails_and_says_where_it_was_sought() {
    let hub = Hub::new();
    let program = || hub.program(&["--name", "A", "--code", "A"]);
    program()
        .env("POSTGRES_DB", "nowhere")
        .run()
        .fails()
        .says("/nowhere\": ")
        .says("(SQLSTATE 3D000)");
    let run = program().env("DB_PORT", "1").run().fails();
    run.says("cannot connect to the hub at \"hub@127.0.0.1:1/").says("Connection refused");
    let run = program().env("DB_HOST", "no-such-host.invalid").run().fails();
    run.says("cannot connect to the hub at \"hub@no-such-host.invalid:")
        .says("cannot look up the name no-such-host.invalid: ")
        .says("next: check DB_HOST and the resolver (/etc/resolv.conf), and run again");
    program().env("DB_HOST", "/no/such/directory").run().fails().says("No such file or directory");
}

#[test]
fn hub_shared_holds_those_of_the_twelve_that_are_set_in_their_order_and_nothing_else() {
    let hub = Hub::new();
    let keys = [
        "AES_KEY_BASE64",
        "CENTRAL_HUB_API_URL",
        "TRUST_API_KEY_HEADER",
        "FL_BACKEND",
        "FLOWER_KIT_DATE",
        "FLARE_KIT_DATE",
        "DOCKER_TAG",
        "DOCKER_REGISTRY",
        "DOCKER_FL_TAG",
        "DOCKER_FL_REGISTRY",
        "NLB_SUBDOMAIN",
        "FL_SERVER_PORT",
    ];
    let mut program =
        hub.program(&["--name", "A", "--code", "A"]).env("AES_KEY", "no").env("FL_OTHER", "no");
    for key in keys.iter().rev() {
        program = program.env(key, format!("value of {key}"));
    }
    let run = program.run();
    let expected: Vec<_> = keys.iter().map(|key| format!("\"{key}\":\"value of {key}\"")).collect();
    let expected = format!("\"hub_shared\":{{{}}}}}]\n", expected.join(","));
    assert!(run.stdout.ends_with(&expected), "{}", run.dump());

    let run = hub.program(&["--name", "A"]).env("DOCKER_TAG", "").env("FL_BACKEND", " ").run();
    assert_eq!(run.metadata_only_kit()[0]["hub_shared"], serde_json::json!({"FL_BACKEND": " "}));
}
