//! How much a single link may move whose peer is no relay of the consensus: torrc's `PerConnBWRate` and `PerConnBWBurst`, or
//! the consensus' `perconnbwrate` and `perconnbwburst` where torrc is silent (C tor,
//! `connection_or_update_token_buckets_helper`). It holds beside the relay's own rate, and for private peers too.
//!
//! C tor gives listed relays such buckets of `BandwidthRate` as well; they could only bind where private peers are not counted.

use std::time::Duration;

use relay_engine::network::Parameters;
use relay_formats::torrc::Bandwidth;

use super::{Purse, SHARE_BYTES_MIN, Way};

/// Rate and burst of one link, for either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimit {
    /// 1 to 2 GiB - 1.
    pub bytes_per_second_max: u64,
    /// 1 to 2 GiB - 1.
    pub bytes_burst_max: u64,
}

impl LinkLimit {
    /// What torrc and consensus make of it. None where neither says anything: their default is the relay's own rate.
    pub fn of(bandwidth: &Bandwidth, parameters: &Parameters) -> Option<Self> {
        let pick = |torrc: Option<u64>, name: &str, default: u64| match torrc {
            Some(bytes) => bytes,
            None => {
                let default = i32::try_from(default).unwrap_or(i32::MAX);
                u64::from(parameters.clamped(name, default, 1, i32::MAX).unsigned_abs())
            }
        };
        let (rate, burst) = (bandwidth.bytes_per_second_max, bandwidth.bytes_burst_max);
        let limit = Self {
            bytes_per_second_max: pick(bandwidth.link.bytes_per_second_max, "perconnbwrate", rate),
            bytes_burst_max: pick(bandwidth.link.bytes_burst_max, "perconnbwburst", burst),
        };
        let binds = limit.bytes_per_second_max < rate || limit.bytes_burst_max < burst;
        binds.then_some(limit)
    }
}

/// The buckets of one link.
pub struct LinkBuckets {
    read: Purse,
    written: Purse,
}

impl LinkBuckets {
    /// Full ones.
    pub fn new(limit: LinkLimit) -> Self {
        let purse = || Purse::new(limit.bytes_per_second_max, limit.bytes_burst_max);
        Self {
            read: purse(),
            written: purse(),
        }
    }

    /// New limits; what is in the buckets stays, as far as the new burst holds it.
    pub fn adjust(&mut self, now: Duration, limit: LinkLimit) {
        for purse in [&mut self.read, &mut self.written] {
            purse
                .bucket
                .adjust(now, limit.bytes_per_second_max, limit.bytes_burst_max);
        }
    }

    /// Bytes that may be moved in this turn, `bytes_max` at most. None: not before the next refill. Who has anything left
    /// may move some cells and owes what goes beyond, as a burst may be smaller than a cell.
    pub fn share(&mut self, now: Duration, way: Way, bytes_max: usize) -> Option<usize> {
        let there = self.purse(way).available(now);
        let share = usize::try_from(there.max(SHARE_BYTES_MIN)).unwrap_or(usize::MAX);
        (there > 0).then(|| share.min(bytes_max))
    }

    /// Counts what was moved.
    pub fn take(&mut self, now: Duration, way: Way, bytes: usize) {
        self.purse(way).take(now, bytes as u64);
    }

    fn purse(&mut self, way: Way) -> &mut Purse {
        match way {
            Way::Read => &mut self.read,
            Way::Write => &mut self.written,
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_formats::torrc::{LinkBandwidth, Torrc};

    use super::*;

    fn bandwidth(lines: &str) -> Bandwidth {
        let torrc = format!("ORPort 9001\nBandwidthRate 10 MB\nBandwidthBurst 20 MB\n{lines}");
        Torrc::parse(&torrc).unwrap().bandwidth
    }

    fn consensus(parameters: &[(&str, i32)]) -> Parameters {
        Parameters(
            parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        )
    }

    /// Moves as much as it may for so many seconds, in steps of a refill.
    fn moved(buckets: &mut LinkBuckets, way: Way, from: Duration, seconds: u32) -> u64 {
        let mut sum = 0;
        for step in 0..seconds * 10 {
            let now = from + super::super::REFILL_EVERY * step;
            while let Some(share) = buckets.share(now, way, 64 * 1024) {
                buckets.take(now, way, share + 22);
                sum += share as u64 + 22;
            }
        }
        sum
    }

    #[test]
    fn torrc_comes_before_the_consensus_and_the_relays_own_rate_stands_in_for_both() {
        let silent = consensus(&[]);
        assert_eq!(LinkLimit::of(&bandwidth(""), &silent), None);
        assert_eq!(
            LinkLimit::of(&bandwidth("PerConnBWRate 0\nPerConnBWBurst 0"), &silent),
            None
        );
        let of = |lines, parameters: &[(&str, i32)]| {
            let limit = LinkLimit::of(&bandwidth(lines), &consensus(parameters))?;
            Some((limit.bytes_per_second_max, limit.bytes_burst_max))
        };
        let voted: &[(&str, i32)] = &[("perconnbwrate", 100_000), ("perconnbwburst", 300_000)];
        assert_eq!(of("", voted), Some((100_000, 300_000)));
        assert_eq!(of("PerConnBWRate 50000 bytes", voted), Some((50_000, 300_000)));
        assert_eq!(of("PerConnBWBurst 7 bytes", voted), Some((100_000, 7)));
        assert_eq!(of("PerConnBWRate 1 MB", &[]), Some((1 << 20, 20 << 20)));
        // Nonsense is clamped, and what is above the relay's own rate binds nobody.
        assert_eq!(of("", &[("perconnbwrate", -5), ("perconnbwburst", 0)]), Some((1, 1)));
        assert_eq!(of("PerConnBWRate 1 GB\nPerConnBWBurst 1 GB", voted), None);
    }

    #[test]
    fn after_its_burst_a_link_moves_at_its_rate_both_ways_alike() {
        let mut link = bandwidth("");
        link.link = LinkBandwidth {
            bytes_per_second_max: Some(50_000),
            bytes_burst_max: Some(200_000),
        };
        let limit = LinkLimit::of(&link, &Parameters::default()).unwrap();
        let mut buckets = LinkBuckets::new(limit);
        for way in [Way::Read, Way::Write] {
            let bytes = moved(&mut buckets, way, Duration::ZERO, 20);
            assert!(bytes.abs_diff(200_000 + 20 * 50_000) < 10_000, "{bytes}");
        }
        // A new torrc: what was saved up beyond the new burst is gone.
        let later = Duration::from_secs(100);
        let narrow = LinkLimit {
            bytes_per_second_max: 1_000,
            bytes_burst_max: 10_000,
        };
        buckets.adjust(later, narrow);
        let bytes = moved(&mut buckets, Way::Read, later, 20);
        assert!(bytes.abs_diff(30_000) < 4_000, "{bytes}");
    }

    #[test]
    fn a_burst_smaller_than_a_cell_slows_a_link_and_does_not_stop_it() {
        let limit = LinkLimit {
            bytes_per_second_max: 100,
            bytes_burst_max: 1,
        };
        let mut buckets = LinkBuckets::new(limit);
        // A refill never holds more than the burst: a byte every tenth of a second.
        let bytes = moved(&mut buckets, Way::Write, Duration::ZERO, 1_000);
        assert!((5_000..15_000).contains(&bytes), "{bytes}");
    }
}
