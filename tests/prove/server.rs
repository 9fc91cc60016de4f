//! The hub's server fails: it restarts, it is full, it is a standby.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::checker::{check, say};
use super::storm::{Job, side_by_side};
use crate::support::hub::Cluster;
use crate::support::not_run::{mounts, not_run};
use crate::support::relay::{Relay, Strike, When};
use crate::support::{Answer, Hub, Ssm, eventually};

/// Ways for a server to go down.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Down {
    Fast,
    Immediate,
    /// Its log cannot grow any more: PostgreSQL panics.
    LogFull,
}

impl Down {
    fn go(self, cluster: &Cluster, hub: &mut Hub) {
        match self {
            Down::Fast => assert!(cluster.pg_ctl("stop -m fast")),
            Down::Immediate => assert!(cluster.pg_ctl("stop -m immediate")),
            Down::LogFull => {
                let pid = std::fs::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
                let limit =
                    "for pid in $0 $(pgrep -P $0); do prlimit --fsize=8388608 --pid $pid; done";
                assert!(cluster.as_server(&["sh", "-c", limit, pid.lines().next().unwrap()]));
                let fill = "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 20000000))";
                hub.admin.batch_execute(fill).expect_err("the log has no limit");
                assert!(cluster.pg_ctl("stop -m immediate") || !cluster.pg_ctl("status"));
            }
        }
    }
}

#[test]
fn a_server_that_goes_down_during_a_delivery_registers_nothing_and_the_run_finds_that_out() {
    let cluster = Cluster::own("restarts", &[]);
    let mut hub = Hub::on(cluster);
    let (mut records, mut outcomes) = (Vec::new(), Vec::new());
    for (n, (down, asked_while_down)) in [Down::Fast, Down::Immediate, Down::LogFull]
        .into_iter()
        .flat_map(|down| [(down, false), (down, true)])
        .enumerate()
    {
        let ssm = Ssm::new().script(&[Answer::Hold]);
        let (program, record) = Job::new(&hub, &ssm, n, n, true).split();
        let running = program.spawn();
        eventually("the run delivers", || !ssm.requests().is_empty());
        down.go(cluster, &mut hub);
        if asked_while_down {
            ssm.release();
            // It asks for the outcome, and nobody answers.
            std::thread::sleep(Duration::from_secs(2));
        }
        assert!(cluster.pg_ctl("start"));
        ssm.release();
        let run = running.wait();
        hub.admin = hub.session();
        outcomes.push((down, asked_while_down, run.dump()));
        records.push(record(&run, &ssm));
    }
    assert_eq!(check(&mut hub, &records).committed, 0);
    hub.assert_untouched();
    for (down, asked_while_down, run) in outcomes {
        assert!(run.contains("the hub did not commit"), "{down:?}, {asked_while_down}{run}");
    }
}

/// A crash can take the number of a transaction back that had not written anything to disk yet:
/// the next one gets it, and its outcome is not the run's.
#[test]
fn a_transaction_number_that_is_given_out_again_after_a_crash_is_not_taken_for_the_runs_own() {
    let cluster = Cluster::own("numbers", &[]);
    let (mut hub, ssm) = (Hub::on(cluster), Ssm::new().script(&[Answer::Hold]));
    hub.execute("CHECKPOINT");
    let (program, first) = Job::new(&hub, &ssm, 0, 0, true).split();
    let running = program.spawn();
    eventually("the run delivers", || !ssm.requests().is_empty());
    assert!(cluster.pg_ctl("stop -m immediate") && cluster.pg_ctl("start"));
    let (program, second) = Job::new(&hub, &ssm, 1, 1, false).split();
    let second = second(&program.run().exits(0), &ssm);
    ssm.release();
    let first = first(&running.wait(), &ssm);
    hub.admin = hub.session();
    assert_eq!(check(&mut hub, &[first, second]).committed, 1);
}

