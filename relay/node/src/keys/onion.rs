//! Onion keys: the ntor key that clients make circuits with, and the TAP key that only descriptors still show.
//!
//! The age of a key is the age of its file, so that a restart forgets nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use relay_formats::key_file;
use relay_formats::onion_key::OnionKeyPair;
use relay_formats::rsa_key::RsaSecret;

use super::identity::load_rsa;
use super::{KeysError, files};

/// Onion keys are renewed at this age (param-spec, `onion-key-rotation-days`, default 28).
const ONION_KEY_LIFETIME: Duration = Duration::from_secs(28 * 24 * 60 * 60);
/// The old key is good for this long after its successor came (param-spec, `onion-key-grace-period-days`, default 7).
pub const ONION_KEY_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) struct OnionKeys {
    pub(super) tap: RsaSecret,
    pub(super) ntor: OnionKeyPair,
    pub(super) ntor_old: Option<OnionKeyPair>,
}

pub(super) fn load_or_create(directory: &Path, now: SystemTime) -> Result<OnionKeys, KeysError> {
    let path = |name: &str| directory.join(name);
    let (tap, tap_old) = (path(key_file::ONION_TAP), path(key_file::ONION_TAP_OLD));
    let (ntor, ntor_old) = (path(key_file::ONION_NTOR), path(key_file::ONION_NTOR_OLD));
    if age(&ntor, now)?.is_some_and(|age| age >= ONION_KEY_LIFETIME) {
        tracing::info!("Rotating onion key.");
        files::rename(&ntor, &ntor_old)?;
        // C tor keeps both in step.
        if tap.exists() {
            files::rename(&tap, &tap_old)?;
        }
    }
    let mut dice = rand::rng();
    let tap_key = match load_rsa(&tap)? {
        Some(key) => key,
        None => {
            let key = RsaSecret::generate(&mut dice).map_err(KeysError::rsa(&tap))?;
            files::replace(&tap, key.to_pem().map_err(KeysError::rsa(&tap))?.as_bytes())?;
            key
        }
    };
    let ntor_key = match load_ntor(&ntor)? {
        Some(key) => key,
        None => {
            let key = OnionKeyPair::generate(&mut dice);
            files::replace(&ntor, &key_file::encode_onion_key(&key))?;
            born(&ntor, now)?;
            key
        }
    };
    // The old key's grace began when its successor came.
    let in_grace = age(&ntor, now)?.is_some_and(|age| age < ONION_KEY_GRACE);
    let ntor_old = if in_grace { load_ntor(&ntor_old)? } else { None };
    Ok(OnionKeys {
        tap: tap_key,
        ntor: ntor_key,
        ntor_old,
    })
}

fn load_ntor(path: &Path) -> Result<Option<OnionKeyPair>, KeysError> {
    let Some(file) = files::read(path)? else {
        return Ok(None);
    };
    let key = key_file::decode_onion_key(&file);
    key.map(Some).map_err(|error| KeysError::KeyFile {
        path: path.to_path_buf(),
        error,
    })
}

/// The key's age counts from our caller's clock, not from the file system's.
fn born(path: &Path, now: SystemTime) -> Result<(), KeysError> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_modified(now))
        .map_err(KeysError::file(path))
}

/// Time since the file was written; a file of the future has age zero.
fn age(path: &Path, now: SystemTime) -> Result<Option<Duration>, KeysError> {
    match fs::metadata(path) {
        Ok(seen) => {
            let written = seen.modified().map_err(KeysError::file(path))?;
            Ok(Some(now.duration_since(written).unwrap_or_default()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KeysError::file(path)(error)),
    }
}
