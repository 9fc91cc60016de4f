//! The commit's outcome is asked for, not assumed (README, "Delivery").
//!
//! `Ok` from a client library is not the server's word: PostgreSQL answers `COMMIT` with
//! `ROLLBACK`, and no error, where the transaction had failed before.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use postgres::SimpleQueryMessage;

use crate::error::Failure;
use crate::hub::{CONNECT, Hub, STATEMENT};
use crate::settings::Settings;

/// Longest time to ask for an outcome after the connection broke.
const OUTCOME: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(250);

/// Commits and has the server say so, on a new connection if this one breaks.
/// Errors: it was not committed; or nobody can say, and then the kit stays where it is.
pub fn commit(
    mut hub: Hub,
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
) -> Result<(), Failure> {
    let aborted = |why: &str| Failure::new(format!("the hub did not commit: {why}"), "run again");
    // One round trip.
    let commit = format!("COMMIT;\n{}", question(xact_id));
    let broken = match first_value(&mut hub, STATEMENT, commit) {
        Ok(status) if status == "committed" => return Ok(()),
        Ok(status) if status == "aborted" => {
            return Err(aborted("it rolled the transaction back"));
        }
        Ok(_) => "it did not say what became of the transaction".to_owned(),
        Err(cause) => cause,
    };
    drop(hub);
    debug!("the commit was not confirmed ({broken}); asking on a new connection");
    let deadline = Instant::now() + OUTCOME;
    loop {
        let cause = match ask(settings, xact_id, trust_id, deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(aborted(&broken)),
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

fn question(xact_id: i64) -> String {
    include_str!("../sql/confirm.sql").replace(":'xact_id'", &format!("'{xact_id}'"))
}

/// Whether the trust is registered, asked on a new connection.
/// Errors: why nobody can say yet.
fn ask(
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
    deadline: Instant,
) -> Result<bool, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut hub = Hub::connect(settings, CONNECT.min(left())).map_err(|failure| failure.what)?;
    match first_value(&mut hub, left(), question(xact_id)) {
        Ok(status) if status == "in progress" => {
            return Err("the transaction is still in progress".to_owned());
        }
        // "in the future": a server that crashed has lost the number, and the transaction.
        Err(cause) if !cause.contains("SQLSTATE 22023") => return Err(cause),
        Ok(_) | Err(_) => {}
    }
    // A message of its own, for a snapshot that is younger than the transaction's end.
    let registered = include_str!("../sql/registered.sql");
    let registered = registered.replace(":'trust_id'", &format!("'{trust_id}'"));
    Ok(first_value(&mut hub, left(), registered)? == "t")
}

fn first_value(hub: &mut Hub, limit: Duration, sql: String) -> Result<String, String> {
    let answer = hub.ask(limit, move |client| client.simple_query(&sql));
    let value = answer.map_err(|failure| failure.what)?.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}
