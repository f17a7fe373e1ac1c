//! The memory that a relay has half a minute after its start, what links and circuits add to it, and what stays of that when
//! they are gone.
//!
//! All relays under test first take the links or circuits, one after the other, and keep them; then all are ended at once,
//! and a minute passes for all.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lean::Lean;
use super::plan::{Layout, Place, Subject};
use crate::say;
use crate::tornet::Network;

/// From the start of a relay's process until its memory is taken.
const START: Duration = Duration::from_secs(30);
/// From the end of links and circuits until what stays is taken.
const GIVEN_BACK: Duration = Duration::from_secs(60);

/// What is held, how many of them, and on which of the subjects' nodes: each has done nothing of the kind yet, for an
/// allocator keeps what it once had.
struct Held {
    name: &'static str,
    count: f64,
    what: &'static [&'static str],
    place: Place,
}

const HELD: [Held; 2] = [
    Held {
        name: "idle link",
        count: 1_000.0,
        what: &["idle", "--as-client", "--count", "1000"],
        place: Place::Guard,
    },
    Held {
        name: "open circuit (ntor-v3, 1 hop)",
        count: 10_000.0,
        what: &["onion", "--handshake", "ntor-v3", "--keep", "--count", "10000"],
        place: Place::Exit,
    },
];

/// A row of the table: its name, and each subject's values.
pub(super) type Row = (String, Vec<(Subject, Vec<f64>)>);

/// Takes some two and a half minutes.
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
        let (mut each, mut kept, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for subject in layout.measured() {
            let node = layout.node(self.place, subject).context("no such node")?;
            let mut running = lean.start_beside(network, &node, self.what.iter().copied())?;
            let before = rss(network, &node)?;
            running.once()?;
            // The relay may still be busy with the last of it.
            sleep(Duration::from_millis(200));
            let grown = rss(network, &node)? - before;
            say::step(format!("{}: {subject} {:.2} KiB", self.name, grown / self.count));
            each.push((subject, vec![grown / self.count]));
            open.push((subject, node, before, grown, running));
        }
        let mut closed = Vec::new();
        for (subject, node, before, grown, running) in open {
            running.end()?;
            closed.push((subject, node, before, grown));
        }
        sleep(GIVEN_BACK);
        for (subject, node, before, grown) in closed {
            let share = (rss(network, &node)? - before) / grown.max(1.0) * 100.0;
            say::step(format!("{}: {subject} still has {share:.0} % of it", self.name));
            kept.push((subject, vec![share]));
        }
        Ok([
            (format!("{}, RSS KiB", self.name), each),
            (format!("{}: still held a minute after the end, %", self.name), kept),
        ])
    }
}

/// KiB.
fn rss(network: &Network, node: &str) -> Result<f64> {
    let usage = network.usage(node).context("the relay under test ended")?;
    Ok(usage.rss_kib as f64)
}
