//! The home in ECS: the script, its one-off task, the Parameter Store, the task's log, the
//! primary and a standby. Two runs of one trust number; the second one may follow a script that
//! was killed while its task lives on.
//!
//! A kit is held if the script has stored it in its file, or if it is what a parameter holds and
//! somebody can know the parameter's name: the script that runs, what it said on stderr, or the
//! file that the next run reads. How the file gets its final name is in stdout.rs.

use super::hub::{Commit, Hub, Outcome};
use super::rules::{Door, Rule, Rules};
use super::search::{Home, Promise, Steps};

/// What a parameter holds. The number is the task that put it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    Absent,
    Kit(usize),
    Metadata,
    Empty,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parameter {
    pub now: Value,
    /// What a read that is stale still finds.
    before: Value,
    /// A put that timed out and may be stored yet.
    late: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Program {
    NotStarted,
    Opening,
    Puts(Value),
    Committing,
    /// The run has failed, and is to leave `[]`.
    TakesBack,
    PrintsReceipt(Receipt),
    Ended,
    Killed,
}

/// The parameter's name on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Receipt {
    Registered,
    Failed,
}

/// A task in ECS, and the program in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Task {
    pub program: Program,
    commit: Commit,
    parameter: usize,
    metadata_only: bool,
    /// A put of the kit may be stored later.
    in_doubt: bool,
    /// What the log holds.
    pub receipt: Option<Receipt>,
    pub error: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Script {
    NotStarted,
    KeepsName,
    SyncsName,
    RunsTask,
    /// The answer to `run-task` was lost.
    DoesNotKnowItsTask,
    AwaitsTask(usize),
    ReadsParameter {
        task: usize,
        receipt: bool,
        error: bool,
    },
    Stores(usize),
    Syncs(usize),
    /// Deletes the parameter, after which it has stored the kit of that task, or is to.
    Deletes(Option<usize>),
    StoresLate(usize),
    DeletesAndSaysNothing,
    /// Exit 0, with the kit of this task or with one without credentials.
    Succeeded(Option<usize>),
    /// "Nothing was registered".
    SaidNothing,
    /// It is not known what the parameter holds; its name is said.
    NamedIt,
    Dead,
}

/// On the script's disk: what is there now, and what is there after a power loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    now: bool,
    synced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub hub: Hub,
    pub tasks: [Task; 2],
    pub parameters: [Parameter; 2],
    pub scripts: [Script; 2],
    /// By parameter: the file with its name, and whether stderr named it.
    name_files: [File; 2],
    said: [bool; 2],
    /// By task: the kit's file.
    kits: [File; 2],
}

/// How a script can end.
pub const ENDS: [Script; 6] = [
    Script::Succeeded(Some(0)),
    Script::Succeeded(Some(1)),
    Script::Succeeded(None),
    Script::SaidNothing,
    Script::NamedIt,
    Script::Dead,
];

/// What is looked at.
#[derive(Clone, Copy, PartialEq)]
pub enum Scope {
    /// One task. Its script has only started it.
    Task,
    /// One script, and its task.
    Script,
    /// Two runs, and whatever tasks they start.
    Both,
}

pub struct Ecs {
    pub rules: Rules,
    pub scope: Scope,
}

impl Home for Ecs {
    type State = State;

    fn start(&self) -> Vec<State> {
        let task = Task {
            program: Program::NotStarted,
            commit: Commit::Unsent,
            parameter: 0,
            metadata_only: false,
            in_doubt: false,
            receipt: None,
            error: false,
        };
        let parameter = Parameter { now: Value::Absent, before: Value::Absent, late: None };
        let file = File { now: false, synced: false };
        let mut start = State {
            hub: Hub::NEW,
            tasks: [task; 2],
            parameters: [parameter; 2],
            scripts: [Script::KeepsName, Script::NotStarted],
            name_files: [file; 2],
            said: [false; 2],
            kits: [file; 2],
        };
        if self.scope == Scope::Task {
            start.said[0] = true;
            start.tasks[0].program = Program::Opening;
        }
        vec![start]
    }

