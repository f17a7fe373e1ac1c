//! What a shard must know to let streams out. Made anew after each reload and with each consensus.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use relay_engine::network::NetworkView;
use relay_formats::torrc::DirAuthority;
use tokio::sync::watch;

use super::Gate;
use crate::config::Config;
use crate::directory::authority;
use crate::shards::{Mailbox, Order};

/// Where streams may go, and from where.
pub struct Rules {
    /// Where to.
    pub gate: Gate,
    /// torrc `IPv6Exit`: IPv6 addresses are asked for.
    pub ipv6: bool,
    /// Our end of streams, at most one address a family.
    pub outbound_bind: Vec<IpAddr>,
    /// torrc `ReevaluateExitPolicy`: open streams that these rules refuse end.
    pub reevaluate: bool,
}

impl Rules {
    /// What `config` says, in `network`.
    pub fn new(config: &Config, network: &NetworkView) -> Self {
        let exits = &config.exits;
        Self {
            gate: Gate::new(Arc::clone(&config.exit_policy), exits.ipv6, network)
                .and_closed_to(config.authorities.iter().flat_map(ports)),
            ipv6: exits.ipv6,
            outbound_bind: exits.outbound_bind.clone(),
            reevaluate: exits.reevaluate,
        }
    }
}

fn ports(authority: &DirAuthority) -> impl Iterator<Item = SocketAddr> + use<> {
    let mut ports = authority::or_addresses(authority);
    ports.push(authority.dir_address);
    ports.into_iter()
}

/// Tells the shards of new rules, for as long as configuration and consensus may change.
pub async fn tell_rules(
    mut config: watch::Receiver<Arc<Config>>,
    mut network: watch::Receiver<Arc<NetworkView>>,
    shards: &[Mailbox],
) {
    loop {
        let changed = tokio::select! {
            changed = config.changed() => changed,
            changed = network.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
        let rules = Arc::new(Rules::new(&config.borrow_and_update(), &network.borrow_and_update()));
        shards
            .iter()
            .for_each(|shard| shard.post(Order::ExitRules(Arc::clone(&rules))));
    }
}
