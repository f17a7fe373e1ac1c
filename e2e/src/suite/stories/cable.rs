//! The ways in which a relay's process can be lost, the worst last: the cable of its node is pulled, so that it runs on
//! where nobody can see it. Whatever happens, there are never two of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Form;
use super::identities::{Watch, running};
use crate::cluster::node::Node;
use crate::cluster::{self, storage};
use crate::command::await_yes;
use crate::demo::fleet::{NAMESPACE, PATIENCE, Relay, is_true};
use crate::demo::{Demo, images};
use crate::process::Known;
use crate::say;

/// The relay of this story, on a volume that both nodes can mount.
const NAME: &str = "yew";

/// How long nothing may happen for us to say that it does not.
const HOLD: Duration = Duration::from_secs(10);

/// On two nodes.
pub(super) fn never_two_of_one(demo: &Demo, form: Form) -> Result<()> {
    let cluster = cluster::up(2)?;
    // A demo that is repeated on more nodes than it began with has its images there too.
    cluster.import(&images::ready()?.archives)?;
    let demo = &Demo {
        cluster,
        network: crate::tornet::Network::open(&crate::tornet::spec::folder())?,
        fleet: demo.fleet.clone(),
    };
    let node = demo.cluster.node(2);
    let told = tell(demo, &node, form);
    if told.is_err() {
        say::plain(demo.fleet.troubles());
        // Leave the node as the next story wants it.
        let _ = node.plug_cable();
    }
    demo.cluster
        .kubectl(["-n", NAMESPACE, "delete", "relay", NAME, "--ignore-not-found"])?;
    told
}

fn tell(demo: &Demo, node: &Node<'_>, form: Form) -> Result<()> {
    demo.cluster.apply(&yew().to_string())?;
    await_pod(demo, "", "node2")?;
    let relay = relay(demo)?;
    demo.network
        .await_relay(&relay.fingerprint, Some(&relay.address), PATIENCE)?;
    say::step(format!("{NAME} is {} and runs on node2", relay.fingerprint));
    let watch = Watch::begin();

    // Its process dies: the kubelet starts another in the same container's place.
    let first = process(&relay)?;
    first.signal(Signal::KILL);
    await_another(&relay, first)?;
    say::step("its process was killed: the kubelet started the next one");
    await_pod(demo, "", "node2")?;

    // Its pod is deleted: the next one is made when it has ended.
    let (old, before) = (pod_uid(demo)?, process(&relay)?);
    demo.cluster.kubectl(["-n", NAMESPACE, "delete", "pod", NAME])?;
    await_pod(demo, &old, "node2")?;
    await_another(&relay, before)?;
    say::step("its pod was deleted: another one runs it");

    if form == Form::Long {
        let lost = lose(demo, node, &relay)?;
        node.plug_cable()?;
        say::step("the cable is plugged in again");
        await_pod(demo, &lost.pod_uid, "")?;
        await_another(&relay, lost.process)?;
        say::step(format!(
            "node2 said that the old pod has ended, and another one runs on {}",
            node_of_pod(demo)?
        ));
        bring_to_node_2(demo)?;
    }

    let lost = lose(demo, node, &relay)?;
    // Somebody goes and looks: the machine is switched off, and only then vouched for.
    confirm(demo, "00000000-0000-0000-0000-000000000000")?;
    std::thread::sleep(HOLD);
    ensure!(
        pod_uid(demo)? == lost.pod_uid,
        "a confirmation of another pod's end was taken for this one's"
    );
    say::step("a confirmation with the uid of another pod changes nothing");
    ensure!(
        lost.process.alive(),
        "the process behind the pulled cable has ended by itself"
    );
    node.cut_power()?;
    ensure!(!lost.process.alive(), "the power is off and the process runs on");
    confirm(demo, &lost.pod_uid)?;
    say::step(format!(
        "node2 is switched off; kubectl annotate pod {NAME} relayfleet.io/confirm-fenced={}",
        lost.pod_uid
    ));
    await_pod(demo, &lost.pod_uid, "node1")?;
    let again = self::relay(demo)?;
    ensure!(
        again.fingerprint == relay.fingerprint,
        "{} became {}",
        relay.fingerprint,
        again.fingerprint
    );
    demo.network
        .await_relay(&again.fingerprint, Some(&again.address), PATIENCE)?;
    say::step(format!(
        "{NAME} is {} and runs on node1, at {} in the consensus",
        again.fingerprint, again.address
    ));

    // The machine comes back with all that lay on its disk.
    let here = process(&relay)?;
    node.plug_cable()?;
    node.start(&demo.cluster.programs)?;
    await_node(demo, "True")?;
    std::thread::sleep(HOLD);
    ensure!(
        process(&relay)? == here,
        "the machine that came back changed who runs the relay"
    );
    say::step("node2 is switched on and plugged in again: it starts no second one");
    say::step(watch.never_two()?.to_string());
    Ok(())
}

/// A pod that was lost.
struct Lost {
    pod_uid: String,
    process: Known,
}

