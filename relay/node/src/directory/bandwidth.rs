//! What the relay has been seen to carry: the third number of the descriptor's `bandwidth` line, and the histories of
//! the extra-info. Pure; told the byte counts every second.
//!
//! As C tor's `bwhist.c`: for each direction the best ten seconds of each day, five days long; the smaller direction
//! counts, because a relay carries only what it can both read and write.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use relay_formats::extra_info::BandwidthHistory;

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
    fn a_jumping_clock_does_no_harm() {
        let mut observed = Observed::new(second(1_000), true);
        observed.note(second(10), 50_000, 50_000);
        observed.note(second(400 * PERIOD.as_secs()), 60_000, 60_000);
        assert!(observed.bytes_per_second() <= 60_000);
        assert!(observed.period_ends > observed.noted);
    }
}
