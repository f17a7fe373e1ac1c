//! The identity: an RSA and an Ed25519 key that belong together for ever. Losing one loses both.

use std::path::{Path, PathBuf};

use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::rsa_key::RsaSecret;

use super::{KeyPlan, Keys, KeysError, files};

/// Stands in the key directory while a first identity is being written. Found at a start it says that the last start
/// was cut short before anyone could know the identity, so that its missing half may still be made.
const BEING_MADE: &str = "identity_being_made";

/// The identity, without the master's secret.
pub(super) struct Identity {
    pub(super) rsa: RsaSecret,
    pub(super) ed25519: Ed25519Identity,
}

/// Where the identity's files are, and which of them are there.
struct Found {
    directory: PathBuf,
    rsa: bool,
    master: bool,
    encrypted: bool,
    public: bool,
    signing_secret: bool,
    signing_cert: bool,
}

impl Found {
    fn look(plan: &KeyPlan) -> Self {
        let directory = &plan.key_directory;
        let there = |name: &str| directory.join(name).exists();
        let signing = |name: &str| plan.signing_directory.join(name).exists();
        Self {
            directory: directory.clone(),
            rsa: there(key_file::RSA_IDENTITY),
            master: there(key_file::MASTER_SECRET),
            encrypted: there(key_file::MASTER_SECRET_ENCRYPTED),
            public: there(key_file::MASTER_PUBLIC),
            signing_secret: signing(key_file::SIGNING_SECRET),
            signing_cert: signing(key_file::SIGNING_CERT),
        }
    }

    fn nothing(&self) -> bool {
        !(self.rsa || self.master || self.encrypted || self.public || self.signing_secret || self.signing_cert)
    }

    /// An offline relay has no master secret, but all that the master has given it.
    fn whole(&self) -> bool {
        self.rsa && (self.master || (self.public && self.signing_secret && self.signing_cert))
    }

    fn half(&self) -> KeysError {
        let names = [
            (self.rsa, key_file::RSA_IDENTITY),
            (self.master, key_file::MASTER_SECRET),
            (self.encrypted, key_file::MASTER_SECRET_ENCRYPTED),
            (self.public, key_file::MASTER_PUBLIC),
            (self.signing_secret, key_file::SIGNING_SECRET),
            (self.signing_cert, key_file::SIGNING_CERT),
        ];
        let present: Vec<_> = names
            .iter()
            .filter(|(there, _)| *there)
            .map(|(_, name)| *name)
            .collect();
        let missing = if self.rsa {
            let offline = [
                key_file::MASTER_PUBLIC,
                key_file::SIGNING_SECRET,
                key_file::SIGNING_CERT,
            ];
            let lacking: Vec<_> = offline.into_iter().filter(|name| !present.contains(name)).collect();
            format!(
                "{} (or, for an offline master key, {})",
                key_file::MASTER_SECRET,
                lacking.join(" and ")
            )
        } else {
            key_file::RSA_IDENTITY.to_owned()
        };
        KeysError::HalfAnIdentity {
            directory: self.directory.clone(),
            missing,
            present: present.join(", "),
        }
    }
}

pub(super) fn load_or_create(plan: &KeyPlan) -> Result<Identity, KeysError> {
    let directory = &plan.key_directory;
    files::private_directory(directory)?;
    let being_made = directory.join(BEING_MADE);
    let found = Found::look(plan);
    if found.nothing() || (being_made.exists() && !found.whole()) {
        if plan.offline_master {
            let why = "is missing".to_owned();
            return Err(KeysError::NeedsMaster {
                directory: directory.clone(),
                why,
            });
        }
        create(directory, &being_made)?;
    } else if !found.whole() {
        return Err(found.half());
    }
    if being_made.exists() {
        files::remove(&being_made)?;
    }
    load(plan)
}