    fn steps(&self, state: &State, next: &mut Steps<State>) {
        state.hub.steps(self.rules, next, |s| &mut s.hub);
        for run in 0..2 {
            self.program(state, run, next);
            if self.scope != Scope::Task {
                self.script(state, run, next);
            }
            if let Some(late) = state.parameters[run].late {
                next.go(run, "SSM: stores the put that was late", |s| {
                    s.parameters[run].late = None;
                    s.parameters[run].put(late);
                });
            }
        }
        let over = !state.script_runs(0) && state.tasks[1].program == Program::NotStarted;
        if self.scope == Scope::Both && over && state.scripts[1] == Script::NotStarted {
            next.go(1, "operator: runs again", |s| {
                s.said[0] |= s.name_files[0].now;
                s.scripts[1] = Script::KeepsName;
            });
        }
    }

    fn promises(&self) -> Vec<Promise<State>> {
        promises![
            a_committed_trust_has_its_full_kit_in_a_place_that_was_named,
            nothing_registered_is_never_said_of_a_committed_trust,
            a_receipt_is_only_given_for_a_committed_trust,
            what_the_parameter_holds_beside_a_receipt_is_final,
            the_script_succeeds_only_with_a_committed_trust,
            a_name_has_one_trust
        ]
    }
}

fn each_task(state: &State, holds: impl Fn(usize, &Task) -> bool) -> bool {
    (0..2).all(|task| holds(task, &state.tasks[task]))
}

fn a_committed_trust_has_its_full_kit_in_a_place_that_was_named(state: &State) -> bool {
    each_task(state, |task, _| !state.hub.committed(task) || state.holds(task))
}

fn nothing_registered_is_never_said_of_a_committed_trust(state: &State) -> bool {
    each_task(state, |task, it| {
        let by_the_script = (0..2)
            .any(|run| state.scripts[run] == Script::SaidNothing && state.started_by(task) == run);
        let said = by_the_script || it.receipt == Some(Receipt::Failed);
        !said || !state.hub.committed(task)
    })
}

fn a_receipt_is_only_given_for_a_committed_trust(state: &State) -> bool {
    each_task(state, |task, it| {
        let of = if it.metadata_only { 1 - task } else { task };
        it.receipt != Some(Receipt::Registered) || state.hub.committed(of)
    })
}

fn what_the_parameter_holds_beside_a_receipt_is_final(state: &State) -> bool {
    each_task(state, |task, it| {
        let now = state.parameters[it.parameter].now;
        match it.receipt {
            Some(Receipt::Registered) if it.metadata_only => now != Value::Empty,
            Some(Receipt::Registered) => [Value::Absent, Value::Kit(task)].contains(&now),
            Some(Receipt::Failed) => now != Value::Kit(task),
            None => true,
        }
    })
}

fn the_script_succeeds_only_with_a_committed_trust(state: &State) -> bool {
    (0..2).all(|run| match state.scripts[run] {
        Script::Succeeded(Some(task)) => state.hub.committed(task),
        Script::Succeeded(None) => (0..2).any(|task| state.hub.committed(task)),
        _ => true,
    })
}

fn a_name_has_one_trust(state: &State) -> bool {
    !(state.hub.committed(0) && state.hub.committed(1))
}

impl Parameter {
    fn put(&mut self, value: Value) {
        self.before = self.now;
        self.now = value;
    }
}

impl State {
    pub fn ends_with(&self, end: Script) -> bool {
        self.scripts.contains(&end)
    }

    fn script_runs(&self, run: usize) -> bool {
        use Script::{Dead, NamedIt, NotStarted, SaidNothing, Succeeded};
        !matches!(self.scripts[run], NotStarted | Succeeded(_) | SaidNothing | NamedIt | Dead)
    }

    fn task_runs(&self, task: usize) -> bool {
        use Program::{Ended, Killed, NotStarted};
        !matches!(self.tasks[task].program, NotStarted | Ended | Killed)
    }

    /// The run whose script started the task: where no second script did, the first one.
    fn started_by(&self, task: usize) -> usize {
        if self.scripts[1] == Script::NotStarted { 0 } else { task }
    }

