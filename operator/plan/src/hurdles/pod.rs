//! Hurdles that the pod tells of.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use operator_api::names;

use super::{Hurdle, View};
use crate::fence::node_name;
use crate::observed::annotation;

/// After its grace period a kubelet that is alive has killed the pod and said so; this is for the saying.
const SILENCE_SECONDS_MAX: i64 = 15;

/// What stands between a pod and the one that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// It is the one.
    Current,
    /// It is not, but still good, and its RelaySet has not said that it is its turn.
    WaitsForTurn,
    /// It is not: it is to be asked to end.
    Replaceable,
    /// It was asked to end.
    Going,
}

/// Where a pod stands. Made from another spec, for an earlier Relay of this name, or ended for good (evicted, for
/// instance): all ask for another one.
pub(crate) fn age(view: &View<'_>, pod: &Pod) -> Age {
    if pod.metadata.deletion_timestamp.is_some() {
        return Age::Going;
    }
    let relay = &view.seen.relay;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let owners = pod.metadata.owner_references.iter().flatten();
    let mine = owners
        .into_iter()
        .any(|owner| Some(&owner.uid) == relay.metadata.uid.as_ref());
    if !mine || matches!(phase, Some("Failed" | "Succeeded")) {
        return Age::Replaceable;
    }
    // Nobody knows what the pod should be: it stays.
    let made_from = annotation(&pod.metadata, names::ANNOTATION_POD_HASH);
    let known = made_from == view.pod_hash || made_from.is_some_and(|hash| view.earlier_hash.as_deref() == Some(hash));
    if view.pod_hash.is_none() || known {
        return Age::Current;
    }
    let turn = annotation(&relay.metadata, names::ANNOTATION_TURN);
    if in_a_set(relay) && (turn.is_none() || turn != pod.metadata.uid.as_deref()) {
        return Age::WaitsForTurn;
    }
    Age::Replaceable
}

/// Whether a RelaySet says when this Relay's pod may be replaced.
fn in_a_set(relay: &operator_api::Relay) -> bool {
    let owners = relay.metadata.owner_references.iter().flatten();
    owners
        .into_iter()
        .any(|owner| owner.controller == Some(true) && owner.kind == "RelaySet")
}

pub(super) fn absent(view: &View<'_>) -> Option<Hurdle> {
    let spec = &view.seen.relay.spec;
    if view.seen.pod.ours().is_some() {
        return None;
    }
    Some(if spec.is_paused() {
        Hurdle::standing(
            "Paused",
            "there is no pod, and none is made while spec.paused is true. Set it to false to start the relay",
        )
    } else if spec.is_stopped() {
        Hurdle::standing(
            "Stopped",
            "spec.state is Stopped: keys and volume are kept. Set it to Running to start the relay",
        )
    } else {
        Hurdle::passing("Starting", "the relay's pod is being made")
    })
}

/// A pod on its way out. Nothing takes its place before its object is gone, which our finalizer holds until its end is
/// proven.
pub(super) fn going(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    match age(view, pod) {
        Age::Current | Age::WaitsForTurn => None,
        Age::Replaceable if view.seen.relay.spec.is_paused() => Some(Hurdle::standing(
            "Paused",
            "the pod is not the one that the spec asks for, and is not replaced while spec.paused is true",
        )),
        Age::Replaceable => Some(Hurdle::passing(
            "Replacing",
            "the pod is being replaced by one of the new spec",
        )),
        Age::Going => Some(not_proven(view, pod)),
    }
}

/// Why it is not certain yet that the old process has ended, and what its owner can do.
fn not_proven(view: &View<'_>, pod: &Pod) -> Hurdle {
    let node = node_name(pod).unwrap_or("no node");
    if !is_overdue(view, pod) {
        return Hurdle::passing(
            "Stopping",
            format!("the old pod (on {node}) is stopping; the next is made when it has ended"),
        );
    }
    let (namespace, name, uid) = (
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
    );
    Hurdle::standing(
        "NodeSilent",
        format!(
            "node {node} does not say whether the old pod has ended, so it may run on, and no second one is started. Bring the \
             node back. Or, only when the machine is certainly off: delete the Node object, taint it \
             node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, or confirm it for this pod alone with: kubectl -n \
             {namespace} annotate pod {name} {}={uid}",
            names::ANNOTATION_CONFIRM_FENCED
        ),
    )
}

/// A deletion's timestamp is the moment at which the grace period ends.
fn seconds_until_overdue(view: &View<'_>, pod: &Pod) -> Option<i64> {
    let ends = pod.metadata.deletion_timestamp.as_ref()?.0.as_second();
    Some(ends.saturating_add(SILENCE_SECONDS_MAX) - view.now.0.as_second())
}

fn is_overdue(view: &View<'_>, pod: &Pod) -> bool {
    seconds_until_overdue(view, pod).is_some_and(|seconds| seconds <= 0)
}

/// When the end of the old pod will be overdue, if it is not yet.
pub(crate) fn overdue_in(view: &View<'_>) -> Option<Duration> {
    let seconds = seconds_until_overdue(view, view.seen.pod.ours()?)?;
    u64::try_from(seconds)
        .ok()
        .filter(|wait| *wait > 0)
        .map(Duration::from_secs)
}

/// What the condition Fenced says: whether another process of this identity could be running.
pub(crate) fn unfenced(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    (age(view, pod) == Age::Going).then(|| not_proven(view, pod))
}

/// What the condition Updated says.
pub(crate) fn outdated(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    match age(view, pod) {
        Age::Current => None,
        Age::WaitsForTurn if !view.seen.relay.spec.is_paused() => Some(Hurdle::passing(
            "WaitingForTurn",
            "the pod runs on as it was until its RelaySet lets it be replaced",
        )),
        Age::WaitsForTurn => Some(Hurdle::standing(
            "Paused",
            "the pod is not replaced while spec.paused is true",
        )),
        Age::Replaceable | Age::Going => going(view),
    }
}

pub(super) fn stuck(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    unscheduled(pod)
        .or_else(|| super::container::failed_keys(pod))
        .or_else(|| super::container::held_container(pod))
}

fn unscheduled(pod: &Pod) -> Option<Hurdle> {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False")?;
    let why = scheduled.message.as_deref().unwrap_or("the scheduler gives no reason");
    Some(Hurdle::standing(
        "Unschedulable",
        format!(
            "no node takes the pod: {why}. Look at the volume claim and its StorageClass, and at the nodes' room and taints"
        ),
    ))
}

pub(super) fn not_listening(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    let ready = condition(pod, "Ready").is_some_and(|ready| ready.status == "True");
    if ready {
        return None;
    }
    if let Some(node) = node_name(pod).filter(|_| all_containers_ready(pod)) {
        return Some(Hurdle::standing(
            "NodeUnreachable",
            format!("node {node} does not answer the API server; the relay may run on there. Look at the node"),
        ));
    }
    Some(Hurdle::passing(
        "Starting",
        "the pod is starting; the ORPort does not take connections yet",
    ))
}

/// The kubelet's last word. If the pod is not ready all the same, it was the cluster that lost sight of the node.
fn all_containers_ready(pod: &Pod) -> bool {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    containers.is_some_and(|all| !all.is_empty() && all.iter().all(|container| container.ready))
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.into_iter().find(|condition| condition.type_ == type_)
}
