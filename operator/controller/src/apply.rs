//! The only place that writes to the cluster, and counts every write.

mod keys;

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::{Api, Resource, ResourceExt as _};
use operator_api::{Relay, RelayStatus, names};
use operator_plan::{Observed, Seen, Step};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cluster::Cluster;

/// Owner of the fields that we apply.
pub(crate) const FIELD_MANAGER: &str = "relayfleet-operator";
/// Owner of the status.
pub(crate) const STATUS_MANAGER: &str = "relayfleet-operator-status";

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server refused it, or could not be reached.
    #[error("{step}: {}", plain(.source))]
    Api {
        /// What was tried.
        step: &'static str,
        /// What the API server said.
        source: kube::Error,
    },
    /// Since the facts were gathered an identity has come up or gone: the next round will see it.
    #[error("the identity changed while keys were to be made")]
    IdentityAppeared,
    /// No keys could be drawn, or those that are kept cannot be used.
    #[error("make keys: {0}")]
    Keys(String),
}

impl ApplyError {
    /// Somebody else was faster; look again at once.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
                ..
            } => status.code == 409,
            Self::IdentityAppeared => true,
            Self::Api { .. } | Self::Keys(_) => false,
        }
    }

    /// What was to be changed is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 404)
    }
}

/// What the API server said, without the form that it said it in.
pub(crate) fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({} {})", status.message, status.reason, status.code),
        other => other.to_string(),
    }
}

/// Writes the status; the Relay as it stands then.
pub(crate) async fn apply_status(cluster: &Cluster, relay: &Relay, status: &RelayStatus) -> Result<Relay, ApplyError> {
    // What the relay says of itself is another manager's.
    let status = &RelayStatus {
        directory: None,
        ..status.clone()
    };
    let patch = json!({
        "apiVersion": Relay::api_version(&()),
        "kind": Relay::kind(&()),
        // The uid, so that a Relay of the same name made meanwhile does not get this one's fingerprint.
        "metadata": {"name": relay.name_any(), "uid": relay.metadata.uid},
        "status": status,
    });
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    let relays: Api<Relay> = api(cluster, relay);
    let done = relays
        .patch_status(&relay.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    count(cluster, "Relay", "status", "write the status", done)
}

/// Whether what a step changed is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The API server's answer stands in what was seen.
    Seen,
    /// It must be read again.
    Unknown,
}

/// Does one step, and takes what the API server answers for seen: it is what a read would bring.
pub(crate) async fn apply(cluster: &Cluster, seen: &mut Observed, step: &Step) -> Result<After, ApplyError> {
    let relay = &seen.relay;
    match step {
        Step::CreateIdentity => {
            let made = keys::create_identity(cluster, relay).await?;
            let beside = made.metadata.namespace == relay.metadata.namespace
                && made.metadata.name.as_deref() == Some(&names::identity_secret(&relay.name_any()));
            let made = Seen::of(Some(without_keys(made)), relay);
            *(if beside { &mut seen.identity } else { &mut seen.custody }) = made;
        }
        Step::CreatePodsPart => {
            let made = keys::create_pods_part(cluster, relay).await?;
            seen.identity = Seen::of(Some(without_keys(made)), relay);
        }
        Step::IssueSigning(identity) => {
            let issued = keys::issue_signing(cluster, relay, identity).await?;
            seen.signing = Seen::of(Some(without_keys(issued)), relay);
        }
        Step::ApplyToken => match keys::apply_token(cluster, relay).await? {
            Some(applied) => seen.token = Seen::of(Some(without_keys(applied)), relay),
            None => return Ok(After::Unknown),
        },
        Step::ApplyTorrc(torrc) => {
            let applied = put_where_it_says(cluster, torrc.as_ref(), "apply the torrc").await?;
            seen.torrc = Seen::of(Some(applied), relay);
        }
        Step::CreateClaim(claim) => {
            let made = create(cluster, claim.as_ref(), "create the volume claim").await?;
            seen.claim = Seen::of(Some(made), relay);
        }
        Step::ApplyService(service) => {
            let applied = put_where_it_says(cluster, service.as_ref(), "apply the Service").await?;
            seen.service = Seen::of(Some(applied), relay);
        }
        Step::CreatePod(pod) => {
            let made = create(cluster, pod.as_ref(), "create the pod").await?;
            seen.pod = Seen::of(Some(made), relay);
        }
        Step::TouchPod { uid, torrc_hash } => {
            let annotations = json!({names::ANNOTATION_TORRC_HASH: torrc_hash});
            let change = json!({"metadata": {"uid": uid, "annotations": annotations}});
            let told = "tell the node of the new torrc";
            match merge::<Pod>(cluster, relay, &relay.name_any(), &change, told).await? {
                Some(pod) => seen.pod = Seen::of(Some(pod), relay),
                None => return Ok(After::Unknown),
            }
        }
        Step::HoldRelay(held) => match hold_relay(cluster, relay, *held).await? {
            Some(relay) => seen.relay = relay,
            None => return Ok(After::Unknown),
        },
        // A deleted object may stay for its grace period or for a finalizer.
        Step::DeletePod { uid } => {
            delete::<Pod>(cluster, relay, &relay.name_any(), uid, "delete the pod").await?;
            return Ok(After::Unknown);
        }
        Step::DeleteClaim { uid } => {
            let name = names::data_claim(&relay.name_any());
            delete::<PersistentVolumeClaim>(cluster, relay, &name, uid, "delete the volume claim").await?;
            return Ok(After::Unknown);
        }
        Step::DeleteIdentity { namespace, name, uid } => {
            delete_identity(cluster, namespace, name, uid).await?;
            return Ok(After::Unknown);
        }
    }
    Ok(After::Seen)
}

