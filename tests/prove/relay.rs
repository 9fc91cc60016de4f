//! A relay in front of the hub and of SSM that knows where messages end, and strikes at one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::support::{Hub, Program, Run, Ssm};

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
pub enum Strike {
    /// Nothing passes on this connection any more, and it stays open.
    Hold,
    /// The same, and every later connection is accepted and never answered.
    HoldAll,
    /// Both ends are closed.
    Cut,
    /// Both ends are reset.
    Reset,
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
    run: TcpStream,
    peer: TcpStream,
    gate: Mutex<Gate>,
}

struct Shared {
    plan: Option<(Step, Strike)>,
    /// Messages so far, by conversation and side.
    counts: Mutex<[[usize; 2]; 2]>,
    struck: Mutex<Option<Sender<()>>>,
    hold_all: AtomicBool,
    released: AtomicBool,
    over: AtomicBool,
}

/// One run's way to the hub and to SSM. Dropping it closes every connection.
pub struct Relay {
    ports: [u16; 2],
    shared: Arc<Shared>,
    struck: Receiver<()>,
}

/// How often the relay looks whether it is over while nothing comes. Hundreds of them wait at once.
const TICK: Duration = Duration::from_millis(50);

impl Relay {
    pub fn new(ssm: &Ssm, plan: Option<(Step, Strike)>) -> Relay {
        Relay::to(Hub::cluster().port(), ssm, plan)
    }

    pub fn to(hub: u16, ssm: &Ssm, plan: Option<(Step, Strike)>) -> Relay {
        let (sender, struck) = mpsc::channel();
        let shared = Arc::new(Shared {
            plan,
            counts: Mutex::default(),
            struck: Mutex::new(Some(sender)),
            hold_all: AtomicBool::new(false),
            released: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let ports = [(Talk::Hub, hub), (Talk::Ssm, ssm.port())].map(|(talk, to)| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let shared = shared.clone();
            thread::spawn(move || accept(&listener, talk, to, &shared));
            port
        });
        Relay { ports, shared, struck }
    }

    pub fn serve(&self, program: Program) -> Program {
        let [hub, ssm] = self.ports;
        let program = program.env("DB_HOST", "127.0.0.1").env("DB_PORT", hub.to_string());
        program.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{ssm}"))
    }

    /// Runs the program, and does something to its process when the relay strikes. Whether it did.
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

    /// Passes on what is held.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// Every moment of the conversations that were had.
    pub fn steps(&self) -> Vec<Step> {
        let counts = *self.shared.counts.lock().unwrap();
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
        self.shared.over.store(true, Ordering::SeqCst);
        // So that the listeners notice.
        for port in self.ports {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
    }
}

fn accept(listener: &TcpListener, talk: Talk, to: u16, shared: &Arc<Shared>) {
    for run in listener.incoming().flatten() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        // A server that is down: the run finds its connection closed.
        let Ok(peer) = TcpStream::connect(("127.0.0.1", to)) else { continue };
        for stream in [&run, &peer] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(TICK)).unwrap();
        }
        let held = shared.hold_all.load(Ordering::SeqCst);
        let gate = Mutex::new(if held { Gate::Held } else { Gate::Open });
        let line = Arc::new(Line { run, peer, gate });
        for from in [Side::Run, Side::Peer] {
            let (line, shared) = (line.clone(), shared.clone());
            thread::spawn(move || pump(&shared, &line, talk, from));
        }
    }
}

fn pump(shared: &Shared, line: &Line, talk: Talk, from: Side) {
    let (mut source, mut sink) = match from {
        Side::Run => (&line.run, &line.peer),
        Side::Peer => (&line.peer, &line.run),
    };
    let (mut bytes, mut chunk, mut started) = (Vec::new(), [0; 16 * 1024], false);
    loop {
        match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        while let Some(length) = first_message(talk, from, &mut started, &bytes) {
            let Some(mut gate) = line.open(shared) else { return };
            let message = {
                let mut counts = shared.counts.lock().unwrap();
                let count = &mut counts[talk as usize][from as usize];
                *count += 1;
                *count - 1
            };
            line.moment(shared, &mut gate, Step { talk, from, message, passed: false });
            if *gate == Gate::Held {
                drop(gate);
                let Some(open) = line.open(shared) else { return };
                gate = open;
            }
            if *gate == Gate::Shut || sink.write_all(&bytes[..length]).is_err() {
                break;
            }
            bytes.drain(..length);
            line.moment(shared, &mut gate, Step { talk, from, message, passed: true });
        }
        if shared.over.load(Ordering::SeqCst) || *line.gate.lock().unwrap() == Gate::Shut {
            return;
        }
    }
    // One end has gone. Where the line is held, the other one does not hear of it yet.
    if let Some(mut gate) = line.open(shared) {
        *gate = Gate::Shut;
        line.close();
    }
}

impl Line {
    /// Waits until something may pass; `None` if nothing ever will.
    fn open(&self, shared: &Shared) -> Option<MutexGuard<'_, Gate>> {
        loop {
            let mut gate = self.gate.lock().unwrap();
            if *gate == Gate::Held && shared.released.load(Ordering::SeqCst) {
                *gate = Gate::Open;
            }
            match *gate {
                _ if shared.over.load(Ordering::SeqCst) => return None,
                Gate::Open => return Some(gate),
                Gate::Shut => return None,
                Gate::Held => {}
            }
            drop(gate);
            thread::sleep(TICK);
        }
    }

    fn moment(&self, shared: &Shared, gate: &mut Gate, step: Step) {
        let Some((_, strike)) = shared.plan.filter(|(at, _)| *at == step) else { return };
        // Once only: later connections are counted on.
        let Some(struck) = shared.struck.lock().unwrap().take() else { return };
        match strike {
            Strike::Hold => *gate = Gate::Held,
            Strike::HoldAll => {
                shared.hold_all.store(true, Ordering::SeqCst);
                *gate = Gate::Held;
            }
            Strike::Cut => {
                *gate = Gate::Shut;
                self.close();
            }
            Strike::Reset => {
                *gate = Gate::Shut;
                self.linger_zero();
            }
        }
        let _ = struck.send(());
    }

    fn close(&self) {
        let _ = self.run.shutdown(Shutdown::Both);
        let _ = self.peer.shutdown(Shutdown::Both);
    }

    /// From now on closing is a reset. The standard library cannot say so yet, tokio can.
    fn linger_zero(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        for stream in [&self.run, &self.peer] {
            let stream = stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            tokio::net::TcpStream::from_std(stream).unwrap().set_zero_linger().unwrap();
        }
    }
}

/// The length of the first message, if all of it is there.
fn first_message(talk: Talk, from: Side, started: &mut bool, bytes: &[u8]) -> Option<usize> {
    let number = |at| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let length = match (talk, from) {
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
        // The answer to the request for TLS: no.
        (Talk::Hub, Side::Peer) if !*started && bytes.first() == Some(&b'N') => 1,
        (Talk::Hub, _) => number(1)? + 1,
    };
    if bytes.len() < length {
        return None;
    }
    *started |= (talk, from) == (Talk::Hub, Side::Peer);
    Some(length)
}
