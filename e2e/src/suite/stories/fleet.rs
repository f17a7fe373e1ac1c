//! Our operator and our relays in the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Form;
use super::audit::Audit;
use super::upgrade::settle;
use crate::command::await_yes;
use crate::demo::fleet::{NAMESPACE, PATIENCE};
use crate::demo::{Demo, operator};
use crate::say;

/// Enough to see that a path works; the demo moves more.
const FETCH_BYTES: u64 = 5_000_000;

/// The namespace enforces it; a pod that ran there passed.
pub(super) fn pods_are_restricted(demo: &Demo, _: Form) -> Result<()> {
    let level = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    let enforced = demo.cluster.kubectl(["get", "namespace", NAMESPACE, "-o", level])?;
    ensure!(
        enforced == "restricted",
        "the namespace of the relays enforces {enforced:?}"
    );
    ensure!(
        demo.fleet.objects("pods")?.len() == demo.fleet.relays()?.len(),
        "not one pod for each relay"
    );
    Ok(())
}

/// Same fingerprint, back in the consensus at its new address, and bytes go through it.
pub(super) fn a_deleted_pod_is_the_same_relay_again(demo: &Demo, _: Form) -> Result<()> {
    let before = demo.fleet.relays()?;
    let victim = before.first().context("no relay")?;
    let old = pod_uid(demo, &victim.pod)?;
    demo.cluster.kubectl(["-n", NAMESPACE, "delete", "pod", &victim.pod])?;
    let replaced = || {
        let now = demo
            .fleet
            .relays()
            .ok()
            .and_then(|all| all.into_iter().find(|relay| relay.name == victim.name));
        now.is_some_and(|relay| pod_uid(demo, &relay.pod).is_ok_and(|uid| uid != old))
    };
    await_yes("a new pod", PATIENCE, replaced).with_context(|| demo.fleet.troubles())?;
    demo.fleet.await_ready()?;
    let after = demo.fleet.relays()?;
    let again = after
        .iter()
        .find(|relay| relay.name == victim.name)
        .context("the relay is gone")?;
    ensure!(
        again.fingerprint == victim.fingerprint,
        "{} became {}",
        victim.fingerprint,
        again.fingerprint
    );
    say::step(format!(
        "{} is {} again, at {}",
        again.nickname, again.fingerprint, again.address
    ));
    demo.await_consensus()?;
    demo.fetch_through_three(FETCH_BYTES).map(drop)
}

/// The API server's audit log tells who wrote what.
pub(super) fn a_restarted_operator_writes_nothing(demo: &Demo, _: Form) -> Result<()> {
    settle(demo)?;
    let before = state_of_all(demo)?;
    let audit = Audit::now(demo)?;
    let old = operator_pod(demo)?;
    demo.cluster
        .kubectl(["-n", operator::NAMESPACE, "delete", "pod", &old])?;
    await_leader(demo, &old)?;
    // Nothing tells that nothing more will come: this is how long it may take to think of something.
    std::thread::sleep(Duration::from_secs(20));
    let writes = audit.writes()?;
    ensure!(writes.is_empty(), "the operator wrote:\n  {}", writes.join("\n  "));
    let after = state_of_all(demo)?;
    ensure!(before == after, "changed: {before:#?}\nto: {after:#?}");
    Ok(())
}

/// Waits until another pod than `old` is the operator that leads.
pub(super) fn await_leader(demo: &Demo, old: &str) -> Result<()> {
    await_yes("a new operator", PATIENCE, || {
        operator_pod(demo).is_ok_and(|new| new != old && is_ready(demo, &new))
    })?;
    let holder = || {
        let lease = [
            "-n",
            operator::NAMESPACE,
            "get",
            "lease",
            operator::RELEASE,
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ];
        demo.cluster.kubectl(lease).unwrap_or_default()
    };
    await_yes("the new operator to hold the Lease", PATIENCE, || {
        operator_pod(demo).is_ok_and(|new| new != old && holder().contains(&new))
    })
}

/// All that the stories before made it ask for was within the rights that the chart gives.
pub(super) fn nothing_was_forbidden(demo: &Demo, _: Form) -> Result<()> {
    let all = Audit::whole(demo).of_the_operator()?;
    ensure!(
        all.iter().any(|one| one.is_write()),
        "the audit log knows nothing of the operator"
    );
    let forbidden: Vec<String> = all
        .iter()
        .filter(|one| one.code == 403)
        .map(|one| format!("{} {}", one.verb, one.uri))
        .collect();
    ensure!(
        forbidden.is_empty(),
        "forbidden to the operator:\n  {}",
        forbidden.join("\n  ")
    );
    say::step(format!("{} requests of the operator, none forbidden", all.len()));
    Ok(())
}

/// Version of every object of the relays, and how often their containers were restarted.
pub(super) fn state_of_all(demo: &Demo) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for kind in [
        "relays",
        "pods",
        "secrets",
        "configmaps",
        "services",
        "persistentvolumeclaims",
    ] {
        for object in demo.fleet.objects(kind)? {
            let text = |path: &str| object.pointer(path).map(Value::to_string).unwrap_or_default();
            let restarts = text("/status/containerStatuses/0/restartCount");
            let value = format!(
                "{} {} {restarts}",
                text("/metadata/uid"),
                text("/metadata/resourceVersion")
            );
            found.insert(format!("{kind}/{}", text("/metadata/name")), value);
        }
    }
    Ok(found)
}

fn pod_uid(demo: &Demo, pod: &str) -> Result<String> {
    demo.cluster
        .kubectl(["-n", NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])
}

/// The one that runs and is not about to end.
pub(super) fn operator_pod(demo: &Demo) -> Result<String> {
    let said = demo
        .cluster
        .kubectl(["-n", operator::NAMESPACE, "get", "pods", "-o", "json"])?;
    let list: Value = serde_json::from_str(&said)?;
    let pods = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let mut staying = pods.filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
    let pod = staying.find(|pod| pod.pointer("/status/phase").is_some_and(|phase| phase == "Running"));
    let name = pod.and_then(|pod| pod.pointer("/metadata/name")?.as_str());
    name.map(str::to_owned).context("no operator runs")
}

fn is_ready(demo: &Demo, pod: &str) -> bool {
    let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    let said = demo
        .cluster
        .kubectl(["-n", operator::NAMESPACE, "get", "pod", pod, "-o", condition]);
    said.is_ok_and(|status| status == "True")
}
