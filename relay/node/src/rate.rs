//! How fast the relay may read and write: torrc's `BandwidthRate`, `RelayBandwidthRate` and their bursts.
//!
//! One pair of buckets for each way, shared by all shards: a byte on a link counts in both. They are refilled in steps;
//! who finds one empty waits for the next. A peer of a private network is not counted unless torrc wants it
//! (`CountPrivateBandwidth`), as in C tor's `connection_is_rate_limited`. Touches no socket; the time is told.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use relay_engine::flow::TokenBucket;
use relay_engine::network::Parameters;
use relay_formats::exit_policy::private_networks;
use relay_formats::torrc::Bandwidth;

pub mod links;

use links::LinkLimit;

/// How often the buckets are refilled, as C tor does by default (`TokenBucketRefillInterval`).
pub const REFILL_EVERY: Duration = Duration::from_millis(100);

/// How soon somebody who has found the quota's ceiling reached tries again.
const CEILING_RETRY: Duration = Duration::from_millis(5);

/// Bytes that one turn of a connection is worth at least: four cells (C tor, `connection_bucket_get_share`). With less
/// in the bucket nobody has a turn.
pub const SHARE_BYTES_MIN: u64 = 4 * 514;

/// How often an empty bucket counts.
const REACHED_EVERY: Duration = Duration::from_secs(60);

/// One connection gets no more than this part of what is there (C tor has the same).
const SHARE_DIVISOR: u64 = 8;

/// Which way bytes go over a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the peer to us.
    Read,
    /// From us to the peer.
    Write,
}

/// What torrc wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rates and bursts.
    pub bandwidth: Bandwidth,
    /// torrc `CountPrivateBandwidth`.
    pub count_private: bool,
}

/// The buckets of the whole relay.
pub struct RateLimits {
    born: Instant,
    buckets: Mutex<Buckets>,
    /// Called when somebody finds the quota's ceiling reached, once for each ceiling.
    on_ceiling: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct Buckets {
    bandwidth: Bandwidth,
    count_private: bool,
    read: Pair,
    write: Pair,
    read_reached: Reached,
    write_reached: Reached,
    /// Bytes moved since the start, both ways, of those that count.
    counted: (u64, u64),
    ceiling: Ceiling,
    /// Somebody has found the ceiling reached.
    ceiling_said: bool,
}

/// What the quota leaves (`AccountingMax`). Bytes of links and exit streams, as far as they count at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// That may be read.
    pub read_left: u64,
    /// That may be written.
    pub written_left: u64,
    /// That may be moved, either way.
    pub both_left: u64,
}

impl Ceiling {
    const NONE: Self = Self {
        read_left: u64::MAX,
        written_left: u64::MAX,
        both_left: u64::MAX,
    };

    fn left(&self, way: Way) -> u64 {
        let left = match way {
            Way::Read => self.read_left,
            Way::Write => self.written_left,
        };
        left.min(self.both_left)
    }

    fn take(&mut self, read: u64, written: u64) {
        let take = |left: &mut u64, bytes: u64| {
            if *left != u64::MAX {
                *left = left.saturating_sub(bytes);
            }
        };
        take(&mut self.read_left, read);
        take(&mut self.written_left, written);
        take(&mut self.both_left, read.saturating_add(written));
    }
}

/// How often a bucket was found empty: once a minute at most, as C tor counts it (`rep_hist_note_overload`).
#[derive(Default)]
struct Reached {
    times: u64,
    counted: Option<Duration>,
}

impl Reached {
    fn note(&mut self, now: Duration) {
        if self.counted.is_none_or(|before| now >= before + REACHED_EVERY) {
            self.times += 1;
            self.counted = Some(now);
        }
    }
}

impl RateLimits {
    /// Full buckets. All times told later count from `born`.
    pub fn new(born: Instant, limits: Limits) -> Self {
        let buckets = Buckets {
            bandwidth: limits.bandwidth,
            count_private: limits.count_private,
            read: Pair::new(limits.bandwidth),
            write: Pair::new(limits.bandwidth),
            read_reached: Reached::default(),
            write_reached: Reached::default(),
            counted: (0, 0),
            ceiling: Ceiling::NONE,
            ceiling_said: false,
        };
        Self {
            born,
            buckets: Mutex::new(buckets),
            on_ceiling: OnceLock::new(),
        }
    }

