//! The claim for the relay's volume.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt as _;
use operator_api::{IdentityStatus, Relay, names};

use super::kept;

/// Made once, by `create`, and kept when the Relay goes. It bears the fingerprint whose keys will lie on it. One pod at
/// a time may mount it: another lock beside the pod's name.
#[must_use]
pub fn claim(relay: &Relay, identity: &IdentityStatus) -> PersistentVolumeClaim {
    let storage = &relay.spec.storage;
    let mut metadata = kept(relay, names::data_claim(&relay.name_any()));
    metadata.annotations = Some([(names::ANNOTATION_RSA.to_owned(), identity.rsa_fingerprint.clone())].into());
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOncePod".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(storage.size.clone()))].into()),
                ..Default::default()
            }),
            storage_class_name: storage.storage_class_name.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
