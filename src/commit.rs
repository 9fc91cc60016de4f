//! The commit's outcome is asked for, not assumed (README, "Delivery").
//!
//! `Ok` from a client library is not the server's word: PostgreSQL answers `COMMIT` with
//! `ROLLBACK`, and no error, where the transaction had failed before.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use postgres::SimpleQueryMessage;

use crate::error::Failure;
use crate::hub::{CONNECT, Hub};
use crate::settings::Settings;

/// Longest time to ask for an outcome after the connection broke.
const OUTCOME: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(250);

fn question(xact_id: i64) -> String {
    include_str!("../sql/confirm.sql").replace(":'xact_id'", &format!("'{xact_id}'"))
}

/// The commit and the question for its outcome: one round trip.
pub fn statements(xact_id: i64) -> String {
    format!("COMMIT;\n{}", question(xact_id))
}

/// What `sql/confirm.sql` says: whether the transaction is committed; `None` while it is in
/// progress.
pub fn status(answer: &[SimpleQueryMessage]) -> Option<bool> {
    match first_value(answer) {
        Some("committed") => Some(true),
        Some("aborted") => Some(false),
        _ => None,
    }
}

/// The failure of a transaction that the server says is aborted.
pub fn aborted(why: &str) -> Failure {
    Failure::new(format!("the hub did not commit: {why}"), "run again")
}

/// Asks on new connections, after the one that was to commit is `broken`.
/// Errors: it was aborted; or nobody can say, and then the kit stays where it is.
pub fn ask_again(
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
    broken: &str,
) -> Result<(), Failure> {
    debug!("the commit was not confirmed ({broken}); asking on a new connection");
    let deadline = Instant::now() + OUTCOME;
    loop {
        let cause = match ask(settings, xact_id, trust_id, deadline) {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(aborted(broken)),
            Ok(None) => "the transaction is still in progress".to_owned(),
            Err(cause) => cause,
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(Failure {
                what: format!(
                    "the connection broke during the commit of transaction {xact_id}, and the hub cannot be \
                     asked for its outcome: {broken}; then {cause}; the trust may be registered, and the kit \
                     that was delivered is left in place"
                ),
                next: format!(
                    "ask the hub: SELECT count(*) FROM trust WHERE id = '{trust_id}'; 1: the kit is valid; 0, and \
                     SELECT pg_xact_status('{xact_id}') is no longer 'in progress': discard it and run again"
                ),
                kit_stays: true,
            });
        }
        thread::sleep(PAUSE);
    }
}

fn ask(
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
    deadline: Instant,
) -> Result<Option<bool>, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut hub = Hub::connect(settings, CONNECT.min(left())).map_err(|failure| failure.what)?;
    match hub.ask(left(), move |client| client.simple_query(&question(xact_id))) {
        Ok(answer) if status(&answer).is_none() => return Ok(None),
        // "in the future": a server that crashed has lost the number, and the transaction.
        Err(failure) if !failure.what.contains("SQLSTATE 22023") => return Err(failure.what),
        Ok(_) | Err(_) => {}
    }
    // A message of its own, for a snapshot that is younger than the transaction's end.
    let registered = include_str!("../sql/registered.sql");
    let registered = registered.replace(":'trust_id'", &format!("'{trust_id}'"));
    let answer = hub.ask(left(), move |client| client.simple_query(&registered));
    answer.map(|answer| Some(first_value(&answer) == Some("t"))).map_err(|failure| failure.what)
}

fn first_value(answer: &[SimpleQueryMessage]) -> Option<&str> {
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
        _ => None,
    })
}
