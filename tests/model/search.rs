//! A breadth-first search over every order in which things can happen.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Faults that one history may hold.
pub const FAULTS: u8 = 3;

/// A promise by its name, and whether it holds.
pub type Promise<S> = (&'static str, fn(&S) -> bool);

/// A state with the faults so far, the state before it, and the step between them.
type Found<S> = (S, u8, Option<(usize, Step)>);

/// A home of the program: what can happen in it, and what must never.
pub trait Home {
    type State: Copy + Eq + Hash;

    fn start(&self) -> Vec<Self::State>;

    /// Adds everything that can happen next.
    fn steps(&self, state: &Self::State, next: &mut Steps<Self::State>);

    fn promises(&self) -> Vec<Promise<Self::State>>;
}

/// Something that happens in a run: `who: what`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    pub run: usize,
    pub what: &'static str,
    pub fault: bool,
}

pub type Trace = Vec<Step>;

impl fmt::Display for Step {
    /// `! client: is killed` in the first run, `+ program: prints the kit` in the second.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let run = if self.run == 0 { "" } else { "+ " };
        write!(f, "{run}{}{}", if self.fault { "! " } else { "" }, self.what)
    }
}

/// What can happen next.
pub struct Steps<S> {
    from: S,
    faults: u8,
    next: Vec<(Step, S)>,
}

impl<S: Copy> Steps<S> {
    pub fn go(&mut self, run: usize, what: &'static str, change: impl FnOnce(&mut S)) {
        let mut state = self.from;
        change(&mut state);
        self.next.push((Step { run, what, fault: false }, state));
    }

    pub fn fault(&mut self, run: usize, what: &'static str, change: impl FnOnce(&mut S)) {
        if self.faults < FAULTS {
            self.go(run, what, change);
            self.next.last_mut().unwrap().0.fault = true;
        }
    }
}

/// A promise that was broken, and the shortest way there.
pub struct Broken {
    pub promise: &'static str,
    pub trace: Trace,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "NOT TRUE: {}", self.promise)?;
        self.trace.iter().try_for_each(|step| write!(f, "\n    {step}"))
    }
}

/// The standard library's hasher takes half of the time of a search.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

/// Everything that was found.
pub struct Search<H: Home> {
    found: Vec<Found<H::State>>,
    pub broken: Option<Broken>,
}

impl<H: Home> Search<H> {
    /// Searches until a promise is broken, or until there is nothing left to find.
    pub fn run(home: &H) -> Search<H> {
        Search::without(home, "")
    }

    /// The same in a world where this never happens.
    pub fn without(home: &H, never: &str) -> Search<H> {
        let promises = home.promises();
        let mut search = Search { found: Vec::new(), broken: None };
        let mut known = HashSet::<_, BuildHasherDefault<Quick>>::default();
        for state in home.start() {
            known.insert((state, 0));
            search.found.push((state, 0, None));
        }
        let mut at = 0;
        while let Some(&(state, faults, _)) = search.found.get(at) {
            if let Some((promise, _)) = promises.iter().find(|(_, holds)| !holds(&state)) {
                search.broken = Some(Broken { promise, trace: search.trace(at) });
                break;
            }
            for (step, next) in steps(home, state, faults) {
                if step.what == never {
                    continue;
                }
                let faults = faults + u8::from(step.fault);
                if known.insert((next, faults)) {
                    search.found.push((next, faults, Some((at, step))));
                }
            }
            at += 1;
        }
        search
    }

    pub fn states(&self) -> usize {
        self.found.len()
    }

    /// Whether a state of this kind was found.
    pub fn reaches(&self, kind: impl Fn(&H::State) -> bool) -> bool {
        self.found.iter().any(|(state, ..)| kind(state))
    }

    /// Everything that happens in any history.
    pub fn steps(&self) -> BTreeSet<&'static str> {
        self.found.iter().filter_map(|(.., from)| Some(from.as_ref()?.1.what)).collect()
    }

    /// One whole history for every pair of a step and the fault that follows it at once. Each
    /// goes on without another fault until nothing more happens.
    pub fn pairs(&self, home: &H) -> Vec<(Trace, H::State)> {
        let mut seen = HashSet::new();
        let mut histories = Vec::new();
        let faultless = self.found.iter().enumerate().filter(|(_, (_, faults, _))| *faults == 0);
        for (at, &(state, ..)) in faultless {
            for (step, next) in steps(home, state, 0).into_iter().filter(|(step, _)| !step.fault) {
                for (fault, after) in steps(home, next, 0) {
                    if fault.fault && seen.insert((step, fault)) {
                        let mut trace = self.trace(at);
                        trace.extend([step, fault]);
                        histories.extend(to_the_end(home, after, &trace));
                    }
                }
            }
        }
        histories
    }

    fn trace(&self, mut at: usize) -> Trace {
        let mut trace = Trace::new();
        while let Some((before, step)) = self.found[at].2 {
            trace.push(step);
            at = before;
        }
        trace.reverse();
        trace
    }
}

fn steps<H: Home>(home: &H, from: H::State, faults: u8) -> Vec<(Step, H::State)> {
    let mut steps = Steps { from, faults, next: Vec::new() };
    home.steps(&from, &mut steps);
    steps.next
}

/// Goes along a trace as far as it leads in this home, and from there to each end.
pub fn follow<H: Home>(home: &H, trace: &Trace) -> Vec<(Trace, H::State)> {
    let (mut at, mut along) = (home.start()[0], Trace::new());
    for step in trace {
        let Some((_, next)) = steps(home, at, 0).into_iter().find(|(other, _)| other == step)
        else {
            break;
        };
        at = next;
        along.push(*step);
    }
    to_the_end(home, at, &along)
}

/// Ways on, without another fault, to an end: together they take every step that there is.
fn to_the_end<H: Home>(home: &H, start: H::State, before: &Trace) -> Vec<(Trace, H::State)> {
    let mut found = vec![(start, before.clone())];
    let mut known = HashSet::from([start]);
    let mut ways = Vec::new();
    let mut at = 0;
    while let Some((state, trace)) = found.get(at).cloned() {
        let next = steps(home, state, FAULTS);
        if next.is_empty() {
            ways.push((trace.clone(), state));
        }
        for (step, next) in next {
            let mut trace = trace.clone();
            trace.push(step);
            if known.insert(next) {
                found.push((next, trace));
            } else {
                ways.push(nearest_end(home, next, trace));
            }
        }
        at += 1;
    }
    ways
}

fn nearest_end<H: Home>(home: &H, start: H::State, before: Trace) -> (Trace, H::State) {
    let mut found = vec![(start, before)];
    let mut known = HashSet::from([start]);
    let mut at = 0;
    loop {
        let (state, trace) = found[at].clone();
        let next = steps(home, state, FAULTS);
        if next.is_empty() {
            return (trace, state);
        }
        for (step, next) in next {
            if known.insert(next) {
                let mut trace = trace.clone();
                trace.push(step);
                found.push((next, trace));
            }
        }
        at += 1;
    }
}
