//! Taking a cluster away, whole or half made, so that nothing of it is left: processes, mounts, namespaces, links,
//! rules, control groups, files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use super::network;
use super::node::CGROUP;
use crate::process::{self, Known};
use crate::state::{Places, Record};
use crate::{cgroup, say};

/// Folders that containerd and CNI make outside any place that can be told to them.
pub const FOREIGN_FOLDERS: [&str; 4] = ["/run/containerd", "/var/lib/cni", NETNS, "/var/lib/kubelet"];

const NETNS: &str = "/run/netns";

/// Rounds of killing and unmounting before giving up; each new round meets what the last one set free.
const LIMIT: Duration = Duration::from_secs(30);

/// Removes everything of the cluster in `places`. Safe to call again after a kill at any moment, and when nothing is
/// there.
///
/// # Errors
/// Something cannot be removed; it is named.
pub fn remove(places: &Places) -> Result<()> {
    let record = Record::read(places);
    // The kubelet first: it would start again what is ended after it.
    for first in ["kubelet", ""] {
        let recorded = process::names(places)
            .into_iter()
            .filter(|name| name.starts_with(first));
        let alive: Vec<Known> = recorded.filter_map(|name| process::recorded(places, &name)).collect();
        process::kill_all(&alive)?;
    }
    // containerd's shims bear its marker, and end on no signal of their containers.
    process::kill_all(&process::marked(places))?;
    let pods = pod_namespaces(places);
    let end = Instant::now() + LIMIT;
    while !(clear_groups()? && clear_mounts(places)?) {
        if Instant::now() > end {
            bail!(
                "cannot remove all mounts and control groups: {:?} {:?}",
                mounts(places),
                cgroup::groups(CGROUP)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in pods {
        network::remove_namespace(&name)?;
    }
    network::remove_all()?;
    remove_cni_results()?;
    if let Some(record) = record {
        network::set_forwarding(&record.ip_forward_before)?;
        remove_new_folders(&record);
    }
    places.remove()
}

/// Network namespaces of our pods: those that a container's own description names, and those that hold an address of
/// ours.
fn pod_namespaces(places: &Places) -> Vec<String> {
    let mut names = network::pod_namespaces();
    for node in 1..=network::NODES_MAX {
        let tasks = places
            .run
            .join(format!("node{node}/containerd/io.containerd.runtime.v2.task/k8s.io"));
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("config.json")).unwrap_or_default();
            let described: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let all = described.pointer("/linux/namespaces").and_then(|list| list.as_array());
            let networks = all
                .into_iter()
                .flatten()
                .filter(|one| one.get("type").is_some_and(|kind| kind == "network"));
            let paths = networks.filter_map(|one| Path::new(one.get("path")?.as_str()?).file_name()?.to_str());
            let named = paths.map(str::to_owned);
            names.extend(named.filter(|name| name.starts_with("cni-")));
        }
    }
    names.sort();
    names.dedup();
    names
}

fn clear_groups() -> Result<bool> {
    process::kill_all(&cgroup::processes(CGROUP))?;
    cgroup::remove(CGROUP);
    Ok(cgroup::groups(CGROUP).is_empty())
}

fn clear_mounts(places: &Places) -> Result<bool> {
    for mount in mounts(places).iter().rev() {
        // Lazy: what a dying process still holds goes with it.
        let _ = unmount(mount.as_str(), UnmountFlags::DETACH);
    }
    Ok(mounts(places).is_empty())
}

/// Mount points in our folders, in the order in which they were mounted.
fn mounts(places: &Places) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    // Blanks stand as \040; no path of ours has one unless RELAYFLEET_STATE does.
    let points = points.map(|point| point.replace("\\040", " "));
    points
        .filter(|point| {
            [&places.state, &places.run]
                .iter()
                .any(|ours| Path::new(point).starts_with(ours))
        })
        .collect()
}

/// CNI keeps what it did for each pod in a folder that all users of the machine share.
fn remove_cni_results() -> Result<()> {
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(CGROUP) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Folders that were not there before and hold nothing any more but dead sockets of ours.
fn remove_new_folders(record: &Record) {
    if !record.netns_mounted_before && fs::read_dir(NETNS).is_ok_and(|mut names| names.next().is_none()) {
        // `ip netns add` mounts the folder onto itself.
        let _ = unmount(NETNS, UnmountFlags::DETACH);
    }
    // Another containerd may have come since: then its processes use the folder.
    let others = process::all().any(|known| process::name(known.pid).starts_with("containerd"));
    for folder in FOREIGN_FOLDERS.iter().map(Path::new).filter(|folder| folder.exists()) {
        if record.folders_before.iter().any(|before| before == folder) {
            continue;
        }
        let removed = if others || folder == Path::new(NETNS) {
            fs::remove_dir(folder)
        } else {
            fs::remove_dir_all(folder)
        };
        if let Err(error) = removed {
            say::step(format!("left {} where it is: {error}", folder.display()));
        }
    }
}

/// Whether the folder of network namespaces is mounted onto itself already.
pub fn netns_mounted() -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1) == Some(NETNS))
}
