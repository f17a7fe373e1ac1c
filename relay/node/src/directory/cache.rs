//! Directory documents on disk, under C tor's names, so that either program starts from the other's cache.
//!
//! A file that is missing or damaged costs a download, nothing more.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::netdoc::{AuthorityCertificate, Microdescriptor, MicrodescriptorDigest};

const CERTIFICATES: &str = "cached-certs";
const CONSENSUS: &str = "cached-microdesc-consensus";
const MICRODESCRIPTORS: &str = "cached-microdescs";

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

    /// The text of `cached-certs`; empty where there is none.
    pub fn certificates(&self) -> String {
        self.read(CERTIFICATES)
    }

    /// The text of `cached-microdesc-consensus`.
    pub fn consensus(&self) -> String {
        self.read(CONSENSUS)
    }

    /// The text of `cached-microdescs`.
    pub fn microdescriptors(&self) -> String {
        self.read(MICRODESCRIPTORS)
    }

    /// Replaces `cached-certs`.
    pub fn store_certificates(&self, certificates: &[AuthorityCertificate]) -> io::Result<()> {
        let text: String = certificates.iter().map(|one| one.text.as_str()).collect();
        self.write(CERTIFICATES, text.as_bytes())
    }

    /// Replaces `cached-microdesc-consensus`.
    pub fn store_consensus(&self, text: &str) -> io::Result<()> {
        self.write(CONSENSUS, text.as_bytes())
    }

    /// Replaces `cached-microdescs`.
    pub fn store_microdescriptors(
        &self,
        microdescriptors: &BTreeMap<MicrodescriptorDigest, Microdescriptor>,
    ) -> io::Result<()> {
        let text: String = microdescriptors.values().map(|one| one.text.as_str()).collect();
        self.write(MICRODESCRIPTORS, text.as_bytes())
    }

    fn read(&self, name: &str) -> String {
        let path = self.directory.join(name);
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

    /// All or nothing: writes beside the old file, then takes its place.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let beside = self.directory.join(format!("{name}.tmp"));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
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

        assert_eq!(cache.consensus(), "");
        cache.store_consensus("network-status-version 3 microdesc\n").unwrap();
        cache.store_consensus("network-status-version 3\n").unwrap();

        assert_eq!(cache.consensus(), "network-status-version 3\n");
        assert_eq!(std::fs::read_dir(room.path().join("cache")).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let room = tempfile::tempdir().unwrap();
        std::fs::write(room.path().join("cached-certs"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(room.path().join("cached-microdescs")).unwrap();
        let cache = Cache::new(room.path());

        assert_eq!(
            (cache.certificates(), cache.microdescriptors()),
            (String::new(), String::new())
        );
    }
}
