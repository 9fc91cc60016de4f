//! The registration: one transaction that finds the trust or registers it (README,
//! "Registration").

use std::sync::Arc;

use log::debug;
use postgres::Client;
use postgres::types::Type;
use sha2::{Digest, Sha256};

use crate::commit;
use crate::error::Failure;
use crate::hub::{Hub, HubError, STATEMENT};
use crate::kit::Keys;
use crate::pool::SlotNames;
use crate::secret::Secret;
use crate::settings::{HubSettings, SlotSource};

const OPEN: &str = include_str!("../sql/open.sql");
const REGISTER: &str = include_str!("../sql/register.sql");
const RECONCILE: &str = include_str!("../sql/reconcile.sql");
const AWAIT_SLOT: &str = include_str!("../sql/await_slot.sql");

/// A trust that may turn out to be new, fit to be registered.
pub struct Newcomer {
    code: String,
    region: Option<String>,
    api_key_hash: Secret,
    /// Its keys, used only if it is new.
    pub keys: Keys,
}

impl Newcomer {
    /// Checks the description of a trust and mints its keys.
    ///
    /// # Errors
    /// Why it cannot be registered. That matters only if it is not there yet.
    pub fn new(
        name: &str,
        code: Option<String>,
        region: Option<String>,
    ) -> Result<Newcomer, Failure> {
        let refused = |problem| {
            let what = format!("cannot register the new trust {name:?}: {problem}");
            Failure::new(what, "correct the arguments and run again")
        };
        let code =
            code.ok_or_else(|| refused("--code is missing or blank, and a new trust needs one"))?;
        let texts = [name, &code, region.as_deref().unwrap_or_default()];
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return Err(refused("its name, code or region holds a control character"));
        }
        let mint = || {
            Secret::mint().map_err(|error| {
                Failure::new(format!("cannot mint keys: {error}"), "check the host's kernel")
            })
        };
        let keys = Keys { api: mint()?, internal_service: mint()? };
        Ok(Newcomer { code, region, api_key_hash: keys.api.sha256_hex(), keys })
    }
}

/// A trust on the hub.
pub struct Trust {
    /// Its UUID.
    pub id: String,
    /// Name and number of the slot that is assigned to it.
    pub slot: Option<(String, i32)>,
    /// How many trusts have its name; this is the oldest. 0: it is new.
    pub namesakes: i64,
    /// The transaction that registers it, if it is new; not committed yet.
    pub xact_id: Option<i64>,
}

/// What one look at the hub finds.
enum Look {
    Trust(Trust),
    NoSlot,
    Refused,
}

/// The open transaction. Dropping it rolls back.
pub struct Registration {
    hub: Hub,
    name: String,
    newcomer: Option<Arc<Newcomer>>,
}

