//! Logs and metrics.

mod inventory;

use anyhow::Context as _;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;
pub(crate) use inventory::Inventory;

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
    rounds_running: IntGaugeVec,
    reconcile_seconds: Histogram,
    /// Writes to the API server, by `kind`, `verb`, `result`. Renewals of the Lease are not in it.
    pub(crate) api_writes: IntCounterVec,
    /// 1 if this process leads.
    pub(crate) leader: IntGauge,
    /// What the operator knows.
    pub(crate) inventory: Inventory,
}

/// A round under way; one that is dropped before its end is counted as failed.
pub(crate) struct Round<'a> {
    telemetry: &'a Telemetry,
    kind: &'a str,
    begun: Instant,
    well: bool,
}

impl Round<'_> {
    pub(crate) fn end(mut self, well: bool) {
        self.well = well;
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let result = if self.well { "ok" } else { "error" };
        self.telemetry.reconciles.with_label_values(&[self.kind, result]).inc();
        self.telemetry.rounds_running.with_label_values(&[self.kind]).dec();
        self.telemetry
            .reconcile_seconds
            .observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Telemetry {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        let inventory = Inventory::new(&registry)?;
        let new = Self {
            reconciles: IntCounterVec::new(
                Opts::new("relayfleet_operator_reconciles_total", "Rounds, by kind and result"),
                &["kind", "result"],
            )?,
            rounds_running: IntGaugeVec::new(
                Opts::new("relayfleet_operator_rounds_running", "Rounds under way, by kind"),
                &["kind"],
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
            registry,
            inventory,
        };
        new.registry.register(Box::new(new.reconciles.clone()))?;
        new.registry.register(Box::new(new.rounds_running.clone()))?;
        new.registry.register(Box::new(new.reconcile_seconds.clone()))?;
        new.registry.register(Box::new(new.api_writes.clone()))?;
        new.registry.register(Box::new(new.leader.clone()))?;
        Ok(new)
    }

    /// A round for a resource of this kind begins.
    pub(crate) fn begin_round<'a>(&'a self, kind: &'a str) -> Round<'a> {
        self.rounds_running.with_label_values(&[kind]).inc();
        Round {
            telemetry: self,
            kind,
            begun: Instant::now(),
            well: false,
        }
    }

    /// The metrics in Prometheus' text form.
    pub(crate) fn text(&self) -> anyhow::Result<Vec<u8>> {
        self.inventory.count();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
