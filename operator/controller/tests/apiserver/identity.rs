//! The identity outlives everything but a person's clear will.

use serde_json::json;

use crate::audit;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::await_yes;

/// The classic way: the whole identity is in one Secret beside the Relay.
fn in_pod(scene: &Scene) {
    scene.apply_relay_with(json!({"identity": {"custody": "InPod"}}));
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_deleted_pod_comes_back_with_the_same_keys() {
    let scene = Scene::new("pod");
    let operator = Operator::start(&scene.server, scene.namespace);
    in_pod(&scene);
    let old = scene.await_pod();
    let (fingerprint, secret) = (scene.fingerprint(), scene.uid("secret/demo-identity"));

    scene.kubectl(&["delete", "pod", "demo"]);
    scene.await_new_pod(&old);
    assert_eq!(
        (scene.fingerprint(), scene.uid("secret/demo-identity")),
        (fingerprint, secret)
    );
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_relay_deleted_and_applied_again_is_the_same_relay() {
    let scene = Scene::new("again");
    let operator = Operator::start(&scene.server, scene.namespace);
    in_pod(&scene);
    let old = scene.await_pod();
    let (fingerprint, claim) = (scene.fingerprint(), scene.uid("pvc/demo-data"));

    scene.kubectl(&["delete", "relay", "demo"]);
    in_pod(&scene);
    scene.await_new_pod(&old);
    assert_eq!((scene.fingerprint(), scene.uid("pvc/demo-data")), (fingerprint, claim));
    assert_eq!(audit::count(&scene.server, scene.namespace, "create", "secrets"), 1);
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_secret_that_somebody_deletes_is_held_and_the_relay_says_so() {
    let scene = Scene::new("held");
    let operator = Operator::start(&scene.server, scene.namespace);
    in_pod(&scene);
    scene.await_pod();
    scene.kubectl(&["delete", "secret", "demo-identity", "--wait=false"]);

    let said = scene.await_reason("IdentityBound", "DeletionAsked");
    assert_eq!(said["status"], "True");
    assert!(
        scene
            .get("secret/demo-identity")
            .is_some_and(|secret| secret["data"]["secret_id_key"].is_string())
    );
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn keys_cannot_be_changed_in_place() {
    let scene = Scene::new("fixed");
    let operator = Operator::start(&scene.server, scene.namespace);
    in_pod(&scene);
    scene.await_pod();
    operator.stop();
    let change = r#"{"stringData":{"secret_id_key":"another"}}"#;
    let done = scene.server.try_kubectl(&[
        "-n",
        "fixed",
        "patch",
        "secret",
        "demo-identity",
        "--type=merge",
        "-p",
        change,
    ]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("immutable"));
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn lost_keys_start_nothing_and_restored_keys_start_the_same_relay() {
    let scene = Scene::new("lost");
    let operator = Operator::start(&scene.server, scene.namespace);
    in_pod(&scene);
    let old = scene.await_pod();
    let fingerprint = scene.fingerprint();
    let backup = scene.get("secret/demo-identity").unwrap();

    scene.kubectl(&[
        "patch",
        "secret",
        "demo-identity",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    scene.kubectl(&["delete", "secret", "demo-identity"]);
    let said = scene.await_reason("Ready", "IdentityMissing");
    assert!(
        said["message"].as_str().unwrap().contains("Restore the Secret"),
        "{said}"
    );
    scene.kubectl(&["delete", "pod", "demo"]);
    await_yes("a status without a pod", || {
        scene.get("relay/demo").unwrap()["status"]["podName"].is_null()
    });
    assert!(scene.get("pod/demo").is_none(), "nothing is started");
    assert_eq!(
        audit::count(&scene.server, scene.namespace, "create", "secrets"),
        1,
        "no other keys are drawn"
    );

    let mut backup = backup;
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        backup["metadata"].as_object_mut().unwrap().remove(field);
    }
    scene.server.apply(&backup.to_string());
    scene.await_new_pod(&old);
    assert_eq!(scene.fingerprint(), fingerprint);
    operator.stop();
}
