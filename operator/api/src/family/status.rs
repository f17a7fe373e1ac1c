//! What a family says of itself. It holds no secret.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw when it last looked.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayFamilyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: every member with an identity has a certificate of every key.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,

    /// The family's keys, newest first. Once told, a key that is lost is not replaced silently.
    #[serde(default)]
    pub family_ids: Vec<FamilyId>,

    /// Relays of this namespace that name the family and have an identity.
    #[serde(default)]
    pub members: i32,
}

/// One key of a family.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FamilyId {
    /// The public key, as torrc's FamilyId has it: 43 characters of base64.
    pub id: String,

    /// Which value of spec.rotation.generation it was made for.
    pub generation: i32,

    /// Whether it stays.
    pub state: FamilyIdState,
}

/// Whether a key stays.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum FamilyIdState {
    /// It is the family's key.
    Active,
    /// Members show it beside the new one until the overlap ends.
    Retiring,
}
