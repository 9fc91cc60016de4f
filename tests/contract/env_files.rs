//! The files that trusts are described in, and the way from there, from the command line and from
//! the environment to the script, on which nothing is evaluated.

use std::fs;

use crate::contract::hand_over::{Place, says, text};
use crate::support::python;

/// Lines, what they give trust 1's name, and which of FLIP's readers agree: make's `include`,
/// python-dotenv (as docker-compose version 1 uses it).
const LINES: &[(&str, &str, &str)] = &[
    ("TRUST_1_NAME=Guy's and St Thomas'", "Guy's and St Thomas'", "make dotenv"),
    ("TRUST_1_NAME=plain # a comment", "plain", "dotenv"),
    ("TRUST_1_NAME=plain\t# a comment", "plain", "dotenv"),
    ("TRUST_1_NAME=one#two", "one#two", "dotenv"),
    ("TRUST_1_NAME=#two", "#two", "dotenv"),
    ("TRUST_1_NAME= # a comment", "", "make dotenv"),
    ("TRUST_1_NAME=\"in # quotes\"", "in # quotes", "dotenv"),
    ("TRUST_1_NAME='in # quotes'", "in # quotes", "dotenv"),
    ("TRUST_1_NAME='in \"quotes\"' # a comment", "in \"quotes\"", "dotenv"),
    ("TRUST_1_NAME=\"St O'Neil\"# a comment", "St O'Neil", "dotenv"),
    ("TRUST_1_NAME='$HOME $(id) `id`'", "$HOME $(id) `id`", "dotenv"),
    ("TRUST_1_NAME=$(touch pwned) `touch pwned` \\", "$(touch pwned) `touch pwned` \\", "dotenv"),
    ("TRUST_1_NAME=\"\"", "", "dotenv"),
    ("TRUST_1_NAME=", "", "make dotenv"),
    ("export TRUST_1_NAME=exported", "exported", "make dotenv"),
    ("  export \t TRUST_1_NAME \t=  spaced out \t ", "spaced out", "dotenv"),
    ("TRUST_1_NAME = spaced", "spaced", "make dotenv"),
    ("TRUST_1_NAME=carriage return\r", "carriage return", "make dotenv"),
    ("TRUST_1_NAME=\"quoted, too\"\r", "quoted, too", "dotenv"),
    ("TRUST_1_NAME=first\nTRUST_1_NAME=last", "last", "make dotenv"),
    ("TRUST_1_NAME=kept\n#TRUST_1_NAME=commented out", "kept", "make dotenv"),
    ("\u{feff}TRUST_1_NAME=behind a mark", "behind a mark", "make dotenv"),
    ("TRUST_1_NAMES=another\nTRUST_1_NAME=a=b", "a=b", "make dotenv"),
    (
        "TRUST_API_KEY_HEADER: x-key\nTRUST_1_NAME=\u{141}\u{f3}d\u{17a}",
        "\u{141}\u{f3}d\u{17a}",
        "make dotenv",
    ),
];

#[test]
fn an_env_file_is_read_as_flips_own_readers_read_it() {
    let place = Place::new();
    let script = ". deploy/lib.sh && from_file TRUST_1_NAME";
    let makefile = "include .env.development\n$(info $(TRUST_1_NAME))\nall: ;\n";
    fs::write(place.dir.join("include.mk"), makefile).unwrap();
    let dotenv = "import dotenv, sys; sys.stdout.buffer.write(dotenv.dotenv_values('.env.development')['TRUST_1_NAME'].encode())";
    let python = python();
    let env = [("TRUST_1_NAME", "")];
    for (line, value, readers) in LINES {
        // The last line of a file need not be ended.
        for end in ["", "\n", "\nTRUST_2_NAME=Two\n"] {
            fs::write(place.dir.join(".env.development"), format!("{line}{end}")).unwrap();
            let ours = place.call(&["bash", "-euc", script], &env);
            assert!(ours.status.success(), "{line:?}: {}", text(&ours));
            assert_eq!(String::from_utf8_lossy(&ours.stdout), *value, "{line:?}");
        }
        let mut agree = Vec::new();
        let mut command = place.command(&["make", "-sf", "include.mk"], &[]);
        let make = command.env_remove("TRUST_1_NAME").output().unwrap();
        if make.stdout == format!("{value}\n").as_bytes() {
            agree.push("make");
        }
        let call = [python.to_str().unwrap(), "-c", dotenv];
        if place.call(&call, &env).stdout == value.as_bytes() {
            agree.push("dotenv");
        }
        assert_eq!(agree.join(" "), *readers, "{line:?}: the readers that agree on {value:?}");
    }
    assert!(!place.dir.join("pwned").exists(), "a value was evaluated");
}

