//! What a relay tells Prometheus.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// What the relay tells Prometheus, at port `metrics` of its pod (MetricsPort). Metrics tell how much a relay carries and
/// when: keep them from strangers.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Whether there is such a port; without it the operator's own choice, which is no unless its `--relay-metrics` is set. A
    /// change asks for another pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Which IPv4 networks may read, as `ADDRESS/BITS` (MetricsPortPolicy). Without it private networks and the cluster's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 18)))]
    #[x_kube(validation = rules::ipv4_networks())]
    pub from: Vec<String>,
}
