//! What wakes a round: a change of a Relay, of anything that bears a Relay's label, or of a network's ConfigMap.
//!
//! Only metadata is watched of what is not a Relay: a woken round reads what it needs, and keys never pass by.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::core::{DeserializeGuard, DynamicObject, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use operator_api::{AddressPool, RelayFamily, names};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Receiver;
use tracing::{debug, warn};

use crate::cluster::Cluster;
use crate::echo::{Echoes, Version};
use crate::pools::tenants;
use crate::reconcile::{RoundError, reconcile};
use crate::relays::GuardedRelay;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Runs until asked to stop; rounds under way are finished. `events` are the Relays' own.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    events: impl Stream<Item = watcher::Result<GuardedRelay>> + Send + 'static,
    namespace: Option<&str>,
    concurrency: u16,
    stop: Receiver<bool>,
) {
    let store = cluster.relays.clone();
    let relays = Controller::for_stream(events, store.clone()).with_config(Config::default().concurrency(concurrency));
    let config_maps = scoped::<PartialObjectMeta<ConfigMap>>(&cluster.client, namespace);
    let echoes = &cluster.echoes;
    let by_network = by_config_map(store.clone(), Arc::clone(echoes));
    let by_family = stirring(Arc::clone(echoes), members_of_family(store.clone()));
    let by_pool = tenants(store);
    let by_pool = stirring(Arc::clone(echoes), move |found: DeserializeGuard<AddressPool>| {
        by_pool(&found)
    });
    let backoff = Arc::new(Backoff::default());
    let failed = Arc::clone(&backoff);
    let gone = Arc::clone(echoes);
    let rounds = watching::<Pod>(relays, &cluster, namespace);
    let rounds = watching::<Service>(rounds, &cluster, namespace);
    let rounds = watching::<PersistentVolumeClaim>(rounds, &cluster, namespace);
    // Pools are the cluster's: an operator of one namespace has no right to them.
    let rounds = match namespace {
        Some(_) => rounds,
        None => rounds.watches(
            Api::<DeserializeGuard<AddressPool>>::all(cluster.client.clone()),
            watcher::Config::default(),
            by_pool,
        ),
    };
    let rounds = watching::<Secret>(rounds, &cluster, namespace)
        .watches(config_maps, watcher::Config::default(), by_network)
        .watches(
            scoped::<PartialObjectMeta<RelayFamily>>(&cluster.client, namespace),
            watcher::Config::default(),
            by_family,
        )
        .graceful_shutdown_on(stopped(stop.clone()))
        .run(
            reconcile,
            move |relay, error, _| failed.after(&relay, error),
            Arc::clone(&cluster),
        );
    let rounds = rounds.for_each(|round| {
        match round {
            Ok((relay, _)) => backoff.forget(&relay.erase()),
            // Deleted; what it left behind still wakes rounds while it goes.
            Err(controller::Error::ObjectNotFound(relay)) => {
                backoff.forget(&relay);
                gone.forget(&ObjectRef::new(&relay.name).within(relay.namespace.as_deref().unwrap_or_default()));
            }
            Err(error) => warn!("{error}"),
        }
        std::future::ready(())
    });
    to_the_end(rounds, cluster.relays.clone(), stop).await;
}

/// Ends when it is asked to stop.
pub(crate) async fn stopped(mut stop: Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await; // an error means that nobody can ask any more
}

/// All rounds of a controller, or none where it is asked to stop before its store has been filled once: then no round has
/// begun, and the controller, which looks no more for what would fill its store, would wait for it for ever.
pub(crate) async fn to_the_end<K>(rounds: impl Future<Output = ()>, store: Store<K>, stop: Receiver<bool>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let asked_too_early = async {
        stopped(stop).await;
        if store.wait_until_ready().now_or_never().is_some() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = asked_too_early => {}
    }
}

fn watching<K>(relays: Controller<GuardedRelay>, cluster: &Cluster, namespace: Option<&str>) -> Controller<GuardedRelay>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    PartialObjectMeta<K>: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
{
    let echoes = Arc::clone(&cluster.echoes);
    relays.watches(
        scoped::<PartialObjectMeta<K>>(&cluster.client, namespace),
        ours(),
        move |found| heard(&found, &echoes),
    )
}

/// What bears our label.
pub(crate) fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY))
}