/// As a round sees Secrets.
fn without_keys(secret: Secret) -> PartialObjectMeta<Secret> {
    secret.metadata.into_response_partial()
}

/// Deletes this very object; one that is gone already is no error.
async fn delete<K>(
    cluster: &Cluster,
    relay: &Relay,
    name: &str,
    uid: &str,
    step: &'static str,
) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let done = api::<K>(cluster, relay).delete(name, &this_very(uid)).await;
    or_gone(count(cluster, &K::kind(&()), "delete", step, done)).map(drop)
}

/// Merges a change into an object; the change names the uid. One that is gone already is no error.
async fn merge<K>(
    cluster: &Cluster,
    relay: &Relay,
    name: &str,
    change: &serde_json::Value,
    step: &'static str,
) -> Result<Option<K>, ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    let done = api::<K>(cluster, relay)
        .patch(name, &parameters, &Patch::Merge(change))
        .await;
    or_gone(count(cluster, &K::kind(&()), "patch", step, done))
}

pub(crate) fn or_gone<T>(done: Result<T, ApplyError>) -> Result<Option<T>, ApplyError> {
    match done {
        Err(error) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}

/// With the resourceVersion that was read, so that nobody else's finalizer is lost.
async fn hold_relay(cluster: &Cluster, relay: &Relay, held: bool) -> Result<Option<Relay>, ApplyError> {
    let others = relay.finalizers().iter().map(String::as_str);
    let others = others.filter(|finalizer| *finalizer != names::FINALIZER_RELAY);
    let finalizers: Vec<&str> = others.chain(held.then_some(names::FINALIZER_RELAY)).collect();
    let change = json!({"metadata": {
        "uid": relay.metadata.uid, "resourceVersion": relay.metadata.resource_version, "finalizers": finalizers,
    }});
    merge::<Relay>(
        cluster,
        relay,
        &relay.name_any(),
        &change,
        "change the Relay's finalizer",
    )
    .await
}

/// Deletion first: a Secret without its finalizer that nobody has asked to delete would be worse than the other way round.
async fn delete_identity(cluster: &Cluster, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let done = secrets.delete(name, &this_very(uid)).await;
    or_gone(count(cluster, "Secret", "delete", "delete the identity Secret", done))?;
    let change = json!({"metadata": {"uid": uid, "finalizers": []}});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    // As metadata: the keys do not come back with the answer.
    let done = secrets.patch_metadata(name, &parameters, &Patch::Merge(&change)).await;
    or_gone(count(cluster, "Secret", "patch", "let the identity Secret go", done)).map(drop)
}

fn this_very(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..Default::default()
    }
}

pub(crate) async fn create<K>(cluster: &Cluster, object: &K, step: &'static str) -> Result<K, ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    // What is kept for a relay stands in the operator's namespace.
    let namespace = object.namespace().unwrap_or_default();
    let done = Api::<K>::namespaced(cluster.client.clone(), &namespace)
        .create(&parameters, object)
        .await;
    count(cluster, &K::kind(&()), "create", step, done)
}

/// In the namespace that the object names.
pub(crate) async fn put_where_it_says<K>(cluster: &Cluster, object: &K, step: &'static str) -> Result<K, ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let done = Api::<K>::namespaced(cluster.client.clone(), &object.namespace().unwrap_or_default())
        .patch(&object.name_any(), &parameters, &Patch::Apply(object))
        .await;
    count(cluster, &K::kind(&()), "apply", step, done)
}

pub(crate) fn api<K>(cluster: &Cluster, relay: &Relay) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cluster.client.clone(), &relay.namespace().unwrap_or_default())
}

pub(crate) fn count<T>(
    cluster: &Cluster,
    kind: &str,
    verb: &str,
    step: &'static str,
    done: kube::Result<T>,
) -> Result<T, ApplyError> {
    let result = if done.is_ok() { "ok" } else { "refused" };
    cluster
        .telemetry
        .api_writes
        .with_label_values(&[kind, verb, result])
        .inc();
    if done.is_ok() {
        cluster.lifetime.spend();
    }
    done.map_err(|source| ApplyError::Api { step, source })
}
