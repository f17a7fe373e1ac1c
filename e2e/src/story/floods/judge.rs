//! What is asked of a relay that was flooded, and the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::plan::Flood;
use super::watch::{Newcomer, Peak};
use crate::tornet::observe::Usage;

/// Beyond `MaxMemInQueues`, MiB: what a relay of this network holds that is no queue. docs/performance.md names its parts.
pub(super) const CONSTANT_MIB: u64 = 128;

/// Memory that may stay after the flood: a fifth more than before, and this many MiB (our own number).
const KEPT_MIB: u64 = 32;

/// Descriptors that may stay: links of neighbours come and go.
const DESCRIPTORS_MORE_MAX: usize = 20;

/// What was seen of one relay in one flood.
pub(super) struct Seen {
    pub(super) who: &'static str,
    pub(super) ours: bool,
    /// MiB a second of the honest client.
    pub(super) before_mib: f64,
    pub(super) during_mib: f64,
    pub(super) before: Usage,
    pub(super) peak: Peak,
    pub(super) after: Usage,
    /// Until all was given back, or as long as was waited.
    pub(super) after_seconds: f64,
    pub(super) counters: BTreeMap<String, u64>,
    /// None: it was not served.
    pub(super) newcomer: Option<Newcomer>,
    /// What the flood says of itself.
    pub(super) flood: Value,
}

/// Whether a relay holds no more than it did before.
pub(super) fn given_back(before: &Usage, now: &Usage) -> bool {
    now.rss_kib <= before.rss_kib * 6 / 5 + KEPT_MIB * 1_024
        && now.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX
        && now.threads <= before.threads
}

impl Seen {
    pub(super) fn ratio(&self) -> f64 {
        self.during_mib / self.before_mib.max(f64::EPSILON)
    }

    /// What is wrong, if anything.
    pub(super) fn faults(&self, flood: &Flood, queues_mib: u64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.ratio() < 0.5 {
            faults.push(format!("honest bytes fell to {:.0} %", self.ratio() * 100.0));
        }
        let most = queues_mib + CONSTANT_MIB;
        if self.peak.rss_kib > most << 10 {
            faults.push(format!("{} MiB are more than {most}", self.peak.rss_kib >> 10));
        }
        if !given_back(&self.before, &self.after) {
            faults.push(format!("not all given back after {:.0} s", self.after_seconds));
        }
        for name in flood.counters {
            if !self.counters.contains_key(*name) {
                faults.push(format!("{name} did not move"));
            }
        }
        let open = self.flood.get("open").and_then(Value::as_u64).unwrap_or_default();
        if flood.closes_all && open > 0 {
            faults.push(format!("{open} handshakes still held after {} s", flood.seconds));
        }
        if self.newcomer.is_none() {
            faults.push("a newcomer was not served".to_owned());
        }
        if self.newcomer.is_some_and(|new| new.circuit_ms > 500.0) {
            faults.push("a newcomer's circuit took more than half a second".to_owned());
        }
        faults
    }

    /// A row of the table.
    pub(super) fn row(&self, flood: &Flood, faults: &[String]) -> String {
        let mib = |kib: u64| kib >> 10;
        let counters: Vec<String> = self
            .counters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let newcomer = self.newcomer.map_or_else(
            || "–".to_owned(),
            |new| {
                format!(
                    "{:.0} / {:.1} ms ({:.1} refused)",
                    new.link_ms, new.circuit_ms, new.refused_for_one
                )
            },
        );
        let number = |name| self.flood.get(name).and_then(Value::as_u64).unwrap_or_default();
        let refused: u64 = self
            .flood
            .get("refused")
            .and_then(Value::as_object)
            .map_or(0, |all| all.values().filter_map(Value::as_u64).sum());
        format!(
            "| {} | {} | {} / {} / {} | {:.1} / {:.1} ({:.2}) | {} | {} / {} / {} ({:.0} s) | {} / {} / {} | {} / {} / {} | {} | {} |",
            flood.name,
            self.who,
            number("attempts"),
            number("granted"),
            refused + number("closed"),
            self.before_mib,
            self.during_mib,
            self.ratio(),
            newcomer,
            mib(self.before.rss_kib),
            mib(self.peak.rss_kib),
            mib(self.after.rss_kib),
            self.after_seconds,
            self.before.descriptors,
            self.peak.descriptors,
            self.after.descriptors,
            self.before.threads,
            self.peak.threads,
            self.after.threads,
            if counters.is_empty() {
                "–".to_owned()
            } else {
                counters.join(", ")
            },
            if faults.is_empty() {
                "holds".to_owned()
            } else {
                faults.join("; ")
            },
        )
    }
}

/// The rows with their head.
pub(super) fn table(rows: &[String]) -> String {
    let mut text = String::from(
        "| flood | relay | tried / let in / refused | honest MiB/s before / during (ratio) | newcomer: link / circuit | RSS MiB \
         before / peak / after | descriptors | threads | tor_relay_dos_total | verdict |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(text, "{row}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::plan::FLOODS;
    use super::*;

    fn usage(rss_mib: u64, descriptors: usize, threads: u64) -> Usage {
        Usage {
            pid: 1,
            user_seconds: 0.0,
            system_seconds: 0.0,
            run_seconds: 0.0,
            rss_kib: rss_mib << 10,
            rss_peak_kib: 0,
            threads,
            descriptors,
        }
    }

    fn seen() -> Seen {
        Seen {
            who: "ours",
            ours: true,
            before_mib: 40.0,
            during_mib: 30.0,
            before: usage(50, 30, 9),
            peak: Peak {
                rss_kib: 200 << 10,
                descriptors: 80,
                threads: 9,
            },
            after: usage(60, 31, 9),
            after_seconds: 3.0,
            counters: BTreeMap::from([("circuit_rejected".to_owned(), 7), ("marked_address".to_owned(), 1)]),
            newcomer: Some(Newcomer {
                link_ms: 5.0,
                circuit_ms: 1.0,
                refused_for_one: 0.0,
            }),
            flood: Value::Null,
        }
    }

    #[test]
    fn each_thing_that_is_asked_for_can_fail() {
        let flood = FLOODS.iter().find(|flood| flood.name == "circuits").unwrap();
        let faults = |seen: Seen| seen.faults(flood, 256).len();
        assert_eq!(faults(seen()), 0);
        assert_eq!(
            faults(Seen {
                during_mib: 19.0,
                ..seen()
            }),
            1
        );
        let peak = Peak {
            rss_kib: 400 << 10,
            ..seen().peak
        };
        assert_eq!(faults(Seen { peak, ..seen() }), 1);
        assert_eq!(
            faults(Seen {
                after: usage(120, 30, 9),
                ..seen()
            }),
            1
        );
        assert_eq!(
            faults(Seen {
                after: usage(50, 60, 9),
                ..seen()
            }),
            1
        );
        assert_eq!(
            faults(Seen {
                after: usage(50, 30, 10),
                ..seen()
            }),
            1
        );
        assert_eq!(
            faults(Seen {
                counters: BTreeMap::new(),
                ..seen()
            }),
            2
        );
        assert_eq!(
            faults(Seen {
                newcomer: None,
                ..seen()
            }),
            1
        );
        let held = FLOODS.iter().find(|flood| flood.closes_all).unwrap();
        let flooded = Seen {
            flood: serde_json::json!({"open": 3}),
            ..seen()
        };
        assert_eq!(flooded.faults(held, 256).len(), 1);
    }
}
