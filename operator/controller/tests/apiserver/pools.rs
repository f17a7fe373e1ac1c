//! Addresses and ports against a real API server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::audit;
use crate::chart::OF_ALL_NAMESPACES;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{KEYS, await_yes, server, server_alone};

pub(crate) fn pool(name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

pub(crate) fn relay(namespace: &str, name: &str, pool: &str) -> String {
    json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay", "metadata": {"name": name, "namespace": namespace},
        "spec": {"role": "Middle", "nickname": name, "contact": "ops@example.org", "addressPool": {"name": pool}},
    })
    .to_string()
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn relays_of_all_namespaces_share_a_pool_and_nothing_is_given_twice() {
    let scene = Scene::on(server_alone(), "one");
    let server = &scene.server;
    server.namespace("two");
    server.apply(&pool(
        "eu",
        json!({
            "exposure": "LoadBalancer", "addresses": [{"ipv4": "203.0.113.7"}, {"ipv4": "203.0.113.8"}],
        }),
    ));
    server.apply(&pool(
        "hosts",
        json!({"exposure": "HostPort", "addresses": [{"ipv4": "203.0.113.9", "node": "n9"}]}),
    ));
    let operator = Operator::start_for_all(server, scene.namespace);
    for (namespace, name) in [("one", "demo"), ("one", "birch"), ("two", "demo")] {
        server.apply(&relay(namespace, name, "eu"));
    }
    let ledger = |name: &str| server.get("default", &format!("addresspool/{name}")).unwrap()["status"].clone();
    await_yes("three places", || ledger("eu")["allocated"] == 3);
    let held = ledger("eu")["allocations"].as_array().unwrap().clone();
    let places: BTreeSet<String> = held
        .iter()
        .map(|one| format!("{}:{}", one["ipv4"], one["port"]))
        .collect();
    assert_eq!(places.len(), 3, "{held:?}");
    for (namespace, name) in [("one", "demo"), ("one", "birch"), ("two", "demo")] {
        await_yes("a pod", || server.get(namespace, &format!("pod/{name}")).is_some());
        let service = server.get(namespace, &format!("service/{name}")).unwrap();
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
        let own = held
            .iter()
            .find(|one| one["namespace"] == namespace && one["relay"] == name)
            .unwrap();
        let torrc = server.get(namespace, &format!("configmap/{name}-torrc")).unwrap();
        let line = format!("Address {}\n", own["ipv4"].as_str().unwrap());
        assert!(torrc["data"]["torrc"].as_str().unwrap().contains(&line), "{torrc}");
    }
    scene.await_reason("SourceKept", "Local");

    // What a node's port needs is said before a pod is refused, and heeded once the namespace allows it.
    server.apply(&relay("two", "cedar", "hosts"));
    let accepted = || {
        let relay = server.get("two", "relay/cedar")?;
        let conditions = relay["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|one| one["type"] == "ConfigAccepted")
    };
    await_yes("a word on Pod Security", || {
        accepted().is_some_and(|one| one["reason"] == "PodSecurity")
    });
    assert!(
        accepted().unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("namespace of their own")
    );
    server.kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        "two",
        "pod-security.kubernetes.io/enforce=privileged",
    ]);
    server.kubectl(&["-n", "two", "annotate", "relay", "cedar", "look=again"]);
    await_yes("its pod", || server.get("two", "pod/cedar").is_some());
    let pod = server.get("two", "pod/cedar").unwrap();
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 9001);
    assert_eq!(pod["spec"]["nodeSelector"]["kubernetes.io/hostname"], "n9");

    // Who goes is expected back while its keys are kept, and nobody else gets its place; without keys it is free.
    let birch = held.iter().find(|one| one["relay"] == "birch").unwrap();
    server.kubectl(&["-n", "one", "delete", "relay", "birch"]);
    let kept = |name: &str| {
        let held = ledger(name)["allocations"].as_array().unwrap().clone();
        held.into_iter().find(|one| one["kept"] == true)
    };
    await_yes("a place that is kept", || kept("eu").is_some());
    let place = kept("eu").unwrap();
    assert_eq!((&place["ipv4"], &place["port"]), (&birch["ipv4"], &birch["port"]));
    server.apply(&relay("one", "birch", "eu"));
    await_yes("a place taken up again", || kept("eu").is_none());
    assert!(ledger("eu")["allocations"].as_array().unwrap().contains(birch));
    server.kubectl(&["-n", "one", "delete", "relay", "birch"]);
    await_yes("a place that is kept", || kept("eu").is_some());
    let secret = ["-n", KEYS, "delete", "secret", "one.birch.identity", "--wait=false"];
    server.kubectl(&secret);
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    server.kubectl(&[
        "-n",
        KEYS,
        "patch",
        "secret",
        "one.birch.identity",
        "--type=merge",
        "-p",
        &free,
    ]);
    server.kubectl(&["annotate", "addresspool", "eu", "look=again"]);
    await_yes("a place that is free again", || ledger("eu")["allocated"] == 2);
    let left = ledger("eu")["allocations"].as_array().unwrap().clone();
    assert!(left.iter().all(|one| held.contains(one)), "{left:?}");
    let told = server.kubectl(&["describe", "addresspool", "eu"]);
    assert!(told.contains("PlacesChanged") && told.contains("Allocated"), "{told}");
    operator.stop();
    let forbidden: Vec<_> = audit::all_requests(server)
        .into_iter()
        .filter(|request| request.code == 403)
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    // What only an operator of all namespaces may do: each of it is done.
    let asked: BTreeSet<String> = audit::all_requests(server)
        .iter()
        .map(|request| format!("{} {}", request.verb, request.resource))
        .collect();
    for right in OF_ALL_NAMESPACES.iter().filter(|right| **right != "get nodes") {
        assert!(asked.contains(*right), "granted, but never used: {right}");
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn bad_pools_are_refused_with_field_and_remedy() {
    let server = server();
    let one = json!([{"ipv4": "203.0.113.7"}]);
    let cases = [
        (
            json!({"exposure": "HostPort", "addresses": []}),
            "spec.addresses",
            "at least 1",
        ),
        (
            json!({"exposure": "Ingress", "addresses": one}),
            "spec.exposure",
            "supported values",
        ),
        (
            json!({"exposure": "HostPort", "addresses": [{"ipv4": "203.0.113"}]}),
            "ipv4",
            "write an IPv4 address",
        ),
        (
            json!({"exposure": "HostPort", "addresses": [{"ipv4": "203.0.113.7"}, {"ipv4": "203.0.113.7"}]}),
            "spec.addresses",
            "Duplicate value",
        ),
        (
            json!({"exposure": "NodePort", "addresses": one}),
            "spec.ports",
            "30000 to 32767",
        ),
        (
            json!({"exposure": "HostPort", "addresses": one, "ports": {"first": 443, "last": 443}}),
            "spec.ports.first",
            "1024",
        ),
        (
            json!({"exposure": "HostPort", "addresses": one, "ports": {"first": 9002, "last": 9001}}),
            "spec.ports",
            "first must not be above last",
        ),
        (
            json!({"exposure": "HostPort", "addresses": one, "maxRelaysPerAddress": 9}),
            "spec.maxRelaysPerAddress",
            "less than or equal to 8",
        ),
        (
            json!({"exposure": "HostPort", "addresses": one, "loadBalancer": {}}),
            "spec",
            "set exposure to LoadBalancer",
        ),
    ];
    for (spec, field, remedy) in cases {
        let refused = server
            .try_apply(&pool("bad", spec.clone()))
            .expect_err(&spec.to_string());
        assert!(refused.contains(field) && refused.contains(remedy), "{spec}: {refused}");
    }
}
