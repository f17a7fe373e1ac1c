//! The loop for AddressPools: reads who wants an address, writes the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource as _, ResourceExt as _};
use operator_api::pool::status::AddressPoolStatus;
use operator_api::{AddressPool, Allocation, Relay, condition, names};
use operator_plan::pool::Claim;
use operator_plan::{PoolObserved, PoolSeen, decide_pool};
use tokio::sync::watch::Receiver;
use tracing::{debug, info, warn};

use crate::apply::count;
use crate::cluster::Cluster;
use crate::events::tell;
use crate::reconcile::RoundError;
use crate::relays::GuardedRelay;
use crate::wakes::Wakes;
use crate::watch::{stopped, to_the_end};

type GuardedPool = DeserializeGuard<AddressPool>;

/// Watches tell of every change; this is for the one that was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
/// Looking after a place that is kept costs two reads.
const LOOK_AFTER_KEYS: Duration = Duration::from_secs(60);
const LOOK_AGAIN_SOON: Duration = Duration::from_millis(300);
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);
/// A fleet that comes up asks for many addresses: one write gives them all.
const GATHERING: Duration = Duration::from_secs(1);
/// What Pod Security enforces in a namespace.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Runs until asked to stop; `woken` are pools that Relays came to or left. Pools are the cluster's: an operator of one
/// namespace has none.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    woken: Arc<Wakes<GuardedPool>>,
    namespace: Option<&str>,
    stop: Receiver<bool>,
) {
    if namespace.is_some() {
        return stopped(stop).await;
    }
    let api: Api<GuardedPool> = Api::all(cluster.client.clone());
    let pools = Controller::new(api, watcher::Config::default()).with_config(Config::default().concurrency(4));
    cluster.telemetry.inventory.count_pools_of(pools.store());
    let by_pool = every(pools.store());
    let store = pools.store();
    let rounds = pools
        .reconcile_on(woken.stream())
        // An address that leaves one pool may be another's.
        .watches(
            Api::<PartialObjectMeta<AddressPool>>::all(cluster.client.clone()),
            watcher::Config::default(),
            move |_| by_pool(),
        )
        .graceful_shutdown_on(stopped(stop.clone()))
        .run(
            reconcile,
            |_, _, _| Action::requeue(AFTER_A_FAILURE),
            Arc::clone(&cluster),
        )
        .for_each(|round| {
            match round {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => warn!("{error}"),
            }
            std::future::ready(())
        });
    to_the_end(rounds, store, stop).await;
}

/// All look. There are few.
fn every(pools: Store<GuardedPool>) -> impl Fn() -> Vec<ObjectRef<GuardedPool>> + Send + Sync + 'static {
    move || {
        pools
            .state()
            .iter()
            .map(|pool| ObjectRef::from_obj(pool.as_ref()))
            .collect()
    }
}

async fn reconcile(pool: Arc<GuardedPool>, cluster: Arc<Cluster>) -> Result<Action, RoundError> {
    tokio::time::sleep(GATHERING).await;
    let counted = cluster.telemetry.begin_round("AddressPool");
    let done = round(&pool.name_any(), &cluster).await;
    counted.end(done.is_ok());
    done
}

