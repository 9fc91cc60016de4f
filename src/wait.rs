//! Waiting, always with an end: a limit, or a signal (doc/reference.md, "Time limits").
//!
//! The program does one thing at a time. The thread that [`within`] starts exists only because
//! neither the `postgres` crate, nor the resolver, nor a write to a pipe can be told when to give
//! up. The caller waits here meanwhile. Work that is given up keeps what it owns until the process
//! ends, which is soon.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Failure;

/// How long a signal can go unnoticed.
const GLANCE: Duration = Duration::from_millis(20);
/// Enough for the deepest nesting that the longest session can hold (wire.rs).
const STACK: usize = 8 << 20;
/// Longest wait for each step of the clean-up after a signal: a container's engine kills what is
/// still there after ten seconds.
const CLEAN_UP: Duration = Duration::from_secs(4);

/// The signal that has come, or 0.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
/// Signals do not end a wait any more.
static HELD: AtomicBool = AtomicBool::new(false);
/// No thread can be had.
static THREADLESS: AtomicBool = AtomicBool::new(false);
/// Only the verdict is left to do: a signal shortens the waits for it.
static CLEANING: AtomicBool = AtomicBool::new(false);

/// Lets TERM, INT and HUP end waits instead of the process, also for process 1 of a container,
/// which has no default reaction to them.
/// Errors: the system refuses the handler.
pub fn watch_signals() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register_usize(signal, SIGNAL.clone(), usize::try_from(signal).unwrap_or_default())?;
    }
    Ok(())
}

/// From here on signals wait for the end of the run.
/// Errors: one has come before.
pub fn hold_signals() -> Result<(), Failure> {
    if HELD.swap(true, SeqCst) || SIGNAL.load(SeqCst) == 0 { Ok(()) } else { Err(interrupted()) }
}

/// From here on a signal leaves only the clean-up's time to what is waited for.
pub fn clean_up() {
    HELD.store(true, SeqCst);
    CLEANING.store(true, SeqCst);
}

/// The limit, or less of it if a signal has come.
pub fn patience(limit: Duration) -> Duration {
    if SIGNAL.load(SeqCst) == 0 { limit } else { limit.min(CLEAN_UP) }
}

/// What a signal makes of a run that has not begun to commit.
pub fn interrupted() -> Failure {
    let names = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGHUP, "SIGHUP")];
    let came = SIGNAL.load(SeqCst);
    let name = names.iter().find(|(signal, _)| usize::try_from(*signal) == Ok(came));
    let name = name.map_or("a signal", |(_, name)| name);
    Failure::new(format!("the run was interrupted by {name}"), "run again when you are ready")
}

/// What became of a peer that did not answer in time.
pub fn no_answer(limit: Duration) -> String {
    format!("no answer within {:.0} s", limit.as_secs_f32().ceil())
}

/// Writes for at most `limit`, or less if a signal has come. Where no thread can be had it writes without
/// a limit: the verdict, and the reason, must be said all the same.
pub fn write_within<T: Send + 'static, E: From<Failure>>(
    limit: Duration,
    late: impl FnOnce(Duration) -> E,
    write: impl FnOnce() -> T + Clone + Send + 'static,
) -> Result<T, E> {
    let written = within(patience(limit), late, write.clone());
    if THREADLESS.load(SeqCst) { Ok(write()) } else { written }
}

/// Runs `work` for at most `limit`.
/// Errors: `late`, and the work is given up; TERM, INT or HUP came; or the work could not start, or
/// ended in a panic.
pub fn within<T: Send + 'static, E: From<Failure>>(
    mut limit: Duration,
    late: impl FnOnce(Duration) -> E,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, E> {
    let start = Instant::now();
    let (done, result) = mpsc::sync_channel(1);
    let start_thread = || thread::Builder::new().stack_size(STACK).spawn(move || done.send(work()));
    if THREADLESS.load(SeqCst) || start_thread().is_err() {
        THREADLESS.store(true, SeqCst);
        let next = "raise the limit of processes (ulimit -u, a container's pids), and run again";
        return Err(Failure::new("cannot start a thread", next).into());
    }
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match result.recv_timeout(left.min(GLANCE)) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::internal("internal error, see the line before").into());
            }
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(late(limit)),
            Err(RecvTimeoutError::Timeout) if SIGNAL.load(SeqCst) == 0 => {}
            Err(RecvTimeoutError::Timeout) if !HELD.load(SeqCst) => {
                return Err(interrupted().into());
            }
            Err(RecvTimeoutError::Timeout) if CLEANING.load(SeqCst) => {
                limit = limit.min(start.elapsed() + CLEAN_UP);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
