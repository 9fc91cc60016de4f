//! doc/reference.md, "Registration" and "The kit".

use std::time::Duration;
use std::{env, fs};

use postgres::error::SqlState;

use crate::support::{Answer, Hub, Relay, Ssm, eventually, root};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

#[test]
fn a_new_trust_gets_a_full_kit_whose_key_the_hub_keeps_as_a_hash() {
    let mut hub = Hub::new();
    let run = hub.program(&["--name", "Guy's", "--code", "GSTT", "--region", " London "]).run();
    let kit = run.full_kit();
    hub.assert_registered(&kit);
    let keys: Vec<_> = kit[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 7);
    for key in ["trust_api_key", "trust_internal_service_key"] {
        let key = kit[0][key].as_str().unwrap();
        assert_eq!(key.len(), 43);
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{key}");
    }
    assert_ne!(kit[0]["trust_api_key"], kit[0]["trust_internal_service_key"]);
    assert_eq!(hub.value::<String>("SELECT code || '/' || region FROM trust"), "GSTT/London");
    let internal = kit[0]["trust_internal_service_key"].as_str().unwrap();
    let stored: String = hub.value("SELECT (SELECT json_agg(trust) FROM trust)::text
        || (SELECT json_agg(trusts_audit) FROM trusts_audit)::text || (SELECT json_agg(fl_kit_slot) FROM fl_kit_slot)::text");
    assert!(!stored.contains(internal) && !stored.contains(&crate::support::sha256_hex(internal)));
    assert!(!stored.contains(kit[0]["trust_api_key"].as_str().unwrap()));
    hub.assert_no_session();
}

#[test]
fn the_kit_has_its_keys_in_the_contracts_order_on_one_ascii_line() {
    let hub = Hub::new();
    let name = "Zo\u{eb} \u{1F3E5} \"q\" \\ / \u{2028}.";
    let run = hub
        .program(&["--name", name, "--code", "Z"])
        .env("FL_BACKEND", "a\tb\u{ffff}\u{10ffff}")
        .run();
    let kit = run.full_kit();
    assert_eq!(kit[0]["trust_name"], name);
    assert_eq!(kit[0]["hub_shared"]["FL_BACKEND"], "a\tb\u{ffff}\u{10ffff}");
    let id = kit[0]["trust_id"].as_str().unwrap();
    let (api, internal) = (&kit[0]["trust_api_key"], &kit[0]["trust_internal_service_key"]);
    let expected = format!(
        "[{{\"trust_id\":\"{id}\",\"trust_name\":\"Zo\\u00eb \\ud83c\\udfe5 \\\"q\\\" \\\\ / \\u2028.\",\
         \"trust_api_key\":{api},\"trust_internal_service_key\":{internal},\
         \"fl_kit_slot\":\"Trust_1\",\"fl_kit_slot_number\":1,\
         \"hub_shared\":{{\"FL_BACKEND\":\"a\\tb\\uffff\\udbff\\udfff\"}}}}]\n"
    );
    run.prints(&expected);
}

#[test]
fn a_trust_that_exists_is_left_alone_and_gets_a_metadata_only_kit() {
    let mut hub = Hub::new();
    let first = hub.program(&NEW).run().full_kit();
    let all = "SELECT md5(array_agg(t::text ORDER BY t::text)::text) FROM (SELECT trust::text AS t FROM trust
        UNION ALL SELECT fl_kit_slot::text FROM fl_kit_slot UNION ALL SELECT trusts_audit::text FROM trusts_audit) AS t";
    let before: String = hub.value(all);
    for arguments in [
        &["--name", "A"][..],
        &["--name", "\u{3000}A \n", "--code", " "],
        &["--name", "A", "--require-existing"],
    ] {
        let kit = hub.program(arguments).run().metadata_only_kit();
        for key in ["trust_id", "trust_name", "fl_kit_slot", "fl_kit_slot_number", "hub_shared"] {
            assert_eq!(kit[0][key], first[0][key], "{key}");
        }
        assert_eq!(kit[0].as_object().unwrap().len(), 5);
    }
    assert_eq!(hub.value::<String>(all), before);
}

