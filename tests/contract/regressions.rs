//! What reviewers found, each with its cause.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::hand_over::{Place, in_a_group, says, text};
use crate::support::relay::{Later, Strike, When};
use crate::support::{Answer, Hub, Relay, Ssm, eventually};

const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];
const TO_SSM: [&str; 6] = ["--name", "A", "--code", "GSTT", "--out-ssm-parameter", "/k"];

/// An answer without a version counted as version 1: the kit was registered and nowhere.
#[test]
fn an_answer_of_ssm_without_a_version_is_no_delivery() {
    let mut hub = Hub::new();
    for answer in ["{}", r#"{"Version":0}"#, r#"{"Version":null}"#, r#"{"Version":"1"}"#, "[]", ""]
    {
        let ssm = Ssm::new().always(Answer::Garbage(answer));
        ssm.serve(hub.program(&TO_SSM))
            .run()
            .exits(1)
            .prints("")
            .says("the answer does not come from SSM");
        hub.assert_untouched();
    }
}

/// The error's code and the parser's messages went to the log as they came.
#[test]
fn an_endpoint_that_puts_the_kit_anywhere_into_its_answer_does_not_get_it_logged() {
    let echoes: [fn(&str) -> Vec<u8>; 6] = [
        |kit| echo(400, kit, json!({ "__type": kit })),
        |kit| echo(400, kit, json!({ "__type": "X", "message": format!("near {:.20}", key(kit)) })),
        |kit| echo(200, kit, json!({ "Version": kit })),
        |kit| echo(400, kit, json!({ "__type": "X", "message": "the backend short-1 is bad" })),
        |kit| echo(400, kit, json!({ "__type": "X", "message": "in c2VjcmV0LXNlY3J there" })),
        |kit| echo(200, kit, json!({ "Name": "/k", "Overwrite": true, "Value": kit })),
    ];
    let mut hub = Hub::new();
    let not_shown = "AWS refused: its answer is not shown, because it quotes a secret";
    let not_ssm = "the answer does not come from SSM";
    let said = [
        "unreadable (HTTP 400, request unreadable)",
        "not shown, because it",
        not_ssm,
        not_shown,
        not_shown,
        not_ssm,
    ];
    for (echo, said) in echoes.into_iter().zip(said) {
        let ssm = Ssm::new().always(Answer::Raw(echo)).verdicts(Answer::Refuse(400, "No", ""));
        let program = ssm.serve(hub.program(&TO_SSM)).arg("-v").env("FL_BACKEND", "short-1");
        let run = program.env("AES_KEY_BASE64", "c2VjcmV0LXNlY3JldC1zZWNyZXQ=").run().exits(1);
        for leak in ["trust_api", "short-1", "c2VjcmV0LX", "LXNlY3JldC"] {
            assert!(!run.stderr.contains(leak), "{leak}{}", run.dump());
        }
        run.says(said);
        hub.assert_untouched();
    }
}

/// The kit from its first key on.
fn key(kit: &str) -> &str {
    kit.split_once("_key\":\"").unwrap().1
}

fn echo(status: u16, kit: &str, answer: Value) -> Vec<u8> {
    let (id, answer) = (key(kit), answer.to_string());
    let head = format!("HTTP/1.1 {status} X\r\nx-amzn-requestid: {id}");
    format!("{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).into_bytes()
}

/// The limit was given to the connection and once more to the question.
#[test]
fn asking_for_an_outcome_ends_within_its_fifteen_seconds_even_if_the_login_is_slow() {
    let hub = Hub::new();
    // The connection breaks at the commit; later ones log in slowly, and the question freezes.
    let relay = Relay::new()
        .strike(When::Before("COMMIT"), Strike::Cut)
        .strike(When::Before("pg_xact_status"), Strike::Hold)
        .later(Later::Late(Duration::from_secs(3)));
    let run = relay.serve(hub.program(&NEW)).env("PGSSLMODE", "disable").run().exits(1);
    run.says("did not say whether it was committed").within(17);
}

/// Whether slots are free was judged by a snapshot from before the wait.
#[test]
fn a_slot_that_comes_free_during_the_wait_for_another_is_taken() {
    let mut hub = Hub::with_slots(&["Trust_1", "Trust_2"]);
    hub.program(&["--name", "Old", "--code", "X"]).run().full_kit();
    hub.execute("UPDATE fl_kit_slot SET slot_number = 9 WHERE slot_name = 'Trust_1'");
    let mut other = hub.session();
    let mut transaction = other.transaction().unwrap();
    let take = "UPDATE fl_kit_slot SET assigned_to_trust_id = (SELECT id FROM trust) WHERE slot_name = 'Trust_2'";
    transaction.execute(take, &[]).unwrap();
    let run = hub.program(&NEW).spawn();
    eventually("the run waits", || hub.waiting() == 1);
    hub.execute("UPDATE fl_kit_slot SET assigned_to_trust_id = NULL, assigned_at = NULL WHERE slot_name = 'Trust_1'");
    transaction.commit().unwrap();
    assert_eq!(run.wait().full_kit()[0]["fl_kit_slot"], "Trust_1");
}

/// The parameter went on holding a kit that looked valid, and the next move was never printed.
#[test]
fn a_dead_kit_that_cannot_be_taken_back_is_named() {
    let mut hub = Hub::new();
    hub.refuse_commits();
    let ssm =
        Ssm::new().script(&[Answer::Store, Answer::Refuse(400, "AccessDeniedException", "no")]);
    let run = ssm.serve(hub.program(&TO_SSM)).run().exits(1).prints("");
    run.says("cannot leave [] as the verdict either: ")
        .says("/k may hold a kit that was never registered: delete it");
}

/// A good kit that nobody had read yet was overwritten by `[]` without a word.
#[test]
fn a_verdict_that_overwrites_something_says_how_to_read_it() {
    let hub = Hub::new();
    let ssm = Ssm::new();
    ssm.serve(hub.program(&TO_SSM)).run().exits(0);
    let run = ssm.serve(hub.program(&TO_SSM)).env("DB_PORT", "1").run().exits(1).prints("/k\n");
    run.says(
        "WARNING /k existed and was overwritten; the earlier version can still be read as /k:1",
    );
}

/// After an attempt whose answer was lost the version before the last is our own.
#[test]
fn after_a_lost_answer_the_warning_points_further_back() {
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Store, Answer::DropAfter]);
    ssm.serve(hub.program(&TO_SSM)).run().exits(0);
    let run = ssm.serve(hub.program(&TO_SSM)).run().exits(0);
    run.says("can still be read as /k:2 or before");
}

