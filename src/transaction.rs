//! The open transaction and its statements, which stand in `sql/`. Dropping it rolls back.

use std::sync::Arc;

use log::{debug, warn};
use postgres::types::{ToSql, Type};
use postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};
use sha2::{Digest, Sha256};

use crate::error::Failure;
use crate::hub::{Hub, STATEMENT};
use crate::kit::{Keys, Trust, is_uuid};
use crate::secret::{self, Secret};
use crate::slots::SlotNames;

/// A trust that may be registered if the hub does not know it, with keys of its own.
pub struct NewTrust {
    pub code: String,
    pub region: Option<String>,
    /// What the hub keeps of the API key.
    pub api_key_hash: Secret,
    pub keys: Keys,
}

const OPEN: &str = include_str!("../sql/open.sql");

/// The transaction, which holds the lock of the name.
pub struct Transaction {
    pub hub: Hub,
    pub name: String,
    /// The id that the trust gets if it is new, or that of a kit to be checked. It marks the
    /// transaction, too.
    pub trust_id: String,
    /// The server is a standby: what it does not see may be there.
    pub recovering: bool,
    /// `None`: it cannot, and a trigger of the hub's could alter it.
    hash_can_be_read: Option<bool>,
}

/// What `register.sql` wrote.
pub struct Claim {
    pub trust: Trust,
    /// Whether the hub kept the trust's row as it was given.
    pub trust_kept: Option<bool>,
    pub xact_id: i64,
}

/// What `look.sql` sees.
pub struct Look {
    pub trust: Option<Trust>,
    /// The claim before had a slot at hand.
    pub slot_was_free: bool,
}

impl Transaction {
    /// Opens a transaction that registers, and waits for other registrations of this name.
    pub fn open(hub: Hub, name: &str) -> Result<Transaction, Failure> {
        Transaction::begin(hub, name, secret::uuid()?, OPEN)
    }

    /// Opens one that only looks, also on a standby.
    pub fn open_to_look(hub: Hub, name: &str, trust_id: &str) -> Result<Transaction, Failure> {
        let sql = OPEN.replace("SET LOCAL transaction_read_only = off;", "");
        Transaction::begin(hub, name, trust_id.to_owned(), &sql)
    }

    fn begin(hub: Hub, name: &str, trust_id: String, sql: &str) -> Result<Transaction, Failure> {
        let sql = sql
            .replace(":'trust_id'", &format!("'{trust_id}'"))
            .replace(":name_lock", &name_lock(name).to_string());
        let name = name.to_owned();
        let mut transaction =
            Transaction { hub, name, trust_id, recovering: false, hash_can_be_read: None };
        let row =
            transaction.step("open the registration", move |client| rows(client, &sql))?.pop();
        let column = |name| row.as_ref().and_then(|row| row.try_get(name).ok().flatten());
        transaction.recovering = column("recovering") != Some("f");
        transaction.hash_can_be_read = match column("hash_can_be_read") {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        };
        Ok(transaction)
    }

    /// Claims a slot and writes the trust; `None` if nothing, or not all, was written.
    pub fn claim(&mut self, new: &Arc<NewTrust>) -> Result<Option<Claim>, Failure> {
        let (id, name, given) = (self.trust_id.clone(), self.name.clone(), new.clone());
        let mut sql = include_str!("../sql/register.sql").to_owned();
        if self.hash_can_be_read != Some(true) {
            sql = sql.replace("id, name, api_key_hash\n", "id, name, $5 AS api_key_hash\n");
        }
        let readable = self.hash_can_be_read;
        let claim = self.step("find or register the trust", move |client| {
            let hash = given.api_key_hash.expose();
            let row = client.query_typed_opt(
                &sql,
                &[
                    (&id, Type::TEXT),
                    (&name, Type::TEXT),
                    (&given.code, Type::TEXT),
                    (&given.region, Type::TEXT),
                    (&hash, Type::TEXT),
                ],
            )?;
            let Some(mut row) = row else { return Ok(None) };
            let (xact_id, slot_number) = (row.try_get("xact_id")?, row.try_get("slot_number")?);
            let mut slot: Option<String> = row.try_get("slot_name")?;
            let mut trust_kept: Option<bool> = row.try_get("trust_kept")?;
            let triggers: bool = row.try_get("triggers_behind")?;
            if triggers && readable == Some(true) {
                let texts: [&(dyn ToSql + Sync); 4] = [&id, &name, &hash, &slot];
                let texts = texts.map(|text| (text, Type::TEXT));
                row = client.query_typed_one(include_str!("../sql/read_back.sql"), &texts)?;
                trust_kept = row.try_get::<_, Option<bool>>("trust_kept")?.and(trust_kept);
                slot = row.try_get("slot_name")?;
            }
            let claim = Claim { trust: Trust { id, slot, slot_number }, trust_kept, xact_id };
            Ok(Some((claim, triggers && readable == Some(false) || readable.is_none())))
        })?;
        match claim {
            Some((_, true)) => Err(Failure::new(
                "the hub has a trigger that can alter the key's hash, and POSTGRES_USER may not \
                 read it back",
                "GRANT SELECT (api_key_hash) ON trust TO that role (sql/grants.sql), and run again",
            )),
            claim => Ok(claim.map(|(claim, _)| claim)),
        }
    }

