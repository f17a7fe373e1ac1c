//! Images in the nodes' containerds: brought as OCI archives, kept for nodes that come later.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::node::Node;
use crate::command::output;
use crate::state::{Places, write_whole};
use crate::{image, programs};

/// The image that holds a pod's namespaces open.
pub fn pause() -> String {
    image::Kind::Pause.name(image::VERSION)
}

/// The image with /bin/sh, mkdir and rm that makes and removes the folders of local volumes.
pub fn busybox() -> String {
    image::Kind::Busybox.name(image::VERSION)
}

/// Makes the two images without which no pod can run, and keeps them for every node.
///
/// # Errors
/// The build fails, or the Debian package busybox-static is missing.
pub fn make_first(places: &Places) -> Result<()> {
    let pause = image::build_pause(&programs::repository())?;
    image::make_pause_and_busybox(&pause, &folder(places), image::VERSION).map(drop)
}

fn folder(places: &Places) -> PathBuf {
    places.state.join("images")
}

/// Whether every node has exactly this archive already.
pub fn is_kept(places: &Places, archive: &Path) -> bool {
    let Some(name) = archive.file_name() else { return false };
    let same_size = |one: &Path, other: &Path| Some(fs::metadata(one).ok()?.len() == fs::metadata(other).ok()?.len());
    let kept = folder(places).join(name);
    same_size(&kept, archive).unwrap_or(false) && fs::read(&kept).ok() == fs::read(archive).ok()
}

/// Copies an archive to where later nodes find it, once those that are there have it.
///
/// # Errors
/// It cannot be read, or there is no space.
pub fn keep(places: &Places, archive: &Path) -> Result<()> {
    fs::create_dir_all(folder(places))?;
    let kept = folder(places).join(archive.file_name().context("an archive needs a file name")?);
    let bytes = fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
    write_whole(&kept, &bytes)
}

/// The archives that every node gets.
pub fn kept(places: &Places) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(places)).into_iter().flatten().flatten();
    let mut archives: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    archives
}

/// Brings an archive into one node.
///
/// # Errors
/// `ctr` refuses it.
pub fn import_into(node: &Node<'_>, archive: &Path) -> Result<()> {
    let mut ctr = node.ctr(["images", "import"]);
    output(ctr.arg(archive)).with_context(|| format!("cannot import {} into {}", archive.display(), node.name()))?;
    Ok(())
}
