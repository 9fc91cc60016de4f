//! How a run fails once its arguments were accepted: always with exit 1.
//!
//! A message names what failed and in which step, then the state that things are in; what to do
//! next stands on a line of its own. For an operator at 3 a.m.: no capital first, no full stop,
//! no secret.

use std::fmt;

/// Most characters of somebody else's words.
const LONGEST: usize = 1000;

/// Words from elsewhere, fit for a line of the log: short, without characters that steer a terminal,
/// break the line or turn its order round, and withheld altogether if a part of them looks like a
/// key, a token or a hash. A run of at least `hash` hexadecimal digits counts as a hash.
pub fn words(text: &str, hash: usize) -> String {
    let looks_random = |part: &str| {
        // The times that AWS quotes have these two: 20261126T014130Z.
        let has_capital = part.chars().any(|c| c.is_ascii_uppercase() && !matches!(c, 'T' | 'Z'));
        part.len() >= 16 && has_capital && part.bytes().any(|byte| byte.is_ascii_digit())
    };
    let is_hash = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    let mut parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    if parts.any(looks_random) || text.as_bytes().windows(hash).any(is_hash) {
        return "the message is not shown, because it may quote a secret".to_owned();
    }
    // What is not printed as it is: all of these, and marks that pile up on the letter before.
    let steers = |c: char| c.escape_debug().len() > 1 && !matches!(c, '"' | '\'' | '\\');
    text.chars().take(LONGEST).map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// Whether a text repeats a secret of at least four bytes, in whatever case.
pub fn repeats(text: &str, secret: &[u8]) -> bool {
    let mut parts = text.as_bytes().windows(secret.len().max(4));
    parts.any(|part| part.eq_ignore_ascii_case(secret))
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

    /// What should not happen.
    pub fn internal(what: impl Into<String>) -> Failure {
        Failure::new(what, "report this message")
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
