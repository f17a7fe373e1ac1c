//! Events: what `kubectl describe relay` tells of what the operator did and met. Told only when something changed.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType};
use operator_api::{Custody, Relay, RelayStatus, condition, names};
use operator_plan::identity::custody_of;
use operator_plan::{Hurdle, Step};

use crate::apply::ApplyError;
use crate::cluster::Cluster;

/// After a step was done.
pub(crate) async fn tell_step(cluster: &Cluster, relay: &Relay, step: &Step) {
    let name = relay.metadata.name.as_deref().unwrap_or_default();
    let told = match step {
        Step::CreateIdentity => {
            let namespace = relay.metadata.namespace.as_deref().unwrap_or_default();
            let secret = match custody_of(relay) {
                Custody::Operator => names::custody_secret(namespace, name),
                Custody::InPod => names::identity_secret(name),
            };
            Some((
                "IdentityCreated",
                format!("made the relay's keys in Secret {secret}; back it up"),
            ))
        }
        // The first comes with the relay, as its volume does.
        Step::IssueSigning(_)
            if relay
                .status
                .as_ref()
                .is_some_and(|status| status.signing_key_expires.is_some()) =>
        {
            Some((
                "SigningKeyIssued",
                "gave the pod a new signing key; a running relay takes it up by itself".to_owned(),
            ))
        }
        Step::CreatePod(_) => Some(("PodCreated", "created the relay's pod".to_owned())),
        Step::DeletePod { .. } => Some((
            "PodReplaced",
            "asked the old pod to stop; the next is made when it is gone".to_owned(),
        )),
        Step::TouchPod { .. } => Some((
            "TorrcChanged",
            "told the pod's node of the new torrc; the relay takes it up without a restart".to_owned(),
        )),
        Step::DeleteClaim { .. } => Some((
            "VolumeDeleted",
            "deleted the relay's volume claim, as confirmed".to_owned(),
        )),
        Step::DeleteIdentity { .. } => Some(("IdentityDeleted", "deleted the relay's keys, as confirmed".to_owned())),
        Step::CreatePodsPart
        | Step::ApplyToken
        | Step::IssueSigning(_)
        | Step::ApplyTorrc(_)
        | Step::CreateClaim(_)
        | Step::ApplyService(_)
        | Step::HoldRelay(_) => None,
    };
    if let Some((reason, note)) = told {
        publish(cluster, relay, EventType::Normal, reason, note).await;
    }
}

/// After a status was written: if the reason for Ready is another than before, or another process was found to have the keys.
pub(crate) async fn tell_ready(cluster: &Cluster, relay: &Relay, status: &RelayStatus, hurdle: Option<&Hurdle>) {
    let before = relay.status.as_ref().map(|status| status.conditions.as_slice());
    let before = before.unwrap_or_default();
    let about = relay.object_ref(&());
    tell_change(cluster, &about, before, &status.conditions, hurdle).await;
    let conflict =
        |conditions: &[Condition]| reason(conditions, condition::IDENTITY_CONFLICT).map(|one| one.0.to_owned());
    let told = reason(&status.conditions, condition::IDENTITY_CONFLICT);
    if let Some((found @ "ListedElsewhere", message)) = told
        && conflict(before).as_deref() != Some(found)
    {
        tell(
            cluster,
            &about,
            EventType::Warning,
            condition::IDENTITY_CONFLICT,
            message.to_owned(),
        )
        .await;
    }
}

/// After the status of any of our resources was written: if the reason for Ready is another than before.
pub(crate) async fn tell_change(
    cluster: &Cluster,
    about: &ObjectReference,
    before: &[Condition],
    after: &[Condition],
    hurdle: Option<&Hurdle>,
) {
    let Some((now, message)) = reason(after, condition::READY) else {
        return;
    };
    if reason(before, condition::READY).map(|one| one.0) == Some(now) {
        return;
    }
    match hurdle {
        None => tell(cluster, about, EventType::Normal, now, message.to_owned()).await,
        Some(hurdle) if !hurdle.passing => {
            tell(
                cluster,
                about,
                EventType::Warning,
                hurdle.reason,
                hurdle.message.clone(),
            )
            .await;
        }
        Some(_) => {}
    }
}

/// Reason and message of a condition.
fn reason<'a>(conditions: &'a [Condition], type_: &str) -> Option<(&'a str, &'a str)> {
    let found = conditions.iter().find(|one| one.type_ == type_)?;
    Some((&found.reason, &found.message))
}

/// After a write that the API server refused: for want of rights, of quota, by somebody's admission rules.
pub(crate) async fn tell_refused(cluster: &Cluster, relay: &Relay, error: &ApplyError) {
    let note = format!("cannot {error}; it is tried again");
    publish(cluster, relay, EventType::Warning, "WriteRefused", note).await;
}

/// An event that cannot be told is no reason to stop: the status says the same.
async fn publish(cluster: &Cluster, relay: &Relay, type_: EventType, reason: &str, note: String) {
    tell(cluster, &relay.object_ref(&()), type_, reason, note).await;
}

/// As above, about any of our resources.
pub(crate) async fn tell(cluster: &Cluster, about: &ObjectReference, type_: EventType, reason: &str, note: String) {
    let note = note.chars().take(NOTE_CHARS_MAX).collect();
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let told = cluster.recorder.publish(&event, about).await;
    let result = if told.is_ok() { "ok" } else { "refused" };
    cluster
        .telemetry
        .api_writes
        .with_label_values(&["Event", "create", result])
        .inc();
    if let Err(error) = told {
        tracing::warn!(reason, %error, "an event could not be told");
    }
}

/// The API server takes 1024 bytes; a character has at most four.
const NOTE_CHARS_MAX: usize = 256;
