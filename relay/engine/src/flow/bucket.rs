//! A token bucket of bytes. Time is told; it may stand still but a step back counts as none.

use std::time::Duration;

const MICROSECONDS: u128 = 1_000_000;

/// Bytes that may go, refilled evenly up to a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    bytes_per_second: u64,
    burst_bytes: u64,
    /// Millionths of bytes, so that no rate loses anything to rounding.
    tokens: u128,
    refilled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(now: Duration, bytes_per_second: u64, burst_bytes: u64) -> Self {
        Self {
            bytes_per_second,
            burst_bytes,
            tokens: u128::from(burst_bytes) * MICROSECONDS,
            refilled_at: now,
        }
    }

    /// New limits; what is in the bucket stays, as far as the new burst holds it.
    pub fn adjust(&mut self, now: Duration, bytes_per_second: u64, burst_bytes: u64) {
        self.refill(now);
        self.bytes_per_second = bytes_per_second;
        self.burst_bytes = burst_bytes;
        self.tokens = self.tokens.min(self.full());
    }

    fn full(&self) -> u128 {
        u128::from(self.burst_bytes) * MICROSECONDS
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled_at).as_micros();
        let fresh = passed.saturating_mul(u128::from(self.bytes_per_second));
        self.tokens = self.tokens.saturating_add(fresh).min(self.full());
        // Whole microseconds only: a rest of nanoseconds is counted the next time.
        self.refilled_at += Duration::from_micros(u64::try_from(passed).unwrap_or(u64::MAX));
    }

    /// Bytes that may go now.
    pub fn available(&mut self, now: Duration) -> u64 {
        self.refill(now);
        u64::try_from(self.tokens / MICROSECONDS).unwrap_or(u64::MAX)
    }

    /// Takes what has gone; an empty bucket stays empty.
    pub fn take(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(u128::from(bytes) * MICROSECONDS);
    }

    /// When `bytes` (or the burst, if that is less) will be there; `None` if never.
    pub fn ready_at(&self, bytes: u64) -> Option<Duration> {
        let wanted = (u128::from(bytes) * MICROSECONDS).min(self.full());
        let missing = wanted.saturating_sub(self.tokens);
        let wait = missing.checked_add(u128::from(self.bytes_per_second).saturating_sub(1))?;
        let wait = u64::try_from(wait.checked_div(u128::from(self.bytes_per_second))?).ok()?;
        self.refilled_at.checked_add(Duration::from_micros(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(7);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(START, 1_000, 3_000);
        assert_eq!(bucket.available(START), 3_000);
        bucket.take(3_000);
        assert_eq!(bucket.available(START + Duration::from_millis(250)), 250);
        assert_eq!(bucket.available(START + Duration::from_secs(60)), 3_000);
    }

    #[test]
    fn it_says_when_enough_will_be_there() {
        let mut bucket = TokenBucket::new(START, 3, 100);
        bucket.take(100);
        let when = bucket.ready_at(1).unwrap();
        assert_eq!(when, START + Duration::from_micros(333_334));
        assert_eq!(
            (
                bucket.available(when - Duration::from_micros(1)),
                bucket.available(when)
            ),
            (0, 1)
        );
        assert_eq!(TokenBucket::new(START, 0, 100).ready_at(50), None);
        assert_eq!(TokenBucket::new(START, 5, 100).ready_at(50), Some(START));
    }

    #[test]
    fn a_lower_rate_takes_the_surplus_away_and_a_higher_one_gives_nothing_at_once() {
        let mut bucket = TokenBucket::new(START, 1_000, 1_000);
        bucket.adjust(START, 100, 100);
        assert_eq!(bucket.available(START), 100);
        bucket.adjust(START, 5_000, 5_000);
        assert_eq!(bucket.available(START), 100);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_the_burst_nor_gives_more_than_burst_and_rate(
            rate in 0..u64::MAX, burst in 0..u64::MAX, steps in prop::collection::vec((0..u64::MAX / 100, any::<u64>()), 0..50),
        ) {
            let (mut now, mut taken) = (START, 0_u128);
            let mut bucket = TokenBucket::new(now, rate, burst);
            for (nanoseconds, want) in steps {
                now += Duration::from_nanos(nanoseconds);
                let there = bucket.available(now);
                prop_assert!(there <= burst);
                let take = want.min(there);
                bucket.take(take);
                taken += u128::from(take);
                prop_assert!(taken <= u128::from(burst) + u128::from(rate) * (now - START).as_nanos() / 1_000_000_000 + 1);
            }
        }
    }
}
