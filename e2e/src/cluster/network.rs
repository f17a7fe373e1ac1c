//! A node is a network namespace with a cable to the host.
//!
//! kube-proxy's and CNI's rules, bridges and host ports stay inside the namespace and vanish with it. The host has a
//! route to every node's pods and to the services, so that pods, services and node ports are reachable from it
//! without address translation. All addresses are of RFC 2544: none is private in Tor's eyes, none is routed on the
//! Internet.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{command, output, succeeds};

/// More nodes than this have no addresses: node N's pods are 198.18.N.0/24, and Tor's machines sit further up.
pub const NODES_MAX: u8 = 16;

/// Where services live.
pub const SERVICES: &str = "198.19.0.0/17";

/// Where nodes and the machine's ends of their cables are.
pub const CABLES: &str = "198.19.255.0/24";

/// The API server's own service address.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

const NAMESPACE: &str = "relayfleet-node";
const LINK: &str = "rfnode";
/// Worse than that of any route that works.
const METRIC_PULLED: &str = "9999";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Node N's own address; node 1's is the API server's too.
pub fn address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 255, (node * 4).saturating_sub(2))
}

/// The host's end of node N's cable.
pub fn host_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 255, (node * 4).saturating_sub(3))
}

/// Node N's pods.
pub fn pods(node: u8) -> String {
    format!("198.18.{node}.0/24")
}

/// Node N's network namespace.
pub fn namespace(node: u8) -> String {
    format!("{NAMESPACE}{node}")
}

/// The host's end of node N's cable; setting it down is a partition.
pub fn link(node: u8) -> String {
    format!("{LINK}{node}")
}

/// Pulls node N's cable. The host's routes go with it; what is sent there must not take the machine's way to the world.
///
/// # Errors
/// `ip` fails.
pub fn pull_cable(node: u8) -> Result<()> {
    for network in behind_cable(node) {
        ip(&format!("route replace unreachable {network} metric {METRIC_PULLED}"))?;
    }
    ip(&format!("link set {} down", link(node)))
}

/// Plugs it in again.
///
/// # Errors
/// `ip` fails.
pub fn plug_cable(node: u8) -> Result<()> {
    ip(&format!("link set {} up", link(node)))?;
    ip(&format!("route replace {} via {}", pods(node), address(node)))?;
    forget_pulled(node);
    Ok(())
}

fn forget_pulled(node: u8) {
    for network in behind_cable(node) {
        // Mostly it is not there.
        let _ = succeeds(&mut command(
            "ip",
            ["route", "del", "unreachable", &network, "metric", METRIC_PULLED],
        ));
    }
}

fn behind_cable(node: u8) -> [String; 2] {
    let cable = Ipv4Addr::from_bits(address(node).to_bits() & !3);
    [pods(node), format!("{cable}/30")]
}

/// Whether an address (with or without a prefix length) is one that the cluster takes.
pub fn is_ours(text: &str) -> bool {
    let address = text
        .split('/')
        .next()
        .and_then(|address| address.parse::<Ipv4Addr>().ok());
    match address.map(|address| address.octets()) {
        Some([198, 18, third, _]) => (1..=NODES_MAX).contains(&third),
        Some([198, 19, ..]) => true,
        _ => false,
    }
}

/// Network namespaces of ours that are there.
pub fn namespaces() -> Vec<String> {
    named("/run/netns", NAMESPACE)
}

/// All links of ours that are there.
pub fn links() -> Vec<String> {
    named("/sys/class/net", LINK)
}

fn named(folder: &str, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Whether node N's cable is there.
pub fn is_laid(node: u8) -> bool {
    Path::new("/run/netns").join(namespace(node)).exists() && links().contains(&link(node))
}

/// Lays node N's cable.
///
/// # Errors
/// `ip` refuses: no root, or something of that name is there.
pub fn make(node: u8) -> Result<()> {
    let (namespace, link) = (namespace(node), link(node));
    let (inside, host) = (address(node), host_address(node));
    for line in [
        format!("netns add {namespace}"),
        format!("link add {link} type veth peer name uplink netns {namespace}"),
        format!("addr add {host}/30 dev {link}"),
        format!("link set {link} up"),
        format!("-n {namespace} addr add {inside}/30 dev uplink"),
        format!("-n {namespace} link set uplink up"),
        format!("-n {namespace} link set lo up"),
        format!("-n {namespace} route add default via {host}"),
        format!("route add {} via {inside}", pods(node)),
    ] {
        ip(&line)?;
    }
    if node == 1 {
        ip(&format!("route add {SERVICES} via {inside}"))?;
    }
    fs::write(FORWARD, "1").context("cannot turn on net.ipv4.ip_forward")?;
    let mut inside = command("nsenter", [format!("--net=/run/netns/{namespace}")]);
    output(inside.args(["sh", "-c", &format!("echo 1 > {FORWARD}")]))?;
    Ok(())
}

/// Removes every namespace and link of ours; routes and rules go with them.
///
/// # Errors
/// `ip` refuses.
pub fn remove_all() -> Result<()> {
    (1..=NODES_MAX)
        .filter(|node| links().contains(&link(*node)))
        .for_each(forget_pulled);
    for link in links() {
        // The link goes by itself with its namespace, but only a moment later.
        let _ = succeeds(&mut command("ip", ["link", "del", &link]));
    }
    for namespace in namespaces() {
        ip(&format!("netns del {namespace}"))?;
    }
    Ok(())
}

/// What forwarding is now, to be put back later.
///
/// # Errors
/// /proc is not there.
pub fn forwarding() -> Result<String> {
    Ok(fs::read_to_string(FORWARD)
        .context("cannot read net.ipv4.ip_forward")?
        .trim()
        .to_owned())
}

/// Puts forwarding back.
///
/// # Errors
/// /proc cannot be written.
pub fn set_forwarding(value: &str) -> Result<()> {
    fs::write(FORWARD, value).context("cannot write net.ipv4.ip_forward")
}

/// Network namespaces that CNI made for pods of ours and that nothing else will remove: those holding an address of
/// our pods.
pub fn pod_namespaces() -> Vec<String> {
    let ours = |name: &String| {
        let shown = output(&mut command("ip", ["-n", name, "-4", "-o", "addr", "show"])).unwrap_or_default();
        shown.split_whitespace().any(is_ours)
    };
    named("/run/netns", "cni-").into_iter().filter(ours).collect()
}

/// Removes a network namespace by name, if it is there.
///
/// # Errors
/// `ip` refuses.
pub fn remove_namespace(name: &str) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() {
        ip(&format!("netns del {name}"))?;
    }
    Ok(())
}

fn ip(line: &str) -> Result<()> {
    output(&mut command("ip", line.split(' '))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_pods_and_services_share_no_address_with_the_tor_network() {
        assert_eq!(address(1).to_string(), "198.19.255.2");
        assert_eq!(host_address(2).to_string(), "198.19.255.5");
        assert_eq!(address(NODES_MAX).to_string(), "198.19.255.62");
        assert!(is_ours("198.18.1.7/24") && is_ours("198.19.0.1") && is_ours(&pods(NODES_MAX)));
        assert!(!is_ours("198.18.200.1") && !is_ours("192.0.2.2/24") && !is_ours("default"));
    }
}
