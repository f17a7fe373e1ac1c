//! Boils a consensus down to what the engine needs.

use std::collections::{BTreeMap, HashMap};

use relay_engine::network::{NetworkView, RelayFacts};
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::DirAuthority;

use super::authority;
use crate::netdoc::{Consensus, Microdescriptor, MicrodescriptorDigest};

/// The engine's view of the network. The authorities are in it before any consensus is, so that they are known as such
/// when they come to test us; a consensus knows their addresses better.
pub fn network_view(
    authorities: &[DirAuthority],
    consensus: Option<&Consensus>,
    microdescriptors: &BTreeMap<MicrodescriptorDigest, Microdescriptor>,
) -> NetworkView {
    let mut relays: HashMap<RsaIdentity, RelayFacts> = HashMap::new();
    for authority in authorities {
        let facts = RelayFacts {
            ed25519_identity: None,
            addresses: authority::or_addresses(authority),
            is_authority: true,
        };
        relays.insert(authority.identity, facts);
    }
    for listed in consensus.iter().flat_map(|consensus| &consensus.relays) {
        let is_authority = authorities.iter().any(|one| one.identity == listed.rsa_identity);
        let microdescriptor = microdescriptors.get(&listed.microdescriptor);
        let facts = RelayFacts {
            ed25519_identity: microdescriptor.map(|one| one.ed25519_identity),
            addresses: listed.addresses.clone(),
            is_authority,
        };
        relays.insert(listed.rsa_identity, facts);
    }
    NetworkView {
        valid_after: consensus.map(|consensus| consensus.lifetime.valid_after),
        relays,
        parameters: consensus
            .map(|consensus| consensus.parameters.clone())
            .unwrap_or_default(),
    }
}
