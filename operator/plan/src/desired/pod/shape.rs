//! When a pod must be replaced: when what it was made *from* is another.
//!
//! The hash is of the inputs and not of the pod that comes of them. So an operator that has learnt to make better pods
//! replaces none; the better ones come with the next change that asks for a pod.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, PodSpec};
use kube::ResourceExt as _;
use operator_api::{Custody, Engine, Exposure, PodOverrides, PullPolicy, Relay, names};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{CONFIG_VOLUME, OR_PORT_NAME, probes, pull_policy, volumes};
use crate::desired::status_port::TOKEN_KEY;
use crate::desired::torrc::{TORRC_KEY, cold_lines};
use crate::identity::custody_of;
use crate::settings::Settings;
use crate::validate::Accepted;

/// Another number replaces the pod of every relay of every cluster, with the next operator.
const SHAPE: u32 = 1;

/// Labels or annotations.
type Texts = std::collections::BTreeMap<String, String>;

/// All that asks for another pod if it changes. What a running relay takes up by itself is not in it.
#[derive(Serialize)]
struct Inputs<'a> {
    shape: u32,
    engine: Engine,
    image: &'a str,
    pull_policy: Option<PullPolicy>,
    custody: Custody,
    family: Option<&'a str>,
    own_address: bool,
    exposure: Option<Exposure>,
    node: Option<&'a str>,
    status_port: Option<u16>,
    metrics_port: Option<u16>,
    overrides: Option<&'a PodOverrides>,
    /// Lines of the torrc that a running relay cannot take up.
    cold: String,
}

/// What the pod's annotation says.
pub(super) fn hash(relay: &Relay, accepted: &Accepted, settings: &Settings) -> String {
    let place = accepted.place.as_ref();
    let inputs = Inputs {
        shape: SHAPE,
        engine: relay.spec.engine,
        image: &accepted.image,
        pull_policy: pull_policy(relay, settings),
        custody: custody_of(relay),
        family: relay.spec.family.as_ref().map(|family| family.name.as_str()),
        own_address: accepted.address.is_none(),
        exposure: place.map(|place| place.exposure),
        node: place.and_then(|place| place.address.node.as_deref()),
        status_port: accepted.status,
        metrics_port: accepted.metrics.as_ref().map(|metrics| metrics.port),
        overrides: relay.spec.pod.as_ref(),
        cold: cold_lines(relay, accepted),
    };
    // These inputs always have a JSON form.
    hex::encode(Sha256::digest(serde_json::to_vec(&inputs).unwrap_or_default()))
}

/// What an operator of before would have written on this pod, which hashed the pod itself: then the token stood in the
/// ConfigMap, and the probe asked the ORPort. Such a pod is as good as a new one and runs on.
///
/// `None` where it never made a pod like this.
pub(super) fn earlier_hash(spec: &PodSpec, relay: &Relay, accepted: &Accepted) -> Option<String> {
    if accepted.metrics.is_some() || spec.host_network == Some(true) {
        return None;
    }
    let mut spec = spec.clone();
    spec.dns_policy = None;
    let container = spec.containers.first_mut()?;
    container.startup_probe = None;
    container.liveness_probe = None;
    container.readiness_probe = Some(probes::of_or_port());
    for ports in container.ports.iter_mut() {
        ports.retain(|port| port.name.as_deref() == Some(OR_PORT_NAME));
    }
    let config = spec.volumes.iter_mut().flatten();
    for volume in config.filter(|volume| volume.name == CONFIG_VOLUME) {
        let token = accepted.status.map(|_| TOKEN_KEY);
        volume.projected = None;
        volume.config_map = Some(ConfigMapVolumeSource {
            name: names::torrc_config_map(&relay.name_any()),
            items: Some(std::iter::once(TORRC_KEY).chain(token).map(volumes::item).collect()),
            ..Default::default()
        });
    }
    let overlaid: Option<(&Texts, &Texts)> = relay.spec.pod.as_ref().map(|all| (&all.labels, &all.annotations));
    let mut digest = Sha256::new();
    digest.update(serde_json::to_vec(&(Some(spec), overlaid)).ok()?);
    digest.update(cold_lines(relay, accepted));
    Some(hex::encode(digest.finalize()))
}