#[test]
fn no_kit_is_lost_when_the_server_crashes_again_and_again() {
    let cluster = Cluster::own("crashes", &[]);
    let (mut hub, ssm) = (Hub::on(cluster), Ssm::new());
    hub.fill_pool(400);
    let jobs: Vec<_> = (0..300).map(|n| Job::new(&hub, &ssm, n, n, n % 2 == 0)).collect();
    let (over, goes_on) = std::sync::mpsc::channel::<()>();
    let records = std::thread::scope(|scope| {
        scope.spawn(move || {
            // Ends with the other end of the channel, also where a run fails the test.
            while goes_on.recv_timeout(Duration::from_millis(300)) == Err(RecvTimeoutError::Timeout)
            {
                assert!(cluster.pg_ctl("stop -m immediate") && cluster.pg_ctl("start"));
            }
        });
        let _over = over;
        side_by_side("crashes", 4, jobs, |job: Job| {
            let (program, record) = job.split();
            record(&program.run(), &ssm)
        })
    });
    hub.admin = hub.session();
    let tally = check(&mut hub, &records);
    say(&format!("crashes: {} runs, {tally}", tally.runs));
    assert!(tally.committed > 0 && tally.committed < tally.runs, "{tally}");
}

/// A role of the hub that is no superuser, for whom limits do not count.
fn clerk(hub: &mut Hub) -> String {
    let clerk = format!("clerk_of_{}", hub.database);
    hub.execute(&format!(
        "CREATE ROLE {clerk} LOGIN PASSWORD 'four-words-of-it' CONNECTION LIMIT 1;
         GRANT SELECT, INSERT, UPDATE ON trust, fl_kit_slot, trusts_audit TO {clerk}"
    ));
    clerk
}

#[test]
fn a_hub_without_a_free_connection_registers_nothing() {
    let mut hub = Hub::new();
    let (clerk, ssm) = (clerk(&mut hub), Ssm::new().script(&[Answer::Hold]));
    let job = |n| {
        let (program, record) = Job::new(&hub, &ssm, n, n, true).split();
        (program.env("POSTGRES_USER", &clerk).env("POSTGRES_PASSWORD", "four-words-of-it"), record)
    };
    let [(first, first_record), (second, second_record), (third, third_record)] =
        [0, 1, 2].map(job);
    let first = first.spawn();
    eventually("the first run delivers", || !ssm.requests().is_empty());
    let second = second.run().exits(1).says("(SQLSTATE 53300); nothing was registered");
    let second = second.says("next: wait until the hub has connections to spare");
    ssm.release();
    let first = first.wait().exits(0);
    hub.assert_no_session();
    let third = third.run().exits(0);
    let records =
        [first_record(&first, &ssm), second_record(&second, &ssm), third_record(&third, &ssm)];
    assert_eq!(check(&mut hub, &records).committed, 2);
}

#[test]
fn an_outcome_is_asked_for_until_the_hub_has_a_connection_for_it() {
    for (when, exit) in [(When::After("COMMIT"), 0), (When::Before("COMMIT"), 1)] {
        let mut hub = Hub::new();
        let clerk = clerk(&mut hub);
        let (ssm, relay) =
            (Ssm::new().script(&[Answer::Hold]), Relay::new().strike(when, Strike::Cut));
        let (program, record) = Job::new(&hub, &ssm, 0, 0, true).split();
        let program =
            program.env("POSTGRES_USER", &clerk).env("POSTGRES_PASSWORD", "four-words-of-it");
        let running = relay.serve(program).spawn();
        eventually("the run delivers", || !ssm.requests().is_empty());
        hub.execute(&format!("ALTER ROLE {clerk} CONNECTION LIMIT 0"));
        ssm.release();
        eventually("the run has asked several times", || relay.connections() > 4);
        hub.execute(&format!("ALTER ROLE {clerk} CONNECTION LIMIT -1"));
        let run = running.wait().exits(exit);
        let tally = check(&mut hub, &[record(&run, &ssm)]);
        assert_eq!(tally.committed, usize::from(exit == 0), "{}", run.dump());
    }
}

