//! One round for one Relay.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use operator_api::Relay;
use operator_plan::{Observed, Plan, Step, decide};
use tracing::{debug, info, warn};

use crate::apply::{After, ApplyError, apply, apply_status, plain};
use crate::cluster::Cluster;
use crate::echo::key;
use crate::events::{tell_ready, tell_refused, tell_step};
use crate::gather::{gather, look_again, versions};

/// Watches tell of every change; this is for the one that was missed, and for keys that grow old. Ten thousand Relays are
/// then six rounds a second.
const LOOK_AGAIN: Duration = Duration::from_secs(30 * 60);
/// How often one round may look again at what it has just written: keys, then the pod, and one to see that all is done.
const PASSES_MAX: usize = 4;
/// After a conflict: the facts were old.
const LOOK_AGAIN_SOON: Duration = Duration::from_millis(200);

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// Nothing was changed.
    #[error("cannot look at the cluster: {}", plain(.0))]
    Gather(#[from] kube::Error),
    /// What was done before stays done.
    #[error("cannot {0}")]
    Apply(#[from] ApplyError),
}

/// Gather, decide, write the status, do the steps; and once more, until nothing is left to do.
pub(crate) async fn reconcile(
    relay: Arc<DeserializeGuard<Relay>>,
    cluster: Arc<Cluster>,
) -> Result<Action, RoundError> {
    let key = key(&relay);
    if let Some(left) = cluster.echoes.begin(&key) {
        return Ok(Action::requeue(left));
    }
    let counted = cluster.telemetry.begin_round("Relay");
    let done = round(&relay, &cluster).await;
    counted.end(done.is_ok());
    done
}

async fn round(relay: &DeserializeGuard<Relay>, cluster: &Cluster) -> Result<Action, RoundError> {
    let (namespace, name) = (relay.namespace().unwrap_or_default(), relay.name_any());
    if let Err(invalid) = &relay.0 {
        // Stored by another version; not to be mended from here, and no reason to stop for the others.
        warn!(
            namespace,
            name,
            error = invalid.error,
            "this Relay cannot be read; nothing is done for it"
        );
        return Ok(Action::await_change());
    }
    let Some(mut seen) = gather(cluster, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    for _ in 0..PASSES_MAX {
        let Some(plan) = decide(&seen, &cluster.settings, &Time(Timestamp::now())) else {
            return Ok(Action::await_change());
        };
        let Some(unknown) = pass(cluster, &mut seen, &plan).await? else {
            return Ok(Action::requeue(LOOK_AGAIN_SOON)); // the facts were old
        };
        if plan.steps.is_empty() {
            let wait = plan.look_again.map_or(LOOK_AGAIN, |again| again.min(LOOK_AGAIN));
            cluster.echoes.settle(&key(relay), versions(&seen), wait);
            return Ok(Action::requeue(wait));
        }
        if !look_again(cluster, &mut seen, &unknown).await? {
            return Ok(Action::await_change());
        }
    }
    Ok(Action::requeue(LOOK_AGAIN_SOON))
}

/// The steps after which must be looked again; `None` if the facts were old.
async fn pass<'plan>(
    cluster: &Cluster,
    seen: &mut Observed,
    plan: &'plan Plan,
) -> Result<Option<Vec<&'plan Step>>, RoundError> {
    let (namespace, name) = (seen.relay.namespace().unwrap_or_default(), seen.relay.name_any());
    // Of a Relay that has just come there is nothing to record before its keys are made.
    let worth_it = seen.relay.status.is_some() || !plan.steps.contains(&Step::CreateIdentity);
    if let Some(status) = plan
        .status
        .as_ref()
        .filter(|status| worth_it && seen.relay.status.as_ref() != Some(*status))
    {
        let written = apply_status(cluster, &seen.relay, status).await?;
        tell_ready(cluster, &seen.relay, status, plan.hurdle.as_ref()).await;
        seen.relay = written;
    }
    let mut unknown = Vec::new();
    for step in &plan.steps {
        match apply(cluster, seen, step).await {
            Ok(after) => {
                info!(namespace, name, step = step_name(step), "done");
                unknown.extend((after == After::Unknown).then_some(step));
            }
            Err(error) if error.is_conflict() => {
                debug!(namespace, name, %error, "the facts were old");
                return Ok(None);
            }
            Err(error) => {
                tell_refused(cluster, &seen.relay, &error).await;
                return Err(error.into());
            }
        }
        tell_step(cluster, &seen.relay, step).await;
    }
    Ok(Some(unknown))
}

/// Never the step itself: it may hold more than a log should.
fn step_name(step: &Step) -> &'static str {
    match step {
        Step::CreateIdentity => "CreateIdentity",
        Step::CreatePodsPart => "CreatePodsPart",
        Step::IssueSigning(_) => "IssueSigning",
        Step::ApplyToken => "ApplyToken",
        Step::ApplyTorrc(_) => "ApplyTorrc",
        Step::CreateClaim(_) => "CreateClaim",
        Step::ApplyService(_) => "ApplyService",
        Step::CreatePod(_) => "CreatePod",
        Step::TouchPod { .. } => "TouchPod",
        Step::DeletePod { .. } => "DeletePod",
        Step::HoldRelay(_) => "HoldRelay",
        Step::DeleteClaim { .. } => "DeleteClaim",
        Step::DeleteIdentity { .. } => "DeleteIdentity",
    }
}
