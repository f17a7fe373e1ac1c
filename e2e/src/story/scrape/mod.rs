//! C tor and ours scraped side by side: middles and exits of both under the same load, onion services through all of them.
//! Every series of C tor's relays is in ours too, or the reference says why not.

mod compare;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::compare::{Page, Reference, differences};
use super::neighbours::{self, Program};
use crate::programs::repository;
use crate::say;
use crate::tornet::onion::Site;
use crate::tornet::{Direction, Fetch, METRICS_PORT, Network, Pin, Slot, Spec, spec};

/// Relays that are no exits: an onion service's circuits have up to four hops before the last one, all different.
const RELAYS: u8 = 8;
/// Ours, one of them an exit.
const OURS: [&str; 5] = ["r2", "r4", "r6", "r7", "e2"];
/// C tor's, in the same positions.
const THEIRS: [&str; 5] = ["r1", "r3", "r5", "r8", "e1"];
/// One of each kind lets nobody read its metrics.
const SHUT: [&str; 2] = ["r7", "r8"];

/// The node that serves an onion service, and the one that comes.
const SERVICE: &str = "c2";
const VISITOR: &str = "c3";

/// Onion services at most, and fetches of each, until both kinds have had a part in it.
const SERVICES_MAX: usize = 10;

/// Means that C tor has; under this load most of ours must have a value.
const MEANS: &str = "tor_relay_congestion_control";
const MEANS_MIN: usize = 12;

/// Introduction points that were made.
const INTRODUCTIONS: &str = "tor_relay_est_intro_total{action=\"success\"}";

/// Series that this load must move, on either side.
const MOVED: [&str; 12] = [
    "tor_relay_traffic_bytes{direction=\"read\"}",
    "tor_relay_traffic_bytes{direction=\"written\"}",
    "tor_relay_streams_total{type=\"BEGIN\"}",
    "tor_relay_load_onionskins_total{type=\"ntor_v3\",action=\"processed\"}",
    "tor_relay_congestion_control_total{state=\"cc_circuits\",action=\"circs_created\"}",
    "tor_relay_congestion_control_total{state=\"cc_circuits\",action=\"circs_exited_ss\"}",
    "tor_relay_connections_total{type=\"Exit\",direction=\"initiated\",state=\"created\",family=\"ipv4\"}",
    "tor_relay_connections_total{type=\"OR\",direction=\"received\",state=\"created\",family=\"ipv4\"}",
    "tor_relay_destroy_cell_total",
    "tor_relay_flag{type=\"Running\"}",
    INTRODUCTIONS,
    "tor_relay_load_socket_total{state=\"opened\"}",
];

/// How it is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Scraped {
    /// The relay's program, started as PROGRAM -f TORRC
    #[arg(long, default_value = "target/programs/relay")]
    pub relay: String,
    /// Bytes each way over each pair of a middle and an exit
    #[arg(long, value_parser = crate::tornet::size, default_value = "20M")]
    pub bytes: u64,
}

