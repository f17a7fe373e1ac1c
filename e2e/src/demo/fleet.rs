//! Our relays in the cluster: applied, waited for, looked at.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command::await_yes;
use crate::programs::repository;
use crate::say;

/// Where the example's relays live.
pub const NAMESPACE: &str = "relays";

/// How long a relay may take to be Ready, or to be in the consensus.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What is applied.
pub const EXAMPLE: &str = "docs/examples/fleet.yaml";

/// The relays of [`EXAMPLE`] in a cluster.
#[derive(Clone)]
pub struct Fleet {
    cluster: Cluster,
}

/// What the cluster tells of a relay that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Name of the resource.
    pub name: String,
    /// Its name in the Tor network.
    pub nickname: String,
    /// RSA identity, 40 hexadecimal digits.
    pub fingerprint: String,
    /// The address that it publishes.
    pub address: String,
    /// Name of its pod.
    pub pod: String,
    /// Guard, Middle or Exit.
    pub role: String,
    /// Ed25519 identity, 43 characters of base64.
    pub ed25519: String,
}

impl Fleet {
    /// Of this cluster.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
        }
    }

    /// Applies namespace, the network's lines and the relays, as a person would with `kubectl apply`.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, torrc: &str) -> Result<()> {
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": NAMESPACE,
                // The strictest level of Pod Security: our relays' pods ask for nothing that it forbids.
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
            {"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "private-tor-network", "namespace": NAMESPACE},
                "data": {"torrc": torrc}},
        ]});
        self.cluster.apply(&objects.to_string())?;
        let example = repository().join(EXAMPLE);
        let text = std::fs::read_to_string(&example).with_context(|| format!("cannot read {}", example.display()))?;
        self.cluster.apply(&text)?;
        say::step(format!("kubectl apply -f {EXAMPLE}"));
        Ok(())
    }

    /// Waits until all are Ready.
    ///
    /// # Errors
    /// One is not in time: the error holds what the cluster says of it.
    pub fn await_ready(&self) -> Result<()> {
        let ready = || self.is_ready().unwrap_or(false);
        await_yes("our relays to be Ready", PATIENCE, ready).with_context(|| self.troubles())?;
        say::step(format!("{} relays are Ready", self.relays()?.len()));
        Ok(())
    }

    /// Whether sets have as many relays as they ask for, and all relays are Ready.
    fn is_ready(&self) -> Result<bool> {
        let (sets, relays) = (self.objects("relaysets")?, self.objects("relays")?);
        let replicas = sets
            .iter()
            .filter_map(|set| set.pointer("/spec/replicas")?.as_u64())
            .sum::<u64>();
        let enough = !relays.is_empty() && relays.len() as u64 >= replicas;
        Ok(enough && sets.iter().chain(&relays).all(|object| is_true(object, "Ready")))
    }

    /// Waits until the operator says of every relay that the consensus lists it.
    ///
    /// # Errors
    /// It does not of one in time: the error holds what the cluster says of it.
    pub fn await_in_consensus(&self) -> Result<()> {
        let listed = || {
            let relays = self.objects("relays").unwrap_or_default();
            !relays.is_empty() && relays.iter().all(|relay| is_true(relay, "InConsensus"))
        };
        await_yes("our relays to be InConsensus", PATIENCE, listed).with_context(|| self.troubles())?;
        say::step("all of them are InConsensus, says the operator");
        Ok(())
    }

    /// Keys (FamilyId) of all families that there are.
    ///
    /// # Errors
    /// `kubectl get` fails.
    pub fn family_ids(&self) -> Result<Vec<String>> {
        let families = self.objects("relayfamilies")?;
        let ids = families
            .iter()
            .filter_map(|family| family.pointer("/status/familyIds")?.as_array());
        let ids = ids.flatten().filter_map(|one| one.get("id")?.as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    /// The relays, in the order of their names.
    ///
    /// # Errors
    /// One has no identity, address or pod yet.
    pub fn relays(&self) -> Result<Vec<Relay>> {
        let objects = self.objects("relays")?;
        if objects.is_empty() {
            bail!("there is no Relay in the namespace {NAMESPACE}");
        }
        objects.iter().map(relay).collect()
    }

    /// All objects of a kind in the relays' namespace.
    ///
    /// # Errors
    /// `kubectl get` fails.
    pub fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let said = self.cluster.kubectl(["-n", NAMESPACE, "get", kind, "-o", "json"])?;
        let list: Value = serde_json::from_str(&said)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// What the cluster says of relays and pods when something does not come about.
    pub fn troubles(&self) -> String {
        let mut text = String::new();
        for line in [
            "get relays -o wide",
            "get relays -o jsonpath={range.items[*]}{.metadata.name}{\"\\t\"}{.status.conditions}{\"\\n\"}{end}",
            "get pods,pvc -o wide",
            "get events --sort-by=.lastTimestamp",
            "logs --all-containers --prefix --tail=10 -l app.kubernetes.io/managed-by=relayfleet",
        ] {
            let all = ["-n", NAMESPACE].into_iter().chain(line.split(' '));
            let said = self.cluster.kubectl(all).unwrap_or_else(|error| format!("{error:#}"));
            let last: Vec<&str> = said.lines().rev().take(15).collect();
            text.push_str(&format!("--- kubectl {line}\n"));
            text.extend(last.into_iter().rev().map(|line| format!("  | {line}\n")));
        }
        text
    }
}

/// Whether a condition of an object is True for the spec as it is now.
pub fn is_true(object: &Value, kind: &str) -> bool {
    let generation = object.pointer("/metadata/generation");
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").is_some_and(|found| found == kind)
            && condition.get("status").is_some_and(|status| status == "True")
            && condition
                .get("observedGeneration")
                .is_none_or(|seen| Some(seen) == generation)
    })
}

fn relay(object: &Value) -> Result<Relay> {
    let text = |path: &str| {
        let found = object
            .pointer(path)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        found
            .map(str::to_owned)
            .with_context(|| format!("a Relay has no {path} yet"))
    };
    Ok(Relay {
        name: text("/metadata/name")?,
        nickname: text("/spec/nickname")?,
        fingerprint: text("/status/identity/rsaFingerprint")?,
        address: text("/status/address")?,
        pod: text("/status/podName")?,
        role: text("/spec/role")?,
        ed25519: text("/status/identity/ed25519Id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_ready_only_for_the_spec_that_it_has_now() {
        let at = |generation: u32| {
            json!({"metadata": {"generation": generation}, "status": {"conditions": [
                {"type": "IdentityBound", "status": "False"},
                {"type": "Ready", "status": "True", "observedGeneration": 2}]}})
        };
        assert!(is_true(&at(2), "Ready"));
        assert!(!is_true(&at(3), "Ready"));
        assert!(!is_true(&at(2), "IdentityBound"));
        assert!(!is_true(&json!({"metadata": {"generation": 1}}), "Ready"));
    }

    #[test]
    fn a_relay_without_identity_says_what_it_lacks() {
        let half = json!({"metadata": {"name": "alder"}, "spec": {"nickname": "alder"}});
        assert!(relay(&half).unwrap_err().to_string().contains("rsaFingerprint"));
    }
}
