//! C tor's `state` file, shared by those who remember something in it. Keys that are not ours stay as they are.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use relay_formats::state::StateFile;

/// The file, in memory and on disk.
#[derive(Debug)]
pub struct StateStore {
    path: PathBuf,
    state: Mutex<StateFile>,
}

impl StateStore {
    /// Reads `state` in the data directory. A damaged one is put aside, as C tor does: nothing in it is worth not
    /// starting for, and it may still be looked at.
    pub fn open(data_directory: &Path) -> Self {
        let path = data_directory.join("state");
        let state = match fs::read_to_string(&path) {
            Ok(text) => StateFile::parse(&text).unwrap_or_else(|error| {
                put_aside(&path, &error.to_string());
                StateFile::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => StateFile::default(),
            Err(error) => {
                put_aside(&path, &error.to_string());
                StateFile::default()
            }
        };
        Self {
            path,
            state: Mutex::new(state),
        }
    }

    /// Looks something up.
    pub fn read<T>(&self, look: impl FnOnce(&StateFile) -> T) -> T {
        look(&self.state())
    }

    /// Changes something and writes the file: all or nothing.
    pub fn change(&self, now: SystemTime, change: impl FnOnce(&mut StateFile)) {
        let mut state = self.state();
        change(&mut state);
        let text = state.to_text(now, concat!("relayfleet ", env!("CARGO_PKG_VERSION")));
        match replace(&self.path, &text) {
            Ok(()) => tracing::debug!("Saved state to \"{}\"", self.path.display()),
            Err(error) => tracing::warn!("Unable to write state to file \"{}\": {error}", self.path.display()),
        }
    }

    fn state(&self) -> MutexGuard<'_, StateFile> {
        // A change that broke off has not been written; what it changed is numbers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_aside(path: &Path, why: &str) {
    let aside = path.with_extension("damaged");
    match fs::rename(path, &aside) {
        Ok(()) => tracing::warn!("Cannot use {}: {why}. It is now {}.", path.display(), aside.display()),
        Err(error) => tracing::warn!(
            "Cannot use {}: {why}. It cannot be put aside either: {error}.",
            path.display()
        ),
    }
}

/// All or nothing, and for nobody else to read.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
