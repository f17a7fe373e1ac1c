//! The life of a Relay as the plan sees it.

use crate::world::{NETWORK, World};
use operator_plan::{NetworkText, Seen, Step, desired};
use rand::SeedableRng as _;
use serde_json::json;

#[test]
fn an_applied_relay_comes_to_rest_with_keys_torrc_volume_service_and_pod() {
    let mut world = World::plain();
    world.settle();
    world.pod_listens();
    world.settle();

    let (ready, reason, _) = world.condition("Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("True", "Listening"));
    assert_eq!(
        world.seen.relay.status.as_ref().unwrap().address.as_deref(),
        Some("198.18.1.7")
    );
    assert_eq!(world.settle(), 0);
}

#[test]
fn an_operator_that_dies_after_any_write_goes_on_to_the_same_end() {
    let undisturbed = {
        let mut world = World::plain();
        (
            world.settle(),
            world.seen.relay.status.clone().unwrap().identity,
            world.seen.torrc.clone(),
        )
    };
    for survived in 1..undisturbed.0 {
        let mut world = World::plain();
        let mut left = survived;
        while left > 0 {
            left -= world.round(left);
        }
        world.settle(); // a new operator: it has nothing but what it sees
        assert_eq!(world.keys_drawn, 1);
        assert_eq!(world.seen.relay.status.clone().unwrap().identity, undisturbed.1);
        assert_eq!(world.seen.torrc, undisturbed.2);
    }
}

#[test]
fn a_pod_deleted_by_hand_comes_back_with_the_same_keys() {
    let mut world = World::plain();
    world.settle();
    let before = world.fingerprint();

    world.seen.pod = Seen::Absent;
    world.settle();

    assert!(matches!(world.seen.pod, Seen::Ours(_)));
    assert_eq!((world.fingerprint(), world.keys_drawn), (before, 1));
}

#[test]
fn while_the_old_pod_is_stopping_no_new_one_is_made() {
    let mut world = World::plain();
    world.settle();
    world.seen.relay.spec.or_port = 9443;
    world.settle();

    assert!(
        world.pod().metadata.deletion_timestamp.is_some(),
        "the old pod is asked to go"
    );
    assert_eq!(world.condition("Ready").1, "Stopping");
    assert_eq!(world.plan().steps, []);

    world.seen.pod = Seen::Absent; // the node says that it has stopped
    assert!(matches!(world.plan().steps.as_slice(), [Step::CreatePod(_)]));
}

#[test]
fn an_evicted_pod_is_replaced() {
    let mut world = World::plain();
    world.settle();
    world.pod_becomes(json!({"phase": "Failed", "reason": "Evicted"}));
    assert!(matches!(world.plan().steps.as_slice(), [Step::DeletePod { .. }]));
}

#[test]
fn a_lost_secret_starts_nothing_and_draws_no_keys() {
    let mut world = World::plain();
    world.settle();
    let before = world.fingerprint();
    world.seen.custody = Seen::Absent;
    world.seen.pod = Seen::Absent;
    world.settle();

    assert_eq!(world.seen.pod, Seen::Absent);
    assert_eq!((world.fingerprint(), world.keys_drawn), (before, 1));
    for type_ in ["Ready", "IdentityBound"] {
        let (status, reason, message) = world.condition(type_);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "IdentityMissing"));
        assert!(message.contains("Restore the Secret"), "{message}");
    }
}

#[test]
fn a_restored_secret_of_another_relay_starts_nothing() {
    let mut world = World::plain();
    world.settle();
    let other = desired::identity::new_identity(
        &world.seen.relay,
        &world.settings,
        &mut rand::rngs::ChaCha12Rng::seed_from_u64(99),
    )
    .unwrap();
    world.restore(&other);
    world.seen.pod = Seen::Absent;

    assert_eq!(world.plan().steps, []);
    assert_eq!(world.condition("IdentityBound").1, "IdentityMismatch");
}

#[test]
fn a_relay_applied_again_takes_its_keys_and_volume_up_again() {
    let mut world = World::plain();
    world.settle();
    let before = world.fingerprint();
    world.seen.relay.metadata.uid = Some("relay-2".into());
    world.seen.relay.status = None;
    world.settle();

    assert_eq!((world.fingerprint(), world.keys_drawn), (before, 1));
    assert!(
        world.pod().metadata.deletion_timestamp.is_some(),
        "the earlier Relay's pod goes first"
    );
}

