//! The commit's outcome, and whether a kit is valid: asked of the primary, not assumed
//! (doc/reference.md, "The commit").
//!
//! `Ok` from a client library is not the server's word: PostgreSQL answers `COMMIT` with
//! `ROLLBACK`, and no error, if the transaction had failed before.

use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use postgres::error::SqlState;
use postgres::types::Type;
use postgres::{Client, Error};

use crate::error::Failure;
use crate::hub::{CONNECT, Hub, STATEMENT};
use crate::settings::Settings;
use crate::transaction::{Transaction, rows};
use crate::wait;

/// Longest time to ask for an outcome after the connection broke.
const OUTCOME: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(250);

/// Commits and has the server say so, on a new connection if this one breaks.
/// Errors: it was not committed; or nobody can say, and then the kit stays where it is.
pub fn commit(transaction: Transaction, xact_id: i64, settings: &Settings) -> Result<(), Failure> {
    let Transaction { mut hub, trust_id, .. } = transaction;
    wait::hold_signals()?;
    let aborted = |why: &str| Failure::new(format!("the hub did not commit: {why}"), "run again");
    // One round trip.
    let sql = format!("COMMIT;\n{}", status_question(xact_id));
    let answer = hub.ask(STATEMENT, move |client| last_value(client, &sql));
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
        let cause = match outcome(settings, xact_id, &trust_id, deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(aborted(broken)),
            Err(failure) => failure.what,
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(Failure {
                what: format!(
                    "the connection broke during the commit of transaction {xact_id}, and the hub \
                     did not say whether it was committed: {broken}; then {cause}; the trust may be \
                     registered, and the kit that was delivered is left in place"
                ),
                next: format!(
                    "keep the kit, and ask when the hub's primary is up: register-trust --name \
                     NAME --check-kit {trust_id}"
                ),
                kit_stays: true,
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Whether the transaction is committed, asked on a new connection. The order of the questions
/// matters: a standby that is promoted between them must not be taken for a primary that has
/// nothing to replay.
/// Errors: why nobody can say yet.
fn outcome(
    settings: &Settings,
    xact_id: i64,
    trust_id: &str,
    deadline: Instant,
) -> Result<bool, Failure> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut hub = Hub::connect(settings, CONNECT.min(left()))?;
    ask_primary(&mut hub, left())?;
    let status = hub.ask(left(), move |client| {
        match last_value(client, &status_question(xact_id)) {
            // "in the future": a server that crashed has lost the number, and the transaction.
            Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
                Ok("aborted".to_owned())
            }
            status => status,
        }
    })?;
    // A message of its own, for a snapshot that is younger than the transaction's end.
    let sql = include_str!("../sql/registered.sql");
    let sql = sql.replace(":'trust_id'", &format!("'{trust_id}'"));
    let registered = hub.ask(left(), move |client| last_value(client, &sql))? == "t";
    match status.as_str() {
        // Whatever the number says: a server that crashed gives numbers out again.
        _ if registered => Ok(true),
        "aborted" => Ok(false),
        "committed" => Err(Failure::new("its transaction is committed, and its row not seen", "")),
        _ => Err(Failure::new("the transaction is still in progress", "")),
    }
}

/// Whether the kit of this trust is valid: `Ok(false)` is said only by the primary, while no
/// registration of the name can be open.
/// Errors: why nobody can say.
pub fn is_valid(mut transaction: Transaction) -> Result<bool, Failure> {
    ask_primary(&mut transaction.hub, STATEMENT)?;
    let Transaction { mut hub, name, trust_id, .. } = transaction;
    let valid: Option<bool> = hub.ask(STATEMENT, move |client| {
        // A policy that hides rows is an error then, and no "worthless".
        client.batch_execute("SET LOCAL row_security = off")?;
        let sql = include_str!("../sql/check_kit.sql");
        client.query_typed_one(sql, &[(&trust_id, Type::TEXT), (&name, Type::TEXT)])?.try_get(0)
    })?;
    valid.ok_or_else(Failure::pooled)
}

/// Errors: the server is a standby. It cannot know yet, whatever it would answer.
fn ask_primary(hub: &mut Hub, limit: Duration) -> Result<(), Failure> {
    let recovering =
        hub.ask(limit, |client| last_value(client, include_str!("../sql/in_recovery.sql")))?;
    if recovering == "f" { Ok(()) } else { Err(Failure::standby()) }
}

fn status_question(xact_id: i64) -> String {
    include_str!("../sql/confirm.sql").replace(":'xact_id'", &format!("'{xact_id}'"))
}

/// The first column of the last row; empty if there is none.
fn last_value(client: &mut Client, sql: &str) -> Result<String, Error> {
    let row = rows(client, sql)?.pop();
    Ok(row.and_then(|row| row.try_get(0).ok().flatten().map(str::to_owned)).unwrap_or_default())
}
