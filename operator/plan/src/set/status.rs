//! What a RelaySet says of itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use operator_api::{RelaySetStatus, condition, names};

use super::rollout::{Standing, is_ready, is_updated, standing, weight};
use super::{Member, View, is_current, member};
use crate::status::{Answer, judged};

/// More names than these make a message longer, not clearer.
const NAMES_MAX: usize = 5;

pub(super) fn status(view: &View<'_>, now: &Time) -> RelaySetStatus {
    let before = view.set.status.clone().unwrap_or_default();
    let count = |wanted: &dyn Fn(&Member<'_>) -> bool| -> i32 {
        i32::try_from(view.wanted().filter(|member| wanted(member)).count()).unwrap_or(i32::MAX)
    };
    let in_consensus = |found: &Member<'_>| {
        let directory = found.relay.status.as_ref().and_then(|status| status.directory.as_ref());
        directory.is_some_and(|directory| directory.in_consensus)
    };
    let weights: Vec<i64> = view.wanted().filter_map(|found| weight(found.relay)).collect();
    let generation = view.set.metadata.generation;
    let answers = [
        (condition::READY, ready(view)),
        (condition::PROGRESSING, progressing(view)),
    ];
    RelaySetStatus {
        observed_generation: generation,
        replicas: i32::try_from(view.members.len()).unwrap_or(i32::MAX),
        ready_replicas: count(&|found| is_ready(found.relay)),
        updated_replicas: count(&|found| is_new(view, found)),
        available_replicas: count(&|found| standing(view, found) == Standing::Available),
        in_consensus_replicas: count(&in_consensus),
        consensus_weight: (!weights.is_empty()).then(|| weights.iter().sum()),
        selector: Some(format!("{}={}", names::LABEL_SET, view.set.name_any())),
        conditions: answers
            .map(|(type_, answer)| judged(&before.conditions, type_, answer, generation, now))
            .into(),
    }
}

fn is_new(view: &View<'_>, found: &Member<'_>) -> bool {
    is_current(&member(view.set, found.ordinal), found.relay) && is_updated(found.relay)
}

fn missing(view: &View<'_>) -> Vec<String> {
    let absent = (0..view.set.spec.replicas).filter(|ordinal| view.member(*ordinal).is_none());
    absent
        .map(|ordinal| names::set_member(&view.set.name_any(), ordinal))
        .collect()
}

fn ready(view: &View<'_>) -> Answer {
    if !view.taken.is_empty() {
        let message = format!(
            "{}: there are Relays of these names that are not of this set. Delete them, or give the set another name",
            some(&view.taken)
        );
        return Answer::of("False", "NameTaken", message);
    }
    let mut not_ready = missing(view);
    let stand = view.wanted().filter(|found| !is_ready(found.relay));
    not_ready.extend(stand.map(|found| format!("{} ({})", found.relay.name_any(), why_not_ready(found))));
    if not_ready.is_empty() {
        return Answer::yes("AllReady", "all relays of the set are ready");
    }
    Answer::of("False", "RelaysNotReady", format!("not ready: {}", some(&not_ready)))
}

fn why_not_ready(found: &Member<'_>) -> String {
    let status = found.relay.status.as_ref();
    let ready = status.and_then(|status| status.conditions.iter().find(|one| one.type_ == condition::READY));
    ready.map_or_else(|| "new".to_owned(), |ready| ready.reason.clone())
}

fn progressing(view: &View<'_>) -> Answer {
    if view.set.spec.paused == Some(true) {
        return Answer::of("False", "Paused", "nothing is done while spec.paused is true");
    }
    let surplus = view.members.iter().any(|found| found.ordinal >= view.set.spec.replicas);
    if surplus || !missing(view).is_empty() {
        return Answer::yes("Scaling", "relays are being made or taken away");
    }
    let old: Vec<String> = view
        .wanted()
        .filter(|found| !is_new(view, found))
        .map(|found| found.relay.name_any())
        .collect();
    if old.is_empty() {
        return Answer::of("False", "Complete", "all relays are as the template asks");
    }
    let away = view.wanted().filter(|found| standing(view, found) == Standing::Away);
    let away: Vec<String> = away.map(|found| found.relay.name_any()).collect();
    let gate = view.set.spec.update.gate;
    let waits = if away.is_empty() {
        "the next one's turn comes".to_owned()
    } else {
        format!("the next one's turn comes when {} is {gate:?}", some(&away))
    };
    Answer::yes(
        "RollingOut",
        format!("{} relays are not up to date yet ({}); {waits}", old.len(), some(&old)),
    )
}

fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{tail}", shown.join(", "))
}
