//! A thousand Relays, or ten thousand, on a real API server with simulated nodes: what the operator takes to bring them up,
//! what it does when all is well, and what a restart costs.

mod audit;
mod cost;
mod fleet;
mod http;
mod operator;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use audit::{Audit, Writes};
use fleet::{Fleet, NEWCOMER};
use operator::{Metrics, Operator};
use server::Server;

use crate::command::{command, logged};
use crate::{programs, say};

/// Nobody has written for so long: it is over.
const QUIET: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(10);
/// Until a family has taken one more in.
const GROWN: Duration = Duration::from_secs(300);

/// How many, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Thousand {
    /// Relays
    #[arg(long, default_value_t = 1_000)]
    pub relays: usize,
    /// Members of each family; 0 for no families
    #[arg(long, default_value_t = 200)]
    pub family: usize,
    /// Seconds to watch when all is well
    #[arg(long, default_value_t = 120)]
    pub rest: u64,
    /// Seconds after which a fleet that is not up yet is given up
    #[arg(long, default_value_t = 1_800)]
    pub patience: u64,
    /// The operator's program; without it a release build
    #[arg(long)]
    pub operator: Option<PathBuf>,
    /// Leave logs, etcd's data and the audit log
    #[arg(long)]
    pub keep: bool,
}

/// Tells it, and prints the figures.
///
/// # Errors
/// The fleet does not come up, or somebody writes who should not.
pub fn tell(asked: &Thousand) -> Result<()> {
    let programs = programs::ready()?;
    let program = match &asked.operator {
        Some(program) => program.clone(),
        None => built()?,
    };
    let folder = std::env::temp_dir().join(format!("relayfleet-scale-{}", std::process::id()));
    let mut server = Server::start(&programs, folder.clone())?;
    let told = told(&mut server, &program, asked);
    drop(server);
    match told {
        Ok(()) if !asked.keep => Ok(std::fs::remove_dir_all(&folder)?),
        Ok(()) => {
            say::step(format!("logs: {}", folder.display()));
            Ok(())
        }
        Err(error) => bail!("{error:#}\nthe logs: {}", folder.display()),
    }
}

fn built() -> Result<PathBuf> {
    say::step("building the operator (release)");
    let mut cargo = command("cargo", ["build", "--release", "--locked", "-p", "operator-controller"]);
    logged(
        cargo.current_dir(programs::repository()),
        &programs::cache().join("log/scale-build.log"),
    )?;
    Ok(programs::target().join("release/operator"))
}

fn told(server: &mut Server, program: &Path, asked: &Thousand) -> Result<()> {
    let fleet = Fleet {
        relays: asked.relays,
        family: asked.family,
    };
    server.apply_chart()?;
    server.start_nodes(fleet.relays + 1)?;
    say::step("API server, etcd, scheduler and simulated nodes are up");
    let mut audit = Audit::of(server.folder.join("audit.log"));
    let mut operator = Operator::start(program, server, "first")?;
    come_up(
        server,
        &mut operator,
        &mut audit,
        fleet,
        Duration::from_secs(asked.patience),
    )?;
    rest(&operator, &mut audit, Duration::from_secs(asked.rest))?;
    operator.stop()?;
    audit.read()?;
    let operator = restart(server, program, &mut audit, fleet)?;
    if fleet.family > 0 {
        grow(server, operator, &mut audit, fleet)?;
    }
    Ok(())
}

/// From the first POST until all is as it should be and nobody writes any more.
fn come_up(
    server: &Server,
    operator: &mut Operator,
    audit: &mut Audit,
    fleet: Fleet,
    patience: Duration,
) -> Result<()> {
    operator.metrics()?; // it serves
    let (before, own_before) = (server.cpu_seconds(), operator.cpu_seconds());
    let reads_before = reads(server)?;
    let start = Instant::now();
    let took = std::thread::scope(|scope| {
        let creating = scope.spawn(|| {
            fleet.create(server)?;
            say::step(format!(
                "  all Relays are created, {:.1} s after the first",
                start.elapsed().as_secs_f64()
            ));
            anyhow::Ok(())
        });
        let took = settle(operator, fleet, fleet.families(), start, patience);
        match creating.join() {
            Ok(done) => done.and(took),
            Err(_) => bail!("the thread that creates the fleet ended"),
        }
    })?;
    let (memory, cpu) = (operator.memory(), operator.cpu_seconds() - own_before);
    let writes = audit.read()?;
    let spent = server.cpu_seconds();
    let spent: Vec<(&str, f64)> = spent
        .iter()
        .zip(&before)
        .map(|((name, after), (_, before))| (name.as_str(), after - before))
        .collect();
    let others: Vec<String> = spent.iter().map(|(name, spent)| format!("{name} {spent:.1}")).collect();
    let all = cpu + spent.iter().map(|(_, spent)| spent).sum::<f64>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = fleet.relays as f64;
    fleet.fingerprints(server)?;
    say::step(format!(
        "{} Relays cold: {:.1} s from the first POST to rest",
        fleet.relays,
        took.as_secs_f64()
    ));
    say::plain(format!(
        "  operator: {cpu:.1} CPU-s ({:.1} ms a Relay), RSS peak {:.0} MiB, at rest {:.0} MiB",
        cpu / count * 1e3,
        memory.peak_mib,
        memory.at_rest_mib
    ));
    say::plain(format!(
        "  the others' CPU-s: {}; API server RSS {:.0} MiB",
        others.join(", "),
        server.rss_mib("kube-apiserver")
    ));
    let time = took.as_secs_f64() * cores as f64;
    say::plain(format!(
        "  together {all:.1} CPU-s ({:.1} ms a Relay): {:.0} % of what {cores} processors had in that time",
        all / count * 1e3,
        all / time * 100.0
    ));
    say::plain(format!(
        "  API writes {} ({:.2} a Relay): {}",
        writes.total(),
        writes.total() as f64 / count,
        Writes::said(&writes.done)
    ));
    say::plain(format!("  refused: {}", Writes::said(&writes.refused)));
    let read = reads(server)? - reads_before;
    say::plain(format!(
        "  API reads {read:.0} ({:.1} a Relay; everybody's GET and LIST)",
        read / count
    ));
    say::plain(format!(
        "  rounds {:.1} a Relay",
        operator
            .metrics()?
            .sum("relayfleet_operator_reconciles_total", &["kind=\"Relay\""])
            / count
    ));
    Ok(())
}

