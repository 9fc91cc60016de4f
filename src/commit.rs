//! The commit's outcome is asked for, not assumed (README, "Delivery").
//!
//! `Ok` from a client library is not the server's word: PostgreSQL answers `COMMIT` with
//! `ROLLBACK`, and no error, where the transaction had failed before.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use postgres::error::SqlState;
use postgres::{Client, Error, SimpleQueryMessage};

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
    let sql = format!("COMMIT;\n{}", question(xact_id));
    let answer = hub.ask(STATEMENT, move |client| first_value(client, &sql));
    let broken = match answer.as_deref() {
        Ok("committed") => return Ok(()),
        Ok("aborted") => return Err(aborted("it rolled the transaction back")),
        Ok(_) => "it did not say what became of the transaction",
        Err(failure) => &failure.what,
    };
    drop(hub);
    debug!("the commit was not confirmed ({broken}); asking on a new connection");
    let deadline = Instant::now() + OUTCOME;
    loop {
        let cause = match ask(settings, xact_id, trust_id, deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(aborted(broken)),
            Err(failure) => failure.what,
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(Failure {
                what: format!(
                    "the connection broke during the commit of transaction {xact_id}, and the hub \
                     cannot be asked for its outcome: {broken}; then {cause}; the trust may be \
                     registered, and the kit that was delivered is left in place"
                ),
                next: format!(
                    "ask the hub: SELECT count(*) FROM trust WHERE id = '{trust_id}'; 1: the kit \
                     is valid; 0, and SELECT pg_xact_status('{xact_id}') is no longer 'in \
                     progress': discard it and run again"
                ),
                kit_stays: true,
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the trust is registered, asked on a new connection.
/// Errors: why nobody can say yet.
fn ask(
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
    deadline: Instant,
) -> Result<bool, Failure> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut hub = Hub::connect(settings, CONNECT.min(left()))?;
    let status = hub.ask(left(), move |client| match first_value(client, &question(xact_id)) {
        // "in the future": a server that crashed has lost the number, and the transaction.
        Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Ok("".to_owned()),
        status => status,
    })?;
    if status == "in progress" {
        return Err(Failure::new("the transaction is still in progress", ""));
    }
    // A message of its own, for a snapshot that is younger than the transaction's end.
    let sql = include_str!("../sql/registered.sql");
    let sql = sql.replace(":'trust_id'", &format!("'{trust_id}'"));
    Ok(hub.ask(left(), move |client| first_value(client, &sql))? == "t")
}

fn question(xact_id: i64) -> String {
    include_str!("../sql/confirm.sql").replace(":'xact_id'", &format!("'{xact_id}'"))
}

/// The first column of the first row; empty if there is none.
fn first_value(client: &mut Client, sql: &str) -> Result<String, Error> {
    let value = client.simple_query(sql)?.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}
