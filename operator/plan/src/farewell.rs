//! The end of a Relay whose owner confirmed that its identity may be destroyed.
//!
//! ```text
//! hold the Relay by a finalizer ... deletion asked -> pod ends -> volume claim -> identity Secret -> let the Relay go
//! ```
//!
//! Each step is seen in the cluster before the next is done, so it can be broken off anywhere. Every other Relay goes at
//! once, and what is kept is not touched.

use std::time::Duration;

use operator_api::{Custody, DeletionPolicy, names};

use crate::decide::{Plan, Step, stop_pod};
use crate::identity::custody_of;
use crate::observed::{Observed, Seen};

/// Between two steps.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Whether the owner has confirmed the destruction of this very identity.
fn is_confirmed(seen: &Observed) -> bool {
    let spec = &seen.relay.spec;
    let identity = seen.relay.status.as_ref().and_then(|status| status.identity.as_ref());
    let wanted = spec.deletion_policy == Some(DeletionPolicy::Delete);
    wanted && identity.is_some_and(|own| spec.deletion_confirmation.as_ref() == Some(&own.rsa_fingerprint))
}

fn is_held(seen: &Observed) -> bool {
    let finalizers = seen.relay.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|held| held == names::FINALIZER_RELAY)
}

/// Puts our finalizer on, or takes it off after a change of mind.
pub(crate) fn hold_step(seen: &Observed) -> Option<Step> {
    let wanted = is_confirmed(seen);
    (wanted != is_held(seen)).then_some(Step::HoldRelay(wanted))
}

/// `None` for a Relay that we do not hold.
pub(crate) fn farewell(seen: &Observed) -> Option<Plan> {
    if !is_held(seen) {
        return None;
    }
    let step = if is_confirmed(seen) {
        next_step(seen)
    } else {
        Some(Step::HoldRelay(false))
    };
    Some(Plan {
        status: None,
        steps: step.into_iter().collect(),
        hurdle: None,
        // The keeper's namespace is not watched.
        look_again: Some(LOOK_AGAIN),
    })
}

fn next_step(seen: &Observed) -> Option<Step> {
    if seen.pod.ours().is_some() {
        return stop_pod(&seen.pod); // none if it is asked already: wait until it is gone
    }
    let own = &seen.relay.status.as_ref()?.identity.as_ref()?.rsa_fingerprint;
    let of_this_identity =
        |annotations: Option<&str>| annotations.is_some_and(|fingerprint| fingerprint == own.as_str());
    if let Seen::Ours(claim) = &seen.claim
        && of_this_identity(crate::observed::annotation(&claim.metadata, names::ANNOTATION_RSA))
    {
        let uid = claim.metadata.uid.clone()?;
        let asked = claim.metadata.deletion_timestamp.is_some();
        return (!asked).then_some(Step::DeleteClaim { uid });
    }
    // The pod's part of an identity that the operator keeps goes with the Relay by itself.
    let keeper = match custody_of(&seen.relay) {
        Custody::Operator => &seen.custody,
        Custody::InPod => &seen.identity,
    };
    if let Seen::Ours(secret) = keeper
        && of_this_identity(crate::observed::annotation(&secret.metadata, names::ANNOTATION_RSA))
    {
        return Some(Step::DeleteIdentity {
            namespace: secret.metadata.namespace.clone()?,
            name: secret.metadata.name.clone()?,
            uid: secret.metadata.uid.clone()?,
        });
    }
    Some(Step::HoldRelay(false))
}