#[test]
fn a_line_that_cannot_be_read_is_named_with_its_file() {
    let place = Place::new();
    for line in [
        "TRUST_1_NAME: a mapping",
        "TRUST_1_NAME",
        "export TRUST_1_CODE",
        "TRUST_7_REGION := make's own",
        "TRUST_1_NAME='s Gravenhage",
        "TRUST_1_NAME=\"open",
        "TRUST_1_NAME=\"closed\" and more",
        "TRUST_1_NAME=\"escaped \\\" quote\"",
        "TRUST_1_NAME='it'\\''s'",
        "TRUST_1_NAME='back\\\\slash'",
    ] {
        fs::write(place.dir.join(".env.lza-stag"), format!("# one\n\n{line}\nTRUST_1_CODE=X\n"))
            .unwrap();
        let env = [("PROD", "lza-stag"), ("TRUST_1_REGION", ""), ("TRUST_1_NAME", "")];
        for call in [&["deploy/register.sh", "1"][..], &["deploy/register.sh", "--numbers"]] {
            let run = place.call(call, &env);
            assert_eq!(run.status.code(), Some(1), "{line}: {}", text(&run));
            says(&run, "ERROR .env.lza-stag, line 3: ");
        }
    }
    fs::remove_file(place.dir.join(".env.lza-stag")).unwrap();
    for stage in ["a b", "../x", "$(id)", "x;y"] {
        let run = place.register(&[("PROD", stage)]);
        assert_eq!(run.status.code(), Some(1), "{}", text(&run));
        says(&run, "which is not a plain word such as stag or true");
    }
}

/// In the place of `deploy/ecs.sh`: shows what it is called with.
const SHOW: &str = "#!/bin/bash
printf '<%s>' \"$@\" \"$TRUST_NUMBER\" \"$TRUST_NAME\" \"$TRUST_CODE\" \"$TRUST_REGION\"; echo
";

#[test]
fn each_stage_has_its_own_file_and_its_own_folder() {
    let place = Place::new();
    fs::write(place.dir.join("deploy/ecs.sh"), SHOW).unwrap();
    let stages =
        [("stag", "stag"), ("true", "production"), ("lza", "lza"), ("lza-stag", "lza-stag")];
    for (prod, stage) in stages {
        let file = format!("TRUST_1_NAME=The {stage} one\nTRUST_1_CODE=C\n");
        fs::write(place.dir.join(format!(".env.{stage}")), file).unwrap();
        let env = [("PROD", prod), ("TRUST_1_NAME", ""), ("TRUST_1_CODE", ""), ("HUB", "compose")];
        let run = place.register(&env);
        assert!(run.status.success(), "{}", text(&run));
        let folder = format!("kits/{stage}");
        let name = format!("The {stage} one");
        says(&run, &format!("<1><{folder}><--name={name}><--code=C><--region=><1><{name}><C><>\n"));
        assert!(place.dir.join(folder).is_dir());
    }
    // A kit of another stage is checked there.
    let kit = "[{\"trust_id\":\"ab-12\",\"trust_name\":\"N \\\"\",\"trust_api_key\":\"k\",\"hub_shared\":{}}]\n";
    fs::write(place.dir.join("kits/stag/trust-1.json.old"), kit).unwrap();
    fs::write(place.dir.join("deploy/ecs.sh"), "#!/bin/bash\necho \"$@\" >&2; echo valid\n")
        .unwrap();
    let check = place.call(&["deploy/register.sh", "1", "--check-kits"], &[("PROD", "stag")]);
    assert!(check.status.success(), "{}", text(&check));
    assert_eq!(String::from_utf8_lossy(&check.stdout), "kits/stag/trust-1.json.old valid\n");
    says(&check, "1 kits/stag --name=N \" --check-kit=ab-12\n");
}

