//! The Secrets with the keys that are the relay, in C tor's own files.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use operator_api::{Custody, Relay, names};
use rand::CryptoRng;
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::rsa_key::{RsaKeyError, RsaSecret};

use super::{kept, owned};
use crate::identity::custody_of;
use crate::settings::Settings;

/// Draws both keys of a new relay and makes the keeper's Secret for them: beside the Relay, or in the operator's namespace.
///
/// It is for `create` alone: immutable, held by a finalizer that the operator never takes away, owned by nobody. It has
/// the whole identity, so that one write makes it and one Secret backs it up.
///
/// # Errors
/// [`RsaKeyError`] if no RSA key can be made.
pub fn new_identity(relay: &Relay, settings: &Settings, dice: &mut impl CryptoRng) -> Result<Secret, RsaKeyError> {
    let (rsa, ed25519) = (RsaSecret::generate(dice)?, Ed25519Secret::generate(dice));
    let files: [(&str, Vec<u8>); 3] = [
        (key_file::RSA_IDENTITY, rsa.to_pem()?.as_bytes().to_vec()),
        (
            key_file::MASTER_SECRET,
            key_file::encode_ed25519_secret(Ed25519Role::Master, &ed25519).to_vec(),
        ),
        (
            key_file::MASTER_PUBLIC,
            key_file::encode_master_public(&ed25519.public()),
        ),
    ];
    let custody = custody_of(relay);
    let annotations = [
        (names::ANNOTATION_RSA, rsa.public().identity().to_string()),
        (names::ANNOTATION_ED25519, ed25519.public().to_string()),
        (names::ANNOTATION_CUSTODY, custody_text(custody).to_owned()),
    ];
    let namespace = relay.namespace().unwrap_or_default();
    let mut metadata = match custody {
        Custody::InPod => kept(relay, names::identity_secret(&relay.name_any())),
        Custody::Operator => {
            let mut metadata = kept(relay, names::custody_secret(&namespace, &relay.name_any()));
            metadata.namespace = Some(settings.custody_namespace.clone());
            metadata
                .labels
                .get_or_insert_default()
                .insert(names::LABEL_NAMESPACE.to_owned(), namespace);
            metadata
        }
    };
    metadata.annotations = Some(annotations.map(|(key, value)| (key.to_owned(), value)).into());
    metadata.finalizers = Some(vec![names::FINALIZER_IDENTITY.to_owned()]);
    Ok(Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_IDENTITY.to_owned()),
        immutable: Some(true),
        data: Some(
            files
                .map(|(name, bytes)| (name.to_owned(), ByteString(bytes)))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        ),
        ..Default::default()
    })
}

/// What the pod gets of an identity that the operator keeps: all but the master key. It goes with the Relay, for it can be
/// made again. `None` if the keeper's Secret lacks a file.
#[must_use]
pub fn pods_part(relay: &Relay, keeper: &Secret) -> Option<Secret> {
    let file = |name: &str| Some((name.to_owned(), keeper.data.as_ref()?.get(name)?.clone()));
    let data = [file(key_file::RSA_IDENTITY)?, file(key_file::MASTER_PUBLIC)?];
    let mut metadata = owned(relay, names::identity_secret(&relay.name_any()));
    metadata.annotations.clone_from(&keeper.metadata.annotations);
    Some(Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_IDENTITY.to_owned()),
        immutable: Some(true),
        data: Some(data.into()),
        ..Default::default()
    })
}

fn custody_text(custody: Custody) -> &'static str {
    match custody {
        Custody::Operator => "Operator",
        Custody::InPod => "InPod",
    }
}
