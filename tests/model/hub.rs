//! The hub: a primary that commits, a standby that lags, and the questions about an outcome.
//! Each home puts its runs on it. A run has at most one transaction; there are two runs.

use super::rules::{Door, Rule, Rules};
use super::search::Steps;

/// What has become of a run's transaction, on whichever server is the primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tx {
    No,
    Open,
    /// COMMIT was received and is not done yet.
    Committing,
    Committed,
    Aborted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hub {
    pub tx: [Tx; 2],
    /// The run's first connection.
    pub connected: [bool; 2],
    /// COMMIT is on its way to the server.
    in_flight: [bool; 2],
    /// The standby knows of the commit.
    pub replayed: [bool; 2],
    /// The standby is the primary now; the old one is gone.
    pub promoted: bool,
    /// A server that crashed gave the transaction's number to somebody else, who committed.
    reused: [bool; 2],
    /// Nobody told the old primary to stop, and the run's connection is still with it.
    old: [bool; 2],
    /// COMMIT was answered with an error, which says nothing of the outcome.
    refused: [bool; 2],
    /// A trigger has altered the key's hash: the kit opens nothing.
    pub altered: [bool; 2],
}

/// How far a run has come with its commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Commit {
    Unsent,
    Sent,
    Reconnect,
    Ask(Asked),
    Known(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

/// The answers so far on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asked {
    standby: bool,
    recovery: Option<bool>,
    status: Option<Status>,
    row: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Status {
    InProgress,
    Committed,
    /// A standby that lags says the same of what it has not heard of.
    Aborted,
}

#[derive(Clone, Copy, PartialEq)]
enum Question {
    Recovery,
    Status,
    Row,
}

impl Hub {
    pub const NEW: Hub = Hub {
        tx: [Tx::No; 2],
        connected: [false; 2],
        in_flight: [false; 2],
        replayed: [false; 2],
        promoted: false,
        reused: [false; 2],
        old: [false; 2],
        refused: [false; 2],
        altered: [false; 2],
    };

    /// Somebody else's registration of this name is open: it holds the name's lock.
    pub fn locked_against(&self, run: usize) -> bool {
        self.is_open(1 - run)
    }

    pub fn is_open(&self, run: usize) -> bool {
        matches!(self.tx[run], Tx::Open | Tx::Committing)
    }

    pub fn committed(&self, run: usize) -> bool {
        self.tx[run] == Tx::Committed
    }

    pub fn begin(&mut self, run: usize) {
        self.tx[run] = Tx::Open;
        self.connected[run] = true;
    }

    pub fn roll_back(&mut self, run: usize) {
        self.tx[run] = Tx::Aborted;
        self.connected[run] = false;
    }

    /// The run's process is gone. A COMMIT that it sent may still arrive.
    pub fn hang_up(&mut self, run: usize) {
        self.connected[run] = false;
        if self.tx[run] == Tx::Open && !self.in_flight[run] {
            self.tx[run] = Tx::Aborted;
        }
    }

    /// What the servers and the network do on their own.
    pub fn steps<S: Copy>(&self, rules: Rules, next: &mut Steps<S>, of: fn(&mut S) -> &mut Hub) {
        for run in 0..2 {
            let gone = !self.connected[run] && !self.in_flight[run];
            if self.in_flight[run] {
                next.go(run, "primary: receives COMMIT", |s| of(s).receive(run));
                if !self.connected[run] {
                    next.go(run, "network: loses COMMIT", |s| of(s).in_flight[run] = false);
                }
            }
            if self.tx[run] == Tx::Open && gone {
                next.go(run, "primary: notices that the connection is gone", |s| {
                    of(s).tx[run] = Tx::Aborted;
                });
            }
            if self.tx[run] == Tx::Committing {
                next.go(run, "primary: commits", |s| of(s).tx[run] = Tx::Committed);
                next.fault(run, "primary: rolls back", |s| of(s).tx[run] = Tx::Aborted);
                if self.connected[run] {
                    next.fault(run, "primary: refuses to commit", |s| {
                        of(s).tx[run] = Tx::Aborted;
                        of(s).refused[run] = true;
                    });
                }
            }
            if self.committed(run) && !self.replayed[run] && !self.promoted {
                next.go(run, "standby: replays the commit", |s| of(s).replayed[run] = true);
            }
            if self.connected[run] && !self.old[run] {
                next.fault(run, "network: breaks the connection", |s| {
                    of(s).connected[run] = false;
                });
            }
            if self.tx[run] == Tx::Open && !self.reused[run] {
                next.fault(run, "primary: crashes, and gives its number to another", |s| {
                    of(s).crash(run);
                    of(s).reused[run] = true;
                });
            }
            if self.committed(run) && !rules.on(Rule::CommitIsDurable) {
                next.fault(run, "primary: crashes before the commit is on its disk", |s| {
                    of(s).crash(run);
                });
            }
        }
        if !self.promoted && self.tx != [Tx::No; 2] {
            for finishes in [true, false] {
                let in_doubt = self.tx.contains(&Tx::Committing);
                if finishes || in_doubt {
                    next.fault(0, "standby: is promoted", |s| of(s).promote(rules, finishes));
                }
            }
        }
    }

    fn receive(&mut self, run: usize) {
        self.in_flight[run] = false;
        if self.tx[run] == Tx::Open {
            self.tx[run] = Tx::Committing;
        }
    }

    fn crash(&mut self, run: usize) {
        self.in_flight[run] = false;
        self.roll_back(run);
    }

    /// A synchronous standby has every commit that was acknowledged. One that was under way may
    /// have reached it or not.
    fn promote(&mut self, rules: Rules, finishes: bool) {
        self.promoted = true;
        for run in 0..2 {
            self.old[run] = self.tx[run] == Tx::Open && rules.is_open(Door::UnfencedOldPrimary);
            self.connected[run] &= self.old[run];
            self.in_flight[run] = false;
            self.tx[run] = match self.tx[run] {
                Tx::Committing if finishes => Tx::Committed,
                Tx::Open | Tx::Committing => Tx::Aborted,
                Tx::Committed
                    if rules.is_open(Door::AsynchronousFailover) && !self.replayed[run] =>
                {
                    Tx::Aborted
                }
                tx => tx,
            };
            self.replayed[run] = self.committed(run);
        }
    }

    fn answer(&self, run: usize, question: Question, asked: &mut Asked) {
        let in_recovery = asked.standby && !self.promoted;
        match question {
            Question::Recovery => asked.recovery = Some(in_recovery),
            Question::Status => {
                asked.status = Some(match self.tx[run] {
                    _ if in_recovery && self.replayed[run] => Status::Committed,
                    _ if in_recovery => Status::Aborted,
                    _ if self.reused[run] => Status::Committed,
                    Tx::Open | Tx::Committing => Status::InProgress,
                    Tx::Committed => Status::Committed,
                    Tx::No | Tx::Aborted => Status::Aborted,
                })
            }
            Question::Row if in_recovery => asked.row = Some(self.replayed[run]),
            Question::Row => asked.row = Some(self.committed(run)),
        }
    }
}

impl Commit {
    /// What the program does from the moment that it may commit until it knows the outcome.
    pub fn steps<S: Copy>(
        self,
        rules: Rules,
        hub: &Hub,
        run: usize,
        next: &mut Steps<S>,
        of: impl Fn(&mut S) -> (&mut Hub, &mut Commit),
    ) {
        let mut go = |what, to| {
            next.go(run, what, |s| {
                let (hub, commit) = of(s);
                *commit = to;
                if matches!(to, Commit::Reconnect | Commit::Known(_)) {
                    hub.connected[run] = false;
                    hub.refused[run] = false;
                }
            })
        };
        match self {
            Commit::Unsent if !hub.connected[run] => {
                go("program: finds the connection broken", broken(rules));
            }
            Commit::Unsent => next.go(run, "program: sends COMMIT", |s| {
                let (hub, commit) = of(s);
                hub.in_flight[run] = true;
                *commit = Commit::Sent;
            }),
            Commit::Sent if !hub.connected[run] => {
                go("program: finds the connection broken", broken(rules));
            }
            Commit::Sent if hub.old[run] || hub.committed(run) => {
                go("program: hears 'committed'", Commit::Known(Outcome::Committed));
            }
            Commit::Sent if hub.refused[run] => {
                go("program: hears an error, and no outcome", broken(rules));
            }
            Commit::Sent if hub.tx[run] == Tx::Aborted && !hub.in_flight[run] => {
                let believes = !rules.on(Rule::OnlyCommittedMeansCommitted);
                let outcome = if believes { Outcome::Committed } else { Outcome::Aborted };
                go("program: hears 'aborted'", Commit::Known(outcome));
            }
            Commit::Sent | Commit::Known(_) => {}
            Commit::Reconnect => {
                go("program: gives up asking", Commit::Known(Outcome::Unknown));
                let on = |standby| Asked { standby, recovery: None, status: None, row: None };
                go("program: reaches the primary", Commit::Ask(on(hub.promoted)));
                if !hub.promoted {
                    go("program: reaches the standby", Commit::Ask(on(true)));
                }
            }
            Commit::Ask(asked) if !asked.standby && hub.promoted => {
                go("program: finds the connection broken", Commit::Reconnect);
            }
            Commit::Ask(asked) => {
                let question = asked.next_question(rules);
                let mut answered = asked;
                hub.answer(run, question, &mut answered);
                let what = match question {
                    Question::Recovery => "program: asks whether it is in recovery",
                    Question::Status => "program: asks for the status",
                    Question::Row => "program: asks for the row",
                };
                go(what, answered.decide(rules));
                if question == Question::Row && !hub.promoted && !hub.replayed[run] {
                    let elsewhere = Asked { row: Some(false), ..asked };
                    next.fault(run, "pooler: asks a standby that lags for the row", |s| {
                        *of(s).1 = elsewhere.decide(rules);
                    });
                }
            }
        }
    }
}

fn broken(rules: Rules) -> Commit {
    if rules.on(Rule::BrokenCommitIsAskedFor) {
        Commit::Reconnect
    } else {
        Commit::Known(Outcome::Aborted)
    }
}

impl Asked {
    fn next_question(&self, rules: Rules) -> Question {
        use Question::{Recovery, Row, Status};
        let mut order = vec![Recovery, Status, Row];
        if !rules.on(Rule::RecoveryAskedBeforeStatus) {
            order.rotate_left(1);
        }
        if !rules.on(Rule::RowAskedAfterStatus) {
            order.swap(1, 2);
        }
        order.into_iter().find(|question| self.lacks(*question, rules)).unwrap()
    }

    fn lacks(&self, question: Question, rules: Rules) -> bool {
        match question {
            Question::Recovery => self.recovery.is_none() && rules.on(Rule::OnlyPrimaryBelieved),
            Question::Status => self.status.is_none(),
            Question::Row => self.row.is_none() && rules.on(Rule::CommittedNeedsItsRow),
        }
    }

    fn decide(self, rules: Rules) -> Commit {
        let unanswered = [Question::Recovery, Question::Status, Question::Row]
            .into_iter()
            .any(|question| self.lacks(question, rules));
        let known = |what| Commit::Known(what);
        match (self.status, self.row) {
            _ if self.recovery == Some(true) => Commit::Reconnect,
            _ if unanswered => Commit::Ask(self),
            (_, Some(true)) | (Some(Status::Committed), None) => known(Outcome::Committed),
            (Some(Status::InProgress), _) if rules.on(Rule::InProgressIsNoAnswer) => {
                Commit::Reconnect
            }
            (Some(Status::Committed), _) if rules.on(Rule::CommittedWithoutRowIsUnknown) => {
                Commit::Reconnect
            }
            _ => known(Outcome::Aborted),
        }
    }
}
