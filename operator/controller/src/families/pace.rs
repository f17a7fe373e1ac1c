//! How soon after its last certificates a family is looked at again.
//!
//! A fleet that comes up brings members for many minutes, and each ConfigMap of certificates holds those of all members before
//! them: written anew every two seconds it would cost the API server more than the relays do. A family at rest answers at once;
//! one that has just been written for waits twice as long after each write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;

use super::GuardedFamily;

/// After the first write.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The most. With the way to the relay's file (a minute at worst) it stays within the 90 seconds of a hot change.
const WAIT_MAX: Duration = Duration::from_secs(16);

type Key = ObjectRef<GuardedFamily>;

struct Pace {
    written: Instant,
    wait: Duration,
}

/// Of all families that certificates were written for; as many as there are families.
#[derive(Default)]
pub(super) struct Paces(Mutex<HashMap<Key, Pace>>);

impl Paces {
    /// How long the family still has to wait; `None` if it may be looked at.
    pub(super) fn left(&self, family: &Key, now: Instant) -> Option<Duration> {
        let paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.get(family)?;
        let left = pace.wait.saturating_sub(now.saturating_duration_since(pace.written));
        (!left.is_zero()).then_some(left)
    }

    /// Certificates were written.
    pub(super) fn wrote(&self, family: &Key, now: Instant) {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry(family.clone()).or_insert(Pace {
            written: now,
            wait: Duration::ZERO,
        });
        let still_coming = now.saturating_duration_since(pace.written) <= WAIT_MAX.saturating_mul(2);
        let doubled = pace.wait.saturating_mul(2).clamp(WAIT_FIRST, WAIT_MAX);
        *pace = Pace {
            written: now,
            wait: if still_coming { doubled } else { WAIT_FIRST },
        };
    }

    /// The family is gone.
    pub(super) fn forget(&self, family: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_written_for_again_and_again_waits_longer_and_after_a_rest_not_at_all() {
        let (paces, family) = (Paces::default(), ObjectRef::new("oaks").within("n"));
        let mut now = Instant::now();
        assert_eq!(paces.left(&family, now), None, "nothing was written yet");
        let mut waits = Vec::new();
        for _ in 0..7 {
            paces.wrote(&family, now);
            let left = paces.left(&family, now).unwrap_or_default();
            waits.push(left.as_secs());
            now += left;
            assert_eq!(paces.left(&family, now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        now += Duration::from_secs(60);
        paces.wrote(&family, now);
        assert_eq!(paces.left(&family, now), Some(WAIT_FIRST));
        paces.forget(&family);
        assert_eq!(paces.left(&family, now), None);
    }
}
