//! Floods: more of something than the relay can be glad of, from many addresses. What a flood costs us is as little as an
//! attacker would make it cost: nothing is checked, a handshake is computed once and sent again and again.

mod circuits;
mod crowd;
mod doors;
mod hoard;
mod streams;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use self::crowd::Crowd;
use crate::target::Target;

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// CREATE_FAST and DESTROY without end.
    Circuits,
    /// CREATE2 without end: a handshake each.
    Onionskins,
    /// TCP connections, made anew whenever one is closed.
    Connections,
    /// Link handshakes that stop: at TCP, in TLS, before VERSIONS, before NETINFO.
    HalfOpen,
    /// BEGIN without end, as a relay brings them.
    Streams,
    /// Documents, read as fast as they come.
    Directory,
    /// Documents that are asked for and never read: windows and queues towards the client fill.
    Sniper,
    /// Cells for a relay behind that never reads: queues away from the client fill.
    Hoard,
}

/// How much.
#[derive(clap::Args)]
pub(crate) struct Flood {
    #[arg(value_enum)]
    kind: Kind,
    /// The first of the addresses that it comes from; the others follow it
    #[arg(long)]
    from: Ipv4Addr,
    #[arg(long, default_value_t = 10)]
    sources: u32,
    /// From each address
    #[arg(long, default_value_t = 2)]
    links: usize,
    /// On each link
    #[arg(long, default_value_t = 8)]
    circuits: usize,
    /// On each circuit at the same time
    #[arg(long, default_value_t = 20)]
    streams: usize,
    /// Cells for each circuit of `hoard`
    #[arg(long, default_value_t = 2_400)]
    cells: u32,
    /// Attempts a second, all together; 0: as many as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Each time
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

/// What came of it, since the beginning.
#[derive(Default, Serialize)]
struct Done {
    seconds: f64,
    /// Circuits, connections, streams or requests that were tried.
    attempts: u64,
    /// And were let through.
    granted: u64,
    /// And were refused, by the reason of DESTROY or END.
    refused: BTreeMap<u8, u64>,
    /// Links that the relay closed.
    closed: u64,
    /// When the first and the last of them, in seconds.
    closed_first: Option<f64>,
    closed_last: Option<f64>,
    /// Links now.
    open: usize,
    /// Cells of documents that came, or cells that we sent into queues.
    cells: u64,
}

/// When it stops, and how fast it may go.
struct Pace {
    began: Instant,
    length: Duration,
    rate: u64,
}

impl Pace {
    fn over(&self) -> bool {
        self.began.elapsed() >= self.length
    }

    /// How many more may be tried now.
    fn leaves(&self, attempts: u64) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        let so_far = self.began.elapsed().as_secs_f64() * self.rate as f64;
        (so_far as u64).saturating_sub(attempts)
    }

    /// What share of its time is over, from 0 to 1.
    fn share(&self) -> f64 {
        (self.began.elapsed().as_secs_f64() / self.length.as_secs_f64().max(f64::EPSILON)).min(1.0)
    }
}

impl Flood {
    fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let first = u32::from(self.from);
        (0..self.sources).map(move |more| IpAddr::V4(Ipv4Addr::from(first.wrapping_add(more))))
    }

    /// Every link's address, those of one address next to each other.
    fn places(&self) -> impl Iterator<Item = IpAddr> {
        self.sources()
            .flat_map(|source| std::iter::repeat_n(source, self.links))
    }

    fn pace(&self) -> Pace {
        Pace {
            began: Instant::now(),
            length: Duration::from_secs(self.seconds),
            rate: self.rate,
        }
    }
}

pub(crate) fn run(target: &Target, flood: &Flood) -> Result<()> {
    ensure!(flood.sources > 0 && flood.links > 0, "a flood from nowhere");
    let mut crowd = Crowd::new(target)?;
    match flood.kind {
        Kind::Circuits | Kind::Onionskins => circuits::run(&mut crowd, target, flood),
        Kind::Connections | Kind::HalfOpen => doors::run(&mut crowd, target, flood),
        Kind::Streams | Kind::Directory | Kind::Sniper => streams::run(&mut crowd, target, flood),
        Kind::Hoard => hoard::run(&mut crowd, target, flood),
    }
}
