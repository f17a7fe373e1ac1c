//! What several hops and several workers make of it: one circuit over three relays of ours and over three of C tor's, and one
//! relay of ours with one worker and with two.
//!
//! Two cores cannot show two busy workers beside the load that keeps them busy. So what each worker *spends* on the same
//! work is measured: with a core for each, the work is done when the busiest of them is.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::lean::Lean;
use super::measure::WARM_UP;
use super::plan::{Layout, Place, Subject};
use super::report::Spread;
use crate::say;
use crate::tornet::{Fetch, Network, Slot};

/// Links, each with its own load process; the relay shares them out among its workers evenly.
const LINKS: usize = 4;
/// Bytes over each link, in each turn.
const LINK_BYTES: u64 = 100 << 20;
/// Streams and circuits over each link.
const STREAMS: &str = "16";
/// Bytes of the one circuit.
const CHAIN_BYTES: u64 = 32 << 20;

/// The nodes that are ours here: the second C tor's places and the first of those that the lean load would play.
struct Nodes {
    ours: [String; 3],
    c_tor: [String; 3],
    two_workers: String,
    one_worker: String,
}

impl Nodes {
    fn of(layout: &Layout) -> Result<Self> {
        let node = |place, subject| layout.node(place, subject).context("no such node");
        let exit = node(Place::Exit, Subject::Ours)?;
        Ok(Self {
            ours: [
                node(Place::Guard, Subject::Ours)?,
                node(Place::Guard, Subject::Control)?,
                exit.clone(),
            ],
            c_tor: ["r1", "r2", "e1"].map(str::to_owned),
            two_workers: exit,
            one_worker: node(Place::Exit, Subject::Control)?,
        })
    }
}

/// A node and a further line of its torrc.
type TorrcLine = (String, String);

/// Who is ours, and with how many workers.
pub(super) fn slots(layout: &Layout, command: &[String]) -> Result<(Vec<Slot>, Vec<TorrcLine>)> {
    let nodes = Nodes::of(layout)?;
    let slots = nodes.ours.iter().chain([&nodes.one_worker]).map(|node| Slot {
        node: node.clone(),
        command: command.to_vec(),
    });
    let workers = [(&nodes.two_workers, 2), (&nodes.one_worker, 1)];
    let lines = workers.map(|(node, count)| (node.clone(), format!("NumCPUs {count}")));
    Ok((slots.collect(), lines.to_vec()))
}

/// Both, as Markdown.
pub(super) fn measured(network: &Network, layout: &Layout, lean: &Lean, rounds: usize) -> Result<String> {
    let nodes = Nodes::of(layout)?;
    let mut text = chains(network, &nodes, rounds)?;
    text.push_str(&workers(network, &nodes, lean, rounds)?);
    Ok(text)
}

fn chains(network: &Network, nodes: &Nodes, rounds: usize) -> Result<String> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        for (who, path, speeds) in [("C tor", &nodes.c_tor, &mut theirs), ("ours", &nodes.ours, &mut ours)] {
            let speed = speed(network, path).with_context(|| format!("three hops, {who}"))?;
            // The first time pays for buffers and code pages.
            if round > 0 {
                say::step(format!(
                    "three hops, one circuit, round {round}: {who} {speed:.1} MiB/s"
                ));
                speeds.push(speed);
            }
        }
    }
    let ratios = Spread::of(ours.iter().zip(&theirs).map(|(one, other)| one / other)).context("no rounds")?;
    let median = |speeds: &[f64]| Spread::of(speeds.iter().copied()).map_or(f64::NAN, |spread| spread.median);
    Ok(format!(
        "one circuit, three hops, download: C tor {:.1} MiB/s, ours {:.1} MiB/s, ours/C tor {:.2} [{:.2}-{:.2}]\n",
        median(&theirs),
        median(&ours),
        ratios.median,
        ratios.least,
        ratios.most
    ))
}

fn speed(network: &Network, path: &[String; 3]) -> Result<f64> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let fetch = Fetch {
        patience: WARM_UP,
        ..Fetch::over(&names, CHAIN_BYTES, 1)
    };
    // A client that does not know the relays yet says so at once.
    let fetched = network.fetch(&fetch).or_else(|_| {
        std::thread::sleep(Duration::from_secs(2));
        network.fetch(&fetch)
    })?;
    Ok(fetched.mib_per_second)
}

/// CPU seconds a GiB of each worker, in all rounds together.
fn workers(network: &Network, nodes: &Nodes, lean: &Lean, rounds: usize) -> Result<String> {
    let mut text = String::from("| workers | CPU-s/GiB of each | CPU-s/GiB together |\n|---|---|---|\n");
    let mut busiest = Vec::new();
    for (node, count) in [(&nodes.one_worker, 1), (&nodes.two_workers, 2)] {
        let spent = spent(network, node, lean, rounds).with_context(|| format!("{count} workers"))?;
        ensure!(spent.len() == count, "{} workers where {count} should be", spent.len());
        let each: Vec<String> = spent.iter().map(|one| format!("{one:.2}")).collect();
        let _ = writeln!(
            text,
            "| {count} | {} | {:.2} |",
            each.join(", "),
            spent.iter().sum::<f64>()
        );
        busiest.push(spent.into_iter().fold(0.0, f64::max));
    }
    let [one, two] = busiest.as_slice() else {
        return Ok(text);
    };
    let _ = writeln!(text, "\nthe busiest worker of one / of two: {:.2}", one / two);
    Ok(text)
}

fn spent(network: &Network, node: &str, lean: &Lean, rounds: usize) -> Result<Vec<f64>> {
    let bytes = LINK_BYTES.to_string();
    let mut loads = Vec::new();
    for link in 0..LINKS {
        let mut what = vec!["exit", "--bytes", &bytes, "--streams", STREAMS, "--circuits", STREAMS];
        // Half of them each way.
        if link % 2 == 0 {
            what.push("--down");
        }
        loads.push(lean.start_beside(network, node, what)?);
    }
    let mut before = network.threads(node, "shard-");
    for round in 0..=rounds {
        std::thread::scope(|scope| {
            let threads: Vec<_> = loads.iter_mut().map(|load| scope.spawn(|| load.once())).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a load panicked"))?.map(drop))
        })?;
        if round == 0 {
            before = network.threads(node, "shard-");
        }
    }
    let after = network.threads(node, "shard-");
    loads.into_iter().try_for_each(|load| load.end())?;
    let gib = (LINKS as u64 * LINK_BYTES * rounds as u64) as f64 / f64::from(1 << 30);
    Ok(before
        .iter()
        .zip(after)
        .map(|(before, after)| (after - before) / gib)
        .collect())
}