    /// Looks for the trust.
    pub fn look(&mut self) -> Result<Look, Failure> {
        let name = self.name.clone();
        let (look, namesakes, mark) = self.step("look for the trust", move |client| {
            let sql = include_str!("../sql/look.sql");
            let row = client.query_typed_one(sql, &[(&name, Type::TEXT)])?;
            let (slot, slot_number) = (row.try_get("slot_name")?, row.try_get("slot_number")?);
            let id: Option<String> = row.try_get("trust_id")?;
            let trust = id.map(|id| Trust { id, slot, slot_number });
            let look = Look { trust, slot_was_free: row.try_get("slot_was_free")? };
            Ok((
                look,
                row.try_get::<_, i64>("namesakes")?,
                row.try_get::<_, Option<String>>("mark")?,
            ))
        })?;
        if look.trust.as_ref().is_some_and(|trust| !is_uuid(&trust.id)) {
            let next = "check that DB_HOST and DB_PORT lead to the hub";
            return Err(Failure::new("the trust's id on the hub is not a UUID", next));
        }
        if Some(&self.trust_id) != mark.as_ref() {
            return Err(Failure::pooled());
        }
        if namesakes > 1 {
            warn!("{namesakes} trusts are named {:?}; this is the oldest", self.name);
        }
        Ok(look)
    }

    /// Gives back what a claim without a slot has locked.
    pub fn give_back(&mut self) -> Result<(), Failure> {
        self.step("give back what was locked", |client| {
            client.batch_execute(include_str!("../sql/give_back.sql"))
        })
    }

    /// Adds the configured slots that are missing.
    pub fn reconcile(&mut self, SlotNames { names, numbers }: SlotNames) -> Result<(), Failure> {
        debug!("no slot to claim; {} slot names are configured", names.len());
        self.step("add the configured slots", move |client| {
            let slots: [(&(dyn ToSql + Sync), Type); 2] =
                [(&names, Type::TEXT_ARRAY), (&numbers, Type::INT4_ARRAY)];
            client.execute_typed(include_str!("../sql/reconcile.sql"), &slots).map(drop)
        })
    }

    /// Waits for the lowest slot that another registration holds; false if there is none.
    pub fn await_slot(&mut self) -> Result<bool, Failure> {
        debug!("waiting for the slots that other registrations hold");
        self.step("wait for a free slot", |client| {
            let slot = client.query_typed_opt(include_str!("../sql/await_slot.sql"), &[]);
            slot.map(|slot| slot.is_some())
        })
    }

    fn step<T: Send + 'static>(
        &mut self,
        step: &str,
        question: impl FnOnce(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        self.hub.ask(STATEMENT, question).map_err(|failure| failure.during(step))
    }
}

/// The rows of all statements.
pub fn rows(client: &mut Client, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    let messages = client.simple_query(sql)?.into_iter();
    Ok(messages
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// The advisory lock of a name: the first eight bytes of a SHA-256. Two names that share one
/// take turns, no more.
fn name_lock(name: &str) -> i64 {
    let digest = Sha256::new().chain_update("register-trust\0").chain_update(name).finalize();
    i64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}
