//! A family's keys: each made once, in the operator's namespace, and never replaced silently.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use operator_api::{FamilyId, FamilyIdState, RelayFamily, names};
use rand::CryptoRng;
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::key_file::{self, Ed25519Role, KeyFileError};

use super::{FamilyObserved, labels, owned};
use crate::observed::{Seen, annotation};
use crate::settings::Settings;

/// A key that members show at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyKey {
    /// Its public half.
    pub id: Ed25519Identity,
    /// The value of `spec.rotation.generation` that it was made for.
    pub generation: i32,
}

/// What the family's key Secrets and its status say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyVerdict {
    /// No key of this generation yet, and never any: make it.
    Create(i32),
    /// The keys to show, newest first.
    Bound(Vec<FamilyKey>),
    /// The status names a key that is gone.
    Missing {
        /// The key.
        id: FamilyId,
        /// The Secret that held it.
        secret_name: String,
    },
    /// The Secret does not say whose key it holds, or another than the status names.
    Unreadable,
    /// A Secret of that name is not ours.
    NameTaken,
}

/// Puts status and Secrets side by side.
#[must_use]
pub fn key_verdict(seen: &FamilyObserved, now: Timestamp) -> KeyVerdict {
    let generation = seen.family.spec.rotation.generation;
    let recorded = seen.family.status.iter().flat_map(|status| &status.family_ids);
    let recorded = recorded.clone().find(|id| id.generation == generation);
    let [present, before] = &seen.keys;
    let secret = match (present, recorded) {
        (Seen::Foreign, _) => return KeyVerdict::NameTaken,
        (Seen::Absent, None) => return KeyVerdict::Create(generation),
        (Seen::Absent, Some(id)) => {
            let (namespace, name) = (seen.family.namespace().unwrap_or_default(), seen.family.name_any());
            return KeyVerdict::Missing {
                id: id.clone(),
                secret_name: names::family_key_secret(&namespace, &name, generation),
            };
        }
        (Seen::Ours(secret), _) => secret,
    };
    let Some(id) = id_of(secret) else {
        return KeyVerdict::Unreadable;
    };
    if recorded.is_some_and(|recorded| recorded.id != id.to_string()) {
        return KeyVerdict::Unreadable;
    }
    let overlap = seen.family.spec.rotation.overlap.duration();
    let made = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let retiring = made.is_none_or(|made| {
        let age = now.duration_since(made);
        std::time::Duration::try_from(age).unwrap_or_default() < overlap
    });
    let old = before.ours().filter(|_| retiring).and_then(id_of).map(|id| FamilyKey {
        id,
        generation: generation - 1,
    });
    KeyVerdict::Bound([FamilyKey { id, generation }].into_iter().chain(old).collect())
}

fn id_of(secret: &PartialObjectMeta<Secret>) -> Option<Ed25519Identity> {
    annotation(&secret.metadata, names::ANNOTATION_FAMILY_IDS)?.parse().ok()
}

/// As the annotation of what shows these keys has it.
#[must_use]
pub fn ids_text(keys: &[FamilyKey]) -> String {
    let ids: Vec<String> = keys.iter().map(|key| key.id.to_string()).collect();
    ids.join(",")
}

/// For the status.
pub(super) fn told(keys: &[FamilyKey]) -> Vec<FamilyId> {
    let states = std::iter::once(FamilyIdState::Active).chain(std::iter::repeat(FamilyIdState::Retiring));
    let told = keys.iter().zip(states);
    told.map(|(key, state)| FamilyId {
        id: key.id.to_string(),
        generation: key.generation,
        state,
    })
    .collect()
}

/// Draws a key of a family and makes the Secret for it. For `create` alone: immutable, held by a finalizer that the operator
/// never takes away, owned by nobody.
#[must_use]
pub fn new_key(family: &RelayFamily, generation: i32, settings: &Settings, dice: &mut impl CryptoRng) -> Secret {
    let (namespace, name) = (family.namespace().unwrap_or_default(), family.name_any());
    let key = Ed25519Secret::generate(dice);
    let mut metadata = owned(family, names::family_key_secret(&namespace, &name, generation));
    metadata.owner_references = None;
    metadata.namespace = Some(settings.custody_namespace.clone());
    let mut labels = labels(family);
    labels.insert(names::LABEL_NAMESPACE.to_owned(), namespace);
    metadata.labels = Some(labels);
    metadata.annotations = Some([(names::ANNOTATION_FAMILY_IDS.to_owned(), key.public().to_string())].into());
    metadata.finalizers = Some(vec![names::FINALIZER_FAMILY_KEY.to_owned()]);
    let file = key_file::encode_ed25519_secret(Ed25519Role::Family, &key);
    Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_FAMILY.to_owned()),
        immutable: Some(true),
        data: Some([(file_name(&name), ByteString(file.to_vec()))].into()),
        ..Default::default()
    }
}

/// The key in such a Secret.
///
/// # Errors
/// It lacks the key file, or that is none.
pub fn secret_key(family: &RelayFamily, kept: &Secret) -> Result<Ed25519Secret, KeyFileError> {
    let file = kept
        .data
        .as_ref()
        .and_then(|data| data.get(&file_name(&family.name_any())));
    key_file::decode_ed25519_secret(Ed25519Role::Family, file.map_or(&[], |file| &file.0))
}

/// The Secret beside the family with all its key files: C tor proves by the key itself.
#[must_use]
pub fn shared_keys(family: &RelayFamily, keys: &[FamilyKey], secrets: &[Ed25519Secret]) -> Secret {
    let mut metadata = owned(family, names::family_shared_secret(&family.name_any()));
    metadata.annotations = Some([(names::ANNOTATION_FAMILY_IDS.to_owned(), ids_text(keys))].into());
    let files = keys.iter().zip(secrets).map(|(key, secret)| {
        let file = key_file::encode_ed25519_secret(Ed25519Role::Family, secret);
        (
            format!(
                "{}-{}{}",
                family.name_any(),
                key.generation,
                key_file::FAMILY_SECRET_SUFFIX
            ),
            ByteString(file.to_vec()),
        )
    });
    Secret {
        metadata,
        type_: Some(names::SECRET_TYPE_FAMILY.to_owned()),
        data: Some(files.collect()),
        ..Default::default()
    }
}

fn file_name(family: &str) -> String {
    format!("{family}{}", key_file::FAMILY_SECRET_SUFFIX)
}
