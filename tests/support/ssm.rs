//! A Parameter Store that does what the test tells it to.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use openssl::ssl::SslAcceptor;
use serde_json::{Value, json};

use super::Program;

/// What to do with the next request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Store it and say so.
    Store,
    /// Refuse with this status, code and message.
    Refuse(u16, &'static str, &'static str),
    /// Refuse, and quote the request's value in the message.
    Quote,
    /// Close the connection without storing.
    DropBefore,
    /// Store, and close the connection without an answer.
    DropAfter,
    /// Never answer.
    Hang,
    /// Never answer, and store when the test calls `store_late`, whether the client is still there
    /// or not.
    StoreLate,
    /// An answer that is not SSM's.
    Garbage(&'static str),
    /// These bytes, made of the value that was to be put, in place of a whole answer.
    Raw(fn(&str) -> Vec<u8>),
    /// A body that does not end: this again and again.
    Endless(&'static str),
    /// Wait until the test lets it go on, then store.
    Hold,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    always: Option<Answer>,
    verdicts: Option<Answer>,
    requests: Vec<(String, Value)>,
    parameters: HashMap<String, Vec<String>>,
    /// Names and values of puts that are stored late.
    late: Vec<(String, String)>,
    released: bool,
}

pub struct Ssm {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Default for Ssm {
    fn default() -> Ssm {
        Ssm::new()
    }
}

impl Ssm {
    pub fn new() -> Ssm {
        Ssm::behind(Some)
    }

    /// One that speaks TLS.
    #[allow(dead_code, reason = "the benchmark alone uses it")]
    pub fn with_tls(acceptor: SslAcceptor) -> Ssm {
        Ssm::behind(move |stream| acceptor.accept(stream).ok())
    }

    /// `open` is what comes before the first request.
    fn behind<S: Read + Write>(
        open: impl Fn(TcpStream) -> Option<S> + Clone + Send + 'static,
    ) -> Ssm {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (open, shared) = (open.clone(), shared.clone());
                thread::spawn(move || open(stream).map(|stream| serve(stream, &shared)));
            }
        });
        Ssm { port, state }
    }

    /// The next requests get these answers, the later ones are stored.
    pub fn script(self, answers: &[Answer]) -> Ssm {
        self.state.0.lock().unwrap().script.extend(answers.iter().cloned());
        self
    }

    /// Every request that the script does not cover gets this answer.
    pub fn always(self, answer: Answer) -> Ssm {
        self.state.0.lock().unwrap().always = Some(answer);
        self
    }

    /// Every such request that puts `[]` gets this one.
    pub fn verdicts(self, answer: Answer) -> Ssm {
        self.state.0.lock().unwrap().verdicts = Some(answer);
        self
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn release(&self) {
        self.state.0.lock().unwrap().released = true;
        self.state.1.notify_all();
    }

    /// Stores what hung until now; how many puts that were.
    pub fn store_late(&self) -> usize {
        let late = std::mem::take(&mut self.state.0.lock().unwrap().late);
        late.iter().for_each(|(name, value)| self.store(name, value));
        late.len()
    }

    /// Points the program here, with credentials.
    pub fn serve(&self, program: Program) -> Program {
        program
            .env("AWS_REGION", "eu-west-2")
            .env("AWS_ENDPOINT_URL", self.url())
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    pub fn store(&self, name: &str, value: &str) {
        let parameters = &mut self.state.0.lock().unwrap().parameters;
        parameters.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// Every version of a parameter, the first one first.
    pub fn versions(&self, name: &str) -> Vec<String> {
        self.state.0.lock().unwrap().parameters.get(name).cloned().unwrap_or_default()
    }

    pub fn latest(&self, name: &str) -> Option<String> {
        self.versions(name).pop()
    }

    /// Every request: its headers, and its body.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.state.0.lock().unwrap().requests.clone()
    }
}

fn serve<S: Read + Write>(mut stream: S, shared: &(Mutex<State>, Condvar)) {
    let Some((head, body)) = read_request(&mut stream) else { return };
    let get = head.contains("x-amz-target: amazonssm.getparameter");
    let answer = {
        let mut state = shared.0.lock().unwrap();
        state.requests.push((head, body.clone()));
        let verdict = state.verdicts.clone().filter(|_| body["Value"] == "[]");
        let always = verdict.or_else(|| state.always.clone());
        state.script.pop_front().or(always).unwrap_or(Answer::Store)
    };
    let store = || {
        let mut state = shared.0.lock().unwrap();
        let name = body["Name"].as_str().unwrap().to_owned();
        if get {
            return match state.parameters.get(&name).and_then(|versions| versions.last()) {
                Some(value) => {
                    (200, json!({"Parameter": {"Name": name, "Value": value}}).to_string())
                }
                None => (400, json!({"__type": "ParameterNotFound"}).to_string()),
            };
        }
        let versions = state.parameters.entry(name).or_default();
        versions.push(body["Value"].as_str().unwrap().to_owned());
        (200, json!({"Version": versions.len(), "Tier": "Standard"}).to_string())
    };
    let value = body["Value"].as_str().unwrap_or_default();
    // Until the client has gone.
    let hang = |mut stream: S| while let Ok(1..) = stream.read(&mut [0; 1024]) {};
    let (status, text) = match answer {
        Answer::Store => store(),
        Answer::Refuse(status, code, message) => {
            (status, json!({"__type": code, "message": message}).to_string())
        }
        Answer::Quote => {
            let message = format!("Value '{value}' at 'value' is not allowed");
            (400, json!({"__type": "ValidationException", "message": message}).to_string())
        }
        Answer::DropBefore => return,
        Answer::DropAfter => {
            store();
            return;
        }
        Answer::Hang => return hang(stream),
        Answer::StoreLate => {
            let late = (body["Name"].as_str().unwrap().to_owned(), value.to_owned());
            shared.0.lock().unwrap().late.push(late);
            return hang(stream);
        }
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes(value));
            return;
        }
        Answer::Endless(text) => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
            while stream.write_all(text.as_bytes()).is_ok() {}
            return;
        }
        Answer::Garbage(text) => (200, text.to_owned()),
        Answer::Hold => {
            let state = shared.0.lock().unwrap();
            let waited = shared
                .1
                .wait_timeout_while(state, Duration::from_secs(60), |state| !state.released);
            drop(waited.unwrap());
            store()
        }
    };
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nx-amzn-requestid: req-{status}\r\ncontent-length: {length}\r\n\r\n{text}"
    );
}

fn read_request(stream: &mut impl Read) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or(Value::Null);
                return Some((head, body));
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
