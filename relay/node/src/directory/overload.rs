//! When the relay was asked for more than it has: the `overload-…` lines of its two documents. Pure; told counters and times.
//!
//! As C tor's `rephist.c`: a time to the hour, told for three days (rates: for one). `OverloadStatistics 0` ends it.

use std::time::{Duration, SystemTime};

use relay_engine::network::Parameters;
use relay_formats::facts::{self, Timestamp};
use relay_formats::time_text;
use relay_formats::torrc::Bandwidth;

const HOUR: Duration = Duration::from_secs(3_600);
/// How long overload in general and want of descriptors are told.
const TOLD_FOR: Duration = Duration::from_secs(72 * 3_600);
/// How long rates that were reached are told.
const RATES_TOLD_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that too much waited in memory.
    pub memory_reclaims: u64,
    /// ntor handshakes, of both kinds, that came.
    pub onionskins: u64,
    /// Those of them that were dropped.
    pub onionskins_dropped: u64,
    /// Times that no local port was left.
    pub ports_exhausted: u64,
    /// Times that no file descriptor was left.
    pub descriptors_exhausted: u64,
    /// Minutes in which the rate was reached, reading.
    pub read_limited: u64,
    /// The same, writing.
    pub write_limited: u64,
}

/// What the documents tell.
#[derive(Debug, Default)]
pub struct Overload {
    before: Counts,
    /// Since when handshakes are compared with those that were dropped, and both sums then.
    period: Option<(SystemTime, u64, u64)>,
    general: Option<SystemTime>,
    rates: Option<SystemTime>,
    descriptors: Option<SystemTime>,
}

impl Overload {
    /// The sums stand so; true if the relay was overloaded in general and did not tell so yet.
    pub fn note(&mut self, now: SystemTime, counts: Counts, parameters: &Parameters) -> bool {
        let told = self.general(now).is_some();
        let before = std::mem::replace(&mut self.before, counts);
        let handshakes = self.too_many_dropped(now, counts, parameters);
        if handshakes
            || counts.memory_reclaims > before.memory_reclaims
            || counts.ports_exhausted > before.ports_exhausted
        {
            self.general = Some(hour_of(now));
        }
        if counts.read_limited > before.read_limited || counts.write_limited > before.write_limited {
            self.rates = Some(hour_of(now));
        }
        if counts.descriptors_exhausted > before.descriptors_exhausted {
            self.descriptors = Some(hour_of(now));
        }
        !told && self.general(now).is_some()
    }

    /// Whether a period has ended in which too many handshakes were dropped (param-spec `overload_onionskin_ntor_…`).
    fn too_many_dropped(&mut self, now: SystemTime, counts: Counts, parameters: &Parameters) -> bool {
        let seconds = parameters.clamped("overload_onionskin_ntor_period_secs", 6 * 3_600, 0, i32::MAX);
        let thousandths = parameters.clamped("overload_onionskin_ntor_scale_percent", 1_000, 0, 100_000);
        let (began, came, dropped) = *self
            .period
            .get_or_insert((now, counts.onionskins, counts.onionskins_dropped));
        let length = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if now.duration_since(began).unwrap_or_default() < length {
            return false;
        }
        self.period = Some((now, counts.onionskins, counts.onionskins_dropped));
        let came = counts.onionskins.saturating_sub(came);
        let dropped = counts.onionskins_dropped.saturating_sub(dropped);
        let part_max = u128::from(came) * u128::try_from(thousandths).unwrap_or(0);
        dropped > 0 && u128::from(dropped) * 100_000 >= part_max
    }

    /// For `overload-general`.
    pub fn general(&self, now: SystemTime) -> Option<SystemTime> {
        within(self.general, now, TOLD_FOR)
    }

