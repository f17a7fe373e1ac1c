//! The round: what to say and what to do, given all that was seen.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{Custody, RelayStatus, names};
use relay_formats::fingerprint::Ed25519Identity;

use crate::desired;
use crate::desired::status_port::{TOKEN_KEY, status_token, token_hash};
use crate::difference::differs;
use crate::hurdles::pod::{Age, age, overdue_in};
use crate::hurdles::{Hurdle, View, first_hurdle, may_start};
use crate::identity::{IdentityVerdict, custody_of, identity_verdict};
use crate::observed::{Observed, Seen, annotation};
use crate::settings::Settings;
use crate::validate::{Accepted, validate};

/// One write to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Draw keys and `create` their Secret; whoever does it asks the API server once more that there is none.
    CreateIdentity,
    /// `create` the pod's part of an identity that the operator keeps.
    CreatePodsPart,
    /// Draw and certify a signing key for the pod, and apply its Secret.
    IssueSigning(Ed25519Identity),
    /// Apply the Secret with the pod's status token.
    ApplyToken,
    /// Server-side apply.
    ApplyTorrc(Box<ConfigMap>),
    /// `create`: a volume is never changed.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Server-side apply.
    ApplyService(Box<Service>),
    /// `create`: the API server refuses a second pod of this name.
    CreatePod(Box<Pod>),
    /// Tell this very pod's node that the torrc has changed.
    TouchPod {
        /// The pod's uid, as a precondition.
        uid: String,
        /// For the annotation.
        torrc_hash: String,
    },
    /// Delete this very pod, with its grace period. Another round makes the next one when it is gone.
    DeletePod {
        /// The pod's uid, as a precondition.
        uid: String,
    },
    /// Put a finalizer on the Relay, or take it away: deletion of an identity is work that must not be forgotten.
    HoldRelay(bool),
    /// Delete this very volume claim, as its owner confirmed.
    DeleteClaim {
        /// The claim's uid, as a precondition.
        uid: String,
    },
    /// Delete this very identity Secret and take its finalizer away, as its owner confirmed.
    DeleteIdentity {
        /// Where the whole identity is kept.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The Secret's uid, as a precondition.
        uid: String,
    },
}

/// What a round comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be written first, if it differs from what stands there: a pod must not run under keys that are not recorded.
    /// `None` for a Relay on its way out.
    pub status: Option<RelayStatus>,
    /// To be done in this order.
    pub steps: Vec<Step>,
    /// What keeps the Relay from Ready.
    pub hurdle: Option<Hurdle>,
    /// When the plan may be another though nothing has changed but the time.
    pub look_again: Option<Duration>,
}

/// `now` dates the conditions that change. `None` if there is nothing to say or to do: of a Relay that is being deleted
/// all that is owned goes with it.
#[must_use]
pub fn decide(seen: &Observed, settings: &Settings, now: &Time) -> Option<Plan> {
    if seen.relay.metadata.deletion_timestamp.is_some() {
        return crate::farewell::farewell(seen);
    }
    let accepted = validate(&seen.relay, &seen.network, &seen.family, &seen.pool, settings);
    let identity = identity_verdict(seen, settings);
    let next_pod = accepted
        .as_ref()
        .ok()
        .map(|accepted| desired::pod::pod(&seen.relay, accepted, settings));
    let pod_hash = next_pod
        .as_ref()
        .and_then(|pod| annotation(&pod.metadata, names::ANNOTATION_POD_HASH));
    let earlier_hash = accepted
        .as_ref()
        .ok()
        .zip(next_pod.as_ref())
        .and_then(|(accepted, pod)| desired::pod::earlier_hash(pod, &seen.relay, accepted));
    let view = View {
        seen,
        accepted: &accepted,
        identity: &identity,
        pod_hash,
        earlier_hash,
        now,
    };
    Some(Plan {
        status: Some(crate::status::status(&view, now)),
        steps: steps(&view, next_pod.as_ref(), settings, now),
        hurdle: first_hurdle(&view),
        look_again: overdue_in(&view),
    })
}

