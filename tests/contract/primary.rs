//! doc/reference.md, "The commit": only the primary is believed about a commit, and about what is
//! registered.

use crate::support::hub::{Cluster, Standby};
use crate::support::not_run::{mounts, not_run};
use crate::support::relay::{Later, Strike, When};
use crate::support::{Hub, Relay};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// A hub with a standby that has all but what comes from now on.
fn lagging(cluster: &'static Cluster) -> (Hub, Standby) {
    let (mut hub, standby) = (Hub::on(cluster), Standby::of(cluster));
    standby.catch_up(&mut hub);
    standby.pause_replay();
    (hub, standby)
}

#[test]
fn a_standby_that_lags_is_not_believed_about_a_commit() {
    let (mut hub, standby) = lagging(Cluster::own("lags", &[]));
    let relay = Relay::to(hub.cluster)
        .strike(When::After("COMMIT"), Strike::Cut)
        .later(Later::Elsewhere(standby.address()));
    let run = relay.serve(hub.program(&NEW)).run().exits(1);
    let run = run.says("left in place").never_says("nothing was registered");
    assert!(relay.connections() > 1, "nobody was asked{}", run.dump());
    hub.assert_registered(&serde_json::from_str(&run.stdout).unwrap());
}

#[test]
fn a_standby_under_the_hubs_own_name_is_not_believed_about_a_commit() {
    if !mounts() {
        return not_run("a hub's name that leads to two servers (needs a mount namespace)");
    }
    let (mut hub, standby) = lagging(Cluster::own("name", &[]));
    // A resolver gives the address first that is nearer to 127.0.0.1.
    let relay = Relay::beside("127.0.0.2", hub.cluster)
        .strike(When::After("COMMIT"), Strike::Cut)
        .later(Later::Closed);
    let hosts = format!("127.0.0.2 flip-db\\n{} flip-db\\n", standby.address().ip());
    let program = relay.serve(hub.program(&NEW)).env("DB_HOST", "flip-db");
    let run = program.where_hosts_are(&hosts).run().exits(1);
    let run = run.says("left in place").never_says("nothing was registered");
    assert!(relay.connections() > 1, "the relay was not asked again{}", run.dump());
    hub.assert_registered(&serde_json::from_str(&run.stdout).unwrap());
}

#[test]
fn a_standby_that_is_promoted_between_two_questions_is_not_believed_about_a_commit() {
    let (cluster, recovery) = (Cluster::own("promoted", &[]), "pg_is_in_recovery");
    for question in [When::After("pg_xact_status"), When::Before(recovery), When::After(recovery)] {
        let (mut hub, standby) = lagging(cluster);
        let relay = Relay::to(hub.cluster)
            .strike(When::After("COMMIT"), Strike::Cut)
            .strike(question, Strike::Hold)
            .later(Later::Elsewhere(standby.address()));
        let (run, struck) = relay.run(hub.program(&NEW), |_| {
            standby.promote();
            relay.release();
        });
        let run = run.never_says("nothing was registered");
        assert!(struck || question == When::After("pg_xact_status"), "{question:?}{}", run.dump());
        assert_eq!(run.stdout.lines().count(), 1, "{question:?}{}", run.dump());
        hub.assert_registered(&serde_json::from_str(&run.stdout).unwrap());
    }
}

#[test]
fn a_standby_that_has_caught_up_and_is_promoted_says_that_the_trust_is_registered() {
    let (mut hub, standby) = lagging(Cluster::own("caught-up", &[]));
    standby.resume_replay();
    let relay = Relay::to(hub.cluster)
        .strike(When::After("COMMIT"), Strike::Hold)
        .later(Later::Elsewhere(standby.address()));
    let (run, struck) = relay.run(hub.program(&NEW), |_| {
        standby.catch_up(&mut hub);
        standby.promote();
    });
    assert!(struck, "{}", run.dump());
    let kit = run.full_kit();
    hub.admin = standby.session(&hub);
    hub.assert_registered(&kit);
}

#[test]
fn a_standby_that_does_not_know_a_trust_is_not_believed_with_require_existing() {
    let (hub, standby) = lagging(Cluster::own("existing", &[]));
    hub.program(&NEW).run().full_kit();
    let run = standby.serve(hub.program(&["--name", "A", "--require-existing"])).run().exits(1);
    run.prints("[]\n")
        .never_says("no trust \"A\" is registered")
        .says("the server is a standby, and only the hub's primary can say")
        .says("next: point DB_HOST to the hub's primary, and run again");
}

#[test]
fn a_standby_registers_nothing_and_the_operator_is_pointed_to_the_primary() {
    let (mut hub, standby) = lagging(Cluster::own("standby", &[]));
    let run = standby.serve(hub.program(&NEW)).run().fails();
    run.says("next: point DB_HOST to the hub's primary");
    // Without a code it only looks, and cannot say that the trust is unknown.
    let run = standby.serve(hub.program(&["--name", "A"])).run().fails();
    run.says("next: point DB_HOST to the hub's primary").never_says("--code");
    hub.assert_untouched();
}