    pub fn holds(&self, task: usize) -> bool {
        let in_parameter = |name: usize| {
            let script = (0..2).any(|run| self.script_runs(run) && (run == name));
            let known = self.name_files[name].now || self.said[name] || script;
            known && self.parameters[name].now == Value::Kit(task)
        };
        let storing = self.scripts.contains(&Script::StoresLate(task));
        self.kits[task].now || in_parameter(0) || in_parameter(1) || storing
    }

    fn fail(&mut self, task: usize) {
        self.hub.roll_back(task);
        self.tasks[task].error = true;
        self.tasks[task].program = Program::TakesBack;
    }
}

impl Ecs {
    fn on(&self, rule: Rule) -> bool {
        self.rules.on(rule)
    }

    fn program(&self, state: &State, task: usize, next: &mut Steps<State>) {
        let it = &state.tasks[task];
        match it.program {
            Program::Opening if state.hub.locked_against(task) => {}
            Program::Opening if state.hub.committed(1 - task) => {
                next.go(task, "program: finds the trust", |s| {
                    s.tasks[task].metadata_only = true;
                    s.tasks[task].program = Program::Puts(Value::Metadata);
                });
            }
            Program::Opening => next.go(task, "program: registers, uncommitted", |s| {
                s.hub.begin(task);
                s.tasks[task].program = if self.on(Rule::PutBeforeCommit) {
                    Program::Puts(Value::Kit(task))
                } else {
                    Program::Committing
                };
            }),
            Program::Puts(value) => self.put(state, task, value, next),
            Program::Committing => {
                it.commit.steps(self.rules, &state.hub, task, next, |s: &mut State| {
                    (&mut s.hub, &mut s.tasks[task].commit)
                });
                match it.commit {
                    Commit::Known(Outcome::Committed) => {
                        next.go(task, "program: knows: committed", |s| {
                            s.tasks[task].program = Program::PrintsReceipt(Receipt::Registered);
                        });
                    }
                    Commit::Known(Outcome::Unknown) if self.on(Rule::UnknownLeavesTheKit) => {
                        next.go(task, "program: says that the outcome is unknown", |s| {
                            s.tasks[task].error = true;
                            s.tasks[task].program = Program::Ended;
                        });
                    }
                    Commit::Known(_) => next.go(task, "program: knows: aborted", |s| {
                        s.tasks[task].error = true;
                        s.tasks[task].program = Program::TakesBack;
                    }),
                    _ => {}
                }
            }
            Program::TakesBack if self.on(Rule::TakeBackPutsEmptyOver) => {
                self.put(state, task, Value::Empty, next);
            }
            Program::TakesBack => next.go(task, "program: leaves the kit there", |s| {
                s.tasks[task].program = Program::PrintsReceipt(Receipt::Failed);
            }),
            Program::PrintsReceipt(receipt) => next.go(task, "program: prints the receipt", |s| {
                s.tasks[task].receipt = Some(receipt);
                s.tasks[task].program = Program::Ended;
            }),
            Program::NotStarted | Program::Ended | Program::Killed => {}
        }
        if state.task_runs(task) {
            next.fault(task, "task: is killed", |s| {
                s.tasks[task].program = Program::Killed;
                s.hub.hang_up(task);
            });
        }
    }

