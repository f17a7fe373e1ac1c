//! The round of a RelayFamily: facts in, plan out, as for a Relay.
//!
//! ```text
//! keys (operator's namespace) ─┐
//! members (status of Relays)  ─┼─▶ shards: one ConfigMap for 500 members, each with the list and a certificate a member
//! what the shards say now     ─┘   well-known files · shared key file, only if a member runs C tor
//! ```
//!
//! A member's pod mounts all shards that there could be; so nobody restarts when a family grows, and adding a relay to a
//! family is one write of a shard. Certificates that are good are kept byte for byte: only those republish who must.

pub mod contact;
pub mod key;
pub mod shard;
mod status;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::PartialObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use operator_api::{Engine, Relay, RelayFamily, RelayFamilyStatus, names};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use crate::difference::differs;
use crate::hurdles::Hurdle;
use crate::observed::{Seen, annotation};
use key::{FamilyKey, KeyVerdict, key_verdict};
use shard::ShardPlan;

/// Members of one ConfigMap: with three certificates each it stays far below the megabyte that fits.
pub const SHARD_MEMBERS_MAX: usize = 500;
/// ConfigMaps that a member's pod mounts, and so 2000 members at most.
pub const SHARDS_MAX: usize = 4;
/// A descriptor has room for about this many in its `family` line (20,000 bytes); a longer list is left out.
pub const LIST_MAX: usize = 400;

/// A Relay that names the family and has an identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its Ed25519 identity, which certificates are for.
    pub ed25519: Ed25519Identity,
    /// Its fingerprint, for the list.
    pub rsa: RsaIdentity,
    /// It runs C tor, which takes no certificates.
    pub c_tor: bool,
}

impl Member {
    /// The Relay as a member, once its identity is recorded.
    #[must_use]
    pub fn of(relay: &Relay) -> Option<Self> {
        let identity = relay.status.as_ref()?.identity.as_ref()?;
        Some(Self {
            ed25519: identity.ed25519_id.parse().ok()?,
            rsa: identity.rsa_fingerprint.parse().ok()?,
            c_tor: relay.spec.engine == Engine::Tor,
        })
    }
}

/// All facts of one round. Keys are seen by their metadata.
#[derive(Debug, Clone)]
pub struct FamilyObserved {
    /// The family itself.
    pub family: RelayFamily,
    /// Its members in this cluster, in any order.
    pub members: Vec<Member>,
    /// Secrets with its keys: of the present generation and of the one before.
    pub keys: [Seen<PartialObjectMeta<Secret>>; 2],
    /// Its ConfigMaps with certificates.
    pub shards: [Seen<ConfigMap>; SHARDS_MAX],
    /// Its ConfigMap with proofs.
    pub well_known: Seen<ConfigMap>,
    /// The Secret with its key files, for C tor.
    pub shared: Seen<PartialObjectMeta<Secret>>,
}

/// One write to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum FamilyStep {
    /// Draw the key of this generation and `create` its Secret.
    CreateKey(i32),
    /// Issue what is lacking and apply the ConfigMap.
    ApplyShard(Box<ShardPlan>),
    /// Server-side apply.
    ApplyWellKnown(Box<ConfigMap>),
    /// Copy the keys of these generations beside the family and apply the Secret.
    ApplyShared(Vec<FamilyKey>),
}

/// What a round comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyPlan {
    /// To be written if it differs from what stands there.
    pub status: RelayFamilyStatus,
    /// To be done in this order.
    pub steps: Vec<FamilyStep>,
    /// What keeps the family from Ready.
    pub hurdle: Option<Hurdle>,
}

/// `None` for a family that is being deleted.
#[must_use]
pub fn decide_family(seen: &FamilyObserved, now: &Time) -> Option<FamilyPlan> {
    if seen.family.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let keys = key_verdict(seen, now.0);
    let shards = match &keys {
        KeyVerdict::Bound(keys) => shard::plan(seen, keys, now.0.into()),
        _ => Vec::new(),
    };
    let hurdle = status::hurdle(seen, &keys, &shards);
    Some(FamilyPlan {
        status: status::status(seen, &keys, hurdle.as_ref(), now),
        steps: steps(seen, &keys, shards),
        hurdle,
    })
}

