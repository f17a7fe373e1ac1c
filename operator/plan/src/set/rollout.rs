//! Whose turn it is: which pods may be replaced now, so that little of the set's weight is away.

use kube::ResourceExt as _;
use operator_api::{DirectoryStatus, Gate, Relay, condition, names};

use super::{Member, SetStep, View};
use crate::observed::annotation;

/// Where a relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Serves its users.
    Available,
    /// Does not, or is about to stop.
    Away,
    /// Should not run, by its own spec.
    Resting,
}

pub(super) fn standing(view: &View<'_>, member: &Member<'_>) -> Standing {
    let relay = member.relay;
    if relay.spec.is_stopped() || relay.spec.is_paused() {
        return Standing::Resting;
    }
    let directory = said(relay);
    let passed = match view.set.spec.update.gate {
        Gate::Listening => true,
        Gate::Published => directory.is_some_and(|directory| directory.published),
        Gate::InConsensus => directory.is_some_and(|directory| directory.listed_since_start),
    };
    let has_turn = waiting_pod(relay).is_some_and(|pod| turn_of(relay) == Some(pod));
    if is_ready(relay) && passed && !has_turn && relay.metadata.deletion_timestamp.is_none() {
        Standing::Available
    } else {
        Standing::Away
    }
}

/// By the pod that there is now: what an earlier one said is history.
fn said(relay: &Relay) -> Option<&DirectoryStatus> {
    let status = relay.status.as_ref()?;
    let directory = status.directory.as_ref()?;
    (Some(&directory.pod_uid) == status.pod_uid.as_ref()).then_some(directory)
}

/// Ready, as of the spec that it has now.
pub(super) fn is_ready(relay: &Relay) -> bool {
    says(relay, condition::READY, "True")
}

/// Its pod is the one that its spec asks for.
pub(super) fn is_updated(relay: &Relay) -> bool {
    says(relay, condition::UPDATED, "True")
}

fn says(relay: &Relay, type_: &str, answer: &str) -> bool {
    let Some(status) = &relay.status else { return false };
    let found = status.conditions.iter().find(|found| found.type_ == type_);
    found.is_some_and(|found| found.status == answer) && status.observed_generation == relay.metadata.generation
}

/// The pod of a relay that waits to be replaced.
fn waiting_pod(relay: &Relay) -> Option<&str> {
    let status = relay.status.as_ref()?;
    let updated = status
        .conditions
        .iter()
        .find(|found| found.type_ == condition::UPDATED)?;
    (updated.reason == "WaitingForTurn").then_some(status.pod_uid.as_deref())?
}

fn turn_of(relay: &Relay) -> Option<&str> {
    annotation(&relay.metadata, names::ANNOTATION_TURN)
}

/// None if the network has given it none.
pub(super) fn weight(relay: &Relay) -> Option<i64> {
    let directory = relay.status.as_ref()?.directory.as_ref()?;
    directory.consensus_weight.filter(|weight| *weight > 0)
}

/// What may be away: a number of relays, and a part of the weight.
struct Allowance {
    /// By weight if all have one; else each counts the same.
    weigh: fn(&Relay) -> i64,
    total: i64,
    away: i64,
    away_count: i32,
}

impl Allowance {
    fn of(view: &View<'_>) -> Self {
        let weigh: fn(&Relay) -> i64 = if view.wanted().all(|member| weight(member.relay).is_some()) {
            |relay| weight(relay).unwrap_or_default()
        } else {
            |_| 1
        };
        let sum = |wanted: &dyn Fn(&Member<'_>) -> bool| -> (i64, i32) {
            let chosen = view.wanted().filter(|member| wanted(member));
            chosen.fold((0, 0), |(sum, count), member| {
                (sum.saturating_add(weigh(member.relay)), count + 1)
            })
        };
        let (total, _) = sum(&|_| true);
        let (away, away_count) = sum(&|member| standing(view, member) == Standing::Away);
        Self {
            weigh,
            total,
            away,
            away_count,
        }
    }

    /// One relay may always be away, or nothing would ever be replaced in a small set.
    fn takes(&mut self, view: &View<'_>, relay: &Relay) -> bool {
        let update = &view.set.spec.update;
        let after = self.away.saturating_add((self.weigh)(relay));
        let light = after.saturating_mul(100) <= self.total.saturating_mul(i64::from(update.max_weight_down));
        let takes = self.away_count == 0 || (self.away_count < update.max_unavailable && light);
        if takes {
            self.away = after;
            self.away_count += 1;
        }
        takes
    }
}

/// A relay that does not listen costs nothing, so that a bad pod can be replaced by a good one; one that listens and has not
/// reached the gate yet keeps its pod. Of the others, the last first.
pub(super) fn turns(view: &View<'_>) -> Vec<SetStep> {
    let mut allowance = Allowance::of(view);
    let mut turns = Vec::new();
    for member in view.wanted().collect::<Vec<_>>().into_iter().rev() {
        let relay = member.relay;
        let (Some(pod_uid), Some(uid)) = (waiting_pod(relay), relay.metadata.uid.clone()) else {
            continue;
        };
        if turn_of(relay) == Some(pod_uid) {
            continue;
        }
        let grant = match standing(view, member) {
            Standing::Away => !is_ready(relay),
            Standing::Available => allowance.takes(view, relay),
            Standing::Resting => false,
        };
        if grant {
            turns.push(SetStep::GrantTurn {
                name: relay.name_any(),
                uid,
                pod_uid: pod_uid.to_owned(),
            });
        }
    }
    turns
}