/// The Relay whose name a label bears, told which version this is.
fn heard<K>(object: &PartialObjectMeta<K>, echoes: &Echoes) -> Option<ObjectRef<GuardedRelay>>
where
    PartialObjectMeta<K>: Resource<DynamicType = ()>,
{
    let relay = relay_of(object)?;
    echoes.heard(&relay, Version::of(object));
    Some(relay)
}

/// These Relays are to look, whatever their own objects say.
fn stirring<T>(
    echoes: Arc<Echoes>,
    whom: impl Fn(T) -> Vec<ObjectRef<GuardedRelay>> + Send + Sync + 'static,
) -> impl Fn(T) -> Vec<ObjectRef<GuardedRelay>> + Send + Sync + 'static {
    move |found| {
        let whom = whom(found);
        whom.iter().for_each(|relay| echoes.stir(relay));
        whom
    }
}

pub(crate) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The Relay whose name a label bears.
fn relay_of<K>(object: &PartialObjectMeta<K>) -> Option<ObjectRef<GuardedRelay>> {
    let labels = object.metadata.labels.as_ref()?;
    let relay = labels.get(names::LABEL_RELAY)?;
    // What is kept in the operator's namespace says for which it is.
    let namespace = labels
        .get(names::LABEL_NAMESPACE)
        .or(object.metadata.namespace.as_ref())?;
    Some(ObjectRef::new(relay).within(namespace))
}

/// A ConfigMap of ours wakes the Relay whose torrc it is; another, those whose network it describes.
fn by_config_map(
    relays: Store<GuardedRelay>,
    echoes: Arc<Echoes>,
) -> impl Fn(PartialObjectMeta<ConfigMap>) -> Vec<ObjectRef<GuardedRelay>> + Send + Sync + 'static {
    let of_network = stirring(Arc::clone(&echoes), move |found: PartialObjectMeta<ConfigMap>| {
        let all = relays.state().into_iter();
        all.filter(|relay| is_network_of(&found, relay))
            .map(|relay| ObjectRef::from_obj(relay.as_ref()))
            .collect()
    });
    move |found| {
        let managed = found.labels().get(names::LABEL_MANAGED_BY);
        if managed.is_some_and(|by| by == names::MANAGED_BY) {
            return heard(&found, &echoes).into_iter().collect();
        }
        of_network(found)
    }
}

fn is_network_of(found: &PartialObjectMeta<ConfigMap>, relay: &GuardedRelay) -> bool {
    let network = relay.0.as_ref().ok().and_then(|relay| relay.spec.network.as_ref());
    let same_name = network.is_some_and(|network| Some(&network.config_map.name) == found.metadata.name.as_ref());
    same_name && relay.namespace() == found.metadata.namespace
}

/// A family wakes its members when its spec is another: of it their torrc is made, not of its status.
fn members_of_family(
    relays: Store<GuardedRelay>,
) -> impl Fn(PartialObjectMeta<RelayFamily>) -> Vec<ObjectRef<GuardedRelay>> + Send + Sync + 'static {
    let known: Mutex<HashMap<String, Option<i64>>> = Mutex::default();
    move |found| {
        let uid = found.metadata.uid.clone().unwrap_or_default();
        let generation = found.metadata.generation;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert(uid, generation) == Some(generation) {
            return Vec::new();
        }
        let names_it = |relay: &GuardedRelay| {
            let family = relay.0.as_ref().ok().and_then(|relay| relay.spec.family.as_ref());
            family.is_some_and(|family| Some(&family.name) == found.metadata.name.as_ref())
                && relay.namespace() == found.metadata.namespace
        };
        let members = relays.state().into_iter().filter(|relay| names_it(relay));
        members.map(|relay| ObjectRef::from_obj(relay.as_ref())).collect()
    }
}

/// How often each Relay's round has failed in a row.
#[derive(Default)]
struct Backoff {
    failures: Mutex<HashMap<ObjectRef<DynamicObject>, u32>>,
}

impl Backoff {
    /// Twice as long after each failure.
    fn after(&self, relay: &GuardedRelay, error: &RoundError) -> Action {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.entry(ObjectRef::from_obj(relay).erase()).or_default();
        let wait = BACKOFF_FIRST.saturating_mul(1 << (*failed).min(9)).min(BACKOFF_MAX);
        *failed += 1;
        debug!(?wait, %error, "round failed");
        Action::requeue(wait)
    }

    /// It went well, or the Relay is gone.
    fn forget(&self, relay: &ObjectRef<DynamicObject>) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(relay);
    }
}
