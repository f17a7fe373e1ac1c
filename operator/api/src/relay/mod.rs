//! The Relay: one identity in the Tor network.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

pub mod accounting;
pub mod exit;
pub mod identity;
pub mod lifecycle;
pub mod metrics;
pub mod pod;
pub(crate) mod rules;
pub mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::byte_rate::ByteRate;
use crate::family::FamilyRef;
use crate::pool::PoolRef;
use accounting::Accounting;
use exit::Exit;
use identity::Identity;
use lifecycle::{DeletionPolicy, RunState};
use metrics::Metrics;
use pod::PodOverrides;
use status::RelayStatus;

/// What one relay should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "relayfleet.io",
    version = "v1alpha1",
    kind = "Relay",
    plural = "relays",
    shortname = "rly",
    category = "relayfleet",
    namespaced,
    status = "RelayStatus",
    derive = "PartialEq",
    doc = "One relay of the Tor network: an identity (its keys), a volume, and the pod that runs it. Deleting a Relay stops \
           the pod and keeps keys and volume; a Relay of the same name takes them up again.",
    selectable = ".spec.role",
    selectable = ".spec.family.name",
    selectable = ".spec.addressPool.name",
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Nickname", type_ = "string", json_path = ".spec.nickname"),
    printcolumn(name = "Fingerprint", type_ = "string", json_path = ".status.identity.rsaFingerprint"),
    printcolumn(name = "Flags", type_ = "string", json_path = ".status.directory.flags"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        json_path = ".status.directory.consensusWeight",
        priority = "1"
    ),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine", priority = "1"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", priority = "1"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address", priority = "1"),
    printcolumn(name = "ORPort", type_ = "integer", json_path = ".spec.orPort", priority = "1"),
    printcolumn(name = "Ed25519", type_ = "string", json_path = ".status.identity.ed25519Id", priority = "1"),
    validation = rules::relay_name_characters(),
    validation = rules::relay_name_length(),
    validation = rules::pool_or_static(),
    validation = rules::no_bridge_in_a_family(),
    validation = rules::custody_of_c_tor(),
    validation = rules::deletion_is_confirmed()
)]
#[x_kube(validation = rules::exit_of_exits())]
#[serde(rename_all = "camelCase")]
pub struct RelaySpec {
    /// What the relay does in the network; all pass circuits on. `Guard`: takes clients in, once the authorities trust the
    /// relay with it; they alone say who is a guard, and the network sees no difference to `Middle`. `Middle`: no more than
    /// that. `Exit`: lets streams out of the network, where `exit` allows it. `Bridge`, an entry that no public list names,
    /// is refused: it is not built yet.
    #[x_kube(validation = rules::role_is_built())]
    pub role: Role,

    /// The name by which people know the relay: 1 to 19 letters or digits. It is not the identity; it may be changed.
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::nickname())]
    pub nickname: String,

    /// How other operators and the directory authorities reach the person who runs the relay, for example an e-mail
    /// address. It is published in the relay's descriptor.
    #[schemars(length(max = 512))]
    #[x_kube(validation = rules::contact())]
    pub contact: String,

    /// TCP port for links from clients and other relays, 1024 to 65535: the pod has no right to bind a lower one.
    #[serde(default = "default_or_port")]
    #[schemars(with = "i32", range(min = 1024, max = 65535))]
    pub or_port: u16,

    /// Which IPv4 address the relay publishes. By default the pod's own.
    #[serde(default)]
    pub address: Address,

    /// The pool of public addresses that the relay gets its address and port from. Then `orPort` and `address` say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_pool: Option<PoolRef>,

    /// How much the relay may carry. Without it the relay carries what the line and the processor give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,

    /// How much the relay may carry in a day, a week or a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounting: Option<Accounting>,

    /// With `role: Exit`: where streams may go. Without it Tor's reduced exit policy, IPv4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,

    /// The volume for the relay's DataDirectory: signing and onion keys, cached directory, state.
    #[serde(default)]
    #[x_kube(validation = rules::storage_is_fixed())]
    pub storage: Storage,

    /// Who keeps the relay's keys.
    #[serde(default)]
    pub identity: Identity,

    /// The family that the relay belongs to, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyRef>,

    /// The program's image. Without it the operator's own choice for the engine is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,

    /// Which program runs the relay; both read the same torrc and the same key files. `Builtin`, the default: Relayfleet's own
    /// relay, which takes up most changes while it runs. `Tor`: C tor, which is started anew for every change.
    #[serde(default)]
    pub engine: Engine,

    /// What the relay tells Prometheus, and to whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,

    /// A Tor network other than the public one, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,

    /// What is laid over the pod that the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOverrides>,

    /// While true the operator writes nothing but the status: no pod is made, replaced or stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,

    /// Whether the relay runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,

    /// What becomes of keys and volume when the Relay is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// With `deletionPolicy: Delete`: the relay's fingerprint, as in `.status.identity.rsaFingerprint`, to say that this
    /// identity may be destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub deletion_confirmation: Option<String>,
}

