//! A network that runs: found again by its folder, asked, used and stopped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::consensus::Listed;
use super::control::Control;
use super::observe::{self, Usage};
use super::spec::Spec;
use super::start::{Wait, lay_out, listed};
use super::state::{Role, State, node_folder, places};
use super::{CONTROL_PORT, DIR_PORT, METRICS_PORT, OR_PORT, address, consensus, keys, torrc};
use crate::command::last_words_of;
use crate::process::Known;
use crate::state::Places;
use crate::{process, say};

/// How long a node may take to end after SIGTERM; ours and C tor's need a fraction of it.
const GRACE: Duration = Duration::from_secs(10);

/// A private Tor network.
#[derive(Debug)]
pub struct Network {
    pub(super) places: Places,
    pub(super) state: State,
}

/// How a network stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Where its files are.
    pub folder: PathBuf,
    /// Whether every node runs.
    pub complete: bool,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Relays that came from outside: in the consensus, and no node of ours.
    pub strangers: Vec<Listed>,
}

/// How a node stands.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its nickname too.
    pub name: String,
    /// What it is in the network.
    pub role: Role,
    /// Its address.
    pub address: String,
    /// Whether something else than C tor runs here.
    pub slot: bool,
    /// `None`: it does not run.
    pub usage: Option<Usage>,
    /// Its entry in the consensus.
    pub listed: Option<Listed>,
}

impl Network {
    /// Starts a network in this folder and waits until a client can use every relay. One that runs there already and
    /// is what is asked for is used; whatever else is there, half started or killed, is cleared away first.
    ///
    /// # Errors
    /// Says which node failed, with the last lines of its log. Nothing runs then, and the logs are kept.
    pub fn up(folder: &Path, spec: &Spec) -> anyhow::Result<Self> {
        spec.check()?;
        let places = places(folder);
        let _lock = lock(folder)?;
        if let Ok(Some(state)) = State::read(&places) {
            let network = Self {
                places: places.clone(),
                state,
            };
            if network.state.ready && network.state.spec == *spec && network.dead().is_empty() {
                say::step(format!("the Tor network in {} is up already", folder.display()));
                return Ok(network);
            }
        }
        clear(&places)?;
        places.remove()?;
        let began = Instant::now();
        match Self::create(&places, spec) {
            Ok(network) => {
                say::step(format!(
                    "the Tor network is up after {:.1} s",
                    began.elapsed().as_secs_f64()
                ));
                Ok(network)
            }
            Err(error) => {
                let report = trouble(&places);
                clear(&places)?;
                bail!(
                    "the Tor network did not come up: {error:#}\n{report}the whole logs: {}",
                    folder.display()
                )
            }
        }
    }

    fn create(places: &Places, spec: &Spec) -> anyhow::Result<Self> {
        let state = lay_out(places, spec)?;
        say::step(format!("{} Tor nodes at {}.1 and up", state.nodes.len(), spec.prefix));
        let mut network = Self {
            places: places.clone(),
            state,
        };
        network.bring_up()?;
        network.state.ready = true;
        network.state.write(places)?;
        keys::store(places, &network.state)?;
        Ok(network)
    }

