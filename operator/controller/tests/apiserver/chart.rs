//! The chart on a real API server.

use std::collections::BTreeSet;

use serde_json::json;

use crate::audit;
use crate::families::family;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{CHART, HOME_OF_ONE, KUBERNETES, OPERATOR_OF_ONE, await_yes, server};

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn all_that_the_chart_renders_is_accepted_where_only_restricted_pods_are() {
    let server = server();
    server.kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        "relayfleet-system",
        "pod-security.kubernetes.io/warn=restricted",
    ]);
    know_monitoring_kinds();
    let values: [&[&str]; 13] = [
        &[],
        &["--set=watchNamespace=default"],
        &[
            "--set=monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.podMonitor.interval=1m",
        ],
        &["--set=monitoring.dashboards.enabled=true,monitoring.dashboards.annotations.folder=Tor"],
        &[
            "--set=monitoring.podMonitor.enabled=true,watchNamespace=default,monitoring.podMonitor.labels.release=prometheus",
        ],
        &["--set=networkPolicy.enabled=false,podDisruptionBudget.enabled=false"],
        &[
            "--set-json=networkPolicy={\"apiServer\":[{\"ipBlock\":{\"cidr\":\"198.51.100.7/32\"}}],\"metricsFrom\":[{\"podSelector\":{}}]}",
        ],
        &["--set=relayMetrics.enabled=true,networkPolicy.relayNamespaces={default}"],
        &[
            "--set=networkPolicy.relayNamespaces={default}",
            "--set-json=networkPolicy.metricsFrom=[{\"podSelector\":{}}]",
        ],
        &["--set=rbac.deleteIdentities=true,clusterNetworks={10.0.0.0/8,fd00::/8}"],
        &["--set=crds.enabled=false,rbac.aggregate=false,replicas=2,log.format=text"],
        &["--set=images.tor=,images.pullPolicy=Never,images.pullSecrets={one,two}"],
        &[
            "--set=serviceAccount.name=other,serviceAccount.annotations.a=b,nodeSelector.a=b,priorityClassName=p,podLabels.x=y",
        ],
    ];
    for value in values {
        std::fs::write(server.path("rendered.yaml"), server.rendered_chart(value)).unwrap();
        let file = server.path("rendered.yaml").display().to_string();
        // A warning says that Pod Security would not take the pods.
        let done = server.try_kubectl(&["apply", "--dry-run=server", "--warnings-as-errors", "-f", &file]);
        assert!(
            done.status.success(),
            "{value:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn wrong_values_are_named() {
    let server = server();
    let cases = [
        ("replicas=-1", "/replicas"),
        ("replicas=two", "/replicas"),
        ("images.relay=", "/images/relay"),
        ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
        ("image.relay=x", "'image'"),
        ("log.format=xml", "/log/format"),
        ("leaderElection.leaseSeconds=1", "/leaderElection/leaseSeconds"),
        ("watchNamespace=Not_A_Name", "/watchNamespace"),
        ("crds.keep=maybe", "/crds/keep"),
        ("concurrency=0", "/concurrency"),
        (
            "monitoring.podMonitor.interval=often",
            "/monitoring/podMonitor/interval",
        ),
        ("monitoring.serviceMonitor.enabled=true", "'serviceMonitor'"),
        ("networkPolicy.enabled=1", "/networkPolicy/enabled"),
        ("extraObjects=x", "/extraObjects"),
        ("clusterNetworks={10.0.0.0}", "/clusterNetworks/0"),
        ("relayMetrics.enabled=yes", "/relayMetrics/enabled"),
        (
            "networkPolicy.relayNamespaces={Relays}",
            "/networkPolicy/relayNamespaces/0",
        ),
    ];
    for (value, field) in cases {
        let done = server.helm(&["template", "it", CHART, KUBERNETES, "--set", value]);
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(
            !done.status.success() && complaint.contains(field),
            "{value}: {complaint}"
        );
    }
}

/// Stand-ins for the Prometheus operator's definitions: names and scope, no schema.
fn know_monitoring_kinds() {
    let server = server();
    let definition = |kind: &str, plural: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }}}],
            },
        })
    };
    for (kind, plural) in [("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")] {
        server.apply(&definition(kind, plural).to_string());
        await_yes(plural, || {
            server
                .try_kubectl(&["get", &format!("{plural}.monitoring.coreos.com")])
                .status
                .success()
        });
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn what_helm_test_runs_says_whether_definitions_and_rights_are_there() {
    let server = server();
    let check = |namespace: Option<&str>| {
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_operator"));
        check.args([
            "--check",
            "--relay-image=relay:1",
            "--listen=127.0.0.1:0",
            "--kubeconfig",
        ]);
        check.arg(server.path("operator.kubeconfig"));
        check.args(namespace.map(|namespace| format!("--watch-namespace={namespace}")));
        check.output().unwrap()
    };
    let said = check(None);
    let log = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.status.success() && log.contains("definitions and rights are there"),
        "{log}"
    );
    // The test's pod says the same of itself as the operator's.
    let rendered = server.rendered_chart(&["--show-only=templates/tests/check.yaml"]);
    assert!(
        rendered.contains("helm.sh/hook: test") && rendered.contains("- --check"),
        "{rendered}"
    );
}

