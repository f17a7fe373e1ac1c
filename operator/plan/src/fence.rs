//! Whether a pod's process has certainly ended: the one question between a stopped relay and a relay that runs twice.
//!
//! A pod's object is the lock on its identity, and a finalizer of ours holds it until one of these is seen. That a pod is
//! "deleted" is none: anyone can delete the object of a pod that runs on behind a broken network.

use k8s_openapi::api::core::v1::{Node, Pod};
use operator_api::names;

use crate::observed::annotation;

/// Taint by which a person tells Kubernetes that a machine is off (Kubernetes, "Non-graceful node shutdown").
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is known of the machine that the pod was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSeen {
    /// Nobody asked, or the operator has no right to ask.
    Unknown,
    /// Its object is gone.
    Gone,
    /// Its object is there.
    There {
        /// A person has declared it out of service.
        out_of_service: bool,
    },
}

impl NodeSeen {
    /// From what the API server said.
    #[must_use]
    pub fn of(found: Option<&Node>) -> Self {
        let Some(node) = found else { return Self::Gone };
        let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
        Self::There {
            out_of_service: taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE),
        }
    }
}

/// Why it is certain that a pod's process does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// No node ever took it; the API server lets none take it now.
    NeverPlaced,
    /// Its node says that all containers have ended for good.
    Ended,
    /// Its node is no member of the cluster any more.
    NodeGone,
    /// A person declared its node out of service.
    OutOfService,
    /// A person says so of this very pod.
    Confirmed,
}

/// Looks for a proof about a pod that is being deleted. `Failed` and `Succeeded` are final: the kubelet says them when the
/// last container has ended, and no container of such a pod is started again. A single container's end is no proof, as
/// the kubelet starts it anew.
#[must_use]
pub fn proof(pod: &Pod, node: NodeSeen) -> Option<Proof> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let confirmed = annotation(&pod.metadata, names::ANNOTATION_CONFIRM_FENCED);
    if node_name(pod).is_none() {
        return Some(Proof::NeverPlaced);
    }
    match (phase, node) {
        (Some("Failed" | "Succeeded"), _) => Some(Proof::Ended),
        (_, NodeSeen::Gone) => Some(Proof::NodeGone),
        (_, NodeSeen::There { out_of_service: true }) => Some(Proof::OutOfService),
        _ => (confirmed.is_some() && confirmed == pod.metadata.uid.as_deref()).then_some(Proof::Confirmed),
    }
}

/// Where the pod was put.
#[must_use]
pub fn node_name(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(node: Value, phase: &str, confirmed: Value) -> Pod {
        let pod = json!({
            "metadata": {"uid": "u-1", "annotations": {"relayfleet.io/confirm-fenced": confirmed}},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase, "containerStatuses": [{"name": "relay", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn silence_and_a_container_that_may_start_again_prove_nothing() {
        let here = NodeSeen::There { out_of_service: false };
        for node in [here, NodeSeen::Unknown] {
            assert_eq!(proof(&pod(json!("n1"), "Running", json!("")), node), None);
            assert_eq!(
                proof(&pod(json!("n1"), "Pending", json!("u-2")), node),
                None,
                "of another pod"
            );
        }
    }

    #[test]
    fn each_proof_is_enough_alone() {
        let here = NodeSeen::There { out_of_service: false };
        let running = pod(json!("n1"), "Running", json!(""));
        assert_eq!(
            proof(&pod(json!(null), "Pending", json!("")), NodeSeen::Unknown),
            Some(Proof::NeverPlaced)
        );
        assert_eq!(
            proof(&pod(json!("n1"), "Succeeded", json!("")), here),
            Some(Proof::Ended)
        );
        assert_eq!(proof(&running, NodeSeen::Gone), Some(Proof::NodeGone));
        assert_eq!(
            proof(&running, NodeSeen::There { out_of_service: true }),
            Some(Proof::OutOfService)
        );
        assert_eq!(
            proof(&pod(json!("n1"), "Running", json!("u-1")), here),
            Some(Proof::Confirmed)
        );
    }

    #[test]
    fn a_node_tells_by_its_taints() {
        let node = |key: &str| -> Node {
            serde_json::from_value(json!({"spec": {"taints": [{"key": key, "effect": "NoExecute"}]}})).unwrap()
        };
        assert_eq!(NodeSeen::of(None), NodeSeen::Gone);
        assert_eq!(
            NodeSeen::of(Some(&node("node.kubernetes.io/unreachable"))),
            NodeSeen::There { out_of_service: false }
        );
        assert_eq!(
            NodeSeen::of(Some(&node(OUT_OF_SERVICE))),
            NodeSeen::There { out_of_service: true }
        );
    }
}
