//! The configured FL kit slots: a JSON list of names, each with its number.

use log::warn;

use crate::error::words;
use crate::settings::Stage;

/// The number of a slot whose name ends in none: behind every numbered slot.
const UNNUMBERED: i32 = 10_000;

/// How many names that cannot be used are named. A list can hold 87,000.
const NAMED: usize = 10;

/// Slot names and their numbers, side by side, as `sql/reconcile.sql` takes them.
pub struct SlotNames {
    pub names: Vec<String>,
    pub numbers: Vec<i32>,
}

impl SlotNames {
    /// Reads the configured names. What cannot be read or used is logged and counts as none.
    pub fn read(stage: &Stage) -> SlotNames {
        let source = source(stage);
        let names = configured(stage).unwrap_or_else(|why| {
            warn!("no slot names from {source}: {why}");
            Vec::new()
        });
        let mut unusable = 0;
        let slots = names.into_iter().filter_map(|name| match number(&name) {
            // PostgreSQL's B-tree, which holds the names, takes no key of a third of a page (2.7 kB).
            Some(number)
                if (1..=2000).contains(&name.len()) && !name.contains(char::is_control) =>
            {
                Some((name, number))
            }
            _ => {
                unusable += 1;
                if unusable <= NAMED {
                    let name = words(&format!("{name:?}"), 33);
                    warn!("slot name {name} in {source} cannot be used; it is ignored");
                }
                None
            }
        });
        let (names, numbers) = slots.unzip();
        if unusable > NAMED {
            warn!("{} more slot names in {source} cannot be used", unusable - NAMED);
        }
        SlotNames { names, numbers }
    }
}

fn configured(stage: &Stage) -> Result<Vec<String>, String> {
    let json = match stage {
        Stage::Production(aws) => aws
            .get("/flip/fl_kit_slot_names")
            .map_err(|failure| format!("{}; {}", failure.what, failure.next))?,
        Stage::Development { slot_names: None, .. } => return Err("it is not set".to_owned()),
        Stage::Development { slot_names: Some(json), .. } => {
            json.clone().into_string().map_err(|_| "it is not UTF-8")?
        }
    };
    serde_json::from_str(&json).map_err(|error| {
        let error = words(&error.to_string(), 33);
        format!("it is not a JSON list of strings ({error}), such as [\"Trust_1\"]")
    })
}

/// Where the names are configured, in words.
pub fn source(stage: &Stage) -> &'static str {
    match stage {
        Stage::Development { .. } => "FL_KIT_SLOT_NAMES",
        Stage::Production(_) => "the SSM parameter /flip/fl_kit_slot_names",
    }
}

/// The digits after the last `_`, if nothing else follows it. `None`: the number is too large for
/// the hub's `int` column.
fn number(name: &str) -> Option<i32> {
    match name.rsplit_once('_') {
        Some((_, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok()
        }
        _ => Some(UNNUMBERED),
    }
}
