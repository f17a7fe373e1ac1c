//! Who keeps the keys: what the pod gets, for how long, and that nothing is ever lost or moved.

use crate::world::World;
use k8s_openapi::api::core::v1::Secret;
use operator_plan::{Seen, Step};
use relay_formats::cert::CertType;
use relay_formats::key_file::{self, Ed25519Role};
use serde_json::json;

const DAY: i64 = 86_400;

fn in_pod() -> World {
    World::with(json!({"identity": {"custody": "InPod"}}))
}

/// The 32 bytes without which nobody is this relay.
fn master_scalar(keeper: &Secret) -> Vec<u8> {
    let file = &keeper.data.as_ref().unwrap()[key_file::MASTER_SECRET].0;
    let key = key_file::decode_ed25519_secret(Ed25519Role::Master, file).unwrap();
    key.expanded()[..32].to_vec()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn nothing_that_the_pod_sees_holds_the_master_key() {
    let mut world = World::plain();
    world.settle();
    world.clock += 4 * DAY;
    world.settle();
    let keeper = world.kept.clone().unwrap();
    assert_eq!(keeper.metadata.name.as_deref(), Some("tor.demo.identity"));
    assert_eq!(keeper.metadata.namespace.as_deref(), Some("relayfleet-system"));
    let scalar = master_scalar(&keeper);
    assert!(
        world.pods_secrets.len() >= 3,
        "identity, signing key, renewed signing key"
    );
    for secret in &world.pods_secrets {
        for (name, file) in secret.data.as_ref().unwrap() {
            assert!(!holds(&file.0, &scalar), "{name} of {:?}", secret.metadata.name);
        }
        assert!(!secret.data.as_ref().unwrap().contains_key(key_file::MASTER_SECRET));
    }
    let named = serde_json::to_string(world.pod()).unwrap();
    assert!(
        !named.contains("tor.demo.identity") && !named.contains(key_file::MASTER_SECRET),
        "{named}"
    );
}

#[test]
fn a_pod_that_keeps_its_own_keys_gets_them_all_and_makes_its_signing_keys() {
    let mut world = in_pod();
    world.settle();
    assert!(matches!(
        (&world.seen.custody, &world.seen.signing),
        (Seen::Absent, Seen::Absent)
    ));
    let secret = world.pods_secrets[0].clone();
    assert_eq!(secret.metadata.finalizers.clone().unwrap(), ["relayfleet.io/identity"]);
    assert!(
        serde_json::to_string(world.pod())
            .unwrap()
            .contains(key_file::MASTER_SECRET)
    );
    let torrc = world.seen.torrc.ours().unwrap().data.as_ref().unwrap()["torrc"].clone();
    assert!(
        torrc.contains("SigningKeyLifetime 7 days\n") && !torrc.contains("OfflineMasterKey"),
        "{torrc}"
    );
    world.clock += 400 * DAY;
    assert_eq!(world.settle(), 0, "the operator has no part in it");
    assert_eq!(world.condition("SigningKeyFresh").1, "InPod");
}

#[test]
fn a_signing_key_is_renewed_at_half_its_life_by_one_write_and_no_restart() {
    let mut world = World::plain();
    world.settle();
    world.pod_listens();
    world.settle();
    let (pod, first) = (world.pod().clone(), world.pods_secrets.len());
    world.clock += 3 * DAY;
    assert_eq!(world.settle(), 0);

    world.clock += DAY;
    assert!(matches!(world.plan().steps.as_slice(), [Step::IssueSigning(_)]));
    world.settle();
    assert_eq!(world.pods_secrets.len(), first + 1);
    assert_eq!(*world.pod(), pod);
    assert_eq!(world.settle(), 0);

    let renewed = world.pods_secrets.last().unwrap().data.clone().unwrap();
    let cert = key_file::decode_signing_cert(&renewed[key_file::SIGNING_CERT].0).unwrap();
    let key = key_file::decode_ed25519_secret(Ed25519Role::Signing, &renewed[key_file::SIGNING_SECRET].0).unwrap();
    let status = world.seen.relay.status.clone().unwrap();
    let identity = status.identity.unwrap().ed25519_id.parse().unwrap();
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(world.clock.unsigned_abs());
    assert_eq!(
        cert.verify_key(CertType::IDENTITY_SIGNING, &identity, now),
        Ok(key.public())
    );
    let told = status.signing_key_expires.unwrap().0;
    assert_eq!(std::time::SystemTime::from(told), cert.expires());
    let days = cert.expires().duration_since(now).unwrap().as_secs_f64() / 86_400.0;
    assert!((6.9..7.1).contains(&days), "{days}");
}

#[test]
fn a_renewal_that_does_not_come_is_told_before_the_relay_stops() {
    let mut world = World::plain();
    world.settle();
    let fresh = |world: &World| world.condition("SigningKeyFresh");
    assert_eq!(fresh(&world).1, "Fresh");
    world.clock += 4 * DAY;
    assert_eq!(fresh(&world).1, "Fresh", "due, and no reason to wake anyone yet");
    world.clock += DAY;
    assert_eq!(
        (fresh(&world).0.as_str(), fresh(&world).1.as_str()),
        ("False", "Expiring")
    );
    world.clock += 3 * DAY;
    assert_eq!(fresh(&world).1, "Expired");
    world.settle();
    assert_eq!(fresh(&world).1, "Fresh");
}

#[test]
fn a_running_relays_key_is_renewed_also_while_its_spec_cannot_be_used() {
    let mut world = World::plain();
    world.settle();
    world.seen.relay.spec.contact = "\n".into();
    world.clock += 4 * DAY;
    assert!(matches!(world.plan().steps.as_slice(), [Step::IssueSigning(_)]));
}

#[test]
fn keys_are_never_moved_silently() {
    let mut kept_by_operator = World::plain();
    kept_by_operator.settle();
    kept_by_operator.seen.relay.spec.identity = serde_json::from_value(json!({"custody": "InPod"})).unwrap();
    let mut kept_by_pod = in_pod();
    kept_by_pod.settle();
    kept_by_pod.seen.relay.spec.identity = serde_json::from_value(json!({})).unwrap();
    for (mut world, keeper) in [(kept_by_operator, "Operator"), (kept_by_pod, "InPod")] {
        // Also for a Relay that was deleted and applied again.
        for status in [world.seen.relay.status.clone(), None] {
            world.seen.relay.status = status;
            let before = (world.kept.clone(), world.pods_secrets.clone(), world.seen.pod.clone());
            world.settle();
            let (status, reason, message) = world.condition("IdentityBound");
            assert_eq!((status.as_str(), reason.as_str()), ("False", "WrongCustody"));
            assert!(
                message.contains(&format!("Set spec.identity.custody to {keeper}")),
                "{message}"
            );
            let after = (world.kept.clone(), world.pods_secrets.clone(), world.seen.pod.clone());
            assert_eq!(after, before);
            assert_eq!(world.keys_drawn, 1);
        }
    }
}

#[test]
fn the_pods_part_of_an_identity_is_made_again_from_its_keeper() {
    let mut world = World::plain();
    world.settle();
    let (before, part) = (world.fingerprint(), world.pods_secrets[0].clone());
    world.seen.identity = Seen::Absent;
    world.seen.signing = Seen::Absent;
    world.settle();
    assert_eq!((world.fingerprint(), world.keys_drawn), (before, 1));
    let again = &world.pods_secrets[world.pods_secrets.len() - 2];
    assert_eq!(*again, part);
}

#[test]
fn a_pods_part_of_another_identity_starts_nothing() {
    let mut world = World::plain();
    world.settle();
    if let Seen::Ours(part) = &mut world.seen.identity {
        let annotations = part.metadata.annotations.as_mut().unwrap();
        annotations.insert("relayfleet.io/rsa-fingerprint".into(), "AB".repeat(20));
    }
    world.seen.pod = Seen::Absent;
    assert_eq!(world.plan().steps, []);
    assert_eq!(world.condition("IdentityBound").1, "IdentityMismatch");
}

#[test]
fn c_tor_keeps_its_own_keys_unless_it_is_asked_for_what_it_cannot_do() {
    let mut world = World::with(json!({"engine": "Tor", "image": {"reference": "tor:1"}}));
    world.settle();
    assert_eq!(world.condition("SigningKeyFresh").1, "InPod");
    let world = World::with(json!({
        "engine": "Tor", "image": {"reference": "tor:1"}, "identity": {"custody": "Operator"},
    }));
    let (_, reason, message) = world.condition("ConfigAccepted");
    assert_eq!(reason, "SpecInvalid");
    assert!(message.contains("write InPod"), "{message}");
    assert_eq!(world.plan().steps, []);
}
