//! What the person who installs the operator chooses for all relays.

use operator_api::{Engine, PullPolicy, Relay};

/// Defaults for what a Relay leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of our relay. Its entry point also puts the keys in place, for either engine.
    pub relay_image: String,
    /// Image of C tor, if there is one.
    pub tor_image: Option<String>,
    /// Where master keys and families' keys are kept: the operator's own namespace.
    pub custody_namespace: String,
    /// When nodes fetch these images; `None` leaves it to Kubernetes.
    pub pull_policy: Option<PullPolicy>,
    /// Networks of the cluster's pods, Services and nodes, as `ADDRESS/BITS`: no exit lets a stream go there.
    pub cluster_networks: Vec<String>,
    /// What status tokens are made of; without it relays have no status port.
    pub status_key: Option<[u8; 32]>,
    /// Whether Relays that do not say it tell Prometheus their metrics.
    pub relay_metrics: bool,
}

/// A network that was given to the operator is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write ADDRESS/BITS, for example 10.0.0.0/8 or fd00::/8")]
pub struct BadNetwork(String);

/// Reads `10.0.0.0/8` or `fd00::/8`.
///
/// # Errors
/// Another form, or too many bits.
pub fn cluster_network(text: &str) -> Result<String, BadNetwork> {
    let bad = || BadNetwork(text.to_owned());
    let (address, bits) = text.split_once('/').ok_or_else(bad)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| bad())?;
    let bits: u8 = bits.parse().map_err(|_| bad())?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    (bits <= bits_max).then(|| format!("{address}/{bits}")).ok_or_else(bad)
}

impl Settings {
    /// The image that runs this relay; `None` if the relay wants C tor, names no image, and the operator knows none.
    #[must_use]
    pub fn image_for<'a>(&'a self, relay: &'a Relay) -> Option<&'a str> {
        match (&relay.spec.image, relay.spec.engine) {
            (Some(image), _) => Some(&image.reference),
            (None, Engine::Builtin) => Some(&self.relay_image),
            (None, Engine::Tor) => self.tor_image.as_deref(),
        }
    }
}

/// As the pod's container has it.
#[must_use]
pub fn pull_policy_text(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}
