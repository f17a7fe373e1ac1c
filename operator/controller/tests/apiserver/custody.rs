//! The operator keeps the master key; the pod gets a signing key that is renewed beside it.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use relay_formats::key_file::{self, Ed25519Role};

use crate::audit;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{KEYS, await_yes};

const EXPIRES: &str = "relayfleet.io/signing-key-expires";

fn secret(scene: &Scene, namespace: &str, name: &str) -> Secret {
    let found = scene.server.get(namespace, &format!("secret/{name}"));
    serde_json::from_value(found.unwrap_or_else(|| panic!("{namespace}/{name}"))).unwrap()
}

fn expires(scene: &Scene) -> String {
    secret(scene, scene.namespace, "demo-signing")
        .metadata
        .annotations
        .unwrap()[EXPIRES]
        .clone()
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn no_secret_that_the_pod_could_see_holds_the_master_key() {
    let scene = Scene::new("custody");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    scene.await_pod();
    operator.stop();

    let keeper = secret(&scene, KEYS, "custody.demo.identity");
    assert_eq!(keeper.immutable, Some(true));
    assert_eq!(keeper.metadata.finalizers.unwrap(), ["relayfleet.io/identity"]);
    let master = &keeper.data.unwrap()[key_file::MASTER_SECRET].0;
    let master = key_file::decode_ed25519_secret(Ed25519Role::Master, master).unwrap();
    let scalar = master.expanded().first_chunk::<32>().unwrap();

    let all = scene.kubectl(&["get", "secrets", "-o", "json"]);
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let secrets: Vec<Secret> = serde_json::from_value(all["items"].clone()).unwrap();
    let names: Vec<_> = secrets
        .iter()
        .filter_map(|secret| secret.metadata.name.clone())
        .collect();
    assert_eq!(names, ["demo-identity", "demo-signing", "demo-status"]);
    for secret in &secrets {
        for (name, file) in secret.data.iter().flatten() {
            assert!(
                !file.0.windows(32).any(|window| window == scalar),
                "{name} in {:?}",
                secret.metadata.name
            );
        }
    }
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_signing_key_is_renewed_at_half_life_by_one_secret_and_a_restart_writes_nothing() {
    let scene = Scene::new("renewal");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay();
    let pod = scene.await_pod();
    scene.await_reason("SigningKeyFresh", "Fresh");
    scene.await_reason("Ready", "Starting");
    operator.stop();
    let (first, before) = (expires(&scene), audit::writes(&scene.server, scene.namespace).len());

    // Half of seven days is not left yet: nothing to do.
    let in_hours = |hours: i64| (Timestamp::now() + hours.hours()).to_string();
    let age = |hours| {
        let annotation = format!("{EXPIRES}={}", in_hours(hours));
        scene.kubectl(&["annotate", "--overwrite", "secret", "demo-signing", &annotation]);
    };
    let rounds = |operator: &Operator| {
        await_yes("a round", || {
            operator
                .http("/metrics")
                .contains("reconciles_total{kind=\"Relay\",result=\"ok\"}")
        });
    };
    let operator = Operator::start(&scene.server, scene.namespace);
    rounds(&operator);
    operator.stop();
    assert_eq!(audit::writes(&scene.server, scene.namespace).len(), before);

    age(83);
    let operator = Operator::start(&scene.server, scene.namespace);
    await_yes("a new signing key", || expires(&scene) >= first);
    scene.await_reason("SigningKeyFresh", "Fresh");
    rounds(&operator);
    operator.stop();
    let written = audit::writes(&scene.server, scene.namespace)[before..].to_vec();
    let of = |resource: &str| written.iter().filter(|write| write.resource == resource).count();
    assert_eq!(of("secrets"), 1, "{written:?}");
    assert_eq!(of("secrets") + of("relays/status"), written.len(), "{written:?}");
    assert_eq!(scene.uid("pod/demo"), Some(pod), "no restart");

    let written = audit::writes(&scene.server, scene.namespace);
    let operator = Operator::start(&scene.server, scene.namespace);
    rounds(&operator);
    operator.stop();
    assert_eq!(audit::writes(&scene.server, scene.namespace), written);
}