    /// One put with its tries. The labels of a kit, of a kit without credentials and of `[]`.
    fn put(&self, state: &State, task: usize, value: Value, next: &mut Steps<State>) {
        let name = state.tasks[task].parameter;
        let doubt = matches!(value, Value::Kit(_));
        let [stored, late, late_for_good, lost, refused] = match value {
            Value::Empty => [
                "SSM: stores []",
                "SSM: the put of [] times out and may be stored later; it is tried again",
                "SSM: the put of [] times out for good and may be stored later",
                "SSM: stores [], and its answer is lost for good",
                "SSM: refuses []",
            ],
            _ => [
                "SSM: stores the kit",
                "SSM: the put of the kit times out and may be stored later; it is tried again",
                "SSM: the put of the kit times out for good and may be stored later",
                "SSM: stores the kit, and its answer is lost for good",
                "SSM: refuses the kit",
            ],
        };
        let fails = move |s: &mut State| {
            if value == Value::Empty {
                s.tasks[task].program = Program::Ended;
            } else {
                s.fail(task);
            }
        };
        next.go(task, stored, |s| {
            s.parameters[name].put(value);
            let silent = s.tasks[task].in_doubt && self.on(Rule::NoReceiptWhilePutInDoubt);
            s.tasks[task].program = match value {
                Value::Empty if silent => Program::Ended,
                Value::Empty => Program::PrintsReceipt(Receipt::Failed),
                Value::Metadata => Program::PrintsReceipt(Receipt::Registered),
                // Where the put comes after the commit.
                _ if state.hub.committed(task) => Program::PrintsReceipt(Receipt::Registered),
                _ => Program::Committing,
            };
        });
        next.fault(task, late, |s| {
            s.parameters[name].late = Some(value);
            s.tasks[task].in_doubt |= doubt;
        });
        next.fault(task, late_for_good, |s| {
            s.parameters[name].late = Some(value);
            s.tasks[task].in_doubt |= doubt;
            fails(s);
        });
        next.fault(task, lost, |s| {
            s.parameters[name].put(value);
            s.tasks[task].in_doubt |= doubt;
            fails(s);
        });
        next.fault(task, refused, fails);
    }

