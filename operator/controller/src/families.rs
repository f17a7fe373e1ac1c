//! The loop for RelayFamilies, beside the one for Relays and as thin.

mod apply;
mod gather;
mod pace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Config, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use operator_api::{RelayFamily, names};
use operator_plan::{FamilyStep, decide_family};
use tokio::sync::watch::Receiver;
use tracing::{debug, info, warn};

use pace::Paces;

use crate::cluster::Cluster;
use crate::events::{tell, tell_change};
use crate::reconcile::RoundError;
use crate::wakes::Wakes;
use crate::watch::{scoped, stopped, to_the_end};

type GuardedFamily = DeserializeGuard<RelayFamily>;

/// Watches tell of every change; this is for the one that was missed, and for certificates that grow old.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
const LOOK_AGAIN_SOON: Duration = Duration::from_millis(500);
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);
/// A round waits this long before it looks: when a fleet comes up its members come one by one, and one write does for many.
/// (A debounce would wait for as long as anybody comes.)
const GATHERING: Duration = Duration::from_secs(2);
/// Families worked on at once; most of the time they wait.
const CONCURRENCY: u16 = 16;

/// Runs until asked to stop; rounds under way are finished. `woken` are families whose members came, went or changed.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    woken: Arc<Wakes<GuardedFamily>>,
    namespace: Option<&str>,
    stop: Receiver<bool>,
) {
    let families = Controller::new(
        scoped::<GuardedFamily>(&cluster.client, namespace),
        watcher::Config::default(),
    )
    .with_config(Config::default().concurrency(CONCURRENCY));
    cluster.telemetry.inventory.count_families_of(families.store());
    let paces = Arc::new(Paces::default());
    let store = families.store();
    let rounds = families
        .reconcile_on(woken.stream())
        .watches(
            scoped::<PartialObjectMeta<ConfigMap>>(&cluster.client, namespace),
            ours_of_a_family(),
            |found| family_of(&found),
        )
        .watches(
            scoped::<PartialObjectMeta<Secret>>(&cluster.client, namespace),
            ours_of_a_family(),
            |found| family_of(&found),
        )
        .graceful_shutdown_on(stopped(stop.clone()))
        .run(
            move |family, cluster| reconcile(family, cluster, Arc::clone(&paces)),
            |_, _, _| Action::requeue(AFTER_A_FAILURE),
            Arc::clone(&cluster),
        )
        .for_each(|round| {
            match round {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => warn!("{error}"),
            }
            std::future::ready(())
        });
    to_the_end(rounds, store, stop).await;
}

/// A fleet has far more ConfigMaps and Secrets of its Relays.
fn ours_of_a_family() -> watcher::Config {
    let selector = format!(
        "{}={},{}",
        names::LABEL_MANAGED_BY,
        names::MANAGED_BY,
        names::LABEL_FAMILY
    );
    watcher::Config::default().labels(&selector)
}

/// The family whose name a label bears.
fn family_of<K>(object: &PartialObjectMeta<K>) -> Option<ObjectRef<GuardedFamily>> {
    let labels = object.metadata.labels.as_ref()?;
    let family = labels.get(names::LABEL_FAMILY)?;
    let namespace = labels
        .get(names::LABEL_NAMESPACE)
        .or(object.metadata.namespace.as_ref())?;
    Some(ObjectRef::new(family).within(namespace))
}

async fn reconcile(family: Arc<GuardedFamily>, cluster: Arc<Cluster>, paces: Arc<Paces>) -> Result<Action, RoundError> {
    if let Some(left) = paces.left(&ObjectRef::from_obj(family.as_ref()), Instant::now()) {
        return Ok(Action::requeue(left)); // nobody's place is taken meanwhile
    }
    tokio::time::sleep(GATHERING).await;
    let counted = cluster.telemetry.begin_round("RelayFamily");
    let done = round(&family, &cluster, &paces).await;
    counted.end(done.is_ok());
    done
}

