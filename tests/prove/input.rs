//! Input of every kind, random, against statements of the rules that are built otherwise than the
//! program: another reading of the words, Python's `re` and `json`, and PostgreSQL itself.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use super::random::{Random, Words, cases, property, seed};
use crate::support::{Hub, Program, Run, Ssm, python, root};

fn agree<T: PartialEq + std::fmt::Debug>(seen: T, expected: T, run: &Run) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{seen:?} instead of {expected:?}{}", run.dump()))
}

/// The real Python as the judge: a question on a line, an answer on a line. It ends with its
/// stdin, and so with this process.
struct Judge {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Judge {
    fn ask(question: &str) -> String {
        static JUDGES: LazyLock<Mutex<Judge>> = LazyLock::new(|| {
            let mut child = Command::new(python())
                .arg(root().join("tests/prove/judge.py"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let answers = BufReader::new(child.stdout.take().unwrap());
            Mutex::new(Judge { child, answers })
        });
        let mut judge = JUDGES.lock().unwrap();
        writeln!(judge.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut answer = String::new();
        judge.answers.read_line(&mut answer).unwrap();
        answer.strip_suffix('\n').expect("Python answers").to_owned()
    }

    fn takes_id(id: &[u8]) -> bool {
        !Judge::ask(&format!("id {}", hex(id))).is_empty()
    }

    fn takes_parameter(name: &[u8]) -> bool {
        !Judge::ask(&format!("parameter {}", hex(name))).is_empty()
    }

    /// The trust's name and the hub-shared `KEY=value`s, as Python reads the kit.
    fn reads(kit: &str) -> Words {
        let answer = Judge::ask(&format!("kit {kit}"));
        let bytes: Vec<_> = (0..answer.len())
            .step_by(2)
            .map(|n| u8::from_str_radix(&answer[n..n + 2], 16).unwrap())
            .collect();
        bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Settings that are right, of a hub that cannot be reached.
const NOWHERE: [&str; 3] = ["DB_HOST=/nowhere/at/all", "POSTGRES_USER=hub", "POSTGRES_DB=hub"];

/// Runs the program with these `KEY=value`s as its environment and these arguments.
fn call(settings: &[Vec<u8>], arguments: &[Vec<u8>]) -> Run {
    let program = settings.iter().fold(Program::new(&[]), |program, setting| {
        let equals = setting.iter().position(|byte| *byte == b'=').unwrap();
        let value = OsString::from_vec(setting[equals + 1..].to_vec());
        program.env(str::from_utf8(&setting[..equals]).unwrap(), value)
    });
    arguments.iter().cloned().map(OsString::from_vec).fold(program, Program::arg).run()
}

// The command line.

/// What becomes of a command line.
#[derive(Debug, PartialEq)]
enum Outcome {
    Help,
    Version,
    Usage,
    /// And whether the kit is to go into a parameter.
    Accepted(bool),
    /// Whether a kit is valid.
    Asked,
}

/// doc/reference.md, "Command line": every word is read into an option with or without a value; then
/// the first of them that is wrong, or asks for help or the version, decides.
fn predicted(words: &Words) -> Outcome {
    let valued = |option: &str| {
        ["name", "code", "region", "out-ssm-parameter", "check-kit"].contains(&option)
    };
    let mut pairs = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if let Some(long) = word.strip_prefix(b"--").filter(|long| !long.is_empty()) {
            let mut halves = long.splitn(2, |byte| *byte == b'=');
            let option = String::from_utf8_lossy(halves.next().unwrap()).into_owned();
            let value = halves.next().or_else(|| {
                let next = valued(&option).then(|| rest.next()).flatten();
                next.map(Vec::as_slice).filter(|next| !next.starts_with(b"-"))
            });
            pairs.push((option, value));
        } else if word.len() > 1 && word[0] == b'-' && word != b"--" {
            let letters = String::from_utf8_lossy(&word[1..]).into_owned();
            pairs.extend(letters.chars().map(|letter| match letter {
                'h' => ("help".to_owned(), None),
                'V' => ("version".to_owned(), None),
                'q' => ("quiet".to_owned(), None),
                'v' => ("verbose".to_owned(), None),
                _ => ("none such".to_owned(), None),
            }));
        } else if word != b"--" || rest.next().is_some() {
            pairs.push(("stray".to_owned(), None));
            break;
        }
    }
    for (n, (option, value)) in pairs.iter().enumerate() {
        let again = pairs[..n].iter().any(|(earlier, _)| earlier == option);
        match option.as_str() {
            // Whatever is said to them, those who ask for help get it.
            "help" => return Outcome::Help,
            "version" => return Outcome::Version,
            "verbose" if value.is_none() => {}
            "quiet" | "require-existing" | "await-ack" if value.is_none() && !again => {}
            option if valued(option) && !again => match value.map(str::from_utf8) {
                Some(Ok(_)) => {}
                _ => return Outcome::Usage,
            },
            _ => return Outcome::Usage,
        }
    }
    let given = |wanted| pairs.iter().find(|(option, _)| option == wanted).and_then(|pair| pair.1);
    let name = str::from_utf8(given("name").unwrap_or_default()).unwrap();
    let parameter = given("out-ssm-parameter");
    if name.chars().all(char::is_whitespace) || !parameter.is_none_or(Judge::takes_parameter) {
        return Outcome::Usage;
    }
    let has = |wanted| pairs.iter().any(|(option, _)| option == wanted);
    let registers = ["code", "region", "require-existing", "await-ack", "out-ssm-parameter"];
    match given("check-kit") {
        Some(id) if registers.into_iter().any(has) || !Judge::takes_id(id) => Outcome::Usage,
        Some(_) => Outcome::Asked,
        None if has("await-ack") && parameter.is_some() => Outcome::Usage,
        None => Outcome::Accepted(parameter.is_some()),
    }
}

/// A good command line, for the most part with something wrong or odd done to it.
fn command_line(random: &mut Random) -> Words {
    const ODD: &str = "|-|--|---|-vvq|-qq|-hV|-Vh|-vx|-v=1|-q\n|--=|--nam|--NAME|--name|--name=|\
        --name=x|--code|--region|--help|--help=1|-h|-V|--version|--quiet|--quiet=|--verbose=2|\
        --require-existing|--require-existing=no|stray|--out-ssm-parameter|-\u{e9}|\u{3000}|\
        --out-ssm-parameter=|--out-ssm-parameter=/a//b|--await-ack|--await-ack=1|--check-kit|\
        --check-kit=|--check-kit=6D0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10|\
        --check-kit=6d0d9d8e3f6e4b4e-9d6a-0d5c8b9a7f1|--check-kit=6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f1g";
    let mut words = Words::new();
    let options = [
        ("--name", format!("St {}", random.text(9))),
        ("--code", random.text(5)),
        ("--region", random.word("| |-|London").into()),
        ("--out-ssm-parameter", random.word("/a|/flip/kit_1.b-c").into()),
    ];
    for (option, value) in options {
        if option != "--name" && random.once_in(2) {
            continue;
        } else if random.once_in(2) || value.starts_with('-') {
            words.push(format!("{option}={value}").into());
        } else {
            words.extend([option.into(), value.into()]);
        }
    }
    for flag in ["-q", "-v", "--verbose", "--require-existing"] {
        if random.once_in(3) {
            words.insert(0, flag.into());
        }
    }
    for _ in 0..random.pick(&[0, 0, 1, 1, 1, 2, 3, 5]) {
        let (place, kind) = (random.below(words.len() + 1), random.below(6));
        match (words.get_mut(place), kind) {
            (_, 0) => words.insert(place, random.junk()),
            (_, 1 | 2) | (None, _) => words.insert(place, random.word(ODD).into()),
            (Some(_), 3) => drop(words.remove(place)),
            (Some(_), 4) => words.swap(place, 0),
            (Some(word), _) => {
                let start = random.below(word.len() + 1);
                let end = start + random.below(word.len() - start + 1);
                word.splice(start..end, random.junk());
            }
        }
    }
    words
}

/// The run did what such a command line does.
fn does(words: &Words, expected: Outcome) -> Result<(), String> {
    let run = call(&NOWHERE.map(Into::into), words);
    let seen = match (run.status.code(), run.stdout.as_str()) {
        (Some(0), out) if out.starts_with("Register one trust") => Outcome::Help,
        (Some(0), out) if out.starts_with("register-trust ") => Outcome::Version,
        (Some(2), "") if run.stderr.contains("; nothing was done\nusage: ") => Outcome::Usage,
        (Some(1), "[]\n") if run.stderr.contains("cannot connect") => Outcome::Accepted(false),
        (Some(1), "unknown\n") if run.stderr.contains("cannot connect") => Outcome::Asked,
        (Some(1), "") if run.stderr.contains("AWS_REGION is not") => Outcome::Accepted(true),
        _ => return Err(format!("neither this nor that{}", run.dump())),
    };
    if run.stderr.contains(|c: char| c.is_control() && c != '\n') {
        return Err(format!("a control character on stderr{}", run.dump()));
    }
    agree(seen, expected, &run)
}

#[test]
fn the_command_line_is_read_as_its_rules_say() {
    property("command lines", cases() / 2, command_line, |words| does(words, predicted(words)));
}

/// Names around every border of SSM's rule.
fn parameter(random: &mut Random) -> Words {
    const LEVELS: &str = "a|Z9|_|.|-|aws|SSM|awsx|x-ssm|Aws|sSm|0";
    let levels = random.pick(&[1, 1, 2, 3, 14, 15, 15, 16]);
    let mut name: String = (0..levels).map(|_| format!("/{}", random.word(LEVELS))).collect();
    if random.once_in(3) {
        let length = random.pick(&[1010, 1011, 1011, 1012]);
        name.push_str(&"x".repeat(length - name.len()));
    }
    let mut name = name.into_bytes();
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2]) {
        let place = random.below(name.len() + 1);
        let odd = random.word("/|/|\u{e9}|\u{661}| |:|\n|\u{212a}|_");
        match random.below(5) {
            0 => name.push(b'/'),
            1 => drop(name.drain(..place.min(1))),
            2 => name.extend(random.junk()),
            3 => name.make_ascii_uppercase(),
            _ => drop(name.splice(place..place, odd.bytes())),
        }
    }
    vec![name]
}

#[test]
fn a_parameter_name_is_taken_exactly_if_ssm_takes_it() {
    property("parameter names", cases() / 5, parameter, |words| {
        let Some(name) = words.first() else { return Ok(()) };
        let taken = Judge::takes_parameter(name);
        let expected = if taken { Outcome::Accepted(true) } else { Outcome::Usage };
        let option = [b"--out-ssm-parameter=", name.as_slice()].concat();
        does(&vec![b"--name=A".to_vec(), option], expected)
    });
}

// The settings.

const SECRET: &str = "geheim-4711";
const HUB_SHARED: &str = "AES_KEY_BASE64 CENTRAL_HUB_API_URL TRUST_API_KEY_HEADER FL_BACKEND \
    FLOWER_KIT_DATE FLARE_KIT_DATE DOCKER_TAG DOCKER_REGISTRY DOCKER_FL_TAG DOCKER_FL_REGISTRY \
    NLB_SUBDOMAIN FL_SERVER_PORT";
const OPTIONS: &str = "-v -q --code=A --require-existing --out-ssm-parameter=/kit";

/// What the variables may be set to, right and wrong. SSM stands for the one that is there.
const VALUES: &[(&str, &str)] = &[
    ("ENV", "development|production|production|Production|prod|production "),
    ("DB_PORT", "5432|1|0|65535|65536|-1|+80|00080| 80|80 |1e3|\u{663}|0x50"),
    (
        "DB_HOST",
        "127.0.0.77|::1|/nowhere|/no where/\u{1f3e5}|/|./x..|postgres://h|a:1|a b|a,b|[::1]|\u{e9}",
    ),
    ("PGSSLMODE", "disable|allow|prefer|require|verify-ca|verify-full|Require|verify_ca"),
    ("PGSSLROOTCERT", "system|/nowhere/ca.crt|/dev/null|System"),
    ("LOG_LEVEL", "debug|Info|WARNING|eRRor|critical|WARN|TRACE|info |20|\u{131}nfo"),
    ("AWS_REGION", "eu-west-2|eu-west-2|local|eu west|eu/west|eu\nwest"),
    (
        "AWS_ENDPOINT_URL",
        "SSM|SSM|SSM|SSM/|ftp://x|http://|https:///|http://a/b|http://u@h|x|http://[|http://:80|http://a:99999|http://a%zz|http://é|http://a:b:c",
    ),
    ("AWS_DEFAULT_REGION", "eu-west-1|eu west"),
    ("AWS_USE_FIPS_ENDPOINT", "false|False|true|yes"),
    ("AWS_USE_DUALSTACK_ENDPOINT", "false|False|true|yes"),
    // Not "true": then AWS itself would be called.
    ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false|False|yes"),
    ("AWS_ENDPOINT_URL_SSM", "SSM|SSM|SSM|SSM/|ftp://x|http://|https:///|http://a?b|http://u#h"),
    ("FL_KIT_SLOT_NAMES", "[\"Trust_1\"]|[|null"),
    ("POSTGRES_USER", "hub|a b&c=d/%?#|\u{1f3e5}'\"\\"),
    ("POSTGRES_DB", "hub|a b&c=d/%?#|\u{1f3e5}'\"\\"),
];

fn settings(random: &mut Random, ssm: &str) -> Words {
    let mut words = Words::new();
    let secret = [random.junk(), SECRET.into(), random.junk()].concat();
    for key in HUB_SHARED.split(' ').chain(["POSTGRES_PASSWORD"]) {
        if random.once_in(8) {
            words.push([key.as_bytes(), b"=", &secret].concat());
        }
    }
    for (key, values) in VALUES {
        let value = match random.below(8) {
            // Without this one, AWS itself would be called.
            0 if *key != "AWS_ENDPOINT_URL" => Vec::new(),
            // A label of more than 63 characters is a name that no resolver asks for.
            1 if *key == "DB_HOST" => [b"x".repeat(64), random.junk()].concat(),
            1 => random.junk(),
            2 if *key == "DB_PORT" => random.below(70_000).to_string().into(),
            _ => random.word(values).replace("SSM", ssm).into(),
        };
        if random.once_in(3) {
            words.push([key.as_bytes(), b"=", &value].concat());
        }
    }
    words.extend(OPTIONS.split(' ').filter(|_| random.once_in(4)).map(Into::into));
    words
}

/// The variables that doc/reference.md, "Environment", calls invalid here.
fn invalid(words: &[Vec<u8>]) -> Vec<&'static str> {
    // What is not UTF-8 is no text, and here it is a NUL, which no rule takes.
    let get = |key: &str| {
        let start = [key.as_bytes(), b"="].concat();
        let last = words.iter().rev().find_map(|word| word.strip_prefix(start.as_slice()));
        last.filter(|value| !value.is_empty()).map(|value| str::from_utf8(value).unwrap_or("\0"))
    };
    let has = |option: &str| words.iter().any(|word| word == option.as_bytes());
    let is_in = |value: &str, all: &str| all.split(' ').any(|word| word == value);
    let (env, mode) = (get("ENV").unwrap_or("development"), get("PGSSLMODE"));
    let production = env == "production";
    let uses_aws = production || has("--out-ssm-parameter=/kit");

    let text = |value: &str| value != "\0";
    let host = |host: &str| {
        let labels = host.trim_end_matches('.').split('.');
        let label = |it: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !it.is_empty() && it.len() < 64 && it.bytes().all(plain)
        };
        let named = host.len() <= 253 && labels.into_iter().all(label);
        let path = host.starts_with('/') && !production;
        text(host) && (path || host.parse::<std::net::IpAddr>().is_ok() || named)
    };
    let port = |port: &str| {
        let digits = port.strip_prefix('+').unwrap_or(port);
        digits.bytes().all(|byte| byte.is_ascii_digit())
            && digits.parse().is_ok_and(|number: f64| (1.0..65536.0).contains(&number))
    };
    let weak = |mode: &str| !production && is_in(mode, "disable prefer");
    let tls = |mode: &str| weak(mode) || is_in(mode, "require verify-ca verify-full");
    let full = mode.map_or(production, |mode| mode == "verify-full");
    let level = |text: &str| is_in(&text.to_lowercase(), "debug info warning error critical");
    let region = |region: &str| region.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric());
    let url = |url: &str| {
        let parts = url.split_once("://").filter(|(scheme, _)| is_in(scheme, "http https"));
        let host = parts.map_or("", |(_, host)| host.trim_end_matches('/'));
        let (name, port) = host.split_once(':').unwrap_or((host, "0"));
        name.bytes().any(|b| b.is_ascii_alphanumeric())
            && !name.contains(['/', '?', '#', '@', ' ', '[', '%', '\n', 'é'])
            && is_in(port, "0 1 80 65535") | url.starts_with("http://127.0.0.1:")
    };
    let optional = |key, rule: &dyn Fn(&str) -> bool| (key, get(key).is_none_or(rule));
    let required = |key, rule: &dyn Fn(&str) -> bool| (key, get(key).is_some_and(rule));
    let not = |unless: bool, rule: (&'static str, bool)| (rule.0, unless || rule.1);
    let own_url = get("AWS_ENDPOINT_URL_SSM").is_some();
    let flag = |text: &str| is_in(&text.to_lowercase(), "true false");
    // There is always an endpoint of the test's own.
    let off = |text: &str| text.to_lowercase() == "false";
    let verify_ca = mode == Some("verify-ca");
    let mut rules = vec![
        ("ENV", is_in(env, "development production")),
        optional("DB_PORT", &port),
        optional("DB_HOST", &host),
        optional("PGSSLMODE", &tls),
        ("PGSSLROOTCERT", get("PGSSLROOTCERT") != Some("system") || full),
        ("PGSSLMODE", !verify_ca || get("PGSSLROOTCERT").is_some()),
        optional("PGSSLROOTCERT", &text),
        not(has("-v") || has("-q"), optional("LOG_LEVEL", &level)),
        not(!uses_aws, optional("AWS_REGION", &region)),
        not(!uses_aws || get("AWS_REGION").is_some(), optional("AWS_DEFAULT_REGION", &region)),
        ("AWS_REGION", !uses_aws || get("AWS_REGION").or(get("AWS_DEFAULT_REGION")).is_some()),
        not(!uses_aws, optional("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", &flag)),
        not(!uses_aws, optional("AWS_USE_FIPS_ENDPOINT", &off)),
        not(!uses_aws, optional("AWS_USE_DUALSTACK_ENDPOINT", &off)),
        not(!uses_aws, optional("AWS_ENDPOINT_URL_SSM", &url)),
        not(!uses_aws || own_url, optional("AWS_ENDPOINT_URL", &url)),
        required("POSTGRES_USER", &text),
        required("POSTGRES_DB", &text),
        not(production, optional("POSTGRES_PASSWORD", &text)),
    ];
    rules.extend(HUB_SHARED.split(' ').map(|key| optional(key, &text)));
    rules.into_iter().filter(|(_, right)| !right).map(|(key, _)| key).collect()
}

/// The run fails as such settings make it fail, and says nothing that it must not say.
fn fails(base: &[&str], words: &Words) -> Result<(), String> {
    // A word that was cut to less than a setting or an option is none.
    let whole = |word: &&Vec<u8>| word[..].contains(&b'=') && word[0].is_ascii_uppercase();
    let base = base.iter().map(|word| word.as_bytes().to_vec());
    let settings: Words = base.chain(words.iter().filter(whole).cloned()).collect();
    let options = OPTIONS.split(' ').map(|option| option.as_bytes().to_vec());
    let options: Words = options.filter(|option| words.contains(option)).collect();
    if settings.contains(&b"AWS_ENDPOINT_URL=".to_vec()) {
        return Ok(());
    }
    let wrong = invalid(&[settings.clone(), options.clone()].concat());
    let to_ssm = options.iter().any(|option| option.starts_with(b"--out"));
    let run = call(&settings, &[vec![b"--name=A".to_vec()], options].concat());
    let verdict = match to_ssm {
        true if wrong.iter().any(|key| key.starts_with("AWS_")) => "",
        true => "/kit\n",
        false => "[]\n",
    };
    agree((run.status.code(), run.stdout.as_str()), (Some(1), verdict), &run)?;
    const LEVELS: [&str; 4] = ["ERROR", "WARNING", "INFO", "DEBUG"];
    let plain = |line: &str| {
        LEVELS.contains(&line.split(' ').next().unwrap()) && !line.contains(char::is_control)
    };
    agree(run.stderr.split_terminator('\n').all(plain), true, &run)?;
    let said = |text: &str| run.stderr.contains(text);
    agree((said(SECRET), said("internal error")), (false, false), &run)?;
    let named = wrong.iter().any(|key| said(&format!("ERROR {key} ")));
    let connects = said("ERROR cannot connect to the hub at \"");
    agree((named, connects), (!wrong.is_empty(), wrong.is_empty()), &run)
}

#[test]
fn settings_of_any_kind_fail_as_their_rules_say_and_without_a_secret() {
    let ssm = Ssm::new().url();
    let endpoint = format!("AWS_ENDPOINT_URL={ssm}");
    let secret = format!("AWS_SECRET_ACCESS_KEY={SECRET}");
    let aws = [&endpoint, &secret, "AWS_ACCESS_KEY_ID=AKID", "AWS_EC2_METADATA_DISABLED=true"];
    let base = [&NOWHERE[..], &aws].concat();
    property("settings", cases() / 4, |random| settings(random, &ssm), |words| fails(&base, words));
}

// The slot names.

/// A name around every border of the rule for its number.
fn slot_name(random: &mut Random) -> String {
    const NUMBERS: &str = "2147483646|2147483647|2147483648|4294967297|9999999999999999999999|\
        0002147483647|00000000000000000000000000000007|0|-5|+5|\u{661}\u{662}|\u{ff11}|1_000|1 | 1|\
        1\n|1_|0x1f|1.0|1e3|";
    let number = match random.below(3) {
        0 => random.word(NUMBERS).to_owned(),
        1 => random.below(9_999).to_string(),
        _ => (2_147_483_600 + random.below(100)).to_string(),
    };
    let start = match random.below(4) {
        0 => random.word("Trust||_|a_b|1|a\u{0}|tab\t|\u{85}").to_owned(),
        _ => random.text(7),
    };
    let separator = random.word("_|_|_|_|__|-|\u{ff3f}|");
    if random.once_in(9) { start } else { format!("{start}{separator}{number}") }
}

#[test]
fn slot_names_get_the_numbers_that_postgresql_itself_makes_of_them() {
    let mut random = Random(seed());
    for _ in 0..=cases() / 10_000 {
        let mut hub = Hub::with_slots(&[]);
        let mut names: Vec<_> = (0..2_000).map(|_| slot_name(&mut random)).collect();
        let again = names[..100].to_vec();
        names.extend(again);
        let json = serde_json::to_string(&names).unwrap();
        let run = hub.program(&["--name", "A", "--code", "A"]).env("FL_KIT_SLOT_NAMES", json).run();
        let kit = run.full_kit();
        // PostgreSQL's text holds no NUL, and so a name with one cannot be used.
        let all = names.len();
        names.retain(|name| !name.contains('\0'));
        hub.execute(
            "CREATE TABLE rule (slot_name text, slot_number numeric);
             CREATE VIEW usable AS SELECT * FROM rule WHERE slot_number <= 2147483647
                AND slot_name <> '' AND slot_name !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
        );
        let rule = "INSERT INTO rule SELECT name, coalesce(substring(name FROM '_([0-9]+)$')::numeric, 10000)
                      FROM unnest($1::text[]) AS name";
        hub.admin.execute(rule, &[&names]).unwrap();
        let usable = hub.count("usable") as usize;
        let of = format!("of {all} names with SEED={}", seed());
        assert!((200..all - 200).contains(&usable), "{usable} usable ones {of} prove little");
        for (left, right) in [("usable", "fl_kit_slot"), ("fl_kit_slot", "usable")] {
            let differ: Option<String> = hub.value(&format!(
                "SELECT string_agg(format('%s=%s', to_json(slot_name), slot_number), ', ')
                   FROM (SELECT slot_name, slot_number FROM {left}
                         EXCEPT SELECT slot_name, slot_number FROM {right}) AS differ"
            ));
            assert_eq!(differ, None, "only in {left}, {of}");
        }
        let said = run.stderr.lines().filter(|line| line.starts_with("WARNING slot name ")).count();
        let rest = format!("WARNING {} more slot names in ", all - usable - 10);
        assert!(said == 10 && run.stderr.contains(&rest), "ignored, {of}{}", run.dump());
        hub.assert_registered(&kit);
        let lower = "usable JOIN fl_kit_slot AS claimed ON assigned_at IS NOT NULL AND
            (usable.slot_number, usable.slot_name) < (claimed.slot_number, claimed.slot_name)";
        assert_eq!(hub.count(lower), 0, "lower than the slot that was claimed, {of}");
    }
}

// The kit.

/// The longest that the kernel takes as one variable, with its name.
const LONGEST: usize = 128 * 1024 - 32;

/// Runs the program and has Python read the kit.
fn survives(program: Program, name: &str, shared: &[String]) -> Result<(), String> {
    let shared = HUB_SHARED.split(' ').zip(shared).filter(|(_, value)| !value.is_empty());
    let run = shared.clone().fold(program, |run, (key, value)| run.env(key, value.as_str())).run();
    let kit = run.stdout.strip_suffix('\n').unwrap_or_default();
    if !run.status.success() || !kit.is_ascii() || kit.contains('\n') {
        return Err(format!("no kit on one line of ASCII; {} and {:?}", run.status, run.stderr));
    }
    let shared = shared.map(|(key, value)| format!("{key}={value}").into_bytes());
    let expected: Words = [name.into()].into_iter().chain(shared).collect();
    let kit_is_right = Judge::reads(kit) == expected;
    kit_is_right.then_some(()).ok_or_else(|| "Python reads another text".to_owned())
}

#[test]
fn every_unicode_character_survives_pythons_json() {
    let hub = Hub::new();
    let mut values = vec![String::new()];
    for character in (1..=0x10_ffff).filter_map(char::from_u32) {
        if values.last().unwrap().len() + character.len_utf8() > LONGEST {
            values.push(String::new());
        }
        values.last_mut().unwrap().push(character);
    }
    assert_eq!(values.iter().map(|value| value.chars().count()).sum::<usize>(), 1_112_064 - 1);
    for values in values.chunks(12) {
        survives(hub.program(&["--name", "A", "--code", "A"]), "A", values).unwrap();
    }
}

#[test]
fn names_and_hub_shared_values_of_any_kind_survive_pythons_json_and_the_hub() {
    let mut hub = Hub::new();
    hub.execute(
        "INSERT INTO fl_kit_slot SELECT 'more_' || n, n FROM generate_series(11, 100000) AS n",
    );
    let hub = Mutex::new(hub);
    let texts = |random: &mut Random| {
        let mut texts = vec![format!("'{}\"", random.text(60)).into_bytes()];
        texts.extend((0..12).map(|_| {
            let control = char::from(1 + random.below(31) as u8);
            [random.text(40), control.to_string(), random.text(40)].concat().into_bytes()
        }));
        texts
    };
    property("kits", cases() / 30, texts, |texts| {
        let mut texts = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned());
        // The smallest input has a name, too.
        let name = texts.next().filter(|name| !name.is_empty()).unwrap_or_else(|| "A".to_owned());
        let program =
            hub.lock().unwrap().program(&["--code=A", "--name"]).arg(format!(" {name}\u{3000}"));
        survives(program, &name, &texts.collect::<Vec<_>>())?;
        let mut hub = hub.lock().unwrap();
        let rows = hub.admin.query("SELECT FROM trust WHERE name = $1", &[&name]).unwrap();
        if rows.len() == 1 { Ok(()) } else { Err(format!("{} rows", rows.len())) }
    });
}
