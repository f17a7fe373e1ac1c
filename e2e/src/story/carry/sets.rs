//! Sets of transfers over one path.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Carried, Position};
use crate::say;
use crate::tornet::{Direction, Fetch, Fetched, Network};

/// Until the first bytes must come through a path: an exit of ours may still fetch its first consensus.
const WARM_UP: Duration = Duration::from_secs(60);

/// Failures in a row after which the rest of a set counts as failed without being tried.
const FAILURES_IN_A_ROW_MAX: usize = 3;

/// What was tried.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) fetches: usize,
    pub(super) failures: usize,
}

/// All sets at one position: one stream down, many down, one up, many up.
pub(super) fn run(network: &Network, carried: &Carried, position: Position) -> Counts {
    let mut all = Counts::default();
    if let Err(error) = warm_up(network, carried, position) {
        say::step(format!("FAILED: {position}: no byte came through: {error:#}"));
        return Counts {
            fetches: 1,
            failures: 1,
        };
    }
    for (direction, streams) in [
        (Direction::Download, 1),
        (Direction::Download, carried.streams),
        (Direction::Upload, 1),
        (Direction::Upload, carried.streams),
    ] {
        let counts = set(network, carried, position, direction, streams);
        all.fetches += counts.fetches;
        all.failures += counts.failures;
    }
    all
}

fn fetch(carried: &Carried, position: Position, bytes: u64, streams: usize) -> Fetch {
    Fetch {
        pin: carried.pin,
        // A circuit each, so that each fills a window of its own.
        circuits: streams,
        // A slowest pace of half a MiB a second on a busy machine, and a minute for the circuits.
        patience: Duration::from_secs(60 + (bytes >> 19)),
        ..Fetch::over(&position.path(), bytes, streams)
    }
}

/// Asks for one byte until it comes.
fn warm_up(network: &Network, carried: &Carried, position: Position) -> Result<()> {
    let began = Instant::now();
    let first = Fetch {
        patience: Duration::from_secs(20),
        ..fetch(carried, position, 1, 1)
    };
    loop {
        match network.fetch(&first) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > WARM_UP => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn set(network: &Network, carried: &Carried, position: Position, direction: Direction, streams: usize) -> Counts {
    let fetch = Fetch {
        direction,
        ..fetch(carried, position, carried.bytes, streams)
    };
    let mut done: Vec<Fetched> = Vec::new();
    let (mut counts, mut in_a_row) = (Counts::default(), 0);
    for time in 1..=carried.times {
        counts.fetches += 1;
        if in_a_row >= FAILURES_IN_A_ROW_MAX {
            counts.failures += 1;
            continue;
        }
        match one(network, &fetch) {
            Ok(fetched) => {
                in_a_row = 0;
                done.push(fetched);
            }
            Err(error) => {
                in_a_row += 1;
                counts.failures += 1;
                say::step(format!("FAILED: {position}, {time} of {}: {error:#}", carried.times));
            }
        }
    }
    say::step(line(position, &fetch, counts, &done));
    counts
}

fn one(network: &Network, fetch: &Fetch) -> Result<Fetched> {
    let way = match fetch.direction {
        Direction::Download => "down",
        Direction::Upload => "up",
    };
    network
        .fetch(fetch)
        .with_context(|| format!("{} bytes {way} in {} streams", fetch.bytes, fetch.streams))
}

/// `middle  down 32 streams  20 × 100 MiB  21.3 30.1 35.0 MiB/s  0 failures  CPU-s/GiB: r1 9.1, r3 2.0, e1 11.0`.
fn line(position: Position, fetch: &Fetch, counts: Counts, done: &[Fetched]) -> String {
    let way = match fetch.direction {
        Direction::Download => "down",
        Direction::Upload => "up",
    };
    let mut pace: Vec<f64> = done.iter().map(|one| one.mib_per_second).collect();
    pace.sort_by(f64::total_cmp);
    let pick = |at: usize| pace.get(at).copied().unwrap_or_default();
    let gib: f64 = done.iter().map(|one| one.bytes as f64).sum::<f64>() / f64::from(1 << 30);
    let cpu: Vec<String> = fetch
        .path
        .iter()
        .map(|name| {
            let seconds: f64 = done.iter().filter_map(|one| one.cpu_seconds.get(name)).sum();
            format!("{name} {:.1}", if gib > 0.0 { seconds / gib } else { 0.0 })
        })
        .collect();
    format!(
        "{position:<6} {way:<4} {:>2} streams: {} × {:.1} MiB, sha256 equal {} times, {} failed; MiB/s {:.1} [{:.1}-{:.1}]; \
         CPU-s/GiB {}",
        fetch.streams,
        counts.fetches,
        fetch.bytes as f64 / f64::from(1 << 20),
        done.len(),
        counts.failures,
        pick(pace.len() / 2),
        pick(0),
        pick(pace.len().saturating_sub(1)),
        cpu.join(", ")
    )
}
