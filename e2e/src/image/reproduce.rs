//! The proof that an image does not depend on where it was built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::archive::{Image, Made};
use super::build::{Programs, build_static, build_static_into};
use super::catalog::{Kind, ours};

/// Builds the relay's, the operator's and pause's images twice, from two copies of the workspace's files in two
/// folders below `scratch`, and compares the archives byte by byte. Gives the images of the first build.
///
/// # Errors
/// When a build fails or two archives differ.
pub fn reproduce(workspace: &Path, scratch: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    // Of different length, which moves every offset if a path gets in.
    let first = once(workspace, &scratch.join("here"), tag)?;
    let second = once(workspace, &scratch.join("somewhere/else/entirely"), tag)?;
    for (one, other) in first.iter().zip(&second) {
        let same = fs::read(&one.archive)? == fs::read(&other.archive)?;
        ensure!(
            same && one.digest == other.digest,
            "{} is {} when built in one folder and {} in another: compare {} and {}",
            one.name,
            one.digest,
            other.digest,
            one.archive.display(),
            other.archive.display()
        );
    }
    Ok(first)
}

/// The images of our own programs, built from a copy of the workspace's files in this folder, with other crates as
/// they were built for any checkout: minutes less than [`reproduce`], which trusts nothing.
///
/// # Errors
/// When the build fails.
pub fn build_elsewhere(workspace: &Path, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    fs::create_dir_all(folder)?;
    // A file that the workspace no longer has must not take part.
    let copy = folder.join("source");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_tracked(workspace, &copy)?;
    images(&build_static(&copy)?, folder, tag)
}

fn once(workspace: &Path, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    let copy = folder.join("source");
    copy_tracked(workspace, &copy)?;
    images(&build_static_into(&copy, &folder.join("target"))?, folder, tag)
}

fn images(programs: &Programs, folder: &Path, tag: &str) -> anyhow::Result<Vec<Made>> {
    [
        (Kind::Relay, &programs.relay),
        (Kind::Operator, &programs.operator),
        (Kind::Pause, &programs.pause),
    ]
    .into_iter()
    .map(|(kind, program)| {
        let image: Image = ours(kind, program, tag)?;
        image.write(&folder.join(format!("{}.tar", kind.word())))
    })
    .collect()
}

/// What git knows of the workspace, as it lies there now; with changes that are not committed.
fn copy_tracked(workspace: &Path, copy: &Path) -> anyhow::Result<()> {
    let output = Command::new("git")
        .current_dir(workspace)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot start git")?;
    ensure!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in String::from_utf8(output.stdout)?
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        let (from, to) = (workspace.join(name), copy.join(name));
        if !from.is_file() {
            continue; // deleted and not yet committed
        }
        let parent: PathBuf = to.parent().map(Path::to_owned).unwrap_or_default();
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&from, &to))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
