//! Operators that die after their k-th write, for every k and in every phase of a fleet's life: the end is the same.
//!
//! A *life* leads a namespace through phases, each begun by a change that a person would make. In life k each phase's first
//! operator ends after k writes, as a machine does that loses its power, and the next one goes on; so the lives 1 to K
//! together have had a death after every write of every phase. What the fleet is after each phase, and how often something
//! was made or deleted, must be what it is in a life without deaths; keys must never change.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use crate::audit;
use crate::families::family;
use crate::kubelet::Kubelet;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{KEYS, await_yes};

const EXPIRES: &str = "relayfleet.io/signing-key-expires";

/// One change, and how it is seen that all has been done.
struct Phase {
    name: &'static str,
    image: &'static str,
    change: fn(&Scene),
    done: fn(&Scene) -> bool,
    /// Whether operators die in it.
    mortal: bool,
}

const CREATE: Phase = Phase {
    mortal: true,
    name: "create",
    image: "relay:1",
    change: |scene| {
        scene.server.apply(&family(scene.namespace, "oaks", json!({})));
        scene.apply_oaks(2, "oak", Some("oaks"));
    },
    done: |scene| scene.set_is(2, "relay:1") && scene.certificates(1) == 2,
};
const ROTATE_SIGNING: Phase = Phase {
    name: "rotate signing keys",
    image: "relay:1",
    change: Scene::age_signing_keys,
    done: |scene| scene.set_is(2, "relay:1") && scene.signing_keys_are_fresh(),
    mortal: true,
};
const ROTATE_FAMILY: Phase = Phase {
    name: "rotate the family's key",
    image: "relay:1",
    change: |scene| {
        let generation = json!({"rotation": {"generation": 2}});
        scene.server.apply(&family(scene.namespace, "oaks", generation));
    },
    done: |scene| scene.certificates(2) == 4,
    mortal: true,
};

/// A set of one relay and no family, for the phases that follow: their few writes are all told.
const BEGIN: Phase = Phase {
    name: "begin",
    image: "relay:1",
    change: |scene| scene.apply_oaks(1, "oak", None),
    done: |scene| scene.set_is(1, "relay:1"),
    mortal: false,
};
const SCALE_UP: Phase = Phase {
    name: "scale from 1 to 2",
    image: "relay:1",
    change: |scene| scene.scale(2),
    done: |scene| scene.set_is(2, "relay:1"),
    mortal: true,
};
const SCALE_DOWN: Phase = Phase {
    name: "scale from 2 to 1",
    image: "relay:1",
    change: |scene| scene.scale(1),
    done: |scene| scene.set_is(1, "relay:1"),
    mortal: true,
};
const RENAME: Phase = Phase {
    name: "rename",
    image: "relay:1",
    change: |scene| scene.apply_oaks(1, "elm", None),
    done: |scene| scene.set_is(1, "relay:1"),
    mortal: true,
};
const ROLLOUT: Phase = Phase {
    name: "rollout",
    image: "relay:2",
    change: |_| {},
    done: |scene| scene.set_is(1, "relay:2"),
    mortal: true,
};
const DELETE: Phase = Phase {
    name: "delete",
    image: "relay:2",
    change: |scene| _ = scene.kubectl(&["delete", "relayset", "oaks"]),
    done: |scene| scene.list("pods").is_empty() && scene.list("relays").is_empty(),
    mortal: true,
};

