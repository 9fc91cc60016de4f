//! The configured FL kit slots: a JSON list of names, each with its number.

use std::fmt;

use log::warn;

use crate::aws::Ssm;
use crate::settings::SlotSource;

/// Where production keeps the names.
const PARAMETER: &str = "/flip/fl_kit_slot_names";

/// The number of a slot whose name ends in none: behind every numbered slot.
const UNNUMBERED: i32 = 10_000;

/// Slot names and their numbers, side by side, as `sql/reconcile.sql` takes them.
#[derive(Default)]
pub struct SlotNames {
    /// The names.
    pub names: Vec<String>,
    /// Their numbers.
    pub numbers: Vec<i32>,
}

impl SlotNames {
    /// Reads the configured names. What cannot be read or used is logged and counts as none.
    pub fn read(source: &SlotSource) -> SlotNames {
        let json = match source {
            SlotSource::Variable(None) => Err("it is not set".to_owned()),
            SlotSource::Variable(Some(json)) => {
                json.clone().into_string().map_err(|_| "it is not UTF-8".to_owned())
            }
            SlotSource::Parameter(aws) => Ssm::new(aws.clone()).get(PARAMETER),
        };
        let names = json.and_then(|json| {
            serde_json::from_str::<Vec<String>>(&json).map_err(|error| {
                format!("it is not a JSON list of strings ({error}), such as [\"Trust_1\"]")
            })
        });
        let names = names.unwrap_or_else(|why| {
            warn!("no slot names from {source}: {why}");
            Vec::new()
        });
        let mut slots = SlotNames::default();
        for name in names {
            match number(&name) {
                Some(number) if !name.is_empty() && !name.contains(char::is_control) => {
                    slots.names.push(name);
                    slots.numbers.push(number);
                }
                _ => warn!("slot name {name:?} in {source} cannot be used; it is left out"),
            }
        }
        slots
    }
}

impl fmt::Display for SlotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotSource::Variable(_) => f.write_str("FL_KIT_SLOT_NAMES"),
            SlotSource::Parameter(_) => write!(f, "the SSM parameter {PARAMETER}"),
        }
    }
}

/// The digits behind the last `_`, if there is nothing else behind it. `None`: more than the
/// hub's `int` column holds.
fn number(name: &str) -> Option<i32> {
    match name.rsplit_once('_') {
        Some((_, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok()
        }
        _ => Some(UNNUMBERED),
    }
}
