//! Sees when somebody puts a new signing key or family bundle in place, so that a running relay can take it up.
//!
//! By asking, not by inotify: in a pod kubelet swaps a symbolic link above the files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use relay_formats::key_file;

use super::{KeyPlan, families};

/// What differs when a file does: device, inode, time of change, length.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// How the files looked that others may change under a running relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps(Vec<(PathBuf, Stamp)>);

impl Stamps {
    /// Looks at them now. Takes microseconds: no file is opened.
    #[must_use]
    pub fn take(plan: &KeyPlan) -> Self {
        let signing = [key_file::SIGNING_SECRET, key_file::SIGNING_CERT].map(|name| plan.signing_directory.join(name));
        let bundles = plan.family_directory.iter().flat_map(|one| families::bundles_in(one));
        let stamped = signing.into_iter().chain(bundles).map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        });
        Self(stamped.collect())
    }
}

/// Of the file that the path leads to in the end, past all links.
fn stamp(path: &Path) -> Stamp {
    let seen = fs::metadata(path).ok()?;
    Some((seen.dev(), seen.ino(), seen.mtime(), seen.mtime_nsec(), seen.size()))
}
