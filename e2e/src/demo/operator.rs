//! Installing the chart.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::images::Images;
use crate::cluster::{Cluster, network};
use crate::command::{command, output};
use crate::image::Kind;
use crate::programs::repository;

/// Where the operator lives.
pub const NAMESPACE: &str = "relayfleet-system";

/// The chart's release, and the operator's Deployment.
pub const RELEASE: &str = "relayfleet";

/// A cluster that grows up to here needs no other settings.
const NODES_KNOWN: u8 = 4;

/// `kubectl` and `helm`, speaking to one cluster.
#[derive(Clone, Debug)]
pub struct Tools {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl Tools {
    /// For a cluster of ours.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            kubectl: cluster.programs.join("kubectl"),
            helm: cluster.programs.join("helm"),
            kubeconfig: Some(cluster.kubeconfig()),
            context: None,
        }
    }

    /// For somebody else's cluster, by the name of its context.
    pub fn of_context(kubectl: &Path, helm: &Path, context: &str) -> Self {
        Self {
            kubectl: kubectl.into(),
            helm: helm.into(),
            kubeconfig: None,
            context: Some(context.into()),
        }
    }

    /// `kubectl` with these arguments.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut kubectl = command(
            &self.kubectl,
            self.context.iter().map(|context| format!("--context={context}")),
        );
        self.with_kubeconfig(kubectl.args(arguments));
        kubectl
    }

    fn helm<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut helm = command(
            &self.helm,
            self.context.iter().map(|context| format!("--kube-context={context}")),
        );
        self.with_kubeconfig(helm.args(arguments));
        helm
    }

    fn with_kubeconfig(&self, command: &mut Command) {
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
    }
}

/// What the chart is installed with.
#[derive(Clone, Debug)]
pub struct Release {
    /// Tag of the operator's image.
    pub operator_tag: String,
    /// Tag of the others.
    pub tag: String,
    /// Networks that exits keep off.
    pub cluster_networks: Vec<String>,
}

impl Release {
    /// With these images.
    pub fn of(images: &Images) -> Self {
        Self {
            operator_tag: images.tag.clone(),
            tag: images.tag.clone(),
            cluster_networks: Vec::new(),
        }
    }

    /// In a cluster of ours, whose addresses are not private ones.
    #[must_use]
    pub fn in_cluster(self, cluster: &Cluster) -> Self {
        let pods = (1..=cluster.nodes.max(NODES_KNOWN)).map(network::pods);
        let others = [network::SERVICES, network::CABLES].map(str::to_owned);
        Self {
            cluster_networks: pods.chain(others).collect(),
            ..self
        }
    }
}

/// Installs or upgrades the chart and waits until the operator is ready.
///
/// # Errors
/// Helm or the operator fails; the error holds the operator's events and last lines.
pub fn install(tools: &Tools, release: &Release) -> Result<()> {
    let chart = repository().join("charts/relayfleet");
    let mut helm = tools.helm(["upgrade", "--install", RELEASE]);
    helm.arg(chart).args([
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "3m",
    ]);
    let set = |helm: &mut Command, value: String| {
        helm.arg("--set-string").arg(value);
    };
    for (key, kind, tag) in [
        ("operator", Kind::Operator, &release.operator_tag),
        ("relay", Kind::Relay, &release.tag),
        ("tor", Kind::Tor, &release.tag),
    ] {
        set(&mut helm, format!("images.{key}={}", kind.name(tag)));
    }
    if !release.cluster_networks.is_empty() {
        set(
            &mut helm,
            format!("clusterNetworks={{{}}}", release.cluster_networks.join(",")),
        );
    }
    // Read from the machine itself, through the cable of a node.
    if !release.cluster_networks.is_empty() {
        helm.args(["--set", "relayMetrics.enabled=true"]);
    }
    // They were put there, and no registry has them.
    set(&mut helm, "images.pullPolicy=Never".to_owned());
    output(&mut helm).with_context(|| format!("the operator was not installed\n{}", troubles(tools)))?;
    Ok(())
}

fn troubles(tools: &Tools) -> String {
    let mut text = String::new();
    for line in [
        "get pods,deployments -o wide",
        "get events --sort-by=.lastTimestamp",
        "logs deployment/relayfleet",
    ] {
        let mut ask = tools.kubectl(["-n", NAMESPACE]);
        let said = output(ask.args(line.split(' '))).unwrap_or_else(|error| format!("{error:#}"));
        let last: Vec<&str> = said.lines().rev().take(15).collect();
        text.push_str(&format!("--- kubectl {line}\n"));
        text.extend(last.into_iter().rev().map(|line| format!("  | {line}\n")));
    }
    text
}
