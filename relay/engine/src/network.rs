//! What the engine needs to know of the consensus.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::SystemTime;

use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

/// One consensus, boiled down. Immutable; a newer one replaces it whole.
#[derive(Debug, Default)]
pub struct NetworkView {
    /// The consensus's `valid-after`; `None` before the first one.
    pub valid_after: Option<SystemTime>,
    /// The relays it lists, and the directory authorities, by RSA identity.
    pub relays: HashMap<RsaIdentity, RelayFacts>,
    /// Its `params` line.
    pub parameters: Parameters,
}

/// One relay of the consensus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayFacts {
    /// Its Ed25519 identity, where its microdescriptor is known.
    pub ed25519_identity: Option<Ed25519Identity>,
    /// Its ORPorts: IPv4 first.
    pub addresses: Vec<SocketAddr>,
    /// Whether it is a directory authority.
    pub is_authority: bool,
}

/// Consensus parameters (param-spec). Whoever reads one names its default and its bounds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Parameters(pub BTreeMap<String, i32>);

impl Parameters {
    /// The value of `name`, or `default` where the consensus is silent, forced into `low..=high` (param-spec: every
    /// parameter is clamped at parse, so that a hostile or broken value can do no harm).
    pub fn clamped(&self, name: &str, default: i32, low: i32, high: i32) -> i32 {
        self.0.get(name).copied().unwrap_or(default).clamp(low, high)
    }
}
