//! The benchmark: the tables of doc/benchmarks.md from one run, on a PostgreSQL of its own.
//! `make bench`; SAMPLES=20 for a quick look.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod measure;
mod production;
mod rivals;
// What nobody uses at all is seen in tests/main.rs.
#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use measure::{Commands, Cost, Make, Measured, cost, interleave, throughput};
use postgres::Client;
use rivals::Rivals;
use support::hub::Cluster;
use support::run::PROGRAM;
use support::{Hub, Relay, Ssm, root};

/// A trust that every hub here has.
const KNOWN: &str = "trust 7";

/// Free slots whenever a round begins.
const FREE: usize = 20;

fn main() {
    let samples = std::env::var("SAMPLES").map_or(100, |text| text.parse().expect("SAMPLES"));
    let dir = root().join(format!("target/bench-{}", std::process::id()));
    // Everything as it is by default, fsync above all.
    let cluster = Box::leak(Box::new(Cluster::start(dir.clone(), "-c max_connections=200")));
    let rivals = Rivals::new(&dir);

    eprintln!("commands ...");
    let hub = hub(cluster, &rivals, 10, false);
    let (commands, measured, costs) = whole_processes(&hub, &rivals, samples);
    eprintln!("network ...");
    let (network, trips) = network(&hub, &rivals, samples.div_ceil(10));
    eprintln!("side by side ...");
    let throughput = side_by_side(&hub, samples);
    eprintln!("registries ...");
    let (registries, growth) = registries(cluster, &rivals, samples.div_ceil(2));
    eprintln!("production ...");
    let (production, further) = production::production(&dir, &rivals, samples);

    println!("{}\n", machine(&hub, samples));
    println!("{}", targets(&measured, &costs, trips, growth, further));
    println!("{commands}\n{network}\n{throughput}\n{registries}\n{production}");
}

/// A Markdown table.
fn table(head: &str, rows: impl IntoIterator<Item = String>) -> String {
    let columns = head.matches('|').count();
    let rows: String = rows.into_iter().map(|row| format!("| {row} |\n")).collect();
    format!("| {head} |\n|---|{}\n{rows}", "--:|".repeat(columns))
}

/// A name that was never registered.
fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("new {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A hub with so many trusts and as many taken slots, as a hub has them after its `VACUUM`.
fn hub(cluster: &'static Cluster, rivals: &Rivals, trusts: usize, indexed: bool) -> Hub {
    let mut hub = Hub::on(cluster);
    hub.execute(&format!(
        "DELETE FROM fl_kit_slot;
         SET session_replication_role = replica;
         INSERT INTO trust (id, name, code, api_key_hash, created_at)
         SELECT gen_random_uuid(), 'trust ' || n, 'T' || n, md5(n::text) || md5(n::text), now()
           FROM generate_series(1, {trusts}) AS n;
         INSERT INTO fl_kit_slot
         SELECT 'Trust_' || row_number() OVER (), row_number() OVER (), id, now() FROM trust"
    ));
    if indexed {
        rivals.psql(&hub, &root().join("sql/indexes.sql")).status().unwrap();
    }
    hub.execute("VACUUM ANALYZE");
    hub.execute("CHECKPOINT");
    hub
}

/// Free slots again, behind all the others.
fn refill(session: &mut Client, free: usize) {
    let refill = format!(
        "INSERT INTO fl_kit_slot SELECT gen_random_uuid(), 1000000 FROM generate_series(
             1, {free} - (SELECT count(*) FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL))"
    );
    session.batch_execute(&refill).unwrap();
}

fn program<'a>(hub: &'a Hub, port: u16, name: impl Fn() -> String + 'a) -> Make<'a> {
    Box::new(move || {
        let program = hub.program(&["--name", &name(), "--code", "NEW"]);
        program.env("DB_PORT", port.to_string()).command()
    })
}

/// The same call of another binary.
fn same_call_of(binary: &Path, call: &Command) -> Command {
    let mut command = Command::new(binary);
    let env = call.get_envs().filter_map(|(key, value)| Some((key, value?)));
    command.args(call.get_args()).env_clear().envs(env);
    command
}

fn known() -> String {
    KNOWN.to_owned()
}

