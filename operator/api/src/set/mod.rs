//! The RelaySet: many relays of one shape.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

mod rules;
pub mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::relay::RelaySpec;
use status::RelaySetStatus;

/// What the relays of one set should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "relayfleet.io",
    version = "v1alpha1",
    kind = "RelaySet",
    plural = "relaysets",
    shortname = "rlyset",
    category = "relayfleet",
    namespaced,
    status = "RelaySetStatus",
    derive = "PartialEq",
    doc = "Relays of one shape, NAME-0, NAME-1 and so on. A relay that is scaled away keeps its keys and its volume, and is the \
           same relay when it is scaled back. Pods are replaced one by one, so that little of the network's weight is away \
           at a time.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.template.spec.role"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Up-To-Date", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "In-Consensus", type_ = "integer", json_path = ".status.inConsensusReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.consensusWeight", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Progressing\")].reason",
        priority = "1"
    ),
    validation = rules::set_name()
)]
#[serde(rename_all = "camelCase")]
pub struct RelaySetSpec {
    /// How many relays there should be: NAME-0 to NAME-(replicas-1). Fewer than before takes the highest numbers away;
    /// their keys and volumes stay.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,

    /// What each relay is made from.
    pub template: RelayTemplate,

    /// How pods are replaced when the template, or the operator's images, ask for other ones.
    #[serde(default)]
    pub update: SetUpdate,

    /// While true the operator writes nothing but the status of the set. Its relays are looked after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

fn one() -> i32 {
    1
}

/// What each relay of a set is made from.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayTemplate {
    /// The spec of each Relay. The relay's number is put behind the nickname: `oak` becomes `oak0`, `oak1` and so on. A
    /// field that the template does not have may be set on a single Relay, for example `paused`.
    #[x_kube(validation = rules::nickname_has_room())]
    #[x_kube(validation = rules::no_shared_address())]
    #[x_kube(validation = rules::no_deletion())]
    pub spec: RelaySpec,
}

/// How pods are replaced. What a running relay can take up (nickname, contact, bandwidth, accounting, exit policy) reaches
/// all relays at once and replaces no pod.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SetUpdate {
    /// What a relay must have reached before the next one's pod may be replaced. `Listening`, the default: its ORPort takes
    /// connections. `Published`: it has told the authorities of itself since it started. `InConsensus`: the consensus lists
    /// it as running.
    #[serde(default)]
    pub gate: Gate,

    /// How many relays may be away at a time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: i32,

    /// How much of the set's consensus weight may be away at a time, in per cent; while the network has given no weights,
    /// of the number of relays. One relay may always be away.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    pub max_weight_down: i32,
}

fn ten() -> i32 {
    10
}

impl Default for SetUpdate {
    fn default() -> Self {
        Self {
            gate: Gate::default(),
            max_unavailable: one(),
            max_weight_down: ten(),
        }
    }
}

/// What a relay must have reached to count as back.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Gate {
    /// Its ORPort takes connections.
    #[default]
    Listening,
    /// It has told the authorities of itself since it started.
    Published,
    /// The consensus lists it as running.
    InConsensus,
}
