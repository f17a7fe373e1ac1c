//! Lets a deleted pod's object go when it is proven that its process has ended.
//!
//! The object is the lock on the relay's identity. It is watched apart from the Relays, for a Relay may be gone before its
//! pod is.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource as _, ResourceExt as _};
use operator_api::names;
use operator_plan::fence::{NodeSeen, Proof, node_name, proof};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tracing::{debug, info, warn};

use crate::apply::{ApplyError, FIELD_MANAGER, count};
use crate::cluster::Cluster;
use crate::relays::slim_meta;
use crate::watch::{ours, scoped, stopped, to_the_end};

/// A Node that is deleted or tainted changes nothing about the pod at first.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_SOON: Duration = Duration::from_millis(200);

/// Runs until asked to stop; rounds under way are finished.
pub(crate) async fn run(cluster: Arc<Cluster>, namespace: Option<&str>, concurrency: u16, stop: Receiver<bool>) {
    let (store, writer) = reflector::store();
    let ending = watcher::watcher(scoped::<PartialObjectMeta<Pod>>(&cluster.client, namespace), ours())
        .default_backoff()
        .try_filter_map(|event| std::future::ready(Ok(only_ending(event))))
        .modify(|pod| slim_meta(pod.meta_mut()))
        .reflect(writer)
        .touched_objects();
    let filled = store.clone();
    let pods = Controller::for_stream(ending, store).with_config(Config::default().concurrency(concurrency));
    let rounds = pods.graceful_shutdown_on(stopped(stop.clone())).run(
        reconcile,
        |pod, error, _| {
            warn!(pod = pod.name_any(), %error, "cannot look whether a pod has ended");
            Action::requeue(LOOK_AGAIN)
        },
        cluster,
    );
    let rounds = futures::StreamExt::for_each(rounds, |_| std::future::ready(()));
    to_the_end(rounds, filled, stop).await;
}

/// Of a pod that nobody has asked to end nothing is kept.
fn only_ending(event: Event<PartialObjectMeta<Pod>>) -> Option<Event<PartialObjectMeta<Pod>>> {
    match event {
        Event::InitApply(pod) if pod.metadata.deletion_timestamp.is_none() => None,
        Event::Apply(pod) if pod.metadata.deletion_timestamp.is_none() => None,
        other => Some(other),
    }
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum FenceError {
    #[error(transparent)]
    Read(#[from] kube::Error),
    #[error("cannot {0}")]
    Apply(#[from] ApplyError),
}

async fn reconcile(seen: Arc<PartialObjectMeta<Pod>>, cluster: Arc<Cluster>) -> Result<Action, FenceError> {
    if seen.metadata.deletion_timestamp.is_none() || !is_held(seen.finalizers()) {
        return Ok(Action::await_change());
    }
    // What is decided here cannot be taken back: not from a cache.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &seen.namespace().unwrap_or_default());
    let Some(pod) = pods.get_opt(&seen.name_any()).await? else {
        return Ok(Action::await_change());
    };
    if pod.metadata.deletion_timestamp.is_none() || !is_held(pod.finalizers()) {
        return Ok(Action::await_change());
    }
    let node = match proof(&pod, NodeSeen::Unknown) {
        Some(_) => NodeSeen::Unknown,
        None => look_at_node(&cluster, &pod).await?,
    };
    let Some(proof) = proof(&pod, node) else {
        return Ok(Action::requeue(LOOK_AGAIN));
    };
    match release(&cluster, &pods, &pod, proof).await {
        Ok(()) => {
            info!(
                namespace = pod.namespace(),
                pod = pod.name_any(),
                ?proof,
                "the pod's end is proven"
            );
            Ok(Action::await_change())
        }
        Err(error) if error.is_conflict() => {
            debug!(pod = pod.name_any(), %error, "the facts were old");
            Ok(Action::requeue(LOOK_AGAIN_SOON))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_held(finalizers: &[String]) -> bool {
    finalizers.iter().any(|held| held == names::FINALIZER_POD)
}

/// An operator of one namespace may have no right to look at nodes: then the node proves nothing.
async fn look_at_node(cluster: &Cluster, pod: &Pod) -> kube::Result<NodeSeen> {
    let Some(name) = node_name(pod) else {
        return Ok(NodeSeen::Unknown);
    };
    match Api::<Node>::all(cluster.client.clone()).get_opt(name).await {
        Ok(found) => Ok(NodeSeen::of(found.as_ref())),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(NodeSeen::Unknown),
        Err(error) => Err(error),
    }
}

/// Takes our finalizer away. Only where a person vouches for the pod's end is the kubelet's word not waited for.
async fn release(cluster: &Cluster, pods: &Api<Pod>, pod: &Pod, proof: Proof) -> Result<(), ApplyError> {
    if proof == Proof::Confirmed {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default().grace_period(0)
        };
        let done = pods.delete(&pod.name_any(), &parameters).await;
        count(cluster, "Pod", "delete", "delete the pod whose end was confirmed", done)?;
    }
    let others: Vec<&String> = pod
        .finalizers()
        .iter()
        .filter(|held| *held != names::FINALIZER_POD)
        .collect();
    let mut metadata = json!({"uid": pod.metadata.uid, "finalizers": others});
    if proof != Proof::Confirmed
        && let Some(fields) = metadata.as_object_mut()
    {
        fields.insert("resourceVersion".to_owned(), json!(pod.metadata.resource_version));
    }
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let done = pods.patch(&pod.name_any(), &parameters, &patch).await;
    match count(cluster, "Pod", "patch", "let the ended pod go", done) {
        Err(error) if error.is_gone() => Ok(()),
        other => other.map(drop),
    }
}
