//! The ConfigMaps from which members learn who is in the family, and take their certificates.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use operator_api::{RelayFamily, names};
use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::family_bundle::{FamilyBundle, family_of};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use super::key::FamilyKey;
use super::{FamilyObserved, LIST_MAX, SHARD_MEMBERS_MAX, SHARDS_MAX, listed, owned};
use crate::observed::Seen;

/// Key of the bundle in the ConfigMap.
pub const BUNDLE_KEY: &str = "bundle";
/// Key of the list as torrc lines, for C tor.
pub const TORRC_KEY: &str = "torrc";

const DAY: Duration = Duration::from_secs(86_400);
/// As C tor's family certificates (dir-spec, "family-cert": at most 30 days after `published`).
const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A certificate with less left is issued anew.
const RENEW_AT: Duration = Duration::from_secs(15 * 86_400);
/// When any is, those with less than this are too: one write instead of many.
const RENEW_WITH: Duration = Duration::from_secs(20 * 86_400);

/// A ConfigMap as it should be, but for the certificates that are still to be issued.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardPlan {
    /// Which one.
    pub index: usize,
    /// For every member's descriptor.
    pub listed: Vec<RsaIdentity>,
    /// Certificates that stay as they are.
    pub kept: Vec<(Ed25519Identity, Ed25519Cert)>,
    /// Whom to issue one, and by which key.
    pub issue: Vec<(Ed25519Identity, FamilyKey)>,
}

/// The ConfigMaps that must be written.
pub(super) fn plan(seen: &FamilyObserved, keys: &[FamilyKey], now: SystemTime) -> Vec<ShardPlan> {
    let found: Vec<FamilyBundle> = seen.shards.iter().map(bundle_in).collect();
    let certified = certified(seen);
    let mut shards = assign(&certified, &found);
    let mut list = listed(seen);
    if !seen.family.spec.legacy_list || list.len() > LIST_MAX {
        list.clear();
    }
    let fresh = |cert: &Ed25519Cert, left: Duration| cert.expires() > now + left;
    let mut plans = Vec::new();
    for (index, members) in shards.iter_mut().enumerate() {
        members.sort();
        let found = found.get(index).cloned().unwrap_or_default();
        // An empty ConfigMap is made only for the first: by it members know the list.
        if members.is_empty() && matches!(seen.shards.get(index), Some(Seen::Absent)) && (index > 0 || list.is_empty())
        {
            continue;
        }
        if matches!(seen.shards.get(index), Some(Seen::Foreign)) {
            continue;
        }
        let held = |member: &Ed25519Identity, key: &FamilyKey| {
            let good = found.certs.iter().filter(|(owner, _)| owner == member);
            let mut good = good.filter(|(_, cert)| family_of(cert, member, now) == Some(key.id));
            good.next().map(|(_, cert)| cert.clone())
        };
        let wanted: Vec<(Ed25519Identity, &FamilyKey)> = members
            .iter()
            .flat_map(|member| keys.iter().map(|key| (*member, key)))
            .collect();
        let any_due = wanted
            .iter()
            .any(|(member, key)| held(member, key).is_some_and(|cert| !fresh(&cert, RENEW_AT)));
        let left = if any_due { RENEW_WITH } else { RENEW_AT };
        let mut plan = ShardPlan {
            index,
            listed: list.clone(),
            kept: Vec::new(),
            issue: Vec::new(),
        };
        for (member, key) in wanted {
            match held(&member, key).filter(|cert| fresh(cert, left)) {
                Some(cert) => plan.kept.push((member, cert)),
                None => plan.issue.push((member, key.clone())),
            }
        }
        let same = plan.issue.is_empty()
            && seen
                .shards
                .get(index)
                .is_some_and(|shard| says(shard, &plan, &seen.family));
        if !same {
            plans.push(plan);
        }
    }
    plans
}

