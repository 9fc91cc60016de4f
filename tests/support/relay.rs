//! The one middleman between the program and its servers. It knows where messages end, strikes at
//! one of them, is late, and counts.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::hub::Cluster;
use super::{Hub, Program, Run, Ssm};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Talk {
    Hub,
    Ssm,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    Run,
    Peer,
}

/// A moment in a conversation: the nth message of one side is about to be passed on, or was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub talk: Talk,
    pub from: Side,
    pub message: usize,
    pub passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    At(Step),
    /// The hub is about to get the message that holds this text.
    Before(&'static str),
    /// The hub got it and has answered; the run is about to get the answer.
    After(&'static str),
    /// The same with what the run sends once `arm` was called: nobody can read TLS.
    Armed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strike {
    /// Nothing passes on this connection any more, and it stays open.
    Hold,
    /// Both ends are closed.
    Cut,
    /// Both ends are reset.
    Reset,
    /// In place of what would follow the run gets these bytes, and then zeros without end.
    Flood(&'static [u8]),
}

/// What connections find that are made after a strike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Later {
    Served,
    /// They are closed at once.
    Closed,
    /// They are accepted and never answered.
    Held,
    /// They are served, and a round trip takes this long.
    Late(Duration),
    /// They get to another hub, as a floating address would lead them.
    Elsewhere(SocketAddr),
}

#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Open,
    Held,
    Shut,
}

/// One connection. What passes, passes under the gate's lock: a strike at one side's message
/// stops the other side, too.
struct Line {
    talk: Talk,
    run: TcpStream,
    peer: TcpStream,
    gate: Mutex<Gate>,
    turned: Condvar,
    /// The strike is at the next message of the peer.
    answer_is_due: AtomicBool,
    /// Bytes pass as they come.
    encrypted: AtomicBool,
}

struct State {
    plan: VecDeque<(When, Strike)>,
    has_struck: bool,
    struck: Sender<()>,
    later: Later,
    round_trip: Duration,
    rewritten: Vec<(&'static str, &'static str)>,
    armed: bool,
    over: bool,
    lines: Vec<Weak<Line>>,
    /// Messages so far, by conversation and side.
    counts: [[usize; 2]; 2],
    /// By conversation.
    trips: [Trips; 2],
}

/// Questions that were answered on the newest connection. Bytes on their way count as
/// one question however many messages they hold; a farewell gets no answer and does not count.
#[derive(Default)]
struct Trips {
    asked: bool,
    logged_in: bool,
    login: u32,
    after: u32,
}

/// A run's way to the hub, and to SSM. Dropping it closes every connection.
pub struct Relay {
    addresses: Vec<(Talk, SocketAddr)>,
    state: Arc<Mutex<State>>,
    connections: Arc<Mutex<u32>>,
    struck: Receiver<()>,
}

/// How often `run` looks whether the run has ended.
const TICK: Duration = Duration::from_millis(50);

impl Relay {
    /// To the cluster of these tests.
    pub fn new() -> Relay {
        Relay::to(Hub::cluster())
    }

    pub fn to(cluster: &Cluster) -> Relay {
        Relay::at("127.0.0.1:0", cluster)
    }

    /// Under the hub's own port, at another address: a name can lead to both.
    pub fn beside(address: &str, cluster: &Cluster) -> Relay {
        Relay::at(&format!("{address}:{}", cluster.port()), cluster)
    }

    fn at(address: &str, cluster: &Cluster) -> Relay {
        let (sender, struck) = mpsc::channel();
        let state = State {
            plan: VecDeque::new(),
            has_struck: false,
            struck: sender,
            later: Later::Served,
            round_trip: Duration::ZERO,
            rewritten: Vec::new(),
            armed: false,
            over: false,
            lines: Vec::new(),
            counts: [[0; 2]; 2],
            trips: Default::default(),
        };
        let state = Arc::new(Mutex::new(state));
        Relay { addresses: Vec::new(), state, connections: Arc::default(), struck }.listen(
            address,
            Talk::Hub,
            cluster.address(),
        )
    }

    pub fn and_to(self, ssm: &Ssm) -> Relay {
        self.listen("127.0.0.1:0", Talk::Ssm, ssm.address())
    }

    fn listen(mut self, at: &str, talk: Talk, to: SocketAddr) -> Relay {
        let listener = TcpListener::bind(at).unwrap();
        self.addresses.push((talk, listener.local_addr().unwrap()));
        let (state, connections) = (self.state.clone(), self.connections.clone());
        thread::spawn(move || {
            for run in listener.incoming().flatten() {
                *connections.lock().unwrap() += 1;
                if connect(run, talk, to, &state).is_none() {
                    return;
                }
            }
        });
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Strikes once at this moment. Of several strikes each waits for the one before.
    pub fn strike(self, when: When, strike: Strike) -> Relay {
        self.state().plan.push_back((when, strike));
        self
    }

    pub fn later(self, later: Later) -> Relay {
        self.state().later = later;
        self
    }

    /// Half of it is lost in each direction.
    pub fn late(self, round_trip: Duration) -> Relay {
        self.state().round_trip = round_trip;
        self
    }

    /// In what the run says to the hub, this text becomes another one of the same length.
    pub fn rewrite(self, text: &'static str, other: &'static str) -> Relay {
        assert_eq!(text.len(), other.len());
        self.state().rewritten.push((text, other));
        self
    }

    pub fn port(&self) -> u16 {
        self.addresses[0].1.port()
    }

    #[allow(dead_code, reason = "the benchmark alone uses it")]
    pub fn ssm_port(&self) -> u16 {
        self.addresses[1].1.port()
    }

    pub fn serve(&self, program: Program) -> Program {
        self.addresses.iter().fold(program, |program, (talk, at)| match talk {
            Talk::Hub => {
                program.env("DB_HOST", at.ip().to_string()).env("DB_PORT", at.port().to_string())
            }
            Talk::Ssm => program.env("AWS_ENDPOINT_URL", format!("http://{at}")),
        })
    }

    /// Runs the program, and does something when the relay has made its last strike, told the
    /// process. Whether it did.
    pub fn run(&self, program: Program, then: impl FnOnce(u32)) -> (Run, bool) {
        let mut running = self.serve(program).spawn();
        let mut struck = false;
        while !struck && running.child.try_wait().unwrap().is_none() {
            struck = self.struck.recv_timeout(TICK).is_ok();
        }
        // It has not been waited for: its process id is its own.
        if struck && running.child.try_wait().unwrap().is_none() {
            then(running.child.id());
        }
        // A run's last message can outlive it.
        (running.wait(), struck || self.struck.recv_timeout(4 * TICK).is_ok())
    }

    pub fn arm(&self) {
        self.state().armed = true;
    }

    /// Passes on what is held.
    pub fn release(&self) {
        let lines = {
            let mut state = self.state();
            state.later = Later::Served;
            state.lines.clone()
        };
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.turn(Gate::Open));
    }

    /// How many were made, those that were closed at once among them.
    pub fn connections(&self) -> u32 {
        *self.connections.lock().unwrap()
    }

    /// How many messages the hub was to get.
    pub fn questions(&self) -> usize {
        self.state().counts[Talk::Hub as usize][Side::Run as usize]
    }

    /// Round trips of the newest connection to the hub: of its login, and after it. In TLS the login
    /// has no end that could be seen.
    pub fn round_trips(&self) -> (u32, u32) {
        let [hub, _] = &self.state().trips;
        (hub.login, hub.after)
    }

    /// Round trips of the newest connection to SSM.
    #[allow(dead_code, reason = "the benchmark alone uses it")]
    pub fn ssm_round_trips(&self) -> u32 {
        let [_, ssm] = &self.state().trips;
        ssm.login
    }

    /// Every moment of the conversations that were had.
    pub fn steps(&self) -> Vec<Step> {
        let counts = self.state().counts;
        let mut steps = Vec::new();
        for talk in [Talk::Hub, Talk::Ssm] {
            for from in [Side::Run, Side::Peer] {
                for message in 0..counts[talk as usize][from as usize] {
                    let at = |passed| Step { talk, from, message, passed };
                    steps.extend([at(false), at(true)]);
                }
            }
        }
        steps
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let lines = {
            let mut state = self.state();
            state.over = true;
            std::mem::take(&mut state.lines)
        };
        for line in lines.iter().filter_map(Weak::upgrade) {
            line.close();
            line.turn(Gate::Shut);
        }
        // So that the listeners notice.
        for (_, address) in &self.addresses {
            let _ = TcpStream::connect(address);
        }
    }
}

/// Serves one connection; `None` when the relay is over.
fn connect(run: TcpStream, talk: Talk, to: SocketAddr, shared: &Arc<Mutex<State>>) -> Option<()> {
    let mut state = shared.lock().unwrap();
    let later = if state.has_struck { state.later } else { Later::Served };
    if state.over {
        return None;
    } else if later == Later::Closed {
        return Some(());
    }
    // A server that is down: the run finds its connection closed.
    let to = if let Later::Elsewhere(other) = later { other } else { to };
    let Ok(peer) = TcpStream::connect(to) else { return Some(()) };
    let round_trip = if let Later::Late(time) = later { time } else { state.round_trip };
    let line = Arc::new(Line {
        talk,
        run,
        peer,
        gate: Mutex::new(if later == Later::Held { Gate::Held } else { Gate::Open }),
        turned: Condvar::new(),
        answer_is_due: AtomicBool::new(false),
        encrypted: AtomicBool::new(false),
    });
    state.lines.push(Arc::downgrade(&line));
    state.trips[talk as usize] = Trips::default();
    for from in [Side::Run, Side::Peer] {
        let (source, _) = line.ends(from);
        source.set_nodelay(true).unwrap();
        let (line, seen) = (line.clone(), shared.clone());
        let seen = move |bytes: &[u8]| seen.lock().unwrap().trips[talk as usize].count(from, bytes);
        let bytes = incoming(source.try_clone().unwrap(), round_trip / 2, seen);
        let state = shared.clone();
        thread::spawn(move || line.pump(&state, from, bytes));
    }
    Some(())
}

impl Trips {
    fn count(&mut self, from: Side, bytes: &[u8]) {
        /// `AuthenticationOk`, the end of the login's last question.
        const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";
        match from {
            Side::Run => self.asked = true,
            Side::Peer => {
                if std::mem::take(&mut self.asked) {
                    *(if self.logged_in { &mut self.after } else { &mut self.login }) += 1;
                }
                self.logged_in |= bytes.windows(LOGGED_IN.len()).any(|window| window == LOGGED_IN);
            }
        }
    }
}

fn rewrite(message: &mut [u8], texts: &[(&str, &str)]) {
    for (text, other) in texts {
        while let Some(at) = message.windows(text.len()).position(|part| part == text.as_bytes()) {
            message[at..at + text.len()].copy_from_slice(other.as_bytes());
        }
    }
}

type Bytes = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// What comes, until the end. Where it is late a thread of its own reads it, so that bytes that
/// follow each other closely are late once, not one after the other.
fn incoming(mut from: TcpStream, late: Duration, seen: impl Fn(&[u8]) + Send + 'static) -> Bytes {
    let mut chunk = [0; 16 * 1024];
    let mut bytes = std::iter::from_fn(move || {
        let read = from.read(&mut chunk).ok().filter(|read| *read > 0)?;
        seen(&chunk[..read]);
        Some(chunk[..read].to_owned())
    });
    if late.is_zero() {
        return Box::new(bytes);
    }
    let (send, arrive) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || bytes.all(|bytes| send.send((Instant::now() + late, bytes)).is_ok()));
    Box::new(arrive.into_iter().map(|(due, bytes)| {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        bytes
    }))
}

