//! A database of the test's own on the run's cluster.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, Config, NoTls};

use super::{Program, root};

/// The server lives as far from UTC as a time zone can be.
const OPTIONS: &str = "-c max_connections=400 -c fsync=off -c TimeZone=Pacific/Kiritimati \
                       -c max_prepared_transactions=0 -c log_timezone=UTC";

pub struct Cluster {
    pub dir: PathBuf,
    pub env: HashMap<String, String>,
    options: String,
    /// A hub's database stays until the cluster goes.
    pub keeps_databases: bool,
}

const HUB_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/dev/hub.sh");

/// A process that waits until its stdin is closed, as it is when this process ends, however it
/// ends. Then it stops the server and removes its files.
fn sweeper(dir: &Path) -> Child {
    let mut sweeper = Command::new("sh");
    sweeper
        .args(["-c", "cat; \"$0\" remove \"$1\" >/dev/null 2>&1 && rm -rf \"$1\"", HUB_SH])
        .arg(dir);
    sweeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A folder of the test's own, which goes when this process ends.
pub fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("register-trust-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::mem::forget(sweeper(&dir));
    dir
}

/// Where PostgreSQL's programs are; `make test PG=DIR` says which.
pub fn postgres_bin() -> PathBuf {
    let bin = Command::new(root().join("deploy/dev/need.sh")).arg("postgres").output().unwrap();
    PathBuf::from(String::from_utf8(bin.stdout).unwrap().trim())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// One cluster for the run.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("register-trust-{}", std::process::id()));
    Cluster::start(dir, OPTIONS)
});

impl Cluster {
    pub fn start(dir: PathBuf, options: &str) -> Cluster {
        Cluster::start_in(&[], dir, options)
    }

    /// The same with the command that starts it behind another one, such as `env`.
    pub fn start_in(around: &[&str], dir: PathBuf, options: &str) -> Cluster {
        // Its stdin is held open until the process ends.
        std::mem::forget(sweeper(&dir));
        let command = [around, &[HUB_SH, "start"]].concat();
        let started = Command::new(command[0])
            .args(&command[1..])
            .arg(&dir)
            .env("HUB_OPTIONS", options)
            .output()
            .unwrap();
        assert!(
            started.status.success(),
            "no cluster: {}",
            String::from_utf8_lossy(&started.stderr)
        );
        let env = std::fs::read_to_string(dir.join("env")).unwrap();
        let env = env.lines().filter_map(|line| line.split_once('='));
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Cluster { env, dir, options: options.to_owned(), keeps_databases: false }
    }

    /// A cluster of the test's own, for what others would not survive.
    pub fn own(name: &str, around: &[&str]) -> &'static Cluster {
        let dir = format!("register-trust-{}-{name}", std::process::id());
        let cluster = Cluster::start_in(around, std::env::temp_dir().join(dir), OPTIONS);
        Box::leak(Box::new(cluster))
    }

    /// The server's folder.
    pub fn data(&self) -> PathBuf {
        let home = std::fs::read_to_string(self.dir.join("home")).unwrap();
        PathBuf::from(home.trim()).join("data")
    }

    /// Runs a command as the server's own user; whether it succeeds.
    pub fn as_server(&self, command: &[&str]) -> bool {
        self.server_command(command).status().unwrap().success()
    }

    fn server_command(&self, command: &[&str]) -> Command {
        let script = "cd /; if [ $(id -u) = 0 ]; then
                as=$(stat -c 'setpriv --reuid %u --regid %g --clear-groups' \"$0\")
            fi
            exec $as \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(self.data()).args(command);
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        shell
    }

    /// What `pg_ctl` does; a server that it starts has its port again.
    pub fn pg_ctl(&self, arguments: &str) -> bool {
        let (pg_ctl, data, address) = (postgres_bin().join("pg_ctl"), self.data(), self.address());
        let options = format!(
            "-p {} -c listen_addresses={} -c unix_socket_directories='' {}",
            address.port(),
            address.ip(),
            self.options
        );
        let log = data.join("log");
        let [pg_ctl, data, log] = [&pg_ctl, &data, &log].map(|path| text(path));
        let fixed = [pg_ctl, "-s", "-w", "-D", data, "-l", log, "-o", &options];
        self.as_server(&[&fixed[..], &arguments.split(' ').collect::<Vec<_>>()].concat())
    }

    pub fn is_root() -> bool {
        Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    pub fn address(&self) -> SocketAddr {
        format!("{}:{}", self.env["DB_HOST"], self.env["DB_PORT"]).parse().unwrap()
    }

    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap()
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.host(&self.env["DB_HOST"]).port(self.port()).user(&self.env["POSTGRES_USER"]);
        config.password(&self.env["POSTGRES_PASSWORD"]).dbname(database);
        config.connect(NoTls)
    }
}

