//! The command line and the environment: every path and address that the operator needs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use operator_api::PullPolicy;
use operator_plan::Settings;
use operator_plan::settings::cluster_network;

/// Relayfleet's operator: makes each Relay resource (relayfleet.io) a running relay of the Tor network.
///
/// It finds its cluster by --kubeconfig or KUBECONFIG, by ~/.kube/config, or by the service account of its own pod.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
pub(crate) struct Arguments {
    /// Image of Relayfleet's relay; it also puts the keys in place for relays that run C tor.
    #[arg(long, env = "RELAYFLEET_RELAY_IMAGE", value_name = "IMAGE")]
    relay_image: String,

    /// Image of C tor, for Relays with `engine: Tor` that name no image.
    #[arg(long, env = "RELAYFLEET_TOR_IMAGE", value_name = "IMAGE")]
    tor_image: Option<String>,

    /// When nodes fetch these images; without it Kubernetes decides by the tag.
    #[arg(long, env = "RELAYFLEET_IMAGE_PULL_POLICY", value_name = "POLICY")]
    image_pull_policy: Option<Pull>,

    /// Networks of the cluster's pods, Services and nodes, which no exit lets a stream into: ADDRESS/BITS, separated by
    /// commas.
    #[arg(long, env = "RELAYFLEET_CLUSTER_NETWORKS", value_delimiter = ',', value_parser = cluster_network, value_name = "NETWORKS")]
    cluster_networks: Vec<String>,

    /// Give Relays that do not say it themselves (`spec.metrics.enabled`) a port for Prometheus.
    #[arg(long, env = "RELAYFLEET_RELAY_METRICS", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    relay_metrics: bool,

    /// Look after the Relays of this namespace only; without it, of all.
    #[arg(long, env = "RELAYFLEET_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) watch_namespace: Option<String>,

    /// Where the keys are kept that no relay gets: relays' master keys, families' keys. Whoever may read Secrets there can
    /// be any of the relays. Without it, the namespace of the Lease.
    #[arg(long, env = "RELAYFLEET_CUSTODY_NAMESPACE", value_name = "NAMESPACE")]
    custody_namespace: Option<String>,

    /// Look whether the cluster knows our definitions and grants the rights to read them, and end: 0 if all is well.
    #[arg(long)]
    pub(crate) check: bool,

    /// A kubeconfig file; goes before KUBECONFIG.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// A context of the kubeconfig other than its current one.
    #[arg(long, env = "RELAYFLEET_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// Let only one of several operators work, the one that holds the Lease.
    #[arg(long, env = "RELAYFLEET_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) leader_elect: bool,

    /// Name of the Lease.
    #[arg(
        long,
        env = "RELAYFLEET_LEASE_NAME",
        default_value = "relayfleet-operator",
        value_name = "NAME"
    )]
    pub(crate) lease_name: String,

    /// Namespace of the Lease; without it the namespace of the pod or of the kubeconfig's context.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,

    /// Seconds after which another operator may take a Lease that its holder does not renew.
    #[arg(long, env = "RELAYFLEET_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=3600), value_name = "SECONDS")]
    pub(crate) lease_seconds: u16,

    /// How this process calls itself as holder of the Lease and reporter of events; without it the host's name
    /// and the process id.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    instance: Option<String>,

    /// Where to serve /metrics and /healthz.
    #[arg(
        long,
        env = "RELAYFLEET_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub(crate) listen: SocketAddr,

    /// How many Relays are worked on at once.
    #[arg(long, env = "RELAYFLEET_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "COUNT")]
    pub(crate) concurrency: u16,

    /// What to log: error, warn, info, debug, trace, or tracing's directives such as `info,operator=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log_filter: String,

    /// For tests: end at once, as a machine that loses its power does, after so many writes.
    #[arg(long, env = "RELAYFLEET_ABORT_AFTER_WRITES", hide = true, value_name = "COUNT")]
    pub(crate) abort_after_writes: Option<u64>,

    /// Log lines for people or for machines.
    #[arg(long, env = "RELAYFLEET_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Pull {
    Always,
    IfNotPresent,
    Never,
}

impl Arguments {
    /// `default_namespace` is the client's own.
    pub(crate) fn settings(&self, default_namespace: &str) -> Settings {
        let custody_namespace = self.custody_namespace.as_ref().or(self.lease_namespace.as_ref());
        Settings {
            custody_namespace: custody_namespace.map_or_else(|| default_namespace.to_owned(), Clone::clone),
            relay_image: self.relay_image.clone(),
            tor_image: self.tor_image.clone().filter(|image| !image.is_empty()),
            pull_policy: self.image_pull_policy.map(|policy| match policy {
                Pull::Always => PullPolicy::Always,
                Pull::IfNotPresent => PullPolicy::IfNotPresent,
                Pull::Never => PullPolicy::Never,
            }),
            cluster_networks: self.cluster_networks.clone(),
            status_key: None, // read from the cluster
            relay_metrics: self.relay_metrics,
        }
    }

    pub(crate) fn instance(&self) -> String {
        self.instance
            .clone()
            .unwrap_or_else(|| format!("operator-{}", std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_the_relay_image_must_be_said() {
        assert!(Arguments::try_parse_from(["operator"]).is_err());
        let arguments = Arguments::try_parse_from(["operator", "--relay-image", "relay:1"]).unwrap();
        let settings = arguments.settings("default");
        assert_eq!(
            (&*settings.relay_image, &*settings.custody_namespace),
            ("relay:1", "default")
        );
    }
}
