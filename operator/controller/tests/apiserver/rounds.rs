//! The operator at work on one Relay.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit;
use crate::operator::Operator;
use crate::server::{Server, await_yes, server};

/// A namespace of its own on the shared server, with rights for the operator's Lease there.
pub(crate) struct Scene {
    pub(crate) server: Arc<Server>,
    pub(crate) namespace: &'static str,
}

impl Scene {
    pub(crate) fn new(namespace: &'static str) -> Self {
        Self::on(server(), namespace)
    }

    pub(crate) fn on(server: Arc<Server>, namespace: &'static str) -> Self {
        server.namespace(namespace);
        let lease = "relayfleet-lease";
        let role = server.kubectl(&["-n", "relayfleet-system", "get", "role", lease, "-o", "json"]);
        let mut role: Value = serde_json::from_str(&role).unwrap();
        role["metadata"] = json!({"name": lease, "namespace": namespace});
        server.apply(&role.to_string());
        let account = "--serviceaccount=relayfleet-system:relayfleet";
        server.kubectl(&[
            "-n",
            namespace,
            "create",
            "rolebinding",
            lease,
            "--role",
            lease,
            account,
        ]);
        Self { server, namespace }
    }

    pub(crate) fn apply_relay(&self) {
        self.apply_relay_with(json!({}));
    }

