//! What the pod mounts.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, ProjectedVolumeSource,
    SecretProjection, SecretVolumeSource, Volume, VolumeProjection,
};
use kube::ResourceExt as _;
use operator_api::{Custody, Engine, Relay, names};
use relay_formats::family_bundle::FILE_SUFFIX;
use relay_formats::key_file;

use super::CONFIG_VOLUME;
use crate::desired::status_port::TOKEN_KEY;
use crate::desired::torrc::TORRC_KEY;
use crate::family::SHARDS_MAX;
use crate::family::shard::{self, BUNDLE_KEY};
use crate::identity::custody_of;
use crate::validate::Accepted;

pub(super) fn volumes(relay: &Relay, accepted: &Accepted) -> Vec<Volume> {
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
        config_volume(relay, accepted),
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

/// The torrc and, for a relay that can be asked, its token: two objects in one folder.
fn config_volume(relay: &Relay, accepted: &Accepted) -> Volume {
    let name = relay.name_any();
    let torrc = ConfigMapProjection {
        name: names::torrc_config_map(&name),
        items: Some(vec![item(TORRC_KEY)]),
        ..Default::default()
    };
    let mut volume = Volume {
        name: CONFIG_VOLUME.to_owned(),
        ..Default::default()
    };
    if accepted.status.is_none() {
        volume.config_map = Some(ConfigMapVolumeSource {
            name: torrc.name,
            items: torrc.items,
            ..Default::default()
        });
        return volume;
    }
    let torrc = VolumeProjection {
        config_map: Some(torrc),
        ..Default::default()
    };
    let token = VolumeProjection {
        secret: Some(SecretProjection {
            name: names::status_secret(&name),
            items: Some(vec![item(TOKEN_KEY)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    volume.projected = Some(ProjectedVolumeSource {
        sources: Some(vec![torrc, token]),
        default_mode: Some(0o440), // root's, and readable by the pod's own group
    });
    volume
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

pub(super) fn item(name: &str) -> KeyToPath {
    KeyToPath {
        key: name.to_owned(),
        path: name.to_owned(),
        mode: None,
    }
}
