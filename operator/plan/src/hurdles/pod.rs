//! Hurdles that the pod tells of.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use operator_api::names;

use super::container::{failed_keys, held_container};
use super::{Hurdle, View};
use crate::observed::annotation;

pub(super) fn absent(view: &View<'_>) -> Option<Hurdle> {
    view.seen
        .pod
        .ours()
        .is_none()
        .then(|| Hurdle::passing("Starting", "the relay's pod is being made"))
}

/// A pod on its way out. Nothing takes its place before its object is gone: only then is it certain that it stopped.
pub(super) fn going(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    if pod.metadata.deletion_timestamp.is_some() {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .unwrap_or("no node");
        return Some(Hurdle::passing(
            "Stopping",
            format!(
                "the old pod (on {node}) is stopping; the next is made when it is gone. If its node is lost, bring the node \
                 back or remove the Node object once the machine is certainly off"
            ),
        ));
    }
    is_outdated(view, pod).then(|| Hurdle::passing("Replacing", "the pod is being replaced by one of the new spec"))
}

/// Made from another spec or for an earlier Relay of this name, or ended for good (evicted, for instance).
pub(crate) fn is_outdated(view: &View<'_>, pod: &Pod) -> bool {
    let current = annotation(&pod.metadata, names::ANNOTATION_POD_HASH) == view.pod_hash;
    let owners = pod.metadata.owner_references.iter().flatten();
    let mine = owners
        .into_iter()
        .any(|owner| Some(&owner.uid) == view.seen.relay.metadata.uid.as_ref());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !current || !mine || matches!(phase, Some("Failed" | "Succeeded"))
}

pub(super) fn stuck(view: &View<'_>) -> Option<Hurdle> {
    let pod = view.seen.pod.ours()?;
    unscheduled(pod)
        .or_else(|| failed_keys(pod))
        .or_else(|| held_container(pod))
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
    (!ready).then(|| {
        Hurdle::passing(
            "Starting",
            "the pod is starting; the ORPort does not take connections yet",
        )
    })
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.into_iter().find(|condition| condition.type_ == type_)
}