fn whole_processes(
    hub: &Hub,
    rivals: &Rivals,
    samples: usize,
) -> (String, Measured, Vec<(&'static str, Cost)>) {
    let (ssm, port, mut session) = (Ssm::new(), hub.cluster.port(), hub.session());
    let into_ssm = || {
        let arguments = ["--name", &fresh(), "--code", "NEW", "--out-ssm-parameter", "/bench"];
        ssm.serve(hub.program(&arguments)).command()
    };
    let version = |path: &str| {
        let mut command = Command::new(path);
        command.arg("--version").env_clear();
        command
    };
    let mut commands: Commands = vec![
        ("`/bin/true`", Box::new(|| version("/bin/true"))),
        ("start-up (`--version`)", Box::new(|| version(PROGRAM))),
        ("register (stdout)", program(hub, port, fresh)),
        ("register (SSM)", Box::new(into_ssm)),
        ("skip", program(hub, port, known)),
        ("psql: register", rivals.psql_script(hub, port, true)),
        ("psql: skip", rivals.psql_script(hub, port, false)),
        ("`/usr/bin/psql`: register", rivals.debian_psql_script(hub, true)),
    ];
    commands.push(("pgbench -C: register", rivals.pgbench(hub, port, true)));
    commands.push(("pgbench -C: skip", rivals.pgbench(hub, port, false)));

    let measured = interleave(samples, &commands, || refill(&mut session, FREE));
    let mut costs = Vec::new();
    for (label, make) in commands.iter().filter(|(label, _)| !label.starts_with("pgbench")) {
        costs.push((*label, cost(50, make, || refill(&mut session, FREE))));
    }
    let rows = commands.iter().map(|(label, _)| {
        let times = &measured[label];
        let cost = costs.iter().find(|(other, _)| other == label);
        let cost = cost.map_or("– | –".to_owned(), |(_, cost)| cost.to_string());
        format!("{label} | {:.1} | {} | {cost}", times.median(), times.spread())
    });
    let head = "whole process | median ms | p10 – p90 | user + system ms | peak MiB";
    (table(head, rows), measured, costs)
}

/// Round trips, and what they mean on networks of 0, 1, 10 and 50 ms.
fn network(hub: &Hub, rivals: &Rivals, samples: usize) -> (String, [(u32, u32); 2]) {
    let wires = [0, 1, 10, 50].map(|ms| Relay::to(hub.cluster).late(Duration::from_millis(ms)));
    let mut session = hub.session();
    let on_wire = |port| -> Commands<'_> {
        vec![
            ("register (stdout)", program(hub, port, fresh)),
            ("skip", program(hub, port, known)),
            ("psql: register", rivals.psql_script(hub, port, true)),
            ("pgbench -C: register", rivals.pgbench(hub, port, true)),
        ]
    };
    let measured = wires
        .each_ref()
        .map(|wire| interleave(samples, &on_wire(wire.port()), || refill(&mut session, FREE)));
    let mut trips = Vec::new();
    let rows: Vec<_> = on_wire(wires[0].port())
        .iter()
        .map(|(label, make)| {
            refill(&mut session, FREE);
            assert!(make().output().unwrap().status.success());
            let (login, after) = wires[0].round_trips();
            trips.push((login, after));
            let times = measured.each_ref().map(|at| format!("{:.0}", at[label].median()));
            format!("{label} | {login} | {after} | {}", times.join(" | "))
        })
        .collect();
    let head = "ms by a network's round trip | trips to log in | trips after | 0 ms | 1 ms | 10 ms | 50 ms";
    (table(head, rows), [trips[0], trips[1]])
}

fn side_by_side(hub: &Hub, samples: usize) -> String {
    let (make, mut session) = (program(hub, hub.cluster.port(), fresh), hub.session());
    let total = samples.max(16) * 2;
    let rates = [1, 2, 4, 8, 16].map(|lanes| {
        refill(&mut session, total);
        format!("{:.0}", throughput(lanes, total / lanes, &make))
    });
    let row = format!("registrations per second | {}", rates.join(" | "));
    table("runs side by side | 1 | 2 | 4 | 8 | 16", [row])
}

