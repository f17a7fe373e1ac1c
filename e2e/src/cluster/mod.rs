//! A real Kubernetes on this machine: etcd, API server, controllers and scheduler, and nodes in network namespaces.
//!
//! One cluster a machine. It outlives the command that started it; `up` uses the one that is up, and clears away first
//! what a killed run left half done.

pub mod control_plane;
pub mod down;
pub mod images;
pub mod network;
pub mod node;
pub mod pki;
pub mod storage;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::node::Node;
use crate::command::{await_yes, command, output, output_with_input, succeeds};
use crate::state::{Places, Record};
use crate::{machine, process, programs, say};

/// A cluster that is up.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where it keeps everything.
    pub places: Places,
    /// Folder of `kubectl`, `helm` and the rest.
    pub programs: PathBuf,
    /// How many nodes it has.
    pub nodes: u8,
}

/// Starts a cluster of at least so many nodes, or uses the one that is up.
///
/// # Errors
/// What the machine lacks, or what failed and where its log is.
pub fn up(nodes: u8) -> Result<Cluster> {
    if !(1..=network::NODES_MAX).contains(&nodes) {
        bail!("--nodes {nodes}: from 1 to {} nodes have addresses", network::NODES_MAX);
    }
    machine::root()?;
    let places = Places::default();
    let programs = programs::ready()?;
    let _lock = places.lock()?;
    places.check_owner()?;
    if let Some(cluster) = standing(&places)
        && cluster.programs == programs
    {
        say::step(format!("the cluster is up, {} node(s)", cluster.nodes));
        return grow(cluster, nodes);
    }
    if places.in_use() {
        say::step("clearing away what an earlier run left");
        down::remove(&places)?;
    }
    machine::check(&places.state)?;
    grow(start(places, programs)?, nodes)
}

/// The cluster that is up and well.
///
/// # Errors
/// None is.
pub fn running() -> Result<Cluster> {
    standing(&Places::default())
        .context("no cluster is up: start it with `e2e/demo` (or `cargo run -p e2e -- cluster up`)")
}

/// Whether anything of a cluster is on this machine, whole or half made.
pub fn in_use() -> bool {
    Places::default().in_use()
}

/// Takes the cluster away; well if none is there.
///
/// # Errors
/// Something cannot be removed.
pub fn down() -> Result<()> {
    machine::root()?;
    let places = Places::default();
    let _lock = places.lock()?;
    places.check_owner()?;
    down::remove(&places)
}

/// Complete, every process alive, and the API server answers.
fn standing(places: &Places) -> Option<Cluster> {
    let record = Record::read(places).filter(|record| record.nodes > 0)?;
    if let Some(dead) = process::names(places)
        .iter()
        .find(|name| process::recorded(places, name).is_none())
    {
        say::step(format!(
            "{dead} of the earlier run has ended ({})",
            places.log(dead).display()
        ));
        return None;
    }
    let cluster = Cluster {
        places: places.clone(),
        programs: record.programs,
        nodes: record.nodes,
    };
    succeeds(&mut cluster.program("kubectl", ["get", "--raw", "/readyz"])).then_some(cluster)
}

fn start(places: Places, programs: PathBuf) -> Result<Cluster> {
    places.claim()?;
    let folders = down::FOREIGN_FOLDERS
        .iter()
        .map(PathBuf::from)
        .filter(|folder| folder.exists())
        .collect();
    let record = Record {
        programs: programs.clone(),
        nodes: 0,
        ip_forward_before: network::forwarding()?,
        folders_before: folders,
        netns_mounted_before: down::netns_mounted(),
    };
    record.write(&places)?;
    images::make_first(&places)?;
    pki::make(&places.state.join("pki"))?;
    for user in ["admin", "controllers", "scheduler", "provisioner"] {
        pki::kubeconfig(&places.state, user)?;
    }
    // The control plane lives in node 1's namespace, so the node comes first, and waits for it.
    network::make(1)?;
    control_plane::start_apiserver(&places, &programs)?;
    say::step("API server answers");
    control_plane::start_controllers(&places, &programs)?;
    storage::start(&places, &programs)?;
    let cluster = Cluster {
        places,
        programs,
        nodes: 0,
    };
    Ok(cluster)
}

fn grow(mut cluster: Cluster, nodes: u8) -> Result<Cluster> {
    while cluster.nodes < nodes {
        let node = cluster.node(cluster.nodes + 1);
        node.start(&cluster.programs)?;
        cluster.await_ready(&node.name())?;
        say::step(format!("{} is Ready", node.name()));
        cluster.nodes += 1;
        let mut record = Record::read(&cluster.places).context("the cluster's record is gone")?;
        record.nodes = cluster.nodes;
        record.write(&cluster.places)?;
    }
    Ok(cluster)
}

impl Cluster {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.places.state.join("admin.kubeconfig")
    }

    /// One of its nodes, 1 to `nodes`.
    pub fn node(&self, number: u8) -> Node<'_> {
        Node {
            places: &self.places,
            number,
        }
    }

    /// A program of the cluster's own folder (`kubectl`, `helm`), as the administrator.
    pub fn program<A: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut program = command(self.programs.join(name), arguments);
        program.env("KUBECONFIG", self.kubeconfig());
        program
    }

    /// `kubectl` as the administrator.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        output(&mut self.program("kubectl", arguments))
    }

    /// `kubectl apply` of this text.
    ///
    /// # Errors
    /// It is refused; the error holds why.
    pub fn apply(&self, objects: &str) -> Result<String> {
        output_with_input(&mut self.program("kubectl", ["apply", "-f", "-"]), objects)
    }

    /// Brings OCI archives into every node, and into those that come later.
    ///
    /// # Errors
    /// An archive cannot be read or is refused.
    pub fn import(&self, archives: &[PathBuf]) -> Result<()> {
        let _lock = self.places.lock()?;
        for archive in archives
            .iter()
            .filter(|archive| !images::is_kept(&self.places, archive))
        {
            for number in 1..=self.nodes {
                images::import_into(&self.node(number), archive)?;
            }
            images::keep(&self.places, archive)?;
        }
        Ok(())
    }

    fn await_ready(&self, node: &str) -> Result<()> {
        let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let ready = || {
            self.kubectl(["get", "node", node, "-o", condition])
                .is_ok_and(|status| status == "True")
        };
        let log = self.places.log(&node.replace("node", "kubelet"));
        let waited = await_yes(&format!("{node} to be Ready"), Duration::from_secs(120), ready);
        waited.with_context(|| format!("{}see {}", crate::command::last_words_of(&log), log.display()))?;
        // Pods made before it exists are refused.
        let exists = || {
            self.kubectl(["-n", "default", "get", "serviceaccount", "default"])
                .is_ok()
        };
        await_yes("the service account default", Duration::from_secs(60), exists)
    }
}
