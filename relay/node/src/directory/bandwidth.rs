//! What the relay has been seen to carry: the third number of the descriptor's `bandwidth` line, and the histories of
//! the extra-info. Pure; told the byte counts every second.
//!
//! As C tor's `bwhist.c`: for each direction the best ten seconds of each day, five days long; the smaller direction
//! counts, because a relay carries only what it can both read and write.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use relay_formats::extra_info::BandwidthHistory;
use relay_formats::state::StoredHistory;

/// Length of one entry of a history.
pub const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// Entries that are kept.
const PERIODS_MAX: usize = 5;

/// Bandwidth is the mean over this many seconds, so that one burst out of a buffer does not count.
const WINDOW_SECONDS: usize = 10;

/// One direction of traffic.
#[derive(Debug, Default)]
struct Direction {
    total: u64,
    window: VecDeque<u64>,
    best: u64,
    bytes: u64,
    past_best: VecDeque<u64>,
    past_bytes: VecDeque<u64>,
}

impl Direction {
    /// The counter stood at `total` after `seconds` more seconds.
    fn note(&mut self, total: u64, seconds: u64) {
        let bytes = total.saturating_sub(self.total);
        self.total = total;
        self.bytes = self.bytes.saturating_add(bytes);
        // A late look spreads what came over the seconds that it missed.
        let slots = usize::try_from(seconds).unwrap_or(usize::MAX).clamp(1, WINDOW_SECONDS);
        let each = bytes / seconds.max(1);
        for _ in 0..slots {
            self.window.push_back(each);
        }
        while self.window.len() > WINDOW_SECONDS {
            self.window.pop_front();
        }
        self.best = self.best.max(self.window.iter().sum());
    }

    fn end_period(&mut self) {
        self.past_best.push_back(std::mem::take(&mut self.best));
        self.past_bytes.push_back(std::mem::take(&mut self.bytes));
        while self.past_best.len() > PERIODS_MAX {
            self.past_best.pop_front();
            self.past_bytes.pop_front();
        }
    }

    /// Finished periods and, last, the running one. Rounded down to KiB, as C tor keeps them.
    fn store(&self, ends: SystemTime) -> StoredHistory {
        let kib = |bytes: u64| bytes / 1024 * 1024;
        StoredHistory {
            ends,
            interval: PERIOD,
            bytes: self
                .past_bytes
                .iter()
                .chain([&self.bytes])
                .map(|bytes| kib(*bytes))
                .collect(),
            maxima: self
                .past_best
                .iter()
                .chain([&self.best])
                .map(|best| kib(best / WINDOW_SECONDS as u64))
                .collect(),
        }
    }

    /// What `stored` says, its last entry being the running one only where that period has not ended by `now`.
    fn restore(stored: &StoredHistory, now: SystemTime) -> Self {
        let mut direction = Self::default();
        for (at, bytes) in stored.bytes.iter().enumerate() {
            direction.bytes = *bytes;
            direction.best = stored
                .maxima
                .get(at)
                .copied()
                .unwrap_or(0)
                .saturating_mul(WINDOW_SECONDS as u64);
            if at + 1 < stored.bytes.len() || stored.ends <= now {
                direction.end_period();
            }
        }
        direction
    }

    fn bytes_per_second(&self, with_current: bool) -> u64 {
        let current = if with_current { self.best } else { 0 };
        let best = self.past_best.iter().copied().fold(current, u64::max);
        best / WINDOW_SECONDS as u64
    }
}

/// Both directions since the start.
#[derive(Debug)]
pub struct Observed {
    read: Direction,
    written: Direction,
    noted: SystemTime,
    period_ends: SystemTime,
    counts_at_once: bool,
}

impl Observed {
    /// Nothing carried yet. A testing network counts the first day from its first second
    /// (`TestingMinTimeToReportBandwidth` 0); elsewhere a day must have passed.
    pub fn new(now: SystemTime, testing_network: bool) -> Self {
        let (read, written) = Default::default();
        Self {
            read,
            written,
            noted: now,
            period_ends: now + PERIOD,
            counts_at_once: testing_network,
        }
    }

