//! When a new descriptor is due, and why. Pure.

use std::time::{Duration, SystemTime};

/// A descriptor is made anew at this age at the latest (C tor, `FORCE_REGENERATE_DESCRIPTOR_INTERVAL`): the consensus
/// calls a relay's descriptor stale from then on.
pub const AGE_MAX: Duration = Duration::from_secs(18 * 60 * 60);

/// A relay that the consensus does not list, though it has published, tries again after this (C tor,
/// `FAST_RETRY_DESCRIPTOR_INTERVAL`): one and a half voting intervals of the public network.
const RETRY_MAX: Duration = Duration::from_secs(90 * 60);

/// The same on a private network that votes every few seconds.
const RETRY_MIN: Duration = Duration::from_secs(30);

/// Why a descriptor is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The first one since the start.
    FirstStart,
    /// A new signing, onion or family key.
    KeysChanged,
    /// A new torrc.
    SettingsChanged,
    /// A consensus parameter says what belongs into a descriptor (`publish-dummy-tap-key`).
    ParameterChanged,
    /// An address of ours turned out to be reachable, or no longer so.
    ReachabilityChanged,
    /// The relay has carried far more, or far less, than the last one said.
    BandwidthChanged,
    /// The quota has put the relay to sleep, or lets it wake.
    HibernationChanged,
    /// The relay was overloaded.
    Overloaded,
    /// 18 hours old.
    Aged,
    /// The consensus does not list us.
    NotListed,
    /// The consensus calls our descriptor stale.
    Stale,
}

impl Reason {
    /// What the header `X-Desc-Gen-Reason` says.
    pub fn text(self) -> &'static str {
        match self {
            Self::FirstStart => "first descriptor since the start",
            Self::KeysChanged => "keys changed",
            Self::SettingsChanged => "settings changed",
            Self::ParameterChanged => "consensus parameter changed",
            Self::ReachabilityChanged => "reachability changed",
            Self::BandwidthChanged => "bandwidth has changed",
            Self::HibernationChanged => "hibernation changed",
            Self::Overloaded => "overload",
            Self::Aged => "time for new descriptor",
            Self::NotListed => "not listed in consensus",
            Self::Stale => "listed as stale in consensus",
        }
    }
}

/// What the newest consensus says of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// There is no consensus yet.
    Unknown,
    /// It lists us.
    Listed,
    /// It lists us with `StaleDesc`.
    Stale,
    /// It does not.
    Absent,
}

/// Remembers when the last descriptor was made and what has happened since.
#[derive(Debug)]
pub struct Publication {
    made: Option<SystemTime>,
    dirty: Option<Reason>,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            made: None,
            dirty: Some(Reason::FirstStart),
        }
    }
}

impl Publication {
    /// Something happened that belongs into a descriptor. The first reason stays.
    pub fn mark(&mut self, reason: Reason) {
        self.dirty.get_or_insert(reason);
    }

    /// A descriptor has been made.
    pub fn made(&mut self, now: SystemTime) {
        (self.made, self.dirty) = (Some(now), None);
    }

    /// Why one is due now, if it is.
    pub fn due(&self, now: SystemTime, listing: Listing, voting_interval: Duration) -> Option<Reason> {
        let Some(made) = self.made else {
            return self.dirty;
        };
        // A clock that was set back makes every age zero; then the others' clocks decide through the consensus.
        let age = now.duration_since(made).unwrap_or_default();
        let retry = (voting_interval * 3 / 2).clamp(RETRY_MIN, RETRY_MAX);
        let by_consensus = match listing {
            Listing::Absent if age >= retry => Some(Reason::NotListed),
            Listing::Stale if age >= retry => Some(Reason::Stale),
            _ => None,
        };
        self.dirty.or((age >= AGE_MAX).then_some(Reason::Aged)).or(by_consensus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn published() -> (Publication, SystemTime) {
        let now = SystemTime::UNIX_EPOCH + HOUR;
        let mut publication = Publication::default();
        assert_eq!(publication.due(now, Listing::Unknown, HOUR), Some(Reason::FirstStart));
        publication.made(now);
        (publication, now)
    }

    #[test]
    fn a_published_relay_rests_for_eighteen_hours() {
        let (publication, now) = published();
        assert_eq!(publication.due(now + 18 * HOUR - MINUTE, Listing::Listed, HOUR), None);
        assert_eq!(
            publication.due(now + 18 * HOUR, Listing::Listed, HOUR),
            Some(Reason::Aged)
        );
    }

    #[test]
    fn a_relay_that_is_not_listed_tries_again_after_ninety_minutes() {
        let (publication, now) = published();
        assert_eq!(publication.due(now + 89 * MINUTE, Listing::Absent, HOUR), None);
        assert_eq!(
            publication.due(now + 90 * MINUTE, Listing::Absent, HOUR),
            Some(Reason::NotListed)
        );
        assert_eq!(
            publication.due(now + 90 * MINUTE, Listing::Stale, HOUR),
            Some(Reason::Stale)
        );
    }

    #[test]
    fn where_votes_are_quick_so_is_the_next_try() {
        let (publication, now) = published();
        let (quick, second) = (Duration::from_secs(20), Duration::from_secs(1));
        assert_eq!(publication.due(now + 29 * second, Listing::Absent, quick), None);
        assert_eq!(
            publication.due(now + 30 * second, Listing::Absent, quick),
            Some(Reason::NotListed)
        );
    }

    #[test]
    fn a_change_is_published_at_once_and_its_first_reason_is_told() {
        let (mut publication, now) = published();
        publication.mark(Reason::KeysChanged);
        publication.mark(Reason::SettingsChanged);
        assert_eq!(publication.due(now, Listing::Listed, HOUR), Some(Reason::KeysChanged));
    }

    #[test]
    fn a_clock_set_back_does_not_make_a_storm() {
        let (publication, now) = published();
        assert_eq!(publication.due(now - HOUR, Listing::Listed, HOUR), None);
    }
}
