//! psql and pgbench, running the program's own statements.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::Make;
use crate::support::Hub;
use crate::support::hub::postgres_bin;
use crate::{KNOWN, fresh, same_call_of};

pub struct Rivals {
    bin: PathBuf,
    dir: PathBuf,
}

impl Rivals {
    /// Writes the scripts into this folder.
    pub fn new(dir: &Path) -> Rivals {
        for register in [true, false] {
            let messages = messages(register);
            fs::write(dir.join(file("psql", register)), messages.concat()).unwrap();
            // What the program sends in one message, pgbench does, too.
            let messages = messages.map(|message| {
                let ends = message.matches(";\n").count().saturating_sub(1);
                let message = message.replacen(";\n", "\\;\n", ends);
                ["name", "trust_id", "xact_id"].into_iter().fold(message, |message, variable| {
                    message.replace(&format!(":'{variable}'"), &format!("':{variable}'"))
                })
            });
            fs::write(dir.join(file("pgbench", register)), messages.concat()).unwrap();
        }
        Rivals { bin: postgres_bin(), dir: dir.to_owned() }
    }

    fn command(&self, program: &str, hub: &Hub, port: u16) -> Command {
        let mut command = Command::new(self.bin.join(program));
        let env = &hub.cluster.env;
        command.env_clear().env("PGPORT", port.to_string()).env("PGDATABASE", &hub.database);
        command.env("PGHOST", &env["DB_HOST"]).env("PGUSER", &env["POSTGRES_USER"]);
        command.env("PGPASSWORD", &env["POSTGRES_PASSWORD"]);
        command
    }

    pub fn psql(&self, hub: &Hub, file: &Path) -> Command {
        let mut command = self.command("psql", hub, hub.cluster.port());
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file);
        command
    }

    /// The same by `/usr/bin/psql`, which on Debian is a Perl script that looks for a psql.
    pub fn debian_psql_script<'a>(&'a self, hub: &'a Hub, register: bool) -> Make<'a> {
        let make = self.psql_script(hub, hub.cluster.port(), register);
        Box::new(move || same_call_of("/usr/bin/psql".as_ref(), &make()))
    }

    pub fn psql_script<'a>(&'a self, hub: &'a Hub, port: u16, register: bool) -> Make<'a> {
        Box::new(move || {
            let mut command = self.psql(hub, &self.dir.join(file("psql", register)));
            let name = if register { fresh() } else { KNOWN.to_owned() };
            command.env("PGPORT", port.to_string()).args(["-v", &format!("name={name}")]);
            command.args(["-v", &trust_id()]);
            command
        })
    }

    /// One transaction on a connection of its own.
    pub fn pgbench<'a>(&'a self, hub: &'a Hub, port: u16, register: bool) -> Make<'a> {
        Box::new(move || {
            let mut command = self.command("pgbench", hub, port);
            let name = if register { fresh() } else { KNOWN.to_owned() };
            command.args(["-C", "-n", "-c", "1", "-t", "1", "-D", &format!("name={name}")]);
            command.args(["-D", &trust_id(), "-f"]).arg(self.dir.join(file("pgbench", register)));
            command
        })
    }
}

impl Drop for Rivals {
    /// Otherwise the server's folder stays, for it is not empty.
    fn drop(&mut self) {
        for (program, register) in
            [("psql", true), ("psql", false), ("pgbench", true), ("pgbench", false)]
        {
            let _ = fs::remove_file(self.dir.join(file(program, register)));
        }
    }
}

fn file(program: &str, register: bool) -> String {
    format!("{program}-{}.sql", if register { "register" } else { "skip" })
}

fn trust_id() -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    format!("trust_id={}", uuid.trim())
}

/// The statements of a registration, or of a look that finds the trust, with one text for each
/// message that the program sends.
fn messages(register: bool) -> [String; 3] {
    let bare = |sql: &str| -> String {
        let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
        lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
    };
    let open = bare(include_str!("../../sql/open.sql")).replace(":name_lock", "42");
    let hash = "'0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'::text";
    let claim = bare(include_str!("../../sql/register.sql"))
        .replace("$1", ":'trust_id'::text")
        .replace("$2", ":'name'::text")
        .replace("$3", "'NEW'::text")
        .replace("$4", "NULL::text")
        .replace("$5", hash);
    if register {
        let claim = claim.replace(";\n", " \\gset\n");
        let commit = format!("COMMIT;\n{}", bare(include_str!("../../sql/confirm.sql")));
        [open, claim, commit]
    } else {
        // The program just leaves; pgbench insists on an end.
        let look = bare(include_str!("../../sql/look.sql")).replace("$1", ":'name'::text");
        [open, claim, format!("{look}ROLLBACK;\n")]
    }
}
