//! One of Cargo's target folders, shared by several checkouts, without one's crates taken for another's.
//!
//! Cargo knows our own crates by their path within the workspace and by the age of their files: what one checkout
//! built a minute ago looks fresh to another whose files are older, whatever is in them. So the folder belongs to one
//! checkout at a time, and changes hands without our own crates.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::build::cargo;
use crate::state::write_whole;

/// Names the checkout whose crates are in the folder.
const OWNER: &str = "built-from";

/// Waits until nobody builds there, and removes what another checkout has built of our own crates. The folder is this
/// checkout's until the file is dropped. `flags` are those that choose profile and target of the build: Cargo clears
/// what was built with them and nothing else.
pub(super) fn take_over(workspace: &Path, target: &Path, flags: &[&str]) -> anyhow::Result<File> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    let path = target.join("checkout.lock");
    let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    lock.lock().context("cannot lock")?;
    let (owner, us) = (target.join(OWNER), workspace.as_os_str().as_encoded_bytes());
    if fs::read(&owner).is_ok_and(|owner| owner == us) {
        return Ok(lock);
    }
    // Should we be killed in between, nobody owns it and the next clears it again.
    if owner.exists() {
        fs::remove_file(&owner)?;
    }
    let mut clean = Command::new(cargo());
    clean
        .current_dir(workspace)
        .args(["clean", "--quiet", "--workspace"])
        .args(flags)
        .arg("--target-dir")
        .arg(target);
    let status = clean.status().context("cannot start cargo: is Rust installed?")?;
    ensure!(
        status.success(),
        "cargo could not clear {} ({status})",
        target.display()
    );
    write_whole(&owner, us)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::build::Toolchain;
    use super::*;

    /// A workspace with one program that prints this word.
    fn checkout(folder: &Path, word: &str) -> PathBuf {
        let root = folder.join(word);
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(
            root.join("Cargo.toml"),
            "[package]\nname = \"word\"\nedition = \"2024\"\n\n[workspace]\n",
        )
        .unwrap();
        fs::write(
            root.join("src/main.rs"),
            format!("fn main() {{ print!(\"{word}\"); }}\n"),
        )
        .unwrap();
        root
    }

    fn built(root: &Path, target: &Path) -> String {
        let host = Toolchain::ask(root).unwrap().host;
        let flags = ["--release", "--target", &host];
        let _lock = take_over(root, target, &flags).unwrap();
        let mut build = Command::new(cargo());
        build
            .current_dir(root)
            .args(["build", "--quiet", "--offline"])
            .args(flags);
        assert!(build.arg("--target-dir").arg(target).status().unwrap().success());
        let program = target.join(&host).join("release/word");
        String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_checkout_gets_its_own_program_though_another_built_later() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        let (old, new) = (checkout(folder.path(), "old"), checkout(folder.path(), "new"));
        assert_eq!(built(&new, &target), "new");
        assert_eq!(built(&old, &target), "old", "its files are older than what is there");
        assert_eq!(built(&new, &target), "new");
    }
}
