//! Key files on disk: read whole, written atomically and private to the owner.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::key_file::{self, Ed25519Role};
use zeroize::Zeroizing;

use super::KeysError;

/// Longer than any key file; a longer file is not one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Holds `DataDirectory/lock` while the relay runs, as C tor does, so that the two never share a directory.
#[derive(Debug)]
pub struct DataLock {
    _held: File,
}

/// Makes sure that the data directory is there and private, and takes its lock. `None` says that another process has it.
///
/// # Errors
/// The directory cannot be made, or others could read it and it is not ours to close to them.
pub fn open_data_directory(path: &Path) -> Result<Option<DataLock>, KeysError> {
    private_directory(path)?;
    let lock = path.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock);
    let file = file.map_err(KeysError::file(&lock))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(DataLock { _held: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(KeysError::file(&lock)(error)),
    }
}

/// A directory for the owner alone: made so, or mended where it is ours. One that belongs to someone else (the root of
/// a volume in a pod, say) will do if it is closed to all but its group.
pub(super) fn private_directory(path: &Path) -> Result<(), KeysError> {
    let seen = match fs::metadata(path) {
        Ok(seen) => seen,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(KeysError::file(path));
        }
        Err(error) => return Err(KeysError::file(path)(error)),
    };
    if !seen.is_dir() {
        return Err(KeysError::file(path)(ErrorKind::NotADirectory.into()));
    }
    let mode = seen.mode() & 0o777;
    if seen.uid() == rustix::process::geteuid().as_raw() {
        if mode != 0o700 {
            tracing::warn!("Fixing permissions on directory {}", path.display());
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(KeysError::file(path))?;
        }
        return Ok(());
    }
    if mode & 0o007 != 0 {
        let why = format!(
            "is owned by user {} and open to everyone (mode {mode:o}); expected 0700",
            seen.uid()
        );
        return Err(KeysError::file(path)(io::Error::new(ErrorKind::PermissionDenied, why)));
    }
    Ok(())
}

/// The whole file; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
    match fs::metadata(path) {
        Ok(seen) if seen.len() > FILE_BYTES_MAX => {
            let why = format!("is {} bytes long; no key file is", seen.len());
            return Err(KeysError::file(path)(io::Error::new(ErrorKind::InvalidData, why)));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeysError::file(path)(error)),
    }
    fs::read(path)
        .map(Zeroizing::new)
        .map(Some)
        .map_err(KeysError::file(path))
}

/// Writes a file that must not exist yet: all of it or nothing, and never over another.
pub(super) fn create(path: &Path, contents: &[u8]) -> Result<(), KeysError> {
    let fresh = write_aside(path, contents)?;
    // A hard link, unlike a rename, fails where the name is taken.
    let linked = fs::hard_link(&fresh, path);
    let _ = fs::remove_file(&fresh);
    linked
        .and_then(|()| sync_directory(path))
        .map_err(KeysError::file(path))
}

/// Writes a file, all of it or nothing, in the place of an older one.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), KeysError> {
    let fresh = write_aside(path, contents)?;
    fs::rename(&fresh, path)
        .and_then(|()| sync_directory(path))
        .map_err(KeysError::file(path))
}

/// Renames; the target, if any, is replaced.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), KeysError> {
    fs::rename(from, to)
        .and_then(|()| sync_directory(to))
        .map_err(KeysError::file(from))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), KeysError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(KeysError::file(path)(error)),
        _ => sync_directory(path).map_err(KeysError::file(path)),
    }
}

fn write_aside(path: &Path, contents: &[u8]) -> Result<PathBuf, KeysError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let written = || -> io::Result<()> {
        // Left by a process that was killed while writing: worth nothing.
        if aside.exists() {
            fs::remove_file(&aside)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(contents)?;
        file.sync_all()
    };
    written().map_err(KeysError::file(&aside))?;
    Ok(aside)
}

fn sync_directory(of: &Path) -> io::Result<()> {
    match of.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The keys of all files `*.secret_family_key` in `directory`, in the order of their names.
pub(super) fn family_keys(directory: &Path) -> Result<Vec<Ed25519Secret>, KeysError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(KeysError::file(directory))? {
        let path = entry.map_err(KeysError::file(directory))?.path();
        if path.to_string_lossy().ends_with(key_file::FAMILY_SECRET_SUFFIX) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut keys = Vec::new();
    for path in paths {
        let Some(file) = read(&path)? else { continue };
        let key = key_file::decode_ed25519_secret(Ed25519Role::Family, &file);
        keys.push(key.map_err(|error| KeysError::KeyFile { path, error })?);
    }
    Ok(keys)
}
