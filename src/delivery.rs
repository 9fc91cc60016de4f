//! Handing the kit over, or taking it back with `[]` (README, "Delivery").

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use log::{debug, warn};

use crate::aws::Ssm;
use crate::cli::ParameterName;
use crate::error::Failure;
use crate::kit::EMPTY;
use crate::secret::Secret;
use crate::settings::AwsSettings;

/// Where the run's verdict goes.
pub enum Delivery {
    /// The kit's line is printed.
    Stdout(Stdout),
    /// The kit is put into SSM; its name is printed at the end.
    Parameter {
        /// The parameter.
        name: ParameterName,
        /// Its store.
        store: Ssm,
        /// What takes the name.
        stdout: Stdout,
    },
}

impl Delivery {
    /// Prepares the delivery.
    ///
    /// # Errors
    /// [`Failure::Stdout`] if a printed kit would go nowhere, [`Failure::Setting`] without a
    /// store to put it into.
    pub fn open(parameter: Option<ParameterName>) -> Result<Delivery, Failure> {
        let stdout = Stdout::open().map_err(|error| Failure::Stdout(error.to_string()))?;
        match parameter {
            None => {
                stdout.leads_somewhere().map_err(|error| Failure::Stdout(error.to_string()))?;
                Ok(Delivery::Stdout(stdout))
            }
            Some(name) => {
                Ok(Delivery::Parameter { name, store: Ssm::new(AwsSettings::read()?), stdout })
            }
        }
    }

    /// Delivers the kit. To be called before the commit.
    ///
    /// # Errors
    /// It was not delivered, or not for sure: the registration must not be committed.
    pub fn hand_over(&mut self, kit: &Secret, metadata_only: bool) -> Result<(), Failure> {
        match self {
            Delivery::Stdout(stdout) => {
                stdout.print(kit.expose()).map_err(|error| Failure::Stdout(error.to_string()))?;
                debug!("printed the kit");
            }
            Delivery::Parameter { name, store, .. } => {
                let version = store.put(name, kit)?;
                debug!("put the kit into {}, version {version}", name.as_str());
                if metadata_only && version > 1 {
                    let (name, earlier) = (name.as_str(), version - 1);
                    warn!(
                        "{name} was there and is overwritten by a kit without credentials; \
                         the earlier version can still be read as {name}:{earlier}"
                    );
                }
            }
        }
        Ok(())
    }

    /// After the commit: says that what was delivered is final.
    ///
    /// # Errors
    /// [`Failure::Receipt`]. The kit is safe.
    pub fn receipt(&mut self) -> Result<(), Failure> {
        let Delivery::Parameter { name, stdout, .. } = self else {
            return Ok(());
        };
        stdout.leads_somewhere().and_then(|()| stdout.print(name.as_str())).map_err(|error| {
            Failure::Receipt { parameter: name.as_str().to_owned(), cause: error.to_string() }
        })
    }

    /// After a failure: leaves `[]` as the verdict.
    ///
    /// # Errors
    /// What was delivered, if anything was, is still there.
    pub fn take_back(&mut self) -> Result<(), Failure> {
        let print = |stdout: &mut Stdout, line| {
            stdout.print(line).map_err(|error| Failure::Stdout(error.to_string()))
        };
        match self {
            Delivery::Stdout(stdout) => print(stdout, EMPTY),
            Delivery::Parameter { name, store, stdout } => {
                store.put(name, &Secret::new(EMPTY.to_owned()))?;
                print(stdout, name.as_str())
            }
        }
    }
}

/// The descriptor itself: the standard library's `Stdout` takes a closed one for success.
pub struct Stdout {
    file: File,
    /// A line was begun and not ended.
    torn: bool,
}

impl Stdout {
    /// Linux's number of `/dev/null`: major 1, minor 3.
    const NULL: u64 = 1 << 8 | 3;

    /// Takes the process's stdout.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
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
    ///
    /// # Errors
    /// Every one that the system reports.
    pub fn print(&mut self, line: &str) -> io::Result<()> {
        let start = if self.torn { "\n" } else { "" };
        // One buffer, so that a line that fits goes out in one write.
        let line = Secret::new([start, line, "\n"].concat());
        let mut rest = line.expose().as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.torn = !rest.is_empty();
        }
        if self.file.metadata()?.is_file() {
            self.file.sync_all()?;
        }
        Ok(())
    }
}