/// Members whose certificate we issue: ours that can show one, and those outside whose identity we are told.
fn certified(seen: &FamilyObserved) -> Vec<Ed25519Identity> {
    let ours = seen
        .members
        .iter()
        .filter(|member| !member.c_tor)
        .map(|member| member.ed25519);
    let external = seen.family.spec.external_members.iter();
    let external = external.filter_map(|member| member.ed25519_id.as_ref()?.parse().ok());
    let mut certified: Vec<_> = ours.chain(external).collect();
    certified.sort();
    certified.dedup();
    certified
}

/// How many find no place.
pub(super) fn too_many(seen: &FamilyObserved) -> usize {
    certified(seen).len().saturating_sub(SHARDS_MAX * SHARD_MEMBERS_MAX)
}

/// Everybody stays where they are; who is new goes where there is room.
fn assign(certified: &[Ed25519Identity], found: &[FamilyBundle]) -> Vec<Vec<Ed25519Identity>> {
    let mut places: BTreeMap<Ed25519Identity, usize> = BTreeMap::new();
    for (index, bundle) in found.iter().enumerate() {
        for (owner, _) in &bundle.certs {
            places.entry(*owner).or_insert(index);
        }
    }
    let mut shards = vec![Vec::new(); SHARDS_MAX];
    let mut homeless = Vec::new();
    for member in certified {
        match places.get(member).and_then(|index| shards.get_mut(*index)) {
            Some(shard) if shard.len() < SHARD_MEMBERS_MAX => shard.push(*member),
            _ => homeless.push(*member),
        }
    }
    for member in homeless {
        if let Some(shard) = shards.iter_mut().find(|shard| shard.len() < SHARD_MEMBERS_MAX) {
            shard.push(member);
        }
    }
    shards
}

/// What stands there; nothing where it is not ours or cannot be read.
fn bundle_in(shard: &Seen<ConfigMap>) -> FamilyBundle {
    let text = shard.ours().and_then(|shard| shard.data.as_ref()?.get(BUNDLE_KEY));
    text.and_then(|text| FamilyBundle::parse(text).ok()).unwrap_or_default()
}

fn says(shard: &Seen<ConfigMap>, plan: &ShardPlan, family: &RelayFamily) -> bool {
    let wanted = config_map(family, plan, Vec::new());
    shard
        .ours()
        .is_some_and(|found| !crate::difference::differs(&wanted, found))
}

/// Issues what is lacking. `secrets` are keys of the family, in any order; a certificate whose key is not among them is
/// left out, and the next round will find it lacking.
#[must_use]
pub fn finish(family: &RelayFamily, plan: &ShardPlan, secrets: &[Ed25519Secret], now: SystemTime) -> ConfigMap {
    let issued = plan.issue.iter().filter_map(|(member, key)| {
        let secret = secrets.iter().find(|secret| secret.public() == key.id)?;
        let (kind, certified) = (CertType::FAMILY_IDENTITY, Certified::Key(*member));
        // Not a moment more than 30 days after the earliest descriptor that may carry it.
        let ends = now + LIFETIME - DAY / 24;
        Some((
            *member,
            Ed25519Cert::issue(kind, certified, ends, secret, NameSigner::Yes),
        ))
    });
    config_map(family, plan, issued.collect())
}

fn config_map(family: &RelayFamily, plan: &ShardPlan, issued: Vec<(Ed25519Identity, Ed25519Cert)>) -> ConfigMap {
    let mut certs = [plan.kept.clone(), issued].concat();
    // By member, then by family, so that the same facts make the same text.
    certs.sort_by_key(|(owner, cert)| (*owner, cert.named_signer().ok()));
    let bundle = FamilyBundle {
        members: plan.listed.clone(),
        certs,
    };
    let mut data = BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle.to_text())]);
    if plan.index == 0 {
        let lines = plan.listed.iter().map(|member| format!("MyFamily ${member}\n"));
        data.insert(TORRC_KEY.to_owned(), lines.collect());
    }
    ConfigMap {
        metadata: owned(family, names::family_shard(&family.name_any(), plan.index)),
        data: Some(data),
        ..Default::default()
    }
}
