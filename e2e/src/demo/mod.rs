//! The demo: a cluster, a private Tor network, our operator and our relays in pods, and a stranger's bytes through one
//! of them. Everything stays up afterwards; a second run uses what is up.

pub mod existing;
pub mod fleet;
pub mod images;
pub mod operator;

use anyhow::{Result, bail};

use self::fleet::Fleet;
use crate::cluster::{self, Cluster};
use crate::tornet::{Fetch, Network, Spec, spec};
use crate::{machine, say};

/// Bytes that C tor's client fetches through each of our relays.
const FETCH_BYTES: u64 = 50_000_000;

/// What `e2e/demo` is asked to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print the path of the running demo's kubeconfig.
    #[arg(long, conflicts_with_all = ["down", "context", "nodes"])]
    kubeconfig: bool,
    /// Take everything away.
    #[arg(long, conflicts_with_all = ["context", "nodes"])]
    down: bool,
    /// Nodes of the cluster, each a network namespace; 1 if nothing is said and no cluster is up.
    #[arg(long, conflicts_with = "context")]
    nodes: Option<u8>,
    /// Use the cluster of this name in your kubeconfig (kind, minikube, k3d, k3s) and start no node.
    #[arg(long)]
    context: Option<String>,
}

/// Everything that the demo brought up.
pub struct Demo {
    /// The cluster.
    pub cluster: Cluster,
    /// The Tor network around it.
    pub network: Network,
    /// Our relays in it.
    pub fleet: Fleet,
}

/// Does what was asked.
///
/// # Errors
/// What failed, where its log is, what to do.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.kubeconfig {
        say::plain(cluster::running()?.kubeconfig().display().to_string());
        return Ok(());
    }
    if arguments.down {
        down()?;
        say::step("everything is taken away");
        return Ok(());
    }
    if let Some(context) = &arguments.context {
        return existing::install(context);
    }
    let demo = up(arguments.nodes.unwrap_or(1))?;
    let fetched = demo.fetch_through_all(FETCH_BYTES)?;
    demo.show(&fetched)
}

/// Brings everything up, until our relays stand in the consensus.
///
/// # Errors
/// As [`run`].
pub fn up(nodes: u8) -> Result<Demo> {
    machine::root()?;
    let cluster = cluster::up(nodes)?;
    let network = Network::up(&spec::folder(), &Spec::default())?;
    let images = images::ready()?;
    cluster.import(&images.archives)?;
    say::step(format!("images are in every node: {}", images.tag));
    operator::install(&operator::Tools::of(&cluster), &images)?;
    say::step("the operator is installed");
    let fleet = Fleet::of(&cluster);
    fleet.apply(&network.torrc_for_strangers())?;
    fleet.await_ready()?;
    let demo = Demo {
        cluster,
        network,
        fleet,
    };
    demo.await_consensus()?;
    Ok(demo)
}

/// Takes everything away; well if nothing is there.
///
/// # Errors
/// Something cannot be removed.
pub fn down() -> Result<()> {
    machine::root()?;
    // The relays' peers first or last makes no difference to them; what can be removed is, even if the other fails.
    let network = Network::down(&spec::folder());
    cluster::down()?;
    network
}

impl Demo {
    /// Waits until every relay of ours is Running, Valid and Fast in the consensus at its pod's address.
    ///
    /// # Errors
    /// One is not in time.
    pub fn await_consensus(&self) -> Result<()> {
        for relay in self.fleet.relays()? {
            let listed = self
                .network
                .await_relay(&relay.fingerprint, Some(&relay.address), fleet::PATIENCE)?;
            if !listed.has("Fast") {
                bail!(
                    "{} is in the consensus but not Fast: {}",
                    relay.nickname,
                    listed.flags.join(" ")
                );
            }
            say::step(format!(
                "{} is in the consensus: {}",
                relay.nickname,
                listed.flags.join(" ")
            ));
        }
        Ok(())
    }

    /// Fetches so many bytes through each relay of ours as the middle of a path, and says how fast it went.
    ///
    /// # Errors
    /// A path cannot be built, or bytes are lost or changed.
    pub fn fetch_through_all(&self, bytes: u64) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for relay in self.fleet.relays()? {
            let fetched = self
                .network
                .fetch(&Fetch::over(&["r1", &relay.fingerprint, "e1"], bytes, 1))?;
            let line = format!(
                "{} bytes by C tor's client through {}: {:.1} MiB/s, sha256 {} at both ends",
                fetched.bytes,
                fetched.path.join(" → "),
                fetched.mib_per_second,
                fetched.sha256.join(" "),
            );
            say::step(&line);
            told.push(line);
        }
        Ok(told)
    }

    fn show(&self, fetched: &[String]) -> Result<()> {
        let section = |title: &str, text: &str| say::plain(format!("\n{title}\n{text}"));
        section("Nodes", &self.cluster.kubectl(["get", "nodes", "-o", "wide"])?);
        section("Pods", &self.cluster.kubectl(["get", "pods", "-A", "-o", "wide"])?);
        section(
            "Relays (kubectl get relays -A -o wide)",
            &self.cluster.kubectl(["get", "relays", "-A", "-o", "wide"])?,
        );
        let ours: Vec<String> = self
            .fleet
            .relays()?
            .into_iter()
            .map(|relay| relay.fingerprint)
            .collect();
        let consensus = self.network.consensus()?;
        let listed = consensus
            .iter()
            .filter(|entry| ours.iter().any(|one| entry.is_called(one)));
        let lines: Vec<&str> = listed
            .flat_map(|entry| entry.lines.iter().map(String::as_str))
            .collect();
        section("Our relays in the consensus", &lines.join("\n"));
        section("Fetched", &fetched.join("\n"));
        say::plain(format!(
            "\nIt all stays up. Look around with\n  export KUBECONFIG={} PATH=$PATH:{}\n  kubectl get pods -A\n\
             Take it away with\n  e2e/demo --down",
            self.cluster.kubeconfig().display(),
            self.cluster.programs.display()
        ));
        Ok(())
    }
}
