//! Addresses and ports of a pool: given once, kept, taken back.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::World;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use operator_api::AddressPool;
use operator_plan::pool::Claim;
use operator_plan::{PoolObserved, PoolSeen, Seen, decide_pool};
use relay_formats::torrc::Torrc;
use serde_json::{Value, json};

fn pool(name: &str, age: i64, spec: Value) -> AddressPool {
    let created = Timestamp::from_second(1_700_000_000 - age).unwrap().to_string();
    serde_json::from_value(json!({
        "apiVersion": "relayfleet.io/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": created}, "spec": spec,
    }))
    .unwrap()
}

fn two_addresses() -> Value {
    json!({
        "exposure": "LoadBalancer", "maxRelaysPerAddress": 3, "ports": {"first": 9001, "last": 9010},
        "addresses": [{"ipv4": "203.0.113.7"}, {"ipv4": "203.0.113.8"}],
    })
}

fn claims(names: std::ops::Range<usize>) -> Vec<Claim> {
    names
        .map(|number| Claim {
            namespace: "tor".into(),
            relay: format!("r{number}"),
        })
        .collect()
}

fn seen(spec: Value, wanted: usize) -> PoolObserved {
    PoolObserved {
        pool: pool("eu", 0, spec),
        others: Vec::new(),
        claims: claims(0..wanted),
        kept: Vec::new(),
    }
}

/// Rounds until nothing changes.
fn settle(seen: &mut PoolObserved) {
    for _ in 0..3 {
        let now = Time(Timestamp::from_second(1_800_000_000).unwrap());
        let status = decide_pool(seen, &now);
        if seen.pool.status.as_ref() == Some(&status) {
            return;
        }
        seen.pool.status = Some(status);
    }
    panic!("never settles");
}

fn places(seen: &PoolObserved) -> BTreeMap<String, (String, u16)> {
    let held = seen.pool.status.iter().flat_map(|status| &status.allocations);
    held.map(|one| (one.relay.clone(), (one.ipv4.clone(), one.port)))
        .collect()
}

fn ready(seen: &PoolObserved) -> (String, String) {
    let ready = &seen.pool.status.as_ref().unwrap().conditions[0];
    (ready.reason.clone(), ready.message.clone())
}

#[test]
fn relays_are_spread_over_addresses_and_nothing_is_given_twice() {
    let mut seen = seen(two_addresses(), 5);
    settle(&mut seen);
    let given: BTreeSet<(String, u16)> = places(&seen).into_values().collect();
    assert_eq!(given.len(), 5);
    let on = |address: &str| given.iter().filter(|(ipv4, _)| ipv4 == address).count();
    assert_eq!((on("203.0.113.7"), on("203.0.113.8")), (3, 2));
    let status = seen.pool.status.as_ref().unwrap();
    assert_eq!((status.allocated, status.free), (5, 1));
    assert_eq!(ready(&seen).0, "Allocated");
}

#[test]
fn who_has_a_place_keeps_it_whoever_comes_and_goes() {
    let mut seen = seen(two_addresses(), 4);
    settle(&mut seen);
    let before = places(&seen);
    seen.claims.remove(1);
    seen.claims.insert(
        0,
        Claim {
            namespace: "tor".into(),
            relay: "a0".into(),
        },
    );
    settle(&mut seen);
    let after = places(&seen);
    for name in ["r0", "r2", "r3"] {
        assert_eq!(after[name], before[name]);
    }
    assert!(!after.contains_key("r1") && after.contains_key("a0"));
}

#[test]
fn a_place_is_kept_for_as_long_as_the_keys_are() {
    let mut spec = two_addresses();
    spec["maxRelaysPerAddress"] = json!(1);
    let mut seen = seen(spec, 2);
    settle(&mut seen);
    let before = places(&seen);
    let gone = seen.claims.remove(1);
    seen.kept = vec![gone.clone()];
    let next = Claim {
        namespace: "tor".into(),
        relay: "r9".into(),
    };
    seen.claims.push(next.clone());
    settle(&mut seen);
    let kept: Vec<bool> = seen
        .pool
        .status
        .as_ref()
        .unwrap()
        .allocations
        .iter()
        .map(|one| one.kept)
        .collect();
    assert_eq!((places(&seen), kept), (before.clone(), vec![false, true]));
    let (reason, message) = ready(&seen);
    assert_eq!(reason, "Exhausted");
    assert!(message.contains("1 places are kept"), "{message}");

    // Back again, it has what it had; and once its keys are gone for good, so is its place.
    seen.claims = vec![seen.claims[0].clone(), gone];
    seen.kept.clear();
    settle(&mut seen);
    assert_eq!((places(&seen), ready(&seen).0.as_str()), (before, "Allocated"));
    seen.claims[1] = next;
    settle(&mut seen);
    assert!(places(&seen).contains_key("r9") && !places(&seen).contains_key("r1"));
}

