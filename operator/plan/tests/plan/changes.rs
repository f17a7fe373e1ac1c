//! What a change of the spec, or a word of the owner, does to a relay that runs.

use crate::world::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use operator_plan::{Seen, Step};
use serde_json::json;

fn names(steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| {
        let said = format!("{step:?}");
        said.split(['(', ' ']).next().unwrap_or_default().to_owned()
    };
    steps.iter().map(name).collect()
}

fn running(fields: serde_json::Value) -> World {
    let mut world = World::with(fields);
    world.settle();
    world.pod_listens();
    world.settle();
    world
}

#[test]
fn a_new_name_rate_or_contact_reaches_the_running_pod() {
    let mut world = running(json!({"bandwidth": {"rate": "1MB/s"}}));
    let pod = world.pod().metadata.uid.clone();
    let changes: [fn(&mut World); 3] = [
        |world| world.seen.relay.spec.nickname = "renamed".into(),
        |world| world.seen.relay.spec.contact = "other@example.org".into(),
        |world| world.seen.relay.spec.bandwidth = None,
    ];
    for change in changes {
        change(&mut world);
        assert_eq!(names(&world.plan().steps), ["ApplyTorrc", "TouchPod"]);
        world.settle();
        assert_eq!(world.condition("Ready").0, "True");
    }
    assert_eq!(world.pod().metadata.uid, pod);
}

#[test]
fn a_new_image_port_or_shape_asks_for_another_pod() {
    let changes: [fn(&mut World); 4] = [
        |world| world.settings.relay_image = "relay:2".into(),
        |world| world.seen.relay.spec.or_port = 9443,
        |world| world.seen.relay.spec.pod = serde_json::from_value(json!({"nodeSelector": {"a": "b"}})).unwrap(),
        |world| world.seen.relay.spec.pod = serde_json::from_value(json!({"labels": {"a": "b"}})).unwrap(),
    ];
    for change in changes {
        let mut world = running(json!({}));
        change(&mut world);
        assert!(names(&world.plan().steps).contains(&"DeletePod".to_owned()));
    }
}

#[test]
fn c_tor_does_not_watch_its_torrc_so_a_new_name_asks_for_another_pod() {
    let mut world = World::with(json!({"engine": "Tor", "image": {"reference": "tor:1"}}));
    world.settle();
    let args = world.pod().spec.clone().unwrap().containers[0].args.clone().unwrap();
    assert!(!args.contains(&"--watch-torrc".to_owned()), "{args:?}");
    world.seen.relay.spec.nickname = "renamed".into();
    assert_eq!(names(&world.plan().steps), ["ApplyTorrc", "DeletePod"]);
}

#[test]
fn a_relay_of_a_set_waits_for_its_turn_and_is_still_ready() {
    let mut world = running(json!({}));
    world.seen.relay.metadata.owner_references = Some(vec![OwnerReference {
        kind: "RelaySet".into(),
        controller: Some(true),
        ..Default::default()
    }]);
    world.settings.relay_image = "relay:2".into();
    world.settle();
    assert_eq!(world.condition("Updated").1, "WaitingForTurn");
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(world.plan().steps, []);

    let uid = world.pod().metadata.uid.clone().unwrap();
    let turn = |uid: &str| Some([("relayfleet.io/turn".to_owned(), uid.to_owned())].into());
    world.seen.relay.metadata.annotations = turn("an earlier pod");
    assert_eq!(world.plan().steps, []);
    world.seen.relay.metadata.annotations = turn(&uid);
    assert_eq!(names(&world.plan().steps), ["DeletePod"]);
}

#[test]
fn a_paused_relay_is_left_alone_whatever_happens() {
    let mut world = running(json!({}));
    world.seen.relay.spec.paused = Some(true);
    world.seen.relay.spec.nickname = "renamed".into();
    world.settings.relay_image = "relay:2".into();
    world.settle();
    assert_eq!(world.plan().steps, []);
    assert_eq!(world.condition("Updated").1, "Paused");
    world.seen.pod = Seen::Absent;
    assert_eq!(world.plan().steps, []);
    assert_eq!(world.condition("Ready").1, "Paused");
}

#[test]
fn a_stopped_relay_keeps_keys_and_volume_and_starts_again_as_itself() {
    let mut world = running(json!({}));
    let before = world.fingerprint();
    world.seen.relay.spec.state = Some(operator_api::RunState::Stopped);
    assert_eq!(names(&world.plan().steps), ["DeletePod"]);
    world.settle();
    world.seen.pod = Seen::Absent;
    assert_eq!(world.plan().steps, []);
    assert_eq!(world.condition("Ready").1, "Stopped");

    world.seen.relay.spec.state = None;
    world.settle();
    assert_eq!((world.fingerprint(), world.keys_drawn), (before, 1));
    world.pod();
}

