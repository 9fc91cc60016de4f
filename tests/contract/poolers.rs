//! doc/deploy.md, "Poolers": behind a pooler of connections.

use crate::support::hub::{Pool, Pooler};
use crate::support::{Hub, Relay};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

#[test]
fn behind_a_pooler_of_transactions_trusts_are_registered_and_found_one_after_the_other() {
    let mut hub = Hub::new();
    let pooler = Pooler::before(hub.cluster, Pool::Transactions);
    for name in ["A", "B", "C"] {
        let kit = pooler.serve(hub.program(&["--name", name, "--code", "X"])).run().full_kit();
        hub.assert_registered(&kit);
        let found = pooler.serve(hub.program(&["--name", name])).run().metadata_only_kit();
        assert_eq!(found[0]["trust_id"], kit[0]["trust_id"]);
    }
}

/// With several connections the runs meet at the hub's lock of the name, with one they queue at the
/// pooler.
#[test]
fn behind_a_pooler_of_transactions_runs_of_one_name_end_as_one_trust_and_one_full_kit() {
    for connections in [4, 1] {
        let mut hub = Hub::new();
        let pooler = Pooler::of(hub.cluster, Pool::Transactions, connections);
        let runs: Vec<_> = (0..8).map(|_| pooler.serve(hub.program(&NEW)).spawn()).collect();
        let kits: Vec<_> = runs.into_iter().map(|run| run.wait().kit()).collect();
        let full: Vec<_> = kits.iter().filter(|kit| kit[0]["trust_api_key"].is_string()).collect();
        assert_eq!(full.len(), 1, "{connections} connections");
        assert!(kits.iter().all(|kit| kit[0]["trust_id"] == full[0][0]["trust_id"]));
        hub.assert_registered(full[0]);
        assert_eq!(hub.count("trust"), 1, "{connections} connections");
        assert_eq!(hub.count("trusts_audit"), 1, "{connections} connections");
    }
}

#[test]
fn behind_a_pooler_of_transactions_runs_of_several_names_get_a_slot_each() {
    let mut hub = Hub::new();
    let pooler = Pooler::of(hub.cluster, Pool::Transactions, 4);
    let names = ["A", "B", "C", "D", "E", "F"];
    let runs =
        names.map(|name| pooler.serve(hub.program(&["--name", name, "--code", "X"])).spawn());
    let kits = runs.map(|run| run.wait().full_kit());
    for kit in &kits {
        hub.assert_registered(kit);
    }
    assert_eq!(hub.count("fl_kit_slot WHERE assigned_to_trust_id IS NOT NULL"), 6);
    let run = pooler.serve(hub.program(&["--name", "G", "--require-existing"])).run().fails();
    run.says("no trust \"G\" is registered");
    let id = kits[0][0]["trust_id"].as_str().unwrap();
    let run = pooler.serve(hub.program(&["--name", "A", "--check-kit", id])).run();
    run.exits(0).prints("valid\n");
}

/// The server's connection lives on behind the pooler, and so would a setting of its session.
#[test]
fn behind_a_pooler_of_transactions_nothing_of_a_run_is_left_on_the_connection() {
    let hub = Hub::new();
    let pooler = Pooler::before(hub.cluster, Pool::Transactions);
    let mut session = pooler.session(&hub);
    let settings = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
                    WHERE name <> 'application_name'";
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (
                     SELECT oid FROM pg_database WHERE datname = current_database())";
    let value = |session: &mut postgres::Client, sql: &str| {
        let rows = session.simple_query(sql).unwrap();
        let row = rows.iter().find_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().to_owned()),
            _ => None,
        });
        row.unwrap()
    };
    let pid = value(&mut session, "SELECT pg_backend_pid()");
    let before = value(&mut session, settings);
    pooler.serve(hub.program(&NEW)).run().full_kit();
    assert_eq!(value(&mut session, "SELECT pg_backend_pid()"), pid, "another connection");
    assert_eq!(value(&mut session, settings), before);
    assert_eq!(value(&mut session, locks), "0");
}

#[test]
fn a_pooler_of_statements_is_refused_and_registers_nothing() {
    let mut hub = Hub::new();
    let pooler = Pooler::before(hub.cluster, Pool::Statements);
    let run = pooler.serve(hub.program(&NEW)).run().fails();
    run.says("transaction blocks not allowed in statement pooling mode")
        .says("next: if a pooler stands in front of the hub, set it to transaction pooling or go around it, and run again");
    let run = pooler.serve(hub.program(&["--name", "A", "--require-existing"])).run().fails();
    run.says("set it to transaction pooling or go around it");
    hub.assert_untouched();
}

/// As Odyssey does where it pools statements: what follows the opening batch goes elsewhere.
#[test]
fn a_pooler_that_runs_the_statements_outside_the_transaction_is_recognised_and_refused() {
    let mut hub = Hub::new();
    let relay = Relay::new().rewrite("SAVEPOINT claim;", "ROLLBACK;       ");
    relay.serve(hub.program(&NEW)).env("PGSSLMODE", "disable").run().fails()
        .says("a pooler runs the statements outside their transaction")
        .says("next: set the pooler in front of the hub to transaction pooling, or go around it, and run again");
    hub.assert_untouched();
}