fn steps(seen: &FamilyObserved, keys: &KeyVerdict, shards: Vec<ShardPlan>) -> Vec<FamilyStep> {
    let keys = match keys {
        KeyVerdict::Create(generation) => return vec![FamilyStep::CreateKey(*generation)],
        KeyVerdict::Bound(keys) => keys,
        KeyVerdict::Missing { .. } | KeyVerdict::Unreadable | KeyVerdict::NameTaken => return Vec::new(),
    };
    let shards = shards.into_iter().map(|plan| FamilyStep::ApplyShard(Box::new(plan)));
    let well_known = well_known(seen, keys);
    let well_known =
        wants_write(&seen.well_known, &well_known).then(|| FamilyStep::ApplyWellKnown(Box::new(well_known)));
    let shared = (seen.members.iter().any(|member| member.c_tor) && !is_shared(seen, keys))
        .then(|| FamilyStep::ApplyShared(keys.clone()));
    shards.chain(shared).chain(well_known).collect()
}

fn wants_write(seen: &Seen<ConfigMap>, wanted: &ConfigMap) -> bool {
    match seen {
        Seen::Absent => true,
        Seen::Foreign => false,
        Seen::Ours(found) => differs(wanted, found),
    }
}

fn is_shared(seen: &FamilyObserved, keys: &[FamilyKey]) -> bool {
    match &seen.shared {
        Seen::Absent => false,
        Seen::Foreign => true,
        Seen::Ours(secret) => annotation(&secret.metadata, names::ANNOTATION_FAMILY_IDS) == Some(&key::ids_text(keys)),
    }
}

/// Every fingerprint that belongs into the list, sorted, each once.
#[must_use]
pub fn listed(seen: &FamilyObserved) -> Vec<RsaIdentity> {
    let external = seen.family.spec.external_members.iter();
    let external = external.filter_map(|member| member.rsa_fingerprint.parse().ok());
    let mut listed: Vec<RsaIdentity> = seen.members.iter().map(|member| member.rsa).chain(external).collect();
    listed.sort();
    listed.dedup();
    listed
}

/// The files that a web site serves under `/.well-known/tor-relay/` (proposal 326, CIISS 3).
fn well_known(seen: &FamilyObserved, keys: &[FamilyKey]) -> ConfigMap {
    let own = seen.members.iter().map(|member| member.rsa.to_string());
    let mut own: Vec<String> = own.collect();
    own.sort();
    let lines = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    let ids = keys.iter().map(|key| key.id.to_string()).collect();
    ConfigMap {
        metadata: owned(&seen.family, names::family_well_known(&seen.family.name_any())),
        data: Some(
            [
                ("rsa-fingerprint.txt".to_owned(), lines(own)),
                ("ed25519-family-id.txt".to_owned(), lines(ids)),
            ]
            .into(),
        ),
        ..Default::default()
    }
}

/// Labels by which the family's round is woken.
fn labels(family: &RelayFamily) -> std::collections::BTreeMap<String, String> {
    [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY.to_owned()),
        (names::LABEL_FAMILY, family.name_any()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// For what goes with the family.
fn owned(family: &RelayFamily, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: family.namespace(),
        labels: Some(labels(family)),
        owner_references: family.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..Default::default()
    }
}

/// Whether an object bears the family's labels.
#[must_use]
pub fn is_of_family(meta: &ObjectMeta, family: &RelayFamily) -> bool {
    let label = |key: &str| meta.labels.as_ref()?.get(key).map(String::as_str);
    let namespace = label(names::LABEL_NAMESPACE).or(meta.namespace.as_deref());
    label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY)
        && label(names::LABEL_FAMILY) == Some(&family.name_any())
        && (namespace.is_none() || namespace == family.metadata.namespace.as_deref())
}
