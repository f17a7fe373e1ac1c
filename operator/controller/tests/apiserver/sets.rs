//! RelaySets: scaled, rolled out, and by operators that die after each of their writes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::audit;
use crate::deaths::made_and_deleted;
use crate::kubelet::Kubelet;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::await_yes;

impl Scene {
    pub(crate) fn apply_set(&self, replicas: i32, nickname: &str) {
        let template = json!({"spec": {"role": "Middle", "nickname": nickname, "contact": "ops@example.org"}});
        let set = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelaySet",
            "metadata": {"name": "oaks", "namespace": self.namespace},
            "spec": {"replicas": replicas, "template": template},
        });
        self.server.apply(&set.to_string());
    }

    pub(crate) fn scale(&self, replicas: i32) {
        self.kubectl(&["scale", "relayset", "oaks", &format!("--replicas={replicas}")]);
    }

    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        self.get(kind)
            .map(|list| list["items"].as_array().unwrap().clone())
            .unwrap_or_default()
    }

    pub(crate) fn fingerprints(&self) -> BTreeMap<String, String> {
        let relays = self.list("relays");
        let text = |relay: &Value, path: &str| {
            relay
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        relays
            .iter()
            .map(|relay| {
                (
                    text(relay, "/metadata/name"),
                    text(relay, "/status/identity/rsaFingerprint"),
                )
            })
            .collect()
    }

    /// Until the set says that so many relays are as the template asks and ready, and there are no others.
    pub(crate) fn await_set(&self, replicas: i32) {
        await_yes(&format!("{replicas} relays, ready and up to date"), || {
            let Some(set) = self.get("relayset/oaks") else {
                return false;
            };
            let status = &set["status"];
            let said =
                ["replicas", "readyReplicas", "updatedReplicas"].map(|field| status[field].as_i64().unwrap_or(0));
            let complete = status["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["reason"] == "Complete"));
            said == [i64::from(replicas); 3]
                && complete
                && status["observedGeneration"] == set["metadata"]["generation"]
                && self.list("pods").len() == usize::try_from(replicas).unwrap()
        });
    }

    pub(crate) fn images(&self) -> Vec<String> {
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        self.list("pods").iter().map(image).collect()
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn relays_that_are_scaled_away_and_back_or_deleted_and_applied_again_are_the_same_relays() {
    let scene = Scene::new("scale");
    let _kubelet = Kubelet::start(&scene);
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_set(3, "oak");
    scene.await_set(3);
    let before = scene.fingerprints();
    assert!(
        before.len() == 3 && before.values().all(|fingerprint| fingerprint.len() == 40),
        "{before:?}"
    );

    for replicas in [1, 3, 2, 3] {
        scene.scale(replicas);
        scene.await_set(replicas);
    }
    assert_eq!(scene.fingerprints(), before);
    assert!(
        scene
            .kubectl(&["describe", "relayset", "oaks"])
            .contains("RelayTakenAway")
    );
    let budget = scene.get("pdb/oaks").unwrap();
    assert_eq!(budget["spec"]["minAvailable"], 2);

    scene.kubectl(&["delete", "relayset", "oaks"]);
    await_yes("all pods to be gone", || {
        scene.list("pods").is_empty() && scene.list("relays").is_empty()
    });
    scene.apply_set(3, "oak");
    scene.await_set(3);
    assert_eq!(scene.fingerprints(), before);
    let selected = scene.kubectl(&["get", "pods", "-l", "relayfleet.io/set=oaks", "-o", "name"]);
    assert_eq!(selected.lines().count(), 3);
    operator.stop();
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_new_image_takes_one_relay_away_at_a_time_and_a_new_name_none() {
    let scene = Scene::new("rollout");
    let kubelet = Kubelet::start(&scene);
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_set(3, "oak");
    scene.await_set(3);
    let created = || audit::count(&scene.server, scene.namespace, "create", "pods");
    scene.apply_set(3, "elm");
    await_yes("the new names", || {
        scene
            .list("relays")
            .iter()
            .all(|relay| relay["spec"]["nickname"].as_str().unwrap().starts_with("elm"))
    });
    scene.await_set(3);
    assert_eq!(created(), 3, "no pod was replaced");
    operator.stop();

    // Nobody makes pods ready: the first that is replaced stays away, and nobody follows it.
    drop(kubelet);
    let operator = Operator::start_with(&scene.server, scene.namespace, "first", &["--relay-image=relay:2"]);
    let asked_to_go = || {
        scene
            .list("pods")
            .iter()
            .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
            .count()
    };
    await_yes("the first to go", || asked_to_go() == 1);
    await_yes("the set to say whom it waits for", || {
        scene
            .kubectl(&["describe", "relayset", "oaks"])
            .contains("when oaks-2 is Listening")
    });
    assert_eq!((asked_to_go(), created()), (1, 3));

    let _kubelet = Kubelet::start(&scene);
    scene.await_set(3);
    assert_eq!(scene.images(), ["relay:2"; 3]);
    assert_eq!(created(), 6);
    operator.stop();
}

/// A whole life: come up, grow, be renamed, get another image, shrink, go.
fn live(scene: &Scene, mut operate: impl FnMut(&str, &mut dyn FnMut() -> bool)) -> Vec<BTreeMap<String, String>> {
    let mut seen = Vec::new();
    let mut until = |image: &str, replicas: i32| {
        let done = || {
            let set = scene.get("relayset/oaks");
            let reason = |set: Value| {
                set["status"]["conditions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["reason"] == "Complete"))
            };
            let generation = |set: &Value| set["status"]["observedGeneration"] == set["metadata"]["generation"];
            let images = scene.images();
            images.len() == usize::try_from(replicas).unwrap()
                && images.iter().all(|found| found == image)
                && set.is_some_and(|set| generation(&set) && set["status"]["replicas"] == replicas && reason(set))
        };
        let mut done = done;
        operate(image, &mut done);
        seen.push(scene.fingerprints());
    };
    scene.apply_set(1, "oak");
    until("relay:1", 1);
    scene.scale(2);
    until("relay:1", 2);
    scene.apply_set(2, "elm");
    until("relay:1", 2);
    until("relay:2", 2);
    scene.scale(1);
    until("relay:2", 1);
    scene.kubectl(&["delete", "relayset", "oaks"]);
    operate("relay:2", &mut || {
        scene.list("pods").is_empty() && scene.list("relays").is_empty()
    });
    seen
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn operators_that_die_after_each_single_write_come_to_the_same_end_with_the_same_creations_and_deletions() {
    let calm = Scene::new("calm");
    let undisturbed = {
        let _kubelet = Kubelet::start(&calm);
        live(&calm, |image, done| {
            let image = format!("--relay-image={image}");
            let operator = Operator::start_with(&calm.server, calm.namespace, "same", &[&image]);
            await_yes("the undisturbed operator's end", &mut *done);
            operator.stop();
        })
    };
    let stormy = Scene::new("stormy");
    let _kubelet = Kubelet::start(&stormy);
    let mut deaths = 0;
    let lived = live(&stormy, |image, done| {
        let image = format!("--relay-image={image}");
        await_yes("the end in spite of all deaths", || {
            let operator = Operator::start_with(
                &stormy.server,
                stormy.namespace,
                "same",
                &[&image, "--abort-after-writes=1"],
            );
            let died = operator.runs_until(&mut *done);
            deaths += usize::from(died);
            !died
        });
    });
    eprintln!("{deaths} operators died");
    assert!(deaths > 30, "{deaths}");
    assert_eq!(made_and_deleted(&stormy), made_and_deleted(&calm));
    // Nobody's keys changed on the way, and both lives had the same relays.
    for (stage, other) in lived.iter().zip(&undisturbed) {
        assert_eq!(stage.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
        for (name, fingerprint) in stage {
            let first = lived.iter().find_map(|stage| stage.get(name)).unwrap();
            assert_eq!(fingerprint, first, "{name}");
        }
    }
}
