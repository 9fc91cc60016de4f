//! The configured FL kit slots: a JSON list of names, each with its number.

use log::warn;

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
    /// Reads a list that came from `source`. What cannot be used is logged and left out.
    pub fn parse(json: &str, source: &str) -> SlotNames {
        let mut slots = SlotNames::default();
        let names: Vec<String> = serde_json::from_str(json).unwrap_or_else(|error| {
            warn!("{source} is not a JSON list of strings ({error}); it counts as no slot names");
            Vec::new()
        });
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
