//! What the Prometheus operator makes of a PodMonitor, as far as the chart uses one.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{array, text};

/// Seconds between two scrapes: what the chart says is for a Prometheus that stays.
const SCRAPE: &str = "2s";

/// One job for each endpoint.
pub(super) fn as_jobs(monitor: &Value, kubeconfig: &Path) -> Result<Vec<Value>> {
    let name = format!(
        "{}/{}",
        text(monitor, "/metadata/namespace"),
        text(monitor, "/metadata/name")
    );
    let known = [
        "selector",
        "namespaceSelector",
        "podMetricsEndpoints",
        "podTargetLabels",
    ];
    let spec = monitor.get("spec").and_then(Value::as_object);
    for field in spec.into_iter().flat_map(|spec| spec.keys()) {
        ensure!(
            known.contains(&field.as_str()),
            "{name}: this story cannot read {field}"
        );
    }
    let labels = monitor.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let labels = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value, "")));
    let selector = labels.collect::<Vec<_>>().join(",");
    ensure!(!selector.is_empty(), "{name} chooses no pods");
    let names = array(monitor, "/spec/namespaceSelector/matchNames");
    let discovery = json!({
        "role": "pod",
        "kubeconfig_file": kubeconfig,
        "selectors": [{"role": "pod", "label": selector}],
        // None: all of them.
        "namespaces": {"names": names},
    });
    let endpoints = array(monitor, "/spec/podMetricsEndpoints").iter();
    Ok(endpoints
        .map(|endpoint| {
            let port = text(endpoint, "/port");
            let meta = |label: &str| format!("__meta_kubernetes_{label}");
            let mut relabel = vec![
                json!({"source_labels": [meta("pod_phase")], "regex": "(Failed|Succeeded)", "action": "drop"}),
                json!({"source_labels": [meta("pod_container_port_name")], "regex": port, "action": "keep"}),
                json!({"source_labels": [meta("namespace")], "target_label": "namespace"}),
                json!({"source_labels": [meta("pod_container_name")], "target_label": "container"}),
                json!({"source_labels": [meta("pod_name")], "target_label": "pod"}),
            ];
            for label in array(monitor, "/spec/podTargetLabels") {
                let plain = text(label, "").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let from = meta(&format!("pod_label_{plain}"));
                relabel.push(json!({"source_labels": [from], "target_label": plain}));
            }
            json!({
                "job_name": format!("{name}/{port}"),
                "scrape_interval": SCRAPE,
                "metrics_path": text(endpoint, "/path"),
                "kubernetes_sd_configs": [discovery],
                "relabel_configs": relabel,
            })
        })
        .collect())
}