    /// After a reload. What is in the buckets stays, as far as the new bursts hold it.
    pub fn change(&self, now: Instant, limits: Limits) {
        let now = self.step(now);
        let mut buckets = self.buckets();
        buckets.bandwidth = limits.bandwidth;
        buckets.count_private = limits.count_private;
        buckets.read.adjust(now, limits.bandwidth);
        buckets.write.adjust(now, limits.bandwidth);
    }

    /// Bytes that a link to `peer` may move in this turn: `bytes_max`, an eighth of what is there, or
    /// [`SHARE_BYTES_MIN`]. None: not before [`next_refill`](Self::next_refill).
    pub fn share(&self, now: Instant, way: Way, peer: IpAddr, bytes_max: usize) -> Option<usize> {
        self.share_of(now, way, peer, bytes_max, |buckets, now| {
            buckets.pair(way).available(now)
        })
    }

    /// The same for a stream to a destination, which is no relayed traffic in C tor's eyes
    /// (`connection_counts_as_relayed_traffic`): what it carries is counted on its link already.
    pub fn share_exit(&self, now: Instant, way: Way, peer: IpAddr, bytes_max: usize) -> Option<usize> {
        self.share_of(now, way, peer, bytes_max, |buckets, now| {
            buckets.pair(way).all.available(now)
        })
    }

    fn share_of(
        &self,
        now: Instant,
        way: Way,
        peer: IpAddr,
        bytes_max: usize,
        available: impl FnOnce(&mut Buckets, Duration) -> u64,
    ) -> Option<usize> {
        let now = self.step(now);
        let mut buckets = self.buckets();
        if !buckets.counts(peer) {
            return Some(bytes_max);
        }
        let left = buckets.ceiling.left(way);
        let there = available(&mut buckets, now).min(left);
        if there < SHARE_BYTES_MIN {
            if left < SHARE_BYTES_MIN && !std::mem::replace(&mut buckets.ceiling_said, true) {
                // The keeper of the quota is to look at once: it gives more room, or ends all links before much more comes in.
                self.on_ceiling.get().iter().for_each(|tell| tell());
            }
            return None;
        }
        let share = (there / SHARE_DIVISOR).max(SHARE_BYTES_MIN);
        Some(usize::try_from(share).unwrap_or(usize::MAX).min(bytes_max))
    }

    /// Counts what a link to `peer` has moved. More than was there is owed, and paid by the next refills.
    pub fn take(&self, now: Instant, way: Way, peer: IpAddr, bytes: usize) {
        let now = self.step(now);
        let mut buckets = self.buckets();
        if buckets.counts(peer) {
            buckets.count(way, bytes as u64);
            let pair = buckets.pair(way);
            pair.take(now, bytes as u64);
            if pair.available(now) == 0 {
                buckets.reached(way).note(now);
            }
        }
    }

    /// Counts what a stream to a destination has moved.
    pub fn take_exit(&self, now: Instant, way: Way, peer: IpAddr, bytes: usize) {
        let now = self.step(now);
        let mut buckets = self.buckets();
        if buckets.counts(peer) {
            buckets.count(way, bytes as u64);
            let all = &mut buckets.pair(way).all;
            all.take(now, bytes as u64);
            if all.available(now) == 0 {
                buckets.reached(way).note(now);
            }
        }
    }

    /// Bytes read and written since the start, of those that count.
    pub fn counted(&self) -> (u64, u64) {
        self.buckets().counted
    }

    /// What may be moved beyond what had been `counted`; none lifts the ceiling.
    pub fn set_ceiling(&self, ceiling: Option<Ceiling>, counted: (u64, u64)) {
        let mut buckets = self.buckets();
        let (read, written) = buckets.counted;
        let mut ceiling = ceiling.unwrap_or(Ceiling::NONE);
        ceiling.take(read.saturating_sub(counted.0), written.saturating_sub(counted.1));
        (buckets.ceiling, buckets.ceiling_said) = (ceiling, false);
    }

    /// Whom to tell that the ceiling is reached; only the first one is told.
    pub fn on_ceiling(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_ceiling.set(Box::new(tell));
    }

