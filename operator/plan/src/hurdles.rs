//! What keeps a Relay from Ready, and what its owner can do about it.

mod container;
pub(crate) mod pod;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::IdentityStatus;

use crate::identity::IdentityVerdict;
use crate::observed::{Observed, Seen};
use crate::validate::{Accepted, Refusal};

/// One reason, in the words of the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hurdle {
    /// One CamelCase word, for the condition.
    pub reason: &'static str,
    /// What happened and what to do about it.
    pub message: String,
    /// Nobody needs to do anything: it passes by itself.
    pub passing: bool,
}

impl Hurdle {
    pub(crate) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            passing: true,
        }
    }

    pub(crate) fn standing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            passing: false,
        }
    }
}

/// What the hurdles look at: the facts, and what was made of them.
pub(crate) struct View<'a> {
    pub(crate) seen: &'a Observed,
    pub(crate) accepted: &'a Result<Accepted, Refusal>,
    pub(crate) identity: &'a IdentityVerdict,
    /// The hash that the pod should bear.
    pub(crate) pod_hash: Option<&'a str>,
    /// What an earlier operator would have put in its place.
    pub(crate) earlier_hash: Option<String>,
    pub(crate) now: &'a Time,
}

/// In the order in which the owner should look: what stands at the end is often a consequence of what stands before it.
const HURDLES: [fn(&View<'_>) -> Option<Hurdle>; 8] = [
    config_refused,
    identity_not_bound,
    name_taken,
    volume_of_another,
    pod::absent,
    pod::going,
    pod::stuck,
    pod::not_listening,
];

pub(crate) fn first_hurdle(view: &View<'_>) -> Option<Hurdle> {
    HURDLES.iter().find_map(|hurdle| hurdle(view))
}

pub(crate) fn config_refused(view: &View<'_>) -> Option<Hurdle> {
    let refusal = view.accepted.as_ref().err()?;
    let reason = match refusal {
        Refusal::NetworkMissing { .. } => "NetworkMissing",
        Refusal::Network { .. } => "NetworkInvalid",
        Refusal::FamilyMissing(_) => "FamilyMissing",
        Refusal::PoolMissing(_) => "PoolMissing",
        Refusal::PoolForbidden => "PoolForbidden",
        Refusal::PoolNotAllowed { .. } => "PoolNotAllowed",
        Refusal::AwaitingAddress(_) => "AwaitingAddress",
        Refusal::PodSecurity { .. } => "PodSecurity",
        Refusal::NoTorImage => "NoImage",
        Refusal::Torrc { .. } => "TorrcRefused",
        _ => "SpecInvalid",
    };
    let passing = matches!(refusal, Refusal::AwaitingAddress(_));
    let message = refusal.to_string();
    Some(Hurdle {
        reason,
        message,
        passing,
    })
}

pub(crate) fn identity_not_bound(view: &View<'_>) -> Option<Hurdle> {
    let hurdle = match view.identity {
        IdentityVerdict::Bound { .. } => return None,
        IdentityVerdict::Create => Hurdle::passing("CreatingIdentity", "the relay's keys are being made"),
        IdentityVerdict::Missing(identity) => Hurdle::standing(
            "IdentityMissing",
            format!(
                "Secret {}{} with the keys of {} is gone. Nothing is started, for other keys would be another relay. Restore \
                 the Secret from a backup; or, to begin a new relay, delete this Relay and its volume claim and apply it again",
                identity.secret_name,
                in_namespace(identity),
                identity.rsa_fingerprint
            ),
        ),
        IdentityVerdict::Mismatch { recorded, found } => Hurdle::standing(
            "IdentityMismatch",
            format!(
                "Secret {} holds the keys of {}, but this Relay is {}. Nothing is started. Put the right Secret back; or \
                 delete the Relay and apply it again to run the other identity",
                found.secret_name, found.rsa_fingerprint, recorded.rsa_fingerprint
            ),
        ),
        IdentityVerdict::Unreadable => Hurdle::standing(
            "IdentityUnreadable",
            "the identity Secret lacks the annotations relayfleet.io/rsa-fingerprint and relayfleet.io/ed25519-id, or they \
             are no fingerprints. Nothing is started. Put them back from the relay's descriptor or a backup",
        ),
        IdentityVerdict::NameTaken => taken("Secret"),
        IdentityVerdict::WrongCustody { kept_by, secret_name } => Hurdle::standing(
            "WrongCustody",
            format!(
                "Secret {secret_name} has the relay's keys, which are in the custody of {kept_by:?}. Keys are never moved \
                 silently, and nothing is started. Set spec.identity.custody to {kept_by:?}; or, for another relay, apply it \
                 under another name"
            ),
        ),
    };
    Some(hurdle)
}

fn in_namespace(identity: &IdentityStatus) -> String {
    let namespace = identity.secret_namespace.as_ref();
    namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
}

pub(crate) fn taken(kind: &str) -> Hurdle {
    Hurdle::standing(
        "NameTaken",
        format!(
            "a {kind} with the name that the relay needs exists and is not the operator's. Nothing is started. Rename or \
             delete it, or give the Relay another name"
        ),
    )
}

fn name_taken(view: &View<'_>) -> Option<Hurdle> {
    fn kind<T>(object: &Seen<T>, kind: &'static str) -> Option<&'static str> {
        matches!(object, Seen::Foreign).then_some(kind)
    }
    let seen = view.seen;
    kind(&seen.torrc, "ConfigMap")
        .or(kind(&seen.signing, "Secret"))
        .or(kind(&seen.token, "Secret"))
        .or(kind(&seen.claim, "PersistentVolumeClaim"))
        .or(kind(&seen.service, "Service"))
        .or(kind(&seen.pod, "Pod"))
        .map(taken)
}

fn volume_of_another(view: &View<'_>) -> Option<Hurdle> {
    use operator_api::names;
    let claim = view.seen.claim.ours()?;
    let on_volume = crate::observed::annotation(&claim.metadata, names::ANNOTATION_RSA)?;
    let IdentityVerdict::Bound { identity, .. } = view.identity else {
        return None;
    };
    (on_volume != identity.rsa_fingerprint).then(|| {
        Hurdle::standing(
            "VolumeOfAnother",
            format!(
                "the volume claim was made for {on_volume}, but the Secret holds the keys of {}. Nothing is started. Delete \
                 the claim if the old relay's data may go, or put the old relay's Secret back",
                identity.rsa_fingerprint
            ),
        )
    })
}

/// True if a pod may be made or replaced: all that it would mount is there or will be, and is ours.
pub(crate) fn may_start(view: &View<'_>) -> bool {
    let before: [fn(&View<'_>) -> Option<Hurdle>; 4] =
        [config_refused, identity_not_bound, name_taken, volume_of_another];
    before.iter().all(|hurdle| hurdle(view).is_none())
}
