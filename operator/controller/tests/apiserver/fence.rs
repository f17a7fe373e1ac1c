//! Never two processes of one identity: what it takes until a lost pod has a successor.

use serde_json::json;

use crate::audit;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::await_yes;

impl Scene {
    /// A node of this name, without a kubelet.
    pub(crate) fn node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.server.apply(&node.to_string());
    }

    /// What scheduler and kubelet would do with the pod: it runs on the node and takes connections.
    pub(crate) fn runs_on(&self, pod: &str, node: &str) {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/binding", self.namespace);
        self.server.create_raw(&path, &binding.to_string());
        self.pod_says(pod, "Running", true);
    }

    /// The kubelet's word.
    pub(crate) fn pod_says(&self, pod: &str, phase: &str, ready: bool) {
        let status = json!({"status": {
            "phase": phase, "podIP": "198.18.1.7",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        }});
        let patch = status.to_string();
        self.kubectl(&[
            "patch",
            "pod",
            pod,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    /// As somebody in a hurry would.
    fn delete_by_force(&self) {
        self.kubectl(&["delete", "pod", "demo", "--force", "--grace-period=0", "--wait=false"]);
    }

    fn pods_created(&self) -> usize {
        audit::count(&self.server, self.namespace, "create", "pods")
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_pod_deleted_by_force_behind_a_broken_network_has_no_successor_until_a_person_vouches_for_its_end() {
    let scene = Scene::new("silent");
    scene.node("silent-1");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let old = scene.await_pod();
    scene.runs_on("demo", "silent-1");
    scene.await_reason("Ready", "Listening");
    assert_eq!(scene.condition("Fenced").unwrap()["status"], "True");

    scene.delete_by_force();
    let said = scene.await_reason("Fenced", "NodeSilent");
    assert_eq!(said["status"], "Unknown");
    let told = scene.kubectl(&["describe", "relay", "demo"]);
    let remedy = format!(
        "kubectl -n {} annotate pod demo relayfleet.io/confirm-fenced={old}",
        scene.namespace
    );
    assert!(told.contains(&remedy), "{told}");
    let confirm = |uid: &str| {
        let said = format!("relayfleet.io/confirm-fenced={uid}");
        scene.kubectl(&["annotate", "--overwrite", "pod", "demo", &said]);
    };
    confirm("another"); // of another pod: it proves nothing
    scene.rename_relay("other");
    scene.await_torrc_of("other");
    assert_eq!((scene.uid("pod/demo").as_ref(), scene.pods_created()), (Some(&old), 1));

    confirm(&old);
    scene.await_new_pod(&old);
    assert_eq!(scene.pods_created(), 2);
    scene.await_reason("Fenced", "AtMostOne");
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_node_that_is_gone_or_out_of_service_proves_the_pods_end() {
    let scene = Scene::new("gone");
    scene.node("gone-1");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let first = scene.await_pod();
    scene.runs_on("demo", "gone-1");
    scene.kubectl(&["delete", "pod", "demo", "--wait=false"]);
    scene.await_reason("Ready", "Stopping");
    assert_eq!(scene.uid("pod/demo").as_ref(), Some(&first));
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    scene.kubectl(&["taint", "node", "gone-1", taint]);
    scene.delete_by_force(); // as the pod garbage collector does for such a node
    let second = scene.await_new_pod(&first);

    scene.node("gone-2");
    scene.runs_on("demo", "gone-2");
    scene.kubectl(&["delete", "node", "gone-2"]);
    scene.delete_by_force();
    scene.await_new_pod(&second);
    operator.stop();
    let asked = audit::all_requests(&scene.server);
    assert!(
        asked
            .iter()
            .any(|one| one.verb == "get" && one.resource == "nodes" && one.name == "gone-2")
    );
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_kubelet_that_says_that_all_has_ended_is_believed_at_once_even_if_the_relay_is_gone() {
    let scene = Scene::new("ended");
    scene.node("ended-1");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let old = scene.await_pod();
    scene.runs_on("demo", "ended-1");
    scene.kubectl(&["delete", "relay", "demo"]);
    scene.delete_by_force(); // the garbage collector's work
    assert_eq!(scene.uid("pod/demo").as_ref(), Some(&old), "held while it may run");
    scene.pod_says("demo", "Succeeded", false);
    await_yes("the pod to be gone", || scene.get("pod/demo").is_none());
    operator.stop();
}
