//! The ports beside the ORPort: who asks there, and what he must show.

use k8s_openapi::api::core::v1::{Container, Probe};
use operator_plan::pool::Place;
use operator_plan::{PoolSeen, Seen};
use relay_formats::torrc::Torrc;
use serde_json::json;

use crate::world::World;

fn with_status_port(fields: serde_json::Value) -> World {
    let mut world = World::with(fields);
    world.settings.status_key = Some([7; 32]);
    world.settle();
    world
}

fn container(world: &mut World) -> Container {
    world.pod().spec.clone().unwrap().containers[0].clone()
}

fn torrc(world: &World) -> String {
    world.seen.torrc.ours().unwrap().data.as_ref().unwrap()["torrc"].clone()
}

fn path(probe: Option<&Probe>) -> Option<(String, String)> {
    let asked = probe?.http_get.as_ref()?;
    let port = serde_json::to_value(&asked.port).unwrap();
    Some((asked.path.clone()?, port.as_str()?.to_owned()))
}

/// The ports of a container by name.
fn ports(container: &Container) -> Vec<(String, i32, Option<i32>)> {
    let ports = container.ports.iter().flatten();
    ports
        .map(|port| (port.name.clone().unwrap(), port.container_port, port.host_port))
        .collect()
}

#[test]
fn the_kubelet_asks_the_relay_itself_and_gives_it_time_to_start() {
    let mut world = with_status_port(json!({}));
    let relay = container(&mut world);
    let at = |path: &str| Some((path.to_owned(), "status".to_owned()));
    assert_eq!(path(relay.startup_probe.as_ref()), at("/livez"));
    assert_eq!(path(relay.liveness_probe.as_ref()), at("/livez"));
    assert_eq!(path(relay.readiness_probe.as_ref()), at("/readyz"));
    let start = relay.startup_probe.unwrap();
    assert!(start.period_seconds.unwrap() * start.failure_threshold.unwrap() >= 300);
    assert!(
        relay.liveness_probe.unwrap().timeout_seconds.unwrap() > 5,
        "/livez itself takes five seconds"
    );
}

/// C tor has no status port, and closes its ORPort while it sleeps by its quota.
#[test]
fn c_tor_is_asked_at_its_or_port_and_not_killed_for_sleeping() {
    let mut world = with_status_port(json!({"engine": "Tor", "image": {"reference": "tor:1"}}));
    let tor = container(&mut world);
    assert!(tor.readiness_probe.unwrap().tcp_socket.is_some());
    assert_eq!((tor.startup_probe, tor.liveness_probe), (None, None));
    assert!(!torrc(&world).contains("Status"), "{}", torrc(&world));
    assert!(matches!(world.seen.token, Seen::Absent));
}

#[test]
fn no_relay_asks_the_clusters_dns() {
    for role in ["Exit", "Middle"] {
        let mut world = World::with(json!({"role": role}));
        world.settle();
        assert_eq!(world.pod().spec.clone().unwrap().dns_policy.as_deref(), Some("Default"));
    }
}

#[test]
fn the_token_is_made_once_and_again_only_for_another_key() {
    let mut world = with_status_port(json!({}));
    let told = |world: &World| {
        let secrets = world.pods_secrets.iter();
        secrets
            .filter(|secret| secret.metadata.name.as_deref() == Some("demo-status"))
            .count()
    };
    assert_eq!(told(&world), 1);
    world.pod_listens();
    world.settle();
    assert_eq!(told(&world), 1);
    world.settings.status_key = Some([8; 32]);
    world.settle();
    assert_eq!(told(&world), 2);
    world.seen.token = Seen::Absent;
    let pod = world.pod().metadata.uid.clone();
    world.settle();
    assert_eq!((told(&world), world.pod().metadata.uid.clone()), (3, pod));

    world.seen.token = Seen::Foreign;
    assert_eq!(world.condition("Ready").1, "NameTaken");
    assert_eq!(world.plan().steps, []);
}

