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
