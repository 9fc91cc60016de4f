//! The homes that use stdout: the script, the Docker client, the program with `--await-ack`, the
//! primary and a standby. Two runs of one trust number; the second one may find what the first left.
//!
//! A kit is held if it lies whole in the file of its run or under the final name, or if the
//! operator's sink has stored it. Both runs' files lie in the folder of the kits, where the next
//! run looks: that is "a place that was named". What the program does is in `stdout/program.rs`, what
//! the script does in `stdout/script.rs`.

mod program;
mod script;

use super::hub::{Commit, Hub, Tx};
use super::rules::{Rule, Rules};
use super::search::{Home, Promise, Steps};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    NotStarted,
    Opening,
    /// The trust is inserted and not committed.
    Printing,
    Waiting,
    Committing,
    /// The last line is to be printed.
    Saying(Line),
    Ended,
    Killed,
}

/// The line after the kit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Line {
    Receipt,
    Empty,
}

/// A line on its way from the program to the script.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sent<T> {
    No,
    OnItsWay(T),
    /// Read, or lost.
    Gone,
}

/// What the program will read next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stdin {
    Silent,
    Id,
    OtherLine,
    End,
}

/// What the script does next. The number is the run whose kit it is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Script {
    NotStarted,
    AwaitsKit,
    Writes,
    SyncsFile,
    SyncsFolder,
    Acknowledges,
    AwaitsVerdict,
    Rewrites,
    Links(usize),
    SyncsLink(usize),
    RunsSink,
    Unlinks(usize),
    Deletes,
    /// Exit 0.
    Succeeded,
    /// "Nothing was registered".
    SaidNothing,
    /// The kit stays in its file, which is named.
    NamedItsFile,
    /// It is over, and there was no kit.
    GotNothing,
    Dead,
}

