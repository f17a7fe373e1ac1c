//! Floods of every kind, against C tor and against ours in turn in one network: honest bytes go on, memory is bounded, the
//! defences count, and all is given back.
//!
//! Whoever floods comes from addresses of its own and sends as much as it can. As it shares the cores with the relay and
//! the honest client, which a real one would not, it has a third of their claim to them (`--niceness`); the table says how
//! much it sent nevertheless. Each flood meets a relay that has just been started.

mod judge;
mod plan;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::judge::{Seen, given_back, table};
use self::plan::{FLOODS, Flood};
use self::watch::Honest;
use super::neighbours::{self, Program};
use crate::bench::lean::Lean;
use crate::say;
use crate::tornet::{METRICS_PORT, Network, Slot, Spec, spec};

/// Nodes: three authorities, then these; addresses are given in this order.
const AUTHORITIES: u8 = 3;
const RELAYS: u8 = 6;
/// C tor and ours, both exits.
const C_TOR: &str = "e1";
const OURS: &str = "e2";

/// What `MaxMemInQueues` says, MiB: the least that C tor takes without a warning.
const QUEUES_MIB: u64 = 256;

/// How long the honest client is measured alone.
const ALONE: Duration = Duration::from_secs(5);

/// How long memory may take to be given back; C tor is not waited for as long, as it keeps its memory.
const GIVE_BACK: Duration = Duration::from_secs(60);
const GIVE_BACK_OF_C_TOR: Duration = Duration::from_secs(20);

/// As many as `half-open` takes, and few more: whoever lets those who stand in the door have them all has none for others.
const DESCRIPTORS_MAX: u64 = 5_000;

/// What is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Flooded {
    /// Our relay's program
    #[arg(long, default_value = "target/release/relay")]
    pub relay: String,
    /// The lean load's program
    #[arg(long, default_value = "target/release/relay-load")]
    pub load: String,
    /// Only these floods
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only against ours, or only against C tor
    #[arg(long, value_enum, default_value_t = Against::Both)]
    pub against: Against,
    /// Priority of whoever floods, for the CPU time that it takes itself: 0 is the relay's own, 19 the least
    #[arg(long, default_value_t = 5)]
    pub niceness: u8,
    /// Seconds of each flood, instead of its own number
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Do not ask for honest bytes: on a machine that is busy with other things their number says nothing
    #[arg(long)]
    pub no_throughput: bool,
    /// Further torrc line of both relays
    #[arg(long)]
    pub torrc: Vec<String>,
}

/// Who is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Against {
    /// C tor first, then ours.
    Both,
    /// Ours.
    Ours,
    /// C tor.
    Tor,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// Ours did not stand up to a flood.
