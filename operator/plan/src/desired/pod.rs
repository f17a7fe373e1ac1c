//! The pod: bare, one for each identity, made by `create` alone so that its name is the first lock.
//!
//! An init container of our relay's image copies the identity keys from the Secret into the volume and refuses if others
//! lie there; then the engine runs. It is the only container that sees that Secret; with the operator's custody it does not
//! have the master key either, and the engine sees a signing key for some days.

mod probes;
mod shape;
mod volumes;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSecurityContext,
    PodSpec, SeccompProfile, SecurityContext, VolumeMount,
};
use kube::ResourceExt as _;
use operator_api::{Custody, Engine, Exposure, PullPolicy, Relay, names};
use sha2::{Digest as _, Sha256};

use super::status_port::TOKEN_KEY;
use super::torrc::{SHUTDOWN_WAIT_SECONDS, TORRC_KEY, torrc_text};
use super::{labels, owned};
use crate::identity::custody_of;
use crate::overrides::lay_over;
use crate::pool::Place;
use crate::settings::{Settings, pull_policy_text};
use crate::validate::Accepted;

/// The volume's root belongs to whom the storage driver likes; the relay makes its own directory in it, mode 0700.
pub const DATA_DIRECTORY: &str = "/var/lib/relayfleet/data";
/// Name of the ORPort in pod and Service.
pub const OR_PORT_NAME: &str = "or";
/// Name of the MetricsPort in the pod; the chart's PodMonitor looks for it.
pub const METRICS_PORT_NAME: &str = "metrics";
/// The container that runs the engine.
pub const RELAY_CONTAINER: &str = "relay";
/// The init container that puts the keys in place.
pub const KEYS_CONTAINER: &str = "keys";

const CONFIG_VOLUME: &str = "config";
const VOLUME_ROOT: &str = "/var/lib/relayfleet";
const IDENTITY_DIR: &str = "/etc/relayfleet/identity";
/// Where the pod finds the signing key that the operator renews.
pub const SIGNING_DIR: &str = "/etc/relayfleet/signing";
/// Where a member finds its family's bundles.
pub const FAMILY_DIR: &str = "/etc/relayfleet/family";
/// Where C tor finds its family's keys.
pub const FAMILY_KEYS_DIR: &str = "/etc/relayfleet/family-keys";
/// Where the pod finds its torrc.
pub const CONFIG_DIR: &str = "/etc/relayfleet/config";
/// Any id from 10000 up, so that it is nobody on the node; our images say the same.
const RELAY_UID: i64 = 10_001;
/// Beyond the relay's own wait, for what it does before and after.
const GRACE_SECONDS: i64 = SHUTDOWN_WAIT_SECONDS + 15;

/// The pod, with the hash of all that it was made from.
#[must_use]
pub fn pod(relay: &Relay, accepted: &Accepted, settings: &Settings) -> Pod {
    let spec = pod_spec(relay, accepted, settings);
    let mut metadata = owned(relay, relay.name_any());
    metadata.labels = Some(labels(relay));
    metadata.finalizers = Some(vec![names::FINALIZER_POD.to_owned()]);
    metadata.annotations = Some([(names::ANNOTATION_TORRC_HASH.to_owned(), torrc_hash(relay, accepted))].into());
    let mut pod = Pod {
        metadata,
        spec: Some(spec),
        ..Default::default()
    };
    if let Some(overrides) = &relay.spec.pod {
        lay_over(&mut pod, overrides);
    }
    if let (Some(place), Some(spec)) = (&accepted.place, pod.spec.as_mut()) {
        put_in_place(spec, place);
    }
    if let Some(annotations) = pod.metadata.annotations.as_mut() {
        let hash = shape::hash(relay, accepted, settings);
        annotations.insert(names::ANNOTATION_POD_HASH.to_owned(), hash);
    }
    pod
}

/// The hash that an earlier operator would have written on the same pod; see there.
#[must_use]
pub fn earlier_hash(pod: &Pod, relay: &Relay, accepted: &Accepted) -> Option<String> {
    shape::earlier_hash(pod.spec.as_ref()?, relay, accepted)
}

/// Whether a pod finds its status token in the torrc's ConfigMap, as an earlier operator made pods.
#[must_use]
pub fn reads_token_beside_torrc(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().filter_map(|spec| spec.volumes.as_ref()).flatten();
    let mut items = volumes
        .filter_map(|volume| volume.config_map.as_ref()?.items.as_ref())
        .flatten();
    items.any(|item| item.key == TOKEN_KEY)
}

