//! The relay's torrc.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use operator_api::{Custody, Engine, Relay, names};

use super::status_port::TOKEN_KEY;
use super::{owned, pod};
use crate::identity::custody_of;
use crate::validate::Accepted;

/// Key in the ConfigMap, and the file's name in the pod.
pub const TORRC_KEY: &str = "torrc";

/// How long a stopping relay lets its circuits end; the pod's grace period is longer.
pub const SHUTDOWN_WAIT_SECONDS: i64 = 20;

/// The ConfigMap. `token` is for a pod of an earlier operator, which looks for it here.
#[must_use]
pub fn torrc(relay: &Relay, accepted: &Accepted, token: Option<String>) -> ConfigMap {
    let text = (TORRC_KEY.to_owned(), torrc_text(relay, accepted));
    let token = token.map(|token| (TOKEN_KEY.to_owned(), token));
    ConfigMap {
        metadata: owned(relay, names::torrc_config_map(&relay.name_any())),
        data: Some(std::iter::once(text).chain(token).collect()),
        ..Default::default()
    }
}

/// The pod's own address is not known here; the pod's command line says it (`--Address`).
#[must_use]
pub fn torrc_text(relay: &Relay, accepted: &Accepted) -> String {
    let name = format!("{}/{}", relay.namespace().unwrap_or_default(), relay.name_any());
    let mut text = format!("# Made from Relay {name}. The operator undoes changes made here.\n");
    let mut line = |option: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{option} {value}"); // a String takes everything
    };
    line("Nickname", &accepted.nickname.as_str());
    line("ContactInfo", &quoted_if_needed(&accepted.contact));
    line("ORPort", &format_args!("0.0.0.0:{} IPv4Only", accepted.or_port));
    if let Some(address) = accepted.address {
        line("Address", &address);
    }
    line("SocksPort", &0);
    line("DataDirectory", &pod::DATA_DIRECTORY);
    line("Log", &"notice stdout");
    line("ShutdownWaitLength", &format_args!("{SHUTDOWN_WAIT_SECONDS} seconds"));
    if relay.spec.family.is_some() {
        match relay.spec.engine {
            Engine::Builtin => line("FamilyDirectory", &pod::FAMILY_DIR),
            Engine::Tor => {
                line("FamilyId", &"*");
                line("FamilyKeyDirectory", &pod::FAMILY_KEYS_DIR);
                line("%include", &format_args!("{}/*.torrc", pod::FAMILY_DIR));
            }
        }
    }
    match custody_of(relay) {
        Custody::Operator => {
            line("OfflineMasterKey", &1);
            line("SigningKeyDirectory", &pod::SIGNING_DIR);
        }
        Custody::InPod => {
            let lifetime = relay.spec.identity.signing_key_lifetime;
            line("SigningKeyLifetime", &format_args!("{} days", lifetime.count()));
        }
    }
    // On a node's own network the command line says these ports, for there they stand on one address alone.
    let everywhere = !accepted.is_on_host_network();
    if let Some(port) = accepted.status {
        if everywhere {
            line("StatusPort", &format_args!("0.0.0.0:{port}"));
        }
        line("StatusTokenFile", &format_args!("{}/{TOKEN_KEY}", pod::CONFIG_DIR));
    }
    if let Some(metrics) = &accepted.metrics {
        if everywhere {
            line("MetricsPort", &format_args!("0.0.0.0:{}", metrics.port));
        }
        for network in &metrics.from {
            line("MetricsPortPolicy", &format_args!("accept {network}"));
        }
    }
    if let Some(rates) = accepted.bandwidth {
        // Where a Service rewrites source addresses every client looks private, and an uncounted rate would bind nobody.
        line("CountPrivateBandwidth", &1);
        line("RelayBandwidthRate", &format_args!("{} bytes", rates.rate));
        line("RelayBandwidthBurst", &format_args!("{} bytes", rates.burst));
        if let Some(most) = rates.max_advertised {
            line("MaxAdvertisedBandwidth", &format_args!("{most} bytes"));
        }
    }
    for more in accepted.accounting.iter().chain(&accepted.exit) {
        text.push_str(more);
        text.push('\n');
    }
    for shared in &accepted.network {
        text.push_str(shared);
        text.push('\n');
    }
    text
}

/// The part that a running relay cannot take up: another value asks for another pod. C tor does not see that its torrc
/// changed, so for it that is all.
#[must_use]
pub fn cold_lines(relay: &Relay, accepted: &Accepted) -> String {
    match relay.spec.engine {
        Engine::Tor => torrc_text(relay, accepted),
        Engine::Builtin => format!("ORPort {}\n{}", accepted.or_port, accepted.network.join("\n")),
    }
}

/// In a torrc `#` begins a comment and a backslash at the end goes on in the next line, unless the value stands in quotes.
fn quoted_if_needed(value: &str) -> String {
    if !value.contains(['#', '"', '\\']) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_with_a_hash_is_no_comment() {
        assert_eq!(quoted_if_needed("ops #1 \"a\\b\""), r##""ops #1 \"a\\b\"""##);
        assert_eq!(quoted_if_needed("ops@example.org"), "ops@example.org");
    }
}
