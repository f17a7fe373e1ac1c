//! Hurdles that the pod's containers tell of.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::Hurdle;
use crate::desired::pod::{KEYS_CONTAINER, RELAY_CONTAINER};

/// Longer texts than this (a panic's backtrace, say) are for the log, not for the status.
const REPORT_CHARS_MAX: usize = 400;

/// The init container found other keys in the volume, or could not write there.
pub(crate) fn failed_keys(pod: &Pod) -> Option<Hurdle> {
    let keys = status(pod, KEYS_CONTAINER)?;
    let report = last_words(keys)?;
    Some(Hurdle::standing(
        "KeysNotInPlace",
        format!(
            "the keys could not be put into the volume: {report}. If they are the keys of an earlier relay whose data may go, delete the volume claim"
        ),
    ))
}

pub(crate) fn held_container(pod: &Pod) -> Option<Hurdle> {
    [KEYS_CONTAINER, RELAY_CONTAINER]
        .iter()
        .find_map(|name| held(status(pod, name)?))
}

fn held(container: &ContainerStatus) -> Option<Hurdle> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let (reason, said) = (
        waiting.reason.as_deref()?,
        waiting.message.as_deref().unwrap_or_default(),
    );
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => Some(Hurdle::standing(
            "ImageUnavailable",
            format!(
                "the node cannot get image {}. Correct spec.image or the operator's image, or bring the image to the node",
                container.image
            ),
        )),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(Hurdle::standing(
            "ContainerRefused",
            format!(
                "the node cannot start container {}: {}",
                container.name,
                shortened(said)
            ),
        )),
        "CrashLoopBackOff" => Some(Hurdle::standing(
            "Crashing",
            format!(
                "the {} container ends again and again: {}. Its log says more: kubectl logs --previous",
                container.name,
                last_words(container).unwrap_or_else(|| "it left no word".to_owned())
            ),
        )),
        _ => None,
    }
}

/// What a container that failed said at its end.
fn last_words(container: &ContainerStatus) -> Option<String> {
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let ended = now.or(before).filter(|ended| ended.exit_code != 0)?;
    // Only while it does not run again: what was mended must not stay in the status.
    let runs = container.state.as_ref().is_some_and(|state| state.running.is_some());
    let message = ended
        .message
        .as_deref()
        .map(str::trim)
        .filter(|message| !message.is_empty());
    (!runs).then(|| message.map_or_else(|| format!("exit code {}", ended.exit_code), shortened))
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth_back(REPORT_CHARS_MAX) {
        Some((start, _)) => format!("…{}", text.get(start..).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    containers.into_iter().find(|container| container.name == name)
}