#[test]
fn a_trust_without_a_slot_has_null_in_both_slot_fields() {
    let mut hub = Hub::new();
    hub.execute("INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'A', now())");
    let run = hub.program(&["--name", "A"]).run();
    run.metadata_only_kit();
    assert!(
        run.stdout.contains("\"fl_kit_slot\":null,\"fl_kit_slot_number\":null,"),
        "{}",
        run.dump()
    );
}

#[test]
fn of_several_trusts_of_one_name_the_oldest_is_taken_with_a_warning() {
    let mut hub = Hub::new();
    hub.execute(
        "INSERT INTO trust (id, name, created_at)
         SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'A', timestamptz '2020-01-01' + n * interval '-1 day'
           FROM generate_series(1, 3) AS n",
    );
    let run = hub.program(&["--name", "A"]).run();
    assert_eq!(run.metadata_only_kit()[0]["trust_id"], "00000000-0000-0000-0000-000000000003");
    run.says("WARNING 3 trusts are named \"A\"");
}

#[test]
fn require_existing_never_registers() {
    let mut hub = Hub::new();
    let run = hub.program(&["--name", "A", "--code", "GSTT", "--require-existing"]).run().fails();
    run.says("ERROR no trust \"A\" is registered").says("run 'make register-trust-<n>' first");
    hub.assert_untouched();
}

#[test]
fn a_new_trust_needs_a_code() {
    let mut hub = Hub::new();
    for code in [&[][..], &["--code="], &["--code", " \u{a0}"]] {
        let run = hub.program(&[&["--name", "A"], code].concat()).run().fails();
        run.says("--code is missing or blank");
    }
    hub.assert_untouched();
}

#[test]
fn a_new_trust_may_hold_no_control_characters() {
    let mut hub = Hub::new();
    for (name, code, region) in [
        ("A\nB", "C", "R"),
        ("A\u{85}B", "C", "R"),
        ("A", "C\tD", "R"),
        ("A", "C", "R\u{1b}S"),
        ("A\u{7f}B", "C", "R"),
    ] {
        let run = hub.program(&["--name", name, "--code", code, "--region", region]).run().fails();
        let run = run.says("holds a control character");
        assert_eq!(run.stderr.lines().count(), 2, "a name reached the log unescaped{}", run.dump());
    }
    hub.assert_untouched();
}

#[test]
fn a_blank_region_counts_as_absent() {
    let mut hub = Hub::new();
    hub.program(&[&NEW[..], &["--region", "\t \u{2009}"]].concat()).run().full_kit();
    assert!(hub.value::<bool>("SELECT region IS NULL FROM trust"));
}

#[test]
fn times_are_right_on_older_and_newer_hubs_whatever_the_time_zone() {
    for column_type in ["timestamp", "timestamptz"] {
        let mut hub = Hub::new();
        hub.execute(&format!(
            "SET TIME ZONE 'UTC';
             ALTER TABLE trust ALTER created_at TYPE {column_type}, ALTER last_heartbeat TYPE {column_type};
             ALTER TABLE fl_kit_slot ALTER assigned_at TYPE {column_type};
             ALTER TABLE trusts_audit ALTER audit_date TYPE {column_type};
             ALTER DATABASE {} SET TIME ZONE 'America/St_Johns'",
            hub.database
        ));
        let before: f64 = hub.value("SELECT extract(epoch FROM now())::float8");
        hub.program(&NEW).run().full_kit();
        let after: f64 = hub.value("SELECT extract(epoch FROM now())::float8");
        for query in [
            "created_at FROM trust",
            "assigned_at FROM fl_kit_slot WHERE slot_number = 1",
            "audit_date FROM trusts_audit",
        ] {
            // On an older hub the column holds UTC.
            let (column, rest) = query.split_once(' ').unwrap();
            let at = if column_type == "timestamp" { " AT TIME ZONE 'UTC'" } else { "" };
            let written: f64 =
                hub.value(&format!("SELECT extract(epoch FROM {column}{at})::float8 {rest}"));
            assert!(
                written >= before - 0.001 && written <= after,
                "{column_type} {column}: {written} not in {before}..{after}"
            );
        }
    }
}

