//! Everything of this machine that a run could leave behind, to be compared before and after.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::cgroup;
use crate::command::{command, output};
use crate::process;

/// One line for each thing: `mount /…`, `link …`, `rule …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

/// Takes one now.
///
/// # Errors
/// `ip` cannot be run.
pub fn take() -> Result<Snapshot> {
    let mut lines = BTreeSet::new();
    let mut add = |kind: &str, text: &str| {
        lines.extend(
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(|line| format!("{kind} {line}")),
        );
    };
    let own_network = network_of("self");
    for known in process::all() {
        // Other people's programs come and go. Ours carry our marker or live in a network namespace of their own.
        let foreign = network_of(&known.pid.to_string()).is_some_and(|network| Some(network) != own_network);
        if foreign || process::is_marked(known.pid) {
            add("process", &format!("{} {}", known.pid, process::name(known.pid)));
        }
    }
    add("mount", &fs::read_to_string("/proc/self/mounts")?);
    // What others have below groups of their own comes and goes too.
    for group in cgroup::top_groups() {
        add("cgroup", &group.display().to_string());
    }
    add("link", &names_in("/sys/class/net"));
    add("netns", &names_in("/run/netns"));
    add(
        "address",
        &without_lifetimes(&output(&mut command("ip", ["-o", "addr", "show"]))?),
    );
    add("route", &output(&mut command("ip", ["route", "show", "table", "all"]))?);
    add("policy", &output(&mut command("ip", ["rule", "show"]))?);
    add(
        "nft",
        &output(&mut command("nft", ["list", "ruleset"])).unwrap_or_default(),
    );
    for family in ["iptables-save", "ip6tables-save"] {
        let rules = output(&mut command(family, [""; 0])).unwrap_or_default();
        let rules: Vec<&str> = rules.lines().filter(|line| line.starts_with("-A")).collect();
        add(family, &rules.join("\n"));
    }
    for folder in [
        "/run",
        "/var/lib",
        "/run/containerd",
        "/var/lib/cni",
        "/var/lib/kubelet",
    ] {
        add(&format!("in {folder}:"), &names_in(folder));
    }
    add(
        "sysctl",
        &format!("ip_forward {}", fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?),
    );
    Ok(Snapshot { lines })
}

impl Snapshot {
    /// What is here and was not there before.
    pub fn left_since(&self, before: &Self) -> Vec<String> {
        self.lines.difference(&before.lines).cloned().collect()
    }

    /// What was there before and is no more, and does not end by itself.
    pub fn missing_since(&self, before: &Self) -> Vec<String> {
        let mut missing = before.left_since(self);
        missing.retain(|line| !line.starts_with("process ") && !line.starts_with("cgroup "));
        missing
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn network_of(pid: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn names_in(folder: &str) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| format!("{}\n", entry.file_name().to_string_lossy()))
        .collect()
}

/// An address's remaining lifetime counts down by itself.
fn without_lifetimes(shown: &str) -> String {
    shown
        .lines()
        .map(|line| format!("{}\n", line.split("valid_lft").next().unwrap_or(line).trim_end()))
        .collect()
}
