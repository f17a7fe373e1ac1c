//! Directory documents on disk, under C tor's names, so that either program starts from the other's cache.
//!
//! A file that is missing or damaged costs a download, nothing more.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Certificates of authorities.
    Certificates,
    /// The consensus, microdescriptor flavour.
    Consensus,
    /// The consensus, plain flavour.
    ServerConsensus,
    /// Microdescriptors.
    Microdescriptors,
    /// Server descriptors.
    Servers,
    /// Extra-infos.
    ExtraInfos,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Certificates => "cached-certs",
            Self::Consensus => "cached-microdesc-consensus",
            Self::ServerConsensus => "cached-consensus",
            Self::Microdescriptors => "cached-microdescs",
            Self::Servers => "cached-descriptors",
            Self::ExtraInfos => "cached-extrainfo",
        }
    }
}

/// A larger file is none of ours: a consensus of the public network has 3 MB, all its microdescriptors 10 MB.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The directory `CacheDirectory`.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Nothing is touched before a document is read or written.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The text of a file; empty where there is none.
    pub fn read(&self, name: Name) -> String {
        let path = self.directory.join(name.text());
        let fits = std::fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_BYTES_MAX);
        match fits.then(|| std::fs::read_to_string(&path)) {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                tracing::info!("Cannot read {}: {error}. Fetching its content anew.", path.display());
                String::new()
            }
            None => String::new(),
        }
    }

    /// Replaces a file, all or nothing: writes beside the old one, then takes its place.
    pub fn write(&self, name: Name, text: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let name = name.text();
        let beside = self.directory.join(format!("{name}.tmp"));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, self.directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_no_half_file_stays() {
        let room = tempfile::tempdir().unwrap();
        let cache = Cache::new(&room.path().join("cache"));

        assert_eq!(cache.read(Name::Consensus), "");
        cache
            .write(Name::Consensus, "network-status-version 3 microdesc\n")
            .unwrap();
        cache.write(Name::Consensus, "network-status-version 3\n").unwrap();

        assert_eq!(cache.read(Name::Consensus), "network-status-version 3\n");
        assert_eq!(std::fs::read_dir(room.path().join("cache")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let room = tempfile::tempdir().unwrap();
        std::fs::write(room.path().join("cached-certs"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(room.path().join("cached-microdescs")).unwrap();
        let cache = Cache::new(room.path());

        assert_eq!(
            (cache.read(Name::Certificates), cache.read(Name::Microdescriptors)),
            (String::new(), String::new())
        );
    }
}
