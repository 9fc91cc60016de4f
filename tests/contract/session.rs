//! What doc/session.txt, the README and doc/deploy.md show on a terminal, run as it stands there.

use std::fs;
use std::process::{Command, Output};

use super::hand_over::{Place, text};
use crate::support::root;

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap()
}

/// The commands of a recording, or of a block in a document.
fn commands(recording: &str) -> Vec<&str> {
    recording.lines().filter_map(|line| line.strip_prefix("$ ")).collect()
}

/// What was printed, with everything that differs from run to run by its name.
fn normal(printed: &str, folder: &str) -> String {
    let printed = printed.replace(folder, "/home/you/register-trust");
    let mut normal = String::new();
    for word in printed.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)))
    {
        let bare =
            word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
        let name = match bare {
            _ if bare.len() == 36 && bare.split('-').count() == 5 => "<id>",
            _ if bare.len() == 43 => "<key>",
            _ if bare.len() == 5 && bare.parse::<u16>().is_ok() => "<port>",
            _ => bare,
        };
        normal.push_str(name);
        normal.push_str(&word[bare.len()..]);
    }
    normal
}

/// The commands one after the other in one shell, in a checkout without a hub.
fn typed(place: &Place, commands: &[&str]) -> Output {
    let mut script = "exec 2>&1\n".to_owned();
    for command in commands {
        let quoted = command.replace('\'', "'\\''");
        script += &format!("printf '%s\\n' '$ {quoted}'\n{command}\n");
    }
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(&place.dir).env_clear();
    bash.env("PATH", std::env::var("PATH").unwrap()).env("HOME", &place.dir).output().unwrap()
}

#[test]
fn the_recorded_session_is_what_its_commands_print() {
    let place = Place::new();
    fs::copy(root().join(".env.development"), place.dir.join(".env.development")).unwrap();
    let session = read("doc/session.txt");
    let recorded: Vec<_> =
        session.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).collect();
    let run = typed(&place, &commands(&session));
    let removed = Command::new(place.dir.join("deploy/dev/hub.sh"))
        .args(["remove", ".hub"])
        .current_dir(&place.dir)
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", text(&removed));
    let printed = String::from_utf8(run.stdout).unwrap();
    let printed = normal(&printed, place.dir.to_str().unwrap());
    assert_eq!(printed.lines().collect::<Vec<_>>(), recorded);
}

#[test]
fn what_the_readme_shows_on_a_terminal_is_from_the_session() {
    let (readme, session) = (read("README.md"), read("doc/session.txt"));
    let recorded: Vec<_> = session.lines().collect();
    let mut seen = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\"…\"", "\"<key>\"");
        for line in normal(&block, "nowhere").lines() {
            // These two take long.
            if line.starts_with("$ git clone … ") || line == "$ make test" {
                continue;
            }
            assert!(recorded.contains(&line), "{line}\n{session}");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn flips_makefile_registers_by_the_lines_that_the_document_gives_it() {
    let mut place = Place::new();
    // FLIP's Makefile, as far as these lines use it, beside this repository.
    let flip = place.dir.join("beside/FLIP");
    for folder in ["scripts", "deploy"] {
        fs::create_dir_all(flip.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(&place.dir, place.dir.join("beside/register-trust")).unwrap();
    let deploy = read("doc/deploy.md");
    let lines = deploy.split("```make\n").nth(1).unwrap().split("```").next().unwrap();
    let makefile = format!(
        "include .env.development\n\
         export $(shell sed 's/=.*//' .env.development)\n\
         COMMON_COMPOSE_FILE := deploy/compose.development.yml\n\
         FL_BACKEND_COMPOSE_FILE := deploy/compose.development.flower.yml\n\
         DOCKER_COMMAND=docker compose -f $(COMMON_COMPOSE_FILE) -f $(FL_BACKEND_COMPOSE_FILE)\n\
         _wait-for-hub: ;\n\
         {lines}\n\
         show: ; @echo $(DOCKER_COMMAND)\n"
    );
    fs::write(flip.join("Makefile"), makefile).unwrap();
    let trust = "TRUST_1_NAME=Guy's & St $$Thomas\nTRUST_1_CODE=GSTT\n";
    fs::write(flip.join(".env.development"), trust).unwrap();
    fs::write(flip.join("scripts/distribute-trust-kits.sh"), "cat >>distributed").unwrap();
    fs::write(flip.join("scripts/sync-trust-kits.sh"), "cat >>synced").unwrap();
    // An engine whose container is this machine.
    place.tool(
        "docker",
        "#!/bin/sh\n[ \"$2\" != version ] || exit 0\nprintf '%s\\n' \"$COMPOSE_FILE\" \"$2 $3 $4 $5\" >>calls\n\
         shift 5\nexec target/release/register-trust \"$@\"\n",
    );
    let make = |place: &Place, target: &str| {
        let run = place
            .command(&["make", "-C", "beside/FLIP", target], &[])
            .env_remove("TRUST_1_NAME")
            .env_remove("TRUST_1_CODE")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", text(&run));
        text(&run)
    };
    let up = make(&place, "show");
    assert!(up.contains("-f ../register-trust/deploy/compose.yaml"), "{up}");
    make(&place, "register-trust-1");
    let kit: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(flip.join("distributed")).unwrap()).unwrap();
    place.hub.assert_registered(&kit);
    assert_eq!(kit[0]["trust_name"], "Guy's & St $Thomas");
    make(&place, "sync-trust-kit-1");
    let synced: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(flip.join("synced")).unwrap()).unwrap();
    assert_eq!(synced[0]["trust_id"], kit[0]["trust_id"]);
    assert!(synced[0]["trust_api_key"].is_null());
    let calls = fs::read_to_string(place.dir.join("calls")).unwrap();
    let folder = place.dir.join("beside");
    let files =
        ["FLIP/deploy/compose.development.yml", "FLIP/deploy/compose.development.flower.yml"];
    let files = files.map(|file| format!("{}/{file}", folder.display())).join(":");
    let expected = format!(
        "{files}:{}/register-trust/deploy/compose.yaml\nexec -T flip-api /opt/register-trust/register-trust\n",
        folder.display()
    );
    assert_eq!(calls, expected.repeat(2));
    let left: Vec<_> = fs::read_dir(place.dir.join("kits")).unwrap().collect();
    assert_eq!(left.len(), 1, "more than the lock is left: {left:?}");
}
