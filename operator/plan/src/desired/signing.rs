//! The Secret with the signing key: what a pod gets instead of the master key, for some days.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use operator_api::{Custody, Relay, names};
use rand::CryptoRng;
use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::key_file::{self, Ed25519Role, KeyFileError};

use super::owned;
use crate::identity::custody_of;
use crate::observed::{Observed, annotation};

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The keeper's Secret lacks the master key.
    #[error("the Secret with the identity lacks {}", key_file::MASTER_SECRET)]
    NoMaster,
    /// It is no key file.
    #[error("the Secret with the identity: {0}")]
    KeyFile(#[from] KeyFileError),
    /// It is another relay's.
    #[error("the Secret with the identity holds the master key of {found}, not of {wanted}")]
    Another {
        /// Whose it is.
        found: Ed25519Identity,
        /// Whose it should be.
        wanted: Ed25519Identity,
    },
}

/// Draws a signing key, has the master key in the keeper's Secret certify it, and makes the pod's Secret of both.
///
/// # Errors
/// See [`SigningError`].
pub fn new_signing(
    relay: &Relay,
    keeper: &Secret,
    identity: &Ed25519Identity,
    now: SystemTime,
    dice: &mut impl CryptoRng,
) -> Result<Secret, SigningError> {
    let file = keeper.data.as_ref().and_then(|data| data.get(key_file::MASTER_SECRET));
    let master = key_file::decode_ed25519_secret(Ed25519Role::Master, &file.ok_or(SigningError::NoMaster)?.0)?;
    let (found, wanted) = (master.public(), *identity);
    if found != wanted {
        return Err(SigningError::Another { found, wanted });
    }
    let key = Ed25519Secret::generate(dice);
    let ends = now + relay.spec.identity.signing_key_lifetime.duration();
    let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(key.public()));
    let cert = Ed25519Cert::issue(kind, certified, ends, &master, NameSigner::Yes);
    let secret = key_file::encode_ed25519_secret(Ed25519Role::Signing, &key);
    let data = [
        (key_file::SIGNING_SECRET.to_owned(), ByteString(secret.to_vec())),
        (
            key_file::SIGNING_CERT.to_owned(),
            ByteString(key_file::encode_signing_cert(&cert)),
        ),
    ];
    let annotations = [
        (names::ANNOTATION_ED25519, identity.to_string()),
        (names::ANNOTATION_SIGNING_EXPIRES, time_text(cert.expires())),
    ];
    let mut metadata = owned(relay, names::signing_secret(&relay.name_any()));
    metadata.annotations = Some(annotations.map(|(key, value)| (key.to_owned(), value)).into());
    Ok(Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_SIGNING.to_owned()),
        data: Some(data.into()),
        ..Default::default()
    })
}

/// When the pod's signing key ends, as its Secret says; `None` where there is none for this identity.
#[must_use]
pub fn expires(seen: &Observed, ed25519_id: &str) -> Option<Timestamp> {
    let meta = &seen.signing.ours()?.metadata;
    let of_this = annotation(meta, names::ANNOTATION_ED25519) == Some(ed25519_id);
    annotation(meta, names::ANNOTATION_SIGNING_EXPIRES)?
        .parse()
        .ok()
        .filter(|_| of_this)
}

/// Whether a new one is due: where there is none, or when half of its time is left.
#[must_use]
pub fn is_due(seen: &Observed, ed25519_id: &str, now: Timestamp) -> bool {
    custody_of(&seen.relay) == Custody::Operator
        && expires(seen, ed25519_id).is_none_or(|ends| left(ends, now) <= lifetime(&seen.relay) / 2)
}

/// Whether the renewal is overdue: a day, or a quarter of its time if that is less, after it was due.
#[must_use]
pub fn is_overdue(relay: &Relay, ends: Timestamp, now: Timestamp) -> bool {
    let (lifetime, day) = (lifetime(relay), Duration::from_secs(86_400));
    left(ends, now) + day.min(lifetime / 4) <= lifetime / 2
}

/// Zero once it has ended.
fn left(ends: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(ends.duration_since(now)).unwrap_or_default()
}

fn lifetime(relay: &Relay) -> Duration {
    relay.spec.identity.signing_key_lifetime.duration()
}

fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MIN).to_string()
}
