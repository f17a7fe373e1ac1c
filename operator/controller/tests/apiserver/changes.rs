//! What the owner of a relay changes while it runs.

use serde_json::json;

use crate::audit;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{KEYS, await_yes};

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_new_name_rate_or_contact_reaches_the_pod_that_runs() {
    let scene = Scene::new("hot");
    scene.node("hot-1");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let pod = scene.await_pod();
    scene.runs_on("demo", "hot-1");
    scene.await_reason("Ready", "Listening");
    let told = || scene.get("pod/demo").unwrap()["metadata"]["annotations"]["relayfleet.io/torrc-hash"].clone();
    let before = told();

    scene.apply_relay_with(json!({"nickname": "renamed", "bandwidth": {"rate": "5MiB/s"}}));
    await_yes("the pod's node to be told", || told() != before);
    let torrc = scene.get("configmap/demo-torrc").unwrap();
    let text = torrc["data"]["torrc"].as_str().unwrap();
    assert!(
        text.contains("Nickname renamed\n") && text.contains("RelayBandwidthRate 5242880 bytes\n"),
        "{text}"
    );
    assert_eq!(scene.uid("pod/demo"), Some(pod));
    assert_eq!(audit::count(&scene.server, scene.namespace, "delete", "pods"), 0);
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_relay_is_stopped_paused_and_started_by_its_spec() {
    let scene = Scene::new("stopped");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let old = scene.await_pod();
    scene.apply_relay_with(json!({"state": "Stopped"}));
    scene.await_reason("Ready", "Stopped");
    assert!(scene.get("pod/demo").is_none());

    scene.apply_relay_with(json!({"state": "Running", "paused": true}));
    scene.await_reason("Ready", "Paused");
    assert!(scene.get("pod/demo").is_none());

    scene.apply_relay_with(json!({"paused": false}));
    scene.await_new_pod(&old);
    let made = audit::count(&scene.server, scene.namespace, "create", "secrets");
    assert_eq!(made, 1, "the pod's part of the one identity");
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn an_identity_is_destroyed_only_if_its_fingerprint_confirms_and_the_chart_allows_it() {
    let scene = Scene::new("destroyed");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    scene.await_pod();
    let fingerprint = scene.fingerprint().unwrap();
    for confirmation in [json!(null), json!("0".repeat(40))] {
        let change = json!({"spec": {"deletionPolicy": "Delete", "deletionConfirmation": confirmation}}).to_string();
        let patch = [
            "-n",
            "destroyed",
            "patch",
            "relay",
            "demo",
            "--type=merge",
            "-p",
            &change,
        ];
        let refused = scene.server.try_kubectl(&patch);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("spec.deletionConfirmation") && said.contains("40 digits"),
            "{said}"
        );
    }
    scene.apply_relay_with(json!({"deletionPolicy": "Delete", "deletionConfirmation": fingerprint}));
    let held = || !scene.get("relay/demo").unwrap()["metadata"]["finalizers"].is_null();
    await_yes("the Relay to be held", held);
    scene.kubectl(&["delete", "relay", "demo", "--wait=false"]);
    await_yes("the refusal to be told", || {
        scene.kubectl(&["describe", "relay", "demo"]).contains("WriteRefused")
    });
    let keys = || scene.server.get(KEYS, "secret/destroyed.demo.identity");
    assert!(keys().is_some() && scene.get("pvc/demo-data").is_some());

    let asked = audit::requests(&scene.server, scene.namespace);
    assert!(asked.iter().any(|one| one.denied && one.verb == "delete"), "{asked:?}");

    // What the chart's rbac.deleteIdentities adds.
    let role = "delete-identities";
    let rules = ["--verb=delete,patch", "--resource=secrets,persistentvolumeclaims"];
    let account = "--serviceaccount=relayfleet-system:relayfleet";
    for namespace in [scene.namespace, KEYS] {
        scene
            .server
            .kubectl(&[&["-n", namespace, "create", "role", role], &rules[..]].concat());
        scene
            .server
            .kubectl(&["-n", namespace, "create", "rolebinding", role, "--role", role, account]);
    }
    await_yes("the claim's deletion", || {
        scene
            .get("pvc/demo-data")
            .is_none_or(|claim| !claim["metadata"]["deletionTimestamp"].is_null())
    });
    // The claim's own finalizer is the controller manager's to take.
    let free = r#"{"metadata":{"finalizers":null}}"#;
    scene.kubectl(&["patch", "pvc", "demo-data", "--type=merge", "-p", free]);
    await_yes("the Relay to be gone", || scene.get("relay/demo").is_none());
    assert!(keys().is_none());
    operator.stop();
}