#[test]
fn a_standby_registers_nothing_until_it_is_promoted() {
    let cluster = Cluster::own("standby", &[]);
    let (mut hub, ssm) = (Hub::on(cluster), Ssm::new());
    let mut records = Vec::new();
    let mut run = |hub: &Hub, trust, exit| -> String {
        let n = records.len();
        let (program, record) = Job::new(hub, &ssm, trust, n, n % 2 == 0).split();
        let run = program.run().exits(exit);
        records.push(record(&run, &ssm));
        run.stderr
    };
    run(&hub, 0, 0);
    assert!(cluster.pg_ctl("stop -m fast"));
    std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
    assert!(cluster.pg_ctl("start"));
    hub.admin = hub.session();
    assert!(hub.value::<bool>("SELECT pg_is_in_recovery()"));
    for trust in [0, 0, 1, 1] {
        let stderr = run(&hub, trust, 1);
        assert!(
            stderr.contains("next: point DB_HOST to the hub's primary, and run again"),
            "{stderr}"
        );
    }
    assert!(cluster.pg_ctl("promote"));
    for trust in [0, 0, 1, 2] {
        run(&hub, trust, 0);
    }
    assert_eq!(check(&mut hub, &records).committed, 3);
}

/// Where mounting is allowed the table is on a file system of 16 MB, otherwise no file of the
/// server may be larger than that.
#[test]
fn a_hub_that_is_out_of_disk_registers_nothing_until_there_is_room() {
    let space =
        std::env::temp_dir().join(format!("register-trust-{}-disk/space", std::process::id()));
    std::fs::create_dir_all(&space).unwrap();
    let space = space.to_str().unwrap();
    let mount =
        "mount -t tmpfs -o size=16m,mode=700,uid=$(id -u postgres || id -u nobody) none \"$0\"";
    // A user's own namespace has no other user for the server.
    let mountable = Cluster::is_root() && mounts();
    if Cluster::is_root() && !mountable {
        not_run("a hub on a file system that is full (needs a mount namespace)");
    }
    let mounted = format!("{mount} && exec \"$@\"");
    let cluster = if mountable {
        Cluster::own("disk", &["unshare", "-m", "sh", "-c", &mounted, space])
    } else {
        Cluster::own("disk", &["bash", "-c", "ulimit -f 16384 && exec \"$@\"", "limited"])
    };
    let (mut hub, ssm) = (Hub::on(cluster), Ssm::new());
    if mountable {
        hub.execute(&format!("CREATE TABLESPACE small LOCATION '{space}'"));
        hub.execute("ALTER TABLE trust SET TABLESPACE small");
    }
    // To be thrown off when room is needed.
    let small = if mountable { "TABLESPACE small" } else { "" };
    hub.execute(&format!(
        "CREATE TABLE ballast {small} AS SELECT repeat('x', 1000) FROM generate_series(1, 400)"
    ));
    // One row fills a page: the next one needs another.
    hub.execute("ALTER TABLE trust SET (fillfactor = 10, autovacuum_enabled = off)");
    let fill = "INSERT INTO trust (id, name, region, created_at)
        SELECT gen_random_uuid(), 'filler', repeat('x', 1500), now() FROM generate_series(1, $1)";
    for rows in [1000, 100, 10, 1] {
        let full = loop {
            if let Err(full) = hub.admin.execute(&fill.replace("$1", &rows.to_string()), &[]) {
                break full;
            }
        };
        let message = full.as_db_error().unwrap().message().to_owned();
        assert!(message.contains("could not extend file"), "{message}");
    }
    let mut records = Vec::new();
    let mut runs = |hub: &Hub, exit, says: &str| {
        for trust in 0..4 {
            let n = records.len();
            let (program, record) = Job::new(hub, &ssm, trust, n, n % 2 == 0).split();
            let run = program.run().exits(exit).says(says);
            records.push(record(&run, &ssm));
        }
    };
    runs(&hub, 1, "cannot find or register the trust: could not extend file");
    hub.execute("DELETE FROM trust WHERE name = 'filler'");
    hub.execute("DROP TABLE ballast");
    hub.execute("VACUUM trust");
    runs(&hub, 0, "INFO registered trust");
    assert_eq!(check(&mut hub, &records).committed, 4);
    say(if mountable { "disk: a full file system" } else { "disk: a file at its limit" });
}
