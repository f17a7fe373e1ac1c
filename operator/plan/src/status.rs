//! From what was seen to what the Relay says of itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use operator_api::{Custody, DirectoryStatus, Exposure, RelayStatus, condition};

use crate::desired::signing;
use crate::hurdles::pod::{outdated, unfenced};
use crate::hurdles::{Hurdle, View, config_refused, first_hurdle, identity_not_bound};
use crate::identity::{IdentityVerdict, custody_of};

/// What a condition says.
pub(crate) struct Answer {
    status: &'static str,
    reason: String,
    message: String,
}

/// A yes with its reason and message, or what stands in its way.
impl From<Result<(&'static str, String), Hurdle>> for Answer {
    fn from(found: Result<(&'static str, String), Hurdle>) -> Self {
        found.map_or_else(Self::no, |(reason, message)| Self::yes(reason, message))
    }
}

impl Answer {
    pub(crate) fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self::of("True", reason, message)
    }

    pub(crate) fn no(hurdle: Hurdle) -> Self {
        Self::of("False", hurdle.reason, hurdle.message)
    }

    pub(crate) fn unknown(hurdle: Hurdle) -> Self {
        Self::of("Unknown", hurdle.reason, hurdle.message)
    }

    pub(crate) fn of(status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Keys once recorded stay recorded, whatever happens to the Secret.
pub(crate) fn status(view: &View<'_>, now: &Time) -> RelayStatus {
    let before = view.seen.relay.status.clone().unwrap_or_default();
    let answers = [
        (
            condition::READY,
            first_hurdle(view).map_or_else(|| listening(view), Answer::no),
        ),
        (
            condition::IDENTITY_BOUND,
            identity_not_bound(view).map_or_else(|| bound(view), Answer::no),
        ),
        (condition::SIGNING_KEY_FRESH, signing_key(view, now)),
        (
            condition::CONFIG_ACCEPTED,
            config_refused(view).map_or_else(
                || Answer::yes("Accepted", "a torrc can be made of the spec"),
                Answer::no,
            ),
        ),
        (condition::UPDATED, updated(view)),
        (condition::SOURCE_KEPT, source_kept(view)),
        (
            condition::FENCED,
            unfenced(view).map_or_else(
                || Answer::yes("AtMostOne", "no other process of this identity can be running"),
                Answer::unknown,
            ),
        ),
    ];
    let generation = view.seen.relay.metadata.generation;
    let of_network = network(view, &before);
    RelayStatus {
        observed_generation: generation,
        conditions: answers
            .into_iter()
            .chain(of_network)
            .map(|(type_, answer)| judged(&before.conditions, type_, answer, generation, now))
            .collect(),
        identity: before.identity.clone().or_else(|| found_identity(view)),
        signing_key_expires: signing_ends(view).map(Time),
        pod_name: view.seen.pod.ours().map(|pod| pod.name_any()),
        pod_uid: view.seen.pod.ours().and_then(|pod| pod.metadata.uid.clone()),
        pod_address: view.seen.pod.ours().and_then(|pod| pod.status.as_ref()?.pod_ip.clone()),
        status_port: view.accepted.as_ref().ok().and_then(|accepted| accepted.status),
        directory: before.directory.clone(),
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
fn signing_key(view: &View<'_>, now: &Time) -> Answer {
    if custody_of(&view.seen.relay) == Custody::InPod {
        return Answer::yes(
            "InPod",
            "the relay has its master key and renews its signing key itself",
        );
    }
    if let Some(hurdle) = identity_not_bound(view) {
        return Answer::no(hurdle);
    }
    match signing_ends(view) {
        None => Answer::of("False", "NotIssued", "the pod has not been given a signing key yet"),
        Some(ends) if ends <= now.0 => Answer::of(
            "False",
            "Expired",
            "the signing key has ended and could not be renewed: the relay stops. See the operator's log and whether it may \
             read the Secret with the identity",
        ),
        Some(ends) if signing::is_overdue(&view.seen.relay, ends, now.0) => Answer::of(
            "False",
            "Expiring",
            "the signing key should have been renewed by now; when it ends (status.signingKeyExpires) the relay stops. See \
             the operator's log and whether it may read the Secret with the identity",
        ),
        Some(_) => Answer::yes(
            "Fresh",
            "the operator renews the signing key when half of its time is left",
        ),
    }
}

/// Defences against floods count by address: behind an exposure that puts its own on every connection, all clients are one.
fn source_kept(view: &View<'_>) -> Answer {
    let accepted = match view.accepted {
        Ok(accepted) => accepted,
        Err(_) => {
            return Answer::of(
                "Unknown",
                "NotAccepted",
                "the spec cannot be used; ConfigAccepted says why",
            );
        }
    };
    let service = view.seen.service.ours().and_then(|service| service.spec.as_ref());
    let masquerades = service.is_some_and(|spec| {
        let outside = matches!(spec.type_.as_deref(), Some("LoadBalancer" | "NodePort"));
        outside && spec.external_traffic_policy.as_deref() != Some("Local")
    });
    match (&accepted.place, accepted.address) {
        (Some(_), _) if masquerades => Answer::of(
            "False",
            "Masquerades",
            "the Service's externalTrafficPolicy is not Local: nodes put their own address on connections, and the relay takes \
             all clients for one. The operator puts it right; if that lasts, see who changes it",
        ),
        (Some(place), _) if matches!(place.exposure, Exposure::LoadBalancer | Exposure::NodePort) => Answer::yes(
            "Local",
            "the Service keeps the client's address (externalTrafficPolicy: Local), unless the load balancer itself is a proxy",
        ),
        (Some(_), _) => Answer::yes("Host", "connections come to the node's own port"),
        (None, None) => Answer::yes("PodAddress", "connections come to the pod's own address"),
        (None, Some(_)) => Answer::of(
            "Unknown",
            "NotTheOperators",
            "spec.address is Static: how traffic gets from there to the pod is not the operator's. See to it that the client's \
             address is kept (a Service needs externalTrafficPolicy: Local), or use an AddressPool",
        ),
    }
}

/// What the relay itself told of the network; nothing of one that cannot be asked.
fn network(view: &View<'_>, before: &RelayStatus) -> Vec<(&'static str, Answer)> {
    if !view.accepted.as_ref().is_ok_and(|accepted| accepted.status.is_some()) {
        return Vec::new();
    }
    let pod = view.seen.pod.ours().and_then(|pod| pod.metadata.uid.as_deref());
    let told = before
        .directory
        .as_ref()
        .filter(|told| Some(told.pod_uid.as_str()) == pod);
    let answered = |answer: fn(&DirectoryStatus) -> Answer| {
        told.map_or_else(
            || {
                Answer::of(
                    "Unknown",
                    "NotAsked",
                    "the relay has not told yet what it knows of the network",
                )
            },
            answer,
        )
    };
    vec![
        (condition::IN_CONSENSUS, answered(listed)),
        (condition::IDENTITY_CONFLICT, answered(conflict)),
        (condition::OVERLOADED, answered(overloaded)),
    ]
}

fn listed(directory: &DirectoryStatus) -> Answer {
    if directory.in_consensus {
        Answer::yes("Listed", "the consensus lists the relay as running")
    } else if directory.published {
        Answer::of(
            "False",
            "NotListed",
            "the authorities have the relay's descriptor, but the consensus does not list it as running. A new relay waits for \
             the next consensus; if it stays so, see whether the ORPort can be reached from outside at the published address",
        )
    } else {
        Answer::of(
            "False",
            "NotPublished",
            "no authority has taken the relay's descriptor since it started. The relay's log says why: kubectl logs",
        )
    }
}

fn conflict(directory: &DirectoryStatus) -> Answer {
    let Some(elsewhere) = &directory.listed_elsewhere else {
        return Answer::of(
            "False",
            "OneAddress",
            "the consensus lists the relay nowhere but where it is",
        );
    };
    Answer::of(
        "True",
        "ListedElsewhere",
        format!(
            "the consensus lists this identity at {elsewhere}, where this relay is not: another process publishes with its keys. \
             Find and stop it, an old installation perhaps, or a restored backup. If nobody of yours runs it, the keys are \
             stolen: let this identity go, make a relay of another name, and tell bad-relays@lists.torproject.org"
        ),
    )
}

fn overloaded(directory: &DirectoryStatus) -> Answer {
    if !directory.overloaded {
        return Answer::of(
            "False",
            "NotOverloaded",
            "the relay has not been overloaded in the last three days",
        );
    }
    Answer::of(
        "True",
        "TurnsWorkAway",
        "in the last three days the relay ran out of memory or ports, or turned circuits away; the network gives it less for it. \
         Give it more processor or memory (spec.pod.resources), or lower spec.bandwidth",
    )
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

fn listening(view: &View<'_>) -> Answer {
    let port = view.accepted.as_ref().map_or(0, |accepted| accepted.or_port);
    Answer::yes("Listening", format!("the pod takes connections on port {port}"))
}

fn updated(view: &View<'_>) -> Answer {
    if let Some(refused) = config_refused(view) {
        return Answer::no(refused);
    }
    if let Some(outdated) = outdated(view) {
        return Answer::no(outdated);
    }
    match view.seen.pod.ours() {
        Some(_) => Answer::yes("UpToDate", "the pod is the one that the spec asks for"),
        None if view.seen.relay.spec.is_stopped() => Answer::yes("Stopped", "the spec asks for no pod"),
        None => Answer::of("False", "NoPod", "there is no pod"),
    }
}

fn bound(view: &View<'_>) -> Answer {
    match view.identity {
        IdentityVerdict::Bound {
            identity,
            deletion_asked: true,
        } => Answer::yes(
            "DeletionAsked",
            format!(
                "somebody asked to delete Secret {}; the finalizer relayfleet.io/identity holds it and the relay runs on. \
                 Back it up now. To let the identity go for good, remove the finalizer",
                identity.secret_name
            ),
        ),
        _ => Answer::yes("Bound", "the relay's keys are in their Secret"),
    }
}

/// The time stays what it was as long as the answer does.
pub(crate) fn judged(
    before: &[Condition],
    type_: &str,
    answer: impl Into<Answer>,
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let answer = answer.into();
    let same = before
        .iter()
        .find(|old| old.type_ == type_ && old.status == answer.status);
    Condition {
        type_: type_.to_owned(),
        status: answer.status.to_owned(),
        reason: answer.reason,
        message: answer.message,
        observed_generation,
        last_transition_time: same.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
    }
}
