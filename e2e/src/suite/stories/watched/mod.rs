//! A real Prometheus finds the operator and the fleet as the chart's PodMonitors say, and the chart's alerts and
//! dashboards ask it for what is there.

mod alerts;
mod monitors;
mod prometheus;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::prometheus::Prometheus;
use super::Form;
use super::outage::scale_operator;
use crate::command::{await_yes, command, output};
use crate::demo::fleet::Relay;
use crate::demo::{Demo, operator};
use crate::programs::repository;
use crate::say;

/// Enough that the counters of all three relays move between two scrapes.
const FETCH_BYTES: u64 = 20_000_000;
/// Any that the chart accepts.
const KUBERNETES: &str = "1.35";
const PATIENCE: Duration = Duration::from_secs(60);

/// Alerts without their `for`, which says how long a person may sleep on: the story has no half hour.
pub(super) fn a_prometheus_sees_the_fleet(demo: &Demo, _: Form) -> Result<()> {
    let rendered = rendered(demo)?;
    let of_kind = |kind: &'static str| rendered.iter().filter(move |object| text(object, "/kind") == kind);
    let rules = of_kind("PrometheusRule").next().context("the chart renders no rules")?;
    let rules = rules.get("spec").context("rules without spec")?;
    let count = alerts::hold(rules)?;
    say::step(format!(
        "promtool: {count} alerts, each fires on what it is for and is silent on what it is not for"
    ));

    let jobs: Vec<Value> = of_kind("PodMonitor")
        .map(|monitor| monitors::as_jobs(monitor, &demo.cluster.kubeconfig()))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let prometheus = Prometheus::start(&jobs, &alerts::at_once(rules))?;
    let relays = demo.fleet.relays()?;
    let wanted = relays.len() + 1;
    await_yes("Prometheus to find the operator and every relay", PATIENCE, || {
        prometheus.ask("up == 1").is_ok_and(|series| series.len() >= wanted)
    })
    .with_context(|| prometheus.targets())?;
    let lost = prometheus.ask("up == 0")?;
    ensure!(lost.is_empty(), "targets that do not answer: {lost:#?}");
    for relay in &relays {
        let own = format!(
            "tor_relay_traffic_bytes{{pod={:?},relayfleet_io_role={:?}}}",
            relay.pod, relay.role
        );
        ensure!(!prometheus.ask(&own)?.is_empty(), "nothing is told about {own}");
    }
    say::step(format!("Prometheus scrapes the operator and {} relays", relays.len()));

    let (exits, others): (Vec<&Relay>, Vec<&Relay>) = relays.iter().partition(|relay| relay.role == "Exit");
    let (Some(exit), [guard, middle, ..]) = (exits.first(), others.as_slice()) else {
        anyhow::bail!("a path of our own takes two relays and an exit");
    };
    demo.fetch_through(&[guard, middle, exit], FETCH_BYTES)?;
    let of_all = of_kind("ConfigMap").flat_map(dashboards);
    for (name, dashboard) in of_all.collect::<Vec<_>>() {
        look_at(&prometheus, &name, &dashboard)?;
    }

    let firing = prometheus.firing()?;
    ensure!(firing.is_empty(), "alerts at rest: {}", firing.join(", "));
    scale_operator(demo, 0)?;
    let told = await_yes("the alert that nobody leads", PATIENCE, || {
        prometheus.firing().is_ok_and(|firing| firing == ["RelayfleetNoLeader"])
    })
    .with_context(|| format!("{:?}", prometheus.firing()));
    scale_operator(demo, 1)?;
    super::fleet::await_leader(demo, "")?;
    told?;
    await_yes("the alert to end", PATIENCE, || {
        prometheus.firing().is_ok_and(|firing| firing.is_empty())
    })
    .with_context(|| format!("{:?}", prometheus.firing()))?;
    say::step("no alert at rest; RelayfleetNoLeader without an operator, and gone with the next");
    demo.fleet.await_ready()
}

/// Every panel's question is answered, all but those for trouble with something; then the page is not empty.
fn look_at(prometheus: &Prometheus, name: &str, dashboard: &Value) -> Result<()> {
    let (mut shown, mut empty) = (0, Vec::new());
    for panel in array(dashboard, "/panels") {
        for target in array(panel, "/targets") {
            let question = text(target, "/expr")
                .replace("$__rate_interval", "20s")
                .replace("$namespace", ".*")
                .replace("$relay", ".*");
            ensure!(
                !question.contains('$'),
                "{name}: a variable that nobody sets in {question}"
            );
            let answered = || prometheus.ask(&question).map(|series| !series.is_empty());
            if is_of_trouble(&question) {
                if answered().with_context(|| question.clone())? {
                    shown += 1;
                } else {
                    empty.push(text(panel, "/title").to_owned());
                }
                continue;
            }
            // A rate takes two scrapes.
            await_yes("an answer", PATIENCE, || answered().unwrap_or(false))
                .with_context(|| format!("{name}: nothing to show for {question}"))?;
            shown += 1;
        }
    }
    ensure!(shown > 4, "{name} shows next to nothing");
    let quiet = if empty.is_empty() {
        "none".to_owned()
    } else {
        empty.join(", ")
    };
    say::step(format!(
        "{name}: {shown} questions have answers; empty while all is well: {quiet}"
    ));
    Ok(())
}

/// These have an answer only when something is wrong.
fn is_of_trouble(question: &str) -> bool {
    ["> 0", "status!=\"True\"", "oom_bytes", "tcp_exhaustion", "dropped"]
        .iter()
        .any(|part| question.contains(part))
}

fn dashboards(map: &Value) -> Vec<(String, Value)> {
    let files = map.get("data").and_then(Value::as_object);
    let files = files.into_iter().flatten().filter(|(name, _)| name.ends_with(".json"));
    files
        .filter_map(|(name, text)| Some((name.clone(), serde_json::from_str(text.as_str()?).ok()?)))
        .collect()
}

/// All that the chart makes with its monitoring on.
fn rendered(demo: &Demo) -> Result<Vec<Value>> {
    let mut helm = command(demo.cluster.programs.join("helm"), ["template", operator::RELEASE]);
    helm.arg(repository().join("charts/relayfleet"));
    helm.args(["--namespace", operator::NAMESPACE, "--set", "relayMetrics.enabled=true"]);
    // Without a cluster to ask helm takes the oldest version that it knows.
    helm.args(["--kube-version", KUBERNETES]);
    for part in ["podMonitor", "prometheusRule", "dashboards"] {
        helm.args(["--set", &format!("monitoring.{part}.enabled=true")]);
    }
    let all = output(&mut helm)?;
    let wanted = ["kind: PodMonitor\n", "kind: PrometheusRule\n", "kind: ConfigMap\n"];
    let documents = all.split("\n---\n");
    let documents = documents.filter(|document| wanted.iter().any(|kind| document.contains(kind)));
    documents
        .map(|document| serde_saphyr::from_str(document).with_context(|| document.to_owned()))
        .collect()
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
