//! doc/reference.md, "Logs and secrets": a peer that speaks PostgreSQL's protocol and means harm.
//! It gets no secret onto stderr, forges no line, steers no terminal, and takes no memory and no
//! time without end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use crate::support::{Program, Run, eventually};

const PASSWORD: &str = "hunter2-and-more";
const NEW: [&str; 4] = ["--name", "A", "--code", "GSTT"];

/// A message of the server's.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

/// Texts that each end in a zero.
fn texts(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect()
}

pub fn error(code: &str, text: &str) -> Vec<u8> {
    let fields = [("S", "ERROR"), ("V", "ERROR"), ("C", code), ("M", text)];
    let fields: Vec<_> = fields.iter().map(|(kind, text)| format!("{kind}{text}")).collect();
    let fields: Vec<_> = fields.iter().map(String::as_str).chain([""]).collect();
    message(b'E', &texts(&fields))
}

/// One row with columns of these names and types, in text or binary form.
fn row(columns: &[(&str, u32, Option<&[u8]>)]) -> Vec<u8> {
    let count = u16::try_from(columns.len()).unwrap().to_be_bytes();
    let (mut head, mut data) = (count.to_vec(), count.to_vec());
    for (name, kind, value) in columns {
        head.extend(texts(&[name]));
        head.extend([&[0; 6][..], &kind.to_be_bytes(), &[0xff; 6], &[0; 2]].concat());
        match value {
            None => data.extend([0xff; 4]),
            Some(value) => {
                data.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                data.extend(*value);
            }
        }
    }
    [message(b'T', &head), message(b'D', &data)].concat()
}

const TEXT: u32 = 25;

fn done() -> Vec<u8> {
    [message(b'C', b"SELECT 1\0"), ready()].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"T")
}

/// What an honest hub answers to the opening batch.
fn opened() -> Vec<u8> {
    let row = row(&[("hash_can_be_read", TEXT, Some(b"yes")), ("recovering", TEXT, Some(b"f"))]);
    [row, done()].concat()
}

/// Around the answer to a statement with parameters.
fn answered(answer: Vec<u8>) -> Vec<u8> {
    [message(b'1', b""), message(b'2', b""), answer].concat()
}

fn look(question: &str, id: &str, slot: &str) -> Vec<u8> {
    // The mark is what the opening batch set.
    let mark = question.split("'register_trust.trust_id', '").nth(1).unwrap();
    let columns = row(&[
        ("trust_id", TEXT, Some(id.as_bytes())),
        ("namesakes", 20, Some(&1_i64.to_be_bytes())),
        ("slot_name", TEXT, Some(slot.as_bytes())),
        ("slot_number", 23, Some(&1_i32.to_be_bytes())),
        ("mark", TEXT, Some(&mark.as_bytes()[..36])),
        ("slot_was_free", 16, Some(b"\0")),
    ]);
    answered([columns, done()].concat())
}

/// What an honest hub answers to a claim.
fn new_trust(slot: &str) -> Vec<u8> {
    let row = row(&[
        ("xact_id", 20, Some(&7_i64.to_be_bytes())),
        ("trust_kept", 16, Some(b"\x01")),
        ("slot_name", TEXT, Some(slot.as_bytes())),
        ("slot_number", 23, Some(&1_i32.to_be_bytes())),
        ("triggers_behind", 16, Some(b"\0")),
    ]);
    answered([row, done()].concat())
}

/// A server that wants the password in clear and then answers as the test says: it is told all that
/// was asked so far, the newest question last.
struct Fake {
    port: u16,
}

