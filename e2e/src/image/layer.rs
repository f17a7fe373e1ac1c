//! A root file system as one tar layer: the same bytes from the same files.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use tar::{Builder, EntryType, Header};

/// What stands at one path of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

/// A file system in the making. All of it belongs to root, so that the program, which runs as somebody else, cannot
/// change it.
#[derive(Debug, Default, Clone)]
pub struct Layer {
    /// Without a leading slash; the map's order is the archive's.
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// Adds a file's content at an absolute path, and the folders above it.
    pub fn file(&mut self, path: &str, content: Vec<u8>, mode: u32) -> &mut Self {
        self.add(path, Entry::File { content, mode })
    }

    /// Adds an executable copied from `source` on this machine.
    ///
    /// # Errors
    /// When `source` cannot be read.
    pub fn program(&mut self, path: &str, source: &Path) -> anyhow::Result<&mut Self> {
        let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        Ok(self.file(path, content, 0o555))
    }

    /// Adds an empty folder.
    pub fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(path, Entry::Directory { mode })
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        )
    }

    fn add(&mut self, path: &str, entry: Entry) -> &mut Self {
        let path = path.trim_matches('/').to_owned();
        for (slash, _) in path.match_indices('/') {
            let parent = path.get(..slash).unwrap_or_default().to_owned();
            self.entries.entry(parent).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path, entry);
        self
    }

    /// The layer as an uncompressed tar (image-spec "Image Layer Filesystem Changeset").
    ///
    /// # Errors
    /// When a path is longer than a tar header holds.
    pub fn to_tar(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let name = match entry {
                Entry::Directory { .. } => format!("{path}/"),
                _ => path.clone(),
            };
            append(&mut tar, &name, entry).with_context(|| format!("cannot put {path} into an image"))?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(tar: &mut Builder<Vec<u8>>, name: &str, entry: &Entry) -> anyhow::Result<()> {
    if name == "/" {
        bail!("the root folder is not an entry");
    }
    let mut header = Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match entry {
        Entry::Directory { mode } => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            tar.append_data(&mut header, name, io::empty())?;
        }
        Entry::File { content, mode } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_slice())?;
        }
        Entry::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, name, target)?;
        }
    }
    Ok(())
}
