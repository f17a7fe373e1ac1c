//! Which keys are this relay: the one question where a wrong answer cannot be mended.
//!
//! The Secret with the whole identity is the *keeper's*: with custody `InPod` it is `NAME-identity` beside the Relay, with
//! custody `Operator` it is `NAMESPACE.NAME.identity` in the operator's namespace, and `NAME-identity` is the pod's part of
//! it, without the master key, which can be made again at any time.
//!
//! ```text
//!  status has one   keeper's Secret   verdict
//!  no               absent            Create     the only case in which keys are made
//!  no               ours              Bound      made before the status was written, or kept from an earlier Relay
//!  yes              the same          Bound
//!  yes              absent            Missing    nothing is started: other keys would be another relay
//!  yes              another           Mismatch
//!  either           foreign           NameTaken
//!  keys where the other custody has them: WrongCustody, before all of these; keys are never moved silently
//! ```

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use operator_api::{Custody, IdentityStatus, Relay, names};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use crate::observed::{Observed, Seen, annotation};
use crate::settings::Settings;

/// What the identity Secrets and the status say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityVerdict {
    /// No keys yet, and never any: make them.
    Create,
    /// The keys are there.
    Bound {
        /// Whose they are.
        identity: IdentityStatus,
        /// Somebody has asked for the Secret's deletion; our finalizer holds it.
        deletion_asked: bool,
    },
    /// The status names keys that are gone.
    Missing(IdentityStatus),
    /// The Secret holds other keys than the status names.
    Mismatch {
        /// What the status says.
        recorded: IdentityStatus,
        /// What the Secret says.
        found: IdentityStatus,
    },
    /// The Secret bears our labels but does not say whose keys it holds.
    Unreadable,
    /// A Secret of that name is not ours.
    NameTaken,
    /// The keys are there, kept by another than the spec says.
    WrongCustody {
        /// Who has them.
        kept_by: Custody,
        /// The Secret.
        secret_name: String,
    },
}

/// Who should keep this relay's keys.
#[must_use]
pub fn custody_of(relay: &Relay) -> Custody {
    relay.spec.identity.custody(relay.spec.engine)
}

/// Puts status and Secrets side by side.
#[must_use]
pub fn identity_verdict(seen: &Observed, settings: &Settings) -> IdentityVerdict {
    let custody = custody_of(&seen.relay);
    if let Some(secret_name) = kept_otherwise(seen, custody) {
        let kept_by = match custody {
            Custody::Operator => Custody::InPod,
            Custody::InPod => Custody::Operator,
        };
        return IdentityVerdict::WrongCustody { kept_by, secret_name };
    }
    let keeper = match custody {
        Custody::Operator => &seen.custody,
        Custody::InPod => &seen.identity,
    };
    let recorded = seen.relay.status.as_ref().and_then(|status| status.identity.clone());
    let secret = match keeper {
        Seen::Foreign => return IdentityVerdict::NameTaken,
        Seen::Absent => return recorded.map_or(IdentityVerdict::Create, IdentityVerdict::Missing),
        Seen::Ours(secret) => secret,
    };
    let Some(found) = said_by(secret, seen, settings) else {
        return IdentityVerdict::Unreadable;
    };
    if let Some(recorded) = recorded
        && recorded != found
    {
        return IdentityVerdict::Mismatch { recorded, found };
    }
    // The pod's part must be of the same identity.
    match (custody, &seen.identity) {
        (Custody::Operator, Seen::Foreign) => return IdentityVerdict::NameTaken,
        (Custody::Operator, Seen::Ours(part)) => match said_by(part, seen, settings) {
            None => return IdentityVerdict::Unreadable,
            Some(other) if other != found => {
                let part_name = names::identity_secret(&seen.relay.name_any());
                let other = IdentityStatus {
                    secret_name: part_name,
                    secret_namespace: None,
                    ..other
                };
                return IdentityVerdict::Mismatch {
                    recorded: found,
                    found: other,
                };
            }
            Some(_) => {}
        },
        _ => {}
    }
    IdentityVerdict::Bound {
        identity: found,
        deletion_asked: secret.metadata.deletion_timestamp.is_some(),
    }
}

/// The Secret that has the master key although another should keep it.
fn kept_otherwise(seen: &Observed, custody: Custody) -> Option<String> {
    let made_for = |secret: &PartialObjectMeta<Secret>| {
        annotation(&secret.metadata, names::ANNOTATION_CUSTODY) == Some("Operator")
    };
    match custody {
        Custody::Operator => seen
            .identity
            .ours()
            .filter(|secret| !made_for(secret))
            .map(|secret| secret.name_any()),
        Custody::InPod => seen
            .custody
            .ours()
            .or_else(|| seen.identity.ours().filter(|secret| made_for(secret)))
            .map(|secret| secret.name_any()),
    }
}

fn said_by(secret: &PartialObjectMeta<Secret>, seen: &Observed, settings: &Settings) -> Option<IdentityStatus> {
    let meta = &secret.metadata;
    let rsa: RsaIdentity = annotation(meta, names::ANNOTATION_RSA)?.parse().ok()?;
    let ed25519: Ed25519Identity = annotation(meta, names::ANNOTATION_ED25519)?.parse().ok()?;
    Some(identity_status(&seen.relay, settings, &rsa, &ed25519))
}

/// How the status names an identity.
fn identity_status(relay: &Relay, settings: &Settings, rsa: &RsaIdentity, ed25519: &Ed25519Identity) -> IdentityStatus {
    let name = relay.name_any();
    let (secret_name, secret_namespace) = match custody_of(relay) {
        Custody::Operator => (
            names::custody_secret(&relay.namespace().unwrap_or_default(), &name),
            Some(settings.custody_namespace.clone()),
        ),
        Custody::InPod => (names::identity_secret(&name), None),
    };
    IdentityStatus {
        rsa_fingerprint: rsa.to_string(),
        ed25519_id: ed25519.to_string(),
        secret_name,
        secret_namespace,
    }
}
