//! Images are the same bytes wherever they are built.

use anyhow::{Result, ensure};

use super::Form;
use crate::demo::Demo;
use crate::image;
use crate::programs::{cache, repository, target};

/// The demo built them in the repository; here they are built from a copy in another folder.
pub(super) fn same_digest_elsewhere(_: &Demo, _: Form) -> Result<()> {
    let first = image::build_static(&repository())?;
    let first = image::make(&image::OURS, &first, &target().join("images/here"), image::VERSION)?;
    let second = image::build_elsewhere(&repository(), &cache().join("another/folder"), image::VERSION)?;
    for (one, other) in first.iter().zip(&second) {
        ensure!(
            one.digest == other.digest,
            "{}: {} here, {} elsewhere",
            one.name,
            one.digest,
            other.digest
        );
        crate::say::step(format!("{} {}", one.name, one.digest));
    }
    ensure!(first.len() == second.len(), "not as many images here as there");
    Ok(())
}