    /// The lines of the extra-info, in their order.
    pub fn lines(&self, now: SystemTime, bandwidth: &Bandwidth) -> Vec<String> {
        let rates = within(self.rates, now, RATES_TOLD_FOR).map(|at| {
            let Counts {
                read_limited,
                write_limited,
                ..
            } = self.before;
            let (rate, burst) = (bandwidth.advertised_rate(), bandwidth.advertised_burst());
            let at = time_text::format(at);
            format!("overload-ratelimits 1 {at} {rate} {burst} {read_limited} {write_limited}")
        });
        let descriptors = within(self.descriptors, now, TOLD_FOR)
            .map(|at| format!("overload-fd-exhausted 1 {}", time_text::format(at)));
        rates.into_iter().chain(descriptors).collect()
    }

    /// The same for the owner.
    pub fn facts(&self, now: SystemTime) -> facts::Overload {
        facts::Overload {
            general_at: self.general(now).map(Timestamp),
            rate_limits_at: within(self.rates, now, RATES_TOLD_FOR).map(Timestamp),
            descriptors_at: within(self.descriptors, now, TOLD_FOR).map(Timestamp),
        }
    }
}

fn within(at: Option<SystemTime>, now: SystemTime, time: Duration) -> Option<SystemTime> {
    // A clock that was set back makes the age nothing.
    at.filter(|at| now.duration_since(*at).unwrap_or_default() <= time)
}

fn hour_of(time: SystemTime) -> SystemTime {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds / HOUR.as_secs() * HOUR.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn noon() -> SystemTime {
        time_text::parse("2026-11-22 12:00:00").unwrap()
    }

    fn bandwidth() -> Bandwidth {
        let torrc = "ORPort 9001\nRelayBandwidthRate 1 MB\nRelayBandwidthBurst 2 MB\n";
        relay_formats::torrc::Torrc::parse(torrc).unwrap().bandwidth
    }

    #[test]
    fn an_overload_is_told_to_the_hour_and_for_three_days() {
        let (mut overload, parameters) = (Overload::default(), Parameters::default());
        let mut counts = Counts::default();
        assert!(!overload.note(noon(), counts, &parameters));
        counts.memory_reclaims = 1;
        assert!(overload.note(noon() + 40 * MINUTE, counts, &parameters));
        assert!(
            !overload.note(noon() + 41 * MINUTE, counts, &parameters),
            "it is told already"
        );
        assert_eq!(overload.general(noon() + 41 * MINUTE), Some(noon()));
        assert_eq!(overload.general(noon() + TOLD_FOR), Some(noon()));
        assert_eq!(overload.general(noon() + TOLD_FOR + MINUTE), None);
    }

    #[test]
    fn one_handshake_in_a_hundred_is_too_many_to_drop_and_it_is_told_at_the_end_of_the_period() {
        for (dropped, told) in [(9, false), (10, true)] {
            let (mut overload, parameters) = (Overload::default(), Parameters::default());
            overload.note(noon(), Counts::default(), &parameters);
            let counts = Counts {
                onionskins: 1_000,
                onionskins_dropped: dropped,
                ..Counts::default()
            };
            assert!(
                !overload.note(noon() + HOUR, counts, &parameters),
                "the period is six hours"
            );
            assert_eq!(overload.note(noon() + 6 * HOUR, counts, &parameters), told, "{dropped}");
        }
    }

    #[test]
    fn rates_and_descriptors_have_lines_of_their_own_in_the_extra_info() {
        let (mut overload, parameters) = (Overload::default(), Parameters::default());
        let counts = Counts {
            read_limited: 3,
            write_limited: 4,
            descriptors_exhausted: 1,
            ..Counts::default()
        };
        assert!(
            !overload.note(noon(), counts, &parameters),
            "that is no overload in general"
        );
        assert_eq!(
            overload.lines(noon() + MINUTE, &bandwidth()),
            [
                "overload-ratelimits 1 2026-11-22 12:00:00 1048576 2097152 3 4",
                "overload-fd-exhausted 1 2026-11-22 12:00:00"
            ]
        );
        assert_eq!(
            overload.lines(noon() + RATES_TOLD_FOR + MINUTE, &bandwidth()),
            ["overload-fd-exhausted 1 2026-11-22 12:00:00"]
        );
    }
}
