//! `relay --import-keys FROM TO`: puts an identity into a key directory that has none yet.
//!
//! For a pod whose keys come in a Secret: its init container brings them to the volume before the relay starts. An
//! identity that is there already stays; one of another relay is refused, for a relay must never change its keys.

use std::path::{Path, PathBuf};

use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::key_file::{self, Ed25519Role};
use zeroize::Zeroizing;

use super::identity::load_rsa;
use super::{KeysError, files};

/// Why keys were not put in place. Nothing was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// One of the files cannot be read or written, or is no key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// FROM lacks a half of the identity.
    #[error("{path} is missing: an identity is both keys together. Restore it from a backup", path = .0.display())]
    Missing(PathBuf),
    /// TO has the master key, which FROM says is kept elsewhere. It may be the only copy, so nobody takes it away.
    #[error(
        "{path} is the relay's master key, but it should be kept elsewhere. Bring it into safety and remove it here, or \
         let the relay keep it",
        path = .0.display()
    )]
    MasterStays(PathBuf),
    /// TO holds another relay.
    #[error(
        "{path} belongs to {found}, but the keys to import are those of {wanted}. Give the relay an empty directory, or \
         import the keys of {found}",
        path = path.display()
    )]
    AnotherRelay {
        /// The file that is there.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

/// Copies the identity's files from one directory to another where they are not there yet; says whose they are.
///
/// # Errors
/// See [`ImportError`]. All checks come before the first write.
pub fn import(from: &Path, to: &Path) -> Result<(RsaIdentity, Ed25519Identity), ImportError> {
    let (rsa, master) = identity_in(from)?;
    let rsa = rsa.ok_or_else(|| ImportError::Missing(from.join(key_file::RSA_IDENTITY)))?;
    // Where somebody else keeps the master key, its public half stands for it.
    let ed25519 = match master {
        Some(master) => master,
        None => public_in(from)?.ok_or_else(|| ImportError::Missing(from.join(key_file::MASTER_SECRET)))?,
    };
    files::private_directory(to)?;
    let (rsa_there, ed25519_there) = identity_in(to)?;
    refuse_another(to, key_file::RSA_IDENTITY, rsa_there, rsa)?;
    refuse_another(to, key_file::MASTER_SECRET, ed25519_there, ed25519)?;
    refuse_another(to, key_file::MASTER_PUBLIC, public_in(to)?, ed25519)?;
    let ed25519_file = match master {
        Some(_) => (key_file::MASTER_SECRET, ed25519_there.is_some()),
        None if ed25519_there.is_some() => return Err(ImportError::MasterStays(to.join(key_file::MASTER_SECRET))),
        None => (key_file::MASTER_PUBLIC, public_in(to)?.is_some()),
    };
    for (name, there) in [ed25519_file, (key_file::RSA_IDENTITY, rsa_there.is_some())] {
        if !there {
            let path = from.join(name);
            let file: Zeroizing<Vec<u8>> = files::read(&path)?.ok_or(ImportError::Missing(path))?;
            files::create(&to.join(name), &file)?;
        }
    }
    Ok((rsa, ed25519))
}

/// The public names of the secret halves in a directory.
fn identity_in(directory: &Path) -> Result<(Option<RsaIdentity>, Option<Ed25519Identity>), KeysError> {
    let rsa = load_rsa(&directory.join(key_file::RSA_IDENTITY))?.map(|key| key.public().identity());
    let path = directory.join(key_file::MASTER_SECRET);
    let Some(file) = files::read(&path)? else {
        return Ok((rsa, None));
    };
    let master = key_file::decode_ed25519_secret(Ed25519Role::Master, &file);
    Ok((
        rsa,
        Some(master.map_err(|error| KeysError::KeyFile { path, error })?.public()),
    ))
}

fn public_in(directory: &Path) -> Result<Option<Ed25519Identity>, KeysError> {
    let path = directory.join(key_file::MASTER_PUBLIC);
    let Some(file) = files::read(&path)? else {
        return Ok(None);
    };
    let public = key_file::decode_master_public(&file);
    public.map(Some).map_err(|error| KeysError::KeyFile { path, error })
}

fn refuse_another<Name: PartialEq + std::fmt::Display>(
    directory: &Path,
    file: &str,
    found: Option<Name>,
    wanted: Name,
) -> Result<(), ImportError> {
    match found {
        Some(found) if found != wanted => Err(ImportError::AnotherRelay {
            path: directory.join(file),
            found: found.to_string(),
            wanted: wanted.to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_formats::ed25519_key::Ed25519Secret;
    use relay_formats::rsa_key::RsaSecret;
    use std::os::unix::fs::PermissionsExt as _;

    /// A Secret's files, and an empty key directory.
    fn scene() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let (from, to) = (top.path().join("secret"), top.path().join("volume/data/keys"));
        std::fs::create_dir(&from).unwrap();
        write_identity(&from);
        (top, from, to)
    }

    fn write_identity(directory: &Path) {
        let mut dice = rand::rng();
        let master = Ed25519Secret::generate(&mut dice);
        let rsa = RsaSecret::generate(&mut dice).unwrap().to_pem().unwrap();
        std::fs::write(directory.join(key_file::RSA_IDENTITY), rsa.as_bytes()).unwrap();
        let secret = key_file::encode_ed25519_secret(Ed25519Role::Master, &master);
        std::fs::write(directory.join(key_file::MASTER_SECRET), secret.as_slice()).unwrap();
    }

    #[test]
    fn an_empty_directory_gets_the_keys_and_keeps_them_to_itself() {
        let (_top, from, to) = scene();
        let names = import(&from, &to).unwrap();
        assert_eq!(import(&from, &to).unwrap(), names, "a second time changes nothing");
        for name in [key_file::RSA_IDENTITY, key_file::MASTER_SECRET] {
            assert_eq!(
                std::fs::read(to.join(name)).unwrap(),
                std::fs::read(from.join(name)).unwrap()
            );
            assert_eq!(to.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_import_that_was_cut_short_is_finished() {
        let (_top, from, to) = scene();
        import(&from, &to).unwrap();
        std::fs::remove_file(to.join(key_file::RSA_IDENTITY)).unwrap();
        import(&from, &to).unwrap();
        assert!(to.join(key_file::RSA_IDENTITY).exists());
    }

    #[test]
    fn a_directory_of_another_relay_is_left_as_it_is() {
        let (_top, from, to) = scene();
        import(&from, &to).unwrap();
        let before = std::fs::read(to.join(key_file::RSA_IDENTITY)).unwrap();
        write_identity(&from);
        let refused = import(&from, &to).unwrap_err();
        assert!(matches!(refused, ImportError::AnotherRelay { .. }), "{refused}");
        assert_eq!(std::fs::read(to.join(key_file::RSA_IDENTITY)).unwrap(), before);
    }

    #[test]
    fn a_master_that_is_kept_elsewhere_comes_by_its_public_half() {
        let (_top, from, to) = scene();
        let secret = std::fs::read(from.join(key_file::MASTER_SECRET)).unwrap();
        let master = key_file::decode_ed25519_secret(Ed25519Role::Master, &secret)
            .unwrap()
            .public();
        std::fs::write(
            from.join(key_file::MASTER_PUBLIC),
            key_file::encode_master_public(&master),
        )
        .unwrap();
        std::fs::remove_file(from.join(key_file::MASTER_SECRET)).unwrap();

        assert_eq!(import(&from, &to).unwrap().1, master);
        assert_eq!(import(&from, &to).unwrap().1, master, "a second time changes nothing");
        assert!(to.join(key_file::MASTER_PUBLIC).exists() && !to.join(key_file::MASTER_SECRET).exists());

        // A volume that has it from before: nothing is lost, and nothing is moved silently.
        std::fs::write(to.join(key_file::MASTER_SECRET), &secret).unwrap();
        assert!(matches!(import(&from, &to).unwrap_err(), ImportError::MasterStays(_)));
        assert_eq!(std::fs::read(to.join(key_file::MASTER_SECRET)).unwrap(), secret);
    }

    #[test]
    fn half_an_identity_is_not_imported() {
        let (_top, from, to) = scene();
        std::fs::remove_file(from.join(key_file::MASTER_SECRET)).unwrap();
        assert!(matches!(import(&from, &to).unwrap_err(), ImportError::Missing(_)));
        assert!(!to.join(key_file::RSA_IDENTITY).exists());
    }
}
