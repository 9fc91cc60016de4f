//! The kit: one line of JSON (doc/reference.md, "The kit").

use std::fmt::Write;

use serde::Serialize;
use serde::ser::Serializer;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::secret::Secret;

/// A trust on the hub.
pub struct Trust {
    /// Its UUID.
    pub id: String,
    /// The name of the slot that is assigned to it.
    pub slot: Option<String>,
    pub slot_number: Option<i32>,
}

/// RFC 9562, section 4.
pub fn is_uuid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// The two keys of a new trust. Their plaintext exists here and in the delivered kit.
#[derive(Serialize)]
pub struct Keys {
    /// What the trust authenticates with; the hub keeps its SHA-256.
    #[serde(serialize_with = "Secret::serialize")]
    pub trust_api_key: Secret,
    /// What the trust's own services share; the hub keeps nothing of it.
    #[serde(serialize_with = "Secret::serialize")]
    pub trust_internal_service_key: Secret,
}

/// The hub's settings that every trust needs, in the contract's order; unset ones are absent.
pub struct HubShared(pub Vec<(&'static str, Secret)>);

/// What a trust's host is handed. Without keys it is metadata-only: the trust was there before.
#[derive(Serialize)]
pub struct Kit<'a> {
    pub trust_id: &'a str,
    pub trust_name: &'a str,
    #[serde(flatten)]
    pub keys: Option<&'a Keys>,
    pub fl_kit_slot: Option<&'a str>,
    pub fl_kit_slot_number: Option<i32>,
    pub hub_shared: &'a HubShared,
}

impl<'a> Kit<'a> {
    /// The kit of a trust that is on the hub.
    pub fn new(
        trust_name: &'a str,
        trust: &'a Trust,
        keys: Option<&'a Keys>,
        hub_shared: &'a HubShared,
    ) -> Kit<'a> {
        let (fl_kit_slot, fl_kit_slot_number) = (trust.slot.as_deref(), trust.slot_number);
        Kit { trust_id: &trust.id, trust_name, keys, fl_kit_slot, fl_kit_slot_number, hub_shared }
    }

    /// An array of one object, ASCII, no line break inside or behind.
    pub fn to_json(&self) -> Result<Secret, Failure> {
        // Larger than any kit that SSM takes: growing would leave unwiped copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer(&mut *json, &[self])
            .map_err(|error| Failure::internal(format!("cannot write the kit as JSON: {error}")))?;
        // Outside ASCII JSON has nothing but the characters of strings (RFC 8259 section 7).
        let mut ascii = String::with_capacity(16 * 1024);
        for character in String::from_utf8_lossy(&json).chars() {
            if character.is_ascii() {
                ascii.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
        Ok(Secret::new(ascii))
    }
}

impl Serialize for HubShared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value.expose())))
    }
}
