//! All that is counted, written as C tor's MetricsPort writes it, and then what only we have (`relayfleet_*`).
//!
//! Names, labels, HELP and TYPE are C tor 0.4.9's, so that its dashboards and alerts work unchanged.

mod congestion;
mod onion_services;

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use relay_engine::Tally;
use relay_formats::facts::{AccountingState, Facts};

use super::counters::{Began, DnsOutcome, Kind as Connection};
use super::exposition::{Exposition, Kind};
use crate::rate::Way;
use crate::traffic::Traffic;

/// What the metrics are made of.
pub struct Sources<'a> {
    /// Of all shards; none if one of them did not answer in time: half a sum would be a wrong one.
    pub tally: Option<&'a Tally>,
    /// Bytes, connections, DNS.
    pub traffic: &'a Traffic,
    /// Times that the relay's rate was reached, by way.
    pub rate_limits_reached: &'a dyn Fn(Way) -> u64,
    /// What the relay knows of itself.
    pub facts: &'a Facts,
    /// File descriptors that links may take.
    pub sockets_max: u64,
}

/// The whole text.
pub fn write(sources: &Sources<'_>) -> String {
    let mut text = Exposition::default();
    load(&mut text, sources);
    dns(&mut text, sources.traffic);
    connections(&mut text, sources.traffic);
    if let Some(tally) = sources.tally {
        cells(&mut text, tally);
        circuits(&mut text, tally);
        floods(&mut text, tally);
        congestion::write(&mut text, tally);
        onion_services::write(&mut text, tally);
    }
    traffic(&mut text, sources.traffic);
    network(&mut text, sources.facts);
    keys(&mut text, sources.facts);
    ours(&mut text, sources);
    text.into_text()
}

fn load(text: &mut Exposition, sources: &Sources<'_>) {
    let reached = sources.rate_limits_reached;
    text.family(
        "tor_relay_load_global_rate_limit_reached_total",
        Kind::Counter,
        "Total number of global connection bucket limit reached",
    )
    .sample(&[("side", "read")], reached(Way::Read))
    .sample(&[("side", "write")], reached(Way::Write));
    text.family(
        "tor_relay_load_tcp_exhaustion_total",
        Kind::Counter,
        "Total number of times we ran out of TCP ports",
    )
    .sample(&[], sources.traffic.load.tcp_ports_exhausted.load(Ordering::Relaxed));
    text.family("tor_relay_load_socket_total", Kind::Gauge, "Total number of sockets")
        .sample(&[("state", "opened")], sources.traffic.connections.opened())
        .sample(&[], sources.sockets_max);
}

fn dns(text: &mut Exposition, traffic: &Traffic) {
    text.family(
        "tor_relay_exit_dns_query_total",
        Kind::Counter,
        "Total number of DNS queries done by this relay",
    )
    .sample(&[], traffic.dns.queries());
    let mut errors = text.family(
        "tor_relay_exit_dns_error_total",
        Kind::Counter,
        "Total number of DNS errors encountered by this relay",
    );
    for outcome in DnsOutcome::ALL {
        errors.sample(&[("reason", outcome.label())], traffic.dns.outcomes(outcome));
    }
}

