//! What the proof stands on: after a storm every committed trust is compared with everything that
//! any consumer could have read of the runs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Write;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model::log;
use crate::support::{Hub, Run, Ssm};

/// One run, and everything that any consumer could have read of it.
#[derive(Clone, Debug)]
pub struct Record {
    pub name: String,
    /// Somebody did something to it that may have ended it.
    pub killed: bool,
    /// `None`: a signal ended it.
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The parameter that this run alone wrote to: its name, and every version, oldest first.
    pub parameter: Option<(String, Vec<String>)>,
}

impl Record {
    pub fn of(name: &str, run: &Run) -> Record {
        log::assert_known(&run.stderr, false);
        let (stdout, stderr) = (run.stdout.clone(), run.stderr.clone());
        let exit = run.status.code();
        Record { name: name.to_owned(), killed: false, exit, stdout, stderr, parameter: None }
    }

    pub fn killed(self) -> Record {
        Record { killed: true, ..self }
    }

    pub fn with(self, ssm: &Ssm, parameter: &str) -> Record {
        Record { parameter: Some((parameter.to_owned(), ssm.versions(parameter))), ..self }
    }

    /// Its deliveries in their order. The last one is the verdict.
    fn deliveries(&self) -> Vec<Delivered> {
        match &self.parameter {
            Some((_, versions)) => versions.iter().map(|text| Delivered::read(text)).collect(),
            None => self.stdout.split_inclusive('\n').map(Delivered::read).collect(),
        }
    }
}

enum Delivered {
    Empty,
    Full(Value),
    MetadataOnly(Value),
    /// What no consumer can read.
    Torn,
}

impl Delivered {
    fn read(text: &str) -> Delivered {
        match serde_json::from_str::<[Value; 1]>(text) {
            Ok([kit]) if kit["trust_id"].is_string() && kit["trust_api_key"].is_string() => {
                Delivered::Full(kit)
            }
            Ok([kit]) if kit["trust_id"].is_string() => Delivered::MetadataOnly(kit),
            _ if text.trim_end() == "[]" => Delivered::Empty,
            _ => Delivered::Torn,
        }
    }

    fn kit(&self) -> Option<&Value> {
        match self {
            Delivered::Full(kit) | Delivered::MetadataOnly(kit) => Some(kit),
            Delivered::Empty | Delivered::Torn => None,
        }
    }
}

/// What a storm came to. Nothing in it was lost, for the checker would have panicked.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    pub runs: usize,
    /// Runs that a signal ended, or met.
    pub ended: usize,
    /// Trusts that the runs registered.
    pub committed: usize,
    /// Runs that delivered a kit without credentials.
    pub metadata_only: usize,
    /// Runs that delivered a full kit and did not commit it.
    pub worthless: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.runs += other.runs;
        self.ended += other.ended;
        self.committed += other.committed;
        self.metadata_only += other.metadata_only;
        self.worthless += other.worthless;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tally { ended, committed, metadata_only, worthless, .. } = self;
        write!(f, "{ended} ended by a signal, {committed} committed, 0 lost, ")?;
        write!(f, "{worthless} kits never committed, {metadata_only} without credentials")
    }
}

/// The server ends a transaction whose client fell silent after a minute.
const PATIENCE: Duration = Duration::from_secs(75);

/// Compares all that is there, and panics at the first disagreement.
pub fn check(hub: &mut Hub, records: &[Record]) -> Tally {
    check_beside(hub, records, &[])
}

/// The same on a hub where others, too, registered trusts: the ids of theirs.
pub fn check_beside(hub: &mut Hub, records: &[Record], strangers: &[String]) -> Tally {
    compare(hub, records, strangers, PATIENCE)
        .unwrap_or_else(|disagreement| panic!("{disagreement}"))
}

/// A line on the terminal, whatever libtest captures.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A row of `trust`, with what points to it.
#[derive(Debug)]
struct Row {
    name: String,
    /// Whether the key that was delivered for it has its hash. PostgreSQL hashes: no code is
    /// shared with the program.
    key_fits: Option<bool>,
    /// Whether it has exactly one audit row of its registration, and that one agrees.
    audited: bool,
    /// Name and number of each of its slots, as JSON.
    slots: Vec<String>,
}

