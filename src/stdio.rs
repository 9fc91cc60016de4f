//! stdout, which takes the kit and the verdict, and stdin, where a reader acknowledges the kit
//! (doc/reference.md, "Delivery").

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Failure;
use crate::secret::Secret;
use crate::wait;

/// Longest wait for whoever reads stdout.
const WRITE: Duration = Duration::from_secs(30);
/// Longest wait for the acknowledgement.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(30);

/// The descriptor itself: the standard library's `Stdout` takes a closed one for success.
pub struct Stdout {
    /// One write at a time, so that the verdict stands behind a kit whose write was given up and may
    /// still happen.
    file: Arc<Mutex<File>>,
    /// What is written can be read.
    keeps: bool,
    /// A line may have been begun and not ended.
    torn: bool,
}

impl Stdout {
    /// Takes the process's stdout.
    /// Errors: the descriptor cannot be duplicated.
    pub fn open() -> Result<Stdout, Failure> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let file = File::from(stdout.map_err(undelivered)?);
        let kind = file.metadata().map_err(undelivered)?.file_type();
        let keeps = !kind.is_char_device() || file.is_terminal();
        Ok(Stdout { file: Arc::new(Mutex::new(file)), keeps, torn: false })
    }

    /// Errors: what is written is lost: in a device that is no terminal, such as `/dev/null`,
    /// which Rust puts in the place of a closed stdout.
    pub fn leads_somewhere(&self) -> Result<(), Failure> {
        let why = "it is closed, or leads to /dev/null or another device that keeps nothing";
        if self.keeps { Ok(()) } else { Err(undelivered(why)) }
    }

    /// Writes a line, and syncs it if it went into a file.
    /// Errors: every one that the system reports; or nobody reads.
    pub fn print(&mut self, line: &str) -> Result<(), Failure> {
        let start = if mem::replace(&mut self.torn, true) { "\n" } else { "" };
        // One buffer, so that a line that fits goes out in one write.
        let text = Arc::new(Secret::new([start, line, "\n"].concat()));
        let (file, given_up) = (self.file.clone(), Arc::new(AtomicBool::new(false)));
        let over = given_up.clone();
        let late = |_| undelivered("nobody reads it");
        let write = move || {
            let mut file = file.lock().map_err(|_| io::Error::other("internal error"))?;
            if over.load(SeqCst) {
                return Err(io::Error::other("the program gave up waiting"));
            }
            file.write_all(text.expose().as_bytes())?;
            if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
        };
        let written = wait::write_within(WRITE, late, write);
        given_up.store(written.is_err(), SeqCst);
        written?.map_err(undelivered)?;
        self.torn = false;
        Ok(())
    }
}

/// Waits for the line on stdin with which the reader of stdout says that it has stored the kit.
/// Errors: it said something else, or nothing. What it said is not repeated.
pub fn await_acknowledgement(trust_id: &str) -> Result<(), Failure> {
    let expected = format!("{trust_id}\n");
    // A byte more than is right, so that a longer line is seen to be one.
    let longest = u64::try_from(expected.len()).unwrap_or_default() + 1;
    let late = |limit: Duration| {
        unacknowledged(&format!("no acknowledgement within {} s", limit.as_secs()))
    };
    let answer = wait::within(ACKNOWLEDGEMENT, late, move || {
        let mut line = Vec::new();
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        BufReader::new(stdin.take(longest)).read_until(b'\n', &mut line)?;
        Ok::<_, io::Error>(line)
    })?;
    match answer {
        Ok(line) if line == expected.as_bytes() => Ok(()),
        Ok(line) if line.is_empty() => {
            Err(unacknowledged("stdin ended without an acknowledgement"))
        }
        Ok(_) => Err(unacknowledged("the line on stdin is not the kit's trust_id")),
        Err(error) => Err(unacknowledged(&format!("cannot read stdin: {error}"))),
    }
}

fn unacknowledged(why: &str) -> Failure {
    Failure::new(
        format!("the kit was not acknowledged: {why}"),
        "have the reader store the kit, then write its trust_id and a line break to stdin; run again",
    )
}

fn undelivered(error: impl Display) -> Failure {
    let next = "give it a pipe or a file that takes the whole kit, and run again";
    Failure::new(format!("cannot deliver to stdout: {error}"), next)
}
