//! All Relays, watched once for every loop: kept without what no loop reads from there, and told to those whom a change
//! concerns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{Stream, TryStreamExt as _};
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource as _, ResourceExt as _};
use operator_api::{AddressPool, Engine, Relay, RelayFamily, RelaySet, names};
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::echo::{Echoes, Version, key};
use crate::wakes::Wakes;
use crate::watch::scoped;

pub(crate) type GuardedRelay = DeserializeGuard<Relay>;

/// Written by `kubectl apply`: the whole object once more, as text.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who is woken by a Relay beside the Relay itself.
#[derive(Default, Clone)]
pub(crate) struct Concerned {
    pub(crate) families: Arc<Wakes<DeserializeGuard<RelayFamily>>>,
    pub(crate) sets: Arc<Wakes<DeserializeGuard<RelaySet>>>,
    pub(crate) pools: Arc<Wakes<DeserializeGuard<AddressPool>>>,
}

/// What others ask of a Relay.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    family: Option<String>,
    /// Engine, identity and whether it stays: what a family's certificates are made of.
    membership: (Option<Engine>, Option<String>, bool),
    pool: Option<String>,
    set: Option<String>,
}

impl Facts {
    fn of(relay: &GuardedRelay) -> Self {
        let set = relay
            .meta()
            .labels
            .as_ref()
            .and_then(|labels| labels.get(names::LABEL_SET));
        let readable = relay.0.as_ref().ok();
        let identity = readable.and_then(|relay| relay.status.as_ref()?.identity.as_ref());
        Self {
            family: readable.and_then(|relay| Some(relay.spec.family.as_ref()?.name.clone())),
            membership: (
                readable.map(|relay| relay.spec.engine),
                identity.map(|identity| format!("{} {}", identity.ed25519_id, identity.rsa_fingerprint)),
                relay.meta().deletion_timestamp.is_none(),
            ),
            pool: readable.and_then(|relay| Some(relay.spec.address_pool.as_ref()?.name.clone())),
            set: set.cloned(),
        }
    }
}

/// Whether all Relays have been listed once. Not the store's own `wait_until_ready`: of several tasks that wait there,
/// kube-runtime wakes the one that asked last, and the others never.
#[derive(Clone)]
pub(crate) struct Listed(Receiver<bool>);

impl Listed {
    /// With the means to say that it is so; who drops it has ended the watch.
    pub(crate) fn new() -> (Sender<bool>, Self) {
        let (said, listed) = channel(false);
        (said, Self(listed))
    }

    /// For any number of tasks at once. `false`: the watch ended before.
    pub(crate) async fn wait(&self) -> bool {
        self.0.clone().wait_for(|listed| *listed).await.is_ok()
    }
}

/// The watch, to be driven by the loop for Relays, what it keeps, and when that is all.
pub(crate) fn watch(
    client: &Client,
    namespace: Option<&str>,
    echoes: Arc<Echoes>,
    concerned: Concerned,
) -> (
    impl Stream<Item = watcher::Result<GuardedRelay>> + Send + 'static,
    Store<GuardedRelay>,
    Listed,
) {
    let (store, writer) = reflector::store();
    let (all_listed, listed) = Listed::new();
    let mut known = Known {
        facts: HashMap::new(),
        listed: HashSet::new(),
        all_listed,
        echoes,
        concerned,
    };
    let events = watcher(scoped::<GuardedRelay>(client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(slim)
        .reflect(writer)
        .inspect_ok(move |event| known.take(event))
        .touched_objects();
    (events, store, listed)
}

struct Known {
    facts: HashMap<ObjectRef<GuardedRelay>, Facts>,
    /// While all are listed anew.
    listed: HashSet<ObjectRef<GuardedRelay>>,
    all_listed: Sender<bool>,
    echoes: Arc<Echoes>,
    concerned: Concerned,
}

impl Known {
    fn take(&mut self, event: &Event<GuardedRelay>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(relay) => {
                self.listed.insert(key(relay));
                self.changed(relay);
            }
            Event::Apply(relay) => self.changed(relay),
            Event::Delete(relay) => self.gone(&key(relay)),
            Event::InitDone => {
                let missed: Vec<_> = self
                    .facts
                    .keys()
                    .filter(|one| !self.listed.contains(one))
                    .cloned()
                    .collect();
                missed.iter().for_each(|relay| self.gone(relay));
                self.listed = HashSet::new();
                self.all_listed.send_replace(true);
            }
        }
    }

    fn changed(&mut self, relay: &GuardedRelay) {
        let (key, facts) = (key(relay), Facts::of(relay));
        self.echoes.heard(&key, Version::of(relay));
        let namespace = relay.namespace().unwrap_or_default();
        let before = self.facts.insert(key, facts.clone());
        let membership = before
            .as_ref()
            .is_none_or(|before| before.membership != facts.membership);
        let moved = |of: fn(&Facts) -> &Option<String>| before.as_ref().is_none_or(|before| of(before) != of(&facts));
        for family in either(before.as_ref(), &facts, |facts| &facts.family) {
            if membership || moved(|facts| &facts.family) {
                self.concerned.families.wake(ObjectRef::new(&family).within(&namespace));
            }
        }
        for pool in either(before.as_ref(), &facts, |facts| &facts.pool) {
            if moved(|facts| &facts.pool) {
                self.concerned.pools.wake(ObjectRef::new(&pool));
            }
        }
        // A set counts what its relays say: everything may matter.
        for set in either(before.as_ref(), &facts, |facts| &facts.set) {
            self.concerned.sets.wake(ObjectRef::new(&set).within(&namespace));
        }
    }

    fn gone(&mut self, relay: &ObjectRef<GuardedRelay>) {
        self.echoes.stir(relay);
        let Some(facts) = self.facts.remove(relay) else { return };
        let namespace = relay.namespace.clone().unwrap_or_default();
        if let Some(family) = facts.family {
            self.concerned.families.wake(ObjectRef::new(&family).within(&namespace));
        }
        if let Some(pool) = facts.pool {
            self.concerned.pools.wake(ObjectRef::new(&pool));
        }
        if let Some(set) = facts.set {
            self.concerned.sets.wake(ObjectRef::new(&set).within(&namespace));
        }
    }
}

/// The name before and the name now, each once.
fn either(before: Option<&Facts>, now: &Facts, of: fn(&Facts) -> &Option<String>) -> Vec<String> {
    let mut names: Vec<String> = before.and_then(|before| of(before).clone()).into_iter().collect();
    names.extend(of(now).clone().filter(|name| !names.contains(name)));
    names
}

/// A round reads the Relay anew; what stays here is what loops ask of all Relays at once.
fn slim(relay: &mut GuardedRelay) {
    match &mut relay.0 {
        Err(invalid) => slim_meta(&mut invalid.metadata),
        Ok(relay) => {
            slim_meta(&mut relay.metadata);
            relay.spec.pod = None;
            relay.spec.exit = None;
            relay.spec.contact = String::new();
            for condition in relay.status.iter_mut().flat_map(|status| &mut status.conditions) {
                condition.message = String::new();
            }
        }
    }
}

/// Who owns which field is for the API server to know.
pub(crate) fn slim_meta(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_the_list_are_told_and_not_the_last_alone() {
        let (said, listed) = Listed::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let listed = listed.clone();
                tokio::spawn(async move { listed.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        said.send_replace(true);
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert!(listed.wait().await, "later too");
        let (said, listed) = Listed::new();
        drop(said);
        assert!(!listed.wait().await, "the watch ended");
    }
}