fn steps(view: &View<'_>, next_pod: Option<&Pod>, settings: &Settings, now: &Time) -> Vec<Step> {
    let seen = view.seen;
    let signing = signing_step(view, now);
    if seen.relay.spec.is_paused() {
        // A relay that nobody touches must not die of it.
        return signing.into_iter().collect();
    }
    let hold = crate::farewell::hold_step(seen);
    if let (Ok(_), IdentityVerdict::Create) = (view.accepted, view.identity) {
        return hold.into_iter().chain([Step::CreateIdentity]).collect();
    }
    if seen.relay.spec.is_stopped() {
        return hold.into_iter().chain(stop_pod(&seen.pod)).collect();
    }
    // A running pod is left alone while something stands in the way of its successor.
    let (Ok(accepted), IdentityVerdict::Bound { identity, .. }, Some(next_pod), true) =
        (view.accepted, view.identity, next_pod, may_start(view))
    else {
        return hold.into_iter().chain(signing).collect();
    };
    let token = accepted.status.and(settings.status_key.as_ref());
    let (apply_token, apply_torrc) = (token_step(seen, token), torrc_step(seen, accepted, token));
    let service = desired::service::service(&seen.relay, accepted);
    let pods_part = custody_of(&seen.relay) == Custody::Operator && matches!(seen.identity, Seen::Absent);
    let steps = [
        hold,
        pods_part.then_some(Step::CreatePodsPart),
        signing,
        apply_token,
        apply_torrc,
        matches!(seen.claim, Seen::Absent)
            .then(|| Step::CreateClaim(Box::new(desired::claim::claim(&seen.relay, identity)))),
        wants_write(&seen.service, &service).then(|| Step::ApplyService(Box::new(service))),
        pod_step(view, accepted, next_pod), // last: a pod must find its keys, torrc and volume
    ];
    steps.into_iter().flatten().collect()
}

/// A token of another key is none that the operator can show.
fn token_step(seen: &Observed, key: Option<&[u8; 32]>) -> Option<Step> {
    let wanted = token_hash(key?, &seen.relay);
    let found = seen
        .token
        .ours()
        .and_then(|secret| annotation(&secret.metadata, names::ANNOTATION_TOKEN_HASH));
    (found != Some(&wanted)).then_some(Step::ApplyToken)
}

/// The token stands there for as long as there is a pod of an earlier operator, which would not start again without it.
fn torrc_step(seen: &Observed, accepted: &Accepted, key: Option<&[u8; 32]>) -> Option<Step> {
    let asks = seen.pod.ours().is_some_and(desired::pod::reads_token_beside_torrc);
    let token = key.filter(|_| asks).map(|key| status_token(key, &seen.relay));
    let left = seen.torrc.ours().and_then(|found| found.data.as_ref()?.get(TOKEN_KEY));
    let to_be_taken_away = token.is_none() && left.is_some();
    let torrc = desired::torrc::torrc(&seen.relay, accepted, token);
    (to_be_taken_away || wants_write(&seen.torrc, &torrc)).then(|| Step::ApplyTorrc(Box::new(torrc)))
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
fn pod_step(view: &View<'_>, accepted: &Accepted, next_pod: &Pod) -> Option<Step> {
    match &view.seen.pod {
        Seen::Absent => Some(Step::CreatePod(Box::new(next_pod.clone()))),
        Seen::Foreign => None,
        Seen::Ours(pod) => match age(view, pod) {
            Age::Going => None,
            Age::Replaceable => stop_pod(&view.seen.pod),
            Age::Current | Age::WaitsForTurn => touch(view, accepted, pod),
        },
    }
}

/// Asks a pod to end, unless that was done.
pub(crate) fn stop_pod(pod: &Seen<Pod>) -> Option<Step> {
    let meta = &pod.ours()?.metadata;
    let asked = meta.deletion_timestamp.is_some();
    let uid = meta.uid.clone()?;
    (!asked).then_some(Step::DeletePod { uid })
}

/// The ConfigMap was written before: what the node now reads is the new text.
fn touch(view: &View<'_>, accepted: &Accepted, pod: &Pod) -> Option<Step> {
    let torrc_hash = desired::pod::torrc_hash(&view.seen.relay, accepted);
    let told = annotation(&pod.metadata, names::ANNOTATION_TORRC_HASH) == Some(&torrc_hash);
    let uid = pod.metadata.uid.clone()?;
    (!told).then_some(Step::TouchPod { uid, torrc_hash })
}
