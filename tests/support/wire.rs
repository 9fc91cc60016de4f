//! A network in front of the hub: what goes through is late, and round trips are counted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// `AuthenticationOk`, the end of the login's last question.
const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Questions that were answered on the newest connection. Bytes on their way count as one
/// question however many messages they hold; a farewell gets no answer and does not count.
#[derive(Default)]
struct Trips {
    asked: AtomicBool,
    logged_in: AtomicBool,
    login: AtomicU32,
    after: AtomicU32,
}

pub struct Wire {
    pub port: u16,
    trips: Arc<Trips>,
}

impl Wire {
    /// Half of `round_trip` is lost in each direction.
    pub fn to(server: u16, round_trip: Duration) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let trips = Arc::<Trips>::default();
        let counts = trips.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                counts.restart();
                let (asks, answers) = (counts.clone(), counts.clone());
                carry(&client, &server, round_trip / 2, move |_| asks.asked.store(true, SeqCst));
                carry(&server, &client, round_trip / 2, move |bytes| answers.answered(bytes));
            }
        });
        Wire { port, trips }
    }

    /// Round trips of the newest connection: of its login, and after it.
    pub fn round_trips(&self) -> (u32, u32) {
        (self.trips.login.load(SeqCst), self.trips.after.load(SeqCst))
    }
}

impl Trips {
    fn restart(&self) {
        self.asked.store(false, SeqCst);
        self.logged_in.store(false, SeqCst);
        self.login.store(0, SeqCst);
        self.after.store(0, SeqCst);
    }

    fn answered(&self, bytes: &[u8]) {
        if self.asked.swap(false, SeqCst) {
            let login = !self.logged_in.load(SeqCst);
            (if login { &self.login } else { &self.after }).fetch_add(1, SeqCst);
        }
        if bytes.windows(LOGGED_IN.len()).any(|window| window == LOGGED_IN) {
            self.logged_in.store(true, SeqCst);
        }
    }
}

/// One direction. Reading and writing are apart, so that bytes that follow each other closely
/// are late once, not one after the other.
fn carry(from: &TcpStream, to: &TcpStream, late: Duration, seen: impl Fn(&[u8]) + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    to.set_nodelay(true).unwrap();
    let (send, arrive) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut chunk = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            seen(&chunk[..read]);
            let _ = send.send((Instant::now() + late, chunk[..read].to_owned()));
        }
    });
    thread::spawn(move || {
        for (due, bytes) in arrive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
