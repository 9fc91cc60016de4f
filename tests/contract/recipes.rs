//! What the operator runs by hand on the hub, and the lines of `doc/operations.md` and `doc/deploy.md`
//! as they stand there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use super::hand_over::{Place, says, text};
use crate::support::hub::postgres_bin;
use crate::support::{Hub, root, sha256_hex};

/// A section of a document, as it stands there.
fn section(document: &str, title: &str) -> String {
    let document = fs::read_to_string(root().join(document)).unwrap();
    let (_, section) = document.split_once(&format!("\n## {title}\n")).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

/// The blocks of shell in a section.
fn blocks(section: &str) -> Vec<String> {
    blocks_of("sh", section)
}

fn blocks_of(language: &str, section: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let block = |(at, _): (usize, _)| {
        // A list indents its blocks.
        let indent = section[..at].rsplit('\n').next().unwrap();
        let block = section[at + fence.len()..].split("```").next().unwrap();
        block
            .lines()
            .map(|line| format!("{}\n", line.strip_prefix(indent).unwrap_or(line)))
            .collect()
    };
    section.match_indices(&fence).map(block).collect()
}

fn a_new_key() -> Vec<String> {
    blocks(&section("doc/operations.md", "A new key for a living trust"))
}

fn encryption() -> String {
    section("doc/deploy.md", "Kits that are encrypted before they leave your machine")
}

/// A script of `sql/`, run by psql as an operator would.
fn psql(hub: &Hub, script: &str, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(postgres_bin().join("psql"));
    command.args(["-X", "-q", &url(hub), "-f"]).arg(root().join(script)).args(arguments);
    command.envs(env.iter().copied()).output().unwrap()
}

/// The hub as the owner of its tables.
fn url(hub: &Hub) -> String {
    let [user, password, host, port] = ["POSTGRES_USER", "POSTGRES_PASSWORD", "DB_HOST", "DB_PORT"]
        .map(|key| hub.cluster.env[key].as_str());
    format!("postgresql://{user}:{password}@{host}:{port}/{}", hub.database)
}

/// All rows but for the hash, as one text.
fn rows_but_for_the_hash(hub: &mut Hub) -> String {
    hub.value(
        "SELECT string_agg(line, ' ' ORDER BY line) FROM (
             SELECT (to_jsonb(trust) - 'api_key_hash')::text AS line FROM trust
             UNION ALL SELECT fl_kit_slot::text FROM fl_kit_slot
             UNION ALL SELECT trusts_audit::text FROM trusts_audit) AS lines",
    )
}

fn hash(hub: &mut Hub) -> String {
    hub.value("SELECT api_key_hash FROM trust WHERE name = 'One'")
}

fn read(place: &Place, file: &str) -> String {
    fs::read_to_string(place.dir.join(file)).unwrap()
}

fn kit(place: &Place, file: &str) -> Value {
    serde_json::from_str(&read(place, file)).unwrap()
}

const NEW_KIT: &str = "kits/trust-1.json.new";

/// A living trust whose kit is lost, and the document's blocks.
struct Lost {
    place: Place,
    old: Value,
    blocks: Vec<String>,
}

impl Lost {
    fn new() -> Lost {
        let mut place = Place::new();
        assert!(place.register(&[("FL_BACKEND", "flower")]).status.success());
        let old = kit(&place, "kits/trust-1.json");
        fs::remove_file(place.dir.join("kits/trust-1.json")).unwrap();
        place.hub.execute(
            "UPDATE trust SET last_heartbeat = now();
             CREATE TABLE model (trust_id uuid REFERENCES trust (id));
             INSERT INTO model SELECT id FROM trust",
        );
        Lost { place, old, blocks: a_new_key() }
    }

    fn run(&self, block: usize) -> Output {
        self.run_on(block, &url(&self.place.hub))
    }

    fn run_on(&self, block: usize, url: &str) -> Output {
        let env = [("DATABASE_URL", url), ("FL_BACKEND", "flower"), ("SHELLOPTS", "xtrace")];
        self.place.call(&["bash", "-c", &self.blocks[block]], &env)
    }

