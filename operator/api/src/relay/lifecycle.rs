//! Whether a relay runs, and what its deletion means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RelaySpec;

// Definitions say of an optional field what stands at its type, not at the field: so all that a person must know stands here.

/// Whether the relay runs. `Running`, the default. `Stopped`: the operator asks the pod to end and makes no other, while
/// keys, volume and Service stay; `Running` brings the same relay back.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum RunState {
    /// It runs.
    #[default]
    Running,
    /// No pod; keys and volume stay.
    Stopped,
}

/// What becomes of keys and volume when the Relay is deleted. `Retain`, the default: they stay, and a Relay of the same name
/// takes them up again. `Delete`: they are deleted once the pod has ended, and nobody can ever be this relay again, unless
/// there is a backup. `Delete` needs the relay's fingerprint in `deletionConfirmation`, and the chart's
/// `rbac.deleteIdentities: true`.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, and a Relay of the same name takes them up again.
    #[default]
    Retain,
    /// They are deleted once the pod has ended: nobody can ever be this relay again, unless there is a backup.
    Delete,
}

impl RelaySpec {
    /// The operator writes nothing but the status.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused == Some(true)
    }

    /// The relay should not run.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == Some(RunState::Stopped)
    }
}
