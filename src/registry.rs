//! The registration: one transaction that finds the trust or registers it (README,
//! "Registration").

use std::sync::Arc;

use log::debug;
use postgres::Client;
use postgres::types::{ToSql, Type};
use sha2::{Digest, Sha256};

use crate::error::Failure;
use crate::hub::{Hub, STATEMENT};
use crate::kit::Keys;
use crate::newcomer::Newcomer;
use crate::pool::{self, SlotNames};
use crate::settings::Stage;

const OPEN: &str = include_str!("../sql/open.sql");
const REGISTER: &str = include_str!("../sql/register.sql");
const GIVE_BACK: &str = include_str!("../sql/give_back.sql");
const RECONCILE: &str = include_str!("../sql/reconcile.sql");
const AWAIT_SLOT: &str = include_str!("../sql/await_slot.sql");

/// A trust on the hub.
pub struct Trust {
    /// Its UUID.
    pub id: String,
    /// The slot that is assigned to it.
    pub slot: Option<String>,
    /// That slot's number.
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
    newcomer: Result<Arc<Newcomer>, Failure>,
}

impl Registration {
    /// Opens the transaction and waits for other registrations of this name.
    /// Errors: why it cannot be opened.
    pub fn open(
        hub: Hub,
        name: &str,
        newcomer: Result<Newcomer, Failure>,
    ) -> Result<Registration, Failure> {
        let newcomer = newcomer.map(Arc::new);
        let mut registration = Registration { hub, name: name.to_owned(), newcomer };
        let open = OPEN.replace(":name_lock", &name_lock(name).to_string());
        registration.step("open the registration", move |client| client.batch_execute(&open))?;
        Ok(registration)
    }

    /// Finds the trust, or registers the newcomer with a claimed slot. The configured slot names
    /// are looked at only when no slot can be claimed.
    /// Errors: nothing is committed: dropping the registration leaves the hub as it was.
    pub fn find_or_register(&mut self, stage: &Stage) -> Result<Trust, Failure> {
        let (mut reconciled, mut all_taken, mut refusals) = (false, false, 0);
        loop {
            let look = self.look()?;
            if let Look::Found(trust) = look {
                return Ok(trust);
            }
            self.newcomer.as_ref().map_err(Failure::clone)?;
            match look {
                // Somebody else has just inserted the name: it exists now.
                Look::Refused if refusals < 3 => refusals += 1,
                Look::Refused => {
                    return Err(Failure::new(
                        format!(
                            "a unique index refuses the trust {:?}, and none has that name",
                            self.name
                        ),
                        "look for a trust with the same code or a similar name on the hub",
                    ));
                }
                _ if !reconciled => {
                    self.reconcile(SlotNames::read(stage))?;
                    reconciled = true;
                }
                // Then one more look: that slot or another may have come free meanwhile.
                _ if !all_taken => all_taken = !self.await_slot()?,
                _ => {
                    let next = format!(
                        "provision more FL kits, add their slot names to {}, and run again",
                        pool::source(stage)
                    );
                    return Err(Failure::new("no free FL kit slot: all are taken", next));
                }
            }
        }
    }

    /// The keys of the trust that this run registers.
    pub fn keys(&self) -> Option<&Keys> {
        self.newcomer.as_ref().ok().map(|newcomer| &newcomer.keys)
    }

    /// The connection, with the transaction open on it.
    pub fn into_hub(self) -> Hub {
        self.hub
    }

    fn look(&mut self) -> Result<Look, Failure> {
        let (name, newcomer) = (self.name.clone(), self.newcomer.as_ref().ok().cloned());
        self.step("find or register the trust", move |client| {
            let new = newcomer.as_deref();
            let row = client.query_typed_one(
                REGISTER,
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
                return client.batch_execute(GIVE_BACK).map(|()| Look::NoSlot);
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
            client.execute_typed(RECONCILE, &slots).map(drop)
        })
    }

    /// Waits for the lowest slot that another registration holds; false if there is none.
    fn await_slot(&mut self) -> Result<bool, Failure> {
        debug!("waiting for the slots that other registrations hold");
        self.step("wait for a free slot", |client| {
            client.query_typed_opt(AWAIT_SLOT, &[]).map(|slot| slot.is_some())
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