async fn round(family: &GuardedFamily, cluster: &Cluster, paces: &Paces) -> Result<Action, RoundError> {
    let (namespace, name) = (family.namespace().unwrap_or_default(), family.name_any());
    let key = ObjectRef::from_obj(family);
    if let Err(invalid) = &family.0 {
        warn!(
            namespace,
            name,
            error = invalid.error,
            "this RelayFamily cannot be read; nothing is done for it"
        );
        return Ok(Action::await_change());
    }
    let Some(seen) = gather::gather(cluster, &namespace, &name).await? else {
        paces.forget(&key);
        return Ok(Action::await_change());
    };
    let Some(plan) = decide_family(&seen, &Time(Timestamp::now())) else {
        return Ok(Action::await_change());
    };
    let family = &seen.family;
    // What passes while the steps are done is not worth a write; which key is the family's must be told before it is used.
    let told = family.status.as_ref().map(|status| &status.family_ids) == Some(&plan.status.family_ids);
    let passes = told && !plan.steps.is_empty() && plan.hurdle.as_ref().is_none_or(|hurdle| hurdle.passing);
    if !passes && family.status.as_ref() != Some(&plan.status) {
        apply::status(cluster, family, &plan.status).await?;
        let before = family.status.clone().unwrap_or_default().conditions;
        let about = family.object_ref(&());
        tell_change(cluster, &about, &before, &plan.status.conditions, plan.hurdle.as_ref()).await;
    }
    for step in &plan.steps {
        match apply::apply(cluster, family, step).await {
            Ok(()) => {
                info!(namespace, name, step = step_name(step), "done");
                if matches!(step, FamilyStep::ApplyShard(_)) {
                    paces.wrote(&key, Instant::now());
                }
                tell_step(cluster, family, step).await;
            }
            Err(error) if error.is_conflict() => {
                debug!(namespace, name, %error, "the facts were old");
                return Ok(Action::requeue(LOOK_AGAIN_SOON));
            }
            Err(error) => {
                if passes {
                    apply::status(cluster, family, &plan.status).await?; // it does not pass so soon
                }
                return Err(error.into());
            }
        }
    }
    // What was written wakes the next round, which says that all is well; but a key in the operator's namespace wakes nobody
    // where only the family's own is watched.
    let unseen = plan.steps.iter().any(|step| matches!(step, FamilyStep::CreateKey(_)));
    Ok(Action::requeue(if unseen { LOOK_AGAIN_SOON } else { LOOK_AGAIN }))
}

/// A step is told once it was done.
async fn tell_step(cluster: &Cluster, family: &RelayFamily, step: &FamilyStep) {
    let (reason, note) = match step {
        FamilyStep::CreateKey(generation) => {
            let namespace = family.namespace().unwrap_or_default();
            let secret = names::family_key_secret(&namespace, &family.name_any(), *generation);
            (
                "FamilyKeyCreated",
                format!("made the family's key in Secret {secret}; back it up"),
            )
        }
        FamilyStep::ApplyShard(plan) => {
            let note = format!(
                "issued {} certificates; members take them up by themselves",
                plan.issue.len()
            );
            ("CertificatesWritten", note)
        }
        FamilyStep::ApplyWellKnown(_) => (
            "ProofsWritten",
            "wrote the files to serve under /.well-known/tor-relay/".to_owned(),
        ),
        FamilyStep::ApplyShared(_) => (
            "KeysShared",
            "gave the family's keys to members that run C tor".to_owned(),
        ),
    };
    tell(cluster, &family.object_ref(&()), EventType::Normal, reason, note).await;
}

/// Never the step itself: it may hold more than a log should.
fn step_name(step: &FamilyStep) -> &'static str {
    match step {
        FamilyStep::CreateKey(_) => "CreateKey",
        FamilyStep::ApplyShard(_) => "ApplyShard",
        FamilyStep::ApplyWellKnown(_) => "ApplyWellKnown",
        FamilyStep::ApplyShared(_) => "ApplyShared",
    }
}
