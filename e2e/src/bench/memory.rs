//! The memory that a relay has half a minute after its start, what links and circuits add to it, and what stays of that when
//! they are gone.
//!
//! All relays under test first take a few links or circuits, which brings in what the program needs once for the first of them;
//! then they take all the others, one relay after the other, and keep them; then all are ended at once, and a minute passes
//! for all. Before each look nothing happens for a while: what only the work needed is no cost of what stands idle.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lean::{Lean, Running};
use super::plan::{Layout, Place, Subject};
use crate::say;
use crate::tornet::Network;

/// From the start of a relay's process until its memory is taken.
const START: Duration = Duration::from_secs(30);
/// Links or circuits that come and go before any is counted.
const FIRST_FEW: &str = "64";
/// Allocators give back what they have no use for after some seconds: ours, and C tor's system's, if at all.
const SETTLED: Duration = Duration::from_secs(15);
/// From the end of links and circuits until what stays is taken.
const GIVEN_BACK: Duration = Duration::from_secs(60);

/// What is held, how many of them, and on which of the subjects' nodes: each has done nothing of the kind yet, for an
/// allocator keeps what it once had.
struct Held {
    name: &'static str,
    count: u16,
    what: &'static [&'static str],
    place: Place,
}

const HELD: [Held; 2] = [
    Held {
        name: "idle link",
        count: 1_000,
        what: &["idle", "--as-client"],
        place: Place::Guard,
    },
    Held {
        name: "open circuit (ntor-v3, 1 hop)",
        count: 10_000,
        what: &["onion", "--handshake", "ntor-v3", "--keep"],
        place: Place::Exit,
    },
];

/// A row of the table: its name, and each subject's values.
pub(super) type Row = (String, Vec<(Subject, Vec<f64>)>);

/// Takes some three and a half minutes.
pub(super) fn measured(network: &Network, layout: &Layout, lean: &Lean) -> Result<Vec<Row>> {
    let mut rows = vec![after_start(network, layout)?];
    for held in &HELD {
        rows.extend(held.measured(network, layout, lean)?);
    }
    Ok(rows)
}

fn after_start(network: &Network, layout: &Layout) -> Result<Row> {
    let mut found = Vec::new();
    for subject in layout.measured() {
        let node = layout.node(Place::Guard, subject).context("no such node")?;
        let age = network.age(&node).context("the relay under test ended")?;
        sleep(START.saturating_sub(age));
        let mebibytes = rss(network, &node)? / 1024.0;
        say::step(format!(
            "{subject}: RSS {mebibytes:.1} MiB, {:.0} s after its start",
            age.max(START).as_secs_f64()
        ));
        found.push((subject, vec![mebibytes]));
    }
    Ok(("RSS half a minute after start, MiB".to_owned(), found))
}

impl Held {
    fn measured(&self, network: &Network, layout: &Layout, lean: &Lean) -> Result<[Row; 2]> {
        let nodes = layout.measured().into_iter().map(|subject| {
            let node = layout.node(self.place, subject).context("no such node")?;
            Ok((subject, node))
        });
        let nodes: Vec<(Subject, String)> = nodes.collect::<Result<_>>()?;
        let rss_of_all = || -> Result<Vec<f64>> {
            sleep(SETTLED);
            nodes.iter().map(|(_, node)| rss(network, node)).collect()
        };
        for (_, node) in &nodes {
            self.hold(network, lean, node, FIRST_FEW)?.end()?;
        }
        let before = rss_of_all()?;
        let count = self.count.to_string();
        let held = nodes.iter().map(|(_, node)| self.hold(network, lean, node, &count));
        let held = held.collect::<Result<Vec<_>>>()?;
        let open = rss_of_all()?;
        held.into_iter().try_for_each(Running::end)?;
        sleep(GIVEN_BACK.saturating_sub(SETTLED));
        let after = rss_of_all()?;

        let (mut each, mut kept) = (Vec::new(), Vec::new());
        for ((((subject, _), before), open), after) in nodes.iter().zip(before).zip(open).zip(after) {
            let one = (open - before) / f64::from(self.count);
            let share = (after - before) / (open - before).max(1.0) * 100.0;
            say::step(format!(
                "{}: {subject} {one:.2} KiB; a minute after the end it still has {share:.0} % of it (RSS {before:.0}, {open:.0}, \
                 {after:.0} KiB)",
                self.name
            ));
            each.push((*subject, vec![one]));
            kept.push((*subject, vec![share]));
        }
        Ok([
            (format!("{}, RSS KiB", self.name), each),
            (format!("{}: still held a minute after the end, %", self.name), kept),
        ])
    }

    /// So many of them, until the load is ended.
    fn hold(&self, network: &Network, lean: &Lean, node: &str, count: &str) -> Result<Running> {
        let what = self.what.iter().copied().chain(["--count", count]);
        let mut running = lean.start_beside(network, node, what)?;
        running.once()?;
        Ok(running)
    }
}

/// KiB.
fn rss(network: &Network, node: &str) -> Result<f64> {
    let usage = network.usage(node).context("the relay under test ended")?;
    Ok(usage.rss_kib as f64)
}
