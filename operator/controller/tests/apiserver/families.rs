//! Families against a real API server.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use relay_formats::family_bundle::{FamilyBundle, family_of};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::key_file::{self, Ed25519Role};
use serde_json::{Value, json};

use crate::audit;
use crate::operator::Operator;
use crate::rounds::Scene;
use crate::server::{KEYS, await_yes, server};

pub(crate) fn family(namespace: &str, name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "RelayFamily",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
    .to_string()
}

fn bundle(scene: &Scene) -> Option<FamilyBundle> {
    let map = scene.get("configmap/oaks-family-0")?;
    Some(FamilyBundle::parse(map["data"]["bundle"].as_str()?).unwrap())
}

fn status(scene: &Scene) -> Value {
    scene.get("relayfamily/oaks").unwrap()["status"].clone()
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn a_member_gets_a_certificate_and_the_familys_key_stays_with_the_operator() {
    let scene = Scene::new("family");
    let operator = Operator::start(&scene.server, scene.namespace);
    scene.apply_relay_with(json!({"family": {"name": "oaks"}}));
    let refused = scene.await_reason("ConfigAccepted", "FamilyMissing");
    assert!(
        refused["message"].as_str().unwrap().contains("RelayFamily oaks"),
        "{refused}"
    );

    let contact = json!({"email": "tor@example.org", "url": "https://example.org"});
    scene
        .server
        .apply(&family(scene.namespace, "oaks", json!({"contact": contact})));
    scene.await_pod();
    await_yes("a certificate", || {
        bundle(&scene).is_some_and(|bundle| bundle.certs.len() == 1)
    });
    await_yes("a member", || status(&scene)["members"] == 1);
    await_yes("a family that is ready", || {
        status(&scene)["conditions"][0]["reason"] == "Issued"
    });

    let relay = scene.get("relay/demo").unwrap()["status"]["identity"].clone();
    let member: Ed25519Identity = relay["ed25519Id"].as_str().unwrap().parse().unwrap();
    let held = bundle(&scene).unwrap();
    let id = family_of(&held.certs[0].1, &member, SystemTime::now()).unwrap();
    assert_eq!(status(&scene)["familyIds"][0]["id"], id.to_string());
    assert_eq!(
        held.members.iter().map(RsaIdentity::to_string).collect::<Vec<_>>(),
        [relay["rsaFingerprint"].as_str().unwrap()]
    );
    let proof = scene.get("configmap/oaks-well-known").unwrap();
    assert_eq!(proof["data"]["ed25519-family-id.txt"], format!("{id}\n"));
    let torrc = scene.get("configmap/demo-torrc").unwrap();
    assert!(
        torrc["data"]["torrc"]
            .as_str()
            .unwrap()
            .contains("proof:uri-familyid-ed25519"),
        "{torrc}"
    );

    let kept = scene.server.get(KEYS, "secret/family.oaks.family-1").unwrap();
    let kept: Secret = serde_json::from_value(kept).unwrap();
    let key = &kept.data.unwrap()["oaks.secret_family_key"].0;
    let key = key_file::decode_ed25519_secret(Ed25519Role::Family, key).unwrap();
    assert_eq!(key.public(), id);
    let beside: Value = serde_json::from_str(&scene.kubectl(&["get", "secrets", "-o", "json"])).unwrap();
    let beside: Vec<Secret> = serde_json::from_value(beside["items"].clone()).unwrap();
    for (name, file) in beside.iter().flat_map(|secret| secret.data.iter().flatten()) {
        assert!(
            !file.0.windows(32).any(|window| window == &key.expanded()[..32]),
            "{name}"
        );
    }

    // A second key beside the first.
    scene.server.apply(&family(
        scene.namespace,
        "oaks",
        json!({"contact": contact, "rotation": {"generation": 2}}),
    ));
    await_yes("both certificates", || {
        bundle(&scene).is_some_and(|bundle| bundle.certs.len() == 2)
    });
    await_yes("both keys told", || {
        status(&scene)["familyIds"][1]["state"] == "Retiring"
    });
    // Its last word: that the certificates stand there.
    await_yes("the family to be ready again", || {
        status(&scene)["conditions"][0]["reason"] == "Issued"
    });
    let told = scene.kubectl(&["describe", "relayfamily", "oaks"]);
    for event in ["FamilyKeyCreated", "CertificatesWritten", "ProofsWritten", "Issued"] {
        assert!(told.contains(event), "{event}: {told}");
    }
    operator.stop();

    let written = audit::writes(&scene.server, scene.namespace);
    let operator = Operator::start(&scene.server, scene.namespace);
    await_yes("a round of both kinds", || {
        let metrics = operator.http("/metrics");
        ["Relay", "RelayFamily"]
            .iter()
            .all(|kind| metrics.contains(&format!("reconciles_total{{kind=\"{kind}\",result=\"ok\"}}")))
    });
    operator.stop();
    assert_eq!(audit::writes(&scene.server, scene.namespace), written);
}

/// A Relay with a recorded identity whose keys are nowhere: its own round does nothing, and the family takes it as it is.
fn recorded(namespace: &str, number: u32) -> Value {
    let mut rsa = [0xab; 20];
    rsa[..4].copy_from_slice(&number.to_be_bytes());
    let mut ed25519 = [0xcd; 32];
    ed25519[..4].copy_from_slice(&number.to_be_bytes());
    json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "Relay",
        "metadata": {"name": format!("r{number}"), "namespace": namespace},
        "spec": {"role": "Middle", "nickname": "demo", "contact": "ops@example.org", "family": {"name": "oaks"}},
        "status": {"conditions": [], "identity": {
            "rsaFingerprint": RsaIdentity(rsa).to_string(), "ed25519Id": Ed25519Identity(ed25519).to_string(),
            "secretName": format!("{namespace}.r{number}.identity"), "secretNamespace": KEYS,
        }},
    })
}

