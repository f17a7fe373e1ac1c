//! What a Relay says of itself. It holds no secret and nothing about the relay's users.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw when it last looked.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `IdentityBound`, `SigningKeyFresh`, `ConfigAccepted`, `Updated`, `Fenced`, `SourceKept` and, of our own relay,
    /// `InConsensus`, `IdentityConflict` and `Overloaded`: whether, since when, why, and what to do. Of the last two True is
    /// bad.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,

    /// The keys that are this relay. Once set they never change: if the Secret is lost, the operator starts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityStatus>,

    /// When the signing key that the pod has been given ends (custody `Operator`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_expires: Option<Time>,

    /// The pod that runs the relay, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// That pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,

    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_address: Option<String>,

    /// Where the relay tells its status to the operator, if it can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub status_port: Option<u16>,

    /// What the relay itself knows of its place in the network. Not there while nobody could ask it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryStatus>,

    /// The address that the relay publishes, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The public side of a relay's identity.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStatus {
    /// SHA-1 of the RSA identity key: 40 hexadecimal digits. Relay lists know the relay by it.
    pub rsa_fingerprint: String,

    /// The Ed25519 identity: 43 characters of base64.
    pub ed25519_id: String,

    /// The Secret with the keys. Back it up: with it the relay can be brought back anywhere.
    pub secret_name: String,

    /// The Secret's namespace, if it is another than the Relay's: the operator's, which keeps the master key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_namespace: Option<String>,
}

/// A relay's place in the network, as it reads it in its own copy of the consensus.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryStatus {
    /// The pod that said so.
    #[serde(default)]
    pub pod_uid: String,

    /// It has told the authorities of itself since it started.
    #[serde(default)]
    pub published: bool,

    /// The consensus lists it as running.
    #[serde(default)]
    pub in_consensus: bool,

    /// A consensus that is younger than the process does.
    #[serde(default)]
    pub listed_since_start: bool,

    /// Its flags in the consensus, for example `Fast,Guard,Running`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flags: String,

    /// Its weight in the consensus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consensus_weight: Option<i64>,

    /// It tells the network that it was overloaded in the last three days.
    #[serde(default)]
    pub overloaded: bool,

    /// Where the consensus lists it, if that is not where it is: another process publishes with its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_elsewhere: Option<String>,
}
