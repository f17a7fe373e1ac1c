//! The loop for RelaySets, beside the one for Relays and as thin.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use operator_api::{Relay, RelaySet, RelaySetStatus, names};
use operator_plan::{SetObserved, SetStep, decide_set};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tracing::{debug, info, warn};

use crate::apply::{ApplyError, STATUS_MANAGER, count, or_gone, put_where_it_says};
use crate::cluster::Cluster;
use crate::events::tell;
use crate::reconcile::RoundError;
use crate::wakes::Wakes;
use crate::watch::{scoped, stopped, to_the_end};

type GuardedSet = DeserializeGuard<RelaySet>;

/// Watches tell of every change; this is for the one that was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
const LOOK_AGAIN_SOON: Duration = Duration::from_millis(500);
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);
/// A round waits this long before it looks: its relays change one after the other, and one look does for many.
const GATHERING: Duration = Duration::from_millis(500);
/// Sets worked on at once; most of the time they wait.
const CONCURRENCY: u16 = 16;
/// Turns are written with a manager of their own: they are no part of what is applied.
const TURN_MANAGER: &str = "relayfleet-operator-turn";
/// Relays asked for at a time.
const PAGE: u32 = 500;
/// Names looked for at once.
const ASKED_AT_ONCE: usize = 16;
/// A round that took long is followed by a rest of a few times that, so that a set of thousands leaves room for others.
const REST: u32 = 3;
const REST_MAX: Duration = Duration::from_secs(3);

