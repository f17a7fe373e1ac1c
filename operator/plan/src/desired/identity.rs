//! The Secret with the keys that are the relay, in C tor's own files.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use operator_api::{Relay, names};
use rand::CryptoRng;
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::rsa_key::{RsaKeyError, RsaSecret};

use super::kept;

/// Draws both keys of a new relay and makes the Secret for them.
///
/// It is for `create` alone: immutable, held by a finalizer that the operator never takes away, owned by nobody.
///
/// # Errors
/// [`RsaKeyError`] if no RSA key can be made.
pub fn new_identity(relay: &Relay, dice: &mut impl CryptoRng) -> Result<Secret, RsaKeyError> {
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
    let annotations = [
        (names::ANNOTATION_RSA, rsa.public().identity().to_string()),
        (names::ANNOTATION_ED25519, ed25519.public().to_string()),
    ];
    let mut metadata = kept(relay, names::identity_secret(&relay.name_any()));
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
