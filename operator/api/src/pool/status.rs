//! Who has which address and port.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was given to whom. The operator writes it only where nobody wrote since it looked, so nothing is given twice.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: every Relay that names the pool has an address.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,

    /// Who has what, by namespace and name.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub allocations: Vec<Allocation>,

    /// How many relays have an address, with those that are gone and whose keys are kept.
    #[serde(default)]
    pub allocated: i32,

    /// How many more the pool has room for.
    #[serde(default)]
    pub free: i32,
}

/// An address and a port that a Relay has.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Namespace of the Relay.
    pub namespace: String,

    /// Name of the Relay.
    pub relay: String,

    /// The address.
    pub ipv4: String,

    /// The port.
    #[schemars(with = "i32")]
    pub port: u16,

    /// The Relay is gone or scaled away, but its keys are kept, and so is its place: it will be the same relay when it comes
    /// back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}