/// The first disagreement is an error. Sessions of the program get some time to end.
pub fn compare(
    hub: &mut Hub,
    records: &[Record],
    strangers: &[String],
    patience: Duration,
) -> Result<Tally, String> {
    quiet(hub, patience)?;
    let deliveries: Vec<_> = records.iter().map(Record::deliveries).collect();
    let full = deliveries.iter().flatten().filter_map(|delivered| match delivered {
        Delivered::Full(kit) => Some((kit["trust_id"].as_str().unwrap(), kit)),
        _ => None,
    });
    let kits: HashMap<&str, &Value> = full.collect();
    let rows = rows(hub, &kits)?;

    let mut names = HashSet::new();
    let ours = rows.iter().filter(|(id, _)| !strangers.contains(id));
    let mut tally = Tally { runs: records.len(), ..Tally::default() };
    for (id, row) in ours {
        tally.committed += 1;
        let no = |problem: &str| Err(format!("{problem}: trust {id} {row:#?}"));
        let Some(kit) = kits.get(id.as_str()) else { return no("LOST: nobody got its kit") };
        let slot = serde_json::json!([kit["fl_kit_slot"], kit["fl_kit_slot_number"]]).to_string();
        match row {
            _ if !names.insert(&row.name) => return no("a second row of its name"),
            _ if row.key_fits != Some(true) => return no("LOST: its kit's key is another one"),
            _ if !row.audited => return no("not the one audit row of its registration"),
            _ if row.slots != [slot] => return no("not the one slot of its kit"),
            _ => {}
        }
    }
    for (record, deliveries) in records.iter().zip(&deliveries) {
        agrees(record, deliveries, &rows).map_err(|problem| {
            let rows: Vec<_> = rows.iter().filter(|(_, row)| row.name == record.name).collect();
            format!("{problem}: {record:#?}\nthe hub's rows of that name: {rows:#?}")
        })?;
        let kit = |wanted: fn(&Delivered) -> bool| deliveries.iter().find(|kit| wanted(kit));
        let full = kit(|kit| matches!(kit, Delivered::Full(_))).and_then(Delivered::kit);
        tally.ended += usize::from(record.exit.is_none());
        tally.metadata_only +=
            usize::from(kit(|kit| matches!(kit, Delivered::MetadataOnly(_))).is_some());
        tally.worthless += usize::from(
            full.is_some_and(|kit| !rows.contains_key(kit["trust_id"].as_str().unwrap())),
        );
    }
    Ok(tally)
}

/// Whether one run's exit, words and deliveries agree with each other and with the hub.
fn agrees(
    record: &Record,
    deliveries: &[Delivered],
    rows: &HashMap<String, Row>,
) -> Result<(), &'static str> {
    let Record { exit, stdout, stderr, .. } = record;
    let says = |text| stderr.contains(text);
    let verdict = deliveries.last();
    let row = |kit: &Value| rows.contains_key(kit["trust_id"].as_str().unwrap());
    let mut own: Option<&Value> = None;
    for delivered in deliveries {
        match delivered {
            Delivered::Full(kit) if own.is_some_and(|own| own != kit) => {
                return Err("two full kits of one run");
            }
            Delivered::Full(kit) => own = Some(kit),
            Delivered::MetadataOnly(kit) if !row(kit) => {
                return Err("a kit without credentials for a trust that is not there");
            }
            Delivered::Torn if !record.killed => return Err("a line that is no kit"),
            _ => {}
        }
        if delivered.kit().is_some_and(|kit| kit["trust_name"] != record.name.trim()) {
            return Err("a kit for another name");
        }
    }
    if let Some(kit) = own {
        let keys = [&kit["trust_api_key"], &kit["trust_internal_service_key"]];
        if keys.iter().any(|key| key.as_str().is_none_or(|key| stderr.contains(key))) {
            return Err("a key that is missing, or on stderr");
        }
        if row(kit) && !matches!(verdict, Some(Delivered::Full(_))) {
            return Err("LOST: something lies over the kit of a registered trust");
        }
        if row(kit) && says("nothing was registered") {
            return Err("it says that nothing was registered, and something was");
        }
    }
    let receipt = match &record.parameter {
        Some((name, _)) if *stdout == format!("{name}\n") => true,
        Some(_) if !stdout.is_empty() => return Err("neither a receipt nor nothing on stdout"),
        Some(_) => false,
        // The kit's own line stands for it.
        None => true,
    };
    let final_kit = verdict.and_then(Delivered::kit).is_some_and(row);
    let empty = matches!(verdict, Some(Delivered::Empty));
    match exit {
        _ if record.parameter.is_some() && receipt && !final_kit && !empty => {
            Err("a receipt without a row")
        }
        Some(0) if !receipt || !final_kit => Err("exit 0 without a row and its kit"),
        // What stderr says of them is true of both transports; tests/contract holds the words.
        Some(1) if says("its kit is safe") && !final_kit => {
            Err("a kit that is called safe and is not")
        }
        Some(1)
            if ["left in place", "its kit is safe", "cannot leave []"].into_iter().any(says) =>
        {
            Ok(())
        }
        Some(1) if !(record.killed || receipt && empty) => Err("a failure without the verdict []"),
        Some(0 | 1) => Ok(()),
        None if record.killed => Ok(()),
        _ => Err("an exit of its own kind"),
    }
}