    #[track_caller]
    fn succeeds(&self, block: usize) -> String {
        let run = self.run(block);
        assert!(run.status.success(), "{}", text(&run));
        text(&run)
    }
}

#[test]
fn a_living_trust_whose_kit_is_lost_gets_a_new_key_by_the_documents_own_lines() {
    let mut lost = Lost::new();
    let id = lost.old[0]["trust_id"].as_str().unwrap().to_owned();
    let deleted =
        psql(&lost.place.hub, "sql/delete_trust.sql", &["-v", &format!("trust_id={id}")], &[]);
    assert!(!deleted.status.success(), "a trust that others refer to can be deleted");
    assert_eq!(lost.blocks.len(), 3);
    for tool in ["openssl", "tr", "sed", "cut", "psql", "sync"] {
        let script =
            format!("#!/bin/sh\necho \"$0 $*\" >>argv\nPATH=${{PATH#*:}}\nexec {tool} \"$@\"\n");
        lost.place.tool(tool, &script);
    }
    let before = rows_but_for_the_hash(&mut lost.place.hub);
    let old_hash = hash(&mut lost.place.hub);

    let mut said = lost.succeeds(0);
    said += &lost.succeeds(1);
    // Stored first: the hub still has the old hash.
    assert_eq!(hash(&mut lost.place.hub), old_hash);
    let synced = read(&lost.place, "argv");
    assert!(
        synced.lines().any(|line| line.ends_with(&format!("sync -- {NEW_KIT} kits"))),
        "{synced}"
    );
    said += &lost.succeeds(2);

    let new = kit(&lost.place, NEW_KIT);
    let mode = fs::metadata(lost.place.dir.join(NEW_KIT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (api, internal) = (&new[0]["trust_api_key"], &new[0]["trust_internal_service_key"]);
    let secrets = [api.as_str().unwrap(), internal.as_str().unwrap()];
    assert_ne!(secrets[0], secrets[1]);
    // The kit that a registration would have printed, but for the keys.
    let line = format!("\"trust_api_key\":{api},\"trust_internal_service_key\":{internal},");
    let without = read(&lost.place, NEW_KIT).replacen(&line, "", 1);
    assert_eq!(without, read(&lost.place, "kits/trust-1.metadata.json"));
    for field in ["trust_id", "trust_name", "fl_kit_slot", "fl_kit_slot_number", "hub_shared"] {
        assert_eq!(new[0][field], lost.old[0][field], "{field}");
    }
    for key in ["trust_api_key", "trust_internal_service_key"] {
        assert_ne!(new[0][key], lost.old[0][key], "{key}");
        let key = new[0][key].as_str().unwrap();
        assert_eq!(key.len(), 43);
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{key}");
    }
    assert_eq!(hash(&mut lost.place.hub), sha256_hex(secrets[0]));
    assert_eq!(rows_but_for_the_hash(&mut lost.place.hub), before);

    let argv = read(&lost.place, "argv");
    assert!(argv.contains("psql") && argv.contains("openssl rand"), "{argv}");
    let hash = sha256_hex(secrets[0]);
    for secret in [secrets[0], secrets[1], &hash] {
        assert!(!argv.contains(secret), "a key or its hash is an argument of a command");
        assert!(!said.contains(secret), "a key or its hash is on the terminal");
    }
    // Twice is the same as once.
    lost.succeeds(2);
    assert_eq!(self::hash(&mut lost.place.hub), hash);
}

#[test]
fn a_recovery_that_stops_anywhere_leaves_the_hub_or_goes_on_with_the_key_that_is_stored() {
    let mut lost = Lost::new();
    let old_hash = hash(&mut lost.place.hub);
    // Without the kit of sync-trust-kit, and without openssl, there is no new kit.
    assert!(!lost.run(1).status.success());
    lost.succeeds(0);
    lost.place.tool("openssl", "#!/bin/sh\necho no random numbers >&2; exit 1\n");
    let run = lost.run(1);
    assert!(!run.status.success() && text(&run).contains("no random numbers"), "{}", text(&run));
    assert!(!lost.place.dir.join(NEW_KIT).exists());
    fs::remove_file(lost.place.dir.join("bin/openssl")).unwrap();
    // A kit that is not whole replaces nothing.
    fs::write(lost.place.dir.join(NEW_KIT), "[{\"trust_id\":\"").unwrap();
    says(&lost.run(2), "ERROR kits/trust-1.json.new holds no whole kit");
    fs::remove_file(lost.place.dir.join(NEW_KIT)).unwrap();
    // What is stored is not overwritten.
    lost.succeeds(1);
    let stored = read(&lost.place, NEW_KIT);
    assert!(!lost.run(1).status.success());
    assert_eq!(read(&lost.place, NEW_KIT), stored);
    // A hub that cannot be reached keeps the old hash; the next try takes the same key.
    let run = lost.run_on(2, "postgresql://127.0.0.1:1/none");
    assert!(!run.status.success(), "{}", text(&run));
    assert_eq!(hash(&mut lost.place.hub), old_hash);
    lost.succeeds(2);
    let key = kit(&lost.place, NEW_KIT)[0]["trust_api_key"].as_str().unwrap().to_owned();
    assert_eq!(hash(&mut lost.place.hub), sha256_hex(&key));
}

#[test]
fn a_key_is_replaced_for_one_trust_that_is_there_and_only_by_a_hash() {
    let mut hub = Hub::new();
    let one = hub.program(&["--name", "One", "--code", "X"]).run().full_kit();
    hub.program(&["--name", "Two", "--code", "X"]).run().full_kit();
    let all = "SELECT string_agg(trust::text, ' ' ORDER BY id) FROM trust";
    let before: String = hub.value(all);
    let id = format!("trust_id={}", one[0]["trust_id"].as_str().unwrap());
    let unknown = "trust_id=6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";
    let new = sha256_hex("a key");
    let replace = |hub: &Hub, arguments: &[&str], hash: &str| {
        psql(hub, "sql/replace_key.sql", arguments, &[("API_KEY_HASH", hash)])
    };
    for (id, hash, why) in [
        (unknown, &*new, "nothing was changed: no trust has the id 6d0d9d8e"),
        (&*id, "", "nothing was changed: API_KEY_HASH is not a SHA-256"),
        (&*id, &new[1..], "nothing was changed: API_KEY_HASH is not a SHA-256"),
        (&*id, &new.to_uppercase(), "nothing was changed: API_KEY_HASH is not a SHA-256"),
        ("trust_id=1", &*new, "invalid input syntax for type uuid"),
    ] {
        let run = replace(&hub, &["-v", id], hash);
        assert!(!run.status.success(), "{}", text(&run));
        says(&run, why);
        assert!(!text(&run).contains("the hub has the new"), "{}", text(&run));
        assert_eq!(hub.value::<String>(all), before, "{why}");
    }
    let run = replace(&hub, &["-v", &id, "-v", "audit_action=REPLACED"], &new);
    assert!(!run.status.success(), "an action that the hub does not have");
    assert_eq!(hub.value::<String>(all), before);

    let run = replace(&hub, &["-v", &id], &new);
    assert!(run.status.success(), "{}", text(&run));
    says(&run, "no audit row was written");
    assert_eq!(hub.count(&format!("trust WHERE api_key_hash = '{new}'")), 1);
    assert_eq!(hub.count("trusts_audit"), 2);

    hub.execute("ALTER TYPE trustauditaction ADD VALUE 'KEY_REPLACED'");
    let run = replace(&hub, &["-v", &id, "-v", "audit_action=KEY_REPLACED"], &new);
    assert!(run.status.success(), "{}", text(&run));
    let audited = "trusts_audit JOIN trust ON trust.id = trust_id AND name = trust_name
                   WHERE action = 'KEY_REPLACED' AND name = 'One' AND modified_by_user_id IS NULL
                     AND abs(extract(epoch FROM now() - audit_date)) < 3600";
    assert_eq!(hub.count(audited), 1);
}

#[test]
fn the_status_shows_slots_trusts_without_one_names_that_occur_twice_and_the_last_and_changes_nothing()
 {
    let mut hub = Hub::new();
    hub.program(&["--name", "First", "--code", "X"]).run().full_kit();
    hub.program(&["--name", "Guy's \"1\"", "--code", "X"]).run().full_kit();
    hub.execute(
        "INSERT INTO trust (id, name, created_at)
         VALUES ('00000000-0000-0000-0000-000000000002', 'Double', '2020-01-02'),
                ('00000000-0000-0000-0000-000000000001', 'Double', '2020-01-01'),
                ('00000000-0000-0000-0000-000000000003', 'Slotless', '2020-01-03')",
    );
    let before = rows_but_for_the_hash(&mut hub);
    let said = |hub: &Hub| {
        let run = psql(hub, "sql/status.sql", &[], &[]);
        assert!(run.status.success() && run.stderr.is_empty(), "{}", text(&run));
        text(&run)
    };
    let status = said(&hub);
    let part = |status: &str, title: &str| {
        let parts: Vec<&str> = status.split("\n\n").collect();
        let found: Vec<_> = parts.iter().filter(|part| part.contains(title)).collect();
        assert_eq!(found.len(), 1, "{title}\n{status}");
        found[0].to_string()
    };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let counts = part(&status, "Counts");
    assert!(words(&counts).ends_with("5 | 10 | 8 | 3 | 1"), "{counts}");
    let free = part(&status, "Free slots");
    assert!(words(&free).contains("3 | Trust_3 4 | Trust_4"), "{free}");
    assert!(!free.contains("Trust_2"), "{free}");
    let slotless = part(&status, "Trusts without a slot");
    assert!(slotless.find("000001").unwrap() < slotless.find("000002").unwrap(), "{slotless}");
    assert!(slotless.contains("Slotless") && !slotless.contains("First"), "{slotless}");
    let twice = part(&status, "Names that occur twice");
    let oldest = "Double | 2 | 00000000-0000-0000-0000-000000000001 00000000-";
    assert!(words(&twice).contains(oldest) && !twice.contains("First"), "{twice}");
    let last = part(&status, "The last registrations");
    assert!(last.find("Guy's \"1\"").unwrap() < last.find("First").unwrap(), "{last}");
    assert!(last.find("First").unwrap() < last.find("Slotless").unwrap(), "{last}");
    assert_eq!(rows_but_for_the_hash(&mut hub), before);

    // Older hubs keep UTC without a time zone; and a list has an end, its count has none.
    hub.execute(
        "SET TIME ZONE 'UTC'; ALTER TABLE trust ALTER created_at TYPE timestamp;
         INSERT INTO trust (id, name, created_at)
         SELECT gen_random_uuid(), 'Many ' || n, '2019-01-01 12:34:56' FROM generate_series(1, 30) AS n",
    );
    let status = said(&hub);
    assert!(words(&part(&status, "Counts")).ends_with("35 | 10 | 8 | 33 | 1"), "{status}");
    let slotless = part(&status, "Trusts without a slot");
    assert_eq!(slotless.matches("Many").count(), 20, "{slotless}");
    assert!(slotless.contains("2019-01-01 12:34:56\n"), "{slotless}");
}

/// A pair of age's keys: the line that is told to everybody.
fn age_keys(place: &Place, file: &str) -> String {
    let run = place.call(&["age-keygen", "-o", file], &[]);
    assert!(run.status.success(), "{}", text(&run));
    text(&run).split_once("Public key: ").unwrap().1.trim().to_owned()
}

fn decrypt(place: &Place, keys: &str, file: &str) -> Output {
    place.call(&["age", "-d", "-i", keys, file], &[])
}

/// The encrypted kits that are there, and every other file of the folder.
fn files(place: &Place) -> (Vec<String>, Vec<String>) {
    let entries = fs::read_dir(place.dir.join("kits")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| !name.starts_with(".lock")).map(|name| format!("kits/{name}"));
    names.partition(|name| name.contains(".age."))
}

#[test]
fn a_kit_is_encrypted_for_its_hospital_by_the_documents_own_lines() {
    let mut place = Place::new();
    let public = age_keys(&place, "key.txt");
    age_keys(&place, "other.txt");
    let block = &blocks(&encryption())[0];
    let run_with = |place: &Place, recipient: &str| {
        place.call(&["bash", "-c", &block.replace("age1…", recipient)], &[])
    };
    // What is synced, and what is there at that time.
    let script = "#!/bin/sh\necho \"$*\" >>synced; ls -A kits >>synced\nexec /bin/sync \"$@\"\n";
    place.tool("sync", script);

    // A recipient that is mistyped: the kit stays where it is, and no half of a file is left.
    let mistyped = public.replace("age1", "age1q");
    let run = run_with(&place, &mistyped);
    assert!(!run.status.success(), "{}", text(&run));
    says(&run, "KIT_SINK failed; the kit stays in kits/.trust-1.");
    says(&run, "malformed recipient");
    let (encrypted, plain) = files(&place);
    assert!(encrypted.is_empty() && plain.len() == 1, "{encrypted:?} {plain:?}");
    let kit = kit(&place, &plain[0]);
    fs::remove_file(place.dir.join("synced")).unwrap();

    // The next run puts that kit, and its own without credentials, into files of their own.
    let run = run_with(&place, &public);
    assert!(run.status.success(), "{}", text(&run));
    says(&run, "the encrypted kit is in kits/trust-1.age.");
    let (encrypted, plain) = files(&place);
    assert!(plain.is_empty(), "plaintext is left: {plain:?}");
    assert_eq!(encrypted.len(), 2, "{encrypted:?}");
    let mut decrypted = Vec::new();
    for file in &encrypted {
        let mode = fs::metadata(place.dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!decrypt(&place, "other.txt", file).status.success(), "anybody can read it");
        let run = decrypt(&place, "key.txt", file);
        decrypted.push(serde_json::from_slice::<Value>(&run.stdout).unwrap());
        let synced = read(&place, "synced");
        let (_, then) = synced.split_once(&format!("{file} kits\n")).expect("it was not synced");
        assert!(then.contains(".trust-1."), "the plaintext was gone before it was synced");
    }
    let full: Vec<_> = decrypted.iter().filter(|kit| kit[0]["trust_api_key"].is_string()).collect();
    assert_eq!(full, [&kit]);
    place.hub.assert_registered(&kit);
}

#[test]
fn with_a_recipient_for_each_number_two_hospitals_get_a_kit_of_their_own() {
    let mut place = Place::new();
    fs::create_dir(place.dir.join("recipients")).unwrap();
    for number in ["1", "2"] {
        let public = age_keys(&place, &format!("key-{number}.txt"));
        fs::write(place.dir.join("recipients").join(number), public + "\n").unwrap();
    }
    let document = encryption();
    let each = "-R \"recipients/$TRUST_NUMBER\"";
    assert!(document.contains(each), "the document says it otherwise");
    let block = blocks(&document)[0].replace("-r \"$RECIPIENT\"", each);
    let block = block.replace("make register-trust-1", "make register-trusts");
    assert!(block.contains(each) && block.contains("register-trusts"), "{block}");
    let second = [("TRUST_2_NAME", "Two"), ("TRUST_2_CODE", "T")];
    let run = place.call(&["bash", "-c", &block], &second);
    assert!(run.status.success(), "{}", text(&run));
    let (encrypted, plain) = files(&place);
    assert!(plain.is_empty() && encrypted.len() == 2, "{encrypted:?} {plain:?}");
    for (number, name) in [("1", "One"), ("2", "Two")] {
        let own = format!("kits/trust-{number}.age.");
        let own = encrypted.iter().find(|file| file.starts_with(&own)).unwrap();
        let other = if number == "1" { "key-2.txt" } else { "key-1.txt" };
        assert!(!decrypt(&place, other, own).status.success(), "{own} is for both");
        let run = decrypt(&place, &format!("key-{number}.txt"), own);
        let kit: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(kit[0]["trust_name"], name);
        place.hub.assert_registered(&kit);
    }
}

/// The trust whose id the documents show.
const SHOWN: &str = "6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10";

/// Statements of a document, as somebody would type them into psql.
fn typed(hub: &Hub, statements: &str) -> String {
    let mut psql = Command::new(postgres_bin().join("psql"));
    let run = psql.args(["-X", "-q", "-At", &url(hub), "-v", "ON_ERROR_STOP=1", "-c", statements]);
    let run = run.output().unwrap();
    assert!(run.status.success(), "{}", text(&run));
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn an_unknown_outcome_is_found_out_by_the_documents_own_lines() {
    let mut place = Place::new();
    assert!(place.register(&[]).status.success());
    let kit = kit(&place, "kits/trust-1.json");
    let id = kit[0]["trust_id"].as_str().unwrap();
    let section = section("doc/operations.md", "Unknown outcomes");
    let run = place.call(&["bash", "-c", &blocks(&section)[0]], &[]);
    assert!(run.status.success(), "{}", text(&run));
    says(&run, "kits/trust-1.json valid");

    let call = blocks_of("console", &section).remove(0);
    let (call, word) = call.split_once('\n').unwrap();
    let call = call.trim_start_matches("$ ").replace(SHOWN, id);
    let call = call.replace("Guy's and St Thomas' NHS Foundation Trust", "One");
    let path = format!("PATH=$PWD/target/release:$PATH; {call}");
    let run = place.call(&["bash", "-c", &path], &[]);
    assert_eq!(String::from_utf8(run.stdout).unwrap(), word);

    let number: String =
        place.hub.value("SELECT xmin::text::bigint::text FROM trust WHERE name = 'One'");
    let by_hand = &blocks_of("sql", &section)[0];
    assert!(by_hand.contains("'1234567'") && by_hand.contains(SHOWN), "{by_hand}");
    let by_hand = by_hand.replace("1234567", &number);
    let answers = |id: &str| {
        let by_hand = by_hand.replace(SHOWN, id);
        let statements = by_hand.lines().map(|statement| typed(&place.hub, statement));
        statements.collect::<Vec<_>>().concat()
    };
    assert_eq!(answers(id), "f\ncommitted\n1\n");
    assert_eq!(answers(SHOWN), "f\ncommitted\n0\n");
}

#[test]
fn a_trust_whose_kit_is_lost_is_registered_anew_by_the_documents_own_lines() {
    let mut place = Place::new();
    assert!(place.register(&[]).status.success());
    let lost = kit(&place, "kits/trust-1.json");
    fs::remove_file(place.dir.join("kits/trust-1.json")).unwrap();
    let lines = blocks(&section("doc/operations.md", "A lost kit")).remove(0);
    let lines = lines.replace(SHOWN, lost[0]["trust_id"].as_str().unwrap());
    let url = url(&place.hub);
    let run = place.call(&["bash", "-e", "-c", &lines], &[("DATABASE_URL", &url)]);
    assert!(run.status.success(), "{}", text(&run));
    let new = kit(&place, "kits/trust-1.json");
    assert_ne!(new[0]["trust_id"], lost[0]["trust_id"]);
    assert_eq!(new[0]["fl_kit_slot"], lost[0]["fl_kit_slot"]);
    place.hub.assert_registered(&new);
}

#[test]
fn the_scripts_for_the_owner_and_the_question_for_locks_run_as_the_documents_write_them() {
    let mut place = Place::new();
    // All tests share a server, and a server its roles.
    let role = format!("documents_{}", std::process::id());
    place.hub.execute(&format!("CREATE ROLE {role}"));
    let url = url(&place.hub);
    let sections = [
        section("doc/operations.md", "Several trusts of one name"),
        section("doc/deploy.md", "The role on the hub"),
    ];
    for lines in sections.iter().flat_map(|section| blocks(section)) {
        let lines = lines.replace("role=register_trust", &format!("role={role}"));
        let run = place.call(&["bash", "-e", "-c", &lines], &[("DATABASE_URL", &url)]);
        assert!(run.status.success(), "{lines}{}", text(&run));
    }
    let granted = format!("SELECT has_column_privilege('{role}', 'trust', 'name', 'SELECT')");
    assert!(place.hub.value::<bool>(&granted));
    assert!(place.hub.value::<bool>("SELECT to_regclass('trust_name_unique') IS NOT NULL"));
    place.hub.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    let question = &blocks_of("sql", &section("doc/operations.md", "Who holds the lock"))[0];
    // Other tests' runs are at work, too.
    typed(&place.hub, question);
}