impl Line {
    /// Where one side's messages come from, and where they go.
    fn ends(&self, from: Side) -> (&TcpStream, &TcpStream) {
        match from {
            Side::Run => (&self.run, &self.peer),
            Side::Peer => (&self.peer, &self.run),
        }
    }

    fn pump(&self, state: &Mutex<State>, from: Side, incoming: Bytes) {
        let (mut bytes, mut started) = (Vec::new(), false);
        for chunk in incoming {
            bytes.extend(chunk);
            while let Some(length) = self.first_message(from, &mut started, &bytes) {
                let mut message: Vec<u8> = bytes.drain(..length).collect();
                if (self.talk, from) == (Talk::Hub, Side::Run) {
                    rewrite(&mut message, &state.lock().unwrap().rewritten);
                }
                if self.pass(state, from, &message).is_none() {
                    return;
                }
            }
        }
        // One end has gone. Where the line is held, the other one does not hear of it yet.
        if self.open().is_some() {
            self.close();
            self.turn(Gate::Shut);
        }
    }

    /// `None` if nothing passes any more.
    fn pass(&self, state: &Mutex<State>, from: Side, message: &[u8]) -> Option<()> {
        let mut gate = self.open()?;
        let number = {
            let mut state = state.lock().unwrap();
            let count = &mut state.counts[self.talk as usize][from as usize];
            *count += 1;
            *count - 1
        };
        let step = |passed| Step { talk: self.talk, from, message: number, passed };
        self.moment(state, &mut gate, step(false), message);
        if *gate != Gate::Open {
            drop(gate);
            gate = self.open()?;
        }
        self.ends(from).1.write_all(message).ok()?;
        self.moment(state, &mut gate, step(true), message);
        Some(())
    }

