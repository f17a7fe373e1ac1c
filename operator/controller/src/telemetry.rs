//! Logs and metrics.

use anyhow::Context as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use operator_api::{Relay, RelayFamily, condition};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;

/// Log lines go to the standard error.
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log-filter {filter:?}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        // Our lines say which Relay they are about; kube's spans would say it twice more.
        LogFormat::Json => builder.json().with_current_span(false).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// What `/metrics` tells.
pub(crate) struct Telemetry {
    registry: Registry,
    reconciles: IntCounterVec,
    /// How long a round takes.
    pub(crate) reconcile_seconds: Histogram,
    /// Writes to the API server, by `kind`, `verb`, `result`. Renewals of the Lease are not in it.
    pub(crate) api_writes: IntCounterVec,
    /// 1 if this process leads.
    pub(crate) leader: IntGauge,
    relays: IntGaugeVec,
    known: OnceLock<Store<DeserializeGuard<Relay>>>,
    families: IntGaugeVec,
    known_families: OnceLock<Store<DeserializeGuard<RelayFamily>>>,
}

impl Telemetry {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let new = Self {
            registry: Registry::new(),
            reconciles: IntCounterVec::new(
                Opts::new("relayfleet_operator_reconciles_total", "Rounds, by kind and result"),
                &["kind", "result"],
            )?,
            reconcile_seconds: Histogram::with_opts(
                HistogramOpts::new("relayfleet_operator_reconcile_seconds", "How long a round takes")
                    .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            )?,
            api_writes: IntCounterVec::new(
                Opts::new(
                    "relayfleet_operator_api_writes_total",
                    "Writes to the API server, without the Lease's",
                ),
                &["kind", "verb", "result"],
            )?,
            leader: IntGauge::new("relayfleet_operator_leader", "1 if this process leads")?,
            relays: IntGaugeVec::new(
                Opts::new(
                    "relayfleet_operator_relays",
                    "Relays that the operator knows, by their condition Ready",
                ),
                &["ready"],
            )?,
            known: OnceLock::new(),
            families: IntGaugeVec::new(
                Opts::new(
                    "relayfleet_operator_families",
                    "RelayFamilies that the operator knows, by their condition Ready",
                ),
                &["ready"],
            )?,
            known_families: OnceLock::new(),
        };
        new.registry.register(Box::new(new.reconciles.clone()))?;
        new.registry.register(Box::new(new.reconcile_seconds.clone()))?;
        new.registry.register(Box::new(new.api_writes.clone()))?;
        new.registry.register(Box::new(new.leader.clone()))?;
        new.registry.register(Box::new(new.relays.clone()))?;
        new.registry.register(Box::new(new.families.clone()))?;
        Ok(new)
    }

    /// A round of a resource of this kind has ended.
    pub(crate) fn count_round(&self, kind: &str, well: bool) {
        let result = if well { "ok" } else { "error" };
        self.reconciles.with_label_values(&[kind, result]).inc();
    }

    /// As [`Self::count_relays_of`], for `relayfleet_operator_families`.
    pub(crate) fn count_families_of(&self, store: Store<DeserializeGuard<RelayFamily>>) {
        let _ = self.known_families.set(store);
    }

    /// Lets `relayfleet_operator_relays` count what this store knows.
    pub(crate) fn count_relays_of(&self, store: Store<DeserializeGuard<Relay>>) {
        let _ = self.known.set(store); // one controller, one store: a second call would bring the same
    }

    /// The metrics in Prometheus' text form.
    pub(crate) fn text(&self) -> anyhow::Result<Vec<u8>> {
        self.count_relays();
        self.count_families();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn count_relays(&self) {
        let Some(store) = self.known.get() else { return };
        self.relays.reset();
        for relay in store.state() {
            let status = relay.0.as_ref().ok().and_then(|relay| relay.status.as_ref());
            let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == condition::READY));
            let answer = ready.map_or("Unknown", |ready| ready.status.as_str());
            self.relays.with_label_values(&[answer]).inc();
        }
    }

    fn count_families(&self) {
        let Some(store) = self.known_families.get() else { return };
        self.families.reset();
        for family in store.state() {
            let status = family.0.as_ref().ok().and_then(|family| family.status.as_ref());
            let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == condition::READY));
            let answer = ready.map_or("Unknown", |ready| ready.status.as_str());
            self.families.with_label_values(&[answer]).inc();
        }
    }
}