impl Scene {
    fn apply_oaks(&self, replicas: i32, nickname: &str, family: Option<&str>) {
        let mut spec = json!({"role": "Middle", "nickname": nickname, "contact": "ops@example.org"});
        if let Some(family) = family {
            spec["family"] = json!({"name": family});
        }
        let set = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelaySet",
            "metadata": {"name": "oaks", "namespace": self.namespace},
            "spec": {"replicas": replicas, "template": {"spec": spec}},
        });
        self.server.apply(&set.to_string());
    }

    fn set_is(&self, replicas: usize, image: &str) -> bool {
        let Some(set) = self.get("relayset/oaks") else {
            return false;
        };
        let status = &set["status"];
        let counts = ["replicas", "readyReplicas", "updatedReplicas"].map(|field| status[field].as_u64().unwrap_or(0));
        let conditions = status["conditions"].as_array();
        let complete = conditions.is_some_and(|all| all.iter().any(|one| one["reason"] == "Complete"));
        let images = self.images();
        complete
            && counts == [replicas as u64; 3]
            && status["observedGeneration"] == set["metadata"]["generation"]
            && images.len() == replicas
            && images.iter().all(|found| found == image)
            && self.list("relays").iter().all(is_settled)
    }

    /// Certificates in the family's ConfigMap; none while the family is not ready with so many keys.
    fn certificates(&self, keys: usize) -> usize {
        let Some(status) = self.get("relayfamily/oaks").map(|family| family["status"].clone()) else {
            return usize::MAX;
        };
        let ready = status["conditions"][0]["reason"] == "Issued"
            && status["familyIds"].as_array().is_some_and(|ids| ids.len() == keys);
        let relays = self.list("relays").len();
        let map = self.get("configmap/oaks-family-0");
        let text = map
            .and_then(|map| Some(map["data"]["bundle"].as_str()?.to_owned()))
            .unwrap_or_default();
        let bundle = relay_formats::family_bundle::FamilyBundle::parse(&text).unwrap_or_default();
        if ready && status["members"] == relays {
            bundle.certs.len()
        } else {
            usize::MAX
        }
    }

    fn signing_secrets(&self) -> Vec<Value> {
        let all = self.list("secrets").into_iter();
        all.filter(|secret| !secret["metadata"]["annotations"][EXPIRES].is_null())
            .collect()
    }

    /// As if half of their time were over.
    fn age_signing_keys(&self) {
        let soon = format!("{EXPIRES}={}", Timestamp::now() + 83.hours());
        for secret in self.signing_secrets() {
            let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
            self.kubectl(&["annotate", "--overwrite", "secret", &name, &soon]);
        }
    }

    fn signing_keys_are_fresh(&self) -> bool {
        let fresh = Timestamp::now() + 150.hours();
        let ends = |secret: &Value| -> Timestamp {
            secret["metadata"]["annotations"][EXPIRES]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        let told = |relay: &Value| -> Option<Timestamp> { relay["status"]["signingKeyExpires"].as_str()?.parse().ok() };
        self.signing_secrets().iter().all(|secret| ends(secret) > fresh)
            && self
                .list("relays")
                .iter()
                .all(|relay| told(relay).is_some_and(|ends| ends > fresh))
    }

    /// All that is there of the fleet, without what differs from life to life: keys, uids, times, addresses.
    pub(crate) fn state(&self) -> BTreeMap<String, String> {
        let kinds = [
            "relaysets",
            "relays",
            "relayfamilies",
            "pods",
            "secrets",
            "configmaps",
            "services",
            "pvc",
            "pdb",
        ];
        let own = kinds
            .iter()
            .flat_map(|kind| self.list(kind).into_iter().map(move |object| (*kind, object)));
        let kept: Value = serde_json::from_str(&self.server.kubectl(&[
            "-n",
            KEYS,
            "get",
            "secrets",
            "-l",
            &format!("relayfleet.io/namespace={}", self.namespace),
            "-o",
            "json",
        ]))
        .unwrap();
        let kept = kept["items"]
            .as_array()
            .unwrap()
            .clone()
            .into_iter()
            .map(|secret| ("kept", secret));
        own.chain(kept)
            .map(|(kind, object)| {
                let name = object["metadata"]["name"].as_str().unwrap();
                (
                    format!("{kind}/{name}").replace(self.namespace, "NAMESPACE"),
                    essence(kind, &object).replace(self.namespace, "NAMESPACE"),
                )
            })
            .filter(|(name, _)| name != "configmaps/kube-root-ca.crt")
            .collect()
    }

    /// Whose keys are where: must never change.
    pub(crate) fn keys(&self) -> BTreeMap<String, String> {
        let secrets = self.server.kubectl(&[
            "-n",
            KEYS,
            "get",
            "secrets",
            "-l",
            &format!("relayfleet.io/namespace={}", self.namespace),
            "-o",
            "json",
        ]);
        let secrets: Value = serde_json::from_str(&secrets).unwrap();
        let secrets = secrets["items"].as_array().unwrap();
        secrets
            .iter()
            .map(|secret| (secret["metadata"]["name"].to_string(), secret["data"].to_string()))
            .collect()
    }
}