impl Fake {
    fn new(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                thread::spawn(move || serve(stream, &*answer));
            }
        });
        Fake { port }
    }

    /// It answers with these bytes.
    fn saying(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Fake {
        Fake::new(move |question, stream| {
            let _ = stream.write_all(&answer(question));
        })
    }

    fn program(&self, arguments: &[&str]) -> Program {
        Program::new(arguments)
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", self.port.to_string())
            .env("POSTGRES_USER", "flip")
            .env("POSTGRES_DB", "hub")
            .env("POSTGRES_PASSWORD", PASSWORD)
    }
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &mut TcpStream)) -> Option<()> {
    let mut bytes = Vec::new();
    // The request for TLS, the start-up message, the password; then statements.
    let mut take = |stream: &mut TcpStream, head: usize| {
        let mut chunk = [0; 4096];
        loop {
            if let Some(length) = bytes.get(head..).and_then(|rest| rest.first_chunk()) {
                let length = head + u32::from_be_bytes(*length) as usize;
                if bytes.len() >= length {
                    return Some(bytes.drain(..length).collect::<Vec<u8>>());
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
        }
    };
    if take(&mut stream, 0)?.len() == 8 {
        stream.write_all(b"N").ok()?;
        take(&mut stream, 0)?;
    }
    stream.write_all(&message(b'R', &3_u32.to_be_bytes())).ok()?;
    let mut asked = String::from_utf8_lossy(&take(&mut stream, 1)?).into_owned();
    answer(&asked, &mut stream);
    loop {
        let question = take(&mut stream, 1)?;
        asked += &String::from_utf8_lossy(&question);
        // `Query` and `Sync` wait for an answer; what comes before `Sync` does not.
        if matches!(question[0], b'Q' | b'S') {
            answer(&asked, &mut stream);
        }
    }
}

fn welcome() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'Z', b"I")].concat()
}

/// Welcomes, opens the transaction, and then answers so.
fn after_opening(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Fake {
    Fake::saying(move |asked| {
        if !asked.contains("BEGIN") {
            welcome()
        } else if !asked.contains("trusts_audit") && !asked.contains("namesakes") {
            opened()
        } else {
            answer(asked)
        }
    })
}

#[track_caller]
fn assert_plain(run: Run) -> Run {
    let steers = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || "\u{ad}\u{61c}\u{180e}\u{feff}\u{e0041}\u{1d173}\u{e000}\u{301}".contains(c)
    };
    assert!(!run.stderr.contains(steers), "{:?}", run.stderr);
    for line in run.stderr.lines() {
        let known = ["ERROR ", "WARNING ", "INFO ", "DEBUG "];
        assert!(known.iter().any(|level| line.starts_with(level)), "a forged line{}", run.dump());
    }
    run.never_says("forged\nINFO").never_says(PASSWORD)
}

const STEERS: &str = "forged\nINFO registered \u{1b}[2J\u{9b}2J \u{202e}txet\u{2028}\u{feff} \r\x07\
    \u{ad}\u{61c}\u{180e}\u{e0041}\u{1d173}\u{e000}a\u{301}\u{301}";

#[test]
fn no_password_comes_back_to_stderr_from_the_hub() {
    for at in ["login", "opening", "later"] {
        let fake = Fake::saying(move |asked| {
            if at == "login" && !asked.contains("BEGIN") {
                error("28P01", &format!("the password {PASSWORD} is wrong"))
            } else if !asked.contains("BEGIN") {
                welcome()
            } else if at == "later" && !asked.contains("trusts_audit") {
                opened()
            } else {
                let shouted = PASSWORD.to_uppercase();
                [error("XX000", &format!("hello {shouted}")), ready()].concat()
            }
        });
        for verbosity in ["-q", "-v"] {
            assert_plain(fake.program(&NEW).arg(verbosity).run().fails())
                .says("the message is not shown, because it repeats the password");
        }
    }
}

#[test]
fn no_field_of_an_error_forges_a_line_or_steers_the_terminal() {
    for (code, text) in
        [("XX000", STEERS), (STEERS, "x"), ("a\nINF", "x"), ("\u{1b}[2J", "x"), ("", "")]
    {
        let refusal = error(code, text);
        let login = refusal.clone();
        assert_plain(Fake::saying(move |_| login.clone()).program(&NEW).arg("-v").run().fails());
        let fake = after_opening(move |_| [refusal.clone(), ready()].concat());
        assert_plain(fake.program(&NEW).arg("-v").run().fails());
    }
}

#[test]
fn no_value_of_a_row_forges_a_line_or_steers_the_terminal() {
    const ID: &str = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    // Of a trust that is there: the slot is in the kit, escaped; the id would be the receipt.
    let fake = after_opening(|asked| look(asked, ID, STEERS));
    let kit = assert_plain(fake.program(&["--name", "A"]).arg("-v").run()).metadata_only_kit();
    assert_eq!(kit[0]["fl_kit_slot"], STEERS);
    for id in [STEERS, "", "[{\"trust_id\": 1}]", "x\n[]"] {
        let fake = after_opening(move |asked| look(asked, id, "Trust_1"));
        assert_plain(fake.program(&["--name", "A", "--await-ack", "-v"]).run().fails());
    }
    // Of a new one: the slot is in the log.
    let fake = after_opening(|asked| {
        if asked.contains("COMMIT") {
            return [row(&[("pg_xact_status", TEXT, Some(b"committed"))]), done()].concat();
        }
        new_trust(STEERS)
    });
    assert_plain(fake.program(&NEW).arg("-v").run()).full_kit();
}

