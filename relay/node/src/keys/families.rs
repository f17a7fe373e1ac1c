//! What makes us one of a family: its secret keys, where they are here, or its keeper's bundles.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use relay_formats::cert::Ed25519Cert;
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::family_bundle::{BYTES_MAX, FILE_SUFFIX, FamilyBundle};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use super::{FamilyChoice, KeyPlan, KeysError, files};

/// More bundles than any family's keeper makes.
const BUNDLES_MAX: usize = 64;
/// Authorities may refuse a descriptor with more (proposal 321).
const CERTS_MAX: usize = 3;

/// The secrets that `FamilyId` names.
pub(super) fn load_secrets(plan: &KeyPlan) -> Result<Vec<Arc<Ed25519Secret>>, KeysError> {
    if plan.families == FamilyChoice::Named(Vec::new()) {
        return Ok(Vec::new());
    }
    let found = files::family_keys(&plan.family_key_directory)?;
    match &plan.families {
        FamilyChoice::AllFound => Ok(found.into_iter().map(Arc::new).collect()),
        FamilyChoice::Named(wanted) => {
            let missing = wanted.iter().find(|id| !found.iter().any(|key| key.public() == **id));
            if let Some(missing) = missing {
                return Err(KeysError::NoFamilyKey(*missing));
            }
            Ok(found
                .into_iter()
                .filter(|key| wanted.contains(&key.public()))
                .map(Arc::new)
                .collect())
        }
    }
}

/// What the bundles say to this relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyWord {
    /// Members for the descriptor's `family` line, sorted.
    pub members: Vec<RsaIdentity>,
    /// Certificates for us, valid when they were read.
    pub certs: Vec<Ed25519Cert>,
}

/// Reads every bundle in `FamilyDirectory`. One that cannot be read is passed over with a warning: a family is no reason
/// to be no relay.
pub(super) fn load_word(plan: &KeyPlan, us: &Ed25519Identity, now: SystemTime) -> FamilyWord {
    let mut word = FamilyWord::default();
    let Some(directory) = &plan.family_directory else {
        return word;
    };
    for path in bundles_in(directory) {
        match read(&path) {
            Ok(bundle) => {
                word.certs.extend(bundle.valid_certs_of(us, now));
                word.members.extend(bundle.members);
            }
            Err(why) => tracing::warn!("{}: {why}; going on without it", path.display()),
        }
    }
    word.members.sort();
    word.members.dedup();
    word.certs.truncate(CERTS_MAX);
    word
}

/// Files `*.family`, in the order of their names.
pub(super) fn bundles_in(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!("FamilyDirectory {}: {error}", directory.display());
            }
            return Vec::new();
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut bundles: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(FILE_SUFFIX))
        .collect();
    bundles.sort();
    bundles.truncate(BUNDLES_MAX);
    bundles
}

fn read(path: &Path) -> Result<FamilyBundle, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > BYTES_MAX as u64 {
        return Err(format!("has {length} bytes; at most {BYTES_MAX} are read"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    FamilyBundle::parse(&text).map_err(|error| error.to_string())
}
