//! The documents, the manual page and the completions say what `--help`, the source and the tests say,
//! lead where they point to, and are where `make install` puts them.

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
fn the_manual_page_and_the_changelog_are_those_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("doc/register-trust.1").contains(&format!("\"register-trust {version}\"")));
    assert!(read("CHANGELOG.md").contains(&format!("\n## {version} – ")));
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

/// Every document, by its path.
fn documents() -> Vec<String> {
    let mut documents: Vec<_> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).into();
    for entry in fs::read_dir(root().join("doc")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        documents.extend(name.ends_with(".md").then(|| format!("doc/{name}")));
    }
    assert!(documents.len() > 8, "{documents:?}");
    documents
}

/// All files below these, with their text. Not this one, which lists what no other may hold.
fn texts(paths: &[&str]) -> Vec<(String, String)> {
    let find = Command::new("find").args(paths).args(["-type", "f"]).current_dir(root()).output();
    let found = String::from_utf8(find.unwrap().stdout).unwrap();
    let others = found.lines().filter(|path| !path.ends_with("contract/documents.rs"));
    let texts: Vec<_> = others.map(|path| (path.to_owned(), read(path))).collect();
    assert!(texts.len() >= paths.len(), "{paths:?}");
    texts
}

/// What is not in a block of code.
fn prose(document: &str) -> String {
    document.split("\n```").step_by(2).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let prose = prose(document);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").len() <= 14_000, "{}", read("README.md").len());
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = prose(&read(&document));
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.strip_suffix(document.rsplit('/').next().unwrap()).unwrap();
            let target = if path.is_empty() { document.clone() } else { format!("{folder}{path}") };
            assert!(root().join(&target).exists(), "{document}: {link}");
            let known = anchor.is_empty() || anchors(&read(&target)).contains(anchor);
            assert!(known, "{document}: {link}: {:?}", anchors(&read(&target)));
            links += 1;
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn what_a_document_names_is_there() {
    let targets = make_targets();
    for document in documents() {
        let text = read(&document);
        for path in text.split('`').filter(|it| !it.contains(char::is_whitespace)) {
            let folders = ["src/", "sql/", "deploy/", "tests/", "doc/"];
            let is_path = folders.iter().any(|folder| path.starts_with(folder));
            // FLIP has a folder of that name, too.
            if is_path && !path.contains(['*', '<', '…']) && !path.starts_with("deploy/providers")
            {
                assert!(root().join(path).exists(), "{document}: {path}");
            }
        }
        // "make" is a verb as well: in prose a command stands in backticks.
        let code = text.split("\n```").skip(1).step_by(2).collect::<Vec<_>>().join("\n");
        let commands = [text.split("`make "), code.split("$ make "), code.split("\nmake ")];
        for command in commands.into_iter().flat_map(|commands| commands.skip(1)) {
            let word = command.split(|c: char| !c.is_ascii_alphanumeric() && !"-<>".contains(c));
            let target = word.into_iter().next().unwrap();
            let target = target.trim_end_matches(|c: char| c.is_ascii_digit());
            let target = target.strip_suffix("<n>").unwrap_or(target);
            if target.chars().next().is_some_and(char::is_lowercase) && document != "CHANGELOG.md" {
                assert!(targets.contains(target), "{document}: make {target}");
            }
        }
    }
}

/// The targets that `make help` lists; those with a number end with a dash.
fn make_targets() -> BTreeSet<String> {
    let help = Command::new("make").arg("help").current_dir(root()).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let targets = help.lines().map(|line| line.split(' ').next().unwrap().replace("<n>", ""));
    targets.collect()
}

#[test]
fn the_readme_names_targets_options_and_hub_shared_values_that_there_are() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("\n## Targets\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split('|').next().unwrap()).filter(|cell| !cell.contains('='));
    let named = cells.flat_map(|cell| cell.split('`')).filter(|name| name.len() > 3);
    for name in named {
        assert!(make_targets().contains(&name.replace("<n>", "")), "{name}");
    }
    let (_, table) = readme.split_once("\n| option | meaning |\n").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let cells: String = table.lines().map(|row| row.split('|').nth(1).unwrap()).collect();
    let long = ["--help", "--version", "--verbose", "--quiet"].map(str::to_owned).into();
    assert_eq!(&options(&cells) | &long, options(&help()));
    let settings = read("src/settings.rs");
    let (_, list) = settings.split_once("const HUB_SHARED: &str = \"").unwrap();
    let list = list.split('"').next().unwrap().replace('\\', " ");
    let list: Vec<_> = list.split_whitespace().collect();
    let (_, shown) = readme.split_once("hub: `AES_KEY_BASE64`").unwrap();
    let shown = format!("`AES_KEY_BASE64`{}", shown.split('.').next().unwrap());
    let shown: Vec<_> = shown.split('`').filter(|name| !name.trim().is_empty()).collect();
    assert_eq!(shown, list);
}

#[test]
fn the_faults_name_tests_that_there_are() {
    let faults = read("doc/faults.md");
    let mut seen = 0;
    for (file, test) in faults.split('`').filter_map(|word| word.split_once("::")) {
        let source = read(&format!("tests/contract/{file}.rs"));
        assert!(source.contains(&format!("fn {test}()")), "{file}::{test}");
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_audit_guide_leads_to_every_file_every_test_and_every_dependency() {
    let audit = read("doc/audit.md");
    for folder in ["src", "sql", "deploy"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            // Development's own hub is no part of what is deployed.
            if entry.path().is_file() && name != "dev_hub.sql" {
                assert!(audit.contains(&name), "{folder}/{name}");
            }
        }
    }
    let (_, rules) = audit.split_once("\n## Rule and place\n").unwrap();
    let rules = rules.split("\n## ").next().unwrap();
    let mut seen = 0;
    for row in rules.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<_> = row.split('|').collect();
        let [_, _, kept, tested, _] = cells[..] else { panic!("{row}") };
        for file in kept.split('`').skip(1).step_by(2) {
            assert!(root().join(file).is_file(), "{row}");
        }
        for file in tested.split('`').skip(1).step_by(2) {
            let contract = root().join("tests/contract").join(file);
            assert!(contract.is_file() || root().join(file).is_file(), "{row}");
        }
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
    let cargo = read("Cargo.toml");
    let (_, dependencies) = cargo.split_once("\n[dependencies]\n").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    for line in dependencies.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")) {
        let name = line.split(' ').next().unwrap();
        assert!(audit.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_comment_that_points_to_a_document_points_to_a_section_of_it() {
    let mut seen = 0;
    for (path, text) in texts(&["src", "tests", "deploy", "sql"]) {
        let text = flat(&text);
        let documents = text.match_indices(", \"").filter_map(|(at, _)| {
            let document = text[..at].rsplit([' ', '(']).next().unwrap();
            let document = if document == "README" { "README.md" } else { document };
            document.ends_with(".md").then(|| (document, text[at + 3..].split('"').next().unwrap()))
        });
        for (document, section) in documents {
            let there = read(document).lines().any(|line| {
                line.strip_prefix('#')
                    .is_some_and(|it| it.trim_start_matches('#').trim() == section)
            });
            assert!(there, "{path}: {document}, {section:?}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

/// A text on one line, without the marks of comments.
fn flat(text: &str) -> String {
    let marks = ["//!", "///", "//", "#", "--", "|", "*", "-"];
    let lines = text.lines().map(|line| {
        let line = line.trim().trim_end_matches('\\');
        marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line).trim()
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Sentences that nobody at work would say, and what stands for them: "if the kit cannot be
/// delivered, the trust is not registered".
const NOT_SAID: [&str; 16] = [
    "could not be delivered was never registered",
    "was delivered already opens nothing",
    "its answer is lost, the outcome is asked for",
    "naming what cannot be had",
    "naming what the operator must",
    "once the trust's host has its kit, do",
    "errors only, also beside",
    "invalid where it is used is a failure",
    "never sent but over",
    "takes the trust for registered",
    "the least policies",
    "yours to fill in",
    "the first of the statements above says",
    "beside which other work was done",
    "slot names alone are only warned of",
    "../shared",
];

#[test]
fn every_text_that_a_person_reads_is_plain_english() {
    let mut paths = vec!["src", "tests", "deploy", "sql", "doc", "Makefile", "Cargo.toml"];
    paths.extend(["Dockerfile", "deny.toml", ".env.development"]);
    let documents = documents();
    paths.extend(documents.iter().map(String::as_str).filter(|path| !path.starts_with("doc/")));
    for (path, text) in texts(&paths) {
        let text = flat(&text).to_lowercase();
        for words in NOT_SAID {
            assert!(!text.contains(words), "{path} says {words:?}");
        }
    }
}

/// What the program and the scripts can say, without line breaks; the tests have what is put
/// together in a run, and what PostgreSQL says.
fn messages() -> String {
    let scripts = ["deploy/lib.sh", "deploy/register.sh", "deploy/ecs.sh"];
    let texts = texts(&[&["src", "tests/frozen", "tests/contract"], &scripts[..]].concat());
    let lines = texts.iter().flat_map(|(_, text)| text.lines().map(str::trim_start));
    lines.fold(String::new(), |all, line| match line.strip_suffix('\\') {
        Some(line) => all + line,
        None => all + line + "\n",
    })
}

/// The messages that a table of doc/operations.md explains: their parts between what differs.
fn explained() -> Vec<Vec<String>> {
    let operations = read("doc/operations.md");
    let mut explained = Vec::new();
    for heading in ["Messages of the program", "Messages of the scripts"] {
        let (_, table) = operations.split_once(&format!("\n## {heading}\n")).unwrap();
        let table = table.split("\n## ").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
        for cell in rows.map(|row| row.split(" | ").next().unwrap()) {
            for message in cell.split('`').skip(1).step_by(2) {
                let message = message.trim_start_matches("WARNING ").trim_start_matches("ERROR ");
                let parts = message.split('…').map(str::to_owned).collect();
                explained.push(parts);
            }
        }
    }
    assert!(explained.len() > 40, "{}", explained.len());
    explained
}

#[test]
fn the_operations_explain_messages_that_there_are() {
    let messages = messages();
    for parts in explained() {
        for part in parts.iter().map(|part| part.trim_matches(|c| " ():;,.\"2".contains(c))) {
            // What a message holds of another one's words stands elsewhere in the source.
            let fits = part.split(": ").all(|part| messages.contains(part));
            assert!(fits, "nothing says {part:?} of {parts:?}");
        }
    }
}

#[test]
fn every_failure_that_is_frozen_is_explained_in_the_operations() {
    let mut explained = explained();
    // It would fit nearly everything.
    let general = ["", " nothing was registered"].map(str::to_owned).to_vec();
    explained.retain(|parts| *parts != general);
    for (path, text) in texts(&["tests/frozen"]) {
        let failures = text.lines().filter_map(|line| {
            let line = line.strip_prefix("err ")?;
            line.strip_prefix("ERROR ").or_else(|| line.strip_prefix("WARNING "))
        });
        for line in failures
            .filter(|line| !line.starts_with("next: ") && !line.contains("nothing was done"))
        {
            let fits = |parts: &Vec<String>| {
                let mut rest = Some(line);
                for part in parts {
                    rest =
                        rest.and_then(|rest| rest.split_once(part.as_str())).map(|(_, rest)| rest);
                }
                rest.is_some()
            };
            assert!(explained.iter().any(fits), "{path}: {line}");
        }
    }
}
