//! The round: what to say and what to do, given all that was seen.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{Custody, RelayStatus, names};
use relay_formats::fingerprint::Ed25519Identity;

use crate::desired;
use crate::difference::differs;
use crate::hurdles::pod::is_outdated;
use crate::hurdles::{Hurdle, View, first_hurdle, may_start};
use crate::identity::{IdentityVerdict, custody_of, identity_verdict};
use crate::observed::{Observed, Seen, annotation};
use crate::settings::Settings;
use crate::validate::validate;

/// One write to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Draw keys and `create` their Secret; whoever does it asks the API server once more that there is none.
    CreateIdentity,
    /// `create` the pod's part of an identity that the operator keeps.
    CreatePodsPart,
    /// Draw and certify a signing key for the pod, and apply its Secret.
    IssueSigning(Ed25519Identity),
    /// Server-side apply.
    ApplyTorrc(Box<ConfigMap>),
    /// `create`: a volume is never changed.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Server-side apply.
    ApplyService(Box<Service>),
    /// `create`: the API server refuses a second pod of this name.
    CreatePod(Box<Pod>),
    /// Delete this very pod, with its grace period. Another round makes the next one when it is gone.
    DeletePod {
        /// The pod's uid, as a precondition.
        uid: String,
    },
}

/// What a round comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be written first, if it differs from what stands there: a pod must not run under keys that are not recorded.
    pub status: RelayStatus,
    /// To be done in this order.
    pub steps: Vec<Step>,
    /// What keeps the Relay from Ready.
    pub hurdle: Option<Hurdle>,
}

/// `now` dates the conditions that change. `None` for a Relay that is being deleted: what is owned goes with it.
#[must_use]
pub fn decide(seen: &Observed, settings: &Settings, now: &Time) -> Option<Plan> {
    if seen.relay.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let accepted = validate(&seen.relay, &seen.network, &seen.family, settings);
    let identity = identity_verdict(seen, settings);
    let next_pod = accepted
        .as_ref()
        .ok()
        .map(|accepted| desired::pod::pod(&seen.relay, accepted, settings));
    let pod_hash = next_pod
        .as_ref()
        .and_then(|pod| annotation(&pod.metadata, names::ANNOTATION_POD_HASH));
    let view = View {
        seen,
        accepted: &accepted,
        identity: &identity,
        pod_hash,
    };
    Some(Plan {
        status: crate::status::status(&view, now),
        steps: steps(&view, next_pod.as_ref(), now),
        hurdle: first_hurdle(&view),
    })
}

fn steps(view: &View<'_>, next_pod: Option<&Pod>, now: &Time) -> Vec<Step> {
    if let (Ok(_), IdentityVerdict::Create) = (view.accepted, view.identity) {
        return vec![Step::CreateIdentity];
    }
    // A running pod is left alone while something stands in the way of its successor.
    let (Ok(accepted), IdentityVerdict::Bound { identity, .. }, Some(next_pod), true) =
        (view.accepted, view.identity, next_pod, may_start(view))
    else {
        return signing_step(view, now).into_iter().collect();
    };
    let seen = view.seen;
    let torrc = desired::torrc::torrc(&seen.relay, accepted);
    let service = desired::service::service(&seen.relay, accepted);
    let pods_part = custody_of(&seen.relay) == Custody::Operator && matches!(seen.identity, Seen::Absent);
    let steps = [
        pods_part.then_some(Step::CreatePodsPart),
        signing_step(view, now),
        wants_write(&seen.torrc, &torrc).then(|| Step::ApplyTorrc(Box::new(torrc))),
        matches!(seen.claim, Seen::Absent)
            .then(|| Step::CreateClaim(Box::new(desired::claim::claim(&seen.relay, identity)))),
        wants_write(&seen.service, &service).then(|| Step::ApplyService(Box::new(service))),
        pod_step(view, next_pod), // last: a pod must find its keys, torrc and volume
    ];
    steps.into_iter().flatten().collect()
}

/// Also for a running pod whose successor is held up: its key must not end meanwhile.
fn signing_step(view: &View<'_>, now: &Time) -> Option<Step> {
    let IdentityVerdict::Bound { identity, .. } = view.identity else {
        return None;
    };
    let ours = !matches!(view.seen.signing, Seen::Foreign);
    let due = ours && desired::signing::is_due(view.seen, &identity.ed25519_id, now.0);
    due.then(|| identity.ed25519_id.parse().ok().map(Step::IssueSigning))
        .flatten()
}

fn wants_write<T: serde::Serialize>(seen: &Seen<T>, wanted: &T) -> bool {
    seen.ours().is_none_or(|found| differs(wanted, found))
}

/// At most one pod of an identity: the next is made only when the object of the last is gone.
fn pod_step(view: &View<'_>, next_pod: &Pod) -> Option<Step> {
    match &view.seen.pod {
        Seen::Absent => Some(Step::CreatePod(Box::new(next_pod.clone()))),
        Seen::Foreign => None,
        Seen::Ours(pod) if pod.metadata.deletion_timestamp.is_some() => None,
        Seen::Ours(pod) if is_outdated(view, pod) => Some(Step::DeletePod {
            uid: pod.metadata.uid.clone()?,
        }),
        Seen::Ours(_) => None,
    }
}
