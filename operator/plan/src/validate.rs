//! From what a person wrote to what a torrc can be made of. Past here nobody checks again.
//!
//! The API server has refused most errors already; an object that was stored before a rule was made has not been asked.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Affinity;
use kube::ResourceExt as _;
use operator_api::{AddressSource, Bandwidth, Custody, Engine, Exposure, Relay, Role, names};
use relay_formats::nickname::{BadNickname, Nickname};
use relay_formats::torrc::Torrc;

use crate::desired::accounting::accounting_lines;
use crate::desired::exit::{BadRule, exit_lines};
use crate::desired::status_port::{metrics_port, status_port};
use crate::desired::torrc::torrc_text;
use crate::family::contact::contact_line;
use crate::identity::custody_of;
use crate::network::{BadNetwork, network_lines};
use crate::observed::{FamilySeen, NetworkText, PoolSeen};
use crate::overrides::{BadAffinity, affinity};
use crate::pool::{Place, allows, place_of};
use crate::settings::Settings;

/// A Relay that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The relay's nickname.
    pub nickname: Nickname,
    /// One line, without control characters.
    pub contact: String,
    /// Where it listens.
    pub or_port: u16,
    /// The address to publish; `None` is the pod's own.
    pub address: Option<Ipv4Addr>,
    /// What it has of its pool.
    pub place: Option<Place>,
    /// As in the spec, in bytes per second.
    pub bandwidth: Option<Rates>,
    /// Where it tells its status.
    pub status: Option<u16>,
    /// Where it tells its metrics, if it does, and to whom.
    pub metrics: Option<MetricsPort>,
    /// torrc lines about how much it may carry.
    pub accounting: Vec<String>,
    /// torrc lines about where it lets streams go.
    pub exit: Vec<String>,
    /// Where its pod may or would rather run.
    pub affinity: Option<Affinity>,
    /// The image that runs it.
    pub image: String,
    /// Lines for its torrc that its whole network shares.
    pub network: Vec<String>,
}

/// A port for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsPort {
    /// Its number.
    pub port: u16,
    /// Networks that may read there, as `ADDRESS/BITS`.
    pub from: Vec<String>,
}

impl Accepted {
    /// The pod has no network of its own.
    #[must_use]
    pub fn is_on_host_network(&self) -> bool {
        let place = self.place.as_ref();
        place.is_some_and(|place| place.exposure == Exposure::HostNetwork)
    }
}

/// Bytes per second, each within what C tor takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// RelayBandwidthRate.
    pub rate: u64,
    /// RelayBandwidthBurst; not below the rate.
    pub burst: u64,
    /// MaxAdvertisedBandwidth.
    pub max_advertised: Option<u64>,
}

