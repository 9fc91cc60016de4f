//! The checker can fail: each kind of disagreement, made by hand, is noticed.

use std::time::Duration;

use super::checker::{Record, Tally, check, check_beside, compare};
use crate::support::{Hub, Ssm};

/// Runs of every outcome: registered and found again on stdout, registered through SSM, failed,
/// and failed at the commit on either way.
fn storm() -> (Hub, Vec<Record>) {
    let mut hub = Hub::new();
    let ssm = Ssm::new();
    let mut records = Vec::new();
    let mut run = |hub: &Hub, name: &str, more: &[&str]| {
        let program = hub.program(&["--name", name]);
        let run = ssm.serve(more.iter().fold(program, |program, more| program.arg(*more))).run();
        let record = Record::of(name, &run);
        records.push(match more.last().filter(|last| last.starts_with('/')) {
            Some(parameter) => record.with(&ssm, parameter),
            None => record,
        });
    };
    run(&hub, "A", &["--code", "X"]);
    run(&hub, "A", &[]);
    run(&hub, "B", &["--code", "X", "--out-ssm-parameter", "/b"]);
    run(&hub, "C", &[]);
    hub.refuse_commits();
    run(&hub, "D", &["--code", "X"]);
    run(&hub, "E", &["--code", "X", "--out-ssm-parameter", "/e"]);
    (hub, records)
}

#[track_caller]
fn noticed(problem: &str, tamper: impl FnOnce(&mut Hub, &mut Vec<Record>)) {
    let (mut hub, mut records) = storm();
    tamper(&mut hub, &mut records);
    let check = std::panic::AssertUnwindSafe(|| check(&mut hub, &records));
    let panic = std::panic::catch_unwind(check).expect_err("it went unnoticed");
    let panic = panic.downcast::<String>().unwrap();
    assert!(panic.starts_with(problem), "{panic}");
}

#[test]
fn a_storm_without_a_disagreement_passes() {
    let (mut hub, records) = storm();
    let tally = Tally { runs: 6, ended: 0, committed: 2, metadata_only: 1, worthless: 2 };
    assert_eq!(check(&mut hub, &records), tally);
}

#[test]
fn a_lost_kit_is_noticed() {
    noticed("LOST: nobody got its kit", |_, records| records[2].parameter = None);
    noticed("LOST: nobody got its kit", |_, records| records[0].stdout.clear());
}

#[test]
fn a_kit_with_another_key_is_noticed() {
    noticed("LOST: its kit's key is another one", |_, records| {
        records[0].stdout = records[0].stdout.replace("api_key\":\"", "api_key\":\"x");
    });
    noticed("LOST: its kit's key is another one", |hub, _| {
        hub.execute("UPDATE trust SET api_key_hash = NULL WHERE name = 'B'");
    });
}

#[test]
fn something_written_over_a_kit_is_noticed() {
    let over = "LOST: something lies over the kit";
    noticed(over, |_, records| records[0].stdout += "[]\n");
    noticed(over, |_, records| records[2].parameter.as_mut().unwrap().1.push("[]".to_owned()));
    noticed(over, |_, records| {
        let kit = records[1].stdout.clone();
        records[0].stdout += &kit;
    });
}

#[test]
fn a_second_row_of_a_name_is_noticed() {
    noticed("a second row of its name", |hub, records| {
        hub.execute("DROP TRIGGER refuse ON trust; UPDATE trust SET name = 'F' WHERE name = 'A'");
        let run = hub.program(&["--name", "A", "--code", "X"]).run();
        records.push(Record::of("A", &run));
        hub.execute("UPDATE trust SET name = 'A' WHERE name = 'F'");
    });
}

#[test]
fn an_audit_row_that_does_not_agree_is_noticed() {
    let audit = "not the one audit row";
    for tampering in [
        "DELETE FROM trusts_audit WHERE trust_name = 'A'",
        "UPDATE trusts_audit SET trust_name = 'B'",
        "UPDATE trusts_audit SET action = 'DELETED'",
        "UPDATE trusts_audit SET modified_by_user_id = gen_random_uuid()",
        "INSERT INTO trusts_audit SELECT gen_random_uuid(), trust_id, trust_name, action, NULL, audit_date FROM trusts_audit",
    ] {
        noticed(audit, |hub, _| hub.execute(tampering));
    }
    noticed("an audit row without a trust", |hub, _| {
        hub.execute("UPDATE trusts_audit SET trust_id = gen_random_uuid()");
    });
}

