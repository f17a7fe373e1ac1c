//! Addresses on the loopback device, which pods on this machine can reach.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, bail};

use super::OR_PORT;
use crate::command::{command, output};

/// Those of `wanted` that the loopback device lacks. All of 127/8 is there by itself.
pub(crate) fn missing(wanted: &[Ipv4Addr]) -> anyhow::Result<Vec<Ipv4Addr>> {
    if wanted.iter().all(Ipv4Addr::is_loopback) {
        return Ok(Vec::new());
    }
    let shown = output(&mut command("ip", ["-4", "-o", "addr", "show", "dev", "lo"]))?;
    let there = present(&shown);
    Ok(wanted
        .iter()
        .copied()
        .filter(|address| !address.is_loopback() && !there.contains(address))
        .collect())
}

/// Reads `ip -o addr`: the word behind `inet`.
fn present(shown: &str) -> Vec<Ipv4Addr> {
    let after_inet = shown
        .lines()
        .filter_map(|line| line.split_whitespace().skip_while(|word| *word != "inet").nth(1));
    after_inet
        .filter_map(|word| word.split('/').next()?.parse().ok())
        .collect()
}

/// Puts addresses on the loopback device.
pub(crate) fn add(addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    for address in addresses {
        let address = format!("{address}/32");
        output(&mut command("ip", ["addr", "add", &address, "dev", "lo"]))
            .context("a network that pods can reach needs root; without it use a prefix below 127, like 127.200.1")?;
    }
    Ok(())
}

/// Takes addresses away again; one that is gone already is as it should be.
pub(crate) fn remove(addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    let gone = missing(addresses)?;
    for address in addresses.iter().filter(|address| !gone.contains(address)) {
        output(&mut command(
            "ip",
            ["addr", "del", &format!("{address}/32"), "dev", "lo"],
        ))?;
    }
    Ok(())
}

/// Refuses addresses on which somebody's relay listens.
pub(crate) fn ensure_free(addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
    for address in addresses {
        if let Err(error) = TcpListener::bind((*address, OR_PORT)) {
            bail!(
                "{address}:{OR_PORT} cannot be listened on ({error}): another network runs there; `e2e tornet down` \
                 with its folder stops it, --prefix takes other addresses"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_what_ip_prints() {
        let shown = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n\
                     1: lo    inet 198.18.200.1/32 scope global lo\\       valid_lft forever\n";
        assert_eq!(
            present(shown),
            [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(198, 18, 200, 1)]
        );
    }

    #[test]
    fn an_address_in_use_is_refused_by_name() {
        // The process number keeps two runs of this test apart.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 213, high, low);
        let _neighbour = TcpListener::bind((address, OR_PORT)).unwrap();
        let refusal = ensure_free(&[address]).unwrap_err().to_string();
        assert!(refusal.contains(&format!("{address}:9001")), "{refusal}");
    }
}
