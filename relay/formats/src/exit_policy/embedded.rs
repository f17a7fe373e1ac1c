//! IPv4 addresses that travel inside IPv6 addresses.
//!
//! ```text
//! ::a.b.c.d          compatible   RFC 4291 2.5.5.1 (and ::, ::1, whose IPv4 nobody may reach either)
//! ::ffff:a.b.c.d     mapped       RFC 4291 2.5.5.2: the kernel connects by IPv4
//! 64:ff9b::a.b.c.d   NAT64        RFC 6052; 64:ff9b:1::/48 (RFC 8215) is left to the private networks: its layout is local
//! 2002:ab:cd::       6to4         RFC 3056
//! 2001:0:server::client  Teredo   RFC 4380: server as it is, client with all bits turned
//! ```
//!
//! The rule for an exit: such an address is open only if the address inside is open as well. With
//! `ExitPolicyRejectPrivate` the first three never get here, as `[::]/8` holds them.

use std::net::{IpAddr, Ipv4Addr};

/// The IPv4 addresses inside, two at most.
pub(super) fn ipv4_inside(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match address {
        IpAddr::V4(_) => [None, None],
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => [Some(join(high, low)), None],
            [0, 0, 0, 0, 0xffff, 0, high, low] => [Some(join(high, low)), None],
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [Some(join(high, low)), None],
            [0x2002, high, low, ..] => [Some(join(high, low)), None],
            [0x2001, 0, server_high, server_low, _, _, high, low] => {
                [Some(join(server_high, server_low)), Some(join(!high, !low))]
            }
            _ => [None, None],
        },
    };
    found.into_iter().flatten()
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
