//! The images of this checkout, built when something changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::image::{self, Kind, Made, Programs};
use crate::programs::{repository, target};
use crate::say;

/// Images that a cluster can be given.
pub struct Images {
    /// The tag of those that hold our programs: the version and what is in them, so that a changed program is a
    /// changed image to Kubernetes too.
    pub tag: String,
    /// Their archives, and those of what else the cluster runs.
    pub archives: Vec<PathBuf>,
    /// Name and digest of each.
    pub made: Vec<Made>,
}

/// Our programs, built statically if anything changed. With `RELAYFLEET_PROGRAMS`, a folder with `relay`, `operator`
/// and `pause` that were linked statically elsewhere, nothing is built.
///
/// # Errors
/// Cargo fails.
pub fn programs() -> Result<Programs> {
    if let Some(folder) = std::env::var_os("RELAYFLEET_PROGRAMS") {
        return Ok(Programs::in_folder(Path::new(&folder)));
    }
    say::step("building relay and operator as static programs (cargo, release)");
    image::build_static(&repository())
}

/// Puts our programs into images.
///
/// # Errors
/// Cargo fails, or a Debian package is missing.
pub fn ready() -> Result<Images> {
    let built = programs()?;
    let mut hash = Sha256::new();
    for program in [&built.relay, &built.operator] {
        hash.update(fs::read(program).with_context(|| format!("cannot read {}", program.display()))?);
    }
    let contents: String = hex::encode(hash.finalize()).chars().take(10).collect();
    let tag = format!("{}-{contents}", image::VERSION);
    let folder = target().join("images");
    let mut made = image::make(&[Kind::Relay, Kind::Operator, Kind::Tor], &built, &folder, &tag)?;
    made.extend(image::make_pause_and_busybox(&built.pause, &folder, image::VERSION)?);
    let archives = made.iter().map(|one| one.archive.clone()).collect();
    Ok(Images { tag, archives, made })
}