/// Pulls the cable and waits until the operator says what holds it up, with the process alive behind the break.
fn lose(demo: &Demo, node: &Node<'_>, relay: &Relay) -> Result<Lost> {
    let lost = Lost {
        pod_uid: pod_uid(demo)?,
        process: process(relay)?,
    };
    node.pull_cable()?;
    let began = say::elapsed();
    say::step("the cable of node2 is pulled");
    await_node(demo, "Unknown")?;
    let evicted = || pod(demo).is_ok_and(|pod| pod.pointer("/metadata/deletionTimestamp").is_some());
    await_yes("the API server to evict the pod", PATIENCE, evicted)?;
    say::step(format!(
        "the API server evicts its pod after {:.0} s",
        (say::elapsed() - began).as_secs_f64()
    ));
    let told =
        || condition(demo, "Fenced").is_ok_and(|(status, reason, _)| (&*status, &*reason) == ("Unknown", "NodeSilent"));
    await_yes("the operator to say that nobody knows", PATIENCE, told)?;
    std::thread::sleep(HOLD);
    ensure!(
        lost.process.alive(),
        "the process behind the pulled cable has ended by itself"
    );
    ensure!(
        pod_uid(demo)? == lost.pod_uid,
        "there is another pod while nobody knows of the old one's end"
    );
    say::step(format!(
        "after {:.0} s its process {} runs on behind the break, no other was started, and kubectl describe relay {NAME} says:",
        (say::elapsed() - began).as_secs_f64(),
        lost.process.pid
    ));
    let described = demo.cluster.kubectl(["-n", NAMESPACE, "describe", "relay", NAME])?;
    let (.., message) = condition(demo, "Fenced")?;
    ensure!(
        message.contains(&lost.pod_uid) && message.contains("confirm-fenced"),
        "it does not say what to do: {message}"
    );
    let mut lines: Vec<&str> = described
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("confirm-fenced"))
        .collect();
    lines.dedup();
    lines.iter().for_each(|line| say::plain(format!("    {line}")));
    Ok(lost)
}

/// So that the rest of the story can be told of node 2 again: its pod is deleted and prefers that node.
fn bring_to_node_2(demo: &Demo) -> Result<()> {
    if node_of_pod(demo)? == "node2" {
        return Ok(());
    }
    await_node(demo, "True")?;
    let old = pod_uid(demo)?;
    demo.cluster.kubectl(["-n", NAMESPACE, "delete", "pod", NAME])?;
    await_pod(demo, &old, "node2")
}

fn confirm(demo: &Demo, uid: &str) -> Result<()> {
    let confirmed = format!("relayfleet.io/confirm-fenced={uid}");
    demo.cluster
        .kubectl(["-n", NAMESPACE, "annotate", "--overwrite", "pod", NAME, &confirmed])
        .map(drop)
}

/// Waits until its pod is another one than that of `old` (if any), on this node (if any), and the Relay is Ready.
fn await_pod(demo: &Demo, old: &str, node: &str) -> Result<()> {
    let there = || {
        let on = node_of_pod(demo).unwrap_or_default();
        let another = pod_uid(demo).is_ok_and(|uid| uid != old);
        another
            && (on == node || (node.is_empty() && !on.is_empty()))
            && object(demo).is_ok_and(|relay| is_true(&relay, "Ready"))
    };
    let what = format!(
        "{NAME} to be Ready in another pod {}",
        if node.is_empty() { "" } else { node }
    );
    await_yes(what.trim_end(), PATIENCE, there)
}

fn await_another(relay: &Relay, before: Known) -> Result<()> {
    await_yes("another process of it", PATIENCE, || {
        running(&relay.ed25519).is_ok_and(|now| now.is_some_and(|now| now != before))
    })
}

fn await_node(demo: &Demo, ready: &str) -> Result<()> {
    let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    let said = || {
        demo.cluster
            .kubectl(["get", "node", "node2", "-o", path])
            .is_ok_and(|status| status == ready)
    };
    await_yes(&format!("node2 to be Ready: {ready}"), PATIENCE, said)
}

fn process(relay: &Relay) -> Result<Known> {
    running(&relay.ed25519)?.with_context(|| format!("no process of {NAME} runs"))
}

fn object(demo: &Demo) -> Result<Value> {
    Ok(serde_json::from_str(
        &demo
            .cluster
            .kubectl(["-n", NAMESPACE, "get", "relay", NAME, "-o", "json"])?,
    )?)
}

fn relay(demo: &Demo) -> Result<Relay> {
    let all = demo.fleet.relays()?;
    all.into_iter()
        .find(|relay| relay.name == NAME)
        .context("the relay is gone")
}

fn pod(demo: &Demo) -> Result<Value> {
    Ok(serde_json::from_str(
        &demo
            .cluster
            .kubectl(["-n", NAMESPACE, "get", "pod", NAME, "-o", "json"])?,
    )?)
}

fn pod_uid(demo: &Demo) -> Result<String> {
    let pod = pod(demo)?;
    pod.pointer("/metadata/uid")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .context("a pod without uid")
}

fn node_of_pod(demo: &Demo) -> Result<String> {
    let pod = pod(demo)?;
    pod.pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .context("a pod without node")
}

/// Status, reason and message.
fn condition(demo: &Demo, kind: &str) -> Result<(String, String, String)> {
    let relay = object(demo)?;
    let conditions = relay.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions
        .into_iter()
        .flatten()
        .find(|one| one.get("type").is_some_and(|found| found == kind));
    let found = found.with_context(|| format!("{NAME} has no condition {kind}"))?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("status"), text("reason"), text("message")))
}

/// It would rather be on node 2, and is evicted at once where others wait for five minutes.
fn yew() -> Value {
    let evicted_soon =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    json!({"apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay", "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": {
        "role": "Middle", "nickname": NAME, "contact": "demo@relayfleet.invalid",
        "storage": {"storageClassName": storage::ANY_NODE},
        "network": {"configMap": {"name": "private-tor-network"}},
        "pod": {
            "tolerations": [evicted_soon("node.kubernetes.io/unreachable"), evicted_soon("node.kubernetes.io/not-ready")],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
                "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}]}}]}},
        },
    }})
}
