//! The writes of a family's round. A key is read, used and forgotten within one call.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use operator_api::{RelayFamily, RelayFamilyStatus, names};
use operator_plan::FamilyStep;
use operator_plan::family::key::{FamilyKey, new_key, secret_key, shared_keys};
use operator_plan::family::shard;
use relay_formats::ed25519_key::Ed25519Secret;
use serde_json::json;

use crate::apply::{ApplyError, STATUS_MANAGER, count, create, put_where_it_says};
use crate::cluster::Cluster;

/// Writes the status.
pub(super) async fn status(
    cluster: &Cluster,
    family: &RelayFamily,
    status: &RelayFamilyStatus,
) -> Result<(), ApplyError> {
    let patch = json!({
        "apiVersion": RelayFamily::api_version(&()),
        "kind": RelayFamily::kind(&()),
        // The uid, so that a family of the same name made meanwhile does not get this one's keys.
        "metadata": {"name": family.name_any(), "uid": family.metadata.uid},
        "status": status,
    });
    let families: Api<RelayFamily> = Api::namespaced(cluster.client.clone(), &family.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    let done = families
        .patch_status(&family.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    count(cluster, "RelayFamily", "status", "write the status", done).map(|_| ())
}

/// Does one step.
pub(super) async fn apply(cluster: &Cluster, family: &RelayFamily, step: &FamilyStep) -> Result<(), ApplyError> {
    match step {
        FamilyStep::CreateKey(generation) => {
            let secret = new_key(family, *generation, &cluster.settings, &mut rand::rng());
            create(cluster, &secret, "create the family key's Secret")
                .await
                .map(drop)
        }
        FamilyStep::ApplyShard(plan) => {
            let mut keys: Vec<FamilyKey> = plan.issue.iter().map(|(_, key)| key.clone()).collect();
            keys.sort_by_key(|key| key.generation);
            keys.dedup();
            let secrets = secrets(cluster, family, &keys).await?;
            let map = shard::finish(family, plan, &secrets, SystemTime::now());
            put_where_it_says(cluster, &map, "apply the family's certificates")
                .await
                .map(drop)
        }
        FamilyStep::ApplyWellKnown(map) => put_where_it_says(cluster, map.as_ref(), "apply the proofs")
            .await
            .map(drop),
        FamilyStep::ApplyShared(keys) => {
            let secrets = secrets(cluster, family, keys).await?;
            let secret = shared_keys(family, keys, &secrets);
            put_where_it_says(cluster, &secret, "apply the shared keys")
                .await
                .map(drop)
        }
    }
}

/// In the order of `keys`. One that is gone since the facts were gathered is for the next round to tell.
async fn secrets(
    cluster: &Cluster,
    family: &RelayFamily,
    keys: &[FamilyKey],
) -> Result<Vec<Ed25519Secret>, ApplyError> {
    let kept: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.settings.custody_namespace);
    let (namespace, name) = (family.namespace().unwrap_or_default(), family.name_any());
    let mut secrets = Vec::new();
    for key in keys {
        let found = kept
            .get_opt(&names::family_key_secret(&namespace, &name, key.generation))
            .await;
        let found = found.map_err(|source| ApplyError::Api {
            step: "look for a family's key",
            source,
        })?;
        let secret = secret_key(family, &found.ok_or(ApplyError::IdentityAppeared)?);
        let secret = secret.map_err(|error| ApplyError::Keys(error.to_string()))?;
        if secret.public() != key.id {
            return Err(ApplyError::Keys(format!(
                "the Secret holds another key than that of {}",
                key.id
            )));
        }
        secrets.push(secret);
    }
    Ok(secrets)
}
