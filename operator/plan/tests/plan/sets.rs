//! A RelaySet's rounds, in a namespace in memory.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use operator_api::{Relay, RelaySet};
use operator_plan::{SetObserved, SetPlan, SetStep, decide_set};
use serde_json::{Value, json};

struct Namespace {
    seen: SetObserved,
    made: usize,
}

impl Namespace {
    fn with(update: Value, replicas: i32) -> Self {
        let set = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelaySet",
            "metadata": {"name": "oaks", "namespace": "tor", "uid": "set-1", "generation": 1},
            "spec": {"replicas": replicas, "update": update, "template": {"spec":
                {"role": "Middle", "nickname": "oak", "contact": "ops@example.org"}}},
        });
        let set: RelaySet = serde_json::from_value(set).unwrap();
        let (relays, budget) = (Vec::new(), None);
        Self {
            seen: SetObserved { set, relays, budget },
            made: 0,
        }
    }

    fn settled(update: Value, replicas: i32) -> Self {
        let mut namespace = Self::with(update, replicas);
        namespace.settle();
        for ordinal in 0..replicas {
            namespace.comes_up(ordinal);
        }
        namespace.settle();
        namespace
    }

    fn plan(&self) -> SetPlan {
        decide_set(&self.seen, &Time(Timestamp::from_second(1_800_000_000).unwrap())).unwrap()
    }

    fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..50 {
            let plan = self.plan();
            let idle = plan.steps.is_empty() && self.seen.set.status.as_ref() == Some(&plan.status);
            if idle {
                return writes;
            }
            self.seen.set.status = Some(plan.status);
            writes += plan.steps.len();
            plan.steps.into_iter().for_each(|step| self.apply(step));
        }
        panic!("never settles: {:?}", self.plan());
    }

    fn apply(&mut self, step: SetStep) {
        match step {
            SetStep::ApplyRelay(relay) => {
                let name = relay.name_any();
                match self.seen.relays.iter_mut().find(|found| found.name_any() == name) {
                    Some(found) => {
                        found.spec = relay.spec;
                        let hash = relay.metadata.annotations.unwrap();
                        found.metadata.annotations.get_or_insert_default().extend(hash);
                    }
                    None => {
                        self.made += 1;
                        let mut relay = *relay;
                        relay.metadata.uid = Some(format!("relay-{}", self.made));
                        relay.metadata.generation = Some(1);
                        self.seen.relays.push(relay);
                    }
                }
            }
            SetStep::DeleteRelay { name, uid } => {
                assert_eq!(self.relay(&name).uid(), Some(uid));
                self.seen.relays.retain(|found| found.name_any() != name);
            }
            SetStep::GrantTurn { name, uid, pod_uid } => {
                assert_eq!(self.relay(&name).uid(), Some(uid));
                let annotations = self.relay(&name).metadata.annotations.get_or_insert_default();
                annotations.insert("relayfleet.io/turn".into(), pod_uid);
            }
            SetStep::ApplyBudget(budget) => self.seen.budget = Some(*budget),
        }
    }

    fn relay(&mut self, name: &str) -> &mut Relay {
        self.seen
            .relays
            .iter_mut()
            .find(|found| found.name_any() == name)
            .unwrap()
    }

    fn status(&mut self, ordinal: i32, pod: &str, ready: &str, updated: (&str, &str), directory: Value) {
        let condition = |type_: &str, (status, reason): (&str, &str)| json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut directory = directory;
        if let Some(fields) = directory.as_object_mut() {
            fields.insert("podUid".into(), json!(pod));
        }
        let status = json!({
            "observedGeneration": 1, "podUid": pod, "directory": directory,
            "conditions": [condition("Ready", (ready, "Reason")), condition("Updated", updated)],
        });
        self.relay(&format!("oaks-{ordinal}")).status = Some(serde_json::from_value(status).unwrap());
    }

    fn comes_up(&mut self, ordinal: i32) {
        self.status(
            ordinal,
            &format!("new-{ordinal}"),
            "True",
            ("True", "UpToDate"),
            json!({"published": true}),
        );
    }

    /// As the Relay's own rounds would say after the operator's image has changed.
    fn waits(&mut self, ordinal: i32, weight: i64) {
        let directory = json!({
            "published": true, "inConsensus": true, "listedSinceStart": true, "consensusWeight": weight,
        });
        self.status(
            ordinal,
            &format!("old-{ordinal}"),
            "True",
            ("False", "WaitingForTurn"),
            directory,
        );
    }

    fn turns(&self) -> Vec<String> {
        let steps = self.plan().steps.into_iter();
        let name = |step| match step {
            SetStep::GrantTurn { name, .. } => Some(name),
            _ => None,
        };
        steps.filter_map(name).collect()
    }

    fn progressing(&self) -> (String, String) {
        let found = self
            .plan()
            .status
            .conditions
            .into_iter()
            .find(|one| one.type_ == "Progressing");
        found.map(|one| (one.reason, one.message)).unwrap()
    }
}

#[test]
fn each_number_gets_its_relay_with_its_own_name_and_the_set_comes_to_rest() {
    let mut namespace = Namespace::settled(json!({}), 3);
    let names: Vec<_> = namespace
        .seen
        .relays
        .iter()
        .map(|relay| (relay.name_any(), relay.spec.nickname.clone()))
        .collect();
    let expected = ["0", "1", "2"].map(|number| (format!("oaks-{number}"), format!("oak{number}")));
    assert_eq!(names, expected);
    let status = namespace.plan().status;
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas),
        (3, 3, 3)
    );
    assert_eq!(status.selector.as_deref(), Some("relayfleet.io/set=oaks"));
    assert_eq!(namespace.progressing().0, "Complete");
    assert_eq!(namespace.settle(), 0);
}