impl Registration {
    /// Opens the transaction and waits for other registrations of this name.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(hub: Hub, name: &str) -> Result<Registration, Failure> {
        let mut registration = Registration { hub, name: name.to_owned(), newcomer: None };
        let open = OPEN.replace(":name_lock", &name_lock(name).to_string());
        registration.step("open the registration", move |client| client.batch_execute(&open))?;
        Ok(registration)
    }

    /// Finds the trust, or registers the newcomer with a claimed slot. The configured slot names
    /// are looked at only when no slot can be claimed.
    ///
    /// # Errors
    /// Nothing is committed: dropping the registration leaves the hub as it was.
    pub fn find_or_register(
        &mut self,
        newcomer: Result<Newcomer, Failure>,
        configured: &SlotSource,
    ) -> Result<Trust, Failure> {
        match newcomer {
            Ok(newcomer) => self.newcomer = Some(Arc::new(newcomer)),
            Err(reason) => {
                return match self.look()? {
                    Look::Trust(trust) => Ok(trust),
                    Look::NoSlot | Look::Refused => Err(reason),
                };
            }
        }
        let (mut reconciled, mut all_taken, mut refusals) = (false, false, 0);
        loop {
            match self.look()? {
                Look::Trust(trust) => return Ok(trust),
                // Somebody else has just inserted the name: it exists now.
                Look::Refused if refusals < 3 => refusals += 1,
                Look::Refused => {
                    return Err(Failure::new(
                        format!(
                            "a unique index of the hub refuses the trust {:?}, and none has that name",
                            self.name
                        ),
                        "look for a trust with the same code or a similar name on the hub",
                    ));
                }
                Look::NoSlot => {
                    if !reconciled {
                        self.reconcile(SlotNames::read(configured))?;
                        reconciled = true;
                    } else if !all_taken {
                        // Then one more look: a slot may have come free meanwhile.
                        all_taken = !self.await_slot()?;
                    } else {
                        return Err(Failure::new(
                            "no free FL kit slot: all are taken",
                            format!(
                                "provision more FL kits, add their slot names to {configured}, and run again"
                            ),
                        ));
                    }
                }
            }
        }
    }

    /// The keys of the trust that this run registers.
    pub fn keys(&self) -> Option<&Keys> {
        self.newcomer.as_deref().map(|newcomer| &newcomer.keys)
    }

    /// Commits and has the server say so, on a new connection if this one breaks.
    ///
    /// # Errors
    /// It was not committed; or nobody can say, and then the kit stays where it is.
    pub fn commit(
        mut self,
        settings: &HubSettings,
        xact_id: i64,
        trust_id: &str,
    ) -> Result<(), Failure> {
        let commit = commit::statements(xact_id);
        let answer = self.ask(move |client| client.simple_query(&commit));
        let broken = match answer.map(|answer| commit::status(&answer)) {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(commit::aborted("it rolled the transaction back")),
            Ok(None) => "it did not say what became of the transaction".to_owned(),
            Err(error) => error.cause,
        };
        drop(self);
        commit::ask_again(settings, xact_id, trust_id, &broken)
    }

    fn look(&mut self) -> Result<Look, Failure> {
        let (name, newcomer) = (self.name.clone(), self.newcomer.clone());
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
            let slot =
                row.try_get::<_, Option<String>>("slot_name")?.zip(row.try_get("slot_number")?);
            Ok(match row.try_get("trust_id")? {
                Some(id) => Look::Trust(Trust {
                    id,
                    slot,
                    namesakes: row.try_get("namesakes")?,
                    xact_id: row.try_get("xact_id")?,
                }),
                None if row.try_get("slot_free")? => Look::Refused,
                None => Look::NoSlot,
            })
        })
    }

    fn reconcile(&mut self, configured: SlotNames) -> Result<(), Failure> {
        debug!("no slot to claim; {} slot names are configured", configured.names.len());
        self.step("add the configured slots", move |client| {
            let SlotNames { names, numbers } = configured;
            client.execute_typed(
                RECONCILE,
                &[(&names, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)],
            )
        })?;
        Ok(())
    }

    /// Waits for a slot that another registration holds; false if there is none.
    fn await_slot(&mut self) -> Result<bool, Failure> {
        debug!("waiting for the slots that other registrations hold");
        let slot =
            self.step("wait for a free slot", |client| client.query_typed_opt(AWAIT_SLOT, &[]))?;
        Ok(slot.is_some())
    }

    fn step<T: Send + 'static>(
        &mut self,
        step: &str,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        self.ask(question).map_err(|error| {
            let next = match error.code.as_ref().map(|code| code.code()) {
                Some("55P03" | "57014") => {
                    "find who holds the lock in the hub's pg_stat_activity, and run again"
                }
                Some("42501") => {
                    "grant POSTGRES_USER what the hub's own role may do, and run again"
                }
                Some("42P01" | "42703" | "42704") => {
                    "run the hub's migrations, or check POSTGRES_DB"
                }
                Some("25006" | "0A000") => "point DB_HOST to the hub's primary, and run again",
                Some(_) => "look into the hub's database log",
                None => "check that the hub's database is up, and run again",
            };
            Failure::new(format!("cannot {step}: {}", error.cause), next)
        })
    }

    fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, HubError> {
        self.hub.ask(STATEMENT, question).map_err(|mut error| {
            // A trigger's message can quote the row.
            if self
                .newcomer
                .as_ref()
                .is_some_and(|new| error.cause.contains(new.api_key_hash.expose()))
            {
                error.cause =
                    "the hub's message is withheld, for it quotes the key's hash".to_owned();
            }
            error
        })
    }
}

/// The advisory lock of a name: the first eight bytes of a SHA-256. Two names that share one
/// take turns, no more.
fn name_lock(name: &str) -> i64 {
    let digest = Sha256::new().chain_update("register-trust\0").chain_update(name).finalize();
    i64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}
