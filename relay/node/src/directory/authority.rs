//! What a torrc `DirAuthority` line says, as this part needs it.

use std::net::SocketAddr;

use relay_formats::torrc::DirAuthority;

/// Its ORPorts: IPv4 first.
pub fn or_addresses(authority: &DirAuthority) -> Vec<SocketAddr> {
    let first = authority
        .or_port
        .map(|port| SocketAddr::new(authority.dir_address.ip(), port));
    first
        .into_iter()
        .chain(authority.ipv6_or_address.map(SocketAddr::from))
        .collect()
}

/// Its name in log lines.
pub fn describe(authority: &DirAuthority) -> String {
    match &authority.nickname {
        Some(name) => format!("directory authority \"{name}\" at {}", authority.dir_address),
        None => format!("directory authority at {}", authority.dir_address),
    }
}
