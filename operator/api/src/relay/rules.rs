//! The rules that the API server checks at apply. Each message says what to write instead.

use kube::core::Rule;

use crate::byte_rate::{RELAY_RATE_MAX, RELAY_RATE_MIN, cel_bytes, cel_form};
use crate::days::cel_between;
use crate::names::RELAY_NAME_LENGTH_MAX;

pub(super) fn relay_name_characters() -> Rule {
    Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name: begin with a letter and use only lower-case letters, digits and '-': the relay's Service takes the name")
}

pub(super) fn relay_name_length() -> Rule {
    Rule::new(format!("size(self.metadata.name) <= {RELAY_NAME_LENGTH_MAX}")).message(&*format!(
        "metadata.name: use at most {RELAY_NAME_LENGTH_MAX} characters"
    ))
}

pub(super) fn pool_or_static() -> Rule {
    Rule::new("!has(self.spec.addressPool) || self.spec.address.source == 'Pod'")
        .message("spec.addressPool: leave it out, or leave spec.address out: the pool gives the address")
}

pub(super) fn no_bridge_in_a_family() -> Rule {
    Rule::new("self.spec.role != 'Bridge' || !has(self.spec.family)")
        .message("spec.family: leave it out: a family's list would tell where the bridge is")
}

pub(super) fn custody_of_c_tor() -> Rule {
    Rule::new("self.spec.engine != 'Tor' || !has(self.spec.identity.custody) || self.spec.identity.custody == 'InPod'")
        .message(
            "spec.identity.custody: C tor takes no new signing key while it runs; write InPod, or leave custody out",
        )
}

pub(super) fn signing_key_lifetime() -> Rule {
    Rule::new(cel_between("self", 3, 90)).message("use 3d to 90d")
}

/// dir-spec 2.1.1: `nickname ::= between 1 and 19 alphanumeric characters`.
pub(super) fn nickname() -> Rule {
    Rule::new("self.matches('^[A-Za-z0-9]{1,19}$')").message("use 1 to 19 letters (A-Z, a-z) or digits, nothing else")
}

pub(super) fn contact() -> Rule {
    Rule::new(r"self.matches('^[^\\pC\\s]([^\\p{Cc}]*[^\\pC\\s])?$')")
        .message("write one line of text without control characters, for example an e-mail address")
}

pub(super) fn storage_is_fixed() -> Rule {
    Rule::new("self == oldSelf").message(
        "cannot be changed: the volume is made once. Keep the old value, or make a Relay of another name with the new one",
    )
}

pub(super) fn storage_size() -> Rule {
    Rule::new("self.matches('^[1-9][0-9]{0,5}(Mi|Gi|Ti)$')")
        .message("write a whole number with Mi, Gi or Ti, for example 1Gi")
}

pub(super) fn ipv4_networks() -> Rule {
    Rule::new("self.all(network, isCIDR(network) && cidr(network).ip().family() == 4)")
        .message("write IPv4 networks with their bits, for example 10.0.0.0/8")
}

pub(super) fn ipv4() -> Rule {
    Rule::new("isIP(self) && ip(self).family() == 4").message("write an IPv4 address, for example 203.0.113.7")
}

pub(super) fn static_needs_an_address() -> Rule {
    Rule::new("self.source != 'Static' || has(self.ipv4)").message("source is Static: add ipv4, the address to publish")
}

pub(super) fn pod_takes_no_address() -> Rule {
    Rule::new("self.source != 'Pod' || !has(self.ipv4)")
        .message("source is Pod: remove ipv4, or set source to Static to publish it")
}

/// True also for what is no rate at all: that is another rule's message.
fn between(field: &str, min: u64) -> String {
    let path = format!("self.{field}");
    let (form, bytes) = (cel_form(&path), cel_bytes(&path));
    format!("!has({path}) || !{form} || ({bytes} >= {min} && {bytes} <= {RELAY_RATE_MAX})")
}

pub(super) fn rate_in_range() -> Rule {
    Rule::new(between("rate", RELAY_RATE_MIN))
        .field_path(".rate")
        .message("use 75KiB/s to 2147MB/s: C tor refuses a relay outside of it")
}

pub(super) fn burst_in_range() -> Rule {
    Rule::new(between("burst", RELAY_RATE_MIN))
        .field_path(".burst")
        .message("use 75KiB/s to 2147MB/s: C tor refuses a relay outside of it")
}

/// C tor wants at least half of the floor here.
pub(super) fn max_advertised_in_range() -> Rule {
    Rule::new(between("maxAdvertised", RELAY_RATE_MIN / 2))
        .field_path(".maxAdvertised")
        .message("use 38KiB/s to 2147MB/s: C tor refuses a relay outside of it")
}

pub(super) fn burst_covers_rate() -> Rule {
    let (rate, burst) = ("self.rate", "self.burst");
    Rule::new(format!(
        "!has({burst}) || !{} || !{} || {} >= {}",
        cel_form(rate),
        cel_form(burst),
        cel_bytes(burst),
        cel_bytes(rate)
    ))
    .field_path(".burst")
    .message("must not be below rate; raise burst or leave it out")
}

pub(super) fn role_is_built() -> Rule {
    Rule::new("self != 'Bridge'").message("bridges are not built yet: use Guard, Middle or Exit")
}

pub(super) fn exit_of_exits() -> Rule {
    Rule::new("!has(self.exit) || self.role == 'Exit'")
        .field_path(".exit")
        .message("only an exit has an exit policy: set role to Exit, or remove exit")
}

/// The shape only: what stands before the port is read by the operator, which names the entry and the column.
pub(super) fn policy_lines() -> Rule {
    Rule::new(r"self.all(line, line.matches('^(accept|accept6|reject|reject6)[ \\t]+[^ \\t#,]+$'))").message(
        "write one rule in each entry: accept, reject, accept6 or reject6, then ADDRESS:PORT, for example accept *:443",
    )
}

pub(super) fn accounting_day_fits() -> Rule {
    Rule::new("!has(self.day) || self.every == 'Month' || (self.every == 'Week' && self.day <= 7)")
        .field_path(".day")
        .message("use 1 to 28 with every: Month, 1 (Monday) to 7 with every: Week, and leave day out with every: Day")
}

pub(super) fn time_of_day() -> Rule {
    Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message("write hours and minutes, for example 06:30")
}

pub(super) fn foreign_keys() -> Rule {
    Rule::new("self.all(key, !key.startsWith('relayfleet.io/') && !key.startsWith('app.kubernetes.io/'))")
        .message("keys of relayfleet.io/ and app.kubernetes.io/ are the operator's: use others")
}

pub(super) fn quantities() -> Rule {
    Rule::new("self.all(name, isQuantity(self[name]))")
        .message("write quantities as Kubernetes does, for example cpu: 500m and memory: 1Gi")
}

/// The status is asked, so that nobody confirms before there is something to lose.
pub(super) fn deletion_is_confirmed() -> Rule {
    let fingerprint = "self.status.identity.rsaFingerprint";
    Rule::new(format!(
        "!has(self.spec.deletionPolicy) || self.spec.deletionPolicy != 'Delete' || (has(self.spec.deletionConfirmation) && \
         has(self.status) && has(self.status.identity) && self.spec.deletionConfirmation == {fingerprint})"
    ))
    .message(
        "spec.deletionConfirmation: deletionPolicy Delete destroys the relay's identity. To confirm, write its fingerprint \
         (.status.identity.rsaFingerprint, 40 digits) here; a Relay without a fingerprint yet cannot have this policy",
    )
}
