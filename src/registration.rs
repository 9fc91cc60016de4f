//! The registration: find the trust, or register it with a claimed slot (doc/reference.md,
//! "Registration").

use std::sync::Arc;

use crate::cli::Request;
use crate::error::Failure;
use crate::kit::{Keys, Trust};
use crate::secret::Secret;
use crate::settings::Stage;
use crate::slots::{self, SlotNames};
use crate::transaction::{Claim, Look, NewTrust, Transaction};

/// What the request comes to.
pub enum Registration {
    /// The trust was there before; nothing was written.
    Existing(Trust),
    /// It is written with these keys, and only has to be committed.
    New {
        trust: Trust,
        keys: Arc<NewTrust>,
        /// The number of the transaction.
        xact_id: i64,
    },
}

/// Finds the trust, or registers it with a claimed slot. The configured slot names are looked at
/// only when no slot can be claimed.
/// Errors: nothing is committed: the hub stays as it was.
pub fn find_or_register(
    transaction: &mut Transaction,
    request: &Request,
    stage: &Stage,
) -> Result<Registration, Failure> {
    let new = match new_trust(request) {
        Ok(new) => Arc::new(new),
        Err(unfit) => {
            return match transaction.look()?.trust {
                Some(trust) => Ok(Registration::Existing(trust)),
                None if transaction.recovering => Err(Failure::standby()),
                None => Err(unfit),
            };
        }
    };
    if let Some(registration) = attempt(transaction, &new)? {
        return Ok(registration);
    }
    transaction.reconcile(SlotNames::read(stage))?;
    // Once more after the last wait, too: a slot may have come free in the meantime.
    let mut some_free = true;
    while some_free {
        if let Some(registration) = attempt(transaction, &new)? {
            return Ok(registration);
        }
        some_free = transaction.await_slot()?;
    }
    attempt(transaction, &new)?.ok_or_else(|| {
        let source = slots::source(stage);
        Failure::new(
            "no free FL kit slot: all are taken",
            format!("provision more FL kits, add their slot names to {source}, and run again"),
        )
    })
}

/// Checks the request and mints the keys.
/// Errors: why the trust may not be registered. That matters only if it is unknown.
fn new_trust(request: &Request) -> Result<NewTrust, Failure> {
    let Request { name, code, region, .. } = request;
    if request.require_existing {
        let next = "run 'make register-trust-<n>' first";
        return Err(Failure::new(format!("no trust {name:?} is registered"), next));
    }
    let refused = |problem| {
        let what = format!("cannot register the new trust {name:?}: {problem}");
        Failure::new(what, "correct the arguments and run again")
    };
    let code = code.clone().ok_or_else(|| refused("--code is missing or blank"))?;
    let texts = [name, &code, region.as_deref().unwrap_or_default()];
    if texts.iter().any(|text| text.contains(char::is_control)) {
        return Err(refused("its name, code or region holds a control character"));
    }
    let keys = Keys { trust_api_key: Secret::mint()?, trust_internal_service_key: Secret::mint()? };
    let api_key_hash = keys.trust_api_key.sha256_hex();
    Ok(NewTrust { code, region: region.clone(), api_key_hash, keys })
}
/// The trust, registered or found; `None` if no slot can be claimed.
fn attempt(
    transaction: &mut Transaction,
    new: &Arc<NewTrust>,
) -> Result<Option<Registration>, Failure> {
    // A unique index refuses a name that somebody else inserts: then the next look finds it.
    for _ in 0..3 {
        if let Some(claim) = transaction.claim(new)? {
            return kept(claim, new).map(Some);
        }
        let Look { trust, slot_was_free, .. } = transaction.look()?;
        match trust {
            Some(trust) if trust.id == transaction.trust_id => {
                return Err(swallowed("the audit row (trusts_audit)"));
            }
            Some(trust) => return Ok(Some(Registration::Existing(trust))),
            None => transaction.give_back()?,
        }
        if !slot_was_free {
            return Ok(None);
        }
    }
    Err(swallowed("the trust's row (trust)"))
}

/// What was written, if the hub kept it as it was given.
fn kept(claim: Claim, new: &Arc<NewTrust>) -> Result<Registration, Failure> {
    let Claim { trust, trust_kept, xact_id } = claim;
    if trust_kept != Some(true) {
        return Err(swallowed("the trust's row (trust) with its id, name and key's hash"));
    }
    if trust.slot.is_none() {
        return Err(swallowed("the claim of the slot (fl_kit_slot)"));
    }
    Ok(Registration::New { trust, keys: new.clone(), xact_id })
}

fn swallowed(row: &str) -> Failure {
    Failure::new(
        format!("the hub did not keep {row} as it was given"),
        "look on the hub for a trigger, rule or policy on that table, or a unique index that \
         refuses the row, and run again",
    )
}
