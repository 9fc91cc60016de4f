//! Crowds: many runs at once, among others who lock, insert, roll back and beat their hearts.
//! `RUNS` sets how many.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::SqlState;

use super::checker::{Record, Tally, check_beside, say};
use super::random::number;
use crate::support::{Answer, Hub, Program, Run, Ssm, eventually};

fn runs() -> usize {
    number("RUNS").map_or(60, |runs| runs as usize)
}

/// Crowds take turns: one of them nearly fills the server.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hub with so many free slots, and with the optional indexes or without them.
fn hub(slots: usize, indexed: bool) -> Hub {
    let mut hub = Hub::with_slots(&[]);
    hub.fill_pool(slots);
    if indexed {
        let (built, said) = hub.build_indexes();
        assert!(built, "{said}");
    }
    hub
}

/// Starts them all and lets them go on when each has logged in and stands before the tables.
fn at_once(hub: &mut Hub, programs: Vec<Program>) -> Vec<Run> {
    let mut session = hub.session();
    let mut gate = session.transaction().unwrap();
    gate.batch_execute("LOCK TABLE trust, fl_kit_slot IN ACCESS EXCLUSIVE MODE").unwrap();
    let count = programs.len();
    let running: Vec<_> = programs.into_iter().map(Program::spawn).collect();
    // They wait 29 s and no longer: where logging in takes them long, the gate opens early.
    let start = Instant::now();
    while hub.waiting() < count as i64 && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    gate.rollback().unwrap();
    running.into_iter().map(|run| run.wait()).collect()
}

fn named(n: usize) -> String {
    format!("Trust no. {n}")
}

/// A run that registers trust `n`.
fn registers(hub: &Hub, n: usize) -> Program {
    hub.program(&["--code", "X", "--name", &named(n)])
}

/// The checker's judgement. `strangers` are the ids of rows that others inserted.
fn judge(what: &str, hub: &mut Hub, records: &[Record], strangers: &[String]) -> Tally {
    let tally = check_beside(hub, records, strangers);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(hub.value::<i64>(deadlocks), 0, "deadlocks");
    say(&format!("crowds: {what}: {} runs, {tally}", tally.runs));
    tally
}

fn records(runs: &[Run], name: impl Fn(usize) -> String) -> Vec<Record> {
    runs.iter().enumerate().map(|(n, run)| Record::of(&name(n), run)).collect()
}

/// Does something again and again in sessions of its own, told their number and the round's, for
/// as long as it says so and the main thing goes on.
fn meanwhile<T>(
    hub: &mut Hub,
    sessions: usize,
    again: impl Fn(&mut Client, usize, usize) -> bool + Sync,
    main: impl FnOnce(&mut Hub) -> T,
) -> T {
    /// Also if the main thing panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let stop = AtomicBool::new(false);
    let clients: Vec<_> = (0..sessions).map(|_| hub.session()).collect();
    thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let (stop, again) = (&stop, &again);
            scope.spawn(move || {
                let mut rounds = (0..).take_while(|_| !stop.load(Ordering::SeqCst));
                rounds.all(|round| again(&mut client, number, round));
            });
        }
        let _stop = Stop(&stop);
        main(hub)
    })
}

#[test]
fn a_crowd_of_one_name_ends_as_one_row_and_one_full_kit() {
    let _turn = turn();
    for indexed in [false, true] {
        let mut hub = hub(10, indexed);
        let crowd = (0..runs()).map(|_| registers(&hub, 1)).collect();
        let done = at_once(&mut hub, crowd);
        let full = done.iter().filter(|run| run.kit()[0]["trust_api_key"].is_string()).count();
        assert_eq!(full, 1);
        let tally = judge("one name", &mut hub, &records(&done, |_| named(1)), &[]);
        let (runs, metadata_only) = (runs(), runs() - 1);
        assert_eq!(tally, Tally { runs, committed: 1, metadata_only, ..Tally::default() });
    }
}

