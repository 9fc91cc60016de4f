//! How a run fails once its arguments were accepted: always with exit 1.
//!
//! A message names what failed and in which step, then the state that things are in; what to do
//! next stands on a line of its own. For an operator at 3 a.m.: no capital first, no full stop,
//! no secret.

use std::fmt;

/// Words from elsewhere, fit for a line of the log.
pub fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A failed step, in words.
#[derive(Clone)]
pub struct Failure {
    /// What failed, and why.
    pub what: String,
    /// What to do next.
    pub next: String,
    /// Whether the kit that was delivered is, or may be, valid: then it stays where it is.
    pub kit_stays: bool,
}

impl Failure {
    /// A failure that registers nothing and leaves `[]` as the verdict: every one before the
    /// commit, and an aborted commit.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { what: what.into(), next: next.into(), kit_stays: false }
    }

    /// A standby was asked. It cannot know yet, whatever it would answer.
    pub fn standby() -> Failure {
        let next = "point DB_HOST to the hub's primary, and run again";
        Failure::new("the server is a standby, and only the hub's primary can say", next)
    }

    /// The statements did not run in one transaction.
    pub fn pooled() -> Failure {
        Failure::new(
            "a pooler runs the statements outside their transaction",
            "set the pooler in front of the hub to transaction pooling, or go around it, and run \
             again",
        )
    }

    /// The same, with the step that it stopped.
    pub fn during(self, step: &str) -> Failure {
        Failure { what: format!("cannot {step}: {}", self.what), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        f.write_str(if self.kit_stays { "" } else { "; nothing was registered" })
    }
}
