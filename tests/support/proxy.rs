//! A proxy in front of the hub that breaks the connection at the commit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::{Hub, Program};

#[derive(Clone, Copy, PartialEq)]
pub enum Cut {
    /// The client's bytes that hold this text never reach the server.
    Before(&'static str),
    /// They reach it, and it answers; the answer is swallowed.
    After(&'static str),
    /// They are swallowed, and the connection stays open and silent.
    Freeze(&'static str),
    /// What the client sends once the proxy is armed reaches the server, and the answer is
    /// swallowed: for connections that cannot be read.
    AfterArmed,
    /// Nothing is cut.
    Never,
}

pub struct Proxy {
    port: u16,
    pub connections: Arc<AtomicU32>,
    /// What clients sent and the server got, in pieces as they came.
    pub passed: Arc<AtomicU32>,
    armed: Arc<AtomicBool>,
}

impl Proxy {
    /// After the cut, new connections reach the server, or are closed at once.
    pub fn new(cut: Cut, reachable_afterwards: bool) -> Proxy {
        Proxy::to(Hub::cluster().port(), cut, reachable_afterwards)
    }

    pub fn to(server: u16, cut: Cut, reachable_afterwards: bool) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<AtomicU32>::default();
        let passed = Arc::<AtomicU32>::default();
        let (count, trips) = (connections.clone(), passed.clone());
        let done = Arc::new(AtomicBool::new(false));
        let armed = Arc::<AtomicBool>::default();
        let arm = armed.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let was_cut = done.load(Ordering::SeqCst);
                if was_cut && !reachable_afterwards {
                    continue;
                }
                let cut = if was_cut { Cut::Never } else { cut };
                let (done, trips) = (done.clone(), trips.clone());
                let armed = arm.clone();
                thread::spawn(move || relay(client, server, cut, &armed, &done, &trips));
            }
        });
        Proxy { port, connections, passed, armed }
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn serve(&self, program: Program) -> Program {
        program.env("DB_HOST", "127.0.0.1").env("DB_PORT", self.port.to_string())
    }
}

fn relay(
    client: TcpStream,
    port: u16,
    cut: Cut,
    armed: &AtomicBool,
    done: &AtomicBool,
    trips: &AtomicU32,
) {
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let swallow = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicBool::new(false));
    let (mut from_server, mut to_client) =
        (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (hush, seen) = (swallow.clone(), answered.clone());
    thread::spawn(move || {
        pump(&mut from_server, |bytes| {
            seen.store(true, Ordering::SeqCst);
            hush.load(Ordering::SeqCst) || to_client.write_all(bytes).is_ok()
        });
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    pump(&mut from_client, |bytes| {
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let answer_cut = match cut {
            Cut::After(text) => holds(text),
            Cut::AfterArmed => armed.load(Ordering::SeqCst),
            _ => false,
        };
        match cut {
            Cut::Before(text) if holds(text) => {
                done.store(true, Ordering::SeqCst);
                return false;
            }
            _ if answer_cut => {
                answered.store(false, Ordering::SeqCst);
                swallow.store(true, Ordering::SeqCst);
                to_server.write_all(bytes).unwrap();
                super::eventually("the server answered", || answered.load(Ordering::SeqCst));
                thread::sleep(Duration::from_millis(50));
                done.store(true, Ordering::SeqCst);
                return false;
            }
            Cut::Freeze(text) if holds(text) => {
                swallow.store(true, Ordering::SeqCst);
                done.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_secs(100));
                return false;
            }
            _ => {}
        }
        trips.fetch_add(1, Ordering::SeqCst);
        to_server.write_all(bytes).is_ok()
    });
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn pump(from: &mut TcpStream, mut to: impl FnMut(&[u8]) -> bool) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut chunk) {
        if read == 0 || !to(&chunk[..read]) {
            return;
        }
    }
}