/// When the last write was, counted from `start`.
fn settle(
    operator: &mut Operator,
    fleet: Fleet,
    all_families: usize,
    start: Instant,
    patience: Duration,
) -> Result<Duration> {
    let (mut last, mut written, mut told) = (start, -1.0, Instant::now());
    loop {
        std::thread::sleep(LOOK);
        let metrics = operator.metrics()?;
        let (relays, families) = ready(&metrics);
        let now = metrics.sum("relayfleet_operator_api_writes_total", &[]);
        if now != written {
            (last, written) = (Instant::now(), now);
        }
        if relays == fleet.relays && families == all_families && last.elapsed() >= QUIET {
            return Ok(last - start);
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            say::step(format!(
                "  {relays} Relays and {families} families are ready; {now:.0} writes, {:.1} CPU-s",
                operator.cpu_seconds()
            ));
        }
        ensure!(
            start.elapsed() < patience,
            "{relays} of {} Relays and {families} of {} families were ready",
            fleet.relays,
            all_families
        );
    }
}

fn ready(metrics: &Metrics) -> (usize, usize) {
    let yes = ["ready=\"True\""];
    let of = |name| metrics.sum(name, &yes) as usize;
    (of("relayfleet_operator_relays"), of("relayfleet_operator_families"))
}

fn reads(server: &Server) -> Result<f64> {
    let metrics = Metrics::of(server.connect()?.get("/metrics")?)?;
    Ok(["verb=\"GET\"", "verb=\"LIST\""]
        .iter()
        .map(|verb| metrics.sum("apiserver_request_total", &[verb]))
        .sum())
}

fn rest(operator: &Operator, audit: &mut Audit, time: Duration) -> Result<()> {
    let cpu = operator.cpu_seconds();
    std::thread::sleep(time);
    let writes = audit.read()?;
    say::step(format!(
        "at rest for {} s: {} API writes ({}); {:.2} CPU-s, RSS {:.0} MiB",
        time.as_secs(),
        writes.total(),
        Writes::said(&writes.done),
        operator.cpu_seconds() - cpu,
        operator.memory().at_rest_mib
    ));
    ensure!(writes.total() == 0, "somebody writes though all is well");
    Ok(())
}

/// Another process finds all as it should be.
fn restart(server: &Server, program: &Path, audit: &mut Audit, fleet: Fleet) -> Result<Operator> {
    let start = Instant::now();
    let reads_before = reads(server)?;
    let mut operator = Operator::start(program, server, "second")?;
    loop {
        let metrics = operator.metrics()?;
        let rounds = metrics.sum(
            "relayfleet_operator_reconciles_total",
            &["kind=\"Relay\"", "result=\"ok\""],
        );
        if rounds as usize >= fleet.relays {
            break;
        }
        ensure!(
            start.elapsed() < Duration::from_secs(1_800),
            "{rounds} of {} rounds after a restart",
            fleet.relays
        );
        std::thread::sleep(LOOK);
    }
    let took = start.elapsed();
    std::thread::sleep(QUIET);
    let writes = audit.read()?;
    say::step(format!(
        "restarted: all {} looked at in {:.1} s; {} API writes ({}); {:.1} CPU-s, {:.0} reads, RSS peak {:.0} MiB",
        fleet.relays,
        took.as_secs_f64(),
        writes.total(),
        Writes::said(&writes.done),
        operator.cpu_seconds(),
        reads(server)? - reads_before,
        operator.memory().peak_mib
    ));
    ensure!(writes.total() == 0, "a restarted operator writes");
    Ok(operator)
}

/// One relay more in a family that is there.
fn grow(server: &Server, mut operator: Operator, audit: &mut Audit, fleet: Fleet) -> Result<()> {
    let members = fleet.members_of_first(server)?;
    fleet.add_one(server)?;
    let start = Instant::now();
    while fleet.members_of_first(server)? == members {
        ensure!(start.elapsed() < GROWN, "the family does not take the newcomer in");
        std::thread::sleep(LOOK);
    }
    let grown = Fleet {
        relays: fleet.relays + 1,
        ..fleet
    };
    settle(&mut operator, grown, fleet.families(), start, GROWN)?;
    let writes = audit.read()?;
    // Events have names of their own, and tell of the newcomer.
    let of_it = |what: &str, name: &str| name.contains(NEWCOMER) || what.ends_with("events");
    let (own, more): (Vec<_>, Vec<_>) = writes.named.iter().partition(|(what, name)| of_it(what, name));
    let more: Vec<String> = more.iter().map(|(what, name)| format!("{what} {name}")).collect();
    say::step(format!(
        "one more in a family of {members}: {} writes for the newcomer's own objects, and {} for the family ({})",
        own.len(),
        more.len(),
        more.join(", ")
    ));
    ensure!(
        (1..=4).contains(&more.len()),
        "one more in a family of {members} takes {} writes, not 1 to 4",
        more.len()
    );
    operator.stop()
}
