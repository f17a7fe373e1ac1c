//! From what was seen to what the family says of itself.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{RelayFamilyStatus, condition};

use super::key::{self, KeyVerdict};
use super::shard::{ShardPlan, too_many};
use super::{FamilyObserved, LIST_MAX, SHARD_MEMBERS_MAX, SHARDS_MAX, listed};
use crate::hurdles::{Hurdle, taken};
use crate::observed::Seen;
use crate::status::judged;

/// What keeps the family from Ready, first what its owner should look at first.
pub(super) fn hurdle(seen: &FamilyObserved, keys: &KeyVerdict, shards: &[ShardPlan]) -> Option<Hurdle> {
    let foreign = |object: &Seen<ConfigMap>| matches!(object, Seen::Foreign);
    let list = listed(seen).len();
    match keys {
        KeyVerdict::Create(_) => return Some(Hurdle::passing("CreatingKey", "the family's key is being made")),
        KeyVerdict::Missing { id, secret_name } => {
            return Some(Hurdle::standing(
                "KeyMissing",
                format!(
                    "Secret {secret_name} in the operator's namespace, with the family's key {}, is gone. Certificates are no \
                     longer renewed; the last end within 30 days. Restore it from a backup, or raise spec.rotation.generation \
                     by one for another key",
                    id.id
                ),
            ));
        }
        KeyVerdict::Unreadable => {
            return Some(Hurdle::standing(
                "KeyUnreadable",
                "the family key's Secret holds another key than the status names, or its annotation relayfleet.io/family-ids \
                 is none. Put the right one back, or raise spec.rotation.generation by one for another key",
            ));
        }
        KeyVerdict::NameTaken => return Some(taken("Secret")),
        KeyVerdict::Bound(_) => {}
    }
    if seen.shards.iter().any(foreign) || foreign(&seen.well_known) {
        return Some(taken("ConfigMap"));
    }
    if matches!(seen.shared, Seen::Foreign) {
        return Some(taken("Secret"));
    }
    if too_many(seen) > 0 {
        return Some(Hurdle::standing(
            "TooManyMembers",
            format!(
                "{} members have no certificate: a family has room for {}. Make a second family",
                too_many(seen),
                SHARDS_MAX * SHARD_MEMBERS_MAX
            ),
        ));
    }
    if seen.family.spec.legacy_list && list > LIST_MAX {
        return Some(Hurdle::standing(
            "ListTooLong",
            format!(
                "{list} members do not fit into the classic list of a descriptor ({LIST_MAX} do), so it is left out. Set \
                 spec.legacyList to false to say that certificates are enough"
            ),
        ));
    }
    shards
        .iter()
        .any(|shard| !shard.issue.is_empty())
        .then(|| Hurdle::passing("Issuing", "certificates are being issued"))
}

/// A key once told stays told while it is the present one, whatever happens to its Secret.
pub(super) fn status(
    seen: &FamilyObserved,
    keys: &KeyVerdict,
    hurdle: Option<&Hurdle>,
    now: &Time,
) -> RelayFamilyStatus {
    let before = seen.family.status.clone().unwrap_or_default();
    let generation = seen.family.metadata.generation;
    let ready = match hurdle {
        Some(hurdle) => Err(hurdle.clone()),
        None => Ok((
            "Issued",
            "every member has a certificate of every key of the family".to_owned(),
        )),
    };
    RelayFamilyStatus {
        observed_generation: generation,
        conditions: vec![judged(&before.conditions, condition::READY, ready, generation, now)],
        family_ids: match keys {
            KeyVerdict::Bound(keys) => key::told(keys),
            _ => before.family_ids,
        },
        members: i32::try_from(seen.members.len()).unwrap_or(i32::MAX),
    }
}