#[test]
fn a_crowd_on_too_few_slots_takes_each_of_them_and_the_rest_fails_cleanly() {
    let _turn = turn();
    let slots = runs() * 3 / 4;
    let configured: Vec<_> = (1..=slots).map(|n| format!("Trust_{n}")).collect();
    let configured = serde_json::to_string(&configured).unwrap();
    // In the pool already; or each of the runs finds it empty and adds them.
    for pool in [slots, 0] {
        let mut hub = hub(pool, pool > 0);
        let run = |n| registers(&hub, n).env("FL_KIT_SLOT_NAMES", configured.as_str());
        let crowd = (0..runs()).map(run).collect();
        let done = at_once(&mut hub, crowd);
        let tally = judge("too few slots", &mut hub, &records(&done, named), &[]);
        assert_eq!(tally, Tally { runs: runs(), committed: slots, ..Tally::default() });
        assert_eq!(hub.count("fl_kit_slot"), slots as i64);
        assert_eq!(hub.count("fl_kit_slot WHERE assigned_to_trust_id IS NULL"), 0);
        for run in done.into_iter().filter(|run| !run.status.success()) {
            run.fails().says("no free FL kit slot: all are taken");
        }
    }
}

#[test]
fn what_competitors_and_failed_deliveries_roll_back_is_used_by_others() {
    let _turn = turn();
    for indexed in [false, true] {
        // A quarter cannot print, another quarter cannot put; the slots are enough for the rest.
        let good = |n: usize| n % 4 > 1;
        let mut hub = hub((0..runs()).filter(|n| good(*n)).count(), indexed);
        let ssm = Ssm::new().always(Answer::Refuse(400, "AccessDeniedException", "no"));
        let parameter = |n: usize| format!("/kit/{n}");
        let crowd = (0..runs()).map(|n| match n % 4 {
            0 => registers(&hub, n).stdout(std::io::pipe().unwrap().1),
            1 => ssm.serve(registers(&hub, n)).arg("--out-ssm-parameter").arg(parameter(n)),
            _ => registers(&hub, n),
        });
        let crowd = crowd.collect();
        let rolled_back = AtomicUsize::new(0);
        let compete = |client: &mut Client, number: usize, round: usize| {
            let name = named((number + round * 7) % runs());
            let lock = "SELECT FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL
                         ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED; SELECT pg_sleep(0.005)";
            let insert = format!(
                "INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), '{name}', now());
                 SELECT pg_sleep(0.005)"
            );
            let mut transaction = client.transaction().unwrap();
            let locks = number.is_multiple_of(2);
            match transaction.batch_execute(if locks { lock } else { &insert }) {
                Ok(()) => drop(rolled_back.fetch_add(1, Ordering::SeqCst)),
                // The name was registered meanwhile, and that is all that may go wrong.
                Err(error) => assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION)),
            }
            transaction.rollback().is_ok()
        };
        let done = meanwhile(&mut hub, 8, compete, |hub| at_once(hub, crowd));
        assert!(rolled_back.into_inner() > 8, "hardly any competition");
        let records: Vec<_> = records(&done, named)
            .into_iter()
            .enumerate()
            .map(|(n, record)| if n % 4 == 1 { record.with(&ssm, &parameter(n)) } else { record })
            .collect();
        for (n, run) in done.into_iter().enumerate() {
            if good(n) {
                run.full_kit();
            } else {
                run.exits(1).prints("").says("cannot leave [] as the verdict either");
            }
        }
        let tally = judge("rolling back", &mut hub, &records, &[]);
        let committed = (0..runs()).filter(|n| good(*n)).count();
        assert_eq!(tally, Tally { runs: runs(), committed, ..Tally::default() });
        assert_eq!(hub.count("fl_kit_slot WHERE assigned_to_trust_id IS NULL"), 0);
    }
}