#[test]
fn a_hub_with_more_columns_is_fine() {
    let mut hub = Hub::new();
    hub.execute(
        "ALTER TABLE trust ADD disabled_at timestamptz, ADD notes text;
                 ALTER TABLE fl_kit_slot ADD notes text; ALTER TABLE trusts_audit ADD reason text",
    );
    let kit = hub.program(&NEW).run().full_kit();
    hub.assert_registered(&kit);
}

#[test]
fn a_second_registration_waits_for_the_first_and_takes_over_if_that_fails() {
    let mut hub = Hub::new();
    let ssm = Ssm::new().always(Answer::Hold);
    let first = ssm.serve(hub.program(&NEW).arg("--out-ssm-parameter").arg("/kit")).spawn();
    eventually("the first run delivers", || !ssm.requests().is_empty());
    let second = hub.program(&NEW).spawn();
    eventually("the second run waits for the lock", || {
        hub.value::<i64>(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        ) == 1
    });
    drop(first);
    let kit = second.wait().full_kit();
    hub.assert_registered(&kit);
    assert_eq!(hub.count("trust"), 1);
}

#[test]
fn a_name_that_the_hubs_api_inserts_meanwhile_exists_now_where_names_are_unique() {
    let mut hub = Hub::new();
    hub.execute("CREATE UNIQUE INDEX ON trust (name)");
    let mut api = hub.session();
    let mut inserting = api.transaction().unwrap();
    let insert = "INSERT INTO trust (id, name, created_at) VALUES ('11111111-0000-0000-0000-000000000000', 'A', now())";
    inserting.batch_execute(insert).unwrap();
    let run = hub.program(&NEW).spawn();
    eventually("the run waits for the API's insert", || hub.waiting() == 1);
    inserting.commit().unwrap();
    let kit = run.wait().metadata_only_kit();
    assert_eq!(kit[0]["trust_id"], "11111111-0000-0000-0000-000000000000");
    assert_eq!(hub.count("fl_kit_slot WHERE assigned_to_trust_id IS NOT NULL"), 0);
    assert_eq!(hub.count("trusts_audit"), 0);
}

#[test]
fn another_unique_index_that_refuses_the_trust_is_reported_as_such() {
    let mut hub = Hub::new();
    hub.execute("CREATE UNIQUE INDEX ON trust (code); CREATE UNIQUE INDEX ON trust (lower(name))");
    hub.program(&NEW).run().full_kit();
    for other in [["--name", "B", "--code", "GSTT"], ["--name", "a", "--code", "X"]] {
        let run = hub.program(&other).run().fails();
        run.says("the hub did not keep the trust's row (trust) as it was given")
            .says("or a unique index that refuses the row");
    }
    assert_eq!(hub.count("trust"), 1);
    assert_eq!(hub.count("fl_kit_slot WHERE assigned_to_trust_id IS NOT NULL"), 1);
}

#[test]
fn the_defaults_of_the_role_do_no_harm() {
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_read_only = on",
        "TimeZone = 'Asia/Kathmandu'",
        "synchronous_commit = off",
        "standard_conforming_strings = off",
        "DateStyle = 'German'",
        "bytea_output = 'escape'",
        "enable_indexscan = off",
    ] {
        let mut hub = Hub::new();
        hub.execute(&format!(
            "SET default_transaction_read_only = off; ALTER DATABASE {} SET {setting}",
            hub.database
        ));
        if setting.contains("read_only") {
            let refused = hub.session().batch_execute("DELETE FROM trust").unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        }
        let runs: Vec<_> = (0..4).map(|_| hub.program(&NEW).spawn()).collect();
        let full: Vec<_> = runs
            .into_iter()
            .map(|run| run.wait().kit())
            .filter(|kit| !kit[0]["trust_api_key"].is_null())
            .collect();
        assert_eq!(full.len(), 1, "{setting}");
        hub.assert_registered(&full[0]);
    }
}