/// Runs until asked to stop; rounds under way are finished. `woken` are sets whose relays changed.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    woken: Arc<Wakes<GuardedSet>>,
    namespace: Option<&str>,
    stop: Receiver<bool>,
) {
    let sets = Controller::new(
        scoped::<GuardedSet>(&cluster.client, namespace),
        watcher::Config::default(),
    )
    .with_config(Config::default().concurrency(CONCURRENCY));
    cluster.telemetry.inventory.count_sets_of(sets.store());
    let labelled = || watcher::Config::default().labels(names::LABEL_SET);
    let budgets = scoped::<PartialObjectMeta<PodDisruptionBudget>>(&cluster.client, namespace);
    let store = sets.store();
    let rounds = sets
        .reconcile_on(woken.stream())
        .watches(budgets, labelled(), |budget| set_of(&budget))
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

/// The set whose name a label bears.
fn set_of(object: &impl ResourceExt) -> Option<ObjectRef<GuardedSet>> {
    let set = object.labels().get(names::LABEL_SET)?;
    Some(ObjectRef::new(set).within(&object.namespace()?))
}

async fn reconcile(set: Arc<GuardedSet>, cluster: Arc<Cluster>) -> Result<Action, RoundError> {
    tokio::time::sleep(GATHERING).await;
    let begun = Instant::now();
    let counted = cluster.telemetry.begin_round("RelaySet");
    let done = round(&set, &cluster).await;
    counted.end(done.is_ok());
    tokio::time::sleep((begun.elapsed() * REST).min(REST_MAX)).await;
    done
}

async fn round(set: &GuardedSet, cluster: &Cluster) -> Result<Action, RoundError> {
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    if let Err(invalid) = &set.0 {
        let error = &invalid.error;
        warn!(
            namespace,
            name, error, "this RelaySet cannot be read; nothing is done for it"
        );
        return Ok(Action::await_change());
    }
    let Some(seen) = gather(cluster, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    let Some(plan) = decide_set(&seen, &Time(Timestamp::now())) else {
        return Ok(Action::await_change());
    };
    if seen.set.status.as_ref() != Some(&plan.status) {
        write_status(cluster, &seen.set, &plan.status).await?;
    }
    for step in &plan.steps {
        match apply(cluster, &namespace, step).await {
            Ok(()) => {
                info!(namespace, name, step = %said(step), "done");
                tell_step(cluster, &seen.set, step).await;
            }
            Err(error) if error.is_conflict() => {
                debug!(namespace, name, %error, "the facts were old");
                return Ok(Action::requeue(LOOK_AGAIN_SOON));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What was written wakes the next round, which says that all is well.
    Ok(Action::requeue(LOOK_AGAIN))
}

/// Straight from the API server: on an old answer a second relay might be taken away. Of Relays that do not bear the set's
/// label only those are read whose names the set needs.
async fn gather(cluster: &Cluster, namespace: &str, name: &str) -> kube::Result<Option<SetObserved>> {
    let sets: Api<RelaySet> = Api::namespaced(cluster.client.clone(), namespace);
    let Some(set) = sets.get_opt(name).await? else {
        return Ok(None);
    };
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), namespace);
    let relays: Api<DeserializeGuard<Relay>> = Api::namespaced(cluster.client.clone(), namespace);
    let mut found = Vec::new();
    let mut page = ListParams::default()
        .labels(&format!("{}={name}", names::LABEL_SET))
        .limit(PAGE);
    loop {
        let list = relays.list(&page).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page = page.continue_token(&more),
            None => break,
        }
    }
    let there: BTreeSet<String> = found.iter().map(|relay| relay.name_any()).collect();
    let needed = (0..set.spec.replicas).map(|ordinal| names::set_member(name, ordinal));
    let strangers: Vec<_> = futures::stream::iter(needed.filter(|needed| !there.contains(needed)))
        .map(|needed| {
            let relays = &relays;
            async move { relays.get_opt(&needed).await }
        })
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    found.extend(strangers.into_iter().flatten());
    Ok(Some(SetObserved {
        set,
        relays: found.into_iter().filter_map(|relay| relay.0.ok()).collect(),
        budget: budgets.get_opt(name).await?,
    }))
}

async fn write_status(cluster: &Cluster, set: &RelaySet, status: &RelaySetStatus) -> Result<(), ApplyError> {
    let patch = json!({
        "apiVersion": RelaySet::api_version(&()),
        "kind": RelaySet::kind(&()),
        "metadata": {"name": set.name_any(), "uid": set.metadata.uid},
        "status": status,
    });
    let sets: Api<RelaySet> = Api::namespaced(cluster.client.clone(), &set.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    let done = sets
        .patch_status(&set.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    count(cluster, "RelaySet", "status", "write the status", done).map(drop)
}

async fn apply(cluster: &Cluster, namespace: &str, step: &SetStep) -> Result<(), ApplyError> {
    let relays: Api<Relay> = Api::namespaced(cluster.client.clone(), namespace);
    match step {
        SetStep::ApplyRelay(relay) => put_where_it_says(cluster, relay.as_ref(), "apply a Relay of the set")
            .await
            .map(drop),
        SetStep::ApplyBudget(budget) => put_where_it_says(cluster, budget.as_ref(), "apply the disruption budget")
            .await
            .map(drop),
        SetStep::DeleteRelay { name, uid } => {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    resource_version: None,
                }),
                ..Default::default()
            };
            let done = relays.delete(name, &parameters).await;
            or_gone(count(cluster, "Relay", "delete", "delete a Relay of the set", done)).map(drop)
        }
        SetStep::GrantTurn { name, uid, pod_uid } => {
            let change = json!({"metadata": {"uid": uid, "annotations": {names::ANNOTATION_TURN: pod_uid}}});
            let parameters = PatchParams {
                field_manager: Some(TURN_MANAGER.to_owned()),
                ..Default::default()
            };
            let done = relays.patch(name, &parameters, &Patch::Merge(&change)).await;
            or_gone(count(cluster, "Relay", "patch", "give a Relay its turn", done)).map(drop)
        }
    }
}

/// A step is told once it was done; relays that come tell of themselves.
async fn tell_step(cluster: &Cluster, set: &RelaySet, step: &SetStep) {
    let (reason, note) = match step {
        SetStep::DeleteRelay { name, .. } => (
            "RelayTakenAway",
            format!("took relay {name} away; its keys and volume are kept for when the set grows again"),
        ),
        SetStep::GrantTurn { name, .. } => ("TurnGranted", format!("let the pod of relay {name} be replaced")),
        SetStep::ApplyRelay(_) | SetStep::ApplyBudget(_) => return,
    };
    tell(cluster, &set.object_ref(&()), EventType::Normal, reason, note).await;
}

fn said(step: &SetStep) -> String {
    match step {
        SetStep::ApplyRelay(relay) => format!("ApplyRelay {}", relay.name_any()),
        SetStep::DeleteRelay { name, .. } => format!("DeleteRelay {name}"),
        SetStep::GrantTurn { name, .. } => format!("GrantTurn {name}"),
        SetStep::ApplyBudget(_) => "ApplyBudget".to_owned(),
    }
}