/// Registries of all sizes; and how much more a registration costs on the largest one, and a
/// skip, than on the smallest one, with the indexes.
fn registries(cluster: &'static Cluster, rivals: &Rivals, samples: usize) -> (String, [f64; 2]) {
    const SIZES: [(usize, [&str; 4]); 3] = [
        (10, ["r 10", "s 10", "ri 10", "si 10"]),
        (10_000, ["r 10,000", "s 10,000", "ri 10,000", "si 10,000"]),
        (300_000, ["r 300,000", "s 300,000", "ri 300,000", "si 300,000"]),
    ];
    let hubs =
        SIZES.map(|(trusts, _)| [false, true].map(|with| hub(cluster, rivals, trusts, with)));
    let mut sessions: Vec<_> = hubs.iter().flatten().map(Hub::session).collect();
    let mut commands: Commands = Vec::new();
    for ((_, labels), [plain, indexed]) in SIZES.iter().zip(&hubs) {
        for (hub, register, skip) in [(plain, 0, 1), (indexed, 2, 3)] {
            commands.push((labels[register], program(hub, hub.cluster.port(), fresh)));
            commands.push((labels[skip], program(hub, hub.cluster.port(), known)));
        }
    }
    let measured = interleave(samples, &commands, || {
        sessions.iter_mut().for_each(|session| refill(session, FREE));
    });
    let rows = SIZES.map(|(_, labels)| {
        let times = labels.map(|label| format!("{:.1}", measured[label].median()));
        format!("{} trusts | {}", &labels[0][2..], times.join(" | "))
    });
    let head = "registry (median ms) | register | skip | register, indexed | skip, indexed";
    let growth = ["ri", "si"].map(|kind| {
        let at = |size| measured[&*format!("{kind} {size}")].median();
        at("300,000") / at("10")
    });
    (table(head, rows), growth)
}

fn targets(
    measured: &Measured,
    costs: &[(&str, Cost)],
    [register, skip]: [(u32, u32); 2],
    [growth, skip_growth]: [f64; 2],
    further: Vec<(&str, f64, f64)>,
) -> String {
    let median = |label: &str| measured[label].median();
    let (nothing, whole) = (median("`/bin/true`"), median("register (stdout)"));
    let peak = costs.iter().find(|(label, _)| *label == "register (SSM)").unwrap().1.peak;
    let row = |what: &str, is: f64, most: f64| {
        let verdict = if is <= most { "met" } else { "**missed**" };
        format!("{what} | {is:.2} | {most} | {verdict}")
    };
    let mut rows = vec![
        row("register ÷ `/usr/bin/psql`", whole / median("`/usr/bin/psql`: register"), 0.45),
        row("register ÷ psql without Debian's wrapper", whole / median("psql: register"), 0.45),
        row(
            "(register − `/bin/true`) ÷ `pgbench -C`",
            (whole - nothing) / median("pgbench -C: register"),
            1.1,
        ),
        row("start-up − `/bin/true`, ms", median("start-up (`--version`)") - nothing, 2.0),
        row("peak memory with SSM, MiB", peak, 16.0),
        row("register: 300,000 trusts ÷ 10, indexed", growth, 1.3),
        row("skip: 300,000 trusts ÷ 10, indexed", skip_growth, 1.3),
        row("round trips after the login: register", register.1.into(), 3.0),
        row("round trips after the login: skip", skip.1.into(), 3.0),
    ];
    rows.extend(further.into_iter().map(|(what, is, most)| row(what, is, most)));
    table("target | is | at most | ", rows)
}

fn machine(hub: &Hub, samples: usize) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let models: Vec<_> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let postgres: String = hub.session().query_one("SHOW server_version", &[]).unwrap().get(0);
    format!(
        "{}: {} cores of {model}, Linux {}, PostgreSQL {} over loopback with fsync, {}; the static binary of {:.1} MB; {samples} samples.",
        says("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        std::thread::available_parallelism().unwrap(),
        says("uname", &["-r"]),
        postgres.split(' ').next().unwrap(),
        says("rustc", &["-V"]),
        fs::metadata(PROGRAM).unwrap().len() as f64 / 1e6,
    )
}

fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