    /// The network that runs in this folder.
    ///
    /// # Errors
    /// When none does, or it never came up.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let places = places(folder);
        match State::read(&places)? {
            Some(state) if state.ready => Ok(Self { places, state }),
            _ => bail!(
                "no Tor network runs in {}: `e2e tornet up` starts one",
                folder.display()
            ),
        }
    }

    /// Stops a network, complete or not, and removes everything of it. Nothing there is fine too.
    ///
    /// # Errors
    /// When a process does not end or a file cannot be removed.
    pub fn down(folder: &Path) -> anyhow::Result<()> {
        let places = places(folder);
        let _lock = lock(folder)?;
        clear(&places)?;
        places.remove()
    }

    /// Stops a network and keeps its files, for reading.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn stop(folder: &Path) -> anyhow::Result<()> {
        let _lock = lock(folder)?;
        clear(&places(folder))
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.places.state
    }

    /// torrc lines that any relay needs to join: for a ConfigMap, say.
    #[must_use]
    pub fn torrc_for_strangers(&self) -> String {
        torrc::for_strangers(&self.state)
    }

    /// Names of the nodes with this role, in order.
    #[must_use]
    pub fn names(&self, role: Role) -> Vec<String> {
        self.state.names(&[role])
    }

    /// The consensus as an authority has it now.
    ///
    /// # Errors
    /// When no authority answers.
    pub fn consensus(&self) -> anyhow::Result<Vec<Listed>> {
        let authorities = self.state.names(&[Role::Authority]);
        let mut answers = authorities
            .iter()
            .filter_map(|name| listed(&mut self.control(name).ok()?).ok());
        answers
            .next()
            .context("no authority answers: `e2e tornet status` shows which nodes run")
    }

    /// The same as [`consensus`](Self::consensus) with every line of an entry, `pr` among them, which the control port
    /// leaves out: an authority's document as it serves it.
    ///
    /// # Errors
    /// When the first authority does not serve it.
    pub fn consensus_document(&self) -> anyhow::Result<Vec<Listed>> {
        let names = self.state.names(&[Role::Authority]);
        let first = self.state.node(names.first().context("no authority")?)?;
        let page = observe::page(
            SocketAddr::from((first.address, DIR_PORT)),
            "/tor/status-vote/current/consensus",
        )?;
        Ok(consensus::read(&page))
    }

    /// Ends a node that is not needed any more. The authorities go on to list a relay for as long as its descriptor is
    /// fresh.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&self, name: &str) -> anyhow::Result<()> {
        let Some(known) = self.process(name) else { return Ok(()) };
        known.signal(Signal::TERM);
        let end = Instant::now() + GRACE;
        while known.alive() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        process::kill_all(&[known])
    }

    /// Ends a node as a crash does.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        process::kill_all(&self.process(name).into_iter().collect::<Vec<_>>())
    }

    /// Starts a node that has ended, with the files that it left; waits for nothing.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn start_again(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.process(name).is_none(), "{name} runs");
        self.start(&[name.to_owned()])
    }

    /// A relay's descriptor as the first authority has it.
    ///
    /// # Errors
    /// It has none.
    pub fn descriptor(&self, name: &str) -> anyhow::Result<String> {
        let consensus = self.consensus()?;
        let entry = consensus.iter().find(|entry| entry.is_called(name));
        let entry = entry.with_context(|| format!("{name} is not in the consensus"))?;
        let names = self.state.names(&[Role::Authority]);
        let first = self.state.node(names.first().context("no authority")?)?;
        let path = format!("/tor/server/fp/{}", entry.fingerprint);
        observe::page(SocketAddr::from((first.address, DIR_PORT)), &path)
            .with_context(|| format!("the descriptor of {name}"))
    }

    /// Where a node takes links.
    ///
    /// # Errors
    /// There is no such node.
    pub fn or_port(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::from((self.state.node(name)?.address, OR_PORT)))
    }

    /// What a node's process used since it began.
    #[must_use]
    pub fn usage(&self, name: &str) -> Option<Usage> {
        observe::usage(self.process(name)?.pid)
    }

    /// How long a node's process has been running.
    #[must_use]
    pub(crate) fn age(&self, name: &str) -> Option<Duration> {
        observe::age(self.process(name)?)
    }

    /// CPU seconds of those of a node's threads whose names begin so, each by itself.
    pub(crate) fn threads(&self, name: &str, thread: &str) -> Vec<f64> {
        let process = self.process(name);
        process.map_or_else(Vec::new, |known| observe::threads(known.pid, thread))
    }

    /// Where the files of the node with this name are.
    #[must_use]
    pub fn node_folder(&self, name: &str) -> PathBuf {
        node_folder(&self.places, name)
    }

    /// Waits until a relay, by nickname or fingerprint, is Running and Valid in the consensus, at this address if one
    /// is given, and until the client and the exits have learned it: only then can bytes go through it.
    ///
    /// # Errors
    /// When that takes longer than `patience`.
    pub fn await_relay(&self, name: &str, address: Option<&str>, patience: Duration) -> anyhow::Result<Listed> {
        let fits = |entry: &Listed| {
            entry.is_called(name) && entry.is_usable() && address.is_none_or(|address| entry.address == address)
        };
        let wait = Wait::new(self, patience);
        let found = loop {
            if let Some(found) = self.consensus()?.into_iter().find(fits) {
                break found;
            }
            wait.look_again(&format!("{name} in the consensus"))?;
        };
        self.await_known(&wait, |listed| listed.iter().any(fits))?;
        Ok(found)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut listed = self.consensus().unwrap_or_default();
        let mut nodes = Vec::new();
        for node in &self.state.nodes {
            let entry = listed
                .iter()
                .position(|entry| entry.nickname == node.name)
                .map(|at| listed.remove(at));
            nodes.push(NodeStatus {
                name: node.name.clone(),
                role: node.role,
                address: node.address.to_string(),
                slot: node.slot.is_some(),
                usage: self.process(&node.name).and_then(|known| observe::usage(known.pid)),
                listed: entry,
            });
        }
        Status {
            folder: self.places.state.clone(),
            complete: self.dead().is_empty(),
            nodes,
            strangers: listed,
        }
    }

    /// A relay's metrics as it shows them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, name: &str) -> anyhow::Result<String> {
        let node = self.state.node(name)?;
        observe::scrape(SocketAddr::from((node.address, METRICS_PORT))).with_context(|| format!("metrics of {name}"))
    }

    /// Warnings and errors in the logs of C tor's nodes: the node and the line.
    #[must_use]
    pub fn complaints(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for node in self.state.nodes.iter().filter(|node| node.slot.is_none()) {
            let log = fs::read(node_folder(&self.places, &node.name).join("tor.log")).unwrap_or_default();
            for line in String::from_utf8_lossy(&log)
                .lines()
                .filter(|line| observe::is_complaint(line))
            {
                found.push((node.name.clone(), line.to_owned()));
            }
        }
        found
    }

    /// Names of relays and authorities that run C tor.
    #[must_use]
    pub fn c_tor_relays(&self) -> Vec<String> {
        let ours = self
            .state
            .nodes
            .iter()
            .filter(|node| node.slot.is_none() && node.role != Role::Client);
        ours.map(|node| node.name.clone()).collect()
    }

    /// A node's process, if it runs.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<Known> {
        process::recorded(&self.places, name)
    }

    pub(super) fn control(&self, name: &str) -> anyhow::Result<Control> {
        let node = self.state.node(name)?;
        ensure!(
            node.slot.is_none(),
            "{name} is a slot: only C tor's nodes have a control port"
        );
        let cookie = node_folder(&self.places, name).join("data/control_auth_cookie");
        Control::connect(SocketAddr::from((node.address, CONTROL_PORT)), &cookie)
    }

    fn dead(&self) -> Vec<&str> {
        let names = self.state.nodes.iter().map(|node| node.name.as_str());
        names.filter(|name| self.process(name).is_none()).collect()
    }
}

