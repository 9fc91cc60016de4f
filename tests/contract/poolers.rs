//! README, "Registration": behind a pooler of connections.

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

#[test]
fn a_pooler_of_statements_is_refused_and_registers_nothing() {
    let mut hub = Hub::new();
    let pooler = Pooler::before(hub.cluster, Pool::Statements);
    pooler.serve(hub.program(&NEW)).run().fails();
    hub.assert_untouched();
}

/// As Odyssey does where it pools statements: what follows the opening batch goes elsewhere.
#[test]
fn a_pooler_that_runs_the_statements_outside_the_transaction_is_recognised_and_refused() {
    let mut hub = Hub::new();
    let relay = Relay::new().rewrite("SAVEPOINT claim;", "ROLLBACK;       ");
    relay.serve(hub.program(&NEW)).env("PGSSLMODE", "disable").run().fails().says("pool");
    hub.assert_untouched();
}