    /// Minutes in which the relay's rate was reached that way.
    pub fn times_reached(&self, way: Way) -> u64 {
        self.buckets().reached(way).times
    }

    /// When the buckets are refilled next; where it is the quota's ceiling that is reached, when that may have been raised.
    pub fn next_refill(&self, now: Instant) -> Instant {
        match self.buckets().ceiling_said {
            true => now + CEILING_RETRY,
            false => self.born + self.step(now) + REFILL_EVERY,
        }
    }

    /// What a link may move whose peer is no relay of the consensus; none where the relay's own rate alone holds it.
    pub fn link_limit(&self, parameters: &Parameters) -> Option<LinkLimit> {
        LinkLimit::of(&self.buckets().bandwidth, parameters)
    }

    /// The last refill at or before `now`, counted from `born`: the time of all buckets.
    pub fn step(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.born);
        let steps = passed.as_millis() / REFILL_EVERY.as_millis();
        REFILL_EVERY.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // Numbers only: there is no half-done state to fear.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn pair(&mut self, way: Way) -> &mut Pair {
        match way {
            Way::Read => &mut self.read,
            Way::Write => &mut self.write,
        }
    }

    fn count(&mut self, way: Way, bytes: u64) {
        let (read, written) = match way {
            Way::Read => (bytes, 0),
            Way::Write => (0, bytes),
        };
        self.counted.0 = self.counted.0.saturating_add(read);
        self.counted.1 = self.counted.1.saturating_add(written);
        self.ceiling.take(read, written);
    }

    fn reached(&mut self, way: Way) -> &mut Reached {
        match way {
            Way::Read => &mut self.read_reached,
            Way::Write => &mut self.write_reached,
        }
    }

    fn counts(&self, peer: IpAddr) -> bool {
        self.count_private || !private_networks().iter().any(|network| network.contains(peer))
    }
}

/// Both limits of one way.
struct Pair {
    all: Purse,
    relayed: Purse,
}

impl Pair {
    fn new(bandwidth: Bandwidth) -> Self {
        let [all, relayed] = rates(bandwidth).map(|(rate, burst)| Purse::new(rate, burst));
        Self { all, relayed }
    }

    fn adjust(&mut self, now: Duration, bandwidth: Bandwidth) {
        let [all, relayed] = rates(bandwidth);
        self.all.bucket.adjust(now, all.0, all.1);
        self.relayed.bucket.adjust(now, relayed.0, relayed.1);
    }

    fn available(&mut self, now: Duration) -> u64 {
        self.all.available(now).min(self.relayed.available(now))
    }

    fn take(&mut self, now: Duration, bytes: u64) {
        self.all.take(now, bytes);
        self.relayed.take(now, bytes);
    }
}

/// Rate and burst for all traffic, and for relayed traffic, which is limited as all is where torrc does not say more.
fn rates(bandwidth: Bandwidth) -> [(u64, u64); 2] {
    let all = (bandwidth.bytes_per_second_max, bandwidth.bytes_burst_max);
    let relayed = bandwidth
        .relayed
        .map(|relayed| (relayed.bytes_per_second_max, relayed.bytes_burst_max));
    [all, relayed.unwrap_or(all)]
}

/// A bucket that remembers what was taken beyond its bottom: TLS adds its part only after the share is dealt.
struct Purse {
    bucket: TokenBucket,
    owed: u64,
}

impl Purse {
    fn new(rate: u64, burst: u64) -> Self {
        Self {
            bucket: TokenBucket::new(Duration::ZERO, rate, burst),
            owed: 0,
        }
    }

    fn available(&mut self, now: Duration) -> u64 {
        let there = self.bucket.available(now);
        let paid = self.owed.min(there);
        self.bucket.take(paid);
        self.owed -= paid;
        there - paid
    }

