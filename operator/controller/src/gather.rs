//! Reads all that a round wants to know of one Relay, straight from the API server: never from a cache, for what is
//! decided here cannot always be undone.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt as _};
use operator_api::{Relay, RelayFamily, names};
use operator_plan::{FamilySeen, NetworkText, Observed, Seen, Step};
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::echo::Version;

/// The facts of one moment. Secrets are read as metadata only: a key enters this process when it is needed to sign.
///
/// `None` if the Relay is gone.
pub(crate) async fn gather(cluster: &Cluster, namespace: &str, name: &str) -> kube::Result<Option<Observed>> {
    let relays: Api<Relay> = Api::namespaced(cluster.client.clone(), namespace);
    let Some(relay) = relays.get_opt(name).await? else {
        return Ok(None);
    };
    let (identity, claim) = (names::identity_secret(name), names::data_claim(name));
    let (signing, torrc) = (names::signing_secret(name), names::torrc_config_map(name));
    let token = names::status_secret(name);
    let seen = tokio::try_join!(
        network(cluster, &relay),
        family(cluster, &relay),
        crate::pools::look(cluster, &relay),
        kept(cluster, &relay),
        look::<PartialObjectMeta<Secret>>(cluster, &relay, &identity),
        look::<PartialObjectMeta<Secret>>(cluster, &relay, &signing),
        look::<PartialObjectMeta<Secret>>(cluster, &relay, &token),
        look::<ConfigMap>(cluster, &relay, &torrc),
        look::<PersistentVolumeClaim>(cluster, &relay, &claim),
        look::<Service>(cluster, &relay, name),
        look::<Pod>(cluster, &relay, name),
    )?;
    let (network, family, pool, custody, identity, signing, token, torrc, claim, service, pod) = seen;
    Ok(Some(Observed {
        relay,
        network,
        family,
        pool,
        custody,
        identity,
        signing,
        token,
        torrc,
        claim,
        service,
        pod,
    }))
}

/// After steps that were answered by something else than what stands there now: reads what they have changed. False if the
/// Relay is gone.
pub(crate) async fn look_again(cluster: &Cluster, seen: &mut Observed, steps: &[&Step]) -> kube::Result<bool> {
    let name = seen.relay.name_any();
    for step in steps {
        let relay = &seen.relay;
        match step {
            Step::CreateIdentity | Step::DeleteIdentity { .. } => {
                seen.custody = kept(cluster, relay).await?;
                seen.identity = look(cluster, relay, &names::identity_secret(&name)).await?;
            }
            Step::CreatePodsPart => seen.identity = look(cluster, relay, &names::identity_secret(&name)).await?,
            Step::IssueSigning(_) => seen.signing = look(cluster, relay, &names::signing_secret(&name)).await?,
            Step::ApplyToken => seen.token = look(cluster, relay, &names::status_secret(&name)).await?,
            Step::ApplyTorrc(_) => seen.torrc = look(cluster, relay, &names::torrc_config_map(&name)).await?,
            Step::CreateClaim(_) | Step::DeleteClaim { .. } => {
                seen.claim = look(cluster, relay, &names::data_claim(&name)).await?;
            }
            Step::ApplyService(_) => seen.service = look(cluster, relay, &name).await?,
            Step::CreatePod(_) | Step::TouchPod { .. } | Step::DeletePod { .. } => {
                seen.pod = look(cluster, relay, &name).await?;
            }
            Step::HoldRelay(_) => {
                let relays: Api<Relay> =
                    Api::namespaced(cluster.client.clone(), &relay.namespace().unwrap_or_default());
                match relays.get_opt(&name).await? {
                    Some(relay) => seen.relay = relay,
                    None => return Ok(false),
                }
            }
        }
    }
    Ok(true)
}

/// Of all objects that were read.
pub(crate) fn versions(seen: &Observed) -> Vec<Version> {
    fn version<K: Resource<DynamicType = ()>>(object: &Seen<K>) -> Option<Version> {
        object.ours().map(Version::of)
    }
    [
        Some(Version::of(&seen.relay)),
        version(&seen.custody),
        version(&seen.identity),
        version(&seen.signing),
        version(&seen.token),
        version(&seen.torrc),
        version(&seen.claim),
        version(&seen.service),
        version(&seen.pod),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn look<K>(cluster: &Cluster, relay: &Relay, name: &str) -> kube::Result<Seen<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let namespace = relay.namespace().unwrap_or_default();
    let objects: Api<K> = Api::namespaced(cluster.client.clone(), &namespace);
    Ok(Seen::of(objects.get_opt(name).await?, relay))
}

/// In the operator's own namespace.
async fn kept(cluster: &Cluster, relay: &Relay) -> kube::Result<Seen<PartialObjectMeta<Secret>>> {
    let secrets: Api<PartialObjectMeta<Secret>> =
        Api::namespaced(cluster.client.clone(), &cluster.settings.custody_namespace);
    let name = names::custody_secret(&relay.namespace().unwrap_or_default(), &relay.name_any());
    Ok(Seen::of(secrets.get_opt(&name).await?, relay))
}

async fn network(cluster: &Cluster, relay: &Relay) -> kube::Result<NetworkText> {
    let Some(source) = relay.spec.network.as_ref().map(|network| &network.config_map) else {
        return Ok(NetworkText::Public);
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &relay.namespace().unwrap_or_default());
    let data = config_maps.get_opt(&source.name).await?.and_then(|found| found.data);
    let text = data.and_then(|mut data| data.remove(&source.key));
    Ok(text.map_or(NetworkText::Missing, NetworkText::Text))
}

async fn family(cluster: &Cluster, relay: &Relay) -> kube::Result<FamilySeen> {
    let Some(named) = &relay.spec.family else {
        return Ok(FamilySeen::Unnamed);
    };
    let families: Api<RelayFamily> = Api::namespaced(cluster.client.clone(), &relay.namespace().unwrap_or_default());
    let found = families.get_opt(&named.name).await?;
    Ok(found.map_or(FamilySeen::Missing, |family| FamilySeen::There(Box::new(family))))
}
