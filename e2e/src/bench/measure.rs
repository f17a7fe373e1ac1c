//! One measurement.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::plan::{Case, Layout, Place, Subject};
use crate::tornet::{Fetch, Network};

const GIB: f64 = (1_u64 << 30) as f64;

/// Until the first byte must come through a path.
pub(super) const WARM_UP: Duration = Duration::from_secs(60);

/// What one transfer cost the relay under test.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    pub(super) subject: Subject,
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) round: usize,
    pub(super) mib_per_second: f64,
    /// User and system time of all threads, for 2^30 bytes of the streams.
    pub(super) cpu_seconds_per_gib: f64,
    /// Of the streams' data; SENDMEs not counted.
    pub(super) cells_per_cpu_second: f64,
    /// Afterwards.
    pub(super) rss_mib: f64,
    /// What everything else took meanwhile: the other hops and the client, or the lean load.
    pub(super) other_cpu_seconds: f64,
    pub(super) seconds: f64,
}

/// What was counted, before it is divided.
pub(super) struct Counted {
    pub(super) cells: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) other_cpu_seconds: f64,
    pub(super) rss_kib: u64,
}

impl Counted {
    pub(super) fn sample(self, subject: Subject, case: Case, round: usize) -> Sample {
        Sample {
            subject,
            case,
            round,
            mib_per_second: self.bytes as f64 / self.seconds / f64::from(1 << 20),
            cpu_seconds_per_gib: self.cpu_seconds * GIB / self.bytes as f64,
            cells_per_cpu_second: self.cells as f64 / self.cpu_seconds.max(f64::EPSILON),
            rss_mib: self.rss_kib as f64 / 1024.0,
            other_cpu_seconds: self.other_cpu_seconds,
            seconds: self.seconds,
        }
    }
}

pub(super) fn one(network: &Network, layout: &Layout, case: Case, subject: Subject, round: usize) -> Result<Sample> {
    let node = layout.node(case.place, subject).context("no such node")?;
    let fetched = network
        .fetch(&fetch(layout, case, subject)?)
        .with_context(|| format!("{subject} as {}, {} streams {}", case.place, case.streams, case.way))?;
    let cpu = fetched.cpu_seconds.get(&node).copied().context("the relay ended")?;
    let all: f64 = fetched.cpu_seconds.values().sum();
    let counted = Counted {
        cells: case.cells(),
        bytes: case.bytes,
        seconds: fetched.seconds,
        cpu_seconds: cpu,
        other_cpu_seconds: all - cpu,
        rss_kib: fetched.rss_kib.get(&node).copied().unwrap_or_default(),
    };
    Ok(counted.sample(subject, case, round))
}

/// Asks for one byte until it comes, then for some more: a first transfer pays for buffers and code pages.
pub(super) fn warm_up(network: &Network, layout: &Layout, place: Place, subject: Subject) -> Result<()> {
    let case = |bytes, streams| Case {
        place,
        way: super::Way::Down,
        streams,
        bytes,
    };
    let began = Instant::now();
    let first = Fetch {
        patience: Duration::from_secs(20),
        ..fetch(layout, case(1, 1), subject)?
    };
    loop {
        match network.fetch(&first) {
            Ok(_) => break,
            Err(error) if began.elapsed() > WARM_UP => {
                return Err(error).with_context(|| format!("no byte came through {subject} as {place}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    one(network, layout, case(8 << 20, 32), subject, 0).map(drop)
}

pub(super) fn fetch(layout: &Layout, case: Case, subject: Subject) -> Result<Fetch> {
    let path = layout.path(case.place, subject).context("no such path")?;
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    Ok(Fetch {
        circuits: case.circuits(),
        direction: case.way.direction(),
        patience: Duration::from_secs(60 + (case.bytes >> 19)),
        ..Fetch::over(&names, case.bytes, case.streams)
    })
}