fn bring_two_hundred(scene: &Scene) {
    let relays: Vec<Value> = (0..200).map(|number| recorded(scene.namespace, number)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": relays}).to_string();
    let file = scene.server.path("members.json");
    std::fs::write(&file, list).unwrap();
    let file = file.display().to_string();
    scene.kubectl(&["create", "-f", &file]);
    scene.kubectl(&["replace", "--subresource=status", "-f", &file]);
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn adding_one_relay_to_a_family_of_200_takes_at_most_four_writes() {
    let scene = Scene::new("large");
    scene.server.apply(&family(scene.namespace, "oaks", json!({})));
    bring_two_hundred(&scene);
    let operator = Operator::start(&scene.server, scene.namespace);
    await_yes("200 certificates", || {
        bundle(&scene).is_some_and(|bundle| bundle.certs.len() == 200)
    });
    await_yes("200 members", || status(&scene)["conditions"][0]["reason"] == "Issued");
    await_yes("every Relay's word", || {
        audit::count(&scene.server, scene.namespace, "patch", "relays/status") >= 200
    });
    let before = bundle(&scene).unwrap();
    // What a relay itself needs (names that begin with its own) is written in a family or out of one.
    let of_family = || -> Vec<_> {
        let writes = audit::writes(&scene.server, scene.namespace);
        writes
            .into_iter()
            .filter(|write| !write.name.starts_with("demo") && !write.name.is_empty())
            .collect()
    };
    let written = of_family().len();

    scene.apply_relay_with(json!({"family": {"name": "oaks"}}));
    scene.await_pod();
    await_yes("its certificate", || {
        bundle(&scene).is_some_and(|bundle| bundle.certs.len() == 201)
    });
    await_yes("its place in the status", || status(&scene)["members"] == 201);
    await_yes("rest", || status(&scene)["conditions"][0]["reason"] == "Issued");
    operator.stop();
    let more = of_family()[written..].to_vec();
    assert!((1..=4).contains(&more.len()), "{more:?}");
    let after = bundle(&scene).unwrap();
    assert!(
        before.certs.iter().all(|cert| after.certs.contains(cert)),
        "nobody else publishes anew for it"
    );
}

#[test]
#[ignore = "needs RELAYFLEET_BIN: run e2e/test apiserver"]
fn bad_families_are_refused_with_field_and_remedy() {
    let server = server();
    let member = |fields: Value| json!({"externalMembers": [fields]});
    let contact = |fields: Value| json!({"contact": fields});
    let cases = [
        (
            json!({"rotation": {"overlap": "1d"}}),
            "spec.rotation.overlap",
            "use 2d to 90d",
        ),
        (
            json!({"rotation": {"generation": 0}}),
            "spec.rotation.generation",
            "greater than or equal to 1",
        ),
        (
            member(json!({"rsaFingerprint": "$AB"})),
            "rsaFingerprint",
            "40 hexadecimal digits",
        ),
        (
            member(json!({"rsaFingerprint": "AB".repeat(20), "ed25519Id": "x"})),
            "ed25519Id",
            "43 characters",
        ),
        (
            contact(json!({"email": "tor at example.org"})),
            "spec.contact.email",
            "write an e-mail address",
        ),
        (contact(json!({})), "spec.contact.email", "Required value"),
        (
            contact(json!({"email": "a@b.c", "url": "http://b.c"})),
            "spec.contact.url",
            "https address",
        ),
        (
            contact(json!({"email": "a@b.c", "pgp": "1234"})),
            "spec.contact.pgp",
            "40 hexadecimal digits",
        ),
        (
            contact(json!({"email": "a@b.c", "hoster": "two words"})),
            "spec.contact.hoster",
            "without blanks",
        ),
        (json!({"mode": "Shared"}), "spec.mode", "unknown field"),
    ];
    for (spec, field, remedy) in cases {
        let refused = server
            .try_apply(&family("default", "bad", spec.clone()))
            .expect_err(&spec.to_string());
        assert!(refused.contains(field) && refused.contains(remedy), "{spec}: {refused}");
    }
    server.apply(&family("default", "good", json!({"rotation": {"generation": 2}})));
    for generation in [1, 4] {
        let refused = server.try_apply(&family(
            "default",
            "good",
            json!({"rotation": {"generation": generation}}),
        ));
        assert!(refused.unwrap_err().contains("raise it by one"));
    }
    server.apply(&family("default", "good", json!({"rotation": {"generation": 3}})));
}
