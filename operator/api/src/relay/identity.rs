//! Who keeps the relay's keys.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::Engine;
use crate::days::Days;

/// Who keeps the relay's keys, and how long those live that the pod gets.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Who keeps the master key; without it, what the engine can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custody: Option<Custody>,

    /// How long a signing key is good, 3 to 90 days: if the operator is away for so long, the relay stops. With custody
    /// `Operator` it is renewed when half of the time is left.
    #[serde(default = "default_signing_key_lifetime")]
    #[x_kube(validation = rules::signing_key_lifetime())]
    pub signing_key_lifetime: Days,
}

fn default_signing_key_lifetime() -> Days {
    Days::new(7)
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            custody: None,
            signing_key_lifetime: default_signing_key_lifetime(),
        }
    }
}

// Definitions say of an optional field what stands at its type, not at the field.

/// Who keeps the Ed25519 master key. `Operator`: it stays in the operator's namespace; the pod gets a signing key that the
/// operator renews while the relay runs. `InPod`: the pod has the master key, as C tor's relays do. Without it, `Operator`
/// for our relay and `InPod` for C tor, which cannot take a new signing key while it runs. Keys that exist are never moved: where it
/// says something else than how they are kept, nothing is started (condition IdentityBound, reason WrongCustody).
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum Custody {
    /// The operator, in its own namespace.
    Operator,
    /// The pod.
    InPod,
}

impl Identity {
    /// What was asked for, or what the engine can do.
    #[must_use]
    pub fn custody(&self, engine: Engine) -> Custody {
        self.custody.unwrap_or(match engine {
            Engine::Builtin => Custody::Operator,
            Engine::Tor => Custody::InPod,
        })
    }
}
