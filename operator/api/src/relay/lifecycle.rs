//! Whether a relay runs, and what its deletion means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RelaySpec;

/// Whether the relay runs.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum RunState {
    /// It runs.
    #[default]
    Running,
    /// No pod; keys and volume stay.
    Stopped,
}

/// What becomes of keys and volume when the Relay is deleted.
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
