//! What this machine must have before anything is started, each said with its remedy.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::cluster::network;
use crate::command;

/// Less is not enough for images, etcd and logs.
const FREE_BYTES_MIN: u64 = 6 << 30;

/// Programs that Debian's packages bring, and the package of each.
const TOOLS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// All checks that need no earlier run cleared away.
///
/// # Errors
/// The first thing that is missing, with what to do.
pub fn check(state: &Path) -> Result<()> {
    root()?;
    tools()?;
    space(state)?;
    addresses()
}

/// # Errors
/// Not root.
pub fn root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces, mounts and containers need root: run it as root (or with sudo)");
    }
    Ok(())
}

fn tools() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    for (tool, package) in TOOLS {
        if !folders.iter().any(|folder| folder.join(tool).is_file()) {
            bail!("no {tool} on the PATH: apt-get install {package}");
        }
    }
    if !Path::new("/usr/lib/cni/bridge").is_file() {
        bail!("no CNI plugins in /usr/lib/cni: apt-get install containernetworking-plugins");
    }
    Ok(())
}

/// # Errors
/// Fewer than 6 GiB are free where this path lies or will lie.
pub fn space(place: &Path) -> Result<()> {
    let there = place.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let mut df = command::command("df", ["--output=avail", "-B1"]);
    let said = command::output(df.arg(there))?;
    let free: u64 = said
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or(0);
    if free < FREE_BYTES_MIN {
        bail!(
            "{:.1} GiB free on the disk of {}, at least {} GiB are needed: make room, or set RELAYFLEET_STATE to a \
             folder on a larger disk",
            free as f64 / f64::from(1 << 30),
            there.display(),
            FREE_BYTES_MIN >> 30
        );
    }
    Ok(())
}

/// The addresses and names that the cluster takes must be free. Call it after an earlier run was cleared away: then
/// what is left is somebody else's.
///
/// # Errors
/// An address, a route or a namespace of ours belongs to someone else.
fn addresses() -> Result<()> {
    for line in command::output(&mut command::command("ip", ["-4", "-o", "addr", "show"]))?.lines() {
        if let Some(taken) = line.split_whitespace().find(|word| network::is_ours(word)) {
            bail!("the address {taken} is taken on this machine, and the cluster needs it: `ip addr show`\n  | {line}");
        }
    }
    for line in command::output(&mut command::command("ip", ["-4", "route", "show"]))?.lines() {
        if line.split_whitespace().next().is_some_and(network::is_ours) {
            bail!(
                "a route to the cluster's addresses is there already: `ip route del {}`",
                line.trim()
            );
        }
    }
    if let Some(name) = network::namespaces().first() {
        bail!("the network namespace {name} is there and no run of ours is known: `ip netns del {name}`");
    }
    let forward = fs::metadata("/proc/sys/net/ipv4/ip_forward");
    if forward.is_err() {
        bail!("no /proc/sys/net/ipv4/ip_forward: is /proc mounted?");
    }
    Ok(())
}