#[test]
fn a_node_that_stays_silent_is_told_with_the_remedy_and_nothing_is_started() {
    let mut world = running(json!({}));
    world.pod().spec.as_mut().unwrap().node_name = Some("n1".into());
    world.seen.relay.spec.or_port = 9443;
    world.settle();
    assert_eq!(world.condition("Fenced").0, "Unknown");
    assert_eq!(world.condition("Ready").1, "Stopping");
    let wait = world.plan().look_again.unwrap();

    world.clock += i64::try_from(wait.as_secs()).unwrap();
    let (status, reason, message) = world.condition("Fenced");
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NodeSilent"));
    let uid = world.pod().metadata.uid.clone().unwrap();
    assert!(
        message.contains("n1") && message.contains(&format!("confirm-fenced={uid}")),
        "{message}"
    );
    assert_eq!((world.plan().steps, world.plan().look_again), (vec![], None));
}

#[test]
fn a_pod_whose_node_the_cluster_lost_sight_of_is_not_called_starting() {
    let mut world = running(json!({}));
    world.pod().spec.as_mut().unwrap().node_name = Some("n1".into());
    world.pod_becomes(
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "relay", "image": "", "imageID": "", "ready": true, "restartCount": 0}]}),
    );
    assert_eq!(world.condition("Ready").1, "NodeUnreachable");
    assert_eq!(world.plan().steps, []);
}

#[test]
fn a_deleted_relay_keeps_everything_unless_its_fingerprint_confirms() {
    let gone = Some(Time(Timestamp::UNIX_EPOCH));
    let mut world = running(json!({}));
    world.seen.relay.spec.deletion_policy = Some(operator_api::DeletionPolicy::Delete);
    world.seen.relay.spec.deletion_confirmation = Some("0".repeat(40));
    assert_eq!(world.plan().steps, []);
    world.seen.relay.metadata.deletion_timestamp = gone.clone();
    assert!(world.decide().is_none());

    world.seen.relay.metadata.deletion_timestamp = None;
    world.seen.relay.spec.deletion_confirmation = world.fingerprint();
    assert_eq!(world.plan().steps, [Step::HoldRelay(true)]);
    world.settle();
    world.seen.relay.metadata.deletion_timestamp = gone;
    let mut done = Vec::new();
    for _ in 0..8 {
        let steps = world.decide().map(|plan| plan.steps).unwrap_or_default();
        done.extend(names(&steps));
        world.round(1);
        if world
            .seen
            .pod
            .ours()
            .is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
        {
            assert_eq!(world.plan().steps, [], "the pod may still run");
            world.seen.pod = Seen::Absent;
        }
    }
    assert_eq!(done, ["DeletePod", "DeleteClaim", "DeleteIdentity", "HoldRelay"]);
    assert!(world.decide().is_none());
}

#[test]
fn a_change_of_mind_lets_the_relay_go_and_keeps_its_keys() {
    let mut world = running(json!({}));
    world.seen.relay.spec.deletion_policy = Some(operator_api::DeletionPolicy::Delete);
    world.seen.relay.spec.deletion_confirmation = world.fingerprint();
    world.settle();
    world.seen.relay.spec.deletion_policy = None;
    assert_eq!(world.plan().steps, [Step::HoldRelay(false)]);
    world.seen.relay.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(world.plan().steps, [Step::HoldRelay(false)]);
}

#[test]
fn another_process_with_the_keys_and_overload_are_told_with_the_remedy() {
    let mut world = World::plain();
    world.settings.status_key = Some([7; 32]);
    world.settle();
    world.pod_listens();
    world.settle();
    assert_eq!(world.condition("IdentityConflict").0, "Unknown");
    let pod = world.pod().metadata.uid.clone().unwrap();
    let mut says = |more: serde_json::Value| {
        let mut said = json!({"podUid": pod, "published": true, "inConsensus": true});
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.seen.relay.status.as_mut().unwrap().directory = Some(serde_json::from_value(said).unwrap());
        assert_eq!(world.condition("Ready").0, "True");
        (world.condition("IdentityConflict"), world.condition("Overloaded"))
    };
    let (conflict, overload) = says(json!({}));
    assert_eq!((conflict.0.as_str(), overload.0.as_str()), ("False", "False"));
    let (conflict, overload) = says(json!({"listedElsewhere": "198.51.100.9:9001", "overloaded": true}));
    assert_eq!((conflict.0.as_str(), conflict.1.as_str()), ("True", "ListedElsewhere"));
    assert!(
        conflict.2.contains("198.51.100.9:9001") && conflict.2.contains("Find and stop it"),
        "{}",
        conflict.2
    );
    assert_eq!((overload.0.as_str(), overload.1.as_str()), ("True", "TurnsWorkAway"));
    assert!(overload.2.contains("lower spec.bandwidth"), "{}", overload.2);

    // Who cannot be asked says nothing of it.
    let mut tor = World::with(json!({"engine": "Tor", "image": {"reference": "tor:1"}}));
    tor.settings.status_key = Some([7; 32]);
    tor.settle();
    let status = tor.plan().status.unwrap();
    assert!(
        status
            .conditions
            .iter()
            .all(|one| !["IdentityConflict", "Overloaded", "InConsensus"].contains(&one.type_.as_str()))
    );
}

