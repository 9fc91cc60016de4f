//! Log lines for people, on stderr. Of this crate alone: rusoto and tokio-postgres log requests,
//! bodies and parameters.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::error::Failure;
use crate::wait;

/// Longest wait for whoever reads stderr.
const WRITE: Duration = Duration::from_secs(30);

/// Nobody reads stderr: further lines are dropped, and the run goes on.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

struct Stderr;

/// Logs this level and what is above it.
pub fn start_logger(level: LevelFilter) {
    log::set_max_level(level);
    // A second logger is not started.
    let _ = log::set_logger(&Stderr);
}

/// Writes the text. With stderr gone there is nobody left to tell.
pub fn write(text: String) {
    if GIVEN_UP.load(Relaxed) {
        return;
    }
    let late = |_| {
        GIVEN_UP.store(true, Relaxed);
        Failure::internal("")
    };
    let write = move || io::stderr().write_all(text.as_bytes());
    let _ = wait::write_within(WRITE, late, write);
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == module_path!().split("::").next()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Python's words, which deploy scripts search for.
            let level = match record.level() {
                Level::Warn => "WARNING",
                level => level.as_str(),
            };
            write(format!("{level} {}\n", record.args()));
        }
    }

    fn flush(&self) {}
}