/// Why a Relay cannot be run as it is written. The text names the field and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// See [`BadNickname`].
    #[error("spec.nickname: {0}")]
    Nickname(#[from] BadNickname),
    /// Empty, or with control characters.
    #[error("spec.contact: write one line of text without control characters")]
    Contact,
    /// `Static` without an IPv4 address.
    #[error("spec.address.ipv4: write the IPv4 address to publish, or set spec.address.source to Pod")]
    Address,
    /// Burst below rate.
    #[error("spec.bandwidth.burst: must not be below rate; raise burst or leave it out")]
    Burst,
    /// The family is not there.
    #[error("spec.family.name: there is no RelayFamily {0} in this namespace; make it, or leave spec.family out")]
    FamilyMissing(String),
    /// The pool is not there.
    #[error("spec.addressPool.name: there is no AddressPool {0}; make it, or leave spec.addressPool out")]
    PoolMissing(String),
    /// The operator may not read pools.
    #[error(
        "spec.addressPool: this operator looks after one namespace only and may not read AddressPools, which are the cluster's; \
         leave it out and use spec.address, or install the operator for all namespaces"
    )]
    PoolForbidden,
    /// The pool does not let the namespace in.
    #[error(
        "spec.addressPool: AddressPool {pool} does not let in namespace {namespace}; add it to its allowedNamespaces"
    )]
    PoolNotAllowed {
        /// The pool.
        pool: String,
        /// The Relay's namespace.
        namespace: String,
    },
    /// The ledger has no entry yet.
    #[error("AddressPool {0} has not given the relay an address yet; if that lasts, its condition Ready says why")]
    AwaitingAddress(String),
    /// Pod Security would refuse the pod.
    #[error(
        "namespace {namespace} enforces Pod Security {level}, which refuses pods with {exposure:?}. Put such relays into a \
         namespace of their own, labelled pod-security.kubernetes.io/enforce=privileged; or use a pool with exposure \
         LoadBalancer or NodePort"
    )]
    PodSecurity {
        /// What the pool asks for.
        exposure: Exposure,
        /// The Relay's namespace.
        namespace: String,
        /// What it enforces.
        level: String,
    },
    /// `engine: Tor` cannot take a new signing key while it runs.
    #[error("spec.identity.custody: C tor takes no new signing key while it runs; write InPod, or leave custody out")]
    Custody,
    /// Of an exit.
    #[error(transparent)]
    Policy(#[from] BadRule),
    /// Not built yet.
    #[error("spec.role: bridges are not built yet; use Guard, Middle or Exit")]
    Bridge,
    /// Of the pod.
    #[error("spec.pod.affinity: {0}")]
    Affinity(#[from] BadAffinity),
    /// `engine: Tor` and no image for it.
    #[error(
        "spec.engine: the operator was started without an image of C tor; set spec.image, or the operator's --tor-image"
    )]
    NoTorImage,
    /// The network's ConfigMap or key is not there.
    #[error(
        "spec.network.configMap: ConfigMap {name} with key {key} is not there; make it, or leave spec.network out to join the public network"
    )]
    NetworkMissing {
        /// The ConfigMap's name.
        name: String,
        /// The key in it.
        key: String,
    },
    /// It is there, but its lines cannot be used.
    #[error("spec.network.configMap: in ConfigMap {name}, {reason}")]
    Network {
        /// The ConfigMap's name.
        name: String,
        /// Which line, and why.
        reason: BadNetwork,
    },
    /// Our relay would not start with it.
    #[error("our relay refuses the torrc that comes of this, in ConfigMap {config_map}: {reason}")]
    Torrc {
        /// Where the torrc would stand.
        config_map: String,
        /// Every line that it refuses, and why.
        reason: String,
    },
}

/// Takes a Relay and its network's lines as they were found.
///
/// # Errors
/// The first thing that keeps the Relay from being run.
pub fn validate(
    relay: &Relay,
    network: &NetworkText,
    family: &FamilySeen,
    pool: &PoolSeen,
    settings: &Settings,
) -> Result<Accepted, Refusal> {
    let spec = &relay.spec;
    if spec.engine == Engine::Tor && custody_of(relay) == Custody::Operator {
        return Err(Refusal::Custody);
    }
    if spec.role == Role::Bridge {
        return Err(Refusal::Bridge);
    }
    let place = place(relay, pool)?;
    let or_port = place.as_ref().map_or(spec.or_port, |place| place.port);
    let accepted = Accepted {
        nickname: spec.nickname.parse()?,
        contact: contact(&spec.contact, relay, family)?,
        or_port,
        address: address(relay, place.as_ref())?,
        bandwidth: spec.bandwidth.as_ref().map(rates).transpose()?,
        status: status_port(relay, or_port, place.as_ref()).filter(|_| settings.status_key.is_some()),
        metrics: metrics(relay, or_port, place.as_ref(), settings),
        accounting: spec.accounting.as_ref().map(accounting_lines).unwrap_or_default(),
        exit: exit_lines(relay, settings)?,
        affinity: match &spec.pod {
            Some(overrides) => affinity(overrides)?,
            None => None,
        },
        image: settings.image_for(relay).ok_or(Refusal::NoTorImage)?.to_owned(),
        network: shared_lines(relay, network)?,
        place,
    };
    try_out(relay, &accepted)?;
    Ok(accepted)
}

/// Lets our relay's own reader look at the torrc. C tor, and an image that the owner chose, may know more than it.
fn try_out(relay: &Relay, accepted: &Accepted) -> Result<(), Refusal> {
    if relay.spec.engine == Engine::Tor || relay.spec.image.is_some() {
        return Ok(());
    }
    let read = Torrc::parse(&torrc_text(relay, accepted));
    read.map(drop).map_err(|errors| Refusal::Torrc {
        config_map: names::torrc_config_map(&relay.name_any()),
        reason: errors.to_string().replace('\n', "; "),
    })
}

fn contact(text: &str, relay: &Relay, family: &FamilySeen) -> Result<String, Refusal> {
    let of_family = family_contact(relay, family)?;
    let text = of_family.as_deref().unwrap_or(text).trim();
    let usable = !text.is_empty() && !text.chars().any(char::is_control);
    usable.then(|| text.to_owned()).ok_or(Refusal::Contact)
}