/// The round that saw the last change has written what it had to say.
pub(crate) fn is_settled(relay: &Value) -> bool {
    let conditions = relay["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["reason"] == "Listening")
    });
    ready && relay["status"]["observedGeneration"] == relay["metadata"]["generation"]
}

fn essence(kind: &str, object: &Value) -> String {
    let meta = &object["metadata"];
    let owners: Vec<_> = meta["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|owner| &owner["name"])
        .collect();
    let files: Vec<_> = object["data"]
        .as_object()
        .into_iter()
        .flat_map(|data| data.keys())
        .collect();
    let conditions: Vec<_> = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| json!([one["type"], one["status"], one["reason"]]))
        .collect();
    let spec = match kind {
        "relays" | "relaysets" | "relayfamilies" | "pdb" => object["spec"].clone(),
        "pods" => object["spec"]["containers"][0]["image"].clone(),
        "configmaps" => object["data"]["torrc"].clone(),
        _ => Value::Null,
    };
    // A list of fingerprints is as long as the other life's.
    let spec = match spec.as_str() {
        Some(text) if text.contains("MyFamily $") => json!(text.lines().count()),
        _ => spec,
    };
    json!([meta["labels"], meta["finalizers"], owners, files, conditions, spec]).to_string()
}

/// What was made and what was deleted in a namespace, by kind.
pub(crate) fn made_and_deleted(scene: &Scene) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in audit::writes(&scene.server, scene.namespace) {
        let verb = match (write.verb.as_str(), write.code) {
            ("create", _) | ("patch", 201) => "made",
            ("delete", _) => "deleted",
            _ => continue,
        };
        *counts.entry(format!("{verb} {}", write.resource)).or_insert(0) += 1;
    }
    counts
}

/// What was asked for and not answered with a yes or a no, for the one who asked had died: perhaps it was done.
pub(crate) fn cut_off(scene: &Scene) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in audit::requests(&scene.server, scene.namespace) {
        let verb = match request.verb.as_str() {
            "create" | "patch" => "made",
            "delete" => "deleted",
            _ => continue,
        };
        if request.code == 0 || request.code >= 499 {
            *counts.entry(format!("{verb} {}", request.resource)).or_insert(0) += 1;
        }
    }
    counts
}

/// Both lives made and deleted as much. The API server's log calls a write a failure whose asker died while it was done;
/// `cut` counts those.
pub(crate) fn assert_as_much(
    made: &BTreeMap<String, usize>,
    cut: &BTreeMap<String, usize>,
    calm: &BTreeMap<String, usize>,
    told: &str,
) {
    let count = |counts: &BTreeMap<String, usize>, what: &String| counts.get(what).copied().unwrap_or_default();
    for what in made.keys().chain(calm.keys()) {
        let (least, most) = (count(made, what), count(made, what) + count(cut, what));
        let right = count(calm, what);
        assert!(
            (least..=most).contains(&right),
            "{told}: {what} {least} times ({most} with what was cut off), not {right}"
        );
    }
}

/// What one life came to.
struct Life {
    /// After each phase.
    states: Vec<BTreeMap<String, String>>,
    /// Of the undisturbed life: writes of each phase. Of the others: whether somebody died in the phase.
    counted: Vec<usize>,
    made: BTreeMap<String, usize>,
    cut: BTreeMap<String, usize>,
}

