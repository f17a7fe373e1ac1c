//! What the directory part remembers between runs: bandwidth histories, in C tor's `state` file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use relay_formats::state::{HistoryOf, StateFile};

use super::bandwidth::Observed;

/// The state file in memory; keys that are not ours stay as they are.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    state: StateFile,
}

impl Memory {
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
        Self { path, state }
    }

    /// What the runs before have seen of our bandwidth.
    pub fn observed(&self, now: SystemTime, testing_network: bool) -> Observed {
        let history = |of| {
            self.state.bandwidth_history(of).unwrap_or_else(|error| {
                tracing::warn!("{error}. Starting this history anew.");
                None
            })
        };
        match (history(HistoryOf::Read), history(HistoryOf::Write)) {
            (Some(read), Some(written)) => Observed::restore(&read, &written, now, testing_network),
            _ => Observed::new(now, testing_network),
        }
    }

    /// Writes the file.
    pub fn remember(&mut self, observed: &Observed, now: SystemTime) {
        let (read, written) = observed.store();
        self.state.set_bandwidth_history(HistoryOf::Read, &read);
        self.state.set_bandwidth_history(HistoryOf::Write, &written);
        let text = self
            .state
            .to_text(now, &format!("relayfleet {}", env!("CARGO_PKG_VERSION")));
        match replace(&self.path, &text) {
            Ok(()) => tracing::debug!("Saved state to \"{}\"", self.path.display()),
            Err(error) => tracing::warn!("Unable to write state to file \"{}\": {error}", self.path.display()),
        }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
    }

    #[test]
    fn a_restart_finds_what_was_remembered_and_what_c_tor_left_stays() {
        let room = tempfile::tempdir().unwrap();
        fs::write(room.path().join("state"), "Guard in=default\nDormant 0\n").unwrap();
        let mut memory = Memory::open(room.path());
        let mut observed = memory.observed(noon(), true);
        for second in 1..=60 {
            observed.note(noon() + Duration::from_secs(second), second * 10_240, second * 10_240);
        }

        memory.remember(&observed, noon());

        let again = Memory::open(room.path());
        assert_eq!(
            again
                .observed(noon() + Duration::from_secs(90), true)
                .bytes_per_second(),
            10_240
        );
        assert_eq!(again.state.get("Guard"), Some("in=default"));
        let mode = fs::metadata(room.path().join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_state_is_put_aside_and_the_relay_starts() {
        let room = tempfile::tempdir().unwrap();
        fs::write(room.path().join("state"), [0xff, b'x']).unwrap();
        let memory = Memory::open(room.path());
        assert_eq!(memory.observed(noon(), true).bytes_per_second(), 0);
        assert!(room.path().join("state.damaged").exists() && !room.path().join("state").exists());
    }
}
