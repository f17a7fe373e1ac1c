//! What the directory part remembers between runs: bandwidth histories, in C tor's `state` file.

use std::sync::Arc;
use std::time::SystemTime;

use relay_formats::state::HistoryOf;

use super::bandwidth::Observed;
use crate::state_store::StateStore;

/// The part of the state file that is about bandwidth.
#[derive(Debug)]
pub struct Memory {
    store: Arc<StateStore>,
}

impl Memory {
    /// In this file.
    pub fn new(store: Arc<StateStore>) -> Self {
        Self { store }
    }

    /// What the runs before have seen of our bandwidth.
    pub fn observed(&self, now: SystemTime, testing_network: bool) -> Observed {
        let history = |of| {
            let stored = self.store.read(|state| state.bandwidth_history(of));
            stored.unwrap_or_else(|error| {
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
        self.store.change(now, |state| {
            state.set_bandwidth_history(HistoryOf::Read, &read);
            state.set_bandwidth_history(HistoryOf::Write, &written);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn open(room: &Path) -> Memory {
        Memory::new(Arc::new(StateStore::open(room)))
    }

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
    }

    #[test]
    fn a_restart_finds_what_was_remembered_and_what_c_tor_left_stays() {
        let room = tempfile::tempdir().unwrap();
        fs::write(room.path().join("state"), "Guard in=default\nDormant 0\n").unwrap();
        let mut memory = open(room.path());
        let mut observed = memory.observed(noon(), true);
        for second in 1..=60 {
            observed.note(noon() + Duration::from_secs(second), second * 10_240, second * 10_240);
        }

        memory.remember(&observed, noon());

        let again = open(room.path());
        assert_eq!(
            again
                .observed(noon() + Duration::from_secs(90), true)
                .bytes_per_second(),
            10_240
        );
        assert_eq!(
            again
                .store
                .read(|state| state.get("Guard").map(str::to_owned))
                .as_deref(),
            Some("in=default")
        );
        let mode = fs::metadata(room.path().join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_state_is_put_aside_and_the_relay_starts() {
        let room = tempfile::tempdir().unwrap();
        fs::write(room.path().join("state"), [0xff, b'x']).unwrap();
        let memory = open(room.path());
        assert_eq!(memory.observed(noon(), true).bytes_per_second(), 0);
        assert!(room.path().join("state.damaged").exists() && !room.path().join("state").exists());
    }
}
