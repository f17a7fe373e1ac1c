//! The AddressPool: public addresses, and how traffic for them reaches a pod.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function
#![allow(clippy::duplicated_attributes)] // columns of one type

mod rules;
pub mod status;

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use status::AddressPoolStatus;

/// Which addresses there are.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "relayfleet.io",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "rlyaddr",
    category = "relayfleet",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    doc = "Public addresses for relays, and how traffic for them reaches a pod. A Relay that names the pool in \
           spec.addressPool gets one address and one port of it and keeps both for as long as it names the pool.",
    printcolumn(name = "Exposure", type_ = "string", json_path = ".spec.exposure"),
    printcolumn(name = "Allocated", type_ = "integer", json_path = ".status.allocated"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.free"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::node_port_range())]
#[x_kube(validation = rules::load_balancer_of_load_balancers())]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// How traffic reaches the pod. `LoadBalancer` and `NodePort`: a Service that keeps the client's source address.
    /// `HostPort` and `HostNetwork`: the node's own port; Pod Security refuses such pods except in privileged namespaces.
    pub exposure: Exposure,

    /// The addresses, each once, and in one pool only.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["ipv4".to_owned()]))]
    pub addresses: Vec<PoolAddress>,

    /// The ports that relays may get on each address. Relays listen on the port that they get.
    #[serde(default)]
    pub ports: PortRange,

    /// How many relays share an address. The directory authorities list at most 8.
    #[serde(default = "default_relays_max")]
    #[schemars(range(min = 1, max = 8))]
    pub max_relays_per_address: i32,

    /// Namespaces whose Relays may use the pool; without it, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_namespaces: Vec<String>,

    /// With exposure LoadBalancer: what the Services say to the load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
}

fn default_relays_max() -> i32 {
    2
}

/// How traffic reaches the pod.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum Exposure {
    /// A Service of type LoadBalancer.
    LoadBalancer,
    /// A Service of type NodePort.
    NodePort,
    /// A port of the node, handed on to the pod.
    HostPort,
    /// The pod is in the node's network.
    HostNetwork,
}

/// One address.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolAddress {
    /// The IPv4 address that relays publish.
    #[schemars(length(max = 15))]
    #[x_kube(validation = rules::ipv4())]
    pub ipv4: String,

    /// The node that has the address (its label kubernetes.io/hostname): the relay's pod runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
}

/// Ports, both ends included.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ports_in_order())]
pub struct PortRange {
    /// The first, 1024 at least: the pod has no right to bind a lower one.
    #[schemars(with = "i32", range(min = 1024, max = 65535))]
    pub first: u16,

    /// The last.
    #[schemars(with = "i32", range(min = 1024, max = 65535))]
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            first: 9001,
            last: 9008,
        }
    }
}

/// What a Service says to the load balancer.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Class of the load balancer; without it the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,

    /// Annotations of the Services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// A pool of the cluster.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Name of the AddressPool.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
