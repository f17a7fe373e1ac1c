//! The pod: bare, one for each identity, made by `create` alone so that its name is the first lock.
//!
//! An init container of our relay's image copies the identity keys from the Secret into the volume and refuses if others
//! lie there; then the engine runs. It is the only container that sees that Secret; with the operator's custody it does not
//! have the master key either, and the engine sees a signing key for some days.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
    KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe,
    ProjectedVolumeSource, SeccompProfile, SecretVolumeSource, SecurityContext, TCPSocketAction, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use operator_api::{Custody, Engine, Exposure, Relay, names};
use relay_formats::family_bundle::FILE_SUFFIX;
use relay_formats::key_file;
use sha2::{Digest as _, Sha256};

use super::status_port::TOKEN_KEY;
use super::torrc::{SHUTDOWN_WAIT_SECONDS, TORRC_KEY, cold_lines, torrc_text};
use super::{labels, owned};
use crate::family::SHARDS_MAX;
use crate::family::shard::{self, BUNDLE_KEY};
use crate::identity::custody_of;
use crate::overrides::lay_over;
use crate::pool::Place;
use crate::settings::{Settings, pull_policy_text};
use crate::validate::Accepted;

/// Labels or annotations.
type Texts = std::collections::BTreeMap<String, String>;

/// The volume's root belongs to whom the storage driver likes; the relay makes its own directory in it, mode 0700.
pub const DATA_DIRECTORY: &str = "/var/lib/relayfleet/data";
/// Name of the ORPort in pod and Service.
pub const OR_PORT_NAME: &str = "or";
/// The container that runs the engine.
pub const RELAY_CONTAINER: &str = "relay";
/// The init container that puts the keys in place.
pub const KEYS_CONTAINER: &str = "keys";

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
    let cold = cold_lines(relay, accepted);
    if let Some(annotations) = pod.metadata.annotations.as_mut() {
        annotations.insert(
            names::ANNOTATION_POD_HASH.to_owned(),
            hash(&pod.spec, overlaid(relay), &cold),
        );
    }
    pod
}

/// What the pool's exposure asks of the pod, after what the owner lays over it: the address is on that node and no other.
fn put_in_place(spec: &mut PodSpec, place: &Place) {
    if let Some(node) = &place.address.node {
        let selector = spec.node_selector.get_or_insert_default();
        selector.insert("kubernetes.io/hostname".to_owned(), node.clone());
    }
    if place.exposure == Exposure::HostNetwork {
        spec.host_network = Some(true);
        spec.dns_policy = Some("ClusterFirstWithHostNet".to_owned());
    }
    // A pod in the node's network has its ports there; Kubernetes wants it said.
    if matches!(place.exposure, Exposure::HostPort | Exposure::HostNetwork) {
        let ports = spec
            .containers
            .iter_mut()
            .flat_map(|container| container.ports.iter_mut().flatten());
        for port in ports.filter(|port| port.name.as_deref() == Some(OR_PORT_NAME)) {
            port.host_port = Some(i32::from(place.port));
        }
    }
}

/// Labels and annotations are a part of the pod's shape too: who changes them wants to see them.
fn overlaid(relay: &Relay) -> Option<(&Texts, &Texts)> {
    let overrides = relay.spec.pod.as_ref()?;
    Some((&overrides.labels, &overrides.annotations))
}

/// A pod cannot be changed, nor can some lines of its torrc while the relay runs: both ask for another pod.
fn hash(spec: &Option<PodSpec>, overlaid: Option<(&Texts, &Texts)>, cold: &str) -> String {
    let mut digest = Sha256::new();
    // A PodSpec of ours always has a JSON form.
    digest.update(serde_json::to_vec(&(spec, overlaid)).unwrap_or_default());
    digest.update(cold);
    hex::encode(digest.finalize())
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
        volumes: Some(volumes(relay, accepted)),
        affinity: accepted.affinity.clone(),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
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

fn volumes(relay: &Relay, accepted: &Accepted) -> Vec<Volume> {
    let name = relay.name_any();
    let mut volumes = vec![
        Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: names::data_claim(&name),
                ..Default::default()
            }),
            ..Default::default()
        },
        identity_volume(relay),
        Volume {
            name: "config".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::torrc_config_map(&name),
                items: Some(
                    std::iter::once(TORRC_KEY)
                        .chain(accepted.status.as_ref().map(|_| TOKEN_KEY))
                        .map(item)
                        .collect(),
                ),
                ..Default::default()
            }),
            ..Default::default()
        },
    ];
    volumes.extend(signing_volume(relay));
    volumes.extend(
        relay
            .spec
            .family
            .iter()
            .flat_map(|family| family_volumes(relay, &family.name)),
    );
    volumes
}