#[test]
fn only_a_standby_is_said_to_be_one() {
    for (message, is_one) in [
        ("cannot set transaction read-write mode during recovery", true),
        ("INSERT with ON CONFLICT clause cannot be used with table that has INSERT rules", false),
    ] {
        let fake = after_opening(move |_| [error("0A000", message), ready()].concat());
        let run = fake.program(&NEW).run().fails().says("(SQLSTATE 0A000)");
        assert_eq!(run.stderr.contains("DB_HOST to the hub's primary"), is_one, "{}", run.dump());
    }
}

#[test]
fn a_hub_that_owes_an_answer_does_not_keep_the_run_that_has_ended() {
    // An error, and never the word that the server is ready again.
    for at in ["BEGIN", "trusts_audit", "COMMIT"] {
        let fake = Fake::saying(move |asked| {
            if asked.contains(at) {
                error("XX000", "no")
            } else if !asked.contains("BEGIN") {
                welcome()
            } else if !asked.contains("trusts_audit") {
                opened()
            } else {
                new_trust("Trust_1")
            }
        });
        let mut run = fake.program(&NEW).spawn();
        eventually("the run ends", || run.child.try_wait().unwrap().is_some());
        run.wait().exits(1);
    }
}

/// Far more than a run needs, and far less than a peer can send.
fn in_little_memory(program: Program) -> Program {
    program.behind("ulimit -d 65536", "")
}

#[test]
fn floods_of_small_messages_do_not_fill_the_memory() {
    let floods: [fn(u32) -> Vec<u8>; 5] = [
        |_| message(b'N', &texts(&["SNOTICE", "C00000", "Mx", ""])),
        |_| message(b'A', &[0, 0, 0, 1, 0, 0]),
        |n| message(b'S', &texts(&[&n.to_string(), ""])),
        |_| message(b'D', &[0, 0]),
        |_| message(b'C', b"x\0"),
    ];
    for flood in floods {
        let fake = Fake::new(move |asked, stream| {
            let head = if asked.contains("BEGIN") { message(b'T', &[0, 0]) } else { welcome() };
            let _ = stream.write_all(&head);
            if asked.contains("BEGIN") {
                for n in 0.. {
                    let many: Vec<u8> = (0..1000).flat_map(|m| flood(n * 1000 + m)).collect();
                    if stream.write_all(&many).is_err() {
                        return;
                    }
                }
            }
        });
        assert_plain(in_little_memory(fake.program(&NEW)).run().fails());
    }
}

#[test]
fn an_endlessly_nested_type_ends_the_run_and_does_not_crash_the_process() {
    // The client asks what each unknown type is: an array of another unknown type, and so on.
    let asked_so_far = AtomicU32::new(0);
    let fake = after_opening(move |_| {
        let asked = asked_so_far.fetch_add(1, SeqCst);
        let unknown = 100_000 + asked;
        let oid = unknown.to_be_bytes();
        let row = row(&[
            ("typname", 19, Some(b"")),
            ("typtype", 18, Some(b"b")),
            ("typelem", 26, Some(&oid)),
            ("rngsubtype", 26, None),
            ("typbasetype", 26, Some(&[0; 4])),
            ("nspname", 19, Some(b"")),
            ("typrelid", 26, Some(&[0; 4])),
        ]);
        let head = 1 + u32::from_be_bytes(*row[1..].first_chunk().unwrap()) as usize;
        match asked {
            0 => answered([self::row(&[("xact_id", unknown, Some(b"x"))]), done()].concat()),
            1 => {
                let parameter = message(b't', &[0, 1, 0, 0, 0, 26]);
                [message(b'1', b""), parameter, row[..head].to_vec(), ready()].concat()
            }
            // As short as can be: the deeper it goes.
            _ => [&message(b'2', b"")[..], &row[head..], &message(b'C', b"\0"), &ready()].concat(),
        }
    });
    assert_plain(fake.program(&NEW).run().fails());
}
