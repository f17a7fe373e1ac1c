//! One round for one Relay.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use operator_api::Relay;
use operator_plan::decide;
use tracing::{debug, info, warn};

use crate::apply::{ApplyError, apply, apply_status, plain};
use crate::cluster::Cluster;
use crate::events::{tell_ready, tell_refused, tell_step};
use crate::gather::gather;

/// Watches tell of every change; this is for the one that was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
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

/// Gather, decide, write the status, do the steps.
pub(crate) async fn reconcile(
    relay: Arc<DeserializeGuard<Relay>>,
    cluster: Arc<Cluster>,
) -> Result<Action, RoundError> {
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
    let Some(seen) = gather(cluster, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    let Some(plan) = decide(&seen, &cluster.settings, &Time(Timestamp::now())) else {
        return Ok(Action::await_change());
    };
    let relay = &seen.relay;
    if let Some(status) = plan
        .status
        .as_ref()
        .filter(|status| relay.status.as_ref() != Some(*status))
    {
        apply_status(cluster, relay, status).await?;
        tell_ready(cluster, relay, status, plan.hurdle.as_ref()).await;
    }
    for step in &plan.steps {
        match apply(cluster, relay, step).await {
            Ok(()) => info!(namespace, name, step = step_name(step), "done"),
            Err(error) if error.is_conflict() => {
                debug!(namespace, name, %error, "the facts were old");
                return Ok(Action::requeue(LOOK_AGAIN_SOON));
            }
            Err(error) => {
                tell_refused(cluster, relay, &error).await;
                return Err(error.into());
            }
        }
        tell_step(cluster, relay, step).await;
    }
    // What is kept in the operator's namespace wakes nobody where only the Relays' own is watched.
    let unseen = plan
        .steps
        .iter()
        .any(|step| matches!(step, operator_plan::Step::CreateIdentity));
    let later = if unseen { LOOK_AGAIN_SOON } else { LOOK_AGAIN };
    Ok(Action::requeue(plan.look_again.map_or(later, |again| again.min(later))))
}

/// Never the step itself: it may hold more than a log should.
fn step_name(step: &operator_plan::Step) -> &'static str {
    use operator_plan::Step;
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
