//! The round of a RelaySet: facts in, plan out, as for a Relay.
//!
//! ```text
//! template x ordinals ──▶ Relays (server-side apply, all at once)
//! Relays whose pod is outdated wait (condition Updated: WaitingForTurn) ──▶ turns, as few as `spec.update` allows
//! ```
//!
//! The turn is an annotation of the Relay with the uid of the pod that may go: it means nothing for the next pod, so it may
//! be given twice, and never has to be taken back.

mod rollout;
mod status;

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};
use operator_api::{Relay, RelaySet, RelaySetStatus, names};
use sha2::{Digest as _, Sha256};

use crate::difference::differs;
use crate::observed::annotation;

/// What was seen of one RelaySet.
#[derive(Debug, Clone)]
pub struct SetObserved {
    /// The set itself.
    pub set: RelaySet,
    /// All Relays of its namespace.
    pub relays: Vec<Relay>,
    /// The budget of its name, if there is one.
    pub budget: Option<PodDisruptionBudget>,
}

/// One write to the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum SetStep {
    /// Server-side apply.
    ApplyRelay(Box<Relay>),
    /// Scaled away: this very Relay. Keys and volume stay.
    DeleteRelay {
        /// Its name.
        name: String,
        /// Its uid, as a precondition.
        uid: String,
    },
    /// Its pod may be replaced.
    GrantTurn {
        /// The Relay's name.
        name: String,
        /// The Relay's uid, as a precondition.
        uid: String,
        /// The uid of the pod that may go.
        pod_uid: String,
    },
    /// Server-side apply.
    ApplyBudget(Box<PodDisruptionBudget>),
}

/// What a round comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct SetPlan {
    /// To be written first, if it differs from what stands there.
    pub status: RelaySetStatus,
    /// To be done in this order.
    pub steps: Vec<SetStep>,
}

/// A Relay of the set, and its number.
struct Member<'a> {
    ordinal: i32,
    relay: &'a Relay,
}

/// What the set's names lead to.
struct View<'a> {
    set: &'a RelaySet,
    /// In the order of their numbers; also those that are scaled away.
    members: Vec<Member<'a>>,
    /// Names that the set needs and that somebody else's Relays have.
    taken: Vec<String>,
}

/// `None` for a set that is being deleted: what is owned goes with it.
#[must_use]
pub fn decide_set(seen: &SetObserved, now: &Time) -> Option<SetPlan> {
    if seen.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let view = View::of(seen);
    let steps = if seen.set.spec.paused == Some(true) {
        Vec::new()
    } else {
        let relays = relay_steps(&view);
        let turns = rollout::turns(&view);
        budget_step(seen).into_iter().chain(relays).chain(turns).collect()
    };
    Some(SetPlan {
        status: status::status(&view, now),
        steps,
    })
}

impl<'a> View<'a> {
    fn of(seen: &'a SetObserved) -> Self {
        let (mut members, mut taken) = (Vec::new(), Vec::new());
        for relay in &seen.relays {
            let name = relay.name_any();
            match ordinal_of(&seen.set.name_any(), &name) {
                Some(ordinal) if is_member(&seen.set, relay) => members.push(Member { ordinal, relay }),
                Some(ordinal) if ordinal < seen.set.spec.replicas => taken.push(name),
                _ => {}
            }
        }
        members.sort_by_key(|member| member.ordinal);
        Self {
            set: &seen.set,
            members,
            taken,
        }
    }

    fn member(&self, ordinal: i32) -> Option<&Member<'a>> {
        let at = self.members.binary_search_by_key(&ordinal, |member| member.ordinal);
        at.ok().and_then(|at| self.members.get(at))
    }

    fn wanted(&self) -> impl Iterator<Item = &Member<'a>> {
        let replicas = self.set.spec.replicas;
        self.members.iter().filter(move |member| member.ordinal < replicas)
    }
}