pub fn tell(flooded: &Flooded) -> Result<()> {
    for name in &flooded.only {
        let known: Vec<_> = FLOODS.iter().map(|flood| flood.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no flood is called {name}; there are: {}",
            known.join(", ")
        );
    }
    let folder = spec::folder().with_file_name("relayfleet-floods");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let wanted = |flood: &&Flood| flooded.only.is_empty() || flooded.only.iter().any(|name| name == flood.name);
    if FLOODS.iter().filter(wanted).any(|flood| flood.closes_all) {
        few_descriptors()?;
    }
    let program = Program::take(&flooded.relay)?;
    let network = Network::up(&folder, &network(flooded, &program)?)?;
    match told(&network, flooded) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

/// From now on, for us and for all that we start.
fn few_descriptors() -> Result<()> {
    let few = Some(DESCRIPTORS_MAX);
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_none_or(|most| most >= DESCRIPTORS_MAX) {
        let few = Rlimit {
            current: few,
            maximum: few,
        };
        setrlimit(Resource::Nofile, few).context("cannot lower the limit on descriptors")?;
    }
    Ok(())
}

fn network(flooded: &Flooded, program: &Program) -> Result<Spec> {
    let prefix = neighbours::prefix();
    let defences = [
        format!("MaxMemInQueues {QUEUES_MIB} MB"),
        "DoSCircuitCreationEnabled 1".to_owned(),
        "DoSConnectionEnabled 1".to_owned(),
        "DoSStreamCreationEnabled 1".to_owned(),
    ];
    let mut torrc = Vec::new();
    for node in [C_TOR, OURS] {
        let lines = defences.iter().chain(&flooded.torrc);
        torrc.extend(lines.map(|line| (node.to_owned(), line.clone())));
    }
    // C tor has it in any case.
    let ours = AUTHORITIES + RELAYS + 2;
    torrc.push((OURS.to_owned(), format!("MetricsPort {prefix}.{ours}:{METRICS_PORT}")));
    torrc.push((OURS.to_owned(), "MetricsPortPolicy accept 127.0.0.0/8".to_owned()));
    Ok(Spec {
        prefix,
        authorities: AUTHORITIES,
        relays: RELAYS,
        exits: 2,
        slots: vec![Slot {
            node: OURS.to_owned(),
            command: program.command(),
        }],
        torrc,
        voting_interval: Duration::from_secs(300),
        ..Spec::default()
    })
}

/// Who plays what.
struct Cast {
    honest: Lean,
    newcomer: Lean,
    flooder: Lean,
}

fn told(network: &Network, flooded: &Flooded) -> Result<()> {
    let playing = |pair: [&str; 2]| Lean::playing(network, &flooded.load, pair.map(str::to_owned));
    let cast = Cast {
        honest: playing(["r1", "r2"])?,
        newcomer: playing(["r3", "r4"])?.only_before(),
        flooder: playing(["r5", "r6"])?.nice(flooded.niceness),
    };
    let subjects: &[(&str, &'static str, bool)] = match flooded.against {
        Against::Both => &[(C_TOR, "C tor", false), (OURS, "ours", true)],
        Against::Ours => &[(OURS, "ours", true)],
        Against::Tor => &[(C_TOR, "C tor", false)],
    };
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (number, flood) in (0..).zip(&FLOODS) {
        if !flooded.only.is_empty() && !flooded.only.iter().any(|name| name == flood.name) {
            continue;
        }
        say::step(format!("{}: {}", flood.name, flood.what));
        for (node, who, ours) in subjects {
            let seen = one(network, &cast, flood, flooded, number, (node, who, *ours));
            let seen = match seen.with_context(|| format!("{} against {who}", flood.name)) {
                Err(error) if !ours => {
                    say::step(format!("C tor did not stand it: {error:#}"));
                    continue;
                }
                other => other?,
            };
            let mut faults = seen.faults(flood, QUEUES_MIB);
            if flooded.no_throughput {
                faults.retain(|fault| !fault.starts_with("honest"));
            }
            let row = seen.row(flood, &faults);
            say::step(format!("{row} {}", seen.flood));
            rows.push(row);
            if seen.ours && !faults.is_empty() {
                failed.push(format!("{}: {}", flood.name, faults.join("; ")));
            }
        }
    }
    say::plain(table(&rows));
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn one(
    network: &Network,
    cast: &Cast,
    flood: &Flood,
    flooded: &Flooded,
    number: u8,
    (node, who, ours): (&str, &'static str, bool),
) -> Result<Seen> {
    network.end(node)?;
    network.start_again(node)?;
    let mut honest = patiently(|| Honest::start(&cast.honest, network, node))?;
    // What is there in any case is there before it is counted.
    honest.carry(|so_far| so_far < Duration::from_secs(1))?;
    let before = network.usage(node).context("the relay ended")?;
    let counted = watch::counters(network, node)?;
    let before_mib = honest.carry(|so_far| so_far < ALONE)?;
    let seconds = flooded.seconds.unwrap_or(flood.seconds).to_string();
    let from = source(number);
    let what = ["flood", "--from", &from, "--seconds", &seconds];
    let mut flooder = cast
        .flooder
        .start(network, node, what.into_iter().chain(flood.load.iter().copied()))?;
    let over = AtomicBool::new(false);
    let (said, during, peak, newcomer) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let said = flooder.once();
            over.store(true, Ordering::Relaxed);
            said
        });
        let peak = scope.spawn(|| watch::peak(network, node, &over));
        let newcomer = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            watch::newcomer(&cast.newcomer, network, node)
        });
        let during = honest.carry(|_| !over.load(Ordering::Relaxed));
        over.store(during.is_err() || over.load(Ordering::Relaxed), Ordering::Relaxed);
        (flooding.join(), during, peak.join(), newcomer.join())
    });
    let broke = |_| anyhow::anyhow!("a thread broke (message above)");
    let said = said.map_err(broke)??;
    let during_mib = during?;
    let mut peak = peak.map_err(broke)?.context("the relay ended under the flood")?;
    peak.rss_kib = peak.rss_kib.max(before.rss_kib);
    let newcomer = newcomer.map_err(broke)?;
    if let Err(error) = &newcomer {
        say::step(format!("a newcomer at {who}: {error:#}"));
    }
    let counters = watch::moved(&counted, &watch::counters(network, node)?);
    flooder.end()?;
    honest.end()?;
    let ended = Instant::now();
    let patience = if ours { GIVE_BACK } else { GIVE_BACK_OF_C_TOR };
    let after = loop {
        let after = network.usage(node).context("the relay ended after the flood")?;
        if given_back(&before, &after) || ended.elapsed() > patience {
            break after;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    Ok(Seen {
        who,
        ours,
        before_mib,
        during_mib,
        before,
        peak,
        after,
        after_seconds: ended.elapsed().as_secs_f64(),
        counters,
        newcomer: newcomer.ok(),
        flood: said,
    })
}

/// A relay that has just been started needs some seconds until it takes links and knows the network.
fn patiently<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match start() {
            Err(_) if began.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_millis(500)),
            other => return other,
        }
    }
}

/// The first address of a flood: each has its own, as a mark of one lasts an hour.
fn source(number: u8) -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.1", 20 + high % 8 * 10 + number)
}