    /// Goes on from what a run before has stored; `now` and `testing_network` as in [`Observed::new`]. Stored periods of
    /// another length, or so old that none of them would count, are forgotten.
    pub fn restore(read: &StoredHistory, written: &StoredHistory, now: SystemTime, testing_network: bool) -> Self {
        let fresh = Self::new(now, testing_network);
        let age = now.duration_since(read.ends).unwrap_or_default();
        let ahead = read.ends.duration_since(now).unwrap_or_default();
        let fits = |one: &StoredHistory| one.interval == PERIOD && one.ends == read.ends;
        if !fits(read) || !fits(written) || age > PERIOD * PERIODS_MAX as u32 || ahead > PERIOD {
            return fresh;
        }
        let period_ends = if ahead.is_zero() { read.ends + PERIOD } else { read.ends };
        let (read, written) = (Direction::restore(read, now), Direction::restore(written, now));
        Self {
            read,
            written,
            period_ends,
            ..fresh
        }
    }

    /// For the state file: read, written.
    pub fn store(&self) -> (StoredHistory, StoredHistory) {
        (self.read.store(self.period_ends), self.written.store(self.period_ends))
    }

    /// The counters stand at these sums, which never shrink.
    pub fn note(&mut self, now: SystemTime, bytes_read: u64, bytes_written: u64) {
        // A clock set back passes no time; one set forward by days ends that many periods at most.
        let seconds = now.duration_since(self.noted).unwrap_or_default().as_secs();
        self.noted = now;
        self.read.note(bytes_read, seconds);
        self.written.note(bytes_written, seconds);
        for _ in 0..PERIODS_MAX {
            if now < self.period_ends {
                return;
            }
            self.read.end_period();
            self.written.end_period();
            self.period_ends += PERIOD;
        }
        self.period_ends = self.period_ends.max(now + PERIOD);
    }

    /// Bytes a second, the smaller of both directions.
    pub fn bytes_per_second(&self) -> u64 {
        let with_current = self.counts_at_once || !self.read.past_best.is_empty();
        self.read
            .bytes_per_second(with_current)
            .min(self.written.bytes_per_second(with_current))
    }

    /// Finished days for the extra-info: written, read. `None` before the first day has ended.
    pub fn histories(&self) -> Option<(BandwidthHistory, BandwidthHistory)> {
        let ends = self.period_ends.checked_sub(PERIOD)?;
        let of = |direction: &Direction| BandwidthHistory {
            ends,
            interval: PERIOD,
            bytes: direction.past_bytes.iter().copied().collect(),
        };
        (!self.read.past_bytes.is_empty()).then(|| (of(&self.written), of(&self.read)))
    }
}

/// A relay tells a change of its bandwidth at once only while it is new; later the next descriptor is soon enough (C tor,
/// `MAX_UPTIME_BANDWIDTH_CHANGE`).
const NEW: Duration = Duration::from_secs(24 * 60 * 60);

/// And no more often than this (C tor, `MAX_BANDWIDTH_CHANGE_FREQ`).
const TELL_EVERY_MIN: Duration = Duration::from_secs(3 * 60 * 60);