#[test]
fn what_the_relay_says_of_the_consensus_is_told_apart_from_ready() {
    let mut world = World::plain();
    world.settings.status_key = Some([7; 32]);
    world.settle();
    world.pod_listens();
    world.settle();
    assert_eq!(world.condition("InConsensus").1, "NotAsked");
    let pod = world.pod().metadata.uid.clone().unwrap();
    let mut says = |pod: &str, published: bool, listed: bool| {
        let said = json!({"podUid": pod, "published": published, "inConsensus": listed, "flags": "Fast,Running"});
        world.seen.relay.status.as_mut().unwrap().directory = Some(serde_json::from_value(said).unwrap());
        assert_eq!(world.condition("Ready").0, "True");
        world.condition("InConsensus").1
    };
    assert_eq!(says(&pod, false, false), "NotPublished");
    assert_eq!(says(&pod, true, false), "NotListed");
    assert_eq!(says(&pod, true, true), "Listed");
    assert_eq!(says("an earlier pod", true, true), "NotAsked");
}

fn pod_hash(world: &mut World) -> String {
    world.pod().metadata.annotations.clone().unwrap()["relayfleet.io/pod-hash"].clone()
}

/// If this fails, the next operator replaces the pod of every relay there is. That can be right; then write it down.
#[test]
fn the_next_operator_replaces_no_pod() {
    let mut world = World::plain();
    world.settings.status_key = Some([7; 32]);
    world.settle();
    assert_eq!(
        pod_hash(&mut world),
        "4182b2b129111157f595cb1639c43d6acb372d2341e1293b28d5bd473f6e292c"
    );
}

/// The pod as the operator of before 2026-11-22 made it, with the hash that it wrote; its token stood beside the torrc.
#[test]
fn a_pod_of_an_operator_that_hashed_pods_runs_on_and_finds_its_token() {
    let before = [
        (
            json!({}),
            "520fd0303a09b49b8b578e2bb6674f86d543635e143737b23fafc6a709b26f7e",
        ),
        (
            json!({"family": {"name": "oaks"}, "pod": {"labels": {"a": "b"}}}),
            "5fad8c49a790e042040b0be050567be9f721c48aad0139ed7d0d29191198b24c",
        ),
        (
            json!({"engine": "Tor", "image": {"reference": "tor:1"}}),
            "a312a4de10af994de4ad2434215d1cf6893a49b3bc9965a35aefce7a024711b9",
        ),
    ];
    for (fields, hash) in before {
        let mut world = World::with(fields.clone());
        let family = json!({"apiVersion": "relayfleet.io/v1alpha1", "kind": "RelayFamily",
            "metadata": {"name": "oaks", "namespace": "tor"}, "spec": {}});
        world.seen.family = operator_plan::FamilySeen::There(Box::new(serde_json::from_value(family).unwrap()));
        world.settings.status_key = Some([7; 32]);
        world.settle();
        world.pod_listens();
        let builtin = fields["engine"] != "Tor";
        let uid = world.pod().metadata.uid.clone();
        let pod = world.pod();
        pod.metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert("relayfleet.io/pod-hash".into(), hash.into());
        let config = json!({"name": "config", "configMap": {"name": "demo-torrc", "items": [
            {"key": "torrc", "path": "torrc"}, {"key": "status-token", "path": "status-token"}]}});
        if builtin {
            let volumes = pod.spec.as_mut().unwrap().volumes.as_mut().unwrap();
            volumes
                .iter_mut()
                .filter(|volume| volume.name == "config")
                .for_each(|volume| {
                    *volume = serde_json::from_value(config.clone()).unwrap();
                });
        }
        world.settle();
        assert_eq!(
            (world.pod().metadata.uid.clone(), world.condition("Updated").0),
            (uid, "True".to_owned()),
            "{fields}"
        );
        let has_token = |world: &World| {
            world
                .seen
                .torrc
                .ours()
                .unwrap()
                .data
                .as_ref()
                .unwrap()
                .contains_key("status-token")
        };
        assert_eq!(has_token(&world), builtin, "it would not start again without it");

        // With the next change it goes, and the token with it.
        world.seen.relay.spec.or_port = 9443;
        world.settle();
        world.seen.pod = Seen::Absent;
        world.settle();
        assert!(!has_token(&world));
    }
}