/// Each kind, beginner and family, with the labels that all of C tor's connection series have.
fn each_connection(mut each: impl FnMut(Connection, Began, bool, [(&'static str, &'static str); 2], &'static str)) {
    for kind in Connection::ALL {
        for began in Began::ALL {
            for (ipv6, family) in [(false, "ipv4"), (true, "ipv6")] {
                let labels = [("type", kind.label()), ("direction", began.label())];
                each(kind, began, ipv6, labels, family);
            }
        }
    }
}

fn connections(text: &mut Exposition, traffic: &Traffic) {
    let seen = &traffic.connections;
    let mut total = text.family(
        "tor_relay_connections_total",
        Kind::Counter,
        "Total number of created/rejected connections",
    );
    each_connection(|kind, began, ipv6, [name, way], family| {
        let seen = seen.seen(kind, began, ipv6);
        total.sample(&[name, way, ("state", "created"), ("family", family)], seen.created);
        if began == Began::Peer {
            total.sample(&[name, way, ("state", "rejected"), ("family", family)], seen.rejected);
        }
    });
    let mut open = text.family(
        "tor_relay_connections",
        Kind::Gauge,
        "Total number of opened connections",
    );
    each_connection(|kind, began, ipv6, [name, way], family| {
        let opened = seen.seen(kind, began, ipv6).opened;
        open.sample(&[name, way, ("state", "opened"), ("family", family)], opened);
    });
}

fn cells(text: &mut Exposition, tally: &Tally) {
    let mut total = |name, help, value: u64| {
        text.family(name, Kind::Counter, help).sample(&[], value);
    };
    total(
        "tor_relay_destroy_cell_total",
        "Total number of DESTROY cell we received",
        tally.destroy_cells,
    );
    total(
        "tor_relay_drop_cell_total",
        "Total number of DROP cell we received",
        tally.drop_cells,
    );
    total(
        "tor_relay_circ_proto_violation_total",
        "Total number of circuit protocol violation",
        tally.protocol_violations,
    );
}

fn floods(text: &mut Exposition, tally: &Tally) {
    text.family(
        "tor_relay_load_oom_bytes_total",
        Kind::Counter,
        "Total number of bytes the OOM has freed by subsystem",
    )
    .sample(&[("subsys", "cell")], tally.memory_bytes_reclaimed)
    .sample(&[("subsys", "dns")], tally.memory_dns_bytes_reclaimed);
    let mut family = text.family(
        "tor_relay_dos_total",
        Kind::Counter,
        "Denial of Service defenses related counters",
    );
    for (kind, count) in [
        ("circuit_rejected", tally.dos_circuits_rejected),
        ("circuit_killed_max_cell", tally.dos_circuits_killed_max_cell),
        ("circuit_killed_max_cell_outq", tally.dos_circuits_killed_max_cell_outq),
        ("marked_address", tally.dos_addresses_marked),
        ("marked_address_maxq", tally.dos_addresses_marked_maxq),
        ("conn_rejected", tally.dos_connections_rejected),
        ("concurrent_conn_rejected", tally.dos_concurrent_connections_rejected),
        ("single_hop_refused", tally.dos_single_hop_refused),
        ("introduce2_rejected", tally.dos_introduce2_rejected),
        ("stream_rejected", tally.dos_streams_rejected),
    ] {
        family.sample(&[("type", kind)], count);
    }
}

fn circuits(text: &mut Exposition, tally: &Tally) {
    let begun = tally
        .streams_begun
        .saturating_sub(tally.streams_directory + tally.streams_resolve);
    text.family("tor_relay_streams_total", Kind::Counter, "Total number of streams")
        .sample(&[("type", "BEGIN")], begun)
        .sample(&[("type", "BEGIN_DIR")], tally.streams_directory)
        .sample(&[("type", "RESOLVE")], tally.streams_resolve);
    text.family("tor_relay_circuits_total", Kind::Gauge, "Total number of circuits")
        .sample(&[("state", "opened")], tally.circuits_open);
    let v3_dropped = tally.onionskins_dropped.saturating_sub(tally.onionskins_ntor_dropped);
    let mut onionskins = text.family(
        "tor_relay_load_onionskins_total",
        Kind::Counter,
        "Total number of onionskins handled",
    );
    for (name, processed, dropped) in [
        // CREATE_FAST waits in no queue, so none of it can be dropped.
        ("fast", tally.onionskins_fast, 0),
        ("ntor", tally.onionskins_ntor, tally.onionskins_ntor_dropped),
        ("ntor_v3", tally.onionskins_ntor_v3, v3_dropped),
    ] {
        onionskins
            .sample(&[("type", name), ("action", "processed")], processed)
            .sample(&[("type", name), ("action", "dropped")], dropped);
    }
}

fn traffic(text: &mut Exposition, traffic: &Traffic) {
    let (read, written) = traffic.sums();
    text.family("tor_relay_traffic_bytes", Kind::Counter, "Traffic related counters")
        .sample(&[("direction", "read")], read)
        .sample(&[("direction", "written")], written);
}

/// Flags that C tor tells, in its order. `Sybil` is not among those that the reader of consensuses knows.
const FLAGS: [&str; 8] = [
    "Fast",
    "Exit",
    "Authority",
    "Stable",
    "HSDir",
    "Running",
    "V2Dir",
    "Guard",
];

fn network(text: &mut Exposition, facts: &Facts) {
    let Some(consensus) = &facts.consensus else { return };
    let listed = consensus.listed.as_ref();
    let mut flags = text.family("tor_relay_flag", Kind::Gauge, "Relay flags from consensus");
    for name in FLAGS {
        let has = listed.is_some_and(|us| us.flags.iter().any(|flag| flag == name));
        flags.sample(&[("type", name)], u8::from(has));
    }
    text.family(
        "relayfleet_consensus_valid_after_timestamp_seconds",
        Kind::Gauge,
        "When the newest consensus that the relay knows became valid",
    )
    .sample(&[], unix(consensus.valid_after.0));
    text.family(
        "relayfleet_consensus_listed",
        Kind::Gauge,
        "Whether the newest consensus lists the relay",
    )
    .sample(&[], u8::from(listed.is_some()));
    if let Some(listed) = listed {
        text.family(
            "relayfleet_consensus_weight",
            Kind::Gauge,
            "Weight of the relay in the newest consensus, kilobytes a second",
        )
        .sample(&[], listed.weight);
        text.family(
            "relayfleet_consensus_measured",
            Kind::Gauge,
            "Whether bandwidth authorities have measured that weight",
        )
        .sample(&[], u8::from(listed.measured));
    }
}

fn keys(text: &mut Exposition, facts: &Facts) {
    // As in C tor: where the relay renews its signing key itself, there is nothing to warn of.
    if facts.signing_key.offline_master {
        text.family(
            "tor_relay_signing_cert_expiry_timestamp",
            Kind::Gauge,
            "Timestamp at which the current online keys will expire",
        )
        .sample(&[], unix(facts.signing_key.expires_at.0));
    }
}

fn ours(text: &mut Exposition, sources: &Sources<'_>) {
    let facts = sources.facts;
    text.family(
        "relayfleet_build_info",
        Kind::Gauge,
        "Always 1; the label has the version",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start time of the process since unix epoch in seconds.",
    )
    .sample(&[], unix(facts.started_at.0));
    let mut gauge = |name, help, value: u64| {
        text.family(name, Kind::Gauge, help).sample(&[], value);
    };
    if let Some(descriptor) = &facts.descriptor {
        gauge(
            "relayfleet_descriptor_published_timestamp_seconds",
            "When the newest descriptor says that it was made",
            unix(descriptor.published_at.0),
        );
        gauge(
            "relayfleet_descriptor_accepted_by",
            "Directory authorities that have taken the newest descriptor",
            descriptor.accepted_by.into(),
        );
    }
    if let Some(tally) = sources.tally {
        gauge(
            "relayfleet_streams_open",
            "Streams open now or being opened",
            tally.streams_open,
        );
        text.family(
            "relayfleet_channels",
            Kind::Gauge,
            "Channels open now, by who is at the other end",
        )
        .sample(&[("peer", "relay")], tally.channels_relay_open)
        .sample(&[("peer", "client")], tally.channels_client_open);
        text.family(
            "relayfleet_cells_relayed_total",
            Kind::Counter,
            "Cells that went through",
        )
        .sample(&[], tally.cells_relayed);
    }
    accounting(text, facts);
}

fn accounting(text: &mut Exposition, facts: &Facts) {
    let Some(quota) = &facts.accounting else { return };
    let mut gauge = |name, help, value: u64| {
        text.family(name, Kind::Gauge, help).sample(&[], value);
    };
    gauge("relayfleet_accounting_max_bytes", "AccountingMax", quota.bytes_max);
    gauge(
        "relayfleet_accounting_used_bytes",
        "What AccountingRule has counted in this interval",
        quota.bytes_used,
    );
    gauge(
        "relayfleet_accounting_interval_end_timestamp_seconds",
        "When this interval ends",
        unix(quota.interval_ends_at.0),
    );
    gauge(
        "relayfleet_accounting_wake_timestamp_seconds",
        "When the relay wakes, or woke, in this interval",
        unix(quota.wakes_at.0),
    );
    let mut state = text.family(
        "relayfleet_accounting_state",
        Kind::Gauge,
        "1 for the state that the quota has the relay in",
    );
    for (name, one) in [
        ("awake", AccountingState::Awake),
        ("soft_limit", AccountingState::SoftLimit),
        ("dormant", AccountingState::Dormant),
    ] {
        state.sample(&[("state", name)], u8::from(quota.state == one));
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests;