fn default_or_port() -> u16 {
    9001
}

/// What a relay does in the network.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum Role {
    /// Takes clients in, once the authorities trust the relay with it, and passes circuits on. The network sees no
    /// difference to `Middle`: the authorities alone say who is a guard.
    Guard,
    /// Passes circuits on.
    Middle,
    /// Lets streams out of the network, where `exit` allows it. Passes circuits on.
    Exit,
    /// An entry that no public list names. Not built yet.
    Bridge,
}

/// Which program runs the relay. Both read the same torrc and the same key files.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Engine {
    /// Relayfleet's own relay.
    #[default]
    Builtin,
    /// C tor.
    Tor,
}

/// The address that the relay publishes.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::static_needs_an_address())]
#[x_kube(validation = rules::pod_takes_no_address())]
pub struct Address {
    /// `Pod`: the pod's own address, for clusters whose pod addresses the relay's peers can reach. `Static`: the one
    /// under `ipv4`.
    #[serde(default)]
    pub source: AddressSource,

    /// With `source: Static`: the IPv4 address at which the relay's peers reach the ORPort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = rules::ipv4())]
    pub ipv4: Option<String>,
}

/// Where a relay's published address comes from.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum AddressSource {
    /// The pod's own address, asked anew at every start.
    #[default]
    Pod,
    /// The address in the spec.
    Static,
}

/// How much a relay may carry. Rates are written with their unit: `10MiB/s` (1024-based), `10MB/s` (1000-based) or
/// `100Mbit/s`; at least 75KiB/s, below which C tor refuses to be a relay.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::rate_in_range())]
#[x_kube(validation = rules::burst_in_range())]
#[x_kube(validation = rules::max_advertised_in_range())]
#[x_kube(validation = rules::burst_covers_rate())]
pub struct Bandwidth {
    /// Relayed traffic that the relay may carry on average, in each direction (RelayBandwidthRate).
    pub rate: ByteRate,

    /// How far it may go above the rate for a moment (RelayBandwidthBurst). Not below the rate; by default equal to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<ByteRate>,

    /// The most that the relay tells the network it can carry (MaxAdvertisedBandwidth): less draws fewer clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_advertised: Option<ByteRate>,
}

/// The relay's volume. It is made once and kept when the Relay is deleted; it cannot be changed afterwards.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size, as Kubernetes writes quantities: `512Mi`, `1Gi`.
    #[serde(default = "default_storage_size")]
    #[schemars(length(max = 12))]
    #[x_kube(validation = rules::storage_size())]
    pub size: String,

    /// StorageClass of the volume; without it the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

fn default_storage_size() -> String {
    "1Gi".to_owned()
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_storage_size(),
            storage_class_name: None,
        }
    }
}

/// An image for the relay's container. Its entry point must be a program with C tor's command line.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Repository with tag or digest, for example `registry.example/relay:0.1.0`.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,

    /// When the node fetches the image; without it Kubernetes decides by the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When a node fetches the image. `Always`: at every start. `IfNotPresent`: if it has none. `Never`: the image must be there.
/// Without it Kubernetes decides by the tag: `Always` for `latest` and for none, `IfNotPresent` for others.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// If the node has none.
    IfNotPresent,
    /// Never: the image must be on the node.
    Never,
}

/// A Tor network other than the public one.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// A ConfigMap in the Relay's namespace with the torrc lines that all relays of that network share: its DirAuthority
    /// lines, TestingTorNetwork and the Testing options. Lines that concern one relay alone are refused there.
    pub config_map: ConfigMapKey,
}

/// One key of a ConfigMap.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Key in its data.
    #[serde(default = "default_network_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_network_key() -> String {
    "torrc".to_owned()
}