#[test]
fn a_slot_that_does_not_agree_is_noticed() {
    let slot = "not the one slot of its kit";
    for tampering in [
        "UPDATE fl_kit_slot SET assigned_to_trust_id = NULL, assigned_at = NULL",
        "UPDATE fl_kit_slot SET slot_number = 11 WHERE assigned_at IS NOT NULL",
        "UPDATE fl_kit_slot SET assigned_to_trust_id = (SELECT id FROM trust WHERE name = 'A'), assigned_at = now()
          WHERE slot_name = 'Trust_9'",
    ] {
        noticed(slot, |hub, _| hub.execute(tampering));
    }
    let half = "a slot of nobody, or half assigned";
    noticed(half, |hub, _| hub.execute("UPDATE fl_kit_slot SET assigned_at = now()"));
    noticed(half, |hub, _| hub.execute("UPDATE fl_kit_slot SET assigned_at = NULL"));
    noticed(half, |hub, _| {
        hub.execute(
            "ALTER TABLE fl_kit_slot DROP CONSTRAINT fl_kit_slot_assigned_to_trust_id_fkey;
             UPDATE fl_kit_slot SET assigned_to_trust_id = gen_random_uuid(), assigned_at = now()
              WHERE slot_name = 'Trust_9'",
        );
    });
}

#[test]
fn a_receipt_without_a_row_is_noticed() {
    noticed("a receipt without a row", |_, records| {
        records[5].parameter.as_mut().unwrap().1.pop();
    });
    noticed("a receipt without a row", |hub, _| {
        hub.execute(
            "UPDATE fl_kit_slot SET assigned_to_trust_id = NULL, assigned_at = NULL WHERE slot_name = 'Trust_2';
             DELETE FROM trust WHERE name = 'B'; DELETE FROM trusts_audit WHERE trust_name = 'B'",
        );
    });
}

#[test]
fn an_exit_that_does_not_agree_is_noticed() {
    noticed("exit 0 without a row and its kit", |_, records| records[4].exit = Some(0));
    noticed("exit 0 without a row and its kit", |_, records| records[2].stdout.clear());
    noticed("a failure without the verdict []", |_, records| records[0].exit = Some(1));
    noticed("a failure without the verdict []", |_, records| records[3].stdout.clear());
    noticed("a kit that is called safe and is not", |_, records| {
        records[3].stderr += "its kit is safe";
    });
    for exit in [Some(2), Some(101), None] {
        noticed("an exit of its own kind", |_, records| records[0].exit = exit);
    }
}

#[test]
fn words_that_do_not_agree_are_noticed() {
    noticed("it says that nothing was registered", |_, records| {
        records[0].stderr = records[3].stderr.clone();
    });
    noticed("a line that is no kit", |_, records| records[3].stdout.insert_str(0, "[{\n"));
    noticed("neither a receipt nor nothing", |_, records| records[2].stdout += "/b\n");
    noticed("a kit for another name", |_, records| records[0].name = "F".to_owned());
    noticed("a key that is missing, or on stderr", |_, records| {
        records[4].stderr = records[4].stdout.clone();
    });
    noticed("a kit without credentials for a trust that is not there", |_, records| {
        records[1].stdout = records[1].stdout.replace("trust_id\":\"", "trust_id\":\"0");
    });
    noticed("two full kits of one run", |_, records| {
        let other = records[4].stdout.replace("\"D\"", "\"A\"").replace("[]\n", "");
        records[0].stdout.insert_str(0, &other);
    });
}

#[test]
fn what_is_left_open_is_noticed() {
    let mut session = None;
    noticed("an advisory lock is left", |hub, _| {
        let mut other = hub.session();
        other.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
        session = Some(other);
    });
    noticed("an open transaction is left", |hub, _| {
        let mut other = hub.session();
        other.batch_execute("BEGIN").unwrap();
        session = Some(other);
    });
    drop(session);
}

#[test]
fn a_session_of_the_program_that_does_not_end_is_noticed() {
    let (mut hub, records) = storm();
    let mut session = hub.session();
    session.batch_execute("SET application_name = 'register-trust'").unwrap();
    let problem = compare(&mut hub, &records, &[], Duration::ZERO).unwrap_err();
    assert_eq!(problem, "a session of the program is left");
}

#[test]
fn trusts_that_others_registered_need_no_kit() {
    let (mut hub, records) = storm();
    hub.execute("DROP TRIGGER refuse ON trust");
    hub.execute("INSERT INTO trust (id, name, created_at) VALUES (gen_random_uuid(), 'A', now())");
    let stranger: String = hub.value("SELECT id::text FROM trust WHERE api_key_hash IS NULL");
    assert_eq!(check_beside(&mut hub, &records, &[stranger]).committed, 2);
}
