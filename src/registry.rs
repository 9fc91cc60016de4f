//! The registration: one transaction that finds the trust or registers it, and a commit whose
//! outcome is asked for (README, "Registration").

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use postgres::types::Type;
use postgres::{Row, SimpleQueryMessage};
use sha2::{Digest, Sha256};

use crate::error::Failure;
use crate::hub::{CONNECT, Hub, HubError, STATEMENT};
use crate::kit::Keys;
use crate::pool::SlotNames;
use crate::secret::Secret;
use crate::settings::HubSettings;

const OPEN: &str = include_str!("../sql/open.sql");
const REGISTER: &str = include_str!("../sql/register.sql");
const RECONCILE: &str = include_str!("../sql/reconcile.sql");
const AWAIT_SLOT: &str = include_str!("../sql/await_slot.sql");
const CONFIRM: &str = include_str!("../sql/confirm.sql");

/// Longest time to ask for a commit's outcome after the connection broke.
const OUTCOME: Duration = Duration::from_secs(15);

/// A trust that nobody on the hub knows yet, fit to be registered.
pub struct Newcomer {
    code: String,
    region: Option<String>,
    keys: Keys,
    api_key_hash: Secret,
}

/// A trust on the hub.
pub struct Trust {
    /// Its UUID.
    pub id: String,
    /// Name and number of the slot that is assigned to it.
    pub slot: Option<(String, i32)>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Whether this run registers the trust.
pub enum Origin {
    /// It was there; so many of its name are.
    Found(i64),
    /// It is new, in the transaction of this number, not committed yet.
    Registered(u64),
}

/// The open transaction. Dropping it rolls back.
pub struct Registration {
    hub: Hub,
    name: String,
    newcomer: Result<Arc<Newcomer>, Option<Failure>>,
}

impl Newcomer {
    /// Checks the description of a trust that may turn out to be new, and mints its keys.
    ///
    /// # Errors
    /// Why it cannot be registered. That matters only if it is not there yet.
    pub fn new(
        name: &str,
        code: Option<String>,
        region: Option<String>,
    ) -> Result<Newcomer, Failure> {
        let refused = |problem| Failure::Description { name: name.to_owned(), problem };
        let code =
            code.ok_or_else(|| refused("--code is missing or blank, and a new trust needs one"))?;
        let texts = [name, &code, region.as_deref().unwrap_or_default()];
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return Err(refused("its name, code or region holds a control character"));
        }
        let mint = || Secret::mint().map_err(|error| Failure::Entropy(error.to_string()));
        let keys = Keys { api: mint()?, internal_service: mint()? };
        let api_key_hash = keys.api.sha256_hex();
        Ok(Newcomer { code, region, keys, api_key_hash })
    }
}

impl Registration {
    /// Opens the transaction and waits for other registrations of this name.
    ///
    /// # Errors
    /// [`Failure::Statement`].
    pub fn open(
        mut hub: Hub,
        name: &str,
        newcomer: Result<Newcomer, Failure>,
    ) -> Result<Registration, Failure> {
        let open = OPEN.replace(":name_lock", &name_lock(name).to_string());
        hub.ask(STATEMENT, move |client| client.batch_execute(&open))
            .map_err(|error| statement("open the registration", error))?;
        Ok(Registration {
            hub,
            name: name.to_owned(),
            newcomer: newcomer.map(Arc::new).map_err(Some),
        })
    }

    /// Finds the trust, or registers it with a claimed slot. `configured` is asked for the
    /// pool's slot names only when no slot can be claimed; `source` is where they come from.
    ///
    /// # Errors
    /// Nothing is committed: dropping the registration leaves the hub as it was.
    pub fn find_or_register(
        &mut self,
        source: &'static str,
        configured: impl FnOnce() -> SlotNames,
    ) -> Result<Trust, Failure> {
        let mut configured = Some(configured);
        let mut refusals = 0;
        loop {
            let row = self.look()?;
            if row.existing_id.is_none()
                && row.registered_id.is_none()
                && let Err(reason) = &mut self.newcomer
            {
                return Err(reason
                    .take()
                    .unwrap_or_else(|| Failure::Unknown { name: self.name.clone() }));
            }
            if let Some(id) = row.existing_id {
                return Ok(Trust { id, slot: row.slot, origin: Origin::Found(row.namesakes) });
            }
            if let Some((id, xact_id)) = row.registered_id.zip(row.xact_id) {
                return Ok(Trust { id, slot: row.slot, origin: Origin::Registered(xact_id) });
            }
            if row.slot_free {
                // The unique index refused: somebody has just inserted the name. Look again.
                refusals += 1;
                if refusals > 3 {
                    return Err(Failure::Refused { name: self.name.clone() });
                }
            } else if let Some(configured) = configured.take() {
                self.reconcile(configured())?;
            } else if !self.await_slot()? {
                return Err(Failure::NoFreeSlot { source });
            }
        }
    }

    /// The keys of the trust that this run registers.
    pub fn keys(&self) -> Option<&Keys> {
        self.newcomer.as_ref().ok().map(|newcomer| &newcomer.keys)
    }

