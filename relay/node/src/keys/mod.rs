//! The relay's keys: what the files in the key directory hold, as C tor keeps them.
//!
//! [`Keys`] is a snapshot: renewing a key makes a new one. The master identity's secret is not in it; it is read
//! when a signing key must be certified and forgotten at once. Link keys live in memory only, in `link_keys`.

mod families;
mod files;
mod identity;
mod import;
mod onion;
mod signing;
mod stamps;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relay_formats::cert::{CertError, Ed25519Cert};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::key_file::KeyFileError;
use relay_formats::nickname::Nickname;
use relay_formats::onion_key::OnionKeyPair;
use relay_formats::rsa_key::{RsaKeyError, RsaSecret};

pub use families::FamilyWord;
pub use files::{DataLock, open_data_directory};
pub use import::{ImportError, import};
pub use stamps::Stamps;

/// The relay's keys at one time. Cheap to clone; no `Debug`: secrets have no voice.
#[derive(Clone)]
pub struct Keys {
    /// RSA identity, 1024 bits.
    pub rsa: Arc<RsaSecret>,
    /// The onion key of the TAP handshake, which nobody uses any more; descriptors still show its public half.
    pub tap: Arc<RsaSecret>,
    /// Ed25519 master identity.
    pub ed25519_identity: Ed25519Identity,
    /// The medium-term key that signs descriptors and link certificates.
    pub signing: Arc<Ed25519Secret>,
    /// The master key's certificate for it (type 4).
    pub signing_cert: Ed25519Cert,
    /// The ntor onion key that descriptors show.
    pub onion: Arc<OnionKeyPair>,
    /// The one before, while its grace lasts.
    pub onion_old: Option<Arc<OnionKeyPair>>,
    /// Keys of the families that torrc `FamilyId` names and whose secret we hold.
    pub families: Vec<Arc<Ed25519Secret>>,
    /// What the keepers of families say, whose keys are not here.
    pub family_word: FamilyWord,
}

impl Keys {
    /// SHA-1 of the RSA identity's DER: the fingerprint.
    pub fn rsa_identity(&self) -> RsaIdentity {
        self.rsa.public().identity()
    }
}

/// What loading needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct KeyPlan {
    /// Where the key files are.
    pub key_directory: PathBuf,
    /// Where the signing key and its certificate are: the key directory, or torrc `SigningKeyDirectory`.
    pub signing_directory: PathBuf,
    /// Where the fingerprint files go.
    pub data_directory: PathBuf,
    /// For the fingerprint files.
    pub nickname: Nickname,
    /// torrc `OfflineMasterKey`: never read or make the master's secret.
    pub offline_master: bool,
    /// torrc `SigningKeyLifetime`.
    pub signing_lifetime: Duration,
    /// torrc `FamilyId`: which families' secrets to load.
    pub families: FamilyChoice,
    /// torrc `FamilyKeyDirectory`.
    pub family_key_directory: PathBuf,
    /// torrc `FamilyDirectory`.
    pub family_directory: Option<PathBuf>,
}

/// torrc `FamilyId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FamilyChoice {
    /// These; none by default.
    Named(Vec<Ed25519Identity>),
    /// `*`: every family whose secret key file lies in the directory.
    AllFound,
}

/// Why the relay has no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file system refuses.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{path}: {error}", path = path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyFileError,
    },
    /// A PEM file that holds no RSA key of ours.
    #[error("{path}: {error}", path = path.display())]
    Rsa {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: RsaKeyError,
    },
    /// One half of the identity without the other. Making the missing half would make another relay of this one.
    #[error(
        "half an identity: {missing} is missing, but {present} is there. Restore the missing file from a backup, or move \
         all files of {directory} away to start as a new relay",
        directory = directory.display()
    )]
    HalfAnIdentity {
        /// The key directory.
        directory: PathBuf,
        /// What is not there.
        missing: String,
        /// What is.
        present: String,
    },
    /// Two files that belong to two relays.
    #[error("{path}: does not belong to the other identity files in its directory", path = path.display())]
    Mismatch {
        /// The file that stands out.
        path: PathBuf,
    },
    /// The signing key has run out, and the master key that could certify a new one is not here.
    #[error(
        "the signing key in {directory} {why}, and the master identity key is not there to make a new one. Run \
         tor --keygen where the master key is, and copy ed25519_signing_secret_key and ed25519_signing_cert here",
        directory = directory.display()
    )]
    NeedsMaster {
        /// The key directory.
        directory: PathBuf,
        /// `is missing`, `has expired`...
        why: String,
    },
    /// What lies on disk cannot be used, and the signing key in use still can.
    #[error("{0}. Going on with the signing key in use.")]
    NotYet(Box<KeysError>),
    /// The certificate of the signing key does not hold.
    #[error("{path}: {error}", path = path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: CertError,
    },
    /// A master key that needs a passphrase.
    #[error("{path}: reading a master key that is encrypted is not built yet; use tor --keygen", path = path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A family that torrc names, without its key.
    #[error("FamilyId {0}: no file *.secret_family_key in FamilyKeyDirectory holds its key")]
    NoFamilyKey(Ed25519Identity),
}

