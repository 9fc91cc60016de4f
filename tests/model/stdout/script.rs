//! What the script does: it stores the kit, acknowledges, reads the verdict, and gives the kit its
//! final name or hands it to the sink.

use super::{Content, Final, Line, Scope, Script, Sent, State, Stdin, Stdout};
use crate::model::rules::{Door, Rule};
use crate::model::search::Steps;

impl Stdout {
    pub(super) fn script(&self, state: &State, run: usize, next: &mut Steps<State>) {
        let it = &state.runs[run];
        let to = move |script| move |s: &mut State| s.runs[run].script = script;
        match it.script {
            Script::AwaitsKit if it.kit == Sent::OnItsWay(()) => {
                let then = if it.metadata_only { Script::AwaitsVerdict } else { Script::Writes };
                next.go(run, "script: reads the kit", |s| {
                    s.runs[run].kit = Sent::Gone;
                    s.runs[run].script = then;
                });
            }
            Script::AwaitsKit if it.verdict_comes().is_some() => {
                next.go(run, "script: reads [] and no kit", |s| {
                    s.runs[run].verdict = Sent::Gone;
                    s.runs[run].script = Script::GotNothing;
                });
            }
            Script::AwaitsKit if it.at_the_end() => {
                next.go(run, "script: reads the end, and no kit", to(Script::GotNothing));
            }
            Script::Writes => {
                next.go(run, "script: writes the kit into its file", |s| {
                    s.runs[run].content = Content::Kit;
                    s.runs[run].script = Script::SyncsFile;
                    s.runs[run].own.now = true;
                    if !self.on(Rule::NameOfItsOwn) {
                        s.runs[run].own.now = false;
                        s.take_final_name(run);
                    }
                });
                next.fault(run, "disk: is full", |s| {
                    s.runs[run].content = Content::Torn;
                    s.runs[run].own.now = true;
                    if self.on(Rule::AckOnlyWhatIsStored) {
                        s.runs[run].stdin = Stdin::End;
                        s.runs[run].script = Script::AwaitsVerdict;
                    } else {
                        s.runs[run].script = Script::Acknowledges;
                    }
                });
            }
            Script::SyncsFile => next.go(run, "script: syncs its file", |s| {
                s.runs[run].content_synced = self.on(Rule::SyncBeforeAck);
                s.runs[run].script = Script::SyncsFolder;
            }),
            Script::SyncsFolder => next.go(run, "script: syncs the folder and its parent", |s| {
                if self.on(Rule::SyncFolder) {
                    s.sync_folder();
                }
                s.new_folder &= !self.on(Rule::SyncParentFolder);
                s.runs[run].script = Script::Acknowledges;
            }),
            Script::Acknowledges => {
                let sinks = matches!(self.scope, Scope::Sink | Scope::OneSink);
                let early = sinks && !self.on(Rule::SinkOnlyAfterReceipt);
                if early && !state.sunk[run] {
                    next.go(run, "sink: stores the kit", |s| s.sunk[run] = true);
                    return;
                }
                next.go(run, "script: acknowledges", |s| {
                    if s.runs[run].stdin == Stdin::Silent {
                        s.runs[run].stdin = Stdin::Id;
                    }
                    s.runs[run].script = Script::AwaitsVerdict;
                });
            }
            Script::AwaitsVerdict => self.verdict(state, run, next),
            Script::Rewrites => {
                if it.content == Content::Kit {
                    next.go(run, "script: truncates its file", |s| {
                        s.runs[run].content = Content::Torn;
                    });
                } else {
                    next.go(run, "script: writes its file again", |s| {
                        s.runs[run].content = Content::Kit;
                        s.runs[run].script = Script::Links(run);
                    });
                }
            }
            Script::Links(of) if !self.on(Rule::LinkNotRename) => {
                next.go(run, "script: moves its file to the final name", |s| {
                    s.runs[of].own.now = false;
                    s.take_final_name(of);
                    s.runs[run].script = Script::Succeeded;
                });
            }
            Script::Links(of) => {
                let taken = ![Final::Nothing, Final::Of(of)].contains(&state.final_name.now);
                if taken || !state.is_left(of) && state.final_name.now != Final::Of(of) {
                    next.go(run, "script: cannot link, and names its file", |s| {
                        s.runs[run].named_in_vain = !s.is_left(of);
                        s.runs[run].script = Script::NamedItsFile;
                    });
                } else {
                    next.go(run, "script: links the final name", |s| {
                        s.final_name.now = Final::Of(of);
                        s.runs[run].script = Script::SyncsLink(of);
                    });
                }
            }
            Script::SyncsLink(of) => next.go(run, "script: syncs the folder again", |s| {
                if self.on(Rule::SyncBetweenLinkAndUnlink) {
                    s.sync_folder();
                }
                s.runs[run].script = Script::Unlinks(of);
            }),
            Script::RunsSink => {
                next.go(run, "sink: stores the kit", |s| {
                    s.sunk[run] = true;
                    s.runs[run].script = Script::Unlinks(run);
                });
                next.fault(run, "sink: a stage fails", |s| {
                    s.runs[run].script = if self.on(Rule::SinkFailureKeepsTheKit) {
                        Script::NamedItsFile
                    } else {
                        Script::Unlinks(run)
                    };
                });
                if self.rules.is_open(Door::SinkThatForgets) {
                    next.fault(run, "sink: says 'stored' and has not", to(Script::Unlinks(run)));
                }
            }
            Script::Unlinks(of) => next.go(run, "script: removes the other name", |s| {
                s.runs[of].own.now = false;
                s.runs[run].script = Script::Succeeded;
            }),
            Script::Deletes => next.go(run, "script: deletes its file", |s| {
                s.runs[run].own.now = false;
                s.runs[run].script = Script::SaidNothing;
            }),
            _ => {}
        }
    }

    fn verdict(&self, state: &State, run: usize, next: &mut Steps<State>) {
        let it = &state.runs[run];
        let other = 1 - run;
        let registered = match (self.scope, it.metadata_only) {
            (_, true) if state.is_left(other) => Script::Links(other),
            (_, true) => Script::Succeeded,
            _ if !self.on(Rule::OnlyCopyIsNeverRewritten) => Script::Rewrites,
            (Scope::Sink | Scope::OneSink, _) => Script::RunsSink,
            _ => Script::Links(run),
        };
        let then = |script| {
            move |s: &mut State| {
                s.runs[run].verdict = Sent::Gone;
                s.runs[run].script = script;
            }
        };
        match it.verdict_comes() {
            Some(Line::Receipt) => next.go(run, "script: reads the receipt", then(registered)),
            Some(Line::Empty) => next.go(run, "script: reads []", then(Script::Deletes)),
            None if it.at_the_end() => {
                let named = |s: &mut State| {
                    s.runs[run].named_in_vain =
                        s.runs[run].content == Content::Kit && !s.holds(run);
                    s.runs[run].script = Script::NamedItsFile;
                };
                next.go(run, "script: reads the end, and names its file", named);
                if !self.on(Rule::ReceiptNotStatus) && it.content == Content::Kit {
                    next.go(run, "client: its status is 0", then(registered));
                }
                if !self.on(Rule::OnlyEmptyPermitsDelete) {
                    next.go(run, "client: its status is not 0", then(Script::Deletes));
                }
            }
            None => {}
        }
    }
}