#[test]
fn keys_whose_deletion_was_asked_run_on_and_say_so() {
    let mut world = World::plain();
    world.settle();
    world.pod_listens();
    if let Seen::Ours(secret) = &mut world.seen.custody {
        secret.metadata.deletion_timestamp = world
            .seen
            .relay
            .status
            .as_ref()
            .map(|s| s.conditions[0].last_transition_time.clone());
    }
    world.settle();
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.condition("IdentityBound").1, "DeletionAsked");
}

#[test]
fn a_name_that_somebody_else_has_is_left_to_them() {
    let mut world = World::plain();
    world.seen.service = Seen::Foreign;
    world.settle();
    assert_eq!(world.condition("Ready").1, "NameTaken");
    assert_eq!(world.seen.pod, Seen::Absent);
    assert_eq!(world.seen.service, Seen::Foreign);
}

#[test]
fn a_torrc_changed_by_hand_is_put_right() {
    let mut world = World::plain();
    world.settle();
    let good = world.seen.torrc.clone();
    if let Seen::Ours(torrc) = &mut world.seen.torrc {
        torrc.data = Some([("torrc".to_owned(), "ExitPolicy accept *:*\n".to_owned())].into());
    }
    assert_eq!(world.settle(), 1);
    assert_eq!(world.seen.torrc, good);
}

#[test]
fn a_missing_network_leaves_the_running_pod_alone() {
    let mut world = World::with(json!({"network": {"configMap": {"name": "private"}}}));
    world.seen.network = NetworkText::Text(NETWORK.into());
    world.settle();
    let pod = world.seen.pod.clone();

    world.seen.network = NetworkText::Missing;
    world.settle();
    assert_eq!(world.seen.pod, pod);
    assert_eq!(world.condition("ConfigAccepted").1, "NetworkMissing");
}

#[test]
fn a_changed_network_replaces_the_pod() {
    let mut world = World::with(json!({"network": {"configMap": {"name": "private"}}}));
    world.seen.network = NetworkText::Text(NETWORK.into());
    world.settle();
    world.seen.network = NetworkText::Text(format!("{NETWORK}AssumeReachable 1\n"));
    let steps = world.plan().steps;
    assert!(
        matches!(steps.as_slice(), [Step::ApplyTorrc(_), Step::DeletePod { .. }]),
        "{steps:?}"
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_answer_stays() {
    let mut world = World::plain();
    world.settle();
    let time = |world: &World| world.plan().status.unwrap().conditions[0].last_transition_time.clone();
    let starting = time(&world);
    world.pod_becomes(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}));
    world.settle();
    assert_eq!(
        (world.condition("Ready").1.as_str(), time(&world)),
        ("Unschedulable", starting.clone())
    );
    world.pod_listens();
    world.settle();
    assert_ne!(time(&world), starting);
}

#[test]
fn a_pod_that_cannot_run_says_why_in_the_relay() {
    let waiting = |name: &str, reason: &str| {
        json!([{"name": name, "image": "relay:1", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": reason}},
                "lastState": {"terminated": {"exitCode": 1, "message": "the volume holds the keys of another relay"}}}])
    };
    let cases = [
        (
            json!({"containerStatuses": waiting("relay", "ImagePullBackOff")}),
            "ImageUnavailable",
        ),
        (
            json!({"containerStatuses": waiting("relay", "CrashLoopBackOff")}),
            "Crashing",
        ),
        (
            json!({"initContainerStatuses": waiting("keys", "CrashLoopBackOff")}),
            "KeysNotInPlace",
        ),
    ];
    for (status, reason) in cases {
        let mut world = World::plain();
        world.settle();
        world.pod_becomes(status);
        assert_eq!(world.condition("Ready").1, reason);
    }
}

#[test]
fn a_torrc_that_our_relay_would_refuse_is_refused_before_a_pod_is_made() {
    let mut world = World::with(json!({"network": {"configMap": {"name": "private"}}}));
    world.seen.network = NetworkText::Text("TestingTorNetwork 1\n".into());
    world.settle();
    let (status, reason, message) = world.condition("ConfigAccepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "TorrcRefused"));
    assert!(message.contains("DirAuthority"), "{message}");
    assert!(matches!(world.seen.pod, Seen::Absent));
    assert_eq!(world.keys_drawn, 0);
}