impl KeysError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::File { path, error }
    }

    fn rsa(path: &Path) -> impl FnOnce(RsaKeyError) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Rsa { path, error }
    }
}

/// `--keygen`: the master identity where there is none, and always a new signing key with its certificate. The identity,
/// and when the signing key ends.
///
/// # Errors
/// The master key is not here or is encrypted; or files that do not fit together.
pub fn keygen(plan: &KeyPlan, now: SystemTime) -> Result<(Ed25519Identity, SystemTime), KeysError> {
    let plan = KeyPlan {
        offline_master: false,
        ..plan.clone()
    };
    let master = identity::master_for_keygen(&plan)?;
    let ends = signing::make_anew(&plan, &master, now)?;
    Ok((master.public(), ends))
}

/// Loads the keys, making what a new relay lacks, and writes the fingerprint files.
///
/// An identity file that exists is never written again. Onion and signing keys are made where they are missing, and
/// the signing key is renewed where it is about to expire.
///
/// # Errors
/// See [`KeysError`]; nothing has been overwritten then.
pub fn load_or_create(plan: &KeyPlan, now: SystemTime) -> Result<Keys, KeysError> {
    let identity = identity::load_or_create(plan)?;
    let (signing, signing_cert) = signing::load_or_renew(plan, &identity, now)?;
    let onion = onion::load_or_create(&plan.key_directory, now)?;
    let keys = Keys {
        rsa: Arc::new(identity.rsa),
        tap: Arc::new(onion.tap),
        ed25519_identity: identity.ed25519,
        signing: Arc::new(signing),
        signing_cert,
        onion: Arc::new(onion.ntor),
        onion_old: onion.ntor_old.map(Arc::new),
        families: families::load_secrets(plan)?,
        family_word: families::load_word(plan, &identity.ed25519, now),
    };
    identity::write_fingerprints(plan, &keys)?;
    Ok(keys)
}

pub use onion::ONION_KEY_GRACE;
pub use signing::RENEW_BEFORE;

/// The same identity with whatever is due renewed: the signing key before its end; the onion keys where their files
/// are new. `None` where nothing has changed.
///
/// # Errors
/// As [`load_or_create`]; an expired signing key that cannot be renewed ends the relay. While the one in use is good, a
/// worse one on disk does not: it may be half of a change under way.
pub fn renew(plan: &KeyPlan, keys: &Keys, now: SystemTime) -> Result<Option<Keys>, KeysError> {
    let mut fresh = match load_or_create(plan, now) {
        Ok(fresh) => fresh,
        Err(_) if keys.signing_cert.expires() <= now => {
            return Err(KeysError::NeedsMaster {
                directory: plan.signing_directory.clone(),
                why: "has expired".to_owned(),
            });
        }
        Err(error) => return Err(KeysError::NotYet(Box::new(error))),
    };
    signing::keep_the_better(&mut fresh, keys, now);
    let same = fresh.signing.public() == keys.signing.public()
        && fresh.signing_cert == keys.signing_cert
        && fresh.family_word == keys.family_word
        && fresh.onion.public() == keys.onion.public()
        && fresh.onion_old.as_ref().map(|old| *old.public()) == keys.onion_old.as_ref().map(|old| *old.public())
        && fresh
            .families
            .iter()
            .map(|key| key.public())
            .eq(keys.families.iter().map(|key| key.public()));
    if fresh.ed25519_identity != keys.ed25519_identity || fresh.rsa_identity() != keys.rsa_identity() {
        let path = plan.key_directory.clone();
        return Err(KeysError::Mismatch { path });
    }
    Ok((!same).then_some(fresh))
}