/// Tells it. Logs stay if something failed.
///
/// # Errors
/// A series lacks without a reason, a number stands still, or somebody reads who may not.
pub fn tell(scraped: &Scraped) -> Result<()> {
    let folder = spec::folder().with_file_name("relayfleet-scrape");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let program = Program::take(&scraped.relay)?;
    let prefix = neighbours::prefix();
    let slots = OURS.map(|node| Slot {
        node: node.to_owned(),
        command: program.command(),
    });
    let mut torrc = Vec::new();
    for node in OURS.into_iter().chain(THEIRS) {
        // C tor's nodes have these lines already, but for a policy of their own.
        let open = !SHUT.contains(&node);
        if OURS.contains(&node) {
            torrc.push((
                node.to_owned(),
                format!("MetricsPort {}:{METRICS_PORT}", address(&prefix, node)?),
            ));
        }
        let policy = if open { "accept 127.0.0.0/8" } else { "reject *" };
        if OURS.contains(&node) || !open {
            torrc.push((node.to_owned(), format!("MetricsPortPolicy {policy}")));
        }
    }
    // Two of C tor's middles are left, and ours: by their weights alone clients would hardly ever choose ours, which have carried
    // nothing yet (and no exits, which are scarce). Of three introduction points one must be ours then.
    let mut others: Vec<String> = (1..=3).map(|last| format!("{prefix}.{last}")).collect();
    for node in ["r3", "r8"] {
        others.push(address(&prefix, node)?);
    }
    for client in [SERVICE, VISITOR] {
        torrc.push((client.to_owned(), format!("ExcludeNodes {}", others.join(","))));
        // A service introduces itself only once its tor has built a circuit of its own accord.
        torrc.push((client.to_owned(), "__DisablePredictedCircuits 0".to_owned()));
    }
    let network = Network::up(
        &folder,
        &Spec {
            prefix,
            relays: RELAYS,
            exits: 2,
            clients: 3,
            slots: slots.to_vec(),
            torrc,
            ..Spec::default()
        },
    )?;
    match told(&network, scraped) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

/// Nodes are numbered in order: three authorities, the relays, the exits.
fn address(prefix: &str, node: &str) -> Result<String> {
    let (kind, number) = node.split_at(1);
    let number: u8 = number.parse()?;
    Ok(format!(
        "{prefix}.{}",
        if kind == "r" { 3 } else { 3 + RELAYS } + number
    ))
}

fn told(network: &Network, scraped: &Scraped) -> Result<()> {
    for (middle, exit) in [("r2", "e2"), ("r1", "e1")] {
        load(network, middle, exit, scraped.bytes)?;
    }
    onion_services(network)?;
    for node in SHUT {
        ensure!(
            network.metrics(node).is_err(),
            "{node} shows its metrics to whom its policy rejects"
        );
    }
    let (theirs, ours) = (page(network, &THEIRS)?, page(network, &OURS)?);
    let reference = fs::read_to_string(repository().join("docs/reference/metrics.md"))?;
    let reference = Reference::read(&reference);
    let differences = differences(&theirs, &ours, &reference);
    for series in MOVED {
        let of = |page: &Page| page.value(series).with_context(|| format!("no {series}"));
        let (theirs, ours) = (of(&theirs)?, of(&ours)?);
        say::step(format!("{series}: C tor {theirs}, ours {ours}"));
        ensure!(theirs > 0.0 && ours > 0.0, "{series} does not move");
    }
    let means = ours.of_family(MEANS);
    say::step(format!(
        "{} series of C tor, {} of ours; {} rows say what is not here; {means} of {} means have a value",
        theirs.len(),
        ours.len(),
        reference.rows(),
        theirs.of_family(MEANS)
    ));
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    ensure!(means >= MEANS_MIN, "only {means} means have a value after this load");
    say::step(
        "every series of C tor's relays is in ours, by name, labels, HELP and TYPE, or the reference says why not",
    );
    Ok(())
}

/// The same for both: down and up, over a middle and an exit of one kind.
fn load(network: &Network, middle: &str, exit: &str, bytes: u64) -> Result<()> {
    for direction in [Direction::Download, Direction::Upload] {
        let fetch = Fetch {
            circuits: 4,
            pin: Pin::Control,
            direction,
            ..Fetch::over(&["r3", middle, exit], bytes, 4)
        };
        let fetched = network
            .fetch(&fetch)
            .with_context(|| format!("through {middle} and {exit}"))?;
        say::step(format!("{middle},{exit}: {:.1} MiB/s", fetched.mib_per_second));
    }
    Ok(())
}

/// Services until relays of both kinds have been introduction points.
fn onion_services(network: &Network) -> Result<()> {
    let site = Site::listen(network)?;
    for _ in 0..SERVICES_MAX {
        let onion = network.serve_onion(SERVICE, &site)?;
        reach(network, &onion, &site)?;
        let points = |nodes: &[&str]| Ok::<_, anyhow::Error>(page(network, nodes)?.value(INTRODUCTIONS).unwrap_or(0.0));
        let (theirs, ours) = (points(&THEIRS)?, points(&OURS)?);
        say::step(format!(
            "an onion service is reached; introduction points so far: C tor {theirs}, ours {ours}"
        ));
        if theirs > 0.0 && ours > 0.0 {
            return Ok(());
        }
        network.forget_circuits(VISITOR)?;
    }
    bail!("after {SERVICES_MAX} onion services relays of one kind have been no introduction point")
}

fn reach(network: &Network, onion: &str, site: &Site) -> Result<()> {
    let end = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        match network.onion_fetch(VISITOR, onion, site, 1 << 20, Duration::from_secs(60)) {
            Ok(_) => return Ok(()),
            Err(error) if std::time::Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}

/// What those of these show together who let us read.
fn page(network: &Network, nodes: &[&str]) -> Result<Page> {
    let mut page = Page::default();
    for node in nodes.iter().filter(|node| !SHUT.contains(*node)) {
        page.take_in(&network.metrics(node)?);
    }
    Ok(page)
}
