//! A trust that may turn out to be new: checked, and with keys of its own (README,
//! "Registration").

use crate::error::Failure;
use crate::kit::Keys;
use crate::secret::Secret;

/// Fit to be registered.
pub struct Newcomer {
    /// Short code.
    pub code: String,
    /// NHS region.
    pub region: Option<String>,
    /// What the hub keeps of the API key.
    pub api_key_hash: Secret,
    /// Its keys, used only if it is new.
    pub keys: Keys,
}

impl Newcomer {
    /// Checks the description of a trust and mints its keys.
    /// Errors: why it cannot be registered. That matters only if it is not there yet.
    pub fn new(
        name: &str,
        code: Option<String>,
        region: Option<String>,
    ) -> Result<Newcomer, Failure> {
        let refused = |problem| {
            let what = format!("cannot register the new trust {name:?}: {problem}");
            Failure::new(what, "correct the arguments and run again")
        };
        let code = code.ok_or_else(|| refused("--code is missing or blank"))?;
        let texts = [name, &code, region.as_deref().unwrap_or_default()];
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return Err(refused("its name, code or region holds a control character"));
        }
        let keys = Keys { api: Secret::mint()?, internal_service: Secret::mint()? };
        Ok(Newcomer { code, region, api_key_hash: keys.api.sha256_hex(), keys })
    }
}
