//! How the kubelet asks whether a relay is well.
//!
//! | | engine Builtin | engine Tor |
//! |---|---|---|
//! | started? | `/livez` of the status port, within five minutes | – |
//! | alive? | `/livez`: every shard answers | – |
//! | ready? | `/readyz`: it lives, and listens or sleeps by its quota | the ORPort takes connections |
//!
//! C tor has no such port, and closes its ORPort while it sleeps by its quota: a probe of that would kill a relay for keeping
//! to it.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::OR_PORT_NAME;
use crate::validate::Accepted;

/// Name of the status port in the pod.
pub(super) const STATUS_PORT_NAME: &str = "status";
const START_PERIOD_SECONDS: i32 = 2;
/// A slow disk with a directory of the public network on it takes a minute.
const START_SECONDS_MAX: i32 = 300;
/// `/livez` itself waits five seconds for a shard.
const LIVE_TIMEOUT_SECONDS: i32 = 10;

pub(super) fn put(container: &mut Container, accepted: &Accepted) {
    if accepted.status.is_none() {
        container.readiness_probe = Some(of_or_port());
        return;
    }
    container.startup_probe = Some(Probe {
        period_seconds: Some(START_PERIOD_SECONDS),
        failure_threshold: Some(START_SECONDS_MAX / START_PERIOD_SECONDS),
        ..asking("/livez", LIVE_TIMEOUT_SECONDS)
    });
    container.liveness_probe = Some(Probe {
        period_seconds: Some(30),
        failure_threshold: Some(4),
        ..asking("/livez", LIVE_TIMEOUT_SECONDS)
    });
    container.readiness_probe = Some(Probe {
        period_seconds: Some(5),
        ..asking("/readyz", LIVE_TIMEOUT_SECONDS)
    });
}

fn asking(path: &str, timeout_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(STATUS_PORT_NAME.to_owned()),
            ..Default::default()
        }),
        timeout_seconds: Some(timeout_seconds),
        ..Default::default()
    }
}

/// For a relay without a status port.
pub(super) fn of_or_port() -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::String(OR_PORT_NAME.to_owned()),
            host: None,
        }),
        period_seconds: Some(5),
        timeout_seconds: Some(3),
        ..Default::default()
    }
}
