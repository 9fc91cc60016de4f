//! A model of the hand-over: every order in which the program, its script, the hub and SSM can
//! act, with up to three faults. It says which rule of the contract keeps which promise.
//!
//! `search.rs` is the search, `rules.rs` the contract's rules, `hub.rs` the hub; `stdout.rs` and
//! `ecs.rs` are the homes. `traces.txt` holds the shortest way to a broken promise without each
//! rule, and behind each door that cannot be shut.
//! `replay.rs` holds the binary to the model, behind `gate.rs`; `scripts.rs` and `scripts_ecs.rs` hold the
//! scripts to it, and `log.rs` holds the model to what they say.

// How large a search was is a figure for the documents; `--nocapture` shows it.
#![allow(clippy::print_stdout)]

/// Promises by their functions' names.
macro_rules! promises {
    ($($promise:ident),*) => { vec![$((stringify!($promise), $promise as _)),*] };
}

mod ecs;
mod gate;
mod hub;
pub mod log;
mod replay;
mod rules;
mod scripts;
mod scripts_ecs;
mod search;
mod stdout;

use std::fmt::Write;
use std::path::Path;

use ecs::Ecs;
use rules::{Door, Rule, Rules};
use search::{Broken, Home, Search};
use stdout::{Scope, Stdout};

/// A home by its name, and the rules whose need it shows.
type Proof = (&'static str, fn(Rules) -> Option<Broken>, &'static [&'static [Rule]]);

const PROOFS: [Proof; 4] = [
    (
        "stdout, into files",
        |rules| Search::run(&Stdout { rules, scope: Scope::Files }).broken,
        &[Rule::OUTCOME, Rule::PROGRAM, Rule::ACKNOWLEDGEMENT, Rule::FILES],
    ),
    (
        "stdout, into a sink",
        |rules| Search::run(&Stdout { rules, scope: Scope::Sink }).broken,
        &[Rule::SINK],
    ),
    (
        "stdout, looked at meanwhile",
        |rules| Search::run(&Stdout { rules, scope: Scope::Looked }).broken,
        &[Rule::LOOKS],
    ),
    (
        "ECS",
        |rules| Search::run(&Ecs { rules, scope: ecs::Scope::Both }).broken,
        &[Rule::OUTCOME, Rule::ECS],
    ),
];

/// Rules that stand behind another one: alone they change nothing.
const SECOND_LINE: &[Rule] = &[Rule::RowAskedAfterStatus];

/// Searches a home to its end.
fn search_all<H: Home>(what: &str, home: &H) -> Search<H> {
    let search = Search::run(home);
    if let Some(broken) = &search.broken {
        panic!("{what}: {broken}");
    }
    println!("{what}: {} states", search.states());
    assert!(search.states() < 300_000, "{what}: {} states", search.states());
    search
}

#[test]
fn with_every_rule_stdout_breaks_no_promise() {
    let rules = Rules::default();
    let files = search_all("files", &Stdout { rules, scope: Scope::Files });
    let sink = search_all("sink", &Stdout { rules, scope: Scope::Sink });
    let looks = search_all("looks", &Stdout { rules, scope: Scope::Looked });
    for end in stdout::ENDS {
        assert!(files.reaches(|state| state.ends_with(end)), "no run ends with {end:?}");
    }
    assert!(sink.reaches(|state| state.sunk[0]), "no sink stores a kit");
    for said in stdout::LOOKS {
        assert!(looks.reaches(|state| state.look == said), "nobody says {said:?}");
    }
}

#[test]
fn with_every_rule_ecs_breaks_no_promise() {
    let ecs = search_all("ECS", &Ecs { rules: Rules::default(), scope: ecs::Scope::Both });
    for end in ecs::ENDS {
        assert!(ecs.reaches(|state| state.ends_with(end)), "no run ends with {end:?}");
    }
}

/// `BLESS=1` writes the traces anew: read the diff.
#[test]
fn without_any_rule_and_behind_any_door_a_promise_is_broken() {
    let mut text = String::new();
    for (home, search, groups) in PROOFS {
        for &rule in groups.concat().iter().filter(|rule| !SECOND_LINE.contains(rule)) {
            let broken = search(Rules::without(&[rule]));
            let broken = broken.unwrap_or_else(|| panic!("{home} does without {rule:?}"));
            let _ = writeln!(text, "without {rule:?} ({home})\n{broken}\n");
        }
    }
    for &door in Door::ALL {
        let proof = match door {
            Door::SinkThatForgets => 1,
            Door::ReceiptSeenBeforeError => 3,
            _ => 0,
        };
        let (home, search, _) = PROOFS[proof];
        let broken = search(Rules::with_door(door)).unwrap_or_else(|| panic!("{door:?} is shut"));
        let _ = writeln!(text, "behind {door:?} ({home})\n{broken}\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/traces.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(text == kept, "the traces differ from {path:?}; BLESS=1 writes them anew:\n{text}");
}

/// Whoever takes a missing row for "aborted" needs the order of the questions.
#[test]
fn the_row_is_asked_after_the_status_in_case_its_absence_is_believed() {
    let pooler = "pooler: asks a standby that lags for the row";
    let search = |rules: &[Rule]| {
        let home = Stdout { rules: Rules::without(rules), scope: Scope::Files };
        Search::without(&home, pooler).broken
    };
    assert!(search(&[Rule::CommittedWithoutRowIsUnknown]).is_none());
    let both = [Rule::CommittedWithoutRowIsUnknown, Rule::RowAskedAfterStatus];
    let broken = search(&both).unwrap();
    assert_eq!(broken.promise, "nothing_registered_is_never_said_of_a_committed_trust");
}