fn ordinal_of(set: &str, relay: &str) -> Option<i32> {
    let digits = relay.strip_prefix(set)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let ordinal = digits.parse().ok().filter(|_| plain)?;
    (names::set_member(set, ordinal) == relay).then_some(ordinal)
}

/// Bears the set's label, and is of this very set or of none. One of an earlier set of this name is on its way out.
fn is_member(set: &RelaySet, relay: &Relay) -> bool {
    let owners = relay.metadata.owner_references.iter().flatten();
    let mut controllers = owners.into_iter().filter(|owner| owner.controller == Some(true));
    relay.labels().get(names::LABEL_SET) == Some(&set.name_any())
        && controllers.all(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// The Relay that should have this number.
#[must_use]
pub fn member(set: &RelaySet, ordinal: i32) -> Relay {
    let name = names::set_member(&set.name_any(), ordinal);
    let mut spec = set.spec.template.spec.clone();
    spec.nickname = format!("{}{ordinal}", spec.nickname);
    let mut relay = Relay::new(&name, spec);
    let labels = [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY.to_owned()),
        (names::LABEL_SET, set.name_any()),
    ];
    relay.metadata.namespace = set.namespace();
    relay.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
    relay.metadata.owner_references = set.controller_owner_ref(&()).map(|owner| vec![owner]);
    let hash = hex::encode(Sha256::digest(serde_json::to_vec(&relay.spec).unwrap_or_default()));
    relay.metadata.annotations = Some([(names::ANNOTATION_TEMPLATE_HASH.to_owned(), hash)].into());
    relay
}

/// The hash tells of fields that were taken out of the template: they are no difference to what is wanted.
fn is_current(wanted: &Relay, found: &Relay) -> bool {
    let hash = |relay: &Relay| annotation(&relay.metadata, names::ANNOTATION_TEMPLATE_HASH).map(str::to_owned);
    hash(wanted) == hash(found) && !differs(wanted, found)
}

fn relay_steps(view: &View<'_>) -> Vec<SetStep> {
    let mut steps = Vec::new();
    for ordinal in 0..view.set.spec.replicas {
        let wanted = member(view.set, ordinal);
        let found = view.member(ordinal);
        let going = found.is_some_and(|found| found.relay.metadata.deletion_timestamp.is_some());
        let free = !view.taken.contains(&wanted.name_any());
        if free && !going && found.is_none_or(|found| !is_current(&wanted, found.relay)) {
            steps.push(SetStep::ApplyRelay(Box::new(wanted)));
        }
    }
    // The last first, as they came.
    for surplus in view.members.iter().rev() {
        let meta = &surplus.relay.metadata;
        if surplus.ordinal >= view.set.spec.replicas
            && meta.deletion_timestamp.is_none()
            && let Some(uid) = meta.uid.clone()
        {
            let name = surplus.relay.name_any();
            steps.push(SetStep::DeleteRelay { name, uid });
        }
    }
    steps
}

/// Kubernetes takes an absolute number alone of pods that have no controller with a scale of its own.
fn budget(set: &RelaySet) -> PodDisruptionBudget {
    let at_least = (set.spec.replicas - set.spec.update.max_unavailable).max(0);
    let labels = [
        (names::LABEL_MANAGED_BY.to_owned(), names::MANAGED_BY.to_owned()),
        (names::LABEL_SET.to_owned(), set.name_any()),
    ];
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(set.name_any()),
            namespace: set.namespace(),
            labels: Some(labels.clone().into()),
            owner_references: set.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(at_least)),
            selector: Some(LabelSelector {
                match_labels: Some(labels.into()),
                ..Default::default()
            }),
            // A pod that is not ready protects nobody.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Another's budget of that name stays as it is.
fn budget_step(seen: &SetObserved) -> Option<SetStep> {
    let wanted = budget(&seen.set);
    let write = match &seen.budget {
        None => true,
        Some(found) => found.labels().get(names::LABEL_SET) == Some(&seen.set.name_any()) && differs(&wanted, found),
    };
    write.then(|| SetStep::ApplyBudget(Box::new(wanted)))
}
