//! The Service for the relay's ORPort: a steady name inside the cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use operator_api::{Exposure, Relay, names};

use super::{owned, pod};
use crate::validate::Accepted;

/// Sends to the pod also before it is ready: the network tries a relay's ORPort before it believes in it.
#[must_use]
pub fn service(relay: &Relay, accepted: &Accepted) -> Service {
    let selector = [
        (names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned()),
        (names::LABEL_RELAY.to_owned(), relay.name_any()),
    ];
    let exposure = accepted.place.as_ref().map(|place| place.exposure);
    let balanced = accepted
        .place
        .as_ref()
        .filter(|place| place.exposure == Exposure::LoadBalancer);
    let mut metadata = owned(relay, relay.name_any());
    metadata.annotations = balanced
        .map(|place| place.load_balancer.annotations.clone())
        .filter(|annotations| !annotations.is_empty());
    let type_ = match exposure {
        Some(Exposure::LoadBalancer) => "LoadBalancer",
        Some(Exposure::NodePort) => "NodePort",
        Some(Exposure::HostPort | Exposure::HostNetwork) | None => "ClusterIP",
    };
    let outside = type_ != "ClusterIP";
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_.to_owned()),
            // Or the node that takes a connection puts its own address on it, and all clients look like one.
            external_traffic_policy: outside.then(|| "Local".to_owned()),
            load_balancer_ip: balanced.map(|place| place.address.ipv4.clone()),
            load_balancer_class: balanced.and_then(|place| place.load_balancer.class.clone()),
            selector: Some(selector.into()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some(pod::OR_PORT_NAME.to_owned()),
                port: i32::from(accepted.or_port),
                target_port: Some(IntOrString::String(pod::OR_PORT_NAME.to_owned())),
                protocol: Some("TCP".to_owned()),
                node_port: (exposure == Some(Exposure::NodePort)).then(|| i32::from(accepted.or_port)),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}
