//! What the operator knows, counted when somebody asks: from the stores that its loops keep anyway.

use std::sync::OnceLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use operator_api::{AddressPool, Relay, RelayFamily, RelaySet, condition};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Gauges by kind, and the stores that they are counted from.
pub(crate) struct Inventory {
    relays: IntGaugeVec,
    relay_conditions: IntGaugeVec,
    families: IntGaugeVec,
    sets: IntGaugeVec,
    pools: IntGaugeVec,
    queue: IntGaugeVec,
    first_end: IntGauge,
    known_relays: OnceLock<Store<DeserializeGuard<Relay>>>,
    known_families: OnceLock<Store<DeserializeGuard<RelayFamily>>>,
    known_sets: OnceLock<Store<DeserializeGuard<RelaySet>>>,
    known_pools: OnceLock<Store<DeserializeGuard<AddressPool>>>,
}

impl Inventory {
    pub(super) fn new(registry: &Registry) -> anyhow::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| -> anyhow::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(format!("relayfleet_operator_{name}"), help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let first_end = IntGauge::new(
            "relayfleet_operator_signing_key_first_end_timestamp_seconds",
            "When the first of the signing keys ends that the operator has issued; 0 if there is none",
        )?;
        registry.register(Box::new(first_end.clone()))?;
        Ok(Self {
            relays: gauges(
                "relays",
                "Relays that the operator knows, by their condition Ready",
                &["ready"],
            )?,
            relay_conditions: gauges(
                "relay_conditions",
                "Relays that the operator knows, by condition and its status",
                &["type", "status"],
            )?,
            families: gauges(
                "families",
                "RelayFamilies that the operator knows, by their condition Ready",
                &["ready"],
            )?,
            sets: gauges(
                "sets",
                "RelaySets that the operator knows, by their condition Ready",
                &["ready"],
            )?,
            pools: gauges(
                "pools",
                "AddressPools that the operator knows, by their condition Ready",
                &["ready"],
            )?,
            queue: gauges(
                "queue",
                "Resources whose present spec no round has answered yet, by kind",
                &["kind"],
            )?,
            first_end,
            known_relays: OnceLock::new(),
            known_families: OnceLock::new(),
            known_sets: OnceLock::new(),
            known_pools: OnceLock::new(),
        })
    }

    /// One controller, one store: a second call would bring the same.
    pub(crate) fn count_relays_of(&self, store: Store<DeserializeGuard<Relay>>) {
        let _ = self.known_relays.set(store);
    }

    /// As above.
    pub(crate) fn count_families_of(&self, store: Store<DeserializeGuard<RelayFamily>>) {
        let _ = self.known_families.set(store);
    }

    /// As above.
    pub(crate) fn count_sets_of(&self, store: Store<DeserializeGuard<RelaySet>>) {
        let _ = self.known_sets.set(store);
    }

    /// As above.
    pub(crate) fn count_pools_of(&self, store: Store<DeserializeGuard<AddressPool>>) {
        let _ = self.known_pools.set(store);
    }

    pub(super) fn count(&self) {
        if let Some(store) = self.known_relays.get() {
            let relays = store.state();
            self.count_relays(relays.iter().map(|relay| relay.0.as_ref().ok()));
        }
        if let Some(store) = self.known_relays.get() {
            self.count_queue("Relay", store, |relay| relay.status.as_ref()?.observed_generation);
        }
        if let Some(store) = self.known_families.get() {
            count_by_readiness(&self.families, store, |family| {
                Some(&family.status.as_ref()?.conditions)
            });
            self.count_queue("RelayFamily", store, |family| {
                family.status.as_ref()?.observed_generation
            });
        }
        if let Some(store) = self.known_sets.get() {
            count_by_readiness(&self.sets, store, |set| Some(&set.status.as_ref()?.conditions));
            self.count_queue("RelaySet", store, |set| set.status.as_ref()?.observed_generation);
        }
        if let Some(store) = self.known_pools.get() {
            count_by_readiness(&self.pools, store, |pool| Some(&pool.status.as_ref()?.conditions));
            self.count_queue("AddressPool", store, |pool| pool.status.as_ref()?.observed_generation);
        }
    }