/// The master's secret for `--keygen`, made together with the RSA key where there is nothing yet. Where only the master is
/// (C tor's `--keygen` makes no more), the RSA key is elsewhere, and it is not for us to make another.
pub(super) fn master_for_keygen(plan: &KeyPlan) -> Result<Ed25519Secret, KeysError> {
    let directory = &plan.key_directory;
    files::private_directory(directory)?;
    let (found, being_made) = (Found::look(plan), directory.join(BEING_MADE));
    if found.nothing() || being_made.exists() {
        create(directory, &being_made)?;
        files::remove(&being_made)?;
    }
    let Some(master) = master_secret(plan)? else {
        return Err(match found.encrypted {
            true => KeysError::Encrypted {
                path: directory.join(key_file::MASTER_SECRET_ENCRYPTED),
            },
            false => found.half(),
        });
    };
    let public = directory.join(key_file::MASTER_PUBLIC);
    let ours = key_file::encode_master_public(&master.public());
    match files::read(&public)? {
        Some(told) if told.as_slice() != ours.as_slice() => Err(KeysError::Mismatch { path: public }),
        Some(_) => Ok(master),
        None => files::create(&public, &ours).map(|()| master),
    }
}

fn create(directory: &Path, being_made: &Path) -> Result<(), KeysError> {
    files::replace(being_made, b"")?;
    let mut dice = rand::rng();
    let master = directory.join(key_file::MASTER_SECRET);
    if !master.exists() {
        let key = Ed25519Secret::generate(&mut dice);
        files::create(&master, &key_file::encode_ed25519_secret(Ed25519Role::Master, &key))?;
    }
    let rsa = directory.join(key_file::RSA_IDENTITY);
    if !rsa.exists() {
        let key = RsaSecret::generate(&mut dice).map_err(KeysError::rsa(&rsa))?;
        files::create(&rsa, key.to_pem().map_err(KeysError::rsa(&rsa))?.as_bytes())?;
    }
    Ok(())
}

fn load(plan: &KeyPlan) -> Result<Identity, KeysError> {
    let rsa_path = plan.key_directory.join(key_file::RSA_IDENTITY);
    let rsa = load_rsa(&rsa_path)?.ok_or_else(|| KeysError::file(&rsa_path)(std::io::ErrorKind::NotFound.into()))?;
    let public_path = plan.key_directory.join(key_file::MASTER_PUBLIC);
    let told = match files::read(&public_path)? {
        None => None,
        Some(file) => {
            let told = key_file::decode_master_public(&file);
            Some(told.map_err(|error| KeysError::KeyFile {
                path: public_path.clone(),
                error,
            })?)
        }
    };
    let held = master_secret(plan)?.map(|master| master.public());
    let ed25519 = match (told, held) {
        (Some(told), Some(held)) if told != held => return Err(KeysError::Mismatch { path: public_path }),
        (Some(told), _) => told,
        (None, Some(held)) => {
            files::create(&public_path, &key_file::encode_master_public(&held))?;
            held
        }
        (None, None) => return Err(Found::look(plan).half()),
    };
    Ok(Identity { rsa, ed25519 })
}

/// The master identity's secret, where it is here and torrc lets us look.
pub(super) fn master_secret(plan: &KeyPlan) -> Result<Option<Ed25519Secret>, KeysError> {
    if plan.offline_master {
        return Ok(None);
    }
    let path = plan.key_directory.join(key_file::MASTER_SECRET);
    let Some(file) = files::read(&path)? else {
        return Ok(None);
    };
    let key = key_file::decode_ed25519_secret(Ed25519Role::Master, &file);
    key.map(Some).map_err(|error| KeysError::KeyFile { path, error })
}

pub(super) fn load_rsa(path: &Path) -> Result<Option<RsaSecret>, KeysError> {
    let Some(file) = files::read(path)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&file).unwrap_or_default();
    RsaSecret::from_pem(text).map(Some).map_err(KeysError::rsa(path))
}

/// `fingerprint` and `fingerprint-ed25519` in the data directory; written again only where they differ.
pub(super) fn write_fingerprints(plan: &KeyPlan, keys: &Keys) -> Result<(), KeysError> {
    let texts = [
        (
            key_file::FINGERPRINT,
            key_file::fingerprint_text(&plan.nickname, &keys.rsa_identity()),
        ),
        (
            key_file::FINGERPRINT_ED25519,
            key_file::fingerprint_ed25519_text(&plan.nickname, &keys.ed25519_identity),
        ),
    ];
    for (name, text) in texts {
        let path = plan.data_directory.join(name);
        if files::read(&path)?.is_none_or(|there| there.as_slice() != text.as_bytes()) {
            files::replace(&path, text.as_bytes())?;
        }
    }
    Ok(())
}
