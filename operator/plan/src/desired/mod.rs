//! The objects that a Relay should have, one file for each kind.

pub mod accounting;
pub mod claim;
pub mod exit;
pub mod identity;
pub mod pod;
pub mod service;
pub mod signing;
pub mod status_port;
pub mod torrc;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use operator_api::{Relay, names};

/// Labels by which the pod's Service, and people, find what belongs to a Relay.
#[must_use]
pub fn labels(relay: &Relay) -> BTreeMap<String, String> {
    let role = format!("{:?}", relay.spec.role).to_lowercase();
    let own = [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY.to_owned()),
        (names::LABEL_NAME, "tor-relay".to_owned()),
        (names::LABEL_RELAY, relay.name_any()),
        (names::LABEL_ROLE, role),
    ];
    let set = relay.labels().get(names::LABEL_SET).cloned();
    let set = set.map(|set| (names::LABEL_SET, set));
    own.into_iter()
        .chain(set)
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// For what outlives the Relay: no owner, so that no garbage collector takes keys or volume away.
fn kept(relay: &Relay, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: relay.namespace(),
        labels: Some(labels(relay)),
        ..Default::default()
    }
}

/// For what goes with the Relay.
fn owned(relay: &Relay, name: String) -> ObjectMeta {
    ObjectMeta {
        owner_references: owner(relay).map(|owner| vec![owner]),
        ..kept(relay, name)
    }
}

fn owner(relay: &Relay) -> Option<OwnerReference> {
    relay.controller_owner_ref(&())
}