/// A server that follows another one by streaming replication, under that one's port at an address
/// of its own. It is stopped and removed when this is dropped.
pub struct Standby {
    cluster: Cluster,
    sweeper: Child,
}

impl Standby {
    /// Of a whole cluster, which it copies: one of the test's own is the smaller one.
    pub fn of(primary: &Cluster) -> Standby {
        static NEXT: AtomicU32 = AtomicU32::new(2);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("register-trust-{}-standby-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let sweeper = sweeper(&dir);
        // As hub.sh lays out a hub's folder, so that it can remove this one.
        let home = dir.join("server");
        std::fs::create_dir_all(&home).unwrap();
        let owner = std::fs::metadata(primary.data()).unwrap();
        chown(&home, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::write(dir.join("lock"), "").unwrap();
        std::fs::write(dir.join("home"), text(&home)).unwrap();
        let mut env = primary.env.clone();
        let login = format!(
            "host={} port={} user={} password={}",
            env["DB_HOST"], env["DB_PORT"], env["POSTGRES_USER"], env["POSTGRES_PASSWORD"]
        );
        let (pg_basebackup, data) = (postgres_bin().join("pg_basebackup"), home.join("data"));
        let copy = [text(&pg_basebackup), "-d", &login, "-D", text(&data)];
        let how = ["-R", "-X", "stream", "-c", "fast", "--no-sync"];
        assert!(primary.as_server(&[&copy[..], &how].concat()), "the primary cannot be copied");
        env.insert("DB_HOST".to_owned(), format!("127.0.1.{number}"));
        let cluster =
            Cluster { dir, env, options: primary.options.clone(), keeps_databases: false };
        assert!(cluster.pg_ctl("start"), "the standby does not start");
        Standby { cluster, sweeper }
    }

    pub fn address(&self) -> SocketAddr {
        self.cluster.address()
    }

    /// A session on the hub's database as the standby has it.
    pub fn session(&self, hub: &Hub) -> Client {
        self.cluster.connect(&hub.database)
    }

    /// Points the program here.
    pub fn serve(&self, program: Program) -> Program {
        program.env("DB_HOST", self.cluster.env["DB_HOST"].as_str())
    }

    /// Waits until it has replayed all that was committed so far.
    pub fn catch_up(&self, hub: &mut Hub) {
        let written: String = hub.value("SELECT pg_current_wal_lsn()::text");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        let mut session = self.session(hub);
        super::eventually("the standby has caught up", || {
            session.query_one(&replayed, &[]).unwrap().get(0)
        });
    }

    /// From now on it gets what the primary commits, and does not show it.
    pub fn pause_replay(&self) {
        self.execute("SELECT pg_wal_replay_pause()");
    }

    pub fn resume_replay(&self) {
        self.execute("SELECT pg_wal_replay_resume()");
    }

    /// Makes it a primary, which first replays what it got.
    pub fn promote(&self) {
        self.execute("SELECT pg_promote()");
    }

    fn execute(&self, sql: &str) {
        self.cluster.connect("postgres").batch_execute(sql).unwrap();
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// What of several clients follows each other on one connection to the server.
#[derive(Clone, Copy)]
pub enum Pool {
    Transactions,
    Statements,
}

/// PgBouncer. It is stopped when this is dropped, or when this process ends.
pub struct Pooler {
    port: u16,
    bouncer: Child,
}

impl Pooler {
    /// One that serves all its clients on one connection.
    pub fn before(cluster: &Cluster, pool: Pool) -> Pooler {
        Pooler::of(cluster, pool, 1)
    }

    /// One that has so many connections to the server.
    pub fn of(cluster: &Cluster, pool: Pool, connections: usize) -> Pooler {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let [host, server, user, password] =
            ["DB_HOST", "DB_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD"]
                .map(|key| cluster.env[key].as_str());
        let mode = match pool {
            Pool::Transactions => "transaction",
            Pool::Statements => "statement",
        };
        let dir = cluster.dir.join(format!("pooler-{port}"));
        std::fs::create_dir(&dir).unwrap();
        let users = dir.join("users");
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host={host} port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\npool_mode = {mode}\nauth_file = {}\n\
             auth_type = scram-sha-256\ndefault_pool_size = {connections}\n",
            text(&users)
        );
        let file = dir.join("settings.ini");
        std::fs::write(&file, settings).unwrap();
        // It does not run as root, and it ends with its stdin.
        let script = "PATH=$PATH:/usr/sbin; pgbouncer -q \"$0\" & cat; kill $!";
        let mut bouncer = cluster.server_command(&["sh", "-c", script, text(&file)]);
        let bouncer = bouncer.stdin(Stdio::piped()).spawn().unwrap();
        super::eventually("PgBouncer answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Pooler { port, bouncer }
    }

    pub fn serve(&self, program: Program) -> Program {
        program.env("DB_PORT", self.port.to_string())
    }

    /// A session on the hub's database through the pooler.
    pub fn session(&self, hub: &Hub) -> Client {
        let env = &hub.cluster.env;
        let mut config = Config::new();
        config.host(&env["DB_HOST"]).port(self.port).user(&env["POSTGRES_USER"]);
        config.password(&env["POSTGRES_PASSWORD"]).dbname(&hub.database);
        config.connect(NoTls).unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.bouncer.stdin.take());
        let _ = self.bouncer.wait();
    }
}

pub struct Hub {
    pub cluster: &'static Cluster,
    pub database: String,
    pub admin: Client,
}

impl Hub {
    /// A hub with `timestamptz` columns and ten free slots, `Trust_1` to `Trust_10`.
    pub fn new() -> Hub {
        Hub::on(&CLUSTER)
    }

    pub fn on(cluster: &'static Cluster) -> Hub {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let database = format!("hub_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = cluster.connect("postgres");
        admin.batch_execute(&format!("CREATE DATABASE {database} TEMPLATE hub")).unwrap();
        let admin = cluster.connect(&database);
        Hub { cluster, database, admin }
    }

    /// The one that `deploy/dev/hub.sh` made on this cluster, and names to the scripts.
    pub fn embedded(cluster: &'static Cluster) -> Hub {
        Hub { cluster, database: "hub".to_owned(), admin: cluster.connect("hub") }
    }

    pub fn with_slots(names: &[&str]) -> Hub {
        let mut hub = Hub::new();
        hub.execute("DELETE FROM fl_kit_slot");
        for name in names {
            let number: i32 = name.rsplit('_').next().unwrap().parse().unwrap();
            hub.admin
                .execute(
                    "INSERT INTO fl_kit_slot (slot_name, slot_number) VALUES ($1, $2)",
                    &[name, &number],
                )
                .unwrap();
        }
        hub
    }

    /// Adds those of the slots `Trust_1` to `Trust_<slots>` that are not there.
    pub fn fill_pool(&mut self, slots: usize) {
        self.execute(&format!(
            "INSERT INTO fl_kit_slot (slot_name, slot_number)
             SELECT 'Trust_' || n, n FROM generate_series(1, {slots}) AS n
                 ON CONFLICT DO NOTHING"
        ));
    }

    pub fn cluster() -> &'static Cluster {
        &CLUSTER
    }

    /// Another session on this database.
    pub fn session(&self) -> Client {
        self.cluster.connect(&self.database)
    }

    pub fn execute(&mut self, sql: &str) {
        self.admin.batch_execute(sql).unwrap();
    }

    /// The optional indexes: whether they were built, and what psql said.
    pub fn build_indexes(&self) -> (bool, String) {
        self.psql("sql/indexes.sql", &[])
    }

    /// Runs a script as an operator would, with these further arguments.
    pub fn psql(&self, script: &str, arguments: &[&str]) -> (bool, String) {
        let env = &self.cluster.env;
        let output = Command::new(postgres_bin().join("psql"))
            .args(["-X", "-q", "-h", &env["DB_HOST"], "-p", &env["DB_PORT"]])
            .args(["-U", &env["POSTGRES_USER"], "-d", &self.database, "-f"])
            .arg(root().join(script))
            .args(arguments)
            .env("PGPASSWORD", &env["POSTGRES_PASSWORD"])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    /// The program, told to use this hub.
    pub fn program(&self, arguments: &[&str]) -> Program {
        let mut program = Program::new(arguments);
        for key in ["DB_HOST", "DB_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD"] {
            program = program.env(key, &self.cluster.env[key]);
        }
        program.env("POSTGRES_DB", &self.database)
    }

    /// How many runs of the program wait for a lock.
    pub fn waiting(&mut self) -> i64 {
        self.runs("wait_event_type = 'Lock'")
    }

    /// How many runs are in their delivery: the transaction is open, and nothing is asked.
    pub fn delivering(&mut self) -> i64 {
        self.runs("state = 'idle in transaction'")
    }

    /// How many runs are in that state.
    pub fn runs(&mut self, condition: &str) -> i64 {
        self.count(&format!(
            "pg_stat_activity WHERE datname = current_database()
                AND application_name = 'register-trust' AND {condition}"
        ))
    }

    /// From now on every registration is refused at its commit, with 'not today'.
    pub fn refuse_commits(&mut self) {
        self.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON trust DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        );
    }

    pub fn value<T: for<'a> postgres::types::FromSql<'a>>(&mut self, sql: &str) -> T {
        self.admin.query_one(sql, &[]).unwrap().get(0)
    }

    pub fn count(&mut self, table: &str) -> i64 {
        self.value(&format!("SELECT count(*) FROM {table}"))
    }

    /// Nothing was registered, nothing is assigned, and no session of the program is left.
    pub fn assert_untouched(&mut self) {
        assert_eq!(self.count("trust"), 0, "a trust was left behind");
        assert_eq!(self.count("trusts_audit"), 0, "an audit row was left behind");
        assert_eq!(
            self.count(
                "fl_kit_slot WHERE assigned_to_trust_id IS NOT NULL OR assigned_at IS NOT NULL"
            ),
            0,
            "a slot was left assigned"
        );
        self.assert_no_session();
    }

    pub fn assert_no_session(&mut self) {
        super::eventually("no session of the program is left", || self.runs("true") == 0);
    }

    /// The row of a registered trust agrees with its slot, its audit row and its kit.
    pub fn assert_registered(&mut self, kit: &serde_json::Value) {
        let kit = &kit[0];
        let row = self
            .admin
            .query_one(
                "SELECT trust.name, api_key_hash, slot_name, slot_number, trusts_audit.action::text,
                        trust_name, modified_by_user_id IS NULL, last_heartbeat IS NULL,
                        assigned_at IS NOT NULL
                   FROM trust
                   JOIN fl_kit_slot ON assigned_to_trust_id = trust.id
                   JOIN trusts_audit ON trust_id = trust.id
                  WHERE trust.id::text = $1",
                &[&kit["trust_id"].as_str().unwrap()],
            )
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), kit["trust_name"].as_str().unwrap());
        assert_eq!(
            row.get::<_, &str>(1),
            super::sha256_hex(kit["trust_api_key"].as_str().unwrap())
        );
        assert_eq!(row.get::<_, &str>(2), kit["fl_kit_slot"].as_str().unwrap());
        assert_eq!(i64::from(row.get::<_, i32>(3)), kit["fl_kit_slot_number"].as_i64().unwrap());
        assert_eq!(row.get::<_, &str>(4), "REGISTERED");
        assert_eq!(row.get::<_, &str>(5), kit["trust_name"].as_str().unwrap());
        assert!(row.get::<_, bool>(6) && row.get::<_, bool>(7) && row.get::<_, bool>(8));
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.cluster.keeps_databases {
            return;
        }
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        // A test can end with its server down.
        let _ =
            self.cluster.try_connect("postgres").and_then(|mut admin| admin.batch_execute(&drop));
    }
}