    fn take(&mut self, now: Duration, bytes: u64) {
        let there = self.available(now);
        self.bucket.take(bytes);
        self.owed = self.owed.saturating_add(bytes.saturating_sub(there));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_formats::torrc::{LinkBandwidth, RelayedBandwidth};

    use super::*;

    const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const MEGABYTE: u64 = 1 << 20;

    fn limits(rate: u64, burst: u64) -> Limits {
        Limits {
            bandwidth: Bandwidth {
                bytes_per_second_max: rate,
                bytes_burst_max: burst,
                relayed: None,
                advertised_max: 1 << 30,
                link: LinkBandwidth::default(),
            },
            count_private: false,
        }
    }

    /// Moves as much as it may until `until`, with `overhead` bytes more at each turn; what it moved.
    fn move_all(rates: &RateLimits, way: Way, from: Instant, until: Instant, overhead: usize) -> u64 {
        let (mut now, mut moved) = (from, 0);
        while now < until {
            match rates.share(now, way, PUBLIC, 64 * 1024) {
                Some(share) => {
                    rates.take(now, way, PUBLIC, share + overhead);
                    moved += (share + overhead) as u64;
                }
                None => now = rates.next_refill(now),
            }
        }
        moved
    }

    #[test]
    fn after_the_burst_a_minute_carries_its_rate_both_ways() {
        let born = Instant::now();
        let rates = RateLimits::new(born, limits(MEGABYTE, 4 * MEGABYTE));
        for way in [Way::Read, Way::Write] {
            let moved = move_all(&rates, way, born, born + Duration::from_secs(60), 88);
            let wanted = 64 * MEGABYTE;
            assert!(
                moved.abs_diff(wanted) < MEGABYTE / 5,
                "{moved} bytes instead of {wanted}"
            );
        }
    }

    #[test]
    fn the_narrower_limit_holds() {
        let born = Instant::now();
        let mut wish = limits(10 * MEGABYTE, 10 * MEGABYTE);
        wish.bandwidth.relayed = Some(RelayedBandwidth {
            bytes_per_second_max: MEGABYTE,
            bytes_burst_max: MEGABYTE,
        });
        let rates = RateLimits::new(born, wish);
        let moved = move_all(&rates, Way::Read, born, born + Duration::from_secs(10), 0);
        assert!(moved.abs_diff(11 * MEGABYTE) < MEGABYTE / 5, "{moved}");
    }

    #[test]
    fn one_link_leaves_the_others_their_part() {
        let born = Instant::now();
        let rates = RateLimits::new(born, limits(100_000, 160_000));
        assert_eq!(rates.share(born, Way::Read, PUBLIC, 64 * 1024), Some(20_000));
        rates.take(born, Way::Read, PUBLIC, 155_000);
        assert_eq!(rates.share(born, Way::Read, PUBLIC, 64 * 1024), Some(2_056));
        rates.take(born, Way::Read, PUBLIC, 4_000);
        assert_eq!(rates.share(born, Way::Read, PUBLIC, 64 * 1024), None);
        assert_eq!(rates.share(born, Way::Write, PUBLIC, 64 * 1024), Some(20_000));
    }

    #[test]
    fn what_went_beyond_the_bottom_is_paid_first() {
        let born = Instant::now();
        let rates = RateLimits::new(born, limits(100_000, 100_000));
        rates.take(born, Way::Write, PUBLIC, 115_000);
        let later = |steps: u32| born + REFILL_EVERY * steps;
        assert_eq!(rates.share(later(1), Way::Write, PUBLIC, 64 * 1024), None);
        assert_eq!(rates.share(later(2), Way::Write, PUBLIC, 64 * 1024), Some(2_056));
    }

    #[test]
    fn between_two_refills_nothing_comes_in() {
        let born = Instant::now();
        let rates = RateLimits::new(born, limits(100_000, 100_000));
        rates.take(born, Way::Read, PUBLIC, 100_000);
        let shy = born + REFILL_EVERY - Duration::from_millis(1);
        assert_eq!(rates.share(shy, Way::Read, PUBLIC, 1), None);
        assert_eq!(rates.next_refill(shy), born + REFILL_EVERY);
        assert!(rates.share(born + REFILL_EVERY, Way::Read, PUBLIC, 1).is_some());
    }

    #[test]
    fn private_peers_are_free_unless_torrc_counts_them() {
        let born = Instant::now();
        let mut wish = limits(100_000, 100_000);
        let rates = RateLimits::new(born, wish);
        rates.take(born, Way::Read, PUBLIC, 100_000);
        assert_eq!(rates.share(born, Way::Read, PRIVATE, 7_000), Some(7_000));
        wish.count_private = true;
        rates.change(born, wish);
        assert_eq!(rates.share(born, Way::Read, PRIVATE, 7_000), None);
    }
}
