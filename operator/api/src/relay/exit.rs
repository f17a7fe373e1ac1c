//! Where an exit lets streams go.

#![allow(unreachable_pub)] // KubeSchema repeats its type inside a function

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Where an exit lets streams go. The first rule that matches decides, in this order: the cluster's own networks, which
/// are always refused; private networks and the relay's own address, always refused too; `policy`; then Tor's reduced or
/// default policy. What is published is what is enforced.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Rules in C tor's syntax, as after ExitPolicy in a torrc: `accept *:443`, `reject 203.0.113.0/24:*`,
    /// `accept6 [2001:db8::]/32:80`. End with `reject *:*` to allow nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 128)))]
    #[x_kube(validation = rules::policy_lines())]
    pub policy: Vec<String>,

    /// After `policy`, allow only the ports of Tor's reduced exit policy (ReducedExitPolicy), which draws fewer
    /// complaints. Off, everything but the ports of the default policy's list is allowed.
    #[serde(default = "reduced_by_default")]
    pub reduced: bool,

    /// Let streams go to IPv6 addresses too (IPv6Exit).
    #[serde(default)]
    pub ipv6: bool,
}

fn reduced_by_default() -> bool {
    true
}

impl Default for Exit {
    fn default() -> Self {
        Self {
            policy: Vec::new(),
            reduced: true,
            ipv6: false,
        }
    }
}