/// What the pool's exposure asks of the pod, after what the owner lays over it: the address is on that node and no other.
fn put_in_place(spec: &mut PodSpec, place: &Place) {
    if let Some(node) = &place.address.node {
        let selector = spec.node_selector.get_or_insert_default();
        selector.insert("kubernetes.io/hostname".to_owned(), node.clone());
    }
    if place.exposure == Exposure::HostNetwork {
        spec.host_network = Some(true);
    }
    // A pod in the node's network has its ports there; Kubernetes wants it said.
    if matches!(place.exposure, Exposure::HostPort | Exposure::HostNetwork) {
        let ports = spec
            .containers
            .iter_mut()
            .flat_map(|container| container.ports.iter_mut().flatten());
        let whole_network = place.exposure == Exposure::HostNetwork;
        for port in ports.filter(|port| whole_network || port.name.as_deref() == Some(OR_PORT_NAME)) {
            port.host_port = Some(port.container_port);
        }
    }
}

/// What the pod's annotation says of the torrc that it should have.
#[must_use]
pub fn torrc_hash(relay: &Relay, accepted: &Accepted) -> String {
    hex::encode(Sha256::digest(torrc_text(relay, accepted)))
}

fn pod_spec(relay: &Relay, accepted: &Accepted, settings: &Settings) -> PodSpec {
    PodSpec {
        init_containers: Some(vec![keys_container(settings)]),
        containers: vec![relay_container(relay, accepted, settings)],
        volumes: Some(volumes::volumes(relay, accepted)),
        affinity: accepted.affinity.clone(),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // A relay needs nothing from the cluster's DNS, and what an exit asks there, strangers ask: the node's is outside of it.
        dns_policy: Some("Default".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(RELAY_UID),
            run_as_group: Some(RELAY_UID),
            fs_group: Some(RELAY_UID),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn keys_container(settings: &Settings) -> Container {
    Container {
        name: KEYS_CONTAINER.to_owned(),
        image: Some(settings.relay_image.clone()),
        image_pull_policy: settings.pull_policy.map(|policy| pull_policy_text(policy).to_owned()),
        args: Some(
            ["--import-keys", IDENTITY_DIR, &format!("{DATA_DIRECTORY}/keys")]
                .map(str::to_owned)
                .into(),
        ),
        volume_mounts: Some(vec![
            mount("identity", IDENTITY_DIR, true),
            mount("data", VOLUME_ROOT, false),
        ]),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Default::default()
    }
}

fn relay_container(relay: &Relay, accepted: &Accepted, settings: &Settings) -> Container {
    let own_address = accepted.address.is_none();
    let mut args = vec!["-f".to_owned(), format!("{CONFIG_DIR}/{TORRC_KEY}")];
    if relay.spec.engine == Engine::Builtin {
        args.push("--watch-torrc".to_owned());
    }
    if own_address {
        args.extend(["--Address".to_owned(), "$(POD_IP)".to_owned()]);
    }
    if accepted.is_on_host_network() {
        // Not on all of the node's addresses: one of them may be the world's.
        let ports = [
            ("--StatusPort", accepted.status),
            ("--MetricsPort", accepted.metrics.as_ref().map(|metrics| metrics.port)),
        ];
        for (option, port) in ports {
            args.extend(
                port.into_iter()
                    .flat_map(|port| [option.to_owned(), format!("$(POD_IP):{port}")]),
            );
        }
    }
    let mut container = Container {
        name: RELAY_CONTAINER.to_owned(),
        image: Some(accepted.image.clone()),
        image_pull_policy: pull_policy(relay, settings).map(|policy| pull_policy_text(policy).to_owned()),
        env: args.iter().any(|arg| arg.contains("$(POD_IP)")).then(|| vec![pod_ip()]),
        args: Some(args),
        ports: Some(ports(accepted)),
        volume_mounts: Some(relay_mounts(relay)),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Default::default()
    };
    probes::put(&mut container, accepted);
    container
}

fn pull_policy(relay: &Relay, settings: &Settings) -> Option<PullPolicy> {
    let asked = relay.spec.image.as_ref().and_then(|image| image.pull_policy);
    asked.or(settings.pull_policy)
}

fn ports(accepted: &Accepted) -> Vec<ContainerPort> {
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    };
    let status = accepted.status.map(|number| port(probes::STATUS_PORT_NAME, number));
    let metrics = accepted
        .metrics
        .as_ref()
        .map(|metrics| port(METRICS_PORT_NAME, metrics.port));
    std::iter::once(port(OR_PORT_NAME, accepted.or_port))
        .chain(status)
        .chain(metrics)
        .collect()
}

fn relay_mounts(relay: &Relay) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount("data", VOLUME_ROOT, false),
        mount(CONFIG_VOLUME, CONFIG_DIR, true),
    ];
    if custody_of(relay) == Custody::Operator {
        mounts.push(mount("signing", SIGNING_DIR, true));
    }
    if relay.spec.family.is_some() {
        mounts.push(mount("family", FAMILY_DIR, true));
        if relay.spec.engine == Engine::Tor {
            mounts.push(mount("family-keys", FAMILY_KEYS_DIR, true));
        }
    }
    mounts
}

fn pod_ip() -> EnvVar {
    EnvVar {
        name: "POD_IP".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "status.podIP".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..Default::default()
    }
}

/// What Pod Security `restricted` asks of each container, and a root that cannot be written.
fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..Default::default()
    }
}