    /// Commits and has the server say so, on a new connection if this one breaks.
    ///
    /// # Errors
    /// [`Failure::NotCommitted`] or [`Failure::OutcomeUnknown`].
    pub fn commit(
        mut self,
        settings: &HubSettings,
        xact_id: u64,
        trust_id: &str,
    ) -> Result<(), Failure> {
        let confirm = CONFIRM.replace(":'xact_id'", &format!("'{xact_id}'"));
        let commit = format!("COMMIT;\n{confirm}");
        let answer = self.hub.ask(STATEMENT, move |client| client.simple_query(&commit));
        let broken = match answer.map(|messages| status(&messages)) {
            Ok(Some(Status::Committed)) => return Ok(()),
            Ok(Some(Status::Aborted)) => {
                return Err(Failure::NotCommitted("it rolled the transaction back".to_owned()));
            }
            Ok(None) => "it did not say what became of the transaction".to_owned(),
            Err(error) => error.cause,
        };
        drop(self);
        debug!("the commit was not confirmed ({broken}); asking on a new connection");
        let deadline = Instant::now() + OUTCOME;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let cause = match outcome(settings, &confirm, left) {
                Ok(Some(Status::Committed)) => return Ok(()),
                Ok(Some(Status::Aborted)) => return Err(Failure::NotCommitted(broken)),
                Ok(None) => "the transaction is still in progress".to_owned(),
                Err(cause) => cause,
            };
            if left.is_zero() {
                let (trust_id, cause) = (trust_id.to_owned(), format!("{broken}; then {cause}"));
                return Err(Failure::OutcomeUnknown { xact_id, trust_id, cause });
            }
            thread::sleep(left.min(Duration::from_millis(250)));
        }
    }

    fn look(&mut self) -> Result<Look, Failure> {
        let name = self.name.clone();
        let newcomer = self.newcomer.as_ref().ok().cloned();
        let answer = self.hub.ask(STATEMENT, move |client| {
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
            Look::read(&row)
        });
        answer.map_err(|mut error| {
            // A trigger's message can quote the row.
            let hash = self.newcomer.as_ref().ok().map(|new| new.api_key_hash.expose());
            if hash.is_some_and(|hash| error.cause.contains(hash)) {
                error.cause =
                    "the hub's message is withheld, for it quotes the key's hash".to_owned();
            }
            statement("find or register the trust", error)
        })
    }

    fn reconcile(&mut self, configured: SlotNames) -> Result<(), Failure> {
        debug!("no slot to claim; {} slot names are configured", configured.names.len());
        if configured.names.is_empty() {
            return Ok(());
        }
        let SlotNames { names, numbers } = configured;
        self.hub
            .ask(STATEMENT, move |client| {
                client.execute_typed(
                    RECONCILE,
                    &[(&names, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)],
                )
            })
            .map_err(|error| statement("add the configured slots", error))?;
        Ok(())
    }

    /// Waits for a slot that another registration holds; false if there is none.
    fn await_slot(&mut self) -> Result<bool, Failure> {
        debug!("waiting for slots that other registrations hold");
        self.hub
            .ask(STATEMENT, |client| client.query_typed_opt(AWAIT_SLOT, &[]))
            .map(|row| row.is_some())
            .map_err(|error| statement("wait for a free slot", error))
    }
}

/// The one row of `sql/register.sql`.
struct Look {
    existing_id: Option<String>,
    namesakes: i64,
    registered_id: Option<String>,
    xact_id: Option<u64>,
    slot: Option<(String, i32)>,
    slot_free: bool,
}

impl Look {
    fn read(row: &Row) -> Result<Look, postgres::Error> {
        let slot_name: Option<String> = row.try_get("slot_name")?;
        let xact_id: Option<String> = row.try_get("xact_id")?;
        Ok(Look {
            existing_id: row.try_get("existing_id")?,
            namesakes: row.try_get::<_, Option<i64>>("namesakes")?.unwrap_or_default(),
            registered_id: row.try_get("registered_id")?,
            xact_id: xact_id.and_then(|number| number.parse().ok()),
            slot: slot_name.zip(row.try_get("slot_number")?),
            slot_free: row.try_get("slot_free")?,
        })
    }
}

#[derive(Clone, Copy)]
enum Status {
    Committed,
    Aborted,
}

/// What `sql/confirm.sql` says; `None` while the transaction is in progress.
fn status(messages: &[SimpleQueryMessage]) -> Option<Status> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => match row.try_get(0) {
            Ok(Some("committed")) => Some(Status::Committed),
            Ok(Some("aborted")) => Some(Status::Aborted),
            _ => None,
        },
        _ => None,
    })
}

fn outcome(
    settings: &HubSettings,
    confirm: &str,
    limit: Duration,
) -> Result<Option<Status>, String> {
    let limit = limit.clamp(Duration::from_millis(1), CONNECT);
    let mut hub = Hub::connect(settings, limit).map_err(|failure| match failure {
        Failure::Connect { cause, .. } => cause,
        other => other.to_string(),
    })?;
    let confirm = confirm.to_owned();
    let messages = hub.ask(limit, move |client| client.simple_query(&confirm));
    messages.map(|messages| status(&messages)).map_err(|error| error.cause)
}

/// The advisory lock of a name: the first eight bytes of a SHA-256. Two names that share one
/// take turns, no more.
fn name_lock(name: &str) -> i64 {
    let digest = Sha256::new().chain_update("register-trust\0").chain_update(name).finalize();
    let (key, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*key)
}

fn statement(step: &'static str, error: HubError) -> Failure {
    let next = match error.code.as_ref().map(|code| code.code()) {
        Some("55P03" | "57014") => {
            "find who holds the lock in the hub's pg_stat_activity, and run again"
        }
        Some("42501") => "grant POSTGRES_USER what the hub's own role may do, and run again",
        Some("42P01" | "42703" | "42704") => "run the hub's migrations, or check POSTGRES_DB",
        Some("25006" | "0A000") => "point DB_HOST to the hub's primary, and run again",
        Some(_) => "look into the hub's database log",
        None => "check that the hub's database is up, and run again",
    };
    Failure::Statement { step, cause: error.cause, next }
}
