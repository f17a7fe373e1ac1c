//! When to fetch the next consensus, and how long to wait after a failure. Pure: the clock and the dice come in.

use std::time::{Duration, SystemTime};

use rand::RngExt;

/// The three times of a consensus (dir-spec, "valid-after").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// It must not be used before.
    pub valid_after: SystemTime,
    /// A newer one is expected from then on.
    pub fresh_until: SystemTime,
    /// It must not be used after.
    pub valid_until: SystemTime,
}

impl Lifetime {
    /// The voting interval: an hour on the public network, seconds on a private one.
    pub fn voting_interval(&self) -> Duration {
        let interval = self.fresh_until.duration_since(self.valid_after);
        interval.unwrap_or_default().max(Duration::from_secs(1))
    }
}

/// How long after `fresh_until` a relay waits at least, so that clocks may differ a little (C tor,
/// `CONSENSUS_MIN_SECONDS_BEFORE_CACHING`).
const SLACK_MAX: Duration = Duration::from_secs(120);

/// When to ask for the consensus that follows this one: at a random moment in the half interval that begins soon
/// after `fresh_until`, so that not all relays ask at once; never so late that ours has expired.
pub fn next_consensus_fetch(lifetime: &Lifetime, dice: &mut impl RngExt) -> SystemTime {
    let interval = lifetime.voting_interval();
    // A private network may vote every few seconds; two minutes of slack would then be longer than the interval.
    let slack = SLACK_MAX.min(interval / 16).max(Duration::from_secs(1));
    let spread = interval / 2;
    let latest = lifetime
        .valid_until
        .checked_sub(Duration::from_secs(1))
        .unwrap_or(lifetime.valid_until);
    let wished = lifetime.fresh_until + slack + dice.random_range(Duration::ZERO..=spread);
    wished.min(latest)
}

/// Waits that grow while something keeps failing. Forgets all with [`Backoff::reset`].
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    current: Duration,
}

impl Backoff {
    /// For documents that we cannot do without. On a private network the authorities often start together with us and
    /// have nothing to give for their first seconds; there nobody is hurt by quick questions.
    pub fn for_documents(testing_network: bool) -> Self {
        match testing_network {
            true => Self::new(Duration::from_secs(1), Duration::from_secs(4)),
            false => Self::new(Duration::from_secs(5), Duration::from_secs(10 * 60)),
        }
    }

    /// The first wait and the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            current: first,
        }
    }

    /// The next wait: somewhere between the first one and three times the last (the "decorrelated jitter" that dir-spec
    /// wants of "retrying failed downloads"), never longer than the longest.
    pub fn next(&mut self, dice: &mut impl RngExt) -> Duration {
        let wait = self.current;
        let upper = (self.current * 3).min(self.longest).max(self.first);
        self.current = dice.random_range(self.first..=upper);
        wait
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.current = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn lifetime(interval_seconds: u64) -> Lifetime {
        let valid_after = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let interval = Duration::from_secs(interval_seconds);
        Lifetime {
            valid_after,
            fresh_until: valid_after + interval,
            valid_until: valid_after + interval * 3,
        }
    }

    #[test]
    fn on_the_public_network_relays_spread_over_half_an_hour_after_two_minutes() {
        let lifetime = lifetime(3600);
        for seed in 0..200 {
            let after = next_consensus_fetch(&lifetime, &mut StdRng::seed_from_u64(seed))
                .duration_since(lifetime.fresh_until)
                .unwrap();
            assert!((120..=120 + 1800).contains(&after.as_secs()), "{after:?}");
        }
    }

    #[test]
    fn a_network_that_votes_every_twenty_seconds_is_followed_within_the_interval() {
        let lifetime = lifetime(20);
        for seed in 0..200 {
            let when = next_consensus_fetch(&lifetime, &mut StdRng::seed_from_u64(seed));
            assert!(when > lifetime.fresh_until && when < lifetime.fresh_until + Duration::from_secs(13));
        }
    }

    #[test]
    fn nobody_waits_until_the_consensus_has_expired() {
        let mut lifetime = lifetime(3600);
        lifetime.valid_until = lifetime.fresh_until + Duration::from_secs(10);
        for seed in 0..50 {
            assert!(next_consensus_fetch(&lifetime, &mut StdRng::seed_from_u64(seed)) < lifetime.valid_until);
        }
    }

    #[test]
    fn waits_grow_to_their_limit_and_start_small_again_after_a_success() {
        let mut dice = StdRng::seed_from_u64(1);
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(600));
        let mut backoff = Backoff::new(first, longest);

        assert_eq!(backoff.next(&mut dice), first);
        let waits: Vec<_> = (0..100).map(|_| backoff.next(&mut dice)).collect();
        assert!(waits.iter().all(|wait| (first..=longest).contains(wait)));
        assert!(waits.iter().max().unwrap() > &Duration::from_secs(300));

        backoff.reset();
        assert_eq!(backoff.next(&mut dice), first);
    }
}