    /// Waits until something may pass; `None` if nothing ever will.
    fn open(&self) -> Option<MutexGuard<'_, Gate>> {
        let gate = self.gate.lock().unwrap();
        let gate = self.turned.wait_while(gate, |gate| *gate == Gate::Held).unwrap();
        (*gate == Gate::Open).then_some(gate)
    }

    /// What was shut stays shut.
    fn turn(&self, to: Gate) {
        let mut gate = self.gate.lock().unwrap();
        if *gate != Gate::Shut {
            *gate = to;
        }
        self.turned.notify_all();
    }

    fn moment(&self, state: &Mutex<State>, gate: &mut Gate, step: Step, message: &[u8]) {
        let mut state = state.lock().unwrap();
        let Some((when, strike)) = state.plan.front().copied() else { return };
        let asks = (step.talk, step.from) == (Talk::Hub, Side::Run);
        let holds = |text: &str| message.windows(text.len()).any(|part| part == text.as_bytes());
        let now = match when {
            When::At(at) => at == step,
            When::Before(text) => asks && !step.passed && holds(text),
            When::After(_) | When::Armed if step.from == Side::Peer => {
                self.answer_is_due.load(SeqCst)
            }
            When::After(text) => {
                let due = asks && step.passed && holds(text);
                self.answer_is_due.fetch_or(due, SeqCst);
                false
            }
            When::Armed => {
                self.answer_is_due.fetch_or(asks && step.passed && state.armed, SeqCst);
                false
            }
        };
        if !now {
            return;
        }
        // Once only: later connections are counted on.
        state.plan.pop_front();
        state.has_struck = true;
        if state.plan.is_empty() {
            let _ = state.struck.send(());
        }
        drop(state);
        *gate = if strike == Strike::Hold { Gate::Held } else { Gate::Shut };
        match strike {
            Strike::Hold => {}
            Strike::Cut => self.close(),
            Strike::Reset => self.reset(),
            Strike::Flood(bytes) => {
                let (mut run, zeros) = (&self.run, [0; 16 * 1024]);
                let _ = run.write_all(bytes);
                while run.write_all(&zeros).is_ok() {}
                self.close();
            }
        }
    }

    fn close(&self) {
        let _ = self.run.shutdown(Shutdown::Both);
        let _ = self.peer.shutdown(Shutdown::Both);
    }

    /// Makes closing a reset, which the standard library cannot do yet and tokio can; and ends both
    /// pumps, the last of which closes.
    fn reset(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        for stream in [&self.run, &self.peer] {
            let stream = stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            stream.set_zero_linger().unwrap();
        }
        for stream in [&self.run, &self.peer] {
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// The length of the first message, if all of it is there.
    fn first_message(&self, from: Side, started: &mut bool, bytes: &[u8]) -> Option<usize> {
        let number = |at| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
        // A handshake record: no request of HTTP's begins so.
        if self.talk == Talk::Ssm && bytes.first() == Some(&0x16) {
            self.encrypted.store(true, SeqCst);
        }
        let length = match (self.talk, from) {
            _ if self.encrypted.load(SeqCst) => Some(bytes.len()).filter(|length| *length > 0)?,
            (Talk::Ssm, _) => {
                let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
                let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                head + length.map_or(0, |length| length.trim().parse().unwrap())
            }
            // Before the start-up message there is no type, and there may be a request for TLS.
            (Talk::Hub, Side::Run) if !*started => {
                *started = number(4)? == 3 << 16;
                number(0)?
            }
            // The answer to the request for TLS: yes, or no.
            (Talk::Hub, Side::Peer) if !*started && matches!(bytes.first(), Some(b'S' | b'N')) => {
                self.encrypted.store(bytes[0] == b'S', SeqCst);
                1
            }
            (Talk::Hub, _) => number(1)? + 1,
        };
        if bytes.len() < length {
            return None;
        }
        *started |= (self.talk, from) == (Talk::Hub, Side::Peer);
        Some(length)
    }
}
