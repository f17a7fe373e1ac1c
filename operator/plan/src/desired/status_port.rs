//! The relay's status port: where it is, who may ask there, and what becomes of the answer.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use operator_api::{DirectoryStatus, Engine, Exposure, Relay, names};
use rand::CryptoRng;
use relay_formats::facts::Facts;
use sha2::{Digest as _, Sha256};

use super::owned;
use crate::pool::Place;

/// Key in the Secret with the token, and the file's name in the pod.
pub const TOKEN_KEY: &str = "status-token";
/// Key in the Secret with [`names::STATUS_KEY_SECRET`].
const SECRET_KEY: &str = "key";
const STATUS_PORT: u16 = 9099;
/// As in C tor's manual.
const METRICS_PORT: u16 = 9035;

/// Where the relay tells its status; C tor does not. On a node's own network it is so far from the ORPort, as that differs
/// from relay to relay there.
#[must_use]
pub fn status_port(relay: &Relay, or_port: u16, place: Option<&Place>) -> Option<u16> {
    let port = beside(or_port, place, STATUS_PORT, 10_000);
    (relay.spec.engine == Engine::Builtin).then_some(port)
}

/// Where the relay tells its metrics, if it should.
#[must_use]
pub fn metrics_port(or_port: u16, place: Option<&Place>) -> u16 {
    beside(or_port, place, METRICS_PORT, 20_000)
}

fn beside(or_port: u16, place: Option<&Place>, usual: u16, far: u16) -> u16 {
    if place.is_some_and(|place| place.exposure == Exposure::HostNetwork) {
        return or_port.checked_add(far).unwrap_or_else(|| or_port.saturating_sub(far));
    }
    if or_port == usual { usual + 1 } else { usual }
}

/// What one who asks this relay must show: nobody can tell it from another relay's.
#[must_use]
pub fn status_token(key: &[u8; 32], relay: &Relay) -> String {
    let name = format!("{}/{}", relay.namespace().unwrap_or_default(), relay.name_any());
    let inner = Sha256::new().chain_update(key).chain_update(name).finalize();
    hex::encode(Sha256::new().chain_update(key).chain_update(inner).finalize())
}

/// What the Secret's annotation says of the token in it, so that nobody need read the Secret to know whether it is the right one.
#[must_use]
pub fn token_hash(key: &[u8; 32], relay: &Relay) -> String {
    hex::encode(Sha256::digest(status_token(key, relay)))
}

/// The Secret with the relay's token, for its pod alone. It goes with the Relay, for it can be made again.
#[must_use]
pub fn token_secret(key: &[u8; 32], relay: &Relay) -> Secret {
    let token = ByteString(status_token(key, relay).into_bytes());
    let mut metadata = owned(relay, names::status_secret(&relay.name_any()));
    metadata.annotations = Some([(names::ANNOTATION_TOKEN_HASH.to_owned(), token_hash(key, relay))].into());
    Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_STATUS.to_owned()),
        data: Some([(TOKEN_KEY.to_owned(), token)].into()),
        ..Default::default()
    }
}

/// The Secret with the key of all tokens, freshly drawn.
#[must_use]
pub fn new_key_secret(namespace: &str, dice: &mut impl CryptoRng) -> Secret {
    let mut key = [0; 32];
    dice.fill_bytes(&mut key);
    Secret {
        metadata: ObjectMeta {
            name: Some(names::STATUS_KEY_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned())].into()),
            ..Default::default()
        },
        data: Some([(SECRET_KEY.to_owned(), ByteString(key.to_vec()))].into()),
        ..Default::default()
    }
}

/// `None` if somebody put something else there.
#[must_use]
pub fn read_key(secret: &Secret) -> Option<[u8; 32]> {
    secret.data.as_ref()?.get(SECRET_KEY)?.0.as_slice().try_into().ok()
}

/// What the status keeps of a relay's answer: nothing that changes with every consensus.
#[must_use]
pub fn directory_status(facts: &Facts, pod_uid: &str, now: SystemTime) -> DirectoryStatus {
    let consensus = facts.consensus.as_ref();
    let listed = consensus.and_then(|consensus| consensus.listed.as_ref());
    let in_consensus = facts.is_in_consensus(now);
    let since_start = consensus.is_some_and(|consensus| consensus.valid_after > facts.started_at);
    DirectoryStatus {
        pod_uid: pod_uid.to_owned(),
        published: facts.is_published(),
        in_consensus,
        listed_since_start: in_consensus && since_start,
        flags: listed.map(|listed| listed.flags.join(",")).unwrap_or_default(),
        consensus_weight: listed.map(|listed| i64::from(listed.weight)),
        overloaded: was_overloaded(facts, now),
        listed_elsewhere: facts.listed_elsewhere().map(|address| address.to_string()),
    }
}

/// A relay tells of overload for 72 hours (dir-spec 2.1.1, `overload-general`).
fn was_overloaded(facts: &Facts, now: SystemTime) -> bool {
    let told = Duration::from_secs(72 * 3_600);
    let at = facts.overload.general_at.map(|at| at.0);
    at.is_some_and(|at| now.duration_since(at).unwrap_or_default() < told)
}

/// Whether the status should say something new. Weights move a little with every consensus: a fleet at rest writes nothing.
#[must_use]
pub fn is_news(before: Option<&DirectoryStatus>, now: &DirectoryStatus) -> bool {
    let Some(before) = before else { return true };
    let known = match (before.consensus_weight, now.consensus_weight) {
        (Some(old), Some(new)) if old.abs_diff(new).saturating_mul(4) <= old.unsigned_abs() => before.consensus_weight,
        _ => now.consensus_weight,
    };
    let steadied = DirectoryStatus {
        consensus_weight: known,
        ..now.clone()
    };
    *before != steadied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_that_moves_a_little_is_no_news() {
        let with = |consensus_weight| DirectoryStatus {
            consensus_weight,
            ..Default::default()
        };
        assert!(is_news(None, &with(None)));
        assert!(!is_news(Some(&with(Some(100))), &with(Some(125))));
        assert!(is_news(Some(&with(Some(100))), &with(Some(126))));
        assert!(is_news(Some(&with(Some(100))), &with(None)));
        let published = DirectoryStatus {
            published: true,
            ..with(Some(101))
        };
        assert!(is_news(Some(&with(Some(100))), &published));
    }

    #[test]
    fn overload_is_told_for_three_days() {
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(3_600 * hours);
        let told = |overload: &str, hours| {
            let text = format!(
                r#"{{"version": 1, "program": "r", "startedAt": "1970-01-01T00:00:00Z", "toldAt": "1970-01-01T00:00:00Z",
                "identity": {{"nickname": "r", "fingerprint": "{}", "ed25519": "{}"}}, "listening": [], "retiring": false,
                "addresses": [], "families": [], "overload": {overload},
                "signingKey": {{"expiresAt": "1970-02-01T00:00:00Z", "offlineMaster": true}}}}"#,
                "AB".repeat(20),
                "A".repeat(43),
            );
            directory_status(&serde_json::from_str(&text).unwrap(), "pod", at(hours)).overloaded
        };
        let general = r#"{"generalAt": "1970-01-01T01:00:00Z"}"#;
        assert!(told(general, 72) && !told(general, 73) && !told("{}", 2));
    }
}
