//! The torrc lines of an exit, and of a relay that is none.

use operator_api::{Exit, Relay, Role};
use relay_formats::exit_policy::ExitPolicy;

use crate::settings::Settings;

/// Why a rule of `spec.exit.policy` cannot be used. Entries count from 0, as in a path of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.exit.policy[{entry}]: {reason}; write for example accept *:443 or reject 203.0.113.0/24:*")]
pub struct BadRule {
    /// Which entry.
    pub entry: usize,
    /// What C tor's syntax has against it.
    pub reason: String,
}

/// The lines for a relay's torrc.
///
/// What lies inside the cluster stands first: no later rule can open it, and as all rules are published, clients know.
///
/// # Errors
/// The first rule that C tor would refuse.
pub fn exit_lines(relay: &Relay, settings: &Settings) -> Result<Vec<String>, BadRule> {
    if relay.spec.role != Role::Exit {
        return Ok(vec!["ExitRelay 0".to_owned(), "ExitPolicy reject *:*".to_owned()]);
    }
    let exit = relay.spec.exit.clone().unwrap_or_default();
    check(&exit)?;
    let mut lines = vec!["ExitRelay 1".to_owned()];
    if exit.ipv6 {
        lines.push("IPv6Exit 1".to_owned());
    }
    let of_the_cluster = settings.cluster_networks.iter().map(|network| match network {
        network if network.contains(':') => format!("ExitPolicy reject6 {}:*", bracketed(network)),
        network => format!("ExitPolicy reject {network}:*"),
    });
    lines.extend(of_the_cluster);
    lines.extend(exit.policy.iter().map(|rule| format!("ExitPolicy {}", rule.trim())));
    if exit.reduced {
        lines.push("ReducedExitPolicy 1".to_owned());
    }
    Ok(lines)
}

/// `[2001:db8::]/32`: a policy wants IPv6 addresses in brackets.
fn bracketed(network: &str) -> String {
    match network.split_once('/') {
        Some((address, bits)) => format!("[{address}]/{bits}"),
        None => format!("[{network}]"),
    }
}

fn check(exit: &Exit) -> Result<(), BadRule> {
    for (entry, rule) in exit.policy.iter().enumerate() {
        let bad = |reason: String| BadRule { entry, reason };
        // One rule, one line of torrc: nothing may end it early or go on behind it.
        if rule
            .chars()
            .any(|c| c.is_control() || matches!(c, '#' | '\\' | '"' | ','))
        {
            return Err(bad("write one rule in each entry, without , # \\ or quotes".to_owned()));
        }
        ExitPolicy::parse_line(rule).map_err(|error| bad(error.to_string()))?;
    }
    Ok(())
}
