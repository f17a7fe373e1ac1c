//! The Service for the relay's ORPort: a steady name inside the cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use operator_api::{Relay, names};

use super::{owned, pod};
use crate::validate::Accepted;

/// Sends to the pod also before it is ready: the network tries a relay's ORPort before it believes in it.
#[must_use]
pub fn service(relay: &Relay, accepted: &Accepted) -> Service {
    let selector = [
        (names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned()),
        (names::LABEL_RELAY.to_owned(), relay.name_any()),
    ];
    Service {
        metadata: owned(relay, relay.name_any()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector.into()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some(pod::OR_PORT_NAME.to_owned()),
                port: i32::from(accepted.or_port),
                target_port: Some(IntOrString::String(pod::OR_PORT_NAME.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}