    fn script(&self, state: &State, run: usize, next: &mut Steps<State>) {
        let to = move |script| move |s: &mut State| s.scripts[run] = script;
        let name = if self.on(Rule::OneRunPerParameterName) { run } else { 0 };
        let start = move |s: &mut State, task: usize| {
            s.tasks[task].program = Program::Opening;
            s.tasks[task].parameter = name;
            s.scripts[run] = Script::AwaitsTask(task);
        };
        match state.scripts[run] {
            Script::KeepsName => {
                next.go(run, "script: keeps the parameter's name in a file", |s| {
                    s.name_files[name].now = self.on(Rule::NameKeptBeforeRunTask);
                    s.scripts[run] = Script::SyncsName;
                })
            }
            Script::SyncsName => next.go(run, "script: syncs that file", |s| {
                let file = &mut s.name_files[name];
                file.synced = file.now && self.on(Rule::NameFileIsSynced);
                s.scripts[run] = Script::RunsTask;
            }),
            Script::RunsTask => {
                next.go(run, "ECS: starts the task", |s| start(s, run));
                next.fault(run, "ECS: starts the task, and its answer is lost", |s| {
                    start(s, run);
                    s.scripts[run] = Script::DoesNotKnowItsTask;
                    if !self.on(Rule::OnlyPlainRefusalMeansNoTask) {
                        s.name_files[name] = File { now: false, synced: false };
                        s.scripts[run] = Script::SaidNothing;
                    }
                });
                next.fault(run, "ECS: refuses to start the task", |s| {
                    s.name_files[name] = File { now: false, synced: false };
                    s.scripts[run] = Script::SaidNothing;
                });
            }
            Script::DoesNotKnowItsTask => {
                let second = state.tasks[1].program == Program::NotStarted;
                if self.on(Rule::SameClientToken) || !second {
                    next.go(run, "script: tries again, and is told the same task", |s| {
                        s.scripts[run] = Script::AwaitsTask(run);
                    });
                } else {
                    next.go(run, "script: tries again, and starts another task", |s| start(s, 1));
                }
                next.go(run, "script: gives up, and names the parameter", |s| {
                    s.said[name] = true;
                    s.scripts[run] = Script::NamedIt;
                });
            }
            Script::AwaitsTask(task) if !state.task_runs(task) => {
                let it = &state.tasks[task];
                let read = |receipt, error| to(Script::ReadsParameter { task, receipt, error });
                let receipt = it.receipt.is_some();
                next.go(run, "script: reads the log", read(receipt, it.error));
                if receipt || it.error {
                    next.fault(run, "log: is late", read(false, false));
                }
                if self.rules.is_open(Door::ReceiptSeenBeforeError) && receipt && it.error {
                    next.fault(run, "log: shows the receipt before the ERROR", read(true, false));
                }
            }
            Script::ReadsParameter { task, receipt, error } => {
                let Parameter { now, before, .. } = state.parameters[name];
                let [fresh, stale] = [
                    self.judge(task, now, receipt, error),
                    self.judge(task, before, receipt, error),
                ];
                next.go(run, "script: reads the parameter", |s| {
                    s.said[name] |= fresh == Script::NamedIt;
                    s.scripts[run] = fresh;
                });
                if now != before {
                    next.fault(run, "SSM: answers what was there before", |s| {
                        s.said[name] |= stale == Script::NamedIt;
                        s.scripts[run] = stale;
                    });
                }
            }
            Script::Stores(of) => {
                next.go(run, "script: stores the kit", |s| {
                    s.kits[of].now = true;
                    s.scripts[run] = Script::Syncs(of);
                });
                next.fault(run, "disk: is full", |s| {
                    s.said[name] = true;
                    s.scripts[run] = Script::NamedIt;
                });
            }
            Script::Syncs(of) => next.go(run, "script: syncs the kit and its folder", |s| {
                s.kits[of].synced = self.on(Rule::DeleteOnlyAfterSync);
                s.scripts[run] = Script::Deletes(Some(of));
            }),
            Script::Deletes(of) => {
                next.go(run, "script: deletes the parameter and its name", |s| {
                    s.parameters[name].put(Value::Absent);
                    s.name_files[name] = File { now: false, synced: false };
                    s.scripts[run] = match of {
                        Some(of) if !s.kits[of].now => Script::StoresLate(of),
                        of => Script::Succeeded(of),
                    };
                })
            }
            Script::StoresLate(of) => next.go(run, "script: stores the kit", |s| {
                s.kits[of] = File { now: true, synced: true };
                s.scripts[run] = Script::Succeeded(Some(of));
            }),
            Script::DeletesAndSaysNothing => {
                next.go(run, "script: deletes the parameter, says 'nothing registered'", |s| {
                    s.parameters[name].put(Value::Absent);
                    s.name_files[name] = File { now: false, synced: false };
                    s.scripts[run] = Script::SaidNothing;
                });
            }
            _ => {}
        }
        if state.script_runs(run) {
            next.fault(run, "script: is killed", to(Script::Dead));
        }
        let files = state.kits.iter().chain(&state.name_files);
        let unsynced = files.clone().any(|file| file.now != file.synced);
        if run == 0 && (unsynced || state.script_runs(0) || state.script_runs(1)) {
            next.fault(0, "power: fails", |s| {
                for file in s.kits.iter_mut().chain(&mut s.name_files) {
                    file.now = file.synced;
                }
                for run in 0..2 {
                    if s.script_runs(run) {
                        s.scripts[run] = Script::Dead;
                    }
                }
            });
        }
    }

    /// What the script makes of what it read.
    fn judge(&self, task: usize, value: Value, receipt: bool, error: bool) -> Script {
        match value {
            Value::Kit(_) if error && receipt && self.on(Rule::ReceiptAndErrorIsNotBelieved) => {
                Script::NamedIt
            }
            Value::Kit(of) if receipt || !self.on(Rule::ReceiptIsDemanded) => {
                if self.on(Rule::DeleteOnlyAfterStored) {
                    Script::Stores(of)
                } else {
                    Script::Deletes(Some(of))
                }
            }
            Value::Kit(_) if !self.on(Rule::KitWithoutReceiptStays) => {
                Script::DeletesAndSaysNothing
            }
            Value::Kit(_) => Script::NamedIt,
            Value::Metadata if receipt => Script::Deletes(None),
            Value::Empty => Script::DeletesAndSaysNothing,
            Value::Absent if receipt && self.on(Rule::ReadParameterAgainBesideReceipt) => {
                Script::ReadsParameter { task, receipt, error }
            }
            Value::Absent if !receipt && self.on(Rule::NotFoundIsNotAbsence) => Script::NamedIt,
            Value::Absent => Script::DeletesAndSaysNothing,
            Value::Metadata => Script::NamedIt,
        }
    }
}