#[test]
fn names_that_the_hubs_api_inserts_meanwhile_end_with_a_kit_for_every_run() {
    let _turn = turn();
    for indexed in [true, false] {
        let mut hub = hub(runs(), indexed);
        let crowd = (0..runs()).map(|n| registers(&hub, n)).collect();
        let inserted = Mutex::new(Vec::new());
        // The API's four sessions share the names, and start with the last ones. The first name is
        // left to its run, so that both register something however fast each of them is.
        let insert = |client: &mut Client, number: usize, round: usize| {
            let n = (runs() - 1).checked_sub(number + 4 * round).filter(|n| *n > 0);
            let Some(n) = n else { return false };
            let mut transaction = client.transaction().unwrap();
            let row = transaction.query_one(
                "INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), $1, now()) RETURNING id::text",
                &[&named(n)],
            );
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
                    return true;
                }
            };
            // As long as the API takes to answer its user.
            transaction.batch_execute("SELECT pg_sleep(0.005)").unwrap();
            transaction.commit().unwrap();
            inserted.lock().unwrap().push(row.get::<_, String>(0));
            true
        };
        assert!(insert(&mut hub.session(), 0, 0), "the API's first name");
        let done = meanwhile(&mut hub, 4, insert, |hub| at_once(hub, crowd));
        let strangers = inserted.into_inner().unwrap();
        let tally = judge("beside the API", &mut hub, &records(&done, named), &strangers);
        assert!(tally.committed > 0 && !strangers.is_empty(), "no race: {tally:?}");
        let metadata_only = runs() - tally.committed;
        let expected =
            Tally { runs: runs(), committed: tally.committed, metadata_only, ..Tally::default() };
        assert_eq!(tally, expected, "a run without a kit");
        for (n, run) in done.iter().enumerate() {
            let ids = "SELECT array_agg(id::text) FROM trust WHERE name = $1";
            let ids: Vec<String> = hub.admin.query_one(ids, &[&named(n)]).unwrap().get(0);
            assert!(
                ids.iter().any(|id| run.kit()[0]["trust_id"] == id.as_str()),
                "{ids:?}{}",
                run.dump()
            );
            assert!(!indexed || ids.len() == 1, "{ids:?}{}", run.dump());
        }
    }
}

#[test]
fn no_heartbeat_waits_for_registrations_whose_delivery_hangs() {
    let _turn = turn();
    const HANGING: usize = 5;
    const SESSIONS: usize = 4;
    for indexed in [false, true] {
        let mut hub = hub(runs() + HANGING, indexed);
        hub.execute("INSERT INTO trust (id, name, created_at) SELECT gen_random_uuid(), 'old ' || n, now() FROM generate_series(1, 20) AS n");
        let strangers: Vec<String> = hub.value("SELECT array_agg(id::text) FROM trust");
        let ssm = Ssm::new().always(Answer::Hold);
        let beats = AtomicUsize::new(0);
        // Each session has rows of its own, so that no heartbeat waits for another one.
        let beat = |client: &mut Client, number: usize, _| {
            client.batch_execute(&format!(
                "SET lock_timeout = '1s';
                 UPDATE trust SET last_heartbeat = now() WHERE abs(hashtext(id::text)) % {SESSIONS} = {number};
                 BEGIN; INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'new {number}', now()); ROLLBACK",
            )).expect("a heartbeat failed or had to wait");
            beats.fetch_add(1, Ordering::SeqCst);
            true
        };
        let parameter = |n: usize| format!("/kit/{n}");
        let (done, hung) = meanwhile(&mut hub, SESSIONS, beat, |hub| {
            let hanging: Vec<_> = (0..HANGING)
                .map(|n| {
                    ssm.serve(registers(hub, runs() + n))
                        .arg("--out-ssm-parameter")
                        .arg(parameter(n))
                        .spawn()
                })
                .collect();
            eventually("all of them deliver", || ssm.requests().len() >= HANGING);
            // Nor does anything else that the hub does to its tables.
            hub.execute(&format!(
                "SET lock_timeout = '1s';
                 INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'other', now());
                 DELETE FROM trust WHERE name IN ('other', 'old 20');
                 UPDATE fl_kit_slot SET slot_number = slot_number WHERE slot_number > {HANGING};
                 LOCK TABLE trust IN ROW EXCLUSIVE MODE; RESET lock_timeout"
            ));
            let before = beats.load(Ordering::SeqCst);
            // Others register and end while those hang.
            let running: Vec<_> = (0..runs()).map(|n| registers(hub, n).spawn()).collect();
            let done: Vec<_> = running.into_iter().map(|run| run.wait()).collect();
            eventually("hearts beat on", || beats.load(Ordering::SeqCst) > before + 20 * SESSIONS);
            assert_eq!(hub.delivering(), HANGING as i64, "they do not hang any more");
            ssm.release();
            (done, hanging.into_iter().map(|run| run.wait()).collect::<Vec<_>>())
        });
        let mut all = records(&done, named);
        all.extend(
            hung.iter()
                .enumerate()
                .map(|(n, run)| Record::of(&named(runs() + n), run).with(&ssm, &parameter(n))),
        );
        let tally = judge("heartbeats", &mut hub, &all, &strangers);
        let runs = runs() + HANGING;
        assert_eq!(tally, Tally { runs, committed: runs, ..Tally::default() });
    }
}