async fn round(name: &str, cluster: &Cluster) -> Result<Action, RoundError> {
    let pools: Api<GuardedPool> = Api::all(cluster.client.clone());
    let listed = pools.list(&ListParams::default()).await?.items;
    let mut readable: Vec<AddressPool> = listed.into_iter().filter_map(|pool| pool.0.ok()).collect();
    let Some(at) = readable.iter().position(|pool| pool.name_any() == name) else {
        return Ok(Action::await_change());
    };
    let pool = readable.swap_remove(at);
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let claims = claims(cluster, name).await?;
    let seen = PoolObserved {
        kept: kept(cluster, &pool, &claims).await?,
        claims,
        pool,
        others: readable,
    };
    let status = decide_pool(&seen, &Time(Timestamp::now()));
    // Nobody tells when the keys go for which a place is kept.
    let later = if seen.kept.is_empty() {
        LOOK_AGAIN
    } else {
        LOOK_AFTER_KEYS
    };
    if seen.pool.status.as_ref() == Some(&status) {
        return Ok(Action::requeue(later));
    }
    let before = seen.pool.status.clone().unwrap_or_default();
    let about = seen.pool.object_ref(&());
    // With the resourceVersion that was read: who wrote meanwhile makes us look again.
    let next = AddressPool {
        status: Some(status),
        ..seen.pool
    };
    let pools: Api<AddressPool> = Api::all(cluster.client.clone());
    let done = pools.replace_status(name, &PostParams::default(), &next).await;
    match count(cluster, "AddressPool", "status", "write the ledger", done) {
        Ok(written) => {
            info!(name, "allocated");
            tell_pool(cluster, &about, &before, &written.status.unwrap_or_default()).await;
        }
        Err(error) if error.is_conflict() => {
            debug!(name, %error, "the facts were old");
            return Ok(Action::requeue(LOOK_AGAIN_SOON));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Action::requeue(later))
}

/// Places given and taken back, in one event however many; and what stands in the way of the next.
async fn tell_pool(cluster: &Cluster, about: &ObjectReference, before: &AddressPoolStatus, after: &AddressPoolStatus) {
    let without = |these: &[Allocation], those: &[Allocation]| {
        let same = |one: &Allocation, other: &Allocation| {
            (&one.namespace, &one.relay, &one.ipv4, one.port)
                == (&other.namespace, &other.relay, &other.ipv4, other.port)
        };
        these
            .iter()
            .filter(|one| !those.iter().any(|other| same(one, other)))
            .count()
    };
    let given = without(&after.allocations, &before.allocations);
    let back = without(&before.allocations, &after.allocations);
    if given + back > 0 {
        let note = format!("gave {given} places and took {back} back; status.allocations has who has which");
        tell(cluster, about, EventType::Normal, "PlacesChanged", note).await;
    }
    let ready = after.conditions.iter().find(|one| one.type_ == condition::READY);
    let reason = |status: &AddressPoolStatus| {
        let ready = status.conditions.iter().find(|one| one.type_ == condition::READY);
        ready.map(|ready| ready.reason.clone())
    };
    if let Some(ready) = ready.filter(|ready| reason(before).as_ref() != Some(&ready.reason)) {
        let type_ = if ready.status == "True" {
            EventType::Normal
        } else {
            EventType::Warning
        };
        tell(cluster, about, type_, &ready.reason, ready.message.clone()).await;
    }
}

/// Who has a place and no Relay any more, while the keys are kept: as soon as a Relay of the name is there it is the same
/// relay again. One whose Relay names another pool, or none, gave its place up.
async fn kept(cluster: &Cluster, pool: &AddressPool, claims: &[Claim]) -> kube::Result<Vec<Claim>> {
    let held = pool.status.iter().flat_map(|status| &status.allocations);
    let gone = held
        .map(|one| Claim {
            namespace: one.namespace.clone(),
            relay: one.relay.clone(),
        })
        .filter(|one| !claims.contains(one));
    let mut kept = Vec::new();
    for one in gone {
        let relays: Api<PartialObjectMeta<Relay>> = Api::namespaced(cluster.client.clone(), &one.namespace);
        if relays.get_opt(&one.relay).await?.is_none() && has_keys(cluster, &one).await? {
            kept.push(one);
        }
    }
    Ok(kept)
}

/// With the operator's custody its namespace has them, else the relay's own.
async fn has_keys(cluster: &Cluster, one: &Claim) -> kube::Result<bool> {
    let places = [
        (
            cluster.settings.custody_namespace.as_str(),
            names::custody_secret(&one.namespace, &one.relay),
        ),
        (one.namespace.as_str(), names::identity_secret(&one.relay)),
    ];
    for (namespace, name) in places {
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(cluster.client.clone(), namespace);
        let found = secrets.get_opt(&name).await?;
        // What a pod had of keys that are kept elsewhere goes with its Relay, a little later.
        if found.is_some_and(|secret| secret.owner_references().is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Also of Relays that are on their way out: their pods still have the port.
async fn claims(cluster: &Cluster, pool: &str) -> kube::Result<Vec<Claim>> {
    let relays: Api<PartialObjectMeta<Relay>> = Api::all(cluster.client.clone());
    let named = ListParams::default().fields(&format!("spec.addressPool.name={pool}"));
    let found = relays.list(&named).await?;
    let claim = |relay: &PartialObjectMeta<Relay>| Claim {
        namespace: relay.namespace().unwrap_or_default(),
        relay: relay.name_any(),
    };
    Ok(found.items.iter().map(claim).collect())
}

/// For a Relay's round: its pool, and what its namespace enforces.
pub(crate) async fn look(cluster: &Cluster, relay: &Relay) -> kube::Result<PoolSeen> {
    let Some(named) = &relay.spec.address_pool else {
        return Ok(PoolSeen::Unnamed);
    };
    let pools: Api<AddressPool> = Api::all(cluster.client.clone());
    let pool = match pools.get_opt(&named.name).await {
        Ok(Some(pool)) => pool,
        Ok(None) => return Ok(PoolSeen::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(PoolSeen::Forbidden),
        Err(error) => return Err(error),
    };
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(cluster.client.clone());
    let namespace = namespaces.get_opt(&relay.namespace().unwrap_or_default()).await?;
    let labels = namespace.and_then(|namespace| namespace.metadata.labels);
    Ok(PoolSeen::There {
        pool: Box::new(pool),
        pod_security: labels.and_then(|mut labels| labels.remove(ENFORCE)),
    })
}

/// A pool wakes the Relays whose entry in the ledger is another than before; and all that name it when its spec changes.
pub(crate) fn tenants(
    relays: Store<GuardedRelay>,
) -> impl Fn(&GuardedPool) -> Vec<ObjectRef<GuardedRelay>> + Send + Sync + 'static {
    type Known = HashMap<String, (Option<i64>, Vec<Allocation>)>;
    let known: Mutex<Known> = Mutex::default();
    move |found| {
        let (name, generation) = (found.name_any(), found.meta().generation);
        let status = found
            .0
            .as_ref()
            .ok()
            .and_then(|pool| pool.status.clone())
            .unwrap_or_default();
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(name.clone(), (generation, status.allocations.clone()));
        let (before_generation, before) = before.unwrap_or_default();
        let names_it = |relay: &GuardedRelay| {
            let pool = relay.0.as_ref().ok().and_then(|relay| relay.spec.address_pool.as_ref());
            pool.is_some_and(|pool| pool.name == name)
        };
        if before_generation != generation {
            let tenants = relays.state().into_iter().filter(|relay| names_it(relay));
            return tenants.map(|relay| ObjectRef::from_obj(relay.as_ref())).collect();
        }
        let changed = status.allocations.iter().filter(|entry| !before.contains(entry));
        changed
            .map(|entry| ObjectRef::new(&entry.relay).within(&entry.namespace))
            .collect()
    }
}
