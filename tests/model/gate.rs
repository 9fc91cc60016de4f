//! A gate between the program and its servers. Nothing that a trace tells of passes before its
//! step; everything else passes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// No step takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the program says to the hub, and what is held until its step comes.
pub const COMMIT: &str = "COMMIT";
pub const RECOVERY: &str = "pg_is_in_recovery";
pub const STATUS: &str = "pg_xact_status";
pub const ROW: &str = "FROM trust WHERE id";

#[derive(Default)]
struct State {
    /// Connections that may be made, besides the first one.
    admitted: Vec<SocketAddr>,
    /// What has come, and what may pass.
    came: Vec<&'static str>,
    may_pass: Vec<&'static str>,
    /// What was asked last on each connection, and what has been answered.
    asked: HashMap<usize, &'static str>,
    answered: Vec<&'static str>,
    /// COMMIT becomes ROLLBACK.
    roll_back: bool,
    /// The transaction ends with the message that opened it, as behind a pooler of statements.
    commit_at_once: bool,
    /// Questions that reach the server about another trust, or another transaction.
    altered: Vec<(&'static str, String)>,
    /// COMMIT has been passed on: its answer is held.
    hold_answer: bool,
    /// It has got to the program.
    heard: bool,
    over: bool,
    /// The program's end of the first connection, and the server's ends of all.
    client: Option<TcpStream>,
    servers: Vec<TcpStream>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The way to the hub.
pub struct Gate {
    pub port: u16,
    shared: Shared,
}

impl Gate {
    pub fn to(hub: SocketAddr) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared::default();
        shared.0.lock().unwrap().admitted.push(hub);
        let state = shared.clone();
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let mut address = None;
                wait(&state, |state| {
                    address = address.or_else(|| state.admitted.pop());
                    address.is_some()
                });
                let Some(address) = address else { return };
                let server = TcpStream::connect(address).unwrap();
                let mut now = state.0.lock().unwrap();
                if number == 0 {
                    now.client = Some(client.try_clone().unwrap());
                }
                now.servers.push(server.try_clone().unwrap());
                drop(now);
                let words: &[_] = if number == 0 { &[COMMIT] } else { &[RECOVERY, STATUS, ROW] };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (asks, answers) = (state.clone(), state.clone());
                thread::spawn(move || ask(&asks, number, from, to, words));
                thread::spawn(move || answer(&answers, number, server, client));
            }
        });
        Gate { port, shared }
    }

    /// The statements behind the one that opens the transaction are outside of it.
    pub fn pool_statements(&self) {
        self.change(|state| state.commit_at_once = true);
    }

    /// The server is asked about another trust or transaction than the one in quotes.
    pub fn ask_instead(&self, word: &'static str, about: &str) {
        self.change(|state| state.altered.push((word, about.to_owned())));
    }

    /// Lets the program make another connection.
    pub fn admit(&self, server: SocketAddr) {
        self.change(|state| state.admitted.push(server));
    }

    pub fn has_come(&self, word: &'static str) -> bool {
        self.shared.0.lock().unwrap().came.contains(&word)
    }

    pub fn await_question(&self, word: &'static str) {
        self.await_that(word, |state| state.came.contains(&word));
    }

    /// Passes a question on, and waits until the server has answered it.
    pub fn pass(&self, word: &'static str) {
        self.await_question(word);
        self.change(|state| {
            state.answered.clear();
            state.came.retain(|other| *other != word);
            state.may_pass.push(word);
            state.hold_answer |= word == COMMIT;
        });
        self.await_that(word, |state| state.answered.contains(&word));
    }

    /// COMMIT passes as what the server would make of it if it could not commit.
    pub fn pass_as_rollback(&self) {
        self.change(|state| state.roll_back = true);
        self.pass(COMMIT);
    }

    /// The program hears what came of COMMIT.
    pub fn pass_answer(&self) {
        self.change(|state| state.hold_answer = false);
        self.await_that("the answer", |state| state.heard);
    }

    /// The program finds its first connection broken; the server does not know yet.
    pub fn cut(&self) {
        self.change(|state| {
            let _ = state.client.as_ref().unwrap().shutdown(Shutdown::Both);
        });
    }

    /// The server notices that the first connection is gone.
    pub fn notice(&self) {
        self.change(|state| {
            let _ = state.servers[0].shutdown(Shutdown::Both);
        });
    }

    /// Nothing passes any more, and the server notices.
    pub fn close(&self) {
        self.change(|state| {
            state.over = true;
            for server in &state.servers {
                let _ = server.shutdown(Shutdown::Both);
            }
        });
        // So that the listener notices.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // A test that failed in here has said so.
        change(&mut self.shared.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.1.notify_all();
    }

    fn await_that(&self, what: &str, holds: impl FnMut(&mut State) -> bool) {
        assert!(wait(&self.shared, holds), "never came: {what}");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether it came true before the end.
fn wait(shared: &Shared, mut holds: impl FnMut(&mut State) -> bool) -> bool {
    let state = shared.0.lock().unwrap();
    let (mut state, _) =
        shared.1.wait_timeout_while(state, PATIENCE, |state| !state.over && !holds(state)).unwrap();
    !state.over && holds(&mut state)
}

fn find_in(bytes: &[u8], word: &str) -> Option<usize> {
    bytes.windows(word.len()).position(|part| part == word.as_bytes())
}

fn ask(
    shared: &Shared,
    number: usize,
    mut from: TcpStream,
    mut to: TcpStream,
    words: &[&'static str],
) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let find = |word: &str| find_in(&chunk[..read], word);
        if let Some(word) = words.iter().find(|word| find(word).is_some()) {
            let place = find(word).unwrap();
            let mut state = shared.0.lock().unwrap();
            state.came.push(word);
            drop(state);
            shared.1.notify_all();
            let mut passes = false;
            wait(shared, |state| {
                let at = state.may_pass.iter().position(|other| other == word);
                passes |= at.map(|at| state.may_pass.remove(at)).is_some();
                passes
            });
            if !passes {
                return;
            }
            let mut state = shared.0.lock().unwrap();
            state.asked.insert(number, word);
            if *word == COMMIT && state.roll_back {
                chunk[place..place + COMMIT.len()].copy_from_slice(b"ABORT ");
            }
            if let Some(at) = state.altered.iter().position(|(altered, _)| altered == word) {
                let (_, about) = state.altered.remove(at);
                let quoted = place + find_in(&chunk[place..read], "'").unwrap() + 1;
                let length = find_in(&chunk[quoted..read], "'").unwrap();
                let about = format!("{about:0>length$}");
                chunk[quoted..quoted + length].copy_from_slice(about.as_bytes());
            }
        }
        let mut message = chunk[..read].to_vec();
        if number == 0
            && shared.0.lock().unwrap().commit_at_once
            && find_in(&message, "SAVEPOINT claim").is_some()
        {
            // One simple query: its kind, its length, its text and a zero.
            message.pop();
            message.extend(b"; COMMIT\0");
            let length = u32::try_from(message.len() - 1).unwrap();
            message[1..5].copy_from_slice(&length.to_be_bytes());
        }
        if to.write_all(&message).is_err() {
            return;
        }
    }
}

fn answer(shared: &Shared, number: usize, mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let mut state = shared.0.lock().unwrap();
        let answered = state.asked.remove(&number);
        state.answered.extend(answered);
        let held = number == 0 && state.hold_answer;
        drop(state);
        shared.1.notify_all();
        wait(shared, |state| !(number == 0 && state.hold_answer));
        let _ = to.write_all(&chunk[..read]);
        shared.0.lock().unwrap().heard |= held;
        shared.1.notify_all();
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// SSM, to which every put comes by itself and waits for what is done with it.
pub struct Puts {
    pub url: String,
    came: Receiver<Put>,
}

pub struct Put {
    pub value: String,
    client: TcpStream,
}

impl Puts {
    pub fn new() -> Puts {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (send, came) = mpsc::channel();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(put) = Put::read(client) else { continue };
                if send.send(put).is_err() {
                    return;
                }
            }
        });
        Puts { url, came }
    }

    pub fn next(&self) -> Put {
        self.came.recv_timeout(PATIENCE).expect("never came: a put")
    }
}

impl Put {
    fn read(mut client: TcpStream) -> Option<Put> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
            bytes.extend_from_slice(&chunk[..read]);
            let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            if let Ok(body) = serde_json::from_slice::<Value>(&bytes[head + 4..]) {
                let value = body["Value"].as_str()?.to_owned();
                return Some(Put { value, client });
            }
        }
    }

    pub fn stored(self, version: usize) {
        self.answer(200, &json!({"Version": version, "Tier": "Standard"}));
    }

    pub fn refused(self) {
        self.answer(400, &json!({"__type": "AccessDeniedException", "message": "no"}));
    }

    fn answer(mut self, status: u16, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
        let _ = self.client.write_all((head + &body).as_bytes());
    }
}
