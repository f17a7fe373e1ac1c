//! The writes for which a key is needed: it is read, used and forgotten within one call, and never logged.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use operator_api::{Relay, names};
use operator_plan::desired::identity::{new_identity, pods_part};
use operator_plan::desired::signing::new_signing;
use operator_plan::desired::status_port::token_secret;
use relay_formats::fingerprint::Ed25519Identity;

use super::{ApplyError, api, create, put_where_it_says};
use crate::cluster::Cluster;

/// The one write that cannot be taken back: asked once more, then `create`, never anything else.
pub(super) async fn create_identity(cluster: &Cluster, relay: &Relay) -> Result<Secret, ApplyError> {
    let name = relay.name_any();
    let fresh = api::<Relay>(cluster, relay).get(&name).await.map_err(looking)?;
    let beside: Api<PartialObjectMeta<Secret>> = api(cluster, relay);
    let beside = beside.get_opt(&names::identity_secret(&name)).await.map_err(looking)?;
    let kept: Api<PartialObjectMeta<Secret>> =
        Api::namespaced(cluster.client.clone(), &cluster.settings.custody_namespace);
    let kept = kept.get_opt(&keeper_name(relay)).await.map_err(looking)?;
    let recorded = fresh.status.as_ref().is_some_and(|status| status.identity.is_some());
    if recorded || beside.is_some() || kept.is_some() || fresh.metadata.uid != relay.metadata.uid {
        return Err(ApplyError::IdentityAppeared);
    }
    let settings = cluster.settings.clone();
    // Some tenths of a second.
    let keys = tokio::task::spawn_blocking(move || new_identity(&fresh, &settings, &mut rand::rng()));
    let secret = keys.await.map_err(|error| ApplyError::Keys(error.to_string()))?;
    let secret = secret.map_err(|error| ApplyError::Keys(error.to_string()))?;
    create(cluster, &secret, "create the identity Secret").await
}

/// All but the master key, for the pod.
pub(super) async fn create_pods_part(cluster: &Cluster, relay: &Relay) -> Result<Secret, ApplyError> {
    let part = pods_part(relay, &keeper(cluster, relay).await?);
    let part = part.ok_or_else(|| ApplyError::Keys("the Secret with the identity lacks a file".to_owned()))?;
    create(cluster, &part, "create the pod's part of the identity").await
}

/// A signing key for some days.
pub(super) async fn issue_signing(
    cluster: &Cluster,
    relay: &Relay,
    identity: &Ed25519Identity,
) -> Result<Secret, ApplyError> {
    let keeper = keeper(cluster, relay).await?;
    let secret = new_signing(relay, &keeper, identity, SystemTime::now(), &mut rand::rng());
    let secret = secret.map_err(|error| ApplyError::Keys(error.to_string()))?;
    put_where_it_says(cluster, &secret, "apply the signing key").await
}

/// What the operator shows at the relay's status port; `None` if no relay has one.
pub(super) async fn apply_token(cluster: &Cluster, relay: &Relay) -> Result<Option<Secret>, ApplyError> {
    let Some(key) = &cluster.settings.status_key else {
        return Ok(None);
    };
    let applied = put_where_it_says(cluster, &token_secret(key, relay), "apply the status token").await?;
    Ok(Some(applied))
}

/// The Secret with the whole identity. If it is gone since the facts were gathered, the next round says so.
async fn keeper(cluster: &Cluster, relay: &Relay) -> Result<Secret, ApplyError> {
    let kept: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.settings.custody_namespace);
    let found = kept.get_opt(&keeper_name(relay)).await.map_err(looking)?;
    found.ok_or(ApplyError::IdentityAppeared)
}

fn keeper_name(relay: &Relay) -> String {
    names::custody_secret(&relay.namespace().unwrap_or_default(), &relay.name_any())
}

fn looking(source: kube::Error) -> ApplyError {
    ApplyError::Api {
        step: "look for an identity",
        source,
    }
}
