//! What a RelaySet says of its relays.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw when it last looked.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelaySetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Relays of the set that there are.
    #[serde(default)]
    pub replicas: i32,

    /// Those that are Ready.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Those whose spec is the template's and whose pod is the one that it asks for.
    #[serde(default)]
    pub updated_replicas: i32,

    /// Those that have reached the gate of `spec.update`.
    #[serde(default)]
    pub available_replicas: i32,

    /// Those that the consensus lists as running.
    #[serde(default)]
    pub in_consensus_replicas: i32,

    /// Sum of the weights that the consensus gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus_weight: Option<i64>,

    /// Label selector of the pods, for autoscalers and `kubectl get pods -l`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// `Ready`: all relays are there and ready. `Progressing`: something is still to be done; the message says what.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}