    pub(crate) fn apply_relay_with(&self, change: Value) {
        let mut spec = json!({"role": "Middle", "nickname": "demo", "contact": "ops@example.org"});
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let relay = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay",
            "metadata": {"name": "demo", "namespace": self.namespace}, "spec": spec,
        });
        self.server.apply(&relay.to_string());
    }

    pub(crate) fn rename_relay(&self, nickname: &str) {
        self.apply_relay_with(json!({"nickname": nickname}));
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.server.kubectl(&[&["-n", self.namespace], arguments].concat())
    }

    pub(crate) fn get(&self, what: &str) -> Option<Value> {
        self.server.get(self.namespace, what)
    }

    pub(crate) fn uid(&self, what: &str) -> Option<String> {
        self.get(what)
            .and_then(|object| Some(object["metadata"]["uid"].as_str()?.to_owned()))
    }

    pub(crate) fn await_pod(&self) -> String {
        self.await_new_pod("")
    }

    /// Waits for a pod with another uid that is not on its way out, and for the status to name the fingerprint.
    pub(crate) fn await_new_pod(&self, old: &str) -> String {
        let current = || {
            self.get("pod/demo")
                .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        };
        await_yes("a pod", || current().is_some_and(|pod| pod["metadata"]["uid"] != old));
        await_yes("a fingerprint", || self.fingerprint().is_some());
        self.uid("pod/demo").unwrap()
    }

    /// Waits until the torrc says this nickname.
    pub(crate) fn await_torrc_of(&self, nickname: &str) {
        let line = format!("Nickname {nickname}\n");
        await_yes("the torrc to change", || {
            let torrc = self.get("configmap/demo-torrc");
            torrc.is_some_and(|torrc| torrc["data"]["torrc"].as_str().unwrap().contains(&line))
        });
    }

    pub(crate) fn condition(&self, type_: &str) -> Option<Value> {
        let relay = self.get("relay/demo")?;
        let conditions = relay["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == type_).cloned()
    }

    pub(crate) fn await_reason(&self, type_: &str, reason: &str) -> Value {
        await_yes(&format!("{type_} to say {reason}"), || {
            self.condition(type_)
                .is_some_and(|condition| condition["reason"] == reason)
        });
        self.condition(type_).unwrap()
    }

    pub(crate) fn fingerprint(&self) -> Option<String> {
        Some(
            self.get("relay/demo")?["status"]["identity"]["rsaFingerprint"]
                .as_str()?
                .to_owned(),
        )
    }

    /// `verb resource` of all that the chart's roles let the operator do.
    pub(crate) fn rights(&self) -> Vec<String> {
        let home = "relayfleet-system";
        let lease = self.rights_of("role", home, "relayfleet-lease");
        [
            self.rights_of("clusterrole", home, "relayfleet-system-relayfleet"),
            lease,
        ]
        .concat()
    }

    /// `verb resource` of a role.
    pub(crate) fn rights_of(&self, kind: &str, namespace: &str, name: &str) -> Vec<String> {
        let role = self.server.kubectl(&["-n", namespace, "get", kind, name, "-o", "json"]);
        let role: Value = serde_json::from_str(&role).unwrap();
        let words = |rule: &Value, field: &str| -> Vec<String> {
            let words = rule[field].as_array().unwrap().iter();
            words.map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let of_rule = |rule: &Value| -> Vec<String> {
            let (verbs, resources) = (words(rule, "verbs"), words(rule, "resources"));
            let each = |verb: &String| {
                resources
                    .iter()
                    .map(|resource| format!("{verb} {resource}"))
                    .collect::<Vec<_>>()
            };
            verbs.iter().flat_map(each).collect()
        };
        role["rules"].as_array().unwrap().iter().flat_map(of_rule).collect()
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_relay_gets_each_of_its_objects_once_in_a_namespace_of_restricted_pods() {
    let scene = Scene::new("once");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    scene.await_pod();
    scene.await_reason("Ready", "Starting");
    for what in [
        "secret/demo-identity",
        "secret/demo-signing",
        "secret/demo-status",
        "configmap/demo-torrc",
        "pvc/demo-data",
        "service/demo",
        "pod/demo",
    ] {
        assert!(scene.get(what).is_some(), "{what}");
    }
    for resource in ["secrets", "persistentvolumeclaims", "pods"] {
        assert_eq!(
            audit::count(&scene.server, scene.namespace, "create", resource),
            1,
            "{resource}"
        );
    }
    let told = scene.kubectl(&["describe", "relay", "demo"]);
    for event in ["IdentityCreated", "PodCreated"] {
        assert!(told.contains(event), "{told}");
    }
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_restarted_operator_writes_nothing() {
    let scene = Scene::new("restart");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    scene.await_pod();
    scene.await_reason("Ready", "Starting");
    operator.stop();
    let before = audit::writes(&scene.server, scene.namespace);

    let operator = Operator::start(&scene.server, scene.namespace);
    await_yes("a round", || {
        operator
            .http("/metrics")
            .contains("reconciles_total{kind=\"Relay\",result=\"ok\"}")
    });
    let metrics = operator.http("/metrics");
    assert!(!metrics.contains("relayfleet_operator_api_writes_total{"), "{metrics}");
    assert!(metrics.contains("relayfleet_operator_leader 1"), "{metrics}");
    assert!(operator.http("/healthz").starts_with("HTTP/1.1 200"));
    let took = operator.stop();
    assert!(took.as_secs() < 5, "SIGTERM took {took:?}");
    assert_eq!(audit::writes(&scene.server, scene.namespace), before);
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn an_operator_killed_after_any_write_leaves_a_state_from_which_the_next_goes_on() {
    let scene = Scene::new("killed");
    scene.apply_relay();
    for survived in 1..8 {
        let operator = Operator::start_as(&scene.server, scene.namespace, "same");
        let done = || audit::writes(&scene.server, scene.namespace).len() >= survived;
        let at_rest = || operator.log().contains("step=\"CreatePod\"") || scene.get("pod/demo").is_some();
        await_yes("a write", || done() || at_rest());
        operator.kill();
    }
    let operator = Operator::start_as(&scene.server, scene.namespace, "same");
    scene.await_pod();
    scene.await_reason("Ready", "Starting");
    operator.stop();
    // Made once: it is there, no other was asked for, and none was ever deleted. The answers cannot tell: where the asker
    // dies before it has one, the API server writes 504 and may have done it all the same.
    for (resource, name) in [
        ("secrets", "demo-identity"),
        ("persistentvolumeclaims", "demo-data"),
        ("pods", "demo"),
    ] {
        assert!(scene.get(&format!("{resource}/{name}")).is_some(), "{resource}");
        assert_eq!(
            audit::asked(&scene.server, scene.namespace, "create", resource),
            BTreeSet::from([name.to_owned()])
        );
        assert!(audit::asked(&scene.server, scene.namespace, "delete", resource).is_empty());
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn no_pod_is_made_while_the_old_one_is_still_there() {
    let scene = Scene::new("two");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let old = scene.await_pod();
    // As a node would hold it that does not answer.
    let hold = r#"{"metadata":{"finalizers":["test.relayfleet.io/lost-node"]}}"#;
    scene.kubectl(&["patch", "pod", "demo", "--type=merge", "-p", hold]);
    scene.kubectl(&["delete", "pod", "demo", "--wait=false"]);
    scene.await_reason("Ready", "Stopping");
    assert_eq!(scene.uid("pod/demo").as_ref(), Some(&old));

    scene.kubectl(&[
        "patch",
        "pod",
        "demo",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    scene.await_new_pod(&old);
    assert_eq!(audit::count(&scene.server, scene.namespace, "create", "pods"), 2);
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_second_operator_waits_and_takes_over_when_the_first_stops() {
    let scene = Scene::new("leader");
    let first = Operator::start_as(&scene.server, scene.namespace, "first");
    first.await_log("leading");
    let second = Operator::start_as(&scene.server, scene.namespace, "second");
    second.await_log("another operator leads");
    assert!(second.http("/metrics").contains("relayfleet_operator_leader 0"));

    first.stop();
    second.await_log("leading");
    scene.apply_relay();
    scene.await_pod();
    second.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_network_that_comes_late_starts_its_relays() {
    let scene = Scene::new("network");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay_with(json!({"network": {"configMap": {"name": "private"}}}));
    let refused = scene.await_reason("ConfigAccepted", "NetworkMissing");
    assert!(
        refused["message"].as_str().unwrap().contains("ConfigMap private"),
        "{refused}"
    );
    assert!(
        scene.get("secret/demo-identity").is_none(),
        "no keys before the spec can be used"
    );

    let evil = "--from-literal=torrc=Nickname evil";
    scene.kubectl(&["create", "configmap", "private", evil]);
    let refused = scene.await_reason("ConfigAccepted", "NetworkInvalid");
    assert!(
        refused["message"].as_str().unwrap().contains("line 1: Nickname"),
        "{refused}"
    );

    let key = "0123456789ABCDEF0123456789ABCDEF01234567";
    let lines = format!("TestingTorNetwork 1\nDirAuthority a orport=1 v3ident={key} 198.18.0.1:2 {key}\n");
    let patch = json!({"data": {"torrc": lines}}).to_string();
    scene.kubectl(&["patch", "configmap", "private", "--type=merge", "-p", &patch]);
    scene.await_pod();
    let torrc = scene.get("configmap/demo-torrc").unwrap();
    assert!(torrc["data"]["torrc"].as_str().unwrap().ends_with(&lines));
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_pod_that_the_namespace_does_not_allow_is_told_and_tried_again() {
    let scene = Scene::new("quota");
    scene.kubectl(&["create", "quota", "none", "--hard=pods=0"]);
    // What the controller manager would do.
    let patch = r#"{"status":{"hard":{"pods":"0"},"used":{"pods":"0"}}}"#;
    scene.kubectl(&[
        "patch",
        "quota",
        "none",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ]);
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    await_yes("a warning", || {
        scene.kubectl(&["describe", "relay", "demo"]).contains("exceeded quota")
    });

    scene.kubectl(&["delete", "quota", "none"]);
    scene.await_pod();
    operator.stop();
}
