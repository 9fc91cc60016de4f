//! Cases with their exact output, in tests/frozen: the tool can be learnt from them. And every
//! message of the source stands in one of them, or in another test.
//!
//!     ## title                 a hub of its own begins, with the slots Trust_1 to Trust_10
//!     sql STATEMENT            done to it
//!     ssm ANSWER               what SSM does with the next request; from here on there is one
//!     cut before|after TEXT    the connection breaks at this statement
//!     env NAME=VALUE           for the commands that follow; NAME= unsets it
//!     $ COMMAND                run by bash; then its stdout, stderr and exit status
//!
//! `make bless` writes what comes out into the files: read the diff.

use std::collections::BTreeMap;
use std::process::Command;
use std::{env, fs};

use crate::support::relay::{Later, Strike, When};
use crate::support::run::PROGRAM;
use crate::support::{Answer, Hub, Program, Relay, Ssm, root};

/// What the run prints, with everything that differs from run to run by its name.
fn normal(text: &str, hub: &Hub, ports: &[u16]) -> String {
    let mut normal = String::new();
    let mut before = "";
    // Which of them it is depends on who is quicker to close.
    let broken = [
        "Connection reset by peer (os error 104)",
        "Broken pipe (os error 32)",
        "unexpected end of file",
    ];
    let lines = text.split_inclusive('\n').map(|line| match line.contains("connect to the hub") {
        true => {
            broken.iter().fold(line.to_owned(), |line, broken| line.replace(broken, "early eof"))
        }
        false => line.to_owned(),
    });
    let text: String = lines.collect();
    for word in text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))) {
        let bare =
            word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
        let name = match bare {
            _ if bare == hub.database => "<database>",
            _ if bare.parse().is_ok_and(|port| ports.contains(&port)) => "<port>",
            _ if bare.len() == 36 && bare.split('-').count() == 5 => "<uuid>",
            _ if bare.len() == 43 => "<key>",
            _ if bare.parse::<u64>().is_ok() && ["transaction ", "'"].contains(&before) => "<xid>",
            _ => bare,
        };
        normal.push_str(name);
        normal.push_str(&word[bare.len()..]);
        before = word;
    }
    normal
}

/// Runs the cases of a file and gives it back with the outputs as they came.
fn replay(file: &str) -> String {
    let mut replayed = String::new();
    let mut hub = Hub::new();
    let (mut env, mut ssm, mut relay) = (BTreeMap::new(), None::<Ssm>, None::<Relay>);
    for line in file.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "out" | "err" | "exit" => continue,
            "##" => {
                hub = Hub::new();
                (env, ssm, relay) = (hub.program(&[]).environment(), None, None);
                // Nothing off this machine is asked for credentials.
                env.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".into());
            }
            "sql" => hub.execute(&rest.replace("<database>", &hub.database)),
            "cut" => {
                let (when, text) = rest.split_once(' ').unwrap();
                let text = text.to_owned().leak();
                let (when, later) = match when {
                    "before" => (When::Before(text), Later::Served),
                    _ => (When::After(text), Later::Closed),
                };
                let made = Relay::new().strike(when, Strike::Cut).later(later);
                env.extend(made.serve(Program::new(&[])).environment());
                relay = Some(made);
            }
            "ssm" => {
                let words: Vec<_> =
                    rest.splitn(3, ' ').map(|word| &*word.to_owned().leak()).collect();
                let answer = match words[0] {
                    "stores" => Answer::Store,
                    "garbage" => Answer::Garbage("{}"),
                    "drops" => Answer::DropAfter,
                    "quotes" => Answer::Quote,
                    status => Answer::Refuse(status.parse().unwrap(), words[1], words[2]),
                };
                let served = ssm.take().unwrap_or_default().script(&[answer]);
                env.extend(served.serve(Program::new(&[])).environment());
                ssm = Some(served);
            }
            "env" => {
                let (name, value) = rest.split_once('=').unwrap();
                match value {
                    "" => env.remove(name),
                    value => env.insert(name.to_owned(), value.into()),
                };
            }
            _ => {}
        }
        replayed.push_str(line);
        replayed.push('\n');
        if word == "$" {
            let path = std::path::Path::new(PROGRAM).parent().unwrap();
            let mut command = Command::new("/bin/bash");
            command.args(["-c", rest]).env_clear().envs(&env).env("PATH", path);
            let output = command.output().unwrap();
            let ports = [Some(Hub::cluster().port()), relay.as_ref().map(Relay::port)];
            let ports: Vec<_> = ports
                .into_iter()
                .flatten()
                .chain(ssm.as_ref().map(|ssm| ssm.address().port()))
                .collect();
            for (stream, bytes) in [("out", output.stdout), ("err", output.stderr)] {
                for line in normal(&String::from_utf8(bytes).unwrap(), &hub, &ports).lines() {
                    replayed.push_str(format!("{stream} {line}").trim_end());
                    replayed.push('\n');
                }
            }
            replayed.push_str(&format!("exit {}\n", output.status.code().unwrap()));
        }
    }
    replayed
}

