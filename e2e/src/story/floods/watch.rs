//! Who watches a relay while it is flooded: an honest client that goes on, and its memory, descriptors and threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::lean::{Lean, Running};
use crate::tornet::Network;
use crate::tornet::observe::Usage;

/// Cells of one honest transfer: short beside the length of a flood.
const CELLS: u64 = 8_000;

/// Bytes of a cell of the V0 format that are the client's.
const BYTES_OF_A_CELL: f64 = 498.0;

/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(100);

/// The most of each while somebody looked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) rss_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: u64,
}

impl Peak {
    fn note(&mut self, usage: &Usage) {
        self.rss_kib = self.rss_kib.max(usage.rss_kib);
        self.descriptors = self.descriptors.max(usage.descriptors);
        self.threads = self.threads.max(usage.threads);
    }
}

/// An honest client with eight circuits on one link, as fast as the relay lets it.
pub(super) struct Honest(Running);

impl Honest {
    pub(super) fn start(lean: &Lean, network: &Network, node: &str) -> Result<Self> {
        let cells = CELLS.to_string();
        let what = ["carry", "--as-client", "--circuits", "8", "--cells", &cells];
        lean.start(network, node, what).map(Self)
    }

    /// MiB a second, for as long as this lasts.
    pub(super) fn carry(&mut self, mut goes_on: impl FnMut(Duration) -> bool) -> Result<f64> {
        let began = Instant::now();
        let mut cells = 0;
        while goes_on(began.elapsed()) {
            let done = self.0.once().context("the honest client")?;
            cells += done.get("cells").and_then(Value::as_u64).unwrap_or_default();
        }
        Ok(cells as f64 * BYTES_OF_A_CELL / f64::from(1 << 20) / began.elapsed().as_secs_f64())
    }

    pub(super) fn end(self) -> Result<()> {
        self.0.end()
    }
}

/// Looks at a relay until it is told that this is over. None: it ended.
pub(super) fn peak(network: &Network, node: &str, over: &AtomicBool) -> Option<Peak> {
    let mut peak = Peak::default();
    while !over.load(Ordering::Relaxed) {
        peak.note(&network.usage(node)?);
        std::thread::sleep(LOOK);
    }
    peak.note(&network.usage(node)?);
    Some(peak)
}

/// How a stranger fares that comes in the middle of it all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer {
    /// Until its link is open, milliseconds.
    pub(super) link_ms: f64,
    /// Until a circuit is made on it, milliseconds, with all that were refused before.
    pub(super) circuit_ms: f64,
    /// How many were refused for one that was made.
    pub(super) refused_for_one: f64,
}

/// A link, then twenty circuits one after the other.
pub(super) fn newcomer(lean: &Lean, network: &Network, node: &str) -> Result<Newcomer> {
    let mut idle = lean.start(network, node, ["idle", "--as-client", "--count", "1"])?;
    let link = idle.once().context("a new link")?;
    idle.end()?;
    let mut onion = lean.start(network, node, ["onion", "--patient", "--count", "20", "--window", "1"])?;
    let circuits = onion.once().context("new circuits")?;
    onion.end()?;
    let number = |value: &Value, name| value.get(name).and_then(Value::as_f64).context("no time");
    Ok(Newcomer {
        link_ms: number(&link, "one_link_milliseconds")?,
        circuit_ms: number(&circuits, "seconds")? * 1e3 / 20.0,
        refused_for_one: number(&circuits, "refused")? / 20.0,
    })
}

/// `tor_relay_dos_total` by its label.
pub(super) fn counters(network: &Network, node: &str) -> Result<BTreeMap<String, u64>> {
    Ok(read(&network.metrics(node)?))
}

fn read(page: &str) -> BTreeMap<String, u64> {
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("tor_relay_dos_total{type=\""));
    lines
        .filter_map(|rest| {
            let (label, value) = rest.split_once("\"} ")?;
            Some((label.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Those that moved, and how far.
pub(super) fn moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let moved = after.iter().map(|(name, value)| {
        let was = before.get(name).copied().unwrap_or_default();
        (name.clone(), value.saturating_sub(was))
    });
    moved.filter(|(_, by)| *by > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_defences_counted_is_read_by_label() {
        let page = "# TYPE tor_relay_dos_total counter\ntor_relay_dos_total{type=\"circuit_rejected\"} 311\n\
                    tor_relay_dos_total{type=\"conn_rejected\"} 0\ntor_relay_dos{type=\"x\"} 7\n";
        let after = read(page);
        assert_eq!(after.len(), 2);
        let before = BTreeMap::from([("circuit_rejected".to_owned(), 300)]);
        assert_eq!(
            moved(&before, &after),
            BTreeMap::from([("circuit_rejected".to_owned(), 11)])
        );
    }
}
