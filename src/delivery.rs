//! Handing the kit over, or taking it back with `[]` (README, "Delivery").

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use log::{debug, warn};

use crate::aws::{Aws, Stored};
use crate::error::Failure;
use crate::secret::Secret;
use crate::settings;

/// The verdict "this run failed, there is no kit".
const EMPTY: &str = "[]";

/// Where the run's verdict goes.
pub struct Delivery {
    stdout: Stdout,
    /// If the kit goes into SSM; then stdout takes only the name.
    parameter: Option<(ParameterName, Aws)>,
    /// A kit was put, or may have been.
    put: bool,
}

impl Delivery {
    /// Prepares the delivery.
    /// Errors: a printed kit would go nowhere, or there is no store to put it into.
    pub fn open(parameter: Option<ParameterName>) -> Result<Delivery, Failure> {
        let stdout = Stdout::open().map_err(undelivered)?;
        if parameter.is_none() {
            stdout.leads_somewhere().map_err(undelivered)?;
        }
        let store = |name| Ok((name, settings::aws()?));
        Ok(Delivery { stdout, parameter: parameter.map(store).transpose()?, put: false })
    }

    /// Delivers the kit. To be called before the commit.
    /// Errors: it was not delivered, or not for sure: the registration must not be committed.
    pub fn hand_over(&mut self, kit: &Secret, metadata_only: bool) -> Result<(), Failure> {
        let Some((name, store)) = &self.parameter else {
            self.stdout.print(kit.expose()).map_err(undelivered)?;
            debug!("printed the kit");
            return Ok(());
        };
        self.put = true;
        let stored = store.put(&name.0, kit)?;
        debug!("put the kit into {name}, version {}", stored.version);
        if metadata_only {
            warn_of_overwriting(name, &stored, "a kit without credentials");
        }
        Ok(())
    }

    /// After the commit: says that what the parameter holds is final.
    /// Errors: it could not be said. The kit is safe.
    pub fn receipt(&mut self) -> Result<(), Failure> {
        let Some((name, _)) = &self.parameter else {
            return Ok(());
        };
        let printed = self.stdout.leads_somewhere().and_then(|()| self.stdout.print(&name.0));
        printed.map_err(|error| Failure {
            what: format!(
                "cannot print the receipt: {error}; the trust is registered and its kit is safe in {name}"
            ),
            next: format!("read the kit from {name}, then delete the parameter"),
            kit_stays: true,
        })
    }

    /// After a failure: leaves `[]` as the verdict.
    /// Errors: what was delivered, if anything was, is still there.
    pub fn take_back(&mut self) -> Result<(), Failure> {
        let Some((name, store)) = &self.parameter else {
            return self.stdout.print(EMPTY).map_err(undelivered);
        };
        match store.put(&name.0, &Secret::new(EMPTY.to_owned())) {
            Err(failure) if self.put => {
                let next = format!("{name} may hold a kit that was never registered: delete it");
                return Err(Failure { next, ..failure });
            }
            // Nothing of this run's was there: what is gone is somebody else's.
            Ok(stored) if !self.put => warn_of_overwriting(name, &stored, EMPTY),
            put => {
                put?;
            }
        }
        self.stdout.print(&name.0).map_err(undelivered)
    }
}

fn warn_of_overwriting(name: &ParameterName, stored: &Stored, what: &str) {
    if stored.version > 1 {
        let (earlier, or) = (stored.version - 1, if stored.retried { " or before" } else { "" });
        warn!(
            "{name} was there and is overwritten by {what}; the earlier version can still be read \
             as {name}:{earlier}{or}"
        );
    }
}

fn undelivered(error: io::Error) -> Failure {
    let next = "give it a pipe or a file that takes the whole kit, and run again";
    Failure::new(format!("cannot deliver to stdout: {error}"), next)
}

/// The descriptor itself: the standard library's `Stdout` takes a closed one for success.
pub struct Stdout {
    file: File,
    /// A line may have been begun and not ended.
    torn: bool,
}

impl Stdout {
    /// Linux's number of `/dev/null`: major 1, minor 3.
    const NULL: u64 = 1 << 8 | 3;

    /// Takes the process's stdout.
    /// Errors: the descriptor cannot be duplicated.
    pub fn open() -> io::Result<Stdout> {
        Ok(Stdout { file: File::from(io::stdout().as_fd().try_clone_to_owned()?), torn: false })
    }

    /// Fails if stdout is `/dev/null`, which Rust puts in the place of a closed one.
    fn leads_somewhere(&self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if metadata.file_type().is_char_device() && metadata.rdev() == Self::NULL {
            return Err(io::Error::other("it is closed or leads to /dev/null"));
        }
        Ok(())
    }

    /// Writes a line, and syncs it if it went into a file.
    /// Errors: every one that the system reports.
    pub fn print(&mut self, line: &str) -> io::Result<()> {
        let start = if mem::replace(&mut self.torn, true) { "\n" } else { "" };
        // One buffer, so that a line that fits goes out in one write.
        let line = Secret::new([start, line, "\n"].concat());
        self.file.write_all(line.expose().as_bytes())?;
        self.torn = false;
        if self.file.metadata()?.is_file() { self.file.sync_all() } else { Ok(()) }
    }
}

/// A parameter name that SSM accepts.
///
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html>
pub struct ParameterName(String);

impl ParameterName {
    pub fn parse(name: String) -> Result<ParameterName, String> {
        let path = name.strip_prefix('/');
        let levels: Vec<_> = path.unwrap_or_default().split('/').collect();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
        let starts = |word| name.get(1..4).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let rules = [
            (path.is_some(), "does not start with '/'"),
            (name.len() <= 1011, "is longer than 1,011 characters"),
            (
                name.bytes().all(is_plain),
                "holds a character other than letters, digits, '_', '.', '-' and '/'",
            ),
            (levels.iter().all(|level| !level.is_empty()), "has an empty level"),
            (levels.len() <= 15, "has more than 15 levels"),
            (!starts("aws") && !starts("ssm"), "starts with 'aws' or 'ssm', which AWS reserves"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, broken)) => Err(format!("--out-ssm-parameter {name:?} {broken}")),
            None => Ok(ParameterName(name)),
        }
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