    fn count_queue<K>(&self, kind: &str, store: &Store<DeserializeGuard<K>>, answered: fn(&K) -> Option<i64>)
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let all = store.state();
        let readable = all.iter().filter_map(|one| one.0.as_ref().ok());
        let waiting = readable.filter(|one| waits(one.meta().generation, answered(one)));
        let waiting = i64::try_from(waiting.count()).unwrap_or(i64::MAX);
        self.queue.with_label_values(&[kind]).set(waiting);
    }

    /// `None` is a Relay that cannot be read.
    fn count_relays<'a>(&self, relays: impl Iterator<Item = Option<&'a Relay>>) {
        self.relays.reset();
        self.relay_conditions.reset();
        let mut first_end = None;
        for relay in relays {
            let status = relay.and_then(|relay| relay.status.as_ref());
            let conditions = status.map(|status| status.conditions.as_slice());
            self.relays.with_label_values(&[ready(conditions)]).inc();
            for one in conditions.into_iter().flatten() {
                let values = [one.type_.as_str(), one.status.as_str()];
                self.relay_conditions.with_label_values(&values).inc();
            }
            let end = status.and_then(|status| Some(status.signing_key_expires.as_ref()?.0.as_second()));
            first_end = [first_end, end].into_iter().flatten().min();
        }
        self.first_end.set(first_end.unwrap_or_default());
    }
}

/// A status speaks of a generation of the spec; a newer spec has not been answered yet.
fn waits(generation: Option<i64>, answered: Option<i64>) -> bool {
    generation > answered
}

fn count_by_readiness<K>(
    gauges: &IntGaugeVec,
    store: &Store<DeserializeGuard<K>>,
    conditions: fn(&K) -> Option<&Vec<Condition>>,
) where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    gauges.reset();
    for one in store.state() {
        let conditions = one.0.as_ref().ok().and_then(conditions);
        let ready = ready(conditions.map(Vec::as_slice));
        gauges.with_label_values(&[ready]).inc();
    }
}

fn ready(conditions: Option<&[Condition]>) -> &str {
    let ready = conditions.and_then(|conditions| conditions.iter().find(|one| one.type_ == condition::READY));
    ready.map_or("Unknown", |ready| ready.status.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A Relay whose Ready is as said and whose signing key ends at that hour of 2030.
    fn relay(ready: &str, hour: u32) -> Relay {
        let time = format!("2030-01-01T{hour:02}:00:00Z");
        serde_json::from_value(json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay", "metadata": {"name": "r"},
            "spec": {"role": "Middle", "nickname": "r", "contact": "c"},
            "status": {"signingKeyExpires": time, "conditions": [
                {"type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": time},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn relays_are_counted_by_readiness_and_the_first_signing_key_to_end_is_told() {
        let inventory = Inventory::new(&Registry::new()).unwrap();
        let (good, bad) = (relay("True", 9), relay("False", 5));
        inventory.count_relays([Some(&good), Some(&bad), Some(&good), None].into_iter());
        let count = |ready| inventory.relays.with_label_values(&[ready]).get();
        assert_eq!((count("True"), count("False"), count("Unknown")), (2, 1, 1));
        assert_eq!(
            inventory.relay_conditions.with_label_values(&["Ready", "False"]).get(),
            1
        );
        assert_eq!(inventory.first_end.get(), 1_893_474_000);
    }

    #[test]
    fn a_spec_that_no_status_speaks_of_waits_for_its_round() {
        assert!(waits(Some(1), None) && waits(Some(2), Some(1)));
        assert!(!waits(Some(2), Some(2)));
    }

    /// A dashboard or an alert that asks for what nobody tells would be empty for ever.
    #[test]
    fn dashboards_and_alerts_ask_for_what_is_told() {
        let registry = Registry::new();
        let inventory = Inventory::new(&registry).unwrap();
        inventory.count_relays([Some(&relay("True", 1))].into_iter());
        inventory.families.with_label_values(&["True"]).inc();
        inventory.sets.with_label_values(&["True"]).inc();
        inventory.pools.with_label_values(&["True"]).inc();
        inventory.queue.with_label_values(&["Relay"]).set(1);
        let telemetry = crate::telemetry::Telemetry::new().unwrap();
        drop(telemetry.begin_round("Relay"));
        telemetry.api_writes.with_label_values(&["Pod", "create", "ok"]).inc();
        let mut told = String::from_utf8(telemetry.text().unwrap()).unwrap();
        told += &registry
            .gather()
            .iter()
            .map(|family| format!("{}\n", family.name()))
            .collect::<String>();

        let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/relayfleet/files");
        let mut texts = vec![std::fs::read_to_string(chart.join("alerts.yaml")).unwrap()];
        for entry in std::fs::read_dir(chart.join("dashboards")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(dashboard["uid"].as_str().unwrap().starts_with("relayfleet-"));
            for panel in dashboard["panels"].as_array().unwrap() {
                assert!(panel["description"].is_string() && panel["fieldConfig"]["defaults"]["unit"].is_string());
            }
            texts.push(text);
        }
        let names = texts
            .iter()
            .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let ours: std::collections::BTreeSet<&str> =
            names.filter(|name| name.starts_with("relayfleet_operator_")).collect();
        assert!(ours.len() >= 8, "{ours:?}");
        let missing: Vec<_> = ours.iter().filter(|name| !told.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
