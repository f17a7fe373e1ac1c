//! The RelayFamily: relays that say that one person runs them, so that no circuit goes through two of them.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

mod rules;
pub mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::days::Days;
use status::RelayFamilyStatus;

/// What one family should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "relayfleet.io",
    version = "v1alpha1",
    kind = "RelayFamily",
    plural = "relayfamilies",
    shortname = "rlyfam",
    category = "relayfleet",
    namespaced,
    status = "RelayFamilyStatus",
    derive = "PartialEq",
    doc = "A family of relays: clients never put two of its members into one circuit. Its members are the Relays of its \
           namespace that name it in spec.family. The family's secret key stays in the operator's namespace; members get a \
           certificate.",
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Family-Id", type_ = "string", json_path = ".status.familyIds[0].id", priority = "1"),
    validation = rules::family_name()
)]
#[serde(rename_all = "camelCase")]
pub struct RelayFamilySpec {
    /// Also publish the classic list of members (MyFamily). Clients older than C tor 0.4.9 know no other family; leave it
    /// on until they are gone.
    #[serde(default = "yes")]
    pub legacy_list: bool,

    /// When the family gets another key.
    #[serde(default)]
    pub rotation: Rotation,

    /// Relays outside of this cluster that belong to the family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub external_members: Vec<ExternalMember>,

    /// Who runs the relays, in the form of the ContactInfo Information Sharing Specification, version 3. With it, members
    /// publish this instead of their own spec.contact; what it says of a relay's keys and bandwidth is taken from its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<FamilyContact>,
}

fn yes() -> bool {
    true
}

/// When the family gets another key, and how long the old one stays beside it.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Raise it by one and the family gets another key.
    #[serde(default = "first_generation")]
    #[schemars(range(min = 1, max = 1000))]
    #[x_kube(validation = rules::generation_grows())]
    pub generation: i32,

    /// For how long members show both keys' certificates, so that the network never sees them as strangers: 2 to 90 days.
    #[serde(default = "default_overlap")]
    #[x_kube(validation = rules::overlap())]
    pub overlap: Days,
}

fn first_generation() -> i32 {
    1
}

fn default_overlap() -> Days {
    Days::new(7)
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            generation: first_generation(),
            overlap: default_overlap(),
        }
    }
}

/// A relay that this operator does not run.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalMember {
    /// Its RSA fingerprint: 40 hexadecimal digits. It stands in the classic list; that relay must list ours too.
    #[schemars(length(max = 40))]
    #[x_kube(validation = rules::rsa_fingerprint())]
    pub rsa_fingerprint: String,

    /// Its Ed25519 identity: 43 characters of base64. With it, a certificate for that relay is issued into the family's
    /// bundle; a relay of ours elsewhere can be given it by FamilyDirectory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = rules::ed25519_id())]
    pub ed25519_id: Option<String>,

    /// What people should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub note: Option<String>,
}

/// Who runs the relays. No value may have blanks in it.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FamilyContact {
    /// E-mail address of the technical contact. It is published with `[]` for `@`.
    #[schemars(length(max = 254))]
    #[x_kube(validation = rules::email())]
    pub email: String,

    /// The web site of who runs the relays, `https://` and a host name. With it the relays claim a proof: serve the files of
    /// ConfigMap NAME-well-known there under `/.well-known/tor-relay/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::url())]
    pub url: Option<String>,

    /// E-mail address for complaints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 254))]
    #[x_kube(validation = rules::email())]
    pub abuse: Option<String>,

    /// Fingerprint of an OpenPGP key: 40 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = rules::pgp())]
    pub pgp: Option<String>,

    /// Domain of the hoster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::no_blanks())]
    pub hoster: Option<String>,
}

/// A family in the same namespace.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FamilyRef {
    /// Name of the RelayFamily.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
}