/// What the roles grant but the audit log does not show under that name: the API server itself asks for them, of one who
/// applies what is not there yet, and of one who gives it an owner.
const NOT_SHOWN: [&str; 11] = [
    "patch events", // a repeated event within six minutes
    "create configmaps",
    "create services",
    "delete configmaps",
    "delete services",
    "update relays/finalizers",
    "update relayfamilies/finalizers",
    "update relaysets/finalizers",
    "create relays",
    "create poddisruptionbudgets",
    "delete poddisruptionbudgets",
];

/// In no namespace; the stories of lost nodes and of addresses look whether they are used.
pub(crate) const OF_ALL_NAMESPACES: [&str; 6] = [
    "get nodes",
    "get namespaces",
    "get addresspools",
    "list addresspools",
    "watch addresspools",
    "update addresspools/status",
];

/// Everything that a fleet does in its life, but for what only an operator of all namespaces has to do with.
fn live_a_life(scene: &Scene) {
    scene.server.apply(&family(scene.namespace, "oaks", json!({})));
    scene.apply_relay_with(json!({"family": {"name": "oaks"}}));
    let pod = scene.await_pod();
    let fingerprint = scene.fingerprint();
    scene.rename_relay("other");
    scene.await_torrc_of("other");
    scene.apply_relay_with(json!({
        "orPort": 9443, "deletionPolicy": "Delete", "deletionConfirmation": fingerprint,
    }));
    scene.await_new_pod(&pod);
    scene.apply_set(1, "oak");
    await_yes("a relay of the set", || scene.get("relay/oaks-0").is_some());
    scene.scale(0);
    await_yes("no relay of the set", || scene.get("relay/oaks-0").is_none());
    await_yes("the set's status", || {
        scene.get("relayset/oaks").unwrap()["status"]["replicas"] == 0
    });
}

/// No answer was 403, and of the rights none was never used.
fn all_rights_are_used(asked: &[audit::Request], rights: &[String]) {
    let forbidden: Vec<_> = asked.iter().filter(|request| request.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
    let used: BTreeSet<String> = asked
        .iter()
        .map(|request| format!("{} {}", request.verb, request.resource))
        .collect();
    let excused = |right: &str| NOT_SHOWN.contains(&right) || OF_ALL_NAMESPACES.contains(&right);
    let unused: Vec<_> = rights
        .iter()
        .filter(|right| !used.contains(*right) && !excused(right))
        .collect();
    assert!(unused.is_empty(), "granted, but never used: {unused:?}");
    eprintln!(
        "{} requests, {} of them writes: 0 forbidden; {} rights granted, {} asked for by the API server alone, 0 unused",
        asked.len(),
        asked.iter().filter(|request| request.is_write()).count(),
        rights.len(),
        rights.iter().filter(|right| !used.contains(*right)).count()
    );
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn the_operator_needs_all_of_its_rights_and_no_other() {
    let scene = Scene::new("rights");
    let operator = Operator::start(&scene.server, scene.namespace);
    live_a_life(&scene);
    operator.stop();
    all_rights_are_used(&audit::requests(&scene.server, scene.namespace), &scene.rights());
}

/// As `helm install --set watchNamespace=…` makes it, with the right to destroy what its owner confirms.
#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn an_operator_of_one_namespace_needs_all_of_its_rights_and_no_other() {
    let scene = Scene::new("onlyhere");
    let server = &scene.server;
    server.kubectl(&["create", "namespace", HOME_OF_ONE]);
    server.apply(&server.rendered_chart(&[
        "-n",
        HOME_OF_ONE,
        "--skip-tests",
        "--set=watchNamespace=onlyhere,crds.enabled=false,rbac.aggregate=false,rbac.deleteIdentities=true",
    ]));
    let operator = Operator::start_of_one_namespace(server, scene.namespace);
    live_a_life(&scene);
    scene.kubectl(&["delete", "relay", "demo", "--wait=false"]);
    await_yes("the claim's deletion", || {
        let claim = scene.get("pvc/demo-data");
        claim.is_none_or(|claim| !claim["metadata"]["deletionTimestamp"].is_null())
    });
    // The claim's own finalizer is the controller manager's to take.
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    scene.kubectl(&["patch", "pvc", "demo-data", "--type=merge", "-p", &free]);
    await_yes("the Relay to be gone", || scene.get("relay/demo").is_none());
    operator.stop();

    let rights = [
        scene.rights_of("role", scene.namespace, "relayfleet-one-relayfleet"),
        scene.rights_of("role", HOME_OF_ONE, "relayfleet-lease"),
        scene.rights_of("role", HOME_OF_ONE, "relayfleet-custody"),
    ];
    all_rights_are_used(&audit::requests_of(server, OPERATOR_OF_ONE), &rights.concat());
}
