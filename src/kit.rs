//! The kit: one line of JSON (README, "The kit").

use std::error::Error;
use std::io::{self, Write};
use std::mem;

use serde::ser::{Serialize, Serializer};
use serde_json::ser::Formatter;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::secret::Secret;

/// The two keys of a new trust. Their plaintext exists here and in the delivered kit.
pub struct Keys {
    /// What the trust authenticates with; the hub keeps its SHA-256.
    pub api: Secret,
    /// What the trust's own services share; the hub keeps nothing of it.
    pub internal_service: Secret,
}

/// The hub's settings that every trust needs, in the contract's order; unset ones are absent.
pub struct HubShared(pub Vec<(&'static str, Secret)>);

/// What a trust's host is handed. Without keys it is metadata-only: the trust was there before.
#[derive(serde::Serialize)]
pub struct Kit<'a> {
    /// The trust's UUID on the hub.
    pub trust_id: &'a str,
    /// Its display name.
    pub trust_name: &'a str,
    /// The keys, of a trust that this run registers.
    #[serde(flatten)]
    pub keys: Option<&'a Keys>,
    /// The name of the slot that is assigned to it.
    pub fl_kit_slot: Option<&'a str>,
    /// That slot's number.
    pub fl_kit_slot_number: Option<i32>,
    /// The hub-shared values.
    pub hub_shared: &'a HubShared,
}

impl Kit<'_> {
    /// The kit as JSON: an array of one object, ASCII, no line break inside or behind.
    /// Errors: none that serde_json documents for these types; passed on, not assumed.
    pub fn to_json(&self) -> Result<Secret, Failure> {
        let failure = |error: &dyn Error| {
            Failure::new(format!("cannot write the kit as JSON: {error}"), "report this message")
        };
        // Larger than any kit that SSM takes: growing would leave unwiped copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
        let mut serializer = serde_json::Serializer::with_formatter(&mut *json, Ascii);
        [self].serialize(&mut serializer).map_err(|error| failure(&error))?;
        let json = String::from_utf8(mem::take(&mut *json));
        json.map(Secret::new).map_err(|error| failure(&error))
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([
            ("trust_api_key", self.api.expose()),
            ("trust_internal_service_key", self.internal_service.expose()),
        ])
    }
}

impl Serialize for HubShared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value.expose())))
    }
}

/// Compact JSON with every character outside ASCII as `\uXXXX`, in UTF-16 (RFC 8259 section 7).
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        for character in text.chars() {
            if character.is_ascii() {
                out.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
