//! What an owner lays over the pod.

use k8s_openapi::api::core::v1::{Affinity, Container, Pod, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use operator_api::PodOverrides;

use crate::difference::differs;

/// Why `spec.pod.affinity` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAffinity {
    /// Another shape.
    #[error("{0}. Write it as in a pod: kubectl explain pod.spec.affinity")]
    Shape(String),
    /// A field that Kubernetes does not know: it would be dropped in silence.
    #[error("it has a field that a pod's affinity has not; look at kubectl explain pod.spec.affinity --recursive")]
    UnknownField,
}

/// The affinity as Kubernetes' own type.
///
/// # Errors
/// See [`BadAffinity`].
pub fn affinity(overrides: &PodOverrides) -> Result<Option<Affinity>, BadAffinity> {
    let Some(written) = &overrides.affinity else {
        return Ok(None);
    };
    let read: Affinity =
        serde_json::from_value(written.clone()).map_err(|error| BadAffinity::Shape(error.to_string()))?;
    if differs(written, &read) {
        return Err(BadAffinity::UnknownField);
    }
    Ok(Some(read))
}

/// Lays all but the affinity over a pod and the container that runs the relay.
pub fn lay_over(pod: &mut Pod, overrides: &PodOverrides) {
    // The operator's own come last: they win.
    let meta = &mut pod.metadata;
    for (own, theirs) in [
        (&mut meta.labels, &overrides.labels),
        (&mut meta.annotations, &overrides.annotations),
    ] {
        let mut all = theirs.clone();
        all.extend(own.take().unwrap_or_default());
        *own = Some(all);
    }
    let Some(spec) = pod.spec.as_mut() else { return };
    if !overrides.node_selector.is_empty() {
        spec.node_selector = Some(overrides.node_selector.clone());
    }
    if !overrides.tolerations.is_empty() {
        spec.tolerations = Some(overrides.tolerations.iter().map(toleration).collect());
    }
    spec.priority_class_name = overrides.priority_class_name.clone();
    for container in &mut spec.containers {
        resources(container, overrides);
    }
}

fn resources(container: &mut Container, overrides: &PodOverrides) {
    let Some(wanted) = &overrides.resources else { return };
    let quantities = |all: &std::collections::BTreeMap<String, String>| {
        let all: std::collections::BTreeMap<_, _> = all
            .iter()
            .map(|(name, amount)| (name.clone(), Quantity(amount.clone())))
            .collect();
        (!all.is_empty()).then_some(all)
    };
    container.resources = Some(ResourceRequirements {
        requests: quantities(&wanted.requests),
        limits: quantities(&wanted.limits),
        ..Default::default()
    });
}

fn toleration(wanted: &operator_api::Toleration) -> Toleration {
    Toleration {
        key: wanted.key.clone(),
        operator: wanted.operator.clone(),
        value: wanted.value.clone(),
        effect: wanted.effect.clone(),
        toleration_seconds: wanted.toleration_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slip_in_the_affinity_is_not_dropped_in_silence() {
        let with = |affinity| PodOverrides {
            affinity: Some(affinity),
            ..Default::default()
        };
        let term = json!({"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "kubernetes.io/hostname"});
        let field = "requiredDuringSchedulingIgnoredDuringExecution";
        assert!(
            affinity(&with(json!({"podAntiAffinity": {field: [term]}})))
                .unwrap()
                .is_some()
        );
        let slip = affinity(&with(json!({"podAntiAfinity": {field: [term]}})));
        assert_eq!(slip, Err(BadAffinity::UnknownField));
        assert!(matches!(
            affinity(&with(json!({"podAffinity": "near"}))),
            Err(BadAffinity::Shape(_))
        ));
    }
}
