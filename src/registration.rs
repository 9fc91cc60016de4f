//! The registration: one transaction that finds the trust or registers it (README,
//! "Registration").

use std::sync::Arc;

use log::debug;
use postgres::Client;
use postgres::types::{ToSql, Type};
use sha2::{Digest, Sha256};

use crate::cli::Request;
use crate::error::Failure;
use crate::hub::{Hub, STATEMENT};
use crate::kit::Keys;
use crate::secret::Secret;
use crate::settings::Stage;
use crate::slots::{self, SlotNames};

/// A trust that may be registered if the hub does not know it, with keys of its own.
struct NewTrust {
    code: String,
    region: Option<String>,
    api_key_hash: Secret,
    keys: Keys,
}

/// A trust on the hub.
pub struct Trust {
    /// Its UUID.
    pub id: String,
    /// The slot that is assigned to it.
    pub slot: Option<String>,
    pub slot_number: Option<i32>,
    /// How many trusts have its name; this is the oldest. 0: it is new.
    pub namesakes: i64,
    /// The transaction that registers it, if it is new; not committed yet.
    pub xact_id: Option<i64>,
}

/// What one look at the hub finds.
enum Look {
    Found(Trust),
    NoSlot,
    Refused,
}

/// The open transaction. Dropping it rolls back.
pub struct Registration {
    hub: Hub,
    name: String,
    /// Or why the trust may not be registered if it is unknown.
    new: Result<Arc<NewTrust>, Failure>,
}

impl NewTrust {
    /// Checks the request and mints the keys.
    fn of(request: &Request) -> Result<NewTrust, Failure> {
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
        let keys =
            Keys { trust_api_key: Secret::mint()?, trust_internal_service_key: Secret::mint()? };
        let api_key_hash = keys.trust_api_key.sha256_hex();
        Ok(NewTrust { code, region: region.clone(), api_key_hash, keys })
    }
}

impl Registration {
    /// Opens the transaction and waits for other registrations of this name.
    pub fn open(hub: Hub, request: &Request) -> Result<Registration, Failure> {
        let (name, new) = (request.name.clone(), NewTrust::of(request).map(Arc::new));
        let open = include_str!("../sql/open.sql");
        let open = open.replace(":name_lock", &name_lock(&name).to_string());
        let mut registration = Registration { hub, name, new };
        registration.step("open the registration", move |client| client.batch_execute(&open))?;
        Ok(registration)
    }

    /// Finds the trust, or registers it with a claimed slot. The configured slot names are looked
    /// at only when no slot can be claimed.
    /// Errors: nothing is committed: dropping the registration leaves the hub as it was.
    pub fn find_or_register(&mut self, stage: &Stage) -> Result<Trust, Failure> {
        if let Some(trust) = self.look()? {
            return Ok(trust);
        }
        self.reconcile(SlotNames::read(stage))?;
        // Once more behind the last wait, too: that slot or another may have come free meanwhile.
        let mut some_free = true;
        while some_free {
            if let Some(trust) = self.look()? {
                return Ok(trust);
            }
            some_free = self.await_slot()?;
        }
        self.look()?.ok_or_else(|| {
            let source = slots::source(stage);
            Failure::new(
                "no free FL kit slot: all are taken",
                format!("provision more FL kits, add their slot names to {source}, and run again"),
            )
        })
    }

    /// The keys of the trust that this run registers.
    pub fn keys(&self) -> Option<&Keys> {
        self.new.as_ref().ok().map(|new| &new.keys)
    }

    /// The connection, with the transaction open on it.
    pub fn into_hub(self) -> Hub {
        self.hub
    }

    /// The trust, found or registered; `None` if it is new and no slot can be claimed.
    fn look(&mut self) -> Result<Option<Trust>, Failure> {
        for _ in 0..4 {
            match (self.look_once()?, &self.new) {
                (Look::Found(trust), _) => return Ok(Some(trust)),
                (_, Err(failure)) => return Err(failure.clone()),
                (Look::NoSlot, Ok(_)) => return Ok(None),
                // Somebody else has just inserted the name: it exists now.
                (Look::Refused, Ok(_)) => {}
            }
        }
        let name = &self.name;
        Err(Failure::new(
            format!("a unique index refuses the trust {name:?}, and none has that name"),
            "look for a trust with the same code or a similar name on the hub",
        ))
    }

    fn look_once(&mut self) -> Result<Look, Failure> {
        let (name, new) = (self.name.clone(), self.new.as_ref().ok().cloned());
        self.step("find or register the trust", move |client| {
            let new = new.as_deref();
            let row = client.query_typed_one(
                include_str!("../sql/register.sql"),
                &[
                    (&name, Type::TEXT),
                    (&new.map(|new| &new.code), Type::TEXT),
                    (&new.and_then(|new| new.region.as_ref()), Type::TEXT),
                    (&new.map(|new| new.api_key_hash.expose()), Type::TEXT),
                    (&new.is_some(), Type::BOOL),
                ],
            )?;
            let Some(id) = row.try_get("trust_id")? else {
                if row.try_get("slot_free")? {
                    return Ok(Look::Refused);
                }
                client.batch_execute(include_str!("../sql/give_back.sql"))?;
                return Ok(Look::NoSlot);
            };
            Ok(Look::Found(Trust {
                id,
                slot: row.try_get("slot_name")?,
                slot_number: row.try_get("slot_number")?,
                namesakes: row.try_get("namesakes")?,
                xact_id: row.try_get("xact_id")?,
            }))
        })
    }

    fn reconcile(&mut self, SlotNames { names, numbers }: SlotNames) -> Result<(), Failure> {
        debug!("no slot to claim; {} slot names are configured", names.len());
        self.step("add the configured slots", move |client| {
            let slots: [(&(dyn ToSql + Sync), Type); 2] =
                [(&names, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)];
            client.execute_typed(include_str!("../sql/reconcile.sql"), &slots).map(drop)
        })
    }

    /// Waits for the lowest slot that another registration holds; false if there is none.
    fn await_slot(&mut self) -> Result<bool, Failure> {
        debug!("waiting for the slots that other registrations hold");
        self.step("wait for a free slot", |client| {
            let slot = client.query_typed_opt(include_str!("../sql/await_slot.sql"), &[]);
            slot.map(|slot| slot.is_some())
        })
    }

    fn step<T: Send + 'static>(
        &mut self,
        step: &str,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        self.hub.ask(STATEMENT, question).map_err(|failure| failure.during(step))
    }
}

/// The advisory lock of a name: the first eight bytes of a SHA-256. Two names that share one
/// take turns, no more.
fn name_lock(name: &str) -> i64 {
    let digest = Sha256::new().chain_update("register-trust\0").chain_update(name).finalize();
    i64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}
