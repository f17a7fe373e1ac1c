//! What must stay the same while a relay takes up a change: its pod, its container, its process.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::identities::running;
use crate::demo::Demo;
use crate::demo::fleet::Relay;
use crate::process::Known;

/// A relay's pod and process at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    name: String,
    pod_uid: String,
    container_id: String,
    container_started: String,
    restarts: u64,
    process: Known,
}

impl Standing {
    /// As it is now.
    pub(super) fn of(demo: &Demo, relay: &Relay) -> Result<Self> {
        let pods = demo.fleet.objects("pods")?;
        let called = |pod: &&Value| pod.pointer("/metadata/name").is_some_and(|name| *name == relay.pod);
        let pod = pods
            .iter()
            .find(called)
            .with_context(|| format!("{} has no pod", relay.name))?;
        let text = |path: &str| {
            let found = pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
            found.with_context(|| format!("the pod of {} has no {path}", relay.name))
        };
        Ok(Self {
            name: relay.name.clone(),
            pod_uid: text("/metadata/uid")?,
            container_id: text("/status/containerStatuses/0/containerID")?,
            container_started: text("/status/containerStatuses/0/state/running/startedAt")?,
            restarts: pod
                .pointer("/status/containerStatuses/0/restartCount")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
            process: running(&relay.ed25519)?.with_context(|| format!("no process of {} runs", relay.name))?,
        })
    }

    /// Of all these relays.
    pub(super) fn of_all(demo: &Demo, relays: &[Relay]) -> Result<Vec<Self>> {
        relays.iter().map(|relay| Self::of(demo, relay)).collect()
    }

    /// Its process.
    pub(super) fn process(&self) -> Known {
        self.process
    }
}

/// Nothing was restarted between these two looks.
pub(super) fn same(before: &[Standing], after: &[Standing]) -> Result<()> {
    ensure!(before == after, "restarted or replaced: {before:#?}\nbecame {after:#?}");
    Ok(())
}