/// Whether a descriptor is due because bandwidth has changed: by half or double while the relay is new, or to or from
/// nothing at any time. `told` is what the last one said, `told_before` how long ago that was.
pub fn worth_telling(told: u64, told_before: Duration, seen: u64, uptime: Duration) -> bool {
    if (told == 0) != (seen == 0) {
        return true;
    }
    let changed = seen > told.saturating_mul(2) || seen < told / 2;
    changed && uptime < NEW && told_before >= TELL_EVERY_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn second(count: u64) -> SystemTime {
        START + Duration::from_secs(count)
    }

    /// Carries `rate` bytes a second, both ways, for `seconds`.
    fn carry(observed: &mut Observed, from: u64, seconds: u64, rate: u64) {
        let total = observed.read.total;
        for at in 1..=seconds {
            observed.note(second(from + at), total + at * rate, total + at * rate);
        }
    }

    #[test]
    fn a_steady_minute_is_seen_as_it_was() {
        let mut observed = Observed::new(START, true);
        carry(&mut observed, 0, 60, 5_000);
        assert_eq!(observed.bytes_per_second(), 5_000);
    }

    #[test]
    fn a_burst_of_one_second_counts_as_a_tenth() {
        let mut observed = Observed::new(START, true);
        carry(&mut observed, 0, 1, 100_000);
        carry(&mut observed, 1, 60, 0);
        assert_eq!(observed.bytes_per_second(), 10_000);
    }

    #[test]
    fn the_smaller_direction_decides() {
        let mut observed = Observed::new(START, true);
        for at in 1..=20 {
            observed.note(second(at), at * 1_000, at * 10);
        }
        assert_eq!(observed.bytes_per_second(), 10);
    }

    #[test]
    fn on_the_public_network_the_first_day_must_end_before_it_counts() {
        let mut observed = Observed::new(START, false);
        carry(&mut observed, 0, 60, 5_000);
        assert_eq!((observed.bytes_per_second(), observed.histories()), (0, None));

        let day = PERIOD.as_secs();
        carry(&mut observed, day, 1, 0);
        assert_eq!(observed.bytes_per_second(), 5_000);
        let (written, read) = observed.histories().unwrap();
        assert_eq!((written.bytes.as_slice(), written.ends), (&[300_000][..], second(day)));
        assert_eq!(read, written);
    }

    #[test]
    fn after_five_days_a_good_day_is_forgotten() {
        let mut observed = Observed::new(START, false);
        carry(&mut observed, 0, 60, 5_000);
        let day = PERIOD.as_secs();
        for days in 1..=5 {
            carry(&mut observed, days * day, 1, 0);
            assert_eq!(observed.bytes_per_second(), 5_000);
        }
        carry(&mut observed, 6 * day, 1, 0);
        assert_eq!(observed.bytes_per_second(), 0);
        assert_eq!(observed.histories().unwrap().0.bytes.len(), 5);
    }

    #[test]
    fn a_restart_goes_on_where_the_last_run_ended() {
        let mut before = Observed::new(START, false);
        carry(&mut before, 0, 60, 1_024_000);
        let day = PERIOD.as_secs();
        carry(&mut before, day, 60, 10_240);
        let (read, written) = before.store();
        assert_eq!((read.bytes.len(), read.ends), (2, second(2 * day)));

        let soon = Observed::restore(&read, &written, second(day + 100), false);
        assert_eq!(soon.bytes_per_second(), 1_024_000);
        assert_eq!(soon.store(), (read.clone(), written.clone()));
        let mut later = Observed::restore(&read, &written, second(3 * day + 5), false);
        later.note(second(3 * day + 6), 0, 0);
        assert_eq!(later.read.past_bytes, [61_450_240, 604_160, 0]);
        let too_late = Observed::restore(&read, &written, second(9 * day), false);
        assert_eq!(too_late.bytes_per_second(), 0);
    }

    #[test]
    fn stored_nonsense_is_forgotten() {
        let odd = StoredHistory {
            ends: second(5),
            interval: Duration::from_secs(900),
            bytes: vec![1],
            maxima: vec![],
        };
        assert!(
            Observed::restore(&odd, &odd, second(1), true)
                .read
                .past_bytes
                .is_empty()
        );
        let far = StoredHistory {
            ends: second(1_000_000_000),
            interval: PERIOD,
            ..odd
        };
        assert_eq!(
            Observed::restore(&far, &far, second(1), true).period_ends,
            second(1) + PERIOD
        );
    }

    #[test]
    fn only_a_new_relay_hurries_to_tell_that_it_has_doubled() {
        let hour = Duration::from_secs(3600);
        assert!(worth_telling(1_000, 3 * hour, 2_001, 4 * hour));
        assert!(worth_telling(1_000, 3 * hour, 499, 4 * hour));
        assert!(!worth_telling(1_000, 3 * hour, 2_000, 4 * hour));
        assert!(!worth_telling(1_000, 2 * hour, 9_000, 4 * hour), "too soon");
        assert!(!worth_telling(1_000, 3 * hour, 9_000, 25 * hour), "no longer new");
        assert!(worth_telling(0, Duration::ZERO, 1, 25 * hour), "from nothing");
    }

    #[test]
    fn a_jumping_clock_does_no_harm() {
        let mut observed = Observed::new(second(1_000), true);
        observed.note(second(10), 50_000, 50_000);
        observed.note(second(400 * PERIOD.as_secs()), 60_000, 60_000);
        assert!(observed.bytes_per_second() <= 60_000);
        assert!(observed.period_ends > observed.noted);
    }
}