#[test]
fn make_evaluates_nothing_that_describes_a_trust() {
    let place = Place::new();
    fs::write(place.dir.join("deploy/ecs.sh"), SHOW).unwrap();
    let text_of = |name: &str| {
        format!("{name} $(shell touch pwned) $HOME `touch pwned` \"q\" ' #1 \\ $$ %s; touch pwned")
    };
    let (name, code) = (text_of("N"), text_of("C"));
    let said = format!("<--name={name}><--code={code}><--region=R>");
    for goal in ["register-trust-1", "register-trusts"] {
        let env = [("PROD", "stag"), ("TRUST_1_NAME", &name), ("TRUST_1_CODE", &code)];
        let run = place.call(&["make", "-i", goal, "TRUST_1_REGION=R"], &env);
        says(&run, &said);
        let (name, code) = (format!("TRUST_1_NAME={name}"), format!("TRUST_1_CODE={code}"));
        let call = ["make", "-i", goal, "PROD=stag", &name, &code, "KITS=a $(shell touch pwned)"];
        let run = place.call(&call, &[("TRUST_1_REGION", "R")]);
        says(&run, &said);
        says(&run, "<a $(shell touch pwned)/stag>");
        // A line break is refused, and what follows it is no command.
        let lines = format!("TRUST_1_NAME=a\n\ttouch pwned\ntouch pwned\n{name}");
        let variable = lines.strip_prefix("TRUST_1_NAME=").unwrap();
        for run in [
            place.call(&["make", "-i", goal, "PROD=stag", &lines], &[]),
            place.call(&["make", "-i", goal, "PROD=stag"], &[("TRUST_1_NAME", variable)]),
        ] {
            says(&run, "ERROR TRUST_1_NAME holds a line break or another control character");
        }
        let run = place.call(&["make", goal, "PROD=stag"], &[("TRUST_1_NAME", "ends\n")]);
        assert!(!run.status.success(), "{}", text(&run));
    }
    assert!(!place.dir.join("pwned").exists(), "a value was evaluated");
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_and_reported() {
    let mut place = Place::new();
    fs::write(place.dir.join(".env.development"), b"TRUST_1_NAME=Caf\xe9\nTRUST_1_CODE=C\n")
        .unwrap();
    let run = place.register(&[("TRUST_1_NAME", "")]);
    assert_eq!(run.status.code(), Some(1), "{}", text(&run));
    says(&run, "UTF-8");
    says(&run, "nothing was registered for trust 1\n");
    place.hub.assert_untouched();
}

#[test]
fn all_trusts_are_registered_by_number_and_one_failure_stops_no_other() {
    let mut place = Place::new();
    let file = "export TRUST_10_NAME = \"Ten\" # the last\nTRUST_10_CODE=T\nTRUST_2_NAME='Two'\nTRUST_2_CODE=T\n\
                TRUST_3_NAME=\nTRUST_4_CODE=F\n#TRUST_5_NAME=Five\nTRUST_KEY_NAME=x\n";
    fs::write(place.dir.join(".env.development"), file).unwrap();
    let env = [("TRUST_7_NAME", "Seven has no code")];
    let run = place.call(&["make", "register-trusts", "TRUST_1_NAME=One"], &env);
    assert_eq!(run.status.code(), Some(2), "{}", text(&run));
    says(&run, "--code is missing");
    let names: String = place.hub.value(
        "SELECT string_agg(name || ' ' || slot_number, ', ' ORDER BY slot_number)
           FROM trust JOIN fl_kit_slot ON assigned_to_trust_id = trust.id",
    );
    assert_eq!(names, "One 1, Two 2, Ten 3");
    let none = place.call(&["make", "register-trusts"], &[("TRUST_1_NAME", ""), ("PROD", "stag")]);
    assert!(!none.status.success(), "{}", text(&none));
    says(&none, "ERROR no TRUST_<n>_NAME is set, nor in .env.stag\n");
    let listed = place.call(&["deploy/register.sh", "--numbers"], &env);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "1\n2\n7\n10\n");
}
