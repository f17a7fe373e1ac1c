//! StorageClasses: local-path-provisioner, running outside the cluster with rights of its own. Volumes of the default
//! class belong to a node; those of [`ANY_NODE`] can be mounted from each, as a storage system's can.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::images::busybox;
use crate::command::{command, output_with_input};
use crate::process;
use crate::state::Places;

/// The StorageClass whose volumes every node can mount.
pub const ANY_NODE: &str = "any-node";
const DEFAULT: &str = "local-path";
const NAMESPACE: &str = "local-path-storage";
const PROVISIONER: &str = "rancher.io/local-path";

/// Applies its objects and starts it.
///
/// # Errors
/// The API server refuses an object, or it cannot be started.
pub fn start(places: &Places, programs: &Path) -> Result<()> {
    let mut apply = command(programs.join("kubectl"), ["apply", "--server-side", "-f", "-"]);
    apply.env("KUBECONFIG", places.state.join("admin.kubeconfig"));
    output_with_input(&mut apply, &objects(&places.state.join("volumes")).to_string())?;
    fs::write(places.state.join("helper-pod.yaml"), helper_pod().to_string())?;
    fs::write(
        places.state.join("provisioner.json"),
        configuration(&places.state.join("volumes")).to_string(),
    )?;
    let mut provisioner = command(
        programs.join("local-path-provisioner"),
        ["start", "--namespace", NAMESPACE],
    );
    provisioner.args(["--config", "provisioner.json", "--helper-pod-file", "helper-pod.yaml"]);
    provisioner.args([
        "--kubeconfig",
        "provisioner.kubeconfig",
        "--provisioner-name",
        PROVISIONER,
    ]);
    provisioner.args(["--helper-image", &busybox(), "--service-account-name", "default"]);
    provisioner.current_dir(&places.state);
    process::spawn(places, "local-path-provisioner", None, &mut provisioner).map(drop)
}

/// All nodes are on one machine and so share its folders anyway.
fn configuration(volumes: &Path) -> Value {
    json!({"storageClassConfigs": {
        DEFAULT: {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [volumes]}]},
        ANY_NODE: {"sharedFileSystemPath": volumes},
    }})
}

fn objects(volumes: &Path) -> Value {
    let subject =
        json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "relayfleet-e2e:provisioner"}]);
    let role = "relayfleet-e2e-provisioner";
    let reference = |kind| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
    let all = json!(["get", "list", "watch", "create", "patch", "update", "delete"]);
    let read = json!(["get", "list", "watch"]);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        // The helper pods mount a folder of the node, which only this level of Pod Security allows.
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER,
            "metadata": {
                "name": DEFAULT, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"},
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER,
            "metadata": {"name": ANY_NODE},
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local-path-config", "namespace": NAMESPACE},
            "data": {
                "config.json": configuration(volumes).to_string(),
                "setup": "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n",
                "teardown": "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n",
                "helperPod.yaml": helper_pod().to_string()}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": role, "namespace": NAMESPACE},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": all}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": [
            {"apiGroups": [""], "resources": ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"],
                "verbs": read},
            {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": all},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["endpoints"], "verbs": all},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": read}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": NAMESPACE}, "subjects": subject, "roleRef": reference("Role")},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": role}, "subjects": subject, "roleRef": reference("ClusterRole")},
    ]})
}

fn helper_pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"}, "spec": {
        "priorityClassName": "system-node-critical",
        "dnsPolicy": "Default",
        "automountServiceAccountToken": false,
        "tolerations": [{"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [{"name": "helper-pod", "image": busybox(), "imagePullPolicy": "Never"}],
    }})
}