#[test]
fn metrics_are_told_to_private_networks_and_only_where_somebody_wants_them() {
    let mut world = with_status_port(json!({}));
    assert!(!torrc(&world).contains("Metrics"));
    assert!(!ports(&container(&mut world)).iter().any(|(name, ..)| name == "metrics"));

    for (default, fields) in [
        (true, json!({})),
        (false, json!({"metrics": {"enabled": true}})),
        (
            false,
            json!({"metrics": {"enabled": true}, "engine": "Tor", "image": {"reference": "tor:1"}}),
        ),
    ] {
        let mut world = World::with(fields);
        world.settings.relay_metrics = default;
        world.settle();
        assert!(ports(&container(&mut world)).contains(&("metrics".into(), 9035, None)));
        let read = Torrc::parse(&torrc(&world)).unwrap();
        assert_eq!(read.warnings, []);
        assert_eq!(read.metrics_ports.len(), 1);
        let text = torrc(&world);
        for network in ["10.0.0.0/8", "192.168.0.0/16", "198.18.0.0/16"] {
            assert!(
                text.contains(&format!("MetricsPortPolicy accept {network}\n")),
                "{text}"
            );
        }
    }

    let mut world = World::with(json!({"metrics": {"enabled": true, "from": ["203.0.113.0/24"]}}));
    world.settle();
    let policies = torrc(&world)
        .lines()
        .filter(|line| line.starts_with("MetricsPortPolicy"))
        .count();
    assert_eq!(policies, 1);
    // Who may read is taken up; the port itself asks for another pod.
    let pod = world.pod().metadata.annotations.clone().unwrap()["relayfleet.io/pod-hash"].clone();
    world.seen.relay.spec.metrics.as_mut().unwrap().from = vec!["203.0.113.0/25".into()];
    assert_eq!(
        format!("{:?}", world.plan().steps.last().unwrap()).split(' ').next(),
        Some("TouchPod")
    );
    world.settings.relay_metrics = true;
    world.seen.relay.spec.metrics.as_mut().unwrap().enabled = Some(false);
    assert_ne!(pod, "");
    assert!(format!("{:?}", world.plan().steps).contains("DeletePod"));
}

#[test]
fn relays_on_one_nodes_network_are_not_in_each_others_way() {
    let on_host = |port: u16| {
        let mut world = World::with(json!({"addressPool": {"name": "eu"}, "metrics": {"enabled": true}}));
        world.settings.status_key = Some([7; 32]);
        let pool = json!({
            "apiVersion": "relayfleet.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "eu"},
            "spec": {"exposure": "HostNetwork", "addresses": [{"ipv4": "203.0.113.7"}]},
            "status": {"allocations": [{"namespace": "tor", "relay": "demo", "ipv4": "203.0.113.7", "port": port}]},
        });
        let pool = Box::new(serde_json::from_value(pool).unwrap());
        world.seen.pool = PoolSeen::There {
            pool,
            pod_security: Some("privileged".into()),
        };
        world.settle();
        world
    };
    let mut world = on_host(9001);
    let relay = container(&mut world);
    assert_eq!(
        ports(&relay),
        [
            ("or".into(), 9001, Some(9001)),
            ("status".into(), 19_001, Some(19_001)),
            ("metrics".into(), 29_001, Some(29_001))
        ]
    );
    // On the node's own address alone, which the pod learns at its start.
    let args = relay.args.unwrap();
    let after = |option: &str| args.iter().skip_while(|arg| *arg != option).nth(1).cloned();
    assert_eq!(after("--StatusPort").as_deref(), Some("$(POD_IP):19001"));
    assert_eq!(after("--MetricsPort").as_deref(), Some("$(POD_IP):29001"));
    assert!(!torrc(&world).contains("StatusPort") && torrc(&world).contains("StatusTokenFile"));
    assert_eq!(world.seen.relay.status.as_ref().unwrap().status_port, Some(19_001));
    assert_eq!(world.pod().spec.clone().unwrap().dns_policy.as_deref(), Some("Default"));
    let mut other = on_host(9002);
    let (other, first) = (ports(&container(&mut other)), ports(&container(&mut world)));
    assert!(
        other
            .iter()
            .all(|(_, port, _)| first.iter().all(|(_, taken, _)| port != taken))
    );
    let far = Place {
        exposure: operator_api::Exposure::HostNetwork,
        address: serde_json::from_value(json!({"ipv4": "203.0.113.7"})).unwrap(),
        port: 65_535,
        load_balancer: Default::default(),
    };
    let status = operator_plan::desired::status_port::status_port(&world.seen.relay, 65_535, Some(&far));
    assert_eq!(status, Some(55_535));
}