#[test]
fn a_registration_and_a_skip_take_three_round_trips_after_the_login_and_a_look_two() {
    let hub = Hub::new();
    let relay = Relay::new();
    let round_trips = |arguments: &[&str]| {
        relay.serve(hub.program(arguments)).env("PGSSLMODE", "disable").run().exits(0);
        relay.round_trips()
    };
    // The login has three of its own: start-up, and two of SCRAM.
    assert_eq!(round_trips(&NEW), (3, 3));
    assert_eq!(round_trips(&NEW), (3, 3));
    assert_eq!(round_trips(&["--name", "A", "--require-existing"]), (3, 2));
}

#[test]
fn a_statement_that_the_hub_refuses_leaves_nothing_and_shows_the_hubs_words() {
    let mut hub = Hub::new();
    let role = format!("poor_{}", hub.database);
    hub.execute(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'poor'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let run = hub
        .program(&NEW)
        .env("POSTGRES_USER", role.as_str())
        .env("POSTGRES_PASSWORD", "poor")
        .run()
        .fails();
    run.says("cannot find or register the trust: permission denied for table ")
        .says("next: grant POSTGRES_USER");
    hub.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    hub.assert_untouched();

    hub.execute("ALTER TABLE trusts_audit RENAME TO elsewhere");
    let run = hub.program(&NEW).run().fails();
    run.says("relation \"trusts_audit\" does not exist (SQLSTATE 42P01)")
        .says("next: run the hub's migrations");
    hub.execute("ALTER TABLE elsewhere RENAME TO trusts_audit");
    hub.assert_untouched();
}

#[test]
fn the_optional_indexes_can_be_built_twice_and_are_refused_where_names_are_doubled() {
    let mut hub = Hub::new();
    let valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text IN ('trust_name_unique', 'fl_kit_slot_free')";
    hub.execute("INSERT INTO trust (id, name, created_at) SELECT gen_random_uuid(), 'St. Mary''s', now() FROM generate_series(1, 2)");
    let (done, said) = hub.build_indexes();
    assert!(
        !done && said.contains("no index was built: several trusts share a name: 'St. Mary''s' ("),
        "{said}"
    );
    assert_eq!(hub.value::<i64>(valid), 0);
    // An index that an interrupted build left behind is built anew.
    assert!(
        hub.admin
            .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY trust_name_unique ON trust (name)")
            .is_err()
    );
    hub.execute("DELETE FROM trust");
    for _ in 0..2 {
        let (done, said) = hub.build_indexes();
        assert!(done, "{said}");
        assert_eq!(hub.value::<i64>(valid), 2);
    }
    let kit = hub.program(&NEW).run().full_kit();
    hub.assert_registered(&kit);
}

#[test]
fn the_lock_of_a_name_is_gone_when_the_run_ends() {
    let mut hub = Hub::new();
    let start = std::time::Instant::now();
    for _ in 0..5 {
        hub.program(&["--name", "A", "--require-existing"]).run().fails();
    }
    assert!(start.elapsed() < Duration::from_secs(20), "a run waited for the one before");
    hub.assert_untouched();
}

#[test]
fn a_trust_whose_kit_is_lost_is_deleted_by_the_script_and_registered_anew() {
    let mut hub = Hub::new();
    let lost = hub.program(&["--name", "A", "--code", "A"]).run().full_kit();
    let id = format!("trust_id={}", lost[0]["trust_id"].as_str().unwrap());
    // Something of the hub's that refers to the trust stands in the way, and nothing changes.
    hub.execute("CREATE TABLE project AS SELECT id AS trust_id FROM trust");
    hub.execute("ALTER TABLE project ADD FOREIGN KEY (trust_id) REFERENCES trust (id)");
    let nobody = "trust_id=6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    let (done, said) = hub.psql("sql/delete_trust.sql", &["-v", nobody]);
    assert!(!done && said.contains("nothing was changed: no trust has the id 6d0d9d8e"), "{said}");
    let (done, said) = hub.psql("sql/delete_trust.sql", &["-v", &id]);
    assert!(!done && said.contains("violates foreign key constraint"), "{said}");
    hub.assert_registered(&lost);
    hub.execute("DROP TABLE project");
    let (done, said) = hub.psql("sql/delete_trust.sql", &["-v", &id]);
    assert!(done, "{said}");
    assert_eq!(hub.count("trust"), 0);
    assert_eq!(hub.count("trusts_audit WHERE action = 'DELETED'"), 1);
    assert_eq!(hub.count("fl_kit_slot WHERE assigned_at IS NOT NULL"), 0);
    let anew = hub.program(&["--name", "A", "--code", "A"]).run().full_kit();
    assert_ne!(anew[0]["trust_id"], lost[0]["trust_id"]);
    hub.assert_registered(&anew);
}

#[test]
fn the_statements_run_by_hand_in_psql_as_their_comments_say() {
    let mut hub = Hub::with_slots(&[]);
    let mut script = String::new();
    for file in [
        "open",
        "await_slot",
        "give_back",
        "reconcile",
        "register",
        "confirm",
        "in_recovery",
        "registered",
        "open",
        "look",
        "in_recovery",
        "check_kit",
    ] {
        let sql = fs::read_to_string(root().join(format!("sql/{file}.sql"))).unwrap();
        let comment = sql.lines().skip_while(|line| !line.starts_with("-- By hand in psql"));
        let recipe: Vec<_> = comment.filter_map(|line| line.strip_prefix("--   ")).collect();
        let recipe = recipe.join("\n");
        assert!(
            recipe.contains(&format!("sql/{file}.sql")),
            "{file}.sql does not say how to run it"
        );
        script += &match file {
            "register" => recipe + "\nCOMMIT;\n",
            // The answer is shown, too.
            "look" => recipe.trim_end_matches(';').to_owned() + " \\gset\n\\warn :slot_name\n",
            "check_kit" => recipe.trim_end_matches(';').to_owned() + " \\gset\n\\warn :valid\n",
            _ => recipe + "\n",
        };
    }
    let path = env::temp_dir().join(format!("register-trust-by-hand-{}.sql", std::process::id()));
    fs::write(&path, format!("{script}\\warn :name_lock\n")).unwrap();
    let (done, said) = hub.psql(path.to_str().unwrap(), &["-v", "ON_ERROR_STOP=1"]);
    fs::remove_file(path).unwrap();
    assert!(done, "{said}\n{script}");
    let name_lock = said.trim().strip_prefix("Trust_1\nt\n");
    let name_lock = name_lock.unwrap_or_else(|| panic!("{said}\n{script}"));
    let run = hub.program(&["--name", "St Thomas", "--require-existing"]);
    assert_eq!(run.run().metadata_only_kit()[0]["fl_kit_slot"], "Trust_1");
    assert_eq!(hub.count("trusts_audit WHERE trust_name = 'St Thomas'"), 1);

    // The lock of the name is the program's own.
    hub.execute(&format!("SELECT pg_advisory_lock({name_lock})"));
    let run = hub.program(&["--name", "St Thomas", "--require-existing"]).spawn();
    eventually("the run waits for the name", || hub.waiting() == 1);
    hub.execute("SELECT pg_advisory_unlock_all()");
    run.wait().metadata_only_kit();
}
