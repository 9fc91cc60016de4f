//! Every way a run can fail once its arguments were accepted: which step, what state things
//! are in now, what to do next. All of them end with exit 1.
//!
//! Messages are for an operator at 3 a.m.: no capital first, no full stop at the end, no
//! secret; the next move stands on a line of its own.

use std::fmt;

/// A failure, by the step that failed.
pub enum Failure {
    /// An environment variable is missing or cannot be used.
    Setting {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it; names the value unless that is secret.
        problem: String,
    },
    /// stdout cannot take what is to be printed.
    Stdout(String),
    /// The operating system gave no random bytes for the keys.
    Entropy(String),
    /// The hub's database cannot be reached, or refuses the login.
    Connect {
        /// `user@host:port/database`.
        hub: String,
        /// Why, in the server's or the system's words.
        cause: String,
        /// The next move.
        next: &'static str,
    },
    /// A statement failed before the commit.
    Statement {
        /// What it was to do.
        step: &'static str,
        /// Why, in the server's or the system's words.
        cause: String,
        /// The next move.
        next: &'static str,
    },
    /// `--require-existing`, and there is no such trust.
    Unknown {
        /// Its name.
        name: String,
    },
    /// A new trust cannot be registered as it was described.
    Description {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Every slot of the pool is taken.
    NoFreeSlot {
        /// Where the pool's names are configured.
        source: &'static str,
    },
    /// A unique index refuses the trust, and no trust has its name.
    Refused {
        /// Its name.
        name: String,
    },
    /// The kit cannot be written as JSON.
    Encoding(String),
    /// SSM did not do what it was asked for.
    Ssm {
        /// What that was.
        action: String,
        /// Why, in AWS's words.
        cause: String,
        /// The next move.
        next: &'static str,
    },
    /// The kit is longer than an SSM parameter may be.
    TooLong(usize),
    /// The server says that the transaction was aborted.
    NotCommitted(String),
    /// Nobody could be asked whether the transaction was committed.
    OutcomeUnknown {
        /// The transaction's number, for `pg_xact_status`.
        xact_id: u64,
        /// The trust's UUID, if it was committed.
        trust_id: String,
        /// What broke.
        cause: String,
    },
    /// All is done and the kit is safe in SSM, but its name could not be printed.
    Receipt {
        /// The parameter.
        parameter: String,
        /// Why.
        cause: String,
    },
}

impl Failure {
    /// Whether `[]` is the verdict. Not where the kit that was delivered is, or may be, valid.
    pub fn takes_the_kit_back(&self) -> bool {
        !matches!(self, Failure::OutcomeUnknown { .. } | Failure::Receipt { .. })
    }

    /// What to do next.
    pub fn next(&self) -> String {
        match self {
            Failure::Setting { variable, .. } => format!("set {variable} and run again"),
            Failure::Stdout(_) => {
                "give it a pipe or a file that takes the whole kit, and run again".to_owned()
            }
            Failure::Entropy(_) => "check the host's kernel, then run again".to_owned(),
            Failure::Connect { next, .. }
            | Failure::Statement { next, .. }
            | Failure::Ssm { next, .. } => (*next).to_owned(),
            Failure::Unknown { .. } => "run 'make register-trust-<n>' first".to_owned(),
            Failure::Description { .. } => "correct the arguments and run again".to_owned(),
            Failure::NoFreeSlot { source } => {
                format!("provision more FL kits, add their slot names to {source}, and run again")
            }
            Failure::Refused { .. } => {
                "look for a trust with the same code or a similar name on the hub".to_owned()
            }
            Failure::TooLong(_) => "shorten the hub-shared values, and run again".to_owned(),
            Failure::Encoding(_) => "report it, with this message".to_owned(),
            Failure::NotCommitted(_) => "run again".to_owned(),
            Failure::OutcomeUnknown { xact_id, trust_id, .. } => format!(
                "ask the hub: SELECT pg_xact_status('{xact_id}'); if it says committed, the kit \
                 that was delivered is valid (trust {trust_id}); if aborted, discard it and run again"
            ),
            Failure::Receipt { parameter, .. } => {
                format!("read the kit from {parameter}, then delete the parameter")
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Setting { variable, problem } => write!(f, "{variable} {problem}")?,
            Failure::Stdout(cause) => write!(f, "cannot deliver to stdout: {cause}")?,
            Failure::Entropy(cause) => write!(f, "cannot mint keys: {cause}")?,
            Failure::Connect { hub, cause, .. } => {
                write!(f, "cannot connect to the hub at {hub}: {cause}")?;
            }
            Failure::Statement { step, cause, .. } => write!(f, "cannot {step}: {cause}")?,
            Failure::Unknown { name } => write!(f, "no trust {name:?} is registered")?,
            Failure::Description { name, problem } => {
                write!(f, "cannot register the new trust {name:?}: {problem}")?;
            }
            Failure::NoFreeSlot { .. } => write!(f, "no free FL kit slot: all are taken")?,
            Failure::Refused { name } => write!(
                f,
                "a unique index of the hub refuses the trust {name:?}, and none has that name"
            )?,
            Failure::Ssm { action, cause, .. } => write!(f, "cannot {action}: {cause}")?,
            Failure::TooLong(length) => write!(
                f,
                "the kit has {length} characters, an SSM parameter holds 4096; it was not sent"
            )?,
            Failure::Encoding(cause) => write!(f, "cannot write the kit as JSON: {cause}")?,
            Failure::NotCommitted(cause) => write!(f, "the hub did not commit: {cause}")?,
            Failure::OutcomeUnknown { xact_id, cause, .. } => {
                return write!(
                    f,
                    "the connection broke during the commit of transaction {xact_id}, and the hub \
                     cannot be asked for its outcome: {cause}; the trust may be registered, and \
                     the kit that was delivered is left in place"
                );
            }
            Failure::Receipt { parameter, cause } => {
                return write!(
                    f,
                    "cannot print the receipt: {cause}; the trust is registered and its kit is \
                     safe in {parameter}"
                );
            }
        }
        f.write_str("; nothing was registered")
    }
}
