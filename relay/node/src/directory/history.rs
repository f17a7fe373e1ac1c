//! Consensuses of the last days, on disk: what diffs lead from.
//!
//! One file each, packed by zstd, in `old-consensuses/` of the cache directory. C tor's `diff-cache/` is left alone: it has
//! labels of its own, and whoever reads a foreign one throws it away.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fetch::RawConsensus;
use crate::dircache::compress::{Effort, Encoding, pack};
use crate::dircache::request::Flavor;

const FOLDER: &str = "old-consensuses";
const ENDING: &str = ".zst";

/// Files, both flavours together (C tor, `CACHE_MAX_NUM`): at 0.7 MB each 90 MB of disk.
const FILES_MAX: usize = 128;

/// A consensus is never longer.
const TEXT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The folder.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
}

/// One of its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Past {
    /// Seconds since 1970 at which it became valid.
    valid_after: u64,
    flavor: Flavor,
}

impl Past {
    fn of(raw: &RawConsensus) -> Self {
        let valid_after = raw.lifetime.valid_after.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            valid_after: valid_after.unwrap_or_default().as_secs(),
            flavor: raw.flavor,
        }
    }

    /// `microdesc-1795348800.zst`.
    fn name(&self) -> String {
        format!("{}-{}{ENDING}", flavor_name(self.flavor), self.valid_after)
    }

    fn parse(name: &str) -> Option<Self> {
        let (flavor, valid_after) = name.strip_suffix(ENDING)?.split_once('-')?;
        let flavor = [Flavor::Ns, Flavor::Microdesc]
            .into_iter()
            .find(|one| flavor_name(*one) == flavor)?;
        Some(Self {
            valid_after: valid_after.parse().ok()?,
            flavor,
        })
    }

    fn age(&self, now: SystemTime) -> Duration {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(Duration::from_secs(self.valid_after))
    }
}

fn flavor_name(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Ns => "ns",
        Flavor::Microdesc => "microdesc",
    }
}

impl History {
    /// Nothing is touched before something is written.
    pub fn new(cache_directory: &Path) -> Self {
        Self {
            folder: cache_directory.join(FOLDER),
        }
    }

    /// Writes one down, if it is new; throws away what is older than `age_max`, and the oldest of too many.
    ///
    /// # Errors
    /// The disk's.
    pub fn remember(&self, raw: &RawConsensus, age_max: Duration, now: SystemTime) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(Past::of(raw).name());
        if !path.exists() {
            let beside = path.with_extension("tmp");
            fs::write(&beside, pack(&[raw.text.as_bytes()], Encoding::Zstd, Effort::OnTheFly)?)?;
            fs::rename(&beside, &path)?;
        }
        let mut all = self.all()?;
        all.sort();
        let too_many = all.len().saturating_sub(FILES_MAX);
        let (first, rest) = all.split_at_checked(too_many).unwrap_or((&[], &all));
        let old = rest
            .iter()
            .filter(|past| past.age(now) > age_max && **past != Past::of(raw));
        for past in first.iter().chain(old) {
            fs::remove_file(self.folder.join(past.name()))?;
        }
        Ok(())
    }

    /// Those of the same flavour that are older than `raw` and not older than `age_max`, the newest first.
    pub fn before(&self, raw: &RawConsensus, age_max: Duration, now: SystemTime) -> Vec<Past> {
        let this = Past::of(raw);
        let mut found = self.all().unwrap_or_default();
        found.retain(|past| {
            past.flavor == this.flavor && past.valid_after < this.valid_after && past.age(now) <= age_max
        });
        found.sort();
        found.reverse();
        found
    }

    /// The text of one. `None`: it is gone or damaged, which costs a diff.
    pub fn read(&self, past: &Past) -> Option<String> {
        let file = fs::File::open(self.folder.join(past.name())).ok()?;
        let mut text = String::new();
        let unpacked = zstd::Decoder::new(file).ok()?;
        unpacked.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn all(&self) -> io::Result<Vec<Past>> {
        let entries = fs::read_dir(&self.folder)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| Past::parse(&name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::schedule::Lifetime;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
    }

    fn raw(flavor: Flavor, valid_after: SystemTime, text: &str) -> RawConsensus {
        RawConsensus {
            flavor,
            digest: [0; 32],
            lifetime: Lifetime {
                valid_after,
                fresh_until: valid_after + HOUR,
                valid_until: valid_after + 3 * HOUR,
            },
            signed_by: Vec::new(),
            text: text.into(),
        }
    }

    #[test]
    fn what_was_remembered_is_found_newest_first_and_by_flavour() {
        let room = tempfile::tempdir().unwrap();
        let history = History::new(room.path());
        for hour in 0..5 {
            let (when, text) = (noon() + hour * HOUR, format!("consensus {hour}"));
            history.remember(&raw(Flavor::Ns, when, &text), 3 * HOUR, when).unwrap();
        }
        history
            .remember(&raw(Flavor::Microdesc, noon(), "other"), 9 * HOUR, noon() + 4 * HOUR)
            .unwrap();

        let newest = raw(Flavor::Ns, noon() + 4 * HOUR, "");
        let found = history.before(&newest, 2 * HOUR, noon() + 4 * HOUR);

        let texts: Vec<_> = found.iter().map(|past| history.read(past).unwrap()).collect();
        assert_eq!(texts, ["consensus 3", "consensus 2"]);
        let folder = room.path().join(FOLDER);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 5, "the first is too old");
        fs::write(folder.join(found[0].name()), b"damaged").unwrap();
        assert_eq!(history.read(&found[0]), None);
    }

    #[test]
    fn disk_is_bounded_and_foreign_files_stay() {
        let room = tempfile::tempdir().unwrap();
        let history = History::new(room.path());
        fs::create_dir(room.path().join(FOLDER)).unwrap();
        fs::write(room.path().join(FOLDER).join("notes.txt"), b"mine").unwrap();
        for second in 0..FILES_MAX as u64 + 5 {
            let when = noon() + Duration::from_secs(second);
            history.remember(&raw(Flavor::Ns, when, "x"), HOUR, when).unwrap();
        }
        assert_eq!(history.all().unwrap().len(), FILES_MAX);
        assert!(room.path().join(FOLDER).join("notes.txt").exists());
    }
}
