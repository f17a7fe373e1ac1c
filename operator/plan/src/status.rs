//! From what was seen to what the Relay says of itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use operator_api::{Custody, RelayStatus, condition};

use crate::desired::signing;
use crate::hurdles::{Hurdle, View, config_refused, first_hurdle, identity_not_bound};
use crate::identity::{IdentityVerdict, custody_of};

/// Keys once recorded stay recorded, whatever happens to the Secret.
pub(crate) fn status(view: &View<'_>, now: &Time) -> RelayStatus {
    let before = view.seen.relay.status.clone().unwrap_or_default();
    let answers = [
        (
            condition::READY,
            first_hurdle(view).map_or_else(|| Ok(listening(view)), Err),
        ),
        (
            condition::IDENTITY_BOUND,
            identity_not_bound(view).map_or_else(|| Ok(bound(view)), Err),
        ),
        (condition::SIGNING_KEY_FRESH, signing_key(view, now)),
        (
            condition::CONFIG_ACCEPTED,
            config_refused(view).map_or_else(|| Ok(("Accepted", "a torrc can be made of the spec".to_owned())), Err),
        ),
    ];
    let generation = view.seen.relay.metadata.generation;
    RelayStatus {
        observed_generation: generation,
        conditions: answers
            .map(|(type_, answer)| judged(&before.conditions, type_, answer, generation, now))
            .into(),
        identity: before.identity.clone().or_else(|| found_identity(view)),
        signing_key_expires: signing_ends(view).map(Time),
        pod_name: view.seen.pod.ours().map(|pod| pod.name_any()),
        address: address(view),
    }
}

fn signing_ends(view: &View<'_>) -> Option<Timestamp> {
    let recorded = view
        .seen
        .relay
        .status
        .as_ref()
        .and_then(|status| status.identity.clone());
    let identity = found_identity(view).or(recorded)?;
    signing::expires(view.seen, &identity.ed25519_id)
}

/// The messages tell no date, so that a renewal does not change them; the status has it in a field of its own.
fn signing_key(view: &View<'_>, now: &Time) -> Result<(&'static str, String), Hurdle> {
    if custody_of(&view.seen.relay) == Custody::InPod {
        return Ok((
            "InPod",
            "the relay has its master key and renews its signing key itself".to_owned(),
        ));
    }
    if let Some(hurdle) = identity_not_bound(view) {
        return Err(hurdle);
    }
    let hurdle = |reason, passing, message: &str| {
        let message = message.to_owned();
        Err(Hurdle {
            reason,
            message,
            passing,
        })
    };
    match signing_ends(view) {
        None => hurdle("NotIssued", true, "the pod has not been given a signing key yet"),
        Some(ends) if ends <= now.0 => hurdle(
            "Expired",
            false,
            "the signing key has ended and could not be renewed: the relay stops. See the operator's log and whether it may \
             read the Secret with the identity",
        ),
        Some(ends) if signing::is_overdue(&view.seen.relay, ends, now.0) => hurdle(
            "Expiring",
            false,
            "the signing key should have been renewed by now; when it ends (status.signingKeyExpires) the relay stops. See \
             the operator's log and whether it may read the Secret with the identity",
        ),
        Some(_) => Ok((
            "Fresh",
            "the operator renews the signing key when half of its time is left".to_owned(),
        )),
    }
}

fn found_identity(view: &View<'_>) -> Option<operator_api::IdentityStatus> {
    match view.identity {
        IdentityVerdict::Bound { identity, .. } => Some(identity.clone()),
        _ => None,
    }
}

fn address(view: &View<'_>) -> Option<String> {
    let accepted = view.accepted.as_ref().ok()?;
    let of_pod = || view.seen.pod.ours()?.status.as_ref()?.pod_ip.clone();
    accepted.address.map(|address| address.to_string()).or_else(of_pod)
}

fn listening(view: &View<'_>) -> (&'static str, String) {
    let port = view.accepted.as_ref().map_or(0, |accepted| accepted.or_port);
    (
        "Listening",
        format!("the pod runs what the spec asks for and takes connections on port {port}"),
    )
}

fn bound(view: &View<'_>) -> (&'static str, String) {
    match view.identity {
        IdentityVerdict::Bound {
            identity,
            deletion_asked: true,
        } => (
            "DeletionAsked",
            format!(
                "somebody asked to delete Secret {}; the finalizer relayfleet.io/identity holds it and the relay runs on. \
                 Back it up now. To let the identity go for good, remove the finalizer",
                identity.secret_name
            ),
        ),
        _ => ("Bound", "the relay's keys are in their Secret".to_owned()),
    }
}

/// The time stays what it was as long as the answer does.
pub(crate) fn judged(
    before: &[Condition],
    type_: &str,
    answer: Result<(&'static str, String), Hurdle>,
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let (status, reason, message) = match answer {
        Ok((reason, message)) => ("True", reason, message),
        Err(hurdle) => ("False", hurdle.reason, hurdle.message),
    };
    let same = before.iter().find(|old| old.type_ == type_ && old.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation,
        last_transition_time: same.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
    }
}
