//! A limit on calls that have none of their own.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Runs `work` for at most `limit` and gives its result, or says why there is none.
///
/// The program does one thing at a time; this thread exists only because neither the `postgres`
/// crate nor the resolver can be told when to give up on a peer that accepted and then fell
/// silent. The caller waits here. Work that is given up keeps what it owns until the process
/// ends, which is soon.
///
/// # Errors
/// A sentence for the operator: no answer in time, or the work could not be done.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, result) = mpsc::sync_channel(1);
    thread::Builder::new()
        .spawn(move || done.send(work()))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    result.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("no answer within {:.0} s", limit.as_secs_f32()),
        RecvTimeoutError::Disconnected => "internal error, see the line before".to_owned(),
    })
}
