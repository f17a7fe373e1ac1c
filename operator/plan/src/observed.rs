//! What was seen in the cluster, at one moment, of one Relay and of everything that bears its name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Resource, ResourceExt as _};
use operator_api::{AddressPool, Relay, RelayFamily, names};

/// An object whose name we claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<T> {
    /// There is none.
    Absent,
    /// One stands there, but not for this Relay: we neither use nor change it.
    Foreign,
    /// One of ours, for this Relay.
    Ours(T),
}

impl<T> Seen<T> {
    /// The object if it is ours.
    pub fn ours(&self) -> Option<&T> {
        match self {
            Self::Ours(object) => Some(object),
            Self::Absent | Self::Foreign => None,
        }
    }
}

impl<T: Resource> Seen<T> {
    /// Ours is what bears our labels and the Relay's name. The owner's uid is no sign: keys and volume outlive a Relay.
    pub fn of(found: Option<T>, relay: &Relay) -> Self {
        match found {
            None => Self::Absent,
            Some(object) if is_ours(object.meta(), relay) => Self::Ours(object),
            Some(_) => Self::Foreign,
        }
    }
}

fn is_ours(meta: &ObjectMeta, relay: &Relay) -> bool {
    let label = |key: &str| {
        meta.labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    // What is kept in the operator's namespace says for whose.
    let namespace = label(names::LABEL_NAMESPACE).or(meta.namespace.as_deref());
    label(names::LABEL_MANAGED_BY) == Some(names::MANAGED_BY)
        && label(names::LABEL_RELAY) == Some(&relay.name_any())
        && (namespace.is_none() || namespace == relay.metadata.namespace.as_deref())
}

/// The torrc lines of the network that the Relay names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkText {
    /// The Relay names none: the public network.
    Public,
    /// The ConfigMap, or the key in it, is not there.
    Missing,
    /// What stands there.
    Text(String),
}

/// The family that the Relay names.
#[derive(Debug, Clone, PartialEq)]
pub enum FamilySeen {
    /// It names none.
    Unnamed,
    /// There is none of that name.
    Missing,
    /// There is.
    There(Box<RelayFamily>),
}

/// The pool that the Relay names.
#[derive(Debug, Clone, PartialEq)]
pub enum PoolSeen {
    /// It names none.
    Unnamed,
    /// There is none of that name.
    Missing,
    /// The operator may not read it: it looks after one namespace only.
    Forbidden,
    /// There is.
    There {
        /// The pool.
        pool: Box<AddressPool>,
        /// What the Relay's namespace enforces (its label `pod-security.kubernetes.io/enforce`).
        pod_security: Option<String>,
    },
}

/// All facts of one round. The identity is seen without its keys: nothing here is secret.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Relay itself.
    pub relay: Relay,
    /// Lines of its network.
    pub network: NetworkText,
    /// Its family.
    pub family: FamilySeen,
    /// Its pool of addresses.
    pub pool: PoolSeen,
    /// Metadata of the Secret in the operator's namespace that keeps the identity.
    pub custody: Seen<PartialObjectMeta<Secret>>,
    /// Metadata of the identity Secret beside the Relay.
    pub identity: Seen<PartialObjectMeta<Secret>>,
    /// Metadata of the Secret with the pod's signing key.
    pub signing: Seen<PartialObjectMeta<Secret>>,
    /// Metadata of the Secret with the pod's status token.
    pub token: Seen<PartialObjectMeta<Secret>>,
    /// The ConfigMap with its torrc.
    pub torrc: Seen<ConfigMap>,
    /// The claim for its volume.
    pub claim: Seen<PersistentVolumeClaim>,
    /// The Service for its ORPort.
    pub service: Seen<Service>,
    /// Its pod.
    pub pod: Seen<Pod>,
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    let annotations: Option<&BTreeMap<String, String>> = meta.annotations.as_ref();
    annotations?.get(key).map(String::as_str)
}
