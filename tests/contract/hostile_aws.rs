//! doc/reference.md, "Logs and secrets" and "Delivery": an SSM or a metadata endpoint that means
//! harm, or is late.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::production::{hub, production};
use crate::support::{Answer, Hub, Run, Ssm, eventually};

const NEW: [&str; 7] = ["--name", "A", "--code", "GSTT", "--out-ssm-parameter", "/kit", "-v"];
/// As long and as random as a real one.
const TOKEN: &str =
    "IQoJb3JpZ2luX2VjEHoaCWV1LXdlc3QtMiJHMEUCIQDc4Yh7kq0Vd2m3N5p6Q8r9S1t2U3v4W5x6Y7z8A9b0C1";

fn term(run: &std::process::Child) {
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

/// Production, on a hub without a slot: the configured names are read.
fn reading_the_names(ssm: &Ssm) -> Run {
    let mut hub = hub();
    hub.execute("DELETE FROM fl_kit_slot");
    let program = production(&hub, &["--name", "A", "--code", "GSTT", "-v"]);
    let program = program.env("AWS_ENDPOINT_URL", ssm.url()).env("AWS_SESSION_TOKEN", TOKEN);
    program.run().fails()
}

/// An endpoint for credentials that gives each answer when it is told to.
fn slow_credentials() -> (String, mpsc::Receiver<Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let asked = asked.clone();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let (answer, told) = mpsc::channel();
                let _ = asked.send(answer);
                let _ = told.recv();
                give_credentials(&mut stream);
            });
        }
    });
    (url, questions)
}

fn give_credentials(stream: &mut TcpStream) {
    let text = "{\"AccessKeyId\":\"AKIDEXAMPLE\",\"SecretAccessKey\":\"x\"}";
    let length = text.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
}

#[test]
fn a_put_that_was_interrupted_before_it_was_sent_is_never_sent() {
    let mut hub = Hub::new();
    let (url, questions) = slow_credentials();
    // The verdict's answer is held, so that the run lives on while the kit could still be sent.
    let ssm = Ssm::new().verdicts(Answer::Hold);
    let program = ssm.serve(hub.program(&NEW)).without("AWS_ACCESS_KEY_ID");
    let program = program.without("AWS_SECRET_ACCESS_KEY").env("HOME", "/nonexistent");
    let run = program.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", url).spawn();
    let patience = Duration::from_secs(20);
    let for_the_kit = questions.recv_timeout(patience).unwrap();
    term(&run.child);
    questions.recv_timeout(patience).unwrap().send(()).unwrap();
    eventually("the verdict is put", || ssm.requests().len() == 1);
    for_the_kit.send(()).unwrap();
    // Time enough for what must not happen.
    thread::sleep(Duration::from_secs(1));
    ssm.release();
    let run = run.wait().exits(1).prints("/kit\n").never_says("may come to hold");
    assert_eq!(ssm.requests().len(), 1, "the kit was sent after the verdict{}", run.dump());
    assert_eq!(ssm.versions("/kit"), ["[]"]);
    hub.assert_untouched();
}

#[track_caller]
fn assert_quotes_nothing(run: &Run, secret: &str) {
    for length in [8, 12] {
        for part in secret.as_bytes().windows(length) {
            let part = std::str::from_utf8(part).unwrap();
            assert!(!run.stderr.contains(part), "stderr holds {part}{}", run.dump());
        }
    }
}

#[test]
fn a_code_that_quotes_a_part_of_a_key_is_not_repeated_before_another_attempt() {
    /// The first twelve of the most letters and digits that stand together in a key.
    fn part(key: &str) -> &str {
        let parts = key.split(|c: char| !c.is_ascii_alphanumeric());
        let longest = parts.max_by_key(|part| part.len()).unwrap();
        longest.get(..12).unwrap_or(longest)
    }
    fn quote(value: &str) -> Vec<u8> {
        let key = value.split('"').skip_while(|text| *text != "trust_api_key").nth(2).unwrap_or("");
        let body = format!("{{\"__type\":\"{0}\",\"message\":\"{0}\"}}", part(key));
        let length = body.len();
        format!("HTTP/1.1 500 X\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    }
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Raw(quote)]);
    let run = ssm.serve(hub.program(&NEW)).run().exits(0).says("WARNING SSM: ");
    let kit: serde_json::Value = serde_json::from_str(&ssm.latest("/kit").unwrap()).unwrap();
    assert_quotes_nothing(&run, part(kit[0]["trust_api_key"].as_str().unwrap()));
}

#[test]
fn an_answer_to_the_verdict_that_quotes_the_kit_before_it_is_not_repeated() {
    // Not what looks random by itself.
    const TAG: &str = "release-with-a-private-name";
    let hub = Hub::new();
    let ssm = Ssm::new().script(&[Answer::Refuse(400, "X", "no")]);
    let ssm = ssm.verdicts(Answer::Refuse(400, "X", TAG));
    let run = ssm.serve(hub.program(&NEW)).env("DOCKER_TAG", TAG).run().exits(1);
    assert!(ssm.requests()[0].1["Value"].as_str().unwrap().contains(TAG));
    run.says("cannot leave [] as the verdict either").never_says(TAG);
}

/// A task's session is named by 32 hexadecimal digits, which are no secret.
#[test]
fn what_aws_says_of_a_tasks_role_reaches_the_operator() {
    const SAID: &str = "User: arn:aws:sts::123456789012:assumed-role/hub/\
        0123456789abcdef0123456789abcdef is not authorized to perform: ssm:PutParameter";
    let (hub, ssm) =
        (Hub::new(), Ssm::new().always(Answer::Refuse(400, "AccessDeniedException", SAID)));
    let run = ssm.serve(hub.program(&NEW)).run().exits(1);
    run.says(SAID);
}

#[test]
fn an_answer_to_a_read_that_quotes_the_session_token_is_not_repeated() {
    const REQUEST: &str = "The Canonical String for this request should have been 'POST / \
        x-amz-security-token:IQoJb3JpZ2luX2VjEHoaCWV1LXdlc3QtMiJHMEUCIQDc4Yh7kq0Vd2m3N5p6Q8r9S1t2U3v4W5x6Y7z8A9b0C1'";
    for (code, message) in [
        ("InvalidSignatureException", REQUEST),
        ("IQoJb3JpZ2luX2VjEHoaCWV1LXdlc3Qt", "x"),
        ("ZpZ2luX2VjE", "IQoJb3JpZ2luX2VjE"),
        ("x", "IQOJB3JPZ2LUX2VJEHOACWV1LXDLC3QTMIJHMEUCIQDC4YH7KQ0VD2M3N5P6Q8R9S1T2U3V4W5X6"),
        // A part of it in hexadecimal.
        ("x", "49516f4a62334a705a326c755832566a45486f61"),
    ] {
        let ssm = Ssm::new().script(&[Answer::Refuse(400, code, message)]);
        let run = reading_the_names(&ssm);
        assert_quotes_nothing(&run, TOKEN);
        assert!(message == "x" || !run.stderr.contains(message), "{}", run.dump());
    }
    // The names themselves, where they are none.
    for names in [
        format!("\"{TOKEN}\""),
        format!("[\"{TOKEN}\\u0000\"]"),
        format!("{{\"{TOKEN}\": 1}}"),
        format!("[\"\\u001b[2J_99999999999 {TOKEN}\"]"),
    ] {
        let ssm = Ssm::new();
        ssm.store("/flip/fl_kit_slot_names", &names);
        let run = reading_the_names(&ssm).says("WARNING ");
        assert_quotes_nothing(&run, TOKEN);
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.dump());
    }
}