/// Two Services cannot have one NodePort, and two pods on one node not one port of it.
#[test]
fn ports_that_addresses_share_are_given_once() {
    let addresses = json!([{"ipv4": "203.0.113.7", "node": "n1"}, {"ipv4": "203.0.113.8", "node": "n1"}, {"ipv4": "203.0.113.9", "node": "n2"}]);
    let ports_of = |exposure: &str, relays| {
        let spec = json!({"exposure": exposure, "ports": {"first": 30_001, "last": 30_004}, "addresses": addresses});
        let mut seen = seen(spec, relays);
        settle(&mut seen);
        (
            places(&seen).into_values().collect::<BTreeSet<_>>(),
            ready(&seen).0,
            seen.pool.status.unwrap().free,
        )
    };
    let (given, ..) = ports_of("NodePort", 4);
    assert_eq!(given.iter().map(|(_, port)| port).collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(ports_of("NodePort", 4).2, 0);
    assert_eq!(ports_of("NodePort", 5).1, "Exhausted");
    let (given, ..) = ports_of("HostNetwork", 6);
    let on_n1 = given
        .iter()
        .filter(|(address, _)| address != "203.0.113.9")
        .map(|(_, port)| port);
    assert_eq!(on_n1.collect::<BTreeSet<_>>().len(), 4, "{given:?}");
    let (given, ..) = ports_of("LoadBalancer", 3);
    assert!(given.iter().all(|(_, port)| *port == 30_001), "{given:?}");
}

#[test]
fn no_address_takes_more_than_eight() {
    let spec = json!({
        "exposure": "LoadBalancer", "maxRelaysPerAddress": 8, "ports": {"first": 9001, "last": 9100},
        "addresses": [{"ipv4": "203.0.113.7"}],
    });
    let mut seen = seen(spec, 10);
    settle(&mut seen);
    assert_eq!(places(&seen).len(), 8);
    let (reason, message) = ready(&seen);
    assert_eq!(reason, "Exhausted");
    assert!(message.starts_with("2 relays find no place"), "{message}");
}

#[test]
fn an_address_in_two_pools_is_the_older_ones() {
    let mut young = seen(two_addresses(), 3);
    young.others = vec![pool(
        "old",
        100,
        json!({"exposure": "HostPort", "addresses": [{"ipv4": "203.0.113.8"}]}),
    )];
    settle(&mut young);
    assert!(places(&young).values().all(|(address, _)| address == "203.0.113.7"));
    let (reason, message) = ready(&young);
    assert_eq!(reason, "AddressConflict");
    assert!(message.contains("203.0.113.8 stands in AddressPool old"), "{message}");

    let mut old = seen(two_addresses(), 3);
    old.others = vec![pool("young", -100, two_addresses())];
    settle(&mut old);
    assert_eq!(ready(&old).0, "Allocated");
}

#[test]
fn a_place_that_the_pool_no_longer_has_is_given_anew() {
    let mut seen = seen(two_addresses(), 2);
    settle(&mut seen);
    seen.pool.spec.addresses.remove(1);
    settle(&mut seen);
    assert!(places(&seen).values().all(|(address, _)| address == "203.0.113.7"));
    assert_eq!(places(&seen).len(), 2);
}

#[test]
fn a_namespace_that_is_not_let_in_gets_nothing_and_is_named() {
    let mut spec = two_addresses();
    spec["allowedNamespaces"] = json!(["exits"]);
    let mut seen = seen(spec, 1);
    settle(&mut seen);
    assert!(places(&seen).is_empty());
    assert_eq!(ready(&seen).0, "NamespaceNotAllowed");
}

/// A Relay of a pool whose ledger has it, in a namespace that enforces `level`.
fn relay_of(mut spec: Value, level: Option<&str>) -> World {
    spec["addresses"] = json!([{"ipv4": "203.0.113.7", "node": "n7"}]);
    let mut world = World::with(json!({"addressPool": {"name": "eu"}}));
    let mut seen = PoolObserved {
        pool: pool("eu", 0, spec),
        others: Vec::new(),
        claims: vec![Claim {
            namespace: "tor".into(),
            relay: "demo".into(),
        }],
        kept: Vec::new(),
    };
    settle(&mut seen);
    world.seen.pool = PoolSeen::There {
        pool: Box::new(seen.pool),
        pod_security: level.map(str::to_owned),
    };
    world.settle();
    world
}

#[test]
fn a_relay_publishes_and_listens_on_what_the_pool_gave_it() {
    let mut world = relay_of(
        json!({"exposure": "LoadBalancer", "loadBalancer": {
            "class": "example.org/lb", "annotations": {"example.org/pool": "tor"},
        }}),
        Some("restricted"),
    );
    let text = world.seen.torrc.ours().unwrap().data.as_ref().unwrap()["torrc"].clone();
    let torrc = Torrc::parse(&text).unwrap();
    assert!(
        text.contains("\nAddress 203.0.113.7\n") && text.contains("\nORPort 0.0.0.0:9001 "),
        "{text}"
    );
    assert_eq!(torrc.or_ports.len(), 1);
    let service = world.seen.service.ours().unwrap().clone();
    assert_eq!(service.metadata.annotations.unwrap()["example.org/pool"], "tor");
    let spec = service.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(spec.load_balancer_class.as_deref(), Some("example.org/lb"));
    assert_eq!(world.condition("SourceKept").1, "Local");
    assert_eq!(
        world.pod().spec.as_ref().unwrap().node_selector.as_ref().unwrap()["kubernetes.io/hostname"],
        "n7"
    );

    if let Seen::Ours(service) = &mut world.seen.service {
        service.spec.as_mut().unwrap().external_traffic_policy = Some("Cluster".into());
    }
    assert_eq!(world.condition("SourceKept").1, "Masquerades");
    assert!(world.settle() > 0);
    assert_eq!(world.condition("SourceKept").1, "Local");
}

#[test]
fn each_exposure_reaches_the_pod_its_own_way() {
    let node_port = relay_of(
        json!({"exposure": "NodePort", "ports": {"first": 30001, "last": 30008}}),
        Some("restricted"),
    );
    let spec = node_port.seen.service.ours().unwrap().spec.clone().unwrap();
    assert_eq!(
        (spec.type_.as_deref(), spec.ports.unwrap()[0].node_port),
        (Some("NodePort"), Some(30001))
    );

    for (exposure, network) in [("HostPort", None), ("HostNetwork", Some(true))] {
        let mut world = relay_of(json!({"exposure": exposure}), Some("privileged"));
        let spec = world.pod().spec.clone().unwrap();
        assert_eq!(spec.host_network, network);
        assert_eq!(spec.containers[0].ports.as_ref().unwrap()[0].host_port, Some(9001));
        assert_eq!(world.condition("SourceKept").1, "Host");
    }
}

#[test]
fn a_node_port_in_a_strict_namespace_is_explained_before_a_pod_is_refused() {
    for level in ["restricted", "baseline"] {
        let world = relay_of(json!({"exposure": "HostPort"}), Some(level));
        let (status, reason, message) = world.condition("ConfigAccepted");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "PodSecurity"));
        assert!(
            message.contains("namespace of their own") && message.contains(level),
            "{message}"
        );
        assert_eq!(world.seen.pod, Seen::Absent);
    }
}

#[test]
fn a_relay_waits_for_its_address_and_says_what_it_waits_for() {
    let mut world = World::with(json!({"addressPool": {"name": "eu"}}));
    for (pool, reason) in [
        (PoolSeen::Missing, "PoolMissing"),
        (PoolSeen::Forbidden, "PoolForbidden"),
        (
            PoolSeen::There {
                pool: Box::new(pool("eu", 0, two_addresses())),
                pod_security: None,
            },
            "AwaitingAddress",
        ),
    ] {
        world.seen.pool = pool;
        world.settle();
        assert_eq!(world.condition("ConfigAccepted").1, reason);
        assert_eq!((world.seen.pod.clone(), world.keys_drawn), (Seen::Absent, 0));
    }
    assert_eq!(
        World::with(json!({"address": {"source": "Static", "ipv4": "203.0.113.7"}}))
            .condition("SourceKept")
            .0,
        "Unknown"
    );
}
