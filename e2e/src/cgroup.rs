//! The control groups that a node's kubelet may fill: one named after the node, under every hierarchy (cgroup v1) or
//! in the one tree (v2).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Known;

const ROOT: &str = "/sys/fs/cgroup";

/// Controllers that a kubelet wants to find in its group on a v2 machine.
const CONTROLLERS: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "misc"];

/// Whether this machine has the one tree of v2 at /sys/fs/cgroup.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes the group of this name.
///
/// # Errors
/// /sys/fs/cgroup cannot be written: no root, or a container without cgroups of its own.
pub fn make(name: &str) -> Result<()> {
    if is_v2() {
        make_v2(Path::new(ROOT), name)
    } else {
        make_v1(name)
    }
}

fn make_v1(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
        // A new cpuset group has no processor and no memory, and so can hold no process, until it is told.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(hierarchy.join(file)) {
                fs::write(group.join(file), all)?;
            }
        }
    }
    Ok(())
}

fn make_v2(root: &Path, name: &str) -> Result<()> {
    let group = root.join(name);
    fs::create_dir_all(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
    if delegate(root).is_err() {
        // In a container the root of the tree is no real root: it may hold processes or hand on controllers, not both.
        let processes = fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
        let leaf = root.join("init");
        fs::create_dir_all(&leaf)?;
        for pid in processes.lines() {
            let _ = fs::write(leaf.join("cgroup.procs"), pid);
        }
    }
    delegate(root)
        .and_then(|()| delegate(&group))
        .context("cannot hand cgroup controllers on to the node")
}

/// Hands every controller that a group has on to its children.
fn delegate(group: &Path) -> Result<()> {
    let there = fs::read_to_string(group.join("cgroup.controllers"))?;
    for controller in CONTROLLERS
        .iter()
        .filter(|wanted| there.split_whitespace().any(|one| one == **wanted))
    {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// Every process in a group of a name that starts like this, in any hierarchy.
pub fn processes(prefix: &str) -> Vec<Known> {
    let mut found = Vec::new();
    for group in groups(prefix) {
        let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|pid| Known::of(pid.parse().ok()?)));
    }
    found.sort_by_key(|known| known.pid);
    found.dedup();
    found
}

/// Removes all groups of a name that starts like this; they must hold no process any more.
pub fn remove(prefix: &str) {
    for group in groups(prefix) {
        // The kernel frees a group a moment after its last process; whoever calls again gets the rest.
        let _ = fs::remove_dir(group);
    }
}

/// The groups of a name that starts like this and all below them, children before parents.
pub fn groups(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        for top in folders(&hierarchy) {
            if top
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            {
                collect(&top, &mut found);
            }
        }
    }
    found
}

/// The groups right below the root of every hierarchy.
pub fn top_groups() -> Vec<PathBuf> {
    hierarchies().iter().flat_map(|hierarchy| folders(hierarchy)).collect()
}

fn collect(group: &Path, found: &mut Vec<PathBuf>) {
    for child in folders(group) {
        collect(&child, found);
    }
    found.push(group.to_path_buf());
}

fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        vec![PathBuf::from(ROOT)]
    } else {
        folders(Path::new(ROOT))
    }
}

/// Folders in a folder; names that are links to others (`cpu` to `cpu,cpuacct`) are left out.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}
