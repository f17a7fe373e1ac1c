//! The chart's alerts, judged by Prometheus' own tool.

mod alerts;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Form;
use crate::command::{command, output};
use crate::demo::{Demo, operator};
use crate::programs::repository;
use crate::say;

/// Any that the chart accepts.
const KUBERNETES: &str = "1.35";

/// As helm renders them.
pub(super) fn alerts_fire_when_they_should(demo: &Demo, _: Form) -> Result<()> {
    let rules = rendered(demo)?;
    let count = alerts::hold(rules.get("spec").context("rules without spec")?)?;
    say::step(format!(
        "promtool: {count} alerts, each fires on what it is for and is silent on what it is not for"
    ));
    Ok(())
}

/// The PrometheusRule that the chart makes when it is asked to.
fn rendered(demo: &Demo) -> Result<Value> {
    let mut helm = command(demo.cluster.programs.join("helm"), ["template", operator::RELEASE]);
    helm.arg(repository().join("charts/relayfleet"));
    helm.args(["--namespace", operator::NAMESPACE]);
    // Without a cluster to ask helm takes the oldest version that it knows.
    helm.args(["--kube-version", KUBERNETES]);
    helm.args(["--set", "monitoring.prometheusRule.enabled=true"]);
    let all = output(&mut helm)?;
    let mut documents = all.split("\n---\n");
    let rules = documents.find(|document| document.contains("kind: PrometheusRule\n"));
    Ok(serde_saphyr::from_str(rules.context("the chart renders no rules")?)?)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
