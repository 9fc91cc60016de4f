//! The manual page and the completions say what `--help` says, and are where `make install` puts
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::{Program, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a text that start with one of these marks: options, or variables.
fn words(text: &str, marks: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
    words.filter(|word| marks(word)).map(str::to_owned).collect()
}

fn options(text: &str) -> BTreeSet<String> {
    let is_long = |word: &str| word.starts_with("--") && word.len() > 3;
    let is_short = |word: &str| word.len() == 2 && word.starts_with('-') && word != "--";
    words(text, |word| is_long(word) || is_short(word))
}

fn help() -> String {
    Program::new(&["--help"]).run().exits(0).stdout
}

#[test]
fn the_manual_page_and_the_completions_know_the_options_of_the_help_and_no_others() {
    let known = options(&help());
    assert_eq!(known.len(), 15, "{known:?}");
    let manual = read("doc/register-trust.1").replace("\\-", "-");
    assert_eq!(options(&manual), known, "the manual page");
    // What its own commands take are no options of the program.
    let bash = options(&read("doc/completions/register-trust.bash"));
    let bash = &bash - &["-F", "-W", "-t"].map(str::to_owned).into();
    assert_eq!(bash, known, "bash");
    assert_eq!(
        options(&read("doc/completions/_register-trust")),
        &known | &["-s".to_owned()].into(),
        "zsh"
    );
    let fish = read("doc/completions/register-trust.fish");
    let mut of_fish = BTreeSet::new();
    let fields: Vec<_> = fish.split_whitespace().collect();
    for pair in fields.windows(2) {
        match pair[0] {
            "-l" => drop(of_fish.insert(format!("--{}", pair[1]))),
            "-s" => drop(of_fish.insert(format!("-{}", pair[1]))),
            _ => {}
        }
    }
    assert_eq!(of_fish, known, "fish");
}

#[test]
fn what_the_completions_say_of_an_option_is_what_the_help_says() {
    let help = help();
    for path in ["doc/completions/_register-trust", "doc/completions/register-trust.fish"] {
        for line in read(path).lines().filter(|line| line.contains("--") || line.contains("-d '")) {
            let said = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
            let said =
                said.or_else(|| line.split_once("-d '").and_then(|(_, r)| r.split_once('\'')));
            let (said, _) = said.unwrap_or_else(|| panic!("{path}: no description in {line:?}"));
            assert!(help.contains(said), "{path} says {said:?}, and the help does not");
        }
    }
}

#[test]
fn the_manual_page_and_the_readme_know_the_variables_of_the_help() {
    let is_variable = |word: &str| {
        word.contains(|c: char| c.is_ascii_uppercase())
            && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            && (word.contains('_') || word.starts_with("PG") || word == "ENV")
    };
    // Elsewhere TRUST_ID is the value of an option.
    let section = |text: &str, start: &str, end: &str| {
        let (_, text) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
        words(text.split(end).next().unwrap(), is_variable)
    };
    let help = help().replace("AWS_ENDPOINT_URL[_SSM]", "AWS_ENDPOINT_URL AWS_ENDPOINT_URL_SSM");
    let known = section(&help, "\nEnvironment:\n", "\n\n");
    assert_eq!(known.len(), 18, "{known:?}");
    let manual = section(&read("doc/register-trust.1"), "\n.SH ENVIRONMENT\n", "\n.SH ");
    assert_eq!(manual, known, "the manual page");
    let readme = section(&read("README.md"), "\n## Environment\n", "\n## ");
    assert!(readme.is_superset(&known), "the README lacks {:?}", &known - &readme);
}

#[test]
fn the_usage_of_the_readme_is_that_of_the_help() {
    let help = help();
    let usage = help.split("\n\n").find_map(|part| part.strip_prefix("Usage: ")).unwrap();
    let usage: Vec<_> = usage.lines().map(str::trim).collect();
    let readme = read("README.md");
    let lines: Vec<_> = readme.lines().map(str::trim).collect();
    assert!(lines.windows(usage.len()).any(|window| window == usage), "{usage:?}");
}

#[test]
fn bash_completes_options_and_leaves_values_alone() {
    let complete = |words: &str, at: usize| {
        let script = format!(
            ". doc/completions/register-trust.bash; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _register_trust; echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(root()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(complete("register-trust --re", 1), "--region --require-existing\n");
    assert_eq!(complete("register-trust --name --", 2), "\n");
    assert_eq!(complete("register-trust --name A --out", 3), "--out-ssm-parameter\n");
}

#[test]
fn make_install_puts_every_file_below_destdir_and_prefix_and_uninstall_removes_them() {
    let dir = std::env::temp_dir().join(format!("register-trust-install-{}", std::process::id()));
    let make = |target: &str| {
        let mut command = Command::new("make");
        command.args([target, "PREFIX=/usr", &format!("DESTDIR={}", dir.display())]);
        let output = command.current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let files = || {
        let output =
            Command::new("find").arg(&dir).args(["-type", "f", "-printf", "%P %m\n"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    make("install");
    let installed = files();
    make("uninstall");
    let left = files();
    fs::remove_dir_all(&dir).unwrap();
    let expected = [
        "usr/bin/register-trust 755",
        "usr/share/bash-completion/completions/register-trust 644",
        "usr/share/fish/vendor_completions.d/register-trust.fish 644",
        "usr/share/man/man1/register-trust.1 644",
        "usr/share/zsh/site-functions/_register-trust 644",
    ];
    assert_eq!(installed, expected.map(str::to_owned).into());
    assert!(left.is_empty(), "{left:?}");
}