/// What the family says for its members, if it says anything.
fn family_contact(relay: &Relay, family: &FamilySeen) -> Result<Option<String>, Refusal> {
    match (&relay.spec.family, family) {
        (Some(_), FamilySeen::There(family)) => {
            let contact = family.spec.contact.as_ref();
            Ok(contact.map(|contact| contact_line(contact, relay)))
        }
        (Some(named), FamilySeen::Unnamed | FamilySeen::Missing) => Err(Refusal::FamilyMissing(named.name.clone())),
        (None, _) => Ok(None),
    }
}

/// What the pool's ledger says, once the Relay may have it there.
fn place(relay: &Relay, pool: &PoolSeen) -> Result<Option<Place>, Refusal> {
    let Some(named) = &relay.spec.address_pool else {
        return Ok(None);
    };
    let (pool, pod_security) = match pool {
        PoolSeen::There { pool, pod_security } => (pool, pod_security.as_deref()),
        PoolSeen::Forbidden => return Err(Refusal::PoolForbidden),
        PoolSeen::Unnamed | PoolSeen::Missing => return Err(Refusal::PoolMissing(named.name.clone())),
    };
    let namespace = relay.namespace().unwrap_or_default();
    if !allows(pool, &namespace) {
        let pool = named.name.clone();
        return Err(Refusal::PoolNotAllowed { pool, namespace });
    }
    if let (Exposure::HostPort | Exposure::HostNetwork, Some(level @ ("baseline" | "restricted"))) =
        (pool.spec.exposure, pod_security)
    {
        let (exposure, level) = (pool.spec.exposure, level.to_owned());
        return Err(Refusal::PodSecurity {
            exposure,
            namespace,
            level,
        });
    }
    let place = place_of(pool, &namespace, &relay.name_any());
    place
        .map(Some)
        .ok_or_else(|| Refusal::AwaitingAddress(named.name.clone()))
}

fn address(relay: &Relay, place: Option<&Place>) -> Result<Option<Ipv4Addr>, Refusal> {
    if let Some(place) = place {
        return place.address.ipv4.parse().map(Some).map_err(|_| Refusal::Address);
    }
    match (relay.spec.address.source, &relay.spec.address.ipv4) {
        (AddressSource::Pod, _) => Ok(None),
        (AddressSource::Static, Some(text)) => text.parse().map(Some).map_err(|_| Refusal::Address),
        (AddressSource::Static, None) => Err(Refusal::Address),
    }
}

fn rates(bandwidth: &Bandwidth) -> Result<Rates, Refusal> {
    let rate = bandwidth.rate.bytes_per_second();
    let burst = bandwidth.burst.as_ref().map_or(rate, |burst| burst.bytes_per_second());
    if burst < rate {
        return Err(Refusal::Burst);
    }
    let max_advertised = bandwidth.max_advertised.as_ref().map(|most| most.bytes_per_second());
    Ok(Rates {
        rate,
        burst,
        max_advertised,
    })
}

/// Networks that no stranger's address is in.
const PRIVATE_NETWORKS: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

fn metrics(relay: &Relay, or_port: u16, place: Option<&Place>, settings: &Settings) -> Option<MetricsPort> {
    let asked = relay.spec.metrics.clone().unwrap_or_default();
    if !asked.enabled.unwrap_or(settings.relay_metrics) {
        return None;
    }
    // The relay listens on an IPv4 address.
    let of_the_cluster = settings
        .cluster_networks
        .iter()
        .filter(|network| !network.contains(':'));
    let usual = || {
        PRIVATE_NETWORKS
            .into_iter()
            .map(str::to_owned)
            .chain(of_the_cluster.cloned())
    };
    Some(MetricsPort {
        port: metrics_port(or_port, place),
        from: if asked.from.is_empty() {
            usual().collect()
        } else {
            asked.from
        },
    })
}

fn shared_lines(relay: &Relay, network: &NetworkText) -> Result<Vec<String>, Refusal> {
    let Some(source) = relay.spec.network.as_ref().map(|network| &network.config_map) else {
        return Ok(Vec::new());
    };
    match network {
        NetworkText::Text(text) => network_lines(text)
            .map(|lines| lines.into_iter().map(str::to_owned).collect())
            .map_err(|reason| Refusal::Network {
                name: source.name.clone(),
                reason,
            }),
        NetworkText::Public | NetworkText::Missing => Err(Refusal::NetworkMissing {
            name: source.name.clone(),
            key: source.key.clone(),
        }),
    }
}
