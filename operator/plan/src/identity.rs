//! Which keys are this relay: the one question where a wrong answer cannot be mended.
//!
//! ```text
//!  status has one   Secret      verdict
//!  no               absent      Create     the only case in which keys are made
//!  no               ours        Bound      made before the status was written, or kept from an earlier Relay
//!  yes              the same    Bound
//!  yes              absent      Missing    nothing is started: other keys would be another relay
//!  yes              another     Mismatch
//!  either           foreign     NameTaken
//! ```

use kube::ResourceExt as _;
use operator_api::{IdentityStatus, names};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use crate::observed::{Observed, Seen, annotation};

/// What the identity Secret and the status say together.
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
}

/// Puts status and Secret side by side.
#[must_use]
pub fn identity_verdict(seen: &Observed) -> IdentityVerdict {
    let recorded = seen.relay.status.as_ref().and_then(|status| status.identity.clone());
    let (meta, found) = match &seen.identity {
        Seen::Foreign => return IdentityVerdict::NameTaken,
        Seen::Absent => return recorded.map_or(IdentityVerdict::Create, IdentityVerdict::Missing),
        Seen::Ours(secret) => (&secret.metadata, said_by(seen)),
    };
    match (recorded, found) {
        (_, None) => IdentityVerdict::Unreadable,
        (Some(recorded), Some(found)) if recorded != found => IdentityVerdict::Mismatch { recorded, found },
        (_, Some(identity)) => IdentityVerdict::Bound {
            identity,
            deletion_asked: meta.deletion_timestamp.is_some(),
        },
    }
}

fn said_by(seen: &Observed) -> Option<IdentityStatus> {
    let meta = &seen.identity.ours()?.metadata;
    let rsa: RsaIdentity = annotation(meta, names::ANNOTATION_RSA)?.parse().ok()?;
    let ed25519: Ed25519Identity = annotation(meta, names::ANNOTATION_ED25519)?.parse().ok()?;
    Some(IdentityStatus {
        rsa_fingerprint: rsa.to_string(),
        ed25519_id: ed25519.to_string(),
        secret_name: names::identity_secret(&seen.relay.name_any()),
    })
}