/// `dies_after`: the first operator of each phase.
fn live(scene: &Scene, phases: &[Phase], dies_after: Option<usize>) -> Life {
    let _kubelet = Kubelet::start(scene);
    let (mut states, mut counted) = (Vec::new(), Vec::new());
    let mut keys = BTreeMap::new();
    for phase in phases {
        (phase.change)(scene);
        let before = audit::writes(&scene.server, scene.namespace).len();
        let image = format!("--relay-image={}", phase.image);
        let mut died = 0;
        if let Some(writes) = dies_after.filter(|_| phase.mortal) {
            let mortal = format!("--abort-after-writes={writes}");
            let operator = Operator::start_with(&scene.server, scene.namespace, "same", &[&image, &mortal]);
            died = usize::from(operator.runs_until(|| (phase.done)(scene)));
        }
        let operator = Operator::start_with(&scene.server, scene.namespace, "same", &[&image]);
        await_yes(phase.name, || (phase.done)(scene));
        operator.stop();
        let after = audit::writes(&scene.server, scene.namespace).len();
        counted.push(if dies_after.is_some() { died } else { after - before });
        states.push(scene.state());
        let now = scene.keys();
        assert!(
            keys.iter().all(|(name, key)| now.get(name) == Some(key)),
            "a key has changed: {}",
            phase.name
        );
        keys = now;
    }
    Life {
        states,
        counted,
        made: made_and_deleted(scene),
        cut: cut_off(scene),
    }
}

/// Each of the first writes, which is all of a renewal or a rollout, then one of six: what a usual run has time for. All of
/// them with `RELAYFLEET_EVERY_DEATH`.
pub(crate) fn is_told(life: usize) -> bool {
    life <= 6 || life.is_multiple_of(6) || all_are_told()
}

/// Some minutes more than a usual run has time for.
pub(crate) fn all_are_told() -> bool {
    std::env::var_os("RELAYFLEET_EVERY_DEATH").is_some()
}

/// All lives of these phases; several at once, for most of the time they wait.
fn every_death(prefix: &str, phases: &[Phase]) {
    const AT_ONCE: usize = 3;
    let name = |life: usize| -> &'static str { Box::leak(format!("{prefix}-{life}").into_boxed_str()) };
    let calm = Scene::new(name(0));
    let undisturbed = live(&calm, phases, None);
    // A few more than it has writes: another order may need some more.
    let counted = undisturbed.counted.iter().zip(phases);
    let counted = counted.filter(|(_, phase)| phase.mortal).map(|(writes, _)| *writes);
    let last = counted.max().unwrap_or_default() + 2;
    let chosen: Vec<usize> = (1..=last).filter(|life| is_told(*life)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lives = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let Some(&life) = chosen.get(at) else { return };
                    let scene = Scene::on(std::sync::Arc::clone(&calm.server), name(life));
                    let lived = live(&scene, phases, Some(life));
                    for ((state, calm), phase) in lived.states.iter().zip(&undisturbed.states).zip(phases) {
                        assert_eq!(state, calm, "a death after write {life}: {}", phase.name);
                    }
                    let told = format!("a death after write {life}");
                    assert_as_much(&lived.made, &lived.cut, &undisturbed.made, &told);
                    lives.lock().unwrap().push(lived.counted);
                }
            });
        }
    });
    let lives = lives.into_inner().unwrap();
    assert_eq!(lives.len(), chosen.len());
    for (at, phase) in phases.iter().enumerate().filter(|(_, phase)| phase.mortal) {
        let deaths: usize = lives.iter().map(|life| life[at]).sum();
        let writes = undisturbed.counted[at];
        eprintln!(
            "{}: {writes} writes undisturbed; {deaths} killed, after each k of {chosen:?} that it came to; end state, CREATEs and \
             DELETEs equal every time",
            phase.name
        );
        let certain = chosen.iter().filter(|life| *life + 3 <= writes).count();
        assert!(deaths >= certain, "{}: only {deaths} deaths", phase.name);
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_death_after_any_write_of_making_a_fleet_or_renewing_its_keys_changes_nothing_in_the_end() {
    every_death("mortal", &[CREATE, ROTATE_SIGNING, ROTATE_FAMILY]);
}

#[test]
#[ignore = "needs RELAYFLEET_BIN and RELAYFLEET_EVERY_DEATH"]
fn a_death_after_any_write_of_scaling_renaming_rollout_or_deletion_changes_nothing_in_the_end() {
    if !all_are_told() {
        return;
    }
    every_death("small", &[BEGIN, SCALE_UP, SCALE_DOWN, RENAME, ROLLOUT, DELETE]);
}