/// A variable that is looked at only on a pool miss failed every run.
#[test]
fn slot_names_that_are_not_utf8_count_as_none_and_only_when_they_are_needed() {
    let mut hub = Hub::with_slots(&["Trust_1"]);
    let names = OsStr::from_bytes(b"[\"Trust_2\xff\"]");
    hub.program(&NEW).env("FL_KIT_SLOT_NAMES", names).run().full_kit();
    let run =
        hub.program(&["--name", "B", "--code", "B"]).env("FL_KIT_SLOT_NAMES", names).run().fails();
    run.says("WARNING no slot names from FL_KIT_SLOT_NAMES: it is not UTF-8");
    assert_eq!(hub.count("trust"), 1);
}

/// A newline in a setting made a line of its own in the log.
#[test]
fn a_setting_cannot_forge_a_log_line() {
    let run = Hub::new().program(&NEW).env("POSTGRES_USER", "x\nERROR forged").run().fails();
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.dump());
}

/// Each run took the other's unfinished indexes for leftovers and dropped them.
#[test]
fn the_index_script_does_not_run_beside_itself() {
    let mut hub = Hub::new();
    let mut first = hub.session();
    first
        .execute("SELECT pg_advisory_lock(hashtextextended('register-trust indexes', 0))", &[])
        .unwrap();
    let sql = std::fs::read_to_string(crate::support::root().join("sql/indexes.sql")).unwrap();
    let start = sql.find("DO $$").unwrap();
    let end = sql[start..].find("$$;").unwrap() + start + 3;
    let refused = hub.admin.batch_execute(&sql[start..end]).unwrap_err();
    assert!(
        refused.as_db_error().unwrap().message().contains("another run of this script is at work")
    );
}

/// Ctrl-C between the two forks of the pipe made bash forget PIPESTATUS: the script ended without a word
/// about what it left. The storm of pairs found it.
#[test]
fn a_script_that_is_interrupted_as_it_starts_its_reader_says_what_it_left() {
    let place = Place::new();
    // The pause gives the first one the time to get it alone.
    let (hook, file) =
        place.hook("[[ $BASH_COMMAND != 'converse '* ]] || { sleep 0.3; kill -INT 0; }");
    let run = in_a_group(place.command(&["deploy/register.sh", "1"], &[(hook, &file)]));
    assert_eq!(run.status.code(), Some(1), "{}", text(&run));
    says(&run, "without a kit; nothing was registered for trust 1");
}