fn holds(name: &str) {
    let path = root().join("tests/frozen").join(name);
    let file = fs::read_to_string(&path).unwrap();
    let replayed = replay(&file);
    if env::var_os("BLESS").is_some() {
        return fs::write(&path, &replayed).unwrap();
    }
    for (number, (frozen, came)) in file.lines().zip(replayed.lines()).enumerate() {
        assert_eq!(came, frozen, "{name}:{}", number + 1);
    }
    assert_eq!(replayed.lines().count(), file.lines().count(), "{name}");
}

#[test]
fn the_command_line_answers_as_frozen() {
    holds("command_line.txt");
}

#[test]
fn settings_are_refused_as_frozen() {
    holds("settings.txt");
}

#[test]
fn messages_about_the_hub_are_as_frozen() {
    holds("hub.txt");
}

#[test]
fn registrations_end_as_frozen() {
    holds("registration.txt");
}

#[test]
fn deliveries_end_as_frozen() {
    holds("delivery.txt");
}

#[test]
fn acknowledgements_are_awaited_and_kits_are_checked_as_frozen() {
    holds("acknowledgement.txt");
}

/// Messages that no test can bring about, and why.
const UNREACHED: [&str; 21] = [
    // The kernel gives no random bytes.
    "cannot make keys:",
    "check the host's kernel",
    // serde_json documents no error for the kit's types.
    "cannot write the kit as JSON:",
    "report this message",
    // A bug, of this program or of a crate.
    "internal error at",
    "; please report it",
    "the connection is gone",
    "it rolled the transaction back",
    "it did not say what became of the transaction",
    // The hub starts: moments that only `make prove` waits for.
    "wait until the hub's database is up, and run again",
    "internal error, see the line before",
    // Only with -v, for the second server of a host name.
    "; going on without TLS",
    // The kernel refuses to do without core dumps, or to report signals.
    "cannot watch for signals:",
    "cannot forbid core dumps:",
    // net.rs gives at least one address.
    "the name has no address",
    // Nobody waits for it any more.
    "the program gave up waiting",
    // No messages, but parts of statements.
    "SET LOCAL row_security = off",
    "SET LOCAL transaction_read_only = off;",
    "id, name, api_key_hash",
    "id, name, $5 AS api_key_hash",
    // Keys of a profile.
    "sso_session sso_start_url role_arn credential_process endpoint_url services \
     use_fips_endpoint use_dualstack_endpoint ca_bundle",
];

#[test]
fn every_message_of_the_source_stands_in_a_frozen_case_or_in_another_test() {
    let mut seen = String::new();
    for dir in ["tests/frozen", "tests/contract", "tests/prove"] {
        for file in fs::read_dir(root().join(dir)).unwrap() {
            seen.push_str(&fs::read_to_string(file.unwrap().path()).unwrap().replace("\\\"", "\""));
        }
    }
    let mut missing = Vec::new();
    for file in fs::read_dir(root().join("src")).unwrap() {
        let path = file.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        let code: Vec<_> = source.lines().filter(|line| !line.trim().starts_with("//")).collect();
        let code = code.join("\n").replace("\\\"", "\u{1}").replace("'\"'", "");
        for literal in code.replace("\\n", " ").split('"').skip(1).step_by(2) {
            // A backslash at a line's end joins the lines.
            let parts: Vec<_> = literal.split("\\\n").collect();
            let joined: Vec<_> = std::iter::once(parts[0])
                .chain(parts[1..].iter().map(|part| part.trim_start()))
                .collect();
            let text = joined.concat().replace('\u{1}', "\"");
            if !text.contains(' ') || !text.contains(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            // What stands between the placeholders.
            for piece in text.split('{').flat_map(|part| part.rsplit('}').next()) {
                let piece = piece.trim();
                let long = piece.len() >= 10 && piece.contains(' ');
                if long && !seen.contains(piece) && !UNREACHED.contains(&piece) {
                    missing.push(format!("{}: {piece:?}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "messages that no test shows:\n{}", missing.join("\n"));
}