/// Keeps two commands from changing one network at once; the kernel lets go of it when the process ends.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let named = hex::encode(Sha256::digest(folder.as_os_str().as_encoded_bytes()));
    let name = format!("relayfleet-tornet-{}.lock", named.get(..12).unwrap_or(&named));
    let shared = Path::new("/run/lock");
    let path = if shared.is_dir() {
        shared.join(name)
    } else {
        std::env::temp_dir().join(name)
    };
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().context("cannot lock")?;
    Ok(file)
}

/// Stops what runs and takes the addresses away; the files stay.
fn clear(places: &Places) -> anyhow::Result<()> {
    let recorded = process::names(places)
        .into_iter()
        .filter_map(|name| process::recorded(places, &name));
    let mut running: Vec<Known> = recorded.collect();
    running.extend(process::marked(places));
    for known in &running {
        known.signal(Signal::TERM);
    }
    let end = Instant::now() + GRACE;
    while running.iter().any(Known::alive) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    process::kill_all(&running)?;
    match State::read(places) {
        Ok(Some(state)) => address::remove(&state.addresses_added),
        Ok(None) => Ok(()),
        Err(error) => {
            say::step(format!(
                "{error:#}: if it put addresses on the device lo, they stay (`ip addr show dev lo`)"
            ));
            Ok(())
        }
    }
}

/// What the nodes said last: those that ended, else those where trouble shows first.
fn trouble(places: &Places) -> String {
    let Ok(Some(state)) = State::read(places) else {
        return String::new();
    };
    let started = process::names(places);
    let ended = |name: &&String| process::recorded(places, name).is_none();
    let mut shown: Vec<&String> = started.iter().filter(ended).collect();
    if shown.is_empty() {
        let telling =
            |node: &&super::state::Node| node.slot.is_some() || node.name == "a1" || node.role == Role::Client;
        shown = state.nodes.iter().filter(telling).map(|node| &node.name).collect();
    }
    let mut report = String::new();
    for name in shown {
        for log in [node_folder(places, name).join("tor.log"), places.log(name)] {
            let words = last_words_of(&log);
            if !words.is_empty() {
                report.push_str(&format!("{name} said last ({}):\n{words}", log.display()));
            }
        }
    }
    report
}