/// Without the master key where the operator keeps it: it is not in that Secret.
fn identity_volume(relay: &Relay) -> Volume {
    let master = (custody_of(relay) == Custody::InPod).then_some(key_file::MASTER_SECRET);
    let files = [key_file::RSA_IDENTITY, key_file::MASTER_PUBLIC]
        .into_iter()
        .chain(master);
    Volume {
        name: "identity".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::identity_secret(&relay.name_any())),
            items: Some(files.map(item).collect()),
            default_mode: Some(0o440), // root's, and readable by the pod's own group
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The one Secret that changes under a running relay.
fn signing_volume(relay: &Relay) -> Option<Volume> {
    (custody_of(relay) == Custody::Operator).then(|| Volume {
        name: "signing".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::signing_secret(&relay.name_any())),
            items: Some([key_file::SIGNING_SECRET, key_file::SIGNING_CERT].map(item).into()),
            default_mode: Some(0o440),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// All ConfigMaps that the family could ever have: the pod need not change when it grows.
fn family_volumes(relay: &Relay, family: &str) -> Vec<Volume> {
    let file = |key: &str, path: String| KeyToPath {
        key: key.to_owned(),
        path,
        mode: None,
    };
    let shard = |index: usize| {
        let mut items = match relay.spec.engine {
            Engine::Builtin => vec![file(BUNDLE_KEY, format!("{index}{FILE_SUFFIX}"))],
            Engine::Tor => Vec::new(),
        };
        if relay.spec.engine == Engine::Tor && index == 0 {
            items.push(file(shard::TORRC_KEY, format!("{index}.torrc")));
        }
        (!items.is_empty()).then(|| VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: names::family_shard(family, index),
                items: Some(items),
                optional: Some(true), // the family may be younger than its members
            }),
            ..Default::default()
        })
    };
    let shards = Volume {
        name: "family".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some((0..SHARDS_MAX).filter_map(shard).collect()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let keys = (relay.spec.engine == Engine::Tor).then(|| Volume {
        name: "family-keys".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(names::family_shared_secret(family)),
            default_mode: Some(0o440),
            optional: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    });
    std::iter::once(shards).chain(keys).collect()
}

fn item(name: &str) -> KeyToPath {
    KeyToPath {
        key: name.to_owned(),
        path: name.to_owned(),
        mode: None,
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
    let asked = relay.spec.image.as_ref().and_then(|image| image.pull_policy);
    Container {
        name: RELAY_CONTAINER.to_owned(),
        image: Some(accepted.image.clone()),
        image_pull_policy: asked
            .or(settings.pull_policy)
            .map(|policy| pull_policy_text(policy).to_owned()),
        args: Some(args),
        env: own_address.then(|| vec![pod_ip()]),
        ports: Some(vec![ContainerPort {
            name: Some(OR_PORT_NAME.to_owned()),
            container_port: i32::from(accepted.or_port),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        }]),
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::String(OR_PORT_NAME.to_owned()),
                host: None,
            }),
            period_seconds: Some(5),
            timeout_seconds: Some(3),
            ..Default::default()
        }),
        volume_mounts: Some(relay_mounts(relay)),
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Default::default()
    }
}

fn relay_mounts(relay: &Relay) -> Vec<VolumeMount> {
    let mut mounts = vec![mount("data", VOLUME_ROOT, false), mount("config", CONFIG_DIR, true)];
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
