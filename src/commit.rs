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
use crate::settings::HubSettings;

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
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => match row.try_get(0) {
            Ok(Some("committed")) => Some(true),
            Ok(Some("aborted")) => Some(false),
            _ => None,
        },
        _ => None,
    })
}

/// The failure of a transaction that the server says is aborted.
pub fn aborted(why: &str) -> Failure {
    Failure::new(format!("the hub did not commit: {why}"), "run again")
}

/// Asks on new connections, after the one that was to commit is `broken`.
///
/// # Errors
/// It was aborted; or nobody can say, and then the kit stays where it is.
pub fn ask_again(
    settings: &HubSettings,
    xact_id: i64,
    trust_id: &str,
    broken: &str,
) -> Result<(), Failure> {
    debug!("the commit was not confirmed ({broken}); asking on a new connection");
    let deadline = Instant::now() + OUTCOME;
    loop {
        let cause = match ask(settings, xact_id, deadline) {
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
                    "ask the hub: SELECT pg_xact_status('{xact_id}'); if it says committed, the kit is valid \
                     (trust {trust_id}); if aborted, discard it and run again"
                ),
                kit_stays: true,
            });
        }
        thread::sleep(PAUSE);
    }
}

fn ask(settings: &HubSettings, xact_id: i64, deadline: Instant) -> Result<Option<bool>, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut hub = Hub::connect(settings, CONNECT.min(left())).map_err(|failure| failure.what)?;
    let answer = hub.ask(left(), move |client| client.simple_query(&question(xact_id)));
    answer.map(|answer| status(&answer)).map_err(|error| error.cause)
}