#[test]
fn fewer_takes_the_highest_numbers_away_and_more_asks_for_the_same_names_again() {
    let mut namespace = Namespace::settled(json!({}), 4);
    namespace.seen.set.spec.replicas = 2;
    namespace.settle();
    let names = |namespace: &Namespace| {
        namespace
            .seen
            .relays
            .iter()
            .map(|relay| relay.name_any())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&namespace), ["oaks-0", "oaks-1"]);
    let budget = namespace.seen.budget.clone().unwrap().spec.unwrap();
    assert_eq!(serde_json::to_value(budget.min_available).unwrap(), 1);
    namespace.seen.set.spec.replicas = 4;
    namespace.settle();
    assert_eq!(names(&namespace), ["oaks-0", "oaks-1", "oaks-2", "oaks-3"]);
}

#[test]
fn a_field_taken_out_of_the_template_is_no_difference_that_goes_unseen() {
    let mut namespace = Namespace::settled(json!({}), 1);
    namespace.seen.set.spec.template.spec.bandwidth = Some(serde_json::from_value(json!({"rate": "1MB/s"})).unwrap());
    assert_eq!(namespace.settle(), 1);
    namespace.seen.set.spec.template.spec.bandwidth = None;
    assert_eq!(namespace.settle(), 1);
}

#[test]
fn what_is_set_on_one_relay_alone_stays() {
    let mut namespace = Namespace::settled(json!({}), 2);
    namespace.relay("oaks-1").spec.paused = Some(true);
    assert_eq!(namespace.settle(), 0);
}

#[test]
fn turns_come_one_by_one_each_when_the_last_is_back() {
    let mut namespace = Namespace::settled(json!({"maxWeightDown": 100}), 3);
    (0..3).for_each(|ordinal| namespace.waits(ordinal, 0));
    for ordinal in (0..3).rev() {
        assert_eq!(namespace.turns(), [format!("oaks-{ordinal}")]);
        namespace.settle();
        assert_eq!(namespace.turns(), Vec::<String>::new(), "while it is on its way");
        namespace.status(ordinal, "", "False", ("False", "NoPod"), json!(null));
        assert_eq!(namespace.turns(), Vec::<String>::new(), "while it is away");
        let (reason, message) = namespace.progressing();
        assert_eq!(reason, "RollingOut");
        assert!(
            message.contains(&format!("when oaks-{ordinal} is Listening")),
            "{message}"
        );
        namespace.comes_up(ordinal);
    }
    namespace.settle();
    assert_eq!(namespace.progressing().0, "Complete");
}

#[test]
fn the_gate_may_ask_for_the_consensus() {
    let mut namespace = Namespace::settled(json!({"gate": "InConsensus"}), 2);
    namespace.waits(0, 10);
    namespace.comes_up(1); // published, not listed yet
    assert_eq!(namespace.turns(), Vec::<String>::new());
    namespace.status(
        1,
        "new-1",
        "True",
        ("True", "UpToDate"),
        json!({"inConsensus": true, "listedSinceStart": true}),
    );
    assert_eq!(namespace.turns(), ["oaks-0"]);
}

#[test]
fn relays_that_wait_for_the_consensus_are_not_all_replaced_at_once_for_being_away() {
    let mut namespace = Namespace::settled(json!({"gate": "InConsensus"}), 3);
    for ordinal in 0..3 {
        let pod = format!("old-{ordinal}");
        namespace.status(
            ordinal,
            &pod,
            "True",
            ("False", "WaitingForTurn"),
            json!({"published": true}),
        );
    }
    assert_eq!(namespace.turns(), Vec::<String>::new());
}

#[test]
fn several_may_go_as_long_as_little_weight_goes_with_them() {
    let mut namespace = Namespace::settled(json!({"maxUnavailable": 5, "maxWeightDown": 20}), 5);
    for (ordinal, weight) in [(0, 700), (1, 100), (2, 100), (3, 90), (4, 10)] {
        namespace.waits(ordinal, weight);
    }
    assert_eq!(
        namespace.turns(),
        ["oaks-4", "oaks-3", "oaks-2"],
        "100 + 90 + 10 of 1000"
    );
    namespace.settle();
    for ordinal in 1..5 {
        namespace.status(
            ordinal,
            &format!("new-{ordinal}"),
            "True",
            ("True", "UpToDate"),
            json!({"published": true, "consensusWeight": 75}),
        );
    }
    assert_eq!(namespace.turns(), ["oaks-0"], "one may always be away");
}

#[test]
fn a_relay_that_is_down_already_may_be_mended_but_takes_nobody_with_it() {
    let mut namespace = Namespace::settled(json!({}), 2);
    namespace.waits(0, 10);
    namespace.status(1, "old-1", "False", ("False", "WaitingForTurn"), json!(null));
    assert_eq!(namespace.turns(), ["oaks-1"]);
}

#[test]
fn a_name_that_another_relay_has_is_left_to_it() {
    let mut namespace = Namespace::with(json!({}), 2);
    let stranger = Relay::new("oaks-1", namespace.seen.set.spec.template.spec.clone());
    namespace.seen.relays.push(stranger.clone());
    namespace.settle();
    assert_eq!(*namespace.relay("oaks-1"), stranger);
    let ready = namespace.plan().status.conditions[0].clone();
    assert_eq!(ready.reason, "NameTaken");
    assert!(ready.message.contains("oaks-1"), "{}", ready.message);
}

#[test]
fn a_paused_set_only_looks() {
    let mut namespace = Namespace::settled(json!({}), 2);
    namespace.seen.set.spec.paused = Some(true);
    namespace.seen.set.spec.replicas = 5;
    assert_eq!(namespace.plan().steps, []);
    assert_eq!(namespace.progressing().0, "Paused");
}