/// A folder's entry: what is there now, and what is there after a power loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry<T> {
    now: T,
    synced: T,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    Nothing,
    Torn,
    Kit,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Final {
    Nothing,
    /// A kit with credentials that was there before.
    Earlier,
    Of(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    pub program: Program,
    commit: Commit,
    /// The trust was there: the kit has no credentials.
    metadata_only: bool,
    kit: Sent<()>,
    pub verdict: Sent<Line>,
    /// Whatever became of the line.
    pub printed: Option<Line>,
    stdin: Stdin,
    client: bool,
    pub script: Script,
    content: Content,
    content_synced: bool,
    /// The file under its own name.
    own: Entry<bool>,
    /// The script's last words name a file that is not there.
    named_in_vain: bool,
}

/// A run that registers nothing and looks for the first run's trust: `--check-kit` with its id, or
/// `--require-existing` with its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Look {
    NotRun,
    /// It is connected to the standby, and saw no row there.
    NoRowOnStandby,
    SaidWorthless,
    /// "Unknown trust", and whether that was true.
    SaidUnknownTrust(bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub hub: Hub,
    pub runs: [Run; 2],
    final_name: Entry<Final>,
    /// The folder of the kits is new, and its own entry is not on the disk yet.
    new_folder: bool,
    earlier_overwritten: bool,
    /// The sink has stored the kit.
    pub sunk: [bool; 2],
    pub look: Look,
}

/// How a script can end.
pub const ENDS: [Script; 5] = [
    Script::Succeeded,
    Script::SaidNothing,
    Script::NamedItsFile,
    Script::GotNothing,
    Script::Dead,
];

/// What a look can say.
pub const LOOKS: [Look; 2] = [Look::SaidWorthless, Look::SaidUnknownTrust(true)];

/// How much of the home is there.
#[derive(Clone, Copy, PartialEq)]
pub enum Scope {
    /// One run, whose program is looked at.
    One,
    /// One run with a sink.
    OneSink,
    /// One run with a file, and one that may follow it.
    Files,
    /// The same with a sink.
    Sink,
    /// One run, and somebody who looks for its trust meanwhile.
    Looked,
}

pub struct Stdout {
    pub rules: Rules,
    pub scope: Scope,
}

impl Run {
    const NEW: Run = Run {
        program: Program::NotStarted,
        commit: Commit::Unsent,
        metadata_only: false,
        kit: Sent::No,
        verdict: Sent::No,
        printed: None,
        stdin: Stdin::Silent,
        client: true,
        script: Script::NotStarted,
        content: Content::Nothing,
        content_synced: false,
        own: Entry { now: false, synced: false },
        named_in_vain: false,
    };

    fn start(&mut self) {
        self.script = Script::AwaitsKit;
        self.program = Program::Opening;
    }

    /// Whoever the last line was for was there to read it.
    pub fn is_heard(&self) -> bool {
        self.client && self.script != Script::Dead
    }

    fn script_runs(&self) -> bool {
        use Script::{Dead, GotNothing, NamedItsFile, NotStarted, SaidNothing, Succeeded};
        !matches!(
            self.script,
            NotStarted | Succeeded | SaidNothing | NamedItsFile | GotNothing | Dead
        )
    }

    fn program_runs(&self) -> bool {
        use Program::{Ended, Killed, NotStarted};
        !matches!(self.program, NotStarted | Ended | Killed)
    }

    /// What the script reads after the last line.
    fn at_the_end(&self) -> bool {
        let more = matches!(self.kit, Sent::OnItsWay(())) || self.verdict_comes().is_some();
        !more && (!self.client || !self.program_runs())
    }

    fn verdict_comes(&self) -> Option<Line> {
        match self.verdict {
            Sent::OnItsWay(line) => Some(line),
            _ => None,
        }
    }

    fn say(&mut self, line: Line) {
        self.printed = Some(line);
        self.verdict = if self.reaches_script() { Sent::OnItsWay(line) } else { Sent::Gone };
    }

    fn reaches_script(&self) -> bool {
        self.client && self.script_runs()
    }

    /// Nothing passes between script and program any more.
    fn cut(&mut self) {
        if self.kit != Sent::No {
            self.kit = Sent::Gone;
        }
        if self.verdict != Sent::No {
            self.verdict = Sent::Gone;
        }
        self.stdin = Stdin::End;
    }
}

impl Home for Stdout {
    type State = State;

    fn start(&self) -> Vec<State> {
        let mut state = State {
            hub: Hub::NEW,
            runs: [Run::NEW; 2],
            final_name: Entry { now: Final::Nothing, synced: Final::Nothing },
            new_folder: true,
            earlier_overwritten: false,
            sunk: [false; 2],
            look: Look::NotRun,
        };
        state.runs[0].start();
        let mut taken = state;
        taken.final_name = Entry { now: Final::Earlier, synced: Final::Earlier };
        taken.new_folder = false;
        if self.scope == Scope::Files { vec![state, taken] } else { vec![state] }
    }

    fn steps(&self, state: &State, next: &mut Steps<State>) {
        state.hub.steps(self.rules, next, |s| &mut s.hub);
        for run in 0..2 {
            self.program(state, run, next);
            self.script(state, run, next);
            self.killings(state, run, next);
        }
        let second = state.runs[1].script == Script::NotStarted;
        let alone = !state.runs[0].script_runs() || !self.rules.on(Rule::LockPerNumber);
        let again = matches!(self.scope, Scope::Files | Scope::Sink);
        if second && alone && again {
            next.go(1, "operator: runs again", |s| {
                s.runs[1].start();
                // Whatever an earlier run left.
                if !self.rules.on(Rule::PickUpOnlyById) && s.is_left(0) {
                    s.final_name.now = Final::Of(0);
                }
            });
        }
        if self.scope == Scope::Looked {
            self.look(state, next);
        }
    }

    fn promises(&self) -> Vec<Promise<State>> {
        promises![
            a_committed_trust_has_its_full_kit_in_a_place_that_was_named,
            a_kit_opens_what_its_trust_committed,
            nothing_registered_is_never_said_of_a_committed_trust,
            a_receipt_is_only_given_for_a_committed_trust,
            the_script_succeeds_only_with_a_committed_trust,
            a_kit_that_was_deleted_was_worthless,
            no_kit_is_overwritten,
            the_final_name_never_holds_a_worthless_kit,
            a_sink_never_stores_a_worthless_kit,
            a_file_that_the_last_words_name_is_there,
            a_name_has_one_trust,
            worthless_is_never_said_of_a_valid_kit,
            unknown_trust_is_never_said_of_a_committed_trust
        ]
    }
}

fn each(state: &State, holds: impl Fn(usize, &Run) -> bool) -> bool {
    (0..2).all(|run| holds(run, &state.runs[run]))
}

fn a_committed_trust_has_its_full_kit_in_a_place_that_was_named(state: &State) -> bool {
    each(state, |run, _| !state.hub.committed(run) || state.holds(run))
}

fn a_kit_opens_what_its_trust_committed(state: &State) -> bool {
    each(state, |run, _| !state.hub.committed(run) || !state.hub.altered[run])
}

fn nothing_registered_is_never_said_of_a_committed_trust(state: &State) -> bool {
    each(state, |run, it| it.printed != Some(Line::Empty) || !state.hub.committed(run))
}

fn a_receipt_is_only_given_for_a_committed_trust(state: &State) -> bool {
    each(state, |run, it| it.printed != Some(Line::Receipt) || state.is_registered(run))
}

fn the_script_succeeds_only_with_a_committed_trust(state: &State) -> bool {
    each(state, |run, it| it.script != Script::Succeeded || state.is_registered(run))
}

fn a_kit_that_was_deleted_was_worthless(state: &State) -> bool {
    each(state, |run, it| it.script != Script::SaidNothing || !state.hub.committed(run))
}

fn no_kit_is_overwritten(state: &State) -> bool {
    !state.earlier_overwritten
}

fn the_final_name_never_holds_a_worthless_kit(state: &State) -> bool {
    each(state, |run, _| state.final_name.now != Final::Of(run) || state.hub.tx[run] != Tx::Aborted)
}

fn a_sink_never_stores_a_worthless_kit(state: &State) -> bool {
    each(state, |run, _| !state.sunk[run] || state.hub.tx[run] != Tx::Aborted)
}

fn a_file_that_the_last_words_name_is_there(state: &State) -> bool {
    each(state, |_, it| !it.named_in_vain)
}

fn a_name_has_one_trust(state: &State) -> bool {
    !(state.hub.committed(0) && state.hub.committed(1))
}

fn worthless_is_never_said_of_a_valid_kit(state: &State) -> bool {
    state.look != Look::SaidWorthless || !state.hub.committed(0)
}

fn unknown_trust_is_never_said_of_a_committed_trust(state: &State) -> bool {
    state.look != Look::SaidUnknownTrust(false)
}

impl State {
    pub fn ends_with(&self, end: Script) -> bool {
        self.runs.iter().any(|run| run.script == end)
    }

    pub fn holds(&self, run: usize) -> bool {
        let it = &self.runs[run];
        let there = it.own.now || self.final_name.now == Final::Of(run);
        self.sunk[run] || it.content == Content::Kit && there
    }

    /// The trust that the run's kit tells of is committed.
    fn is_registered(&self, run: usize) -> bool {
        let of = if self.runs[run].metadata_only { 1 - run } else { run };
        self.hub.committed(of)
    }

    /// The run left its kit under its own name.
    fn is_left(&self, run: usize) -> bool {
        self.runs[run].own.now && self.runs[run].content == Content::Kit
    }
}

impl Stdout {
    fn on(&self, rule: Rule) -> bool {
        self.rules.on(rule)
    }

    fn killings(&self, state: &State, run: usize, next: &mut Steps<State>) {
        let it = &state.runs[run];
        if it.program_runs() {
            next.fault(run, "program: is killed", |s| s.kill_program(run));
            if it.client {
                next.fault(run, "client: is killed", |s| {
                    s.runs[run].client = false;
                    s.runs[run].cut();
                });
            }
        }
        if it.script_runs() {
            next.fault(run, "script: is killed", |s| {
                s.runs[run].script = Script::Dead;
                s.runs[run].cut();
            });
        }
        let works =
            (0..2).any(|run| state.runs[run].script_runs() || state.runs[run].program_runs());
        if run == 0 && works {
            for kept in 0..8 {
                if state.is_a_way_to_lose_power(kept) {
                    next.fault(0, "power: fails", |s| s.lose_power(kept));
                }
            }
        }
    }

    /// Somebody runs `--check-kit`, or `--require-existing`.
    fn look(&self, state: &State, next: &mut Steps<State>) {
        let hub = &state.hub;
        let worthless = |s: &mut State| s.look = Look::SaidWorthless;
        let unknown = |s: &mut State| s.look = Look::SaidUnknownTrust(!hub.committed(0));
        let lags = !hub.promoted && !hub.replayed[0];
        match state.look {
            Look::NotRun if state.runs[0].content == Content::Kit => {
                let locked = hub.is_open(0) && self.on(Rule::WorthlessUnderTheNamesLock);
                if !hub.committed(0) && !locked {
                    next.go(0, "check-kit: finds no row on the primary: 'worthless'", worthless);
                }
                if !hub.committed(0) {
                    next.go(0, "sync: finds no row on the primary: 'unknown trust'", unknown);
                }
                if lags && !self.on(Rule::WorthlessOnlyByThePrimary) {
                    next.go(0, "check-kit: finds no row on the standby: 'worthless'", worthless);
                }
                if lags && !self.on(Rule::UnknownTrustOnlyByThePrimary) {
                    next.go(0, "sync: finds no row on the standby: 'unknown trust'", unknown);
                }
                if lags && !self.on(Rule::LookAsksForRecoveryFirst) {
                    next.go(0, "check-kit or sync: finds no row on the standby", |s| {
                        s.look = Look::NoRowOnStandby;
                    });
                }
            }
            Look::NoRowOnStandby if hub.promoted => {
                next.go(0, "check-kit: hears that it is the primary: 'worthless'", worthless);
                next.go(0, "sync: hears that it is the primary: 'unknown trust'", unknown);
            }
            _ => {}
        }
    }
}

impl State {
    fn kill_program(&mut self, run: usize) {
        self.runs[run].program = Program::Killed;
        self.hub.hang_up(run);
    }

    fn take_final_name(&mut self, run: usize) {
        self.earlier_overwritten |= self.final_name.now == Final::Earlier;
        self.final_name.now = Final::Of(run);
    }

    fn sync_folder(&mut self) {
        for run in &mut self.runs {
            run.own.synced = run.own.now;
        }
        self.final_name.synced = self.final_name.now;
    }

    /// Of each entry that was not synced either the old state is left or the new one; each bit of
    /// `kept` stands for one. Only those that make a difference are ways of their own.
    fn is_a_way_to_lose_power(&self, kept: u8) -> bool {
        let [first, second] = self.runs.map(|run| run.own.now != run.own.synced);
        let pending = [first, second, self.final_name.now != self.final_name.synced];
        (0..3).all(|bit| pending[bit] || kept & 1 << bit == 0)
    }

    fn lose_power(&mut self, kept: u8) {
        for run in 0..2 {
            if self.runs[run].program_runs() {
                self.kill_program(run);
            }
            let it = &mut self.runs[run];
            if it.script_runs() {
                it.script = Script::Dead;
            }
            it.cut();
            it.client = false;
            if !it.content_synced && it.content == Content::Kit {
                it.content = Content::Torn;
            }
            it.own.now = if kept & 1 << run == 0 { it.own.synced } else { it.own.now };
            it.own.synced = it.own.now;
        }
        let name = &mut self.final_name;
        name.now = if kept & 4 == 0 { name.synced } else { name.now };
        name.synced = name.now;
        if self.new_folder {
            self.final_name = Entry { now: Final::Nothing, synced: Final::Nothing };
            for run in &mut self.runs {
                run.own = Entry { now: false, synced: false };
            }
        }
    }
}
