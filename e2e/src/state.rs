//! Where a run keeps what it must find again: one cluster a machine, so one place a machine.
//!
//! `/var/lib/relayfleet-e2e` holds everything that may be large or is wanted for reading (logs, keys, containerd's
//! store); `/run/relayfleet-e2e` holds sockets, whose paths must be short. Both are ours alone: a marker file says
//! so, and what has no marker is never removed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::say;

/// Names the file that says that a folder is ours to remove.
const MARKER: &str = "owned-by-relayfleet-e2e";

/// What stands in the marker before the state folder's path.
const OWNER: &str = "Made by Relayfleet's e2e, removed by e2e/demo --down; state in ";

/// The places of one machine.
#[derive(Clone, Debug)]
pub struct Places {
    /// Logs, keys, containerd's store, process records.
    pub state: PathBuf,
    /// Sockets and other things that must not outlive a reboot.
    pub run: PathBuf,
}

impl Default for Places {
    /// `/var/lib/relayfleet-e2e`, or where `RELAYFLEET_STATE` says, and `/run/relayfleet-e2e`.
    fn default() -> Self {
        let state = std::env::var_os("RELAYFLEET_STATE").unwrap_or_else(|| "/var/lib/relayfleet-e2e".into());
        Self {
            state: state.into(),
            run: "/run/relayfleet-e2e".into(),
        }
    }
}

impl Places {
    /// Makes both folders with their marker.
    ///
    /// # Errors
    /// A folder cannot be made, or is there, not empty and not ours.
    pub fn claim(&self) -> Result<()> {
        self.check_owner()?;
        for folder in [&self.state, &self.run] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            if folder.join(MARKER).exists() {
                continue;
            }
            // A kill may have come before the marker had its name.
            let unfinished = folder.join(MARKER).with_extension("new");
            if fs::read_dir(folder)?.flatten().any(|entry| entry.path() != unfinished) {
                bail!(
                    "{} is not empty and not ours (no {MARKER} in it): move it away",
                    folder.display()
                );
            }
            write_whole(
                &folder.join(MARKER),
                format!("{OWNER}{}\n", self.state.display()).as_bytes(),
            )?;
        }
        Ok(())
    }

    /// One machine has room for one cluster: the sockets' folder must not belong to another state folder.
    ///
    /// # Errors
    /// It does, and that folder is still there.
    pub fn check_owner(&self) -> Result<()> {
        let text = fs::read_to_string(self.run.join(MARKER)).unwrap_or_default();
        let owner = text
            .lines()
            .find_map(|line| line.strip_prefix(OWNER))
            .map(PathBuf::from);
        if let Some(owner) = owner.filter(|owner| *owner != self.state && owner.join(MARKER).exists()) {
            bail!(
                "a cluster is on this machine already, with its state in {0}: use it, or take it away with \
                 RELAYFLEET_STATE={0} e2e/demo --down",
                owner.display()
            );
        }
        Ok(())
    }

    /// Removes both folders, each only if it carries our marker. The marker goes last, so that a kill in the middle
    /// leaves no folder that the next run would take for somebody else's.
    ///
    /// # Errors
    /// Something in them cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for folder in [&self.state, &self.run] {
            if folder.join(MARKER).exists() {
                remove_marked(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Whether an earlier run left anything here.
    pub fn in_use(&self) -> bool {
        self.state.join(MARKER).exists() || self.run.join(MARKER).exists()
    }

    /// Where a process's own output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    /// Holds off every other run that would change the cluster, until the file is dropped or the process ends.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock(&self) -> Result<File> {
        let path = Path::new("/run/lock/relayfleet-e2e.lock");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => say::step("another run is at work on the cluster; waiting for it to end"),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
        }
        file.lock().context("cannot lock")?;
        Ok(file)
    }
}

fn remove_marked(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?
        } else {
            fs::remove_file(entry.path())?
        }
    }
    fs::remove_file(folder.join(MARKER))?;
    fs::remove_dir(folder)
}

/// What a cluster's run wrote down about itself, before it changed anything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Folder of the Kubernetes programs that run.
    pub programs: PathBuf,
    /// Nodes that stood when the run was complete; 0 while it is not.
    pub nodes: u8,
    /// What `net.ipv4.ip_forward` was before.
    pub ip_forward_before: String,
    /// Folders outside ours that programs make by themselves and that were not there before.
    pub folders_before: Vec<PathBuf>,
    /// Whether `ip netns` had mounted its folder already.
    pub netns_mounted_before: bool,
}

impl Record {
    /// The record of the last run, if there is one that can be read.
    pub fn read(places: &Places) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(places)).ok()?).ok()
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, places: &Places) -> Result<()> {
        write_whole(&Self::path(places), &serde_json::to_vec_pretty(self)?)
    }

    fn path(places: &Places) -> PathBuf {
        places.state.join("cluster.json")
    }
}

/// Writes a file so that a reader, or a run after a kill, finds all of it or the old one.
///
/// # Errors
/// The file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(top: &Path, state: &str) -> Places {
        Places {
            state: top.join(state),
            run: top.join("run"),
        }
    }

    #[test]
    fn what_is_not_ours_is_neither_used_nor_removed() {
        let top = tempfile::tempdir().unwrap();
        let places = places(top.path(), "state");
        fs::create_dir_all(&places.state).unwrap();
        fs::write(places.state.join("diary"), "dear").unwrap();

        assert!(places.claim().unwrap_err().to_string().contains("not ours"));
        places.remove().unwrap();
        assert_eq!(fs::read_to_string(places.state.join("diary")).unwrap(), "dear");
    }

    #[test]
    fn a_second_cluster_is_refused_until_the_first_is_gone() {
        let top = tempfile::tempdir().unwrap();
        let (first, second) = (places(top.path(), "one"), places(top.path(), "two"));
        first.claim().unwrap();

        assert!(second.claim().unwrap_err().to_string().contains("one"));
        first.remove().unwrap();
        second.claim().unwrap();
        assert!(second.in_use() && !first.state.exists());
    }

    #[test]
    fn a_removal_cut_short_is_finished_by_the_next() {
        let top = tempfile::tempdir().unwrap();
        let places = places(top.path(), "state");
        places.claim().unwrap();
        fs::remove_file(places.run.join(MARKER)).unwrap();

        places.claim().unwrap();
        places.remove().unwrap();
        assert!(!places.state.exists() && !places.run.exists());
    }
}
