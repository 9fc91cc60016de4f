//! Secrets: minted, hashed, wiped when dropped, and exposed by one function.
//!
//! [`Secret`] has no `Debug`, `Display` or `Clone`. Whoever wants its text must call
//! [`Secret::expose`], so `grep -rn 'expose()' src` lists every place where a secret leaves.

use std::fmt::Write;
use std::io;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::Failure;

/// A random UUID (RFC 9562 section 5.4).
pub fn uuid() -> Result<String, Failure> {
    let [mut high, mut low] = [0; 2];
    for half in [&mut high, &mut low] {
        *half = getrandom::u64().map_err(no_random_bytes)?;
    }
    let (high, low) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
    let [a, b, c] = [high >> 32, high >> 16 & 0xffff, high & 0xffff];
    Ok(format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff))
}

fn no_random_bytes(error: getrandom::Error) -> Failure {
    Failure::new(format!("cannot make keys: {error}"), "check the host's kernel")
}

/// Forbids core dumps of this process, which would hold its secrets: by the limit, and, where the
/// kernel pipes dumps into a program and does not look at the limit, by the process's own word
/// (core(5), PR_SET_DUMPABLE(2const)).
/// Errors: the system refuses.
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Text that must not reach stderr, argv or a core dump: a key, its hash, a
/// password, a hub-shared value, a whole kit.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text without surrounding white space; `None` if nothing is left.
    pub fn trimmed(self) -> Option<Secret> {
        let text = self.0.trim();
        (!text.is_empty()).then(|| Secret::new(text.to_owned()))
    }

    /// A new key: 32 bytes from the operating system, base64url without padding
    /// (RFC 4648 section 5), 43 characters.
    pub fn mint() -> Result<Secret, Failure> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut()).map_err(no_random_bytes)?;
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
    }

    /// The SHA-256 of the text in lower-case hex: what the hub keeps of an API key.
    pub fn sha256_hex(&self) -> Secret {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(self.0.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Secret::new(hex)
    }

    /// The plaintext. Only for handing it to where the contract says it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// For `#[serde(serialize_with)]`, so that each field of the kit that holds one says so.
    pub fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.expose().serialize(serializer)
    }
}
