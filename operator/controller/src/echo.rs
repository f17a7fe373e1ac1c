//! Which news is no news: what a round has seen or written itself comes back by the watches, and need not wake another.
//!
//! A round that found nothing more to do notes the resourceVersion of each object that it saw. When it is woken again and all
//! that was heard since bears those very versions, there is nothing to look at. Every other reason to wake stands: a new
//! version, a version that cannot be told, the time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

use crate::relays::GuardedRelay;

type Key = ObjectRef<GuardedRelay>;

/// An object's kind, namespace and name, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    object: u64,
    version: u64,
}

impl Version {
    /// Hashed: they are compared for equality alone, and a thousand fleets would not make two fall together.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::named(&K::kind(&()), object.meta())
    }

    fn named(kind: &str, meta: &ObjectMeta) -> Self {
        let hash = |text: &[Option<&str>]| {
            use std::hash::{DefaultHasher, Hash as _, Hasher as _};
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        Self {
            object: hash(&[Some(kind), meta.namespace.as_deref(), meta.name.as_deref()]),
            version: hash(&[meta.uid.as_deref(), meta.resource_version.as_deref()]),
        }
    }
}

/// What is known of one Relay's last round.
#[derive(Default)]
struct Known {
    /// As the last round that had nothing more to do saw them, and when the time is to look all the same.
    settled: Option<(Vec<Version>, Instant)>,
    /// Heard since a round last began.
    heard: Vec<Version>,
    /// Something happened that has no version.
    stirred: bool,
}

/// Of all Relays.
#[derive(Default)]
pub(crate) struct Echoes(Mutex<HashMap<Key, Known>>);

impl Echoes {
    fn with<T>(&self, relay: &Key, what: impl FnOnce(&mut Known) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what(all.entry(relay.clone()).or_default())
    }

    /// An object of the Relay's came by a watch.
    pub(crate) fn heard(&self, relay: &Key, version: Version) {
        self.with(relay, |known| {
            known.heard.retain(|other| other.object != version.object);
            known.heard.push(version);
        });
    }

    /// Something else asks for a round.
    pub(crate) fn stir(&self, relay: &Key) {
        self.with(relay, |known| known.stirred = true);
    }

    /// Whether a round has anything to find out, and how long it may wait if not. What was heard counts as known from here on.
    pub(crate) fn begin(&self, relay: &Key) -> Option<Duration> {
        self.with(relay, |known| {
            let heard = std::mem::take(&mut known.heard);
            let stirred = std::mem::take(&mut known.stirred);
            let (settled, until) = known.settled.as_ref()?;
            let left = until.saturating_duration_since(Instant::now());
            let nothing_new = !stirred && !left.is_zero() && heard.iter().all(|one| settled.contains(one));
            if !nothing_new {
                known.settled = None;
            }
            nothing_new.then_some(left)
        })
    }

    /// A round found nothing more to do.
    pub(crate) fn settle(&self, relay: &Key, seen: Vec<Version>, look_again: Duration) {
        self.with(relay, |known| known.settled = Some((seen, Instant::now() + look_again)));
    }

    /// The Relay is gone.
    pub(crate) fn forget(&self, relay: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(relay);
    }
}

/// The key of a Relay.
pub(crate) fn key(relay: &GuardedRelay) -> Key {
    ObjectRef::new(&relay.name_any()).within(&relay.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(600);

    fn version(object: &str, version: &str) -> Version {
        let meta = ObjectMeta {
            name: Some(object.to_owned()),
            resource_version: Some(version.to_owned()),
            ..Default::default()
        };
        Version::named("Pod", &meta)
    }

    #[test]
    fn what_a_round_saw_itself_wakes_nobody_and_everything_else_does() {
        let (echoes, relay) = (Echoes::default(), ObjectRef::new("r").within("n"));
        assert!(echoes.begin(&relay).is_none(), "nothing is known yet");
        echoes.heard(&relay, version("a", "2")); // by the watch, while the round is at work
        echoes.settle(&relay, vec![version("a", "2"), version("b", "7")], LATER);
        assert!(echoes.begin(&relay).is_some());
        echoes.heard(&relay, version("b", "7"));
        assert!(echoes.begin(&relay).is_some());
        echoes.heard(&relay, version("b", "8"));
        assert!(echoes.begin(&relay).is_none());
        assert!(echoes.begin(&relay).is_none(), "that round has not settled");

        echoes.settle(&relay, vec![version("b", "8")], LATER);
        echoes.heard(&relay, version("c", "1"));
        assert!(echoes.begin(&relay).is_none(), "an object that was not there");
        echoes.settle(&relay, Vec::new(), LATER);
        echoes.stir(&relay);
        assert!(echoes.begin(&relay).is_none());
        echoes.settle(&relay, Vec::new(), Duration::ZERO);
        assert!(echoes.begin(&relay).is_none(), "its time has come");
    }
}
