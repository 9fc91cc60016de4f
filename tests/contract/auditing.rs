//! doc/reference.md, "Registration": the hub's own auditing sees a registration as the write that
//! it is.

use std::fs;

use crate::support::Hub;
use crate::support::hub::{Cluster, postgres_bin};

/// The lines that a server's log gets while something is done.
fn logged(hub: &Hub, work: impl FnOnce()) -> String {
    let path = hub.cluster.data().join("log");
    let before = fs::read_to_string(&path).unwrap().len();
    work();
    // A line is in the file before the statement's answer is sent.
    fs::read_to_string(&path).unwrap()[before..].to_owned()
}

/// How many lines hold all of these words.
fn lines(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// What changes rows, as the server's log shows it when asked for writes.
const WRITES: [&str; 3] =
    ["INSERT INTO trust (id", "UPDATE fl_kit_slot", "INSERT INTO trusts_audit"];

fn audited(name: &str, options: &str, mark: &str, statements: &[&str]) {
    let dir = std::env::temp_dir().join(format!("register-trust-{}-{name}", std::process::id()));
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(dir, options)));
    let mut hub = Hub::on(cluster);
    let program = |arguments: &[&str]| hub.program(arguments);

    let log = logged(&hub, || drop(program(&["--name", "A", "--code", "X"]).run().full_kit()));
    for statement in statements {
        assert!(
            lines(&log, &[mark, statement]) > 0,
            "{statement} was not recorded as it is:\n{log}"
        );
    }
    for write in WRITES {
        assert!(log.contains(write), "{write} was not recorded:\n{log}");
    }
    // The statement that would register is sent for a trust that is there, too. It changes no row.
    let log = logged(&hub, || {
        program(&["--name", "A", "--code", "X"]).run().metadata_only_kit();
    });
    let rows: Vec<_> = log.lines().filter_map(|line| line.split_once("<not logged>,")).collect();
    assert_eq!(rows.is_empty(), mark != "AUDIT: SESSION", "{log}");
    assert!(rows.iter().all(|(_, rows)| *rows == "0"), "a skip changed rows:\n{log}");
    // The key that the trust gets is nowhere in the hub's log.
    let kit = program(&["--name", "B", "--code", "X"]).run().full_kit();
    let log = fs::read_to_string(hub.cluster.data().join("log")).unwrap();
    for key in ["trust_api_key", "trust_internal_service_key"] {
        assert!(!log.contains(kit[0][key].as_str().unwrap()), "the hub's log holds a key");
    }

    let log = logged(&hub, || {
        program(&["--name", "A", "--code", "X", "--require-existing"]).run().metadata_only_kit();
        program(&["--name", "C", "--require-existing"]).run().fails();
        let id = kit[0]["trust_id"].as_str().unwrap();
        program(&["--name", "B", "--check-kit", id]).run().exits(0);
    });
    assert_eq!(lines(&log, &[mark]), 0, "a run that only looks is recorded as a write:\n{log}");

    // What is added to the pool is a write, too.
    hub.execute("DELETE FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL");
    let log = logged(&hub, || {
        let run = hub.program(&["--name", "D", "--code", "X"]);
        run.env("FL_KIT_SLOT_NAMES", r#"["Trust_77"]"#).run().full_kit();
    });
    assert!(log.contains("INSERT INTO fl_kit_slot"), "the reconcile was not recorded:\n{log}");
    hub.assert_no_session();
}

#[test]
fn pgaudit_records_what_a_registration_writes_and_nothing_of_a_run_that_only_looks() {
    let lib = postgres_bin().join("../lib/pgaudit.so");
    assert!(lib.exists(), "{lib:?} is not there: deploy/dev/need.sh installs it");
    let options = "-c max_connections=100 -c fsync=off -c shared_preload_libraries=pgaudit \
                   -c pgaudit.log=write -c pgaudit.log_rows=on -c pgaudit.log_relation=on";
    audited(
        "pgaudit",
        options,
        "AUDIT: SESSION",
        &[
            ",WRITE,INSERT,TABLE,public.trust,",
            ",WRITE,UPDATE,TABLE,public.fl_kit_slot,",
            ",WRITE,INSERT,TABLE,public.trusts_audit,",
        ],
    );
    let options = options.replace("log_relation=on", "log_relation=off");
    audited("pgaudit-statements", &options, "AUDIT: SESSION", &[",WRITE,INSERT,"]);
}

#[test]
fn log_statement_mod_records_what_a_registration_writes_and_nothing_of_a_run_that_only_looks() {
    let options = "-c max_connections=100 -c fsync=off -c log_statement=mod";
    audited("log-statement", options, "LOG:  execute", &["<unnamed>"]);
}
