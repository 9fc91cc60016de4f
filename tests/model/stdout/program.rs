//! What the program does with `--await-ack`.

use super::{Line, Program, Sent, State, Stdin, Stdout};
use crate::model::hub::{Commit, Outcome, Tx};
use crate::model::rules::{Door, Rule};
use crate::model::search::Steps;

impl Stdout {
    pub(super) fn program(&self, state: &State, run: usize, next: &mut Steps<State>) {
        let it = &state.runs[run];
        let fail = move |s: &mut State| {
            s.hub.roll_back(run);
            s.runs[run].program = Program::Saying(Line::Empty);
        };
        let commit = move |s: &mut State| s.runs[run].program = Program::Committing;
        match it.program {
            Program::Opening => self.opening(state, run, next),
            Program::Printing if !it.reaches_script() => {
                next.go(run, "program: cannot print the kit", fail);
            }
            Program::Printing => next.go(run, "program: prints the kit", |s| {
                let waits =
                    self.on(Rule::AckBeforeCommit) && !self.rules.is_open(Door::ReaderWithoutAck);
                s.runs[run].kit = Sent::OnItsWay(());
                s.runs[run].program = if waits { Program::Waiting } else { Program::Committing };
            }),
            Program::Waiting if it.stdin == Stdin::Silent => {
                let believed = !self.on(Rule::SilenceIsNoAck);
                next.fault(run, "program: has waited for 30 s", |s| {
                    if believed { commit(s) } else { fail(s) }
                });
                next.fault(run, "stdin: another line comes", |s| {
                    s.runs[run].stdin = Stdin::OtherLine;
                });
            }
            Program::Waiting => {
                let (what, believed) = match it.stdin {
                    Stdin::OtherLine => {
                        ("program: reads another line", !self.on(Rule::OtherLineIsNoAck))
                    }
                    Stdin::End => {
                        ("program: reads the end of stdin", !self.on(Rule::EndOfStdinIsNoAck))
                    }
                    _ => ("program: reads the acknowledgement", true),
                };
                next.go(run, what, |s| if believed { commit(s) } else { fail(s) });
            }
            Program::Committing => {
                if !self.on(Rule::ReceiptAfterCommit) && it.printed.is_none() {
                    next.go(run, "program: prints the receipt", |s| s.runs[run].say(Line::Receipt));
                    return;
                }
                it.commit.steps(self.rules, &state.hub, run, next, |s: &mut State| {
                    (&mut s.hub, &mut s.runs[run].commit)
                });
                if let Commit::Known(outcome) = it.commit {
                    let keeps = self.on(Rule::UnknownLeavesTheKit);
                    let (what, then) = match outcome {
                        Outcome::Committed => {
                            ("program: knows: committed", Program::Saying(Line::Receipt))
                        }
                        Outcome::Aborted => {
                            ("program: knows: aborted", Program::Saying(Line::Empty))
                        }
                        Outcome::Unknown if keeps => {
                            ("program: says that the outcome is unknown", Program::Ended)
                        }
                        Outcome::Unknown => {
                            ("program: takes unknown for aborted", Program::Saying(Line::Empty))
                        }
                    };
                    next.go(run, what, |s| s.runs[run].program = then);
                }
            }
            Program::Saying(line) => {
                let what = match line {
                    Line::Receipt => "program: prints the receipt",
                    Line::Empty => "program: prints []",
                };
                next.go(run, what, |s| {
                    s.runs[run].say(line);
                    s.runs[run].program = Program::Ended;
                });
            }
            Program::NotStarted | Program::Ended | Program::Killed => {}
        }
        let terminable = matches!(it.program, Program::Printing | Program::Waiting);
        let in_commit = it.program == Program::Committing
            && !matches!(it.commit, Commit::Known(_) | Commit::Unsent);
        if terminable {
            next.fault(run, "program: gets TERM", fail);
        } else if in_commit && !self.on(Rule::SignalFindsTheOutcome) {
            next.fault(run, "program: gets TERM", |s| {
                s.runs[run].program = Program::Saying(Line::Empty);
            });
        }
    }

    fn opening(&self, state: &State, run: usize, next: &mut Steps<State>) {
        if self.on(Rule::LockOfTheName) && state.hub.locked_against(run) {
            return;
        }
        if state.hub.committed(1 - run) {
            next.go(run, "program: prints a metadata-only kit and its id", |s| {
                let it = &mut s.runs[run];
                it.metadata_only = true;
                it.program = Program::Ended;
                if it.reaches_script() {
                    it.kit = Sent::OnItsWay(());
                }
                it.say(Line::Receipt);
            });
            return;
        }
        next.go(run, "program: registers, uncommitted", |s| {
            s.hub.begin(run);
            s.runs[run].program = Program::Printing;
        });
        if run == 1 {
            return;
        }
        next.fault(run, "hub: a trigger alters the hash", |s| {
            s.hub.begin(run);
            if self.on(Rule::RowsAreChecked) {
                s.hub.roll_back(run);
                s.runs[run].program = Program::Saying(Line::Empty);
            } else {
                s.hub.altered[run] = true;
                s.runs[run].program = Program::Printing;
            }
        });
        next.fault(run, "pooler: runs the statements outside the transaction", |s| {
            if self.on(Rule::StatementPoolingIsRefused) {
                s.runs[run].program = Program::Saying(Line::Empty);
            } else {
                s.hub.begin(run);
                s.hub.tx[run] = Tx::Committed;
                s.runs[run].program = Program::Printing;
            }
        });
    }
}