/// Waits until no session of the program is left. Then nothing may be open or locked.
fn quiet(hub: &mut Hub, patience: Duration) -> Result<(), String> {
    let here = "datname = current_database() AND pid <> pg_backend_pid()";
    let start = Instant::now();
    let sessions = format!("pg_stat_activity WHERE {here} AND application_name = 'register-trust'");
    while hub.count(&sessions) > 0 {
        if start.elapsed() > patience {
            return Err("a session of the program is left".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (what, table) in [
        (
            "an open transaction",
            format!(
                "pg_stat_activity WHERE {here} AND state <> 'idle'
                    AND backend_type = 'client backend'"
            ),
        ),
        ("a prepared transaction", "pg_prepared_xacts WHERE database = current_database()".into()),
        (
            "an advisory lock",
            "pg_locks WHERE locktype = 'advisory' AND database =
                (SELECT oid FROM pg_database WHERE datname = current_database())"
                .into(),
        ),
        (
            "an audit row without a trust",
            "trusts_audit WHERE NOT EXISTS (SELECT FROM trust WHERE trust.id = trust_id)".into(),
        ),
        (
            "a slot of nobody, or half assigned",
            "fl_kit_slot LEFT JOIN trust ON id = assigned_to_trust_id
              WHERE (id IS NULL) <> (assigned_to_trust_id IS NULL)
                 OR (id IS NULL) <> (assigned_at IS NULL)"
                .into(),
        ),
    ] {
        if hub.count(&table) > 0 {
            return Err(format!("{what} is left"));
        }
    }
    Ok(())
}

fn rows(hub: &mut Hub, kits: &HashMap<&str, &Value>) -> Result<HashMap<String, Row>, String> {
    let (ids, keys): (Vec<&str>, Vec<&str>) =
        kits.iter().map(|(id, kit)| (*id, kit["trust_api_key"].as_str().unwrap())).unzip();
    let rows = hub.admin.query(
        "SELECT trust.id::text, trust.name,
                api_key_hash = encode(sha256(convert_to(kit.key, 'UTF8')), 'hex'),
                (SELECT count(*) = 1
                        AND bool_and(trust_name = trust.name AND modified_by_user_id IS NULL)
                   FROM trusts_audit WHERE trust_id = trust.id AND action = 'REGISTERED') IS TRUE,
                ARRAY(SELECT format('[%s,%s]', to_json(slot_name), slot_number)
                        FROM fl_kit_slot WHERE assigned_to_trust_id = trust.id)
           FROM trust
           LEFT JOIN unnest($1::text[], $2::text[]) AS kit (id, key) ON kit.id = trust.id::text",
        &[&ids, &keys],
    );
    let rows = rows.map_err(|error| format!("the hub cannot be read: {error}"))?;
    let row = |row: &postgres::Row| Row {
        name: row.get(1),
        key_fits: row.get(2),
        audited: row.get(3),
        slots: row.get(4),
    };
    Ok(rows.iter().map(|columns| (columns.get(0), row(columns))).collect())
}
