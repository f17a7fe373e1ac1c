//! Reads all that a round wants to know of one RelayFamily, straight from the API server.

use std::fmt::Debug;

use futures::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource};
use operator_api::{RelayFamily, names};
use operator_plan::family::{Member, SHARDS_MAX, is_of_family};
use operator_plan::{FamilyObserved, Seen};
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;

/// The facts of one moment; `None` if the family is gone. Keys are seen by their metadata.
pub(super) async fn gather(cluster: &Cluster, namespace: &str, name: &str) -> kube::Result<Option<FamilyObserved>> {
    let families: Api<RelayFamily> = Api::namespaced(cluster.client.clone(), namespace);
    let Some(family) = families.get_opt(name).await? else {
        return Ok(None);
    };
    let generation = family.spec.rotation.generation;
    let custody = &cluster.settings.custody_namespace;
    let key = |generation| names::family_key_secret(namespace, name, generation);
    let (members, present, before, shards, well_known, shared) = tokio::try_join!(
        members(cluster, namespace, name),
        look::<PartialObjectMeta<Secret>>(cluster, &family, custody, key(generation)),
        look::<PartialObjectMeta<Secret>>(cluster, &family, custody, key(generation - 1)),
        try_join_all(
            (0..SHARDS_MAX)
                .map(|index| { look::<ConfigMap>(cluster, &family, namespace, names::family_shard(name, index)) })
        ),
        look::<ConfigMap>(cluster, &family, namespace, names::family_well_known(name)),
        look::<PartialObjectMeta<Secret>>(cluster, &family, namespace, names::family_shared_secret(name)),
    )?;
    let mut shards = shards.into_iter();
    Ok(Some(FamilyObserved {
        family,
        members,
        keys: [present, before],
        shards: std::array::from_fn(|_| shards.next().unwrap_or(Seen::Absent)),
        well_known,
        shared,
    }))
}

/// The Relays that name the family and have an identity; one that cannot be read has no place in it. As the watch knows them:
/// who comes or goes meanwhile wakes the next round.
async fn members(cluster: &Cluster, namespace: &str, family: &str) -> kube::Result<Vec<Member>> {
    if !cluster.listed.wait().await {
        // The watch has ended, and with it this process.
        return std::future::pending().await;
    }
    let all = cluster.relays.state();
    let readable = all.iter().filter_map(|relay| relay.0.as_ref().ok());
    let named = readable.filter(|relay| relay.spec.family.as_ref().is_some_and(|named| named.name == family));
    let here = named.filter(|relay| relay.metadata.namespace.as_deref() == Some(namespace));
    let staying = here.filter(|relay| relay.metadata.deletion_timestamp.is_none());
    Ok(staying.filter_map(Member::of).collect())
}

async fn look<K>(cluster: &Cluster, family: &RelayFamily, namespace: &str, name: String) -> kube::Result<Seen<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let objects: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
    Ok(match objects.get_opt(&name).await? {
        None => Seen::Absent,
        Some(object) if is_of_family(object.meta(), family) => Seen::Ours(object),
        Some(_) => Seen::Foreign,
    })
}
