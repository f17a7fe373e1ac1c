//! The demo: a cluster, a private Tor network, our operator and a fleet of ours in pods, and a stranger's bytes through
//! three of it. Everything stays up afterwards; a second run uses what is up.

pub mod existing;
pub mod fleet;
pub mod images;
pub mod operator;

use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use self::fleet::{Fleet, Relay};
use crate::cluster::{self, Cluster};
use crate::command::await_yes;
use crate::tornet::{Descriptor, Fetch, Network, Pin, Spec, fetch, spec};
use crate::{machine, say};

/// Bytes that C tor's client fetches through three relays of ours.
const FETCH_BYTES: u64 = 100_000_000;

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
    let families = demo.check_families()?;
    let fetched = demo.fetch_through_three(FETCH_BYTES)?;
    demo.show(&families, &fetched)
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
    operator::install(
        &operator::Tools::of(&cluster),
        &operator::Release::of(&images).in_cluster(&cluster),
    )?;
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
    demo.fleet.await_in_consensus()?;
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
    /// Waits until every relay of ours is Running, Valid and Fast in the consensus at its pod's address, and has the
    /// flag of its role.
    ///
    /// # Errors
    /// One is not in time.
    pub fn await_consensus(&self) -> Result<()> {
        for relay in self.fleet.relays()? {
            let listed = self
                .network
                .await_relay(&relay.fingerprint, Some(&relay.address), fleet::PATIENCE)?;
            let of_its_role = match relay.role.as_str() {
                "Middle" => "Fast",
                role => role,
            };
            if !(listed.has("Fast") && listed.has(of_its_role)) {
                bail!(
                    "{} is in the consensus but not Fast and {of_its_role}: {}",
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

    /// Fetches so many bytes through three relays of ours, guard, middle and exit, and says how fast it went.
    ///
    /// # Errors
    /// A path cannot be built, or bytes are lost or changed.
    pub fn fetch_through_three(&self, bytes: u64) -> Result<String> {
        let relays = self.fleet.relays()?;
        let (exits, others): (Vec<&Relay>, Vec<&Relay>) = relays.iter().partition(|relay| relay.role == "Exit");
        let ([guard, middle, ..], [exit, ..]) = (others.as_slice(), exits.as_slice()) else {
            bail!("a path of our own takes two relays and an exit");
        };
        self.fetch_through(&[guard, middle, exit], bytes)
    }

    /// Fetches so many bytes through these relays of ours and says how fast it went.
    ///
    /// # Errors
    /// As [`Self::fetch_through_three`].
    pub fn fetch_through(&self, path: &[&Relay], bytes: u64) -> Result<String> {
        let path: Vec<&str> = path.iter().map(|relay| relay.fingerprint.as_str()).collect();
        let fetched = self.network.fetch(&Fetch {
            // The path is told to the client hop by hop: by itself it takes no two relays of a family.
            pin: Pin::Control,
            ports: fetch::WEB_PORTS.to_vec(),
            ..Fetch::over(&path, bytes, 1)
        })?;
        let line = format!(
            "{} bytes by C tor's client through {}: {:.1} MiB/s, sha256 {} at both ends",
            fetched.bytes,
            fetched.path.join(" → "),
            fetched.mib_per_second,
            fetched.sha256.join(" "),
        );
        say::step(&line);
        Ok(line)
    }

    /// The descriptor of a relay of ours as an authority has it.
    ///
    /// # Errors
    /// It has none.
    pub fn descriptor(&self, relay: &Relay) -> Result<Descriptor> {
        Ok(Descriptor::of(&self.network.descriptor(&relay.fingerprint)?))
    }

    /// Checks that every relay's descriptor carries a valid certificate of the family's key, and names all members.
    ///
    /// # Errors
    /// One does not.
    pub fn check_families(&self) -> Result<Vec<String>> {
        let ids = self.fleet.family_ids()?;
        ensure!(!ids.is_empty(), "there is no RelayFamily with a key");
        let relays = self.fleet.relays()?;
        let mut told = Vec::new();
        for relay in &relays {
            let mut last = Ok(Vec::new());
            let shows = || {
                last = self.shows_family(relay, &ids, relays.len());
                last.is_ok()
            };
            let what = format!("{} to show its family", relay.nickname);
            let waited = await_yes(&what, fleet::PATIENCE, shows);
            let shown = last.and_then(|shown| waited.map(|()| shown))?;
            told.push(format!(
                "{} shows a valid certificate of family {}",
                relay.nickname,
                shown.join(" ")
            ));
        }
        say::step(format!("{} descriptors carry a valid family certificate", told.len()));
        Ok(told)
    }

    fn shows_family(&self, relay: &Relay, ids: &[String], members: usize) -> Result<Vec<String>> {
        let descriptor = self.descriptor(relay)?;
        let shown = descriptor
            .families(SystemTime::now())
            .with_context(|| format!("the descriptor of {}", relay.nickname))?;
        // While a key is being changed, some show one of the two keys and some both.
        ensure!(
            shown.iter().all(|id| ids.contains(id)),
            "{} shows the families {shown:?}, not {ids:?}",
            relay.nickname
        );
        let listed = descriptor.line("family").unwrap_or_default().split(' ').count();
        ensure!(
            listed == members,
            "{} lists {listed} members, not {members}",
            relay.nickname
        );
        Ok(shown)
    }

    fn show(&self, families: &[String], fetched: &str) -> Result<()> {
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
        section("Their descriptors, as an authority has them", &families.join("\n"));
        section("Fetched", fetched);
        say::plain(format!(
            "\nIt all stays up. Look around with\n  export KUBECONFIG={} PATH=$PATH:{}\n  kubectl get pods -A\n\
             Take it away with\n  e2e/demo --down",
            self.cluster.kubeconfig().display(),
            self.cluster.programs.display()
        ));
        Ok(())
    }
}
