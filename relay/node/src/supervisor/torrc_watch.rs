//! Sees when torrc becomes another file or gets another text, for who cannot send a signal: in a pod torrc is a mounted
//! ConfigMap, and nobody stands beside the process.
//!
//! By asking, not by inotify: kubelet swaps a symbolic link above the file, and network file systems tell nothing.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::news::News;

/// How often the file is looked at. A change is heard this much later.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What differs when the text does.
type Stamp = (u64, u64, i64, i64, u64);

/// Starts a thread that sends [`News::TorrcChanged`] for every change after this call.
///
/// # Errors
/// No thread.
pub(super) fn watch(torrc: PathBuf, news: Sender<News>) -> std::io::Result<()> {
    let mut known = stamp(&torrc);
    std::thread::Builder::new().name("torrc".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            if changed(&mut known, stamp(&torrc)) && news.send(News::TorrcChanged).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// A file that is away for a moment has not changed: whoever puts it back decides.
fn changed(known: &mut Option<Stamp>, now: Option<Stamp>) -> bool {
    let changed = now.is_some() && now != *known;
    if changed {
        *known = now;
    }
    changed
}

/// Of the file that the path leads to in the end, past all links.
fn stamp(torrc: &Path) -> Option<Stamp> {
    let of = |meta: Metadata| (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    std::fs::metadata(torrc).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("torrc"), "Nickname anna\n").unwrap();
        }
        std::os::unix::fs::symlink("one", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/torrc", path("torrc")).unwrap();
        let mut known = stamp(&path("torrc"));
        assert!(!changed(&mut known, stamp(&path("torrc"))));

        std::os::unix::fs::symlink("two", path("..tmp")).unwrap();
        std::fs::rename(path("..tmp"), path("..data")).unwrap(); // as kubelet does it
        assert!(changed(&mut known, stamp(&path("torrc"))));
        assert!(!changed(&mut known, stamp(&path("torrc"))));

        std::fs::remove_file(path("..data")).unwrap();
        assert!(!changed(&mut known, stamp(&path("torrc"))));
        std::os::unix::fs::symlink("two", path("..data")).unwrap();
        assert!(!changed(&mut known, stamp(&path("torrc"))));
    }
}
