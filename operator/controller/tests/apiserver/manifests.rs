//! What a person applies: taken, or refused with the field and the remedy.

use serde_json::{Value, json};

use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::server;

fn relay(name: &str, change: Value) -> String {
    let mut spec = json!({"role": "Middle", "nickname": "demo", "contact": "ops@example.org"});
    for (field, value) in change.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
    .to_string()
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn bad_manifests_are_refused_with_field_and_remedy() {
    let server = server();
    let unit = "write a whole number and a unit";
    let range = "use 75KiB/s to 2147MB/s";
    let cases = [
        (json!({"nickname": "a-b"}), "spec.nickname", "use 1 to 19 letters"),
        (json!({"nickname": ""}), "spec.nickname", "use 1 to 19 letters"),
        (
            json!({"nickname": "x".repeat(20)}),
            "spec.nickname",
            "use 1 to 19 letters",
        ),
        (json!({"nickname": "näme"}), "spec.nickname", "use 1 to 19 letters"),
        (json!({"nickname": null}), "spec.nickname", "Required value"),
        (
            json!({"role": "Bridge"}),
            "spec.role",
            "bridges are not built yet: use Guard, Middle or Exit",
        ),
        (
            json!({"role": "middle"}),
            "spec.role",
            "supported values: \"Guard\", \"Middle\", \"Exit\"",
        ),
        (
            json!({"exit": {"reduced": true}}),
            "spec.exit",
            "set role to Exit, or remove exit",
        ),
        (
            json!({"role": "Exit", "exit": {"policy": ["allow *:80"]}}),
            "spec.exit.policy",
            "accept, reject, accept6",
        ),
        (
            json!({"role": "Exit", "exit": {"policy": ["accept *:80, reject *:*"]}}),
            "spec.exit.policy",
            "one rule in each",
        ),
        (
            json!({"role": "Exit", "exit": {"policy": ["accept *:80\nNickname evil"]}}),
            "spec.exit.policy",
            "one rule in each",
        ),
        (
            json!({"role": "Exit", "exit": {"ports": [80]}}),
            "spec.exit.ports",
            "unknown field",
        ),
        (
            json!({"accounting": {"max": "10T"}}),
            "spec.accounting.max",
            "for example 500GB",
        ),
        (
            json!({"accounting": {"max": "10000000000"}}),
            "spec.accounting.max",
            "for example 500GB",
        ),
        (
            json!({"accounting": {"rule": "Sum"}}),
            "spec.accounting.max",
            "Required value",
        ),
        (
            json!({"accounting": {"max": "1TB", "rule": "sum"}}),
            "spec.accounting.rule",
            "\"Sum\"",
        ),
        (
            json!({"accounting": {"max": "1TB", "start": {"day": 31}}}),
            "spec.accounting.start.day",
            "less than or equal to 28",
        ),
        (
            json!({"accounting": {"max": "1TB", "start": {"every": "Week", "day": 8}}}),
            "spec.accounting.start.day",
            "1 (Monday) to 7",
        ),
        (
            json!({"accounting": {"max": "1TB", "start": {"every": "Day", "day": 1}}}),
            "spec.accounting.start.day",
            "leave day out",
        ),
        (
            json!({"accounting": {"max": "1TB", "start": {"time": "24:00"}}}),
            "spec.accounting.start.time",
            "06:30",
        ),
        (json!({"state": "Draining"}), "spec.state", "\"Running\", \"Stopped\""),
        (
            json!({"deletionPolicy": "Delete"}),
            "spec.deletionConfirmation",
            "write its fingerprint",
        ),
        (
            json!({"pod": {"labels": {"relayfleet.io/relay": "x"}}}),
            "spec.pod.labels",
            "use others",
        ),
        (
            json!({"pod": {"resources": {"requests": {"cpu": "half"}}}}),
            "spec.pod.resources.requests",
            "500m",
        ),
        (
            json!({"pod": {"tolerations": [{"effect": "NoSleep"}]}}),
            "spec.pod.tolerations",
            "NoExecute",
        ),
        (
            json!({"pod": {"hostNetwork": true}}),
            "spec.pod.hostNetwork",
            "unknown field",
        ),
        (json!({"contact": " "}), "spec.contact", "write one line of text"),
        (
            json!({"contact": "a\nNickname evil"}),
            "spec.contact",
            "write one line of text",
        ),
        (json!({"orPort": 443}), "spec.orPort", "greater than or equal to 1024"),
        (json!({"orPort": 65536}), "spec.orPort", "less than or equal to 65535"),
        (json!({"bandwidth": {"rate": "74KiB/s"}}), "spec.bandwidth.rate", range),
        (json!({"bandwidth": {"rate": "3GB/s"}}), "spec.bandwidth.rate", range),
        (json!({"bandwidth": {"rate": "10M"}}), "spec.bandwidth.rate", unit),
        (json!({"bandwidth": {"rate": "10"}}), "spec.bandwidth.rate", unit),
        (json!({"bandwidth": {"rate": "1.5MB/s"}}), "spec.bandwidth.rate", unit),
        (
            json!({"bandwidth": {"burst": "1MB/s"}}),
            "spec.bandwidth.rate",
            "Required value",
        ),
        (
            json!({"bandwidth": {"rate": "10MiB/s", "burst": "10MB/s"}}),
            "spec.bandwidth.burst",
            "raise burst or leave it out",
        ),
        (
            json!({"bandwidth": {"rate": "1MB/s", "maxAdvertised": "37KiB/s"}}),
            "spec.bandwidth.maxAdvertised",
            "use 38KiB/s",
        ),
        (
            json!({"storage": {"size": "1GB"}}),
            "spec.storage.size",
            "for example 1Gi",
        ),
        (
            json!({"storage": {"size": "0Gi"}}),
            "spec.storage.size",
            "for example 1Gi",
        ),
        (json!({"address": {"source": "Static"}}), "spec.address", "add ipv4"),
        (
            json!({"address": {"ipv4": "203.0.113.7"}}),
            "spec.address",
            "set source to Static",
        ),
        (
            json!({"address": {"source": "Static", "ipv4": "203.0.113"}}),
            "spec.address.ipv4",
            "write an IPv4 address",
        ),
        (
            json!({"address": {"source": "Static", "ipv4": "2001:db8::1"}}),
            "spec.address.ipv4",
            "write an IPv4 address",
        ),
        (
            json!({"engine": "Arti"}),
            "spec.engine",
            "supported values: \"Builtin\", \"Tor\"",
        ),
        (
            json!({"engine": "Tor", "identity": {"custody": "Operator"}}),
            "spec.identity.custody",
            "write InPod",
        ),
        (
            json!({"identity": {"custody": "Offline"}}),
            "spec.identity.custody",
            "supported values",
        ),
        (
            json!({"identity": {"signingKeyLifetime": "2d"}}),
            "spec.identity.signingKeyLifetime",
            "use 3d to 90d",
        ),
        (
            json!({"identity": {"signingKeyLifetime": "1w"}}),
            "spec.identity.signingKeyLifetime",
            "for example 7d",
        ),
        (
            json!({"image": {"reference": ""}}),
            "spec.image.reference",
            "should be at least 1",
        ),
        (
            json!({"metrics": {"from": ["10.0.0.0"]}}),
            "spec.metrics.from",
            "for example 10.0.0.0/8",
        ),
        (
            json!({"metrics": {"from": ["fd00::/8"]}}),
            "spec.metrics.from",
            "write IPv4 networks",
        ),
        (
            json!({"role": "Bridge", "family": {"name": "oaks"}}),
            "spec.family",
            "a family's list would tell where the bridge is",
        ),
        (
            json!({"addressPool": {"name": "eu"}, "address": {"source": "Static", "ipv4": "203.0.113.7"}}),
            "spec.addressPool",
            "the pool gives the address",
        ),
        (json!({"metrics": {"port": 9035}}), "spec.metrics.port", "unknown field"),
        (
            json!({"network": {"configMap": {}}}),
            "spec.network.configMap.name",
            "Required value",
        ),
        (json!({"exitPolicy": "accept *:*"}), "spec.exitPolicy", "unknown field"),
    ];
    eprintln!("{} bad Relays", cases.len());
    for (change, field, remedy) in cases {
        let refused = server
            .try_apply(&relay("bad", change.clone()))
            .expect_err(&change.to_string());
        // `unknown field "spec.x"` has quotes around the field; the others have none.
        assert!(
            refused.contains(field) && refused.contains(remedy),
            "{change}: {refused}"
        );
    }
    for (name, remedy) in [
        ("1st", "begin with a letter"),
        ("a.b", "lower-case letters"),
        (&*"a".repeat(53), "at most 52"),
    ] {
        let refused = server.try_apply(&relay(name, json!({}))).unwrap_err();
        assert!(
            refused.contains("metadata.name") && refused.contains(remedy),
            "{name}: {refused}"
        );
    }
}

/// What no rule in a definition can know is explained by a condition: field and remedy.
#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn what_cannot_be_refused_at_apply_is_explained_by_a_condition() {
    let scene = Scene::new("explained");
    let operator = Operator::start(&scene.server, scene.namespace);
    let cases = [
        (
            json!({"family": {"name": "nobody"}}),
            "FamilyMissing",
            ["spec.family.name", "make it, or leave spec.family out"],
        ),
        (
            json!({"addressPool": {"name": "nobody"}}),
            "PoolMissing",
            ["spec.addressPool.name", "make it, or leave"],
        ),
        (
            json!({"network": {"configMap": {"name": "nobody"}}}),
            "NetworkMissing",
            ["spec.network.configMap", "make it"],
        ),
        (json!({"engine": "Tor"}), "NoImage", ["spec.engine", "set spec.image"]),
        (
            json!({"role": "Exit", "exit": {"policy": ["accept 1.2.3:80"]}}),
            "SpecInvalid",
            ["spec.exit.policy[0]", "for example accept *:443"],
        ),
        (
            json!({"pod": {"affinity": {"podAffinity": "near"}}}),
            "SpecInvalid",
            ["spec.pod.affinity", "kubectl explain"],
        ),
    ];
    for (change, reason, texts) in cases {
        scene
            .server
            .try_kubectl(&["-n", scene.namespace, "delete", "relay", "demo"]);
        scene.apply_relay_with(change.clone());
        let said = scene.await_reason("ConfigAccepted", reason);
        let message = said["message"].as_str().unwrap();
        assert!(texts.iter().all(|text| message.contains(text)), "{change}: {message}");
        assert!(scene.get("pod/demo").is_none());
    }
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn good_manifests_are_taken() {
    let server = server();
    let cases = [
        json!({}),
        json!({"engine": "Tor", "image": {"reference": "tor:1", "pullPolicy": "Never"}}),
        json!({"bandwidth": {"rate": "75KiB/s", "burst": "2147MB/s", "maxAdvertised": "38KiB/s"}}),
        json!({"bandwidth": {"rate": "10MB/s", "burst": "80Mbit/s"}}),
        json!({"address": {"source": "Static", "ipv4": "203.0.113.7"}, "orPort": 1024}),
        json!({"contact": "Ärger? mail <ops@example.org> #1 \"on call\""}),
        json!({"identity": {"custody": "InPod", "signingKeyLifetime": "90d"}}),
        json!({"identity": {"custody": "Operator", "signingKeyLifetime": "3d"}}),
        json!({"storage": {"size": "512Mi", "storageClassName": "fast"}}),
        json!({"network": {"configMap": {"name": "private", "key": "lines"}}}),
        json!({"role": "Guard", "paused": true, "state": "Stopped", "deletionPolicy": "Retain"}),
        json!({"role": "Exit"}),
        json!({"metrics": {"enabled": true, "from": ["10.0.0.0/8", "203.0.113.7/32"]}}),
        json!({"role": "Exit", "exit": {"policy": ["accept *:80", "reject6 [2001:db8::]/32:1-1024"], "reduced": false, "ipv6": true}}),
        json!({"accounting": {"max": "10TB", "rule": "Sum", "start": {"every": "Week", "day": 7, "time": "23:59"}}}),
        json!({"pod": {
            "labels": {"team": "tor"}, "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
            "tolerations": [{"key": "relays", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        }}),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        server.apply(&relay(&format!("good{number}"), change));
    }
    let columns = server.kubectl(&["get", "relays", "-n", "default"]);
    let head: Vec<&str> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        ["NAME", "ROLE", "NICKNAME", "FINGERPRINT", "FLAGS", "READY", "AGE"]
    );
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_volume_cannot_be_changed_but_a_nickname_can() {
    let server = server();
    server.apply(&relay("fixed", json!({})));
    server.apply(&relay("fixed", json!({"nickname": "another"})));
    for change in [
        json!({"storage": {"size": "2Gi"}}),
        json!({"storage": {"storageClassName": "fast"}}),
    ] {
        let refused = server.try_apply(&relay("fixed", change)).unwrap_err();
        assert!(
            refused.contains("spec.storage") && refused.contains("Relay of another name"),
            "{refused}"
        );
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn the_examples_are_taken() {
    let server = server();
    server.namespace("relays");
    for (file, object) in [("private-network", "relay/alder"), ("fleet", "relayset/exits")] {
        server.apply(&std::fs::read_to_string(format!("../../docs/examples/{file}.yaml")).unwrap());
        assert!(server.get("relays", object).is_some());
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn bad_sets_are_refused_with_field_and_remedy() {
    let server = server();
    let set = |name: &str, spec: Value, template: Value| {
        let mut whole = json!({"role": "Middle", "nickname": "oak", "contact": "ops@example.org"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(template.as_object().unwrap().clone());
        let mut spec = spec;
        spec["template"] = json!({"spec": whole});
        json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelaySet",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        })
        .to_string()
    };
    let cases = [
        (
            json!({"replicas": 1001}),
            json!({}),
            "spec.replicas",
            "less than or equal to 1000",
        ),
        (
            json!({"replicas": -1}),
            json!({}),
            "spec.replicas",
            "greater than or equal to 0",
        ),
        (
            json!({"update": {"maxWeightDown": 0}}),
            json!({}),
            "spec.update.maxWeightDown",
            "greater than or equal to 1",
        ),
        (
            json!({"update": {"maxUnavailable": 0}}),
            json!({}),
            "spec.update.maxUnavailable",
            "greater than or equal to 1",
        ),
        (
            json!({"update": {"gate": "Running"}}),
            json!({}),
            "spec.update.gate",
            "\"InConsensus\"",
        ),
        (
            json!({}),
            json!({"nickname": "x".repeat(17)}),
            "spec.template.spec.nickname",
            "number is put behind it",
        ),
        (
            json!({}),
            json!({"nickname": "a-b"}),
            "spec.template.spec.nickname",
            "use 1 to 19 letters",
        ),
        (
            json!({}),
            json!({"role": "Bridge"}),
            "spec.template.spec.role",
            "not built yet",
        ),
        (
            json!({}),
            json!({"exit": {}}),
            "spec.template.spec.exit",
            "set role to Exit",
        ),
        (
            json!({}),
            json!({"address": {"source": "Static", "ipv4": "203.0.113.7"}}),
            "spec.template.spec.address",
            "cannot share one address",
        ),
        (
            json!({}),
            json!({"deletionPolicy": "Delete", "deletionConfirmation": "0".repeat(40)}),
            "spec.template.spec.deletionPolicy",
            "confirmed on its own Relay",
        ),
    ];
    for (spec, template, field, remedy) in cases {
        let said = format!("{spec} {template}");
        let refused = server.try_apply(&set("bad", spec, template)).expect_err(&said);
        assert!(refused.contains(field) && refused.contains(remedy), "{said}: {refused}");
    }
    let refused = server
        .try_apply(&set(&"a".repeat(49), json!({}), json!({})))
        .unwrap_err();
    assert!(refused.contains("at most 48"), "{refused}");
    server.apply(&set(
        "good",
        json!({"replicas": 0, "update": {"gate": "InConsensus", "maxUnavailable": 2}}),
        json!({}),
    ));
    let columns = server.kubectl(&["get", "relaysets", "-n", "default"]);
    let head: Vec<&str> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        [
            "NAME",
            "ROLE",
            "DESIRED",
            "CURRENT",
            "READY",
            "UP-TO-DATE",
            "IN-CONSENSUS",
            "AGE"
        ]
    );
}
