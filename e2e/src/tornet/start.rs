//! From a spec to a network that a client can use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::consensus::{self, Listed};
use super::control::Control;
use super::network::Network;
use super::spec::Spec;
use super::state::{self, Node, Role, State, node_folder};
use super::torrc::{self, VotingOffset};
use super::{address, keys, observe};
use crate::state::Places;
use crate::{process, say};

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// For relays that every authority lists already: they ask every few seconds at most.
const SLOTS_PATIENCE: Duration = Duration::from_secs(60);

/// Lays out folders, addresses, keys and torrcs. What it does to the machine stands in the state file before it does it.
pub(super) fn lay_out(places: &Places, spec: &Spec) -> anyhow::Result<State> {
    places.claim()?;
    fs::write(places.state.join("empty"), "")?;
    let mut state = State {
        spec: spec.clone(),
        tor: program("tor")?,
        nodes: nodes(spec)?,
        addresses_added: Vec::new(),
        authorities: Vec::new(),
        ready: false,
    };
    let mut wanted: Vec<_> = state.nodes.iter().map(|node| node.address).collect();
    wanted.push(state.source_address()?);
    state.addresses_added = address::missing(&wanted)?;
    state.write(places)?;
    address::add(&state.addresses_added)?;
    address::ensure_free(&wanted)?;

    for node in &state.nodes {
        make_private(&node_folder(places, &node.name).join("data/keys"))?;
    }
    keys::restore(places, &state)?;
    state.authorities = keys::authorities(places, &state, &program("tor-gencert")?)?;
    let offset = voting_offset(places, &state);
    let empty = places.state.join("empty");
    let empty_path = empty.to_str().context("the network's folder is not text")?;
    for node in &mut state.nodes {
        let path = node_folder(places, &node.name).join("torrc");
        let path = path.to_str().context("the network's folder is not text")?;
        for word in node.slot.iter_mut().flatten() {
            *word = word.replace("{torrc}", path).replace("{empty}", empty_path);
        }
    }
    for node in &state.nodes {
        let folder = node_folder(places, &node.name);
        let text = torrc::of(&state, node, &folder, &empty, offset);
        fs::write(folder.join("torrc"), text)?;
    }
    state.write(places)?;
    Ok(state)
}

/// Tor refuses a data folder that others may read.
fn make_private(keys: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(keys)?;
    for folder in [Some(keys), keys.parent()].into_iter().flatten() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn nodes(spec: &Spec) -> anyhow::Result<Vec<Node>> {
    let kinds = [
        (Role::Authority, 'a', spec.authorities),
        (Role::Relay, 'r', spec.relays),
        (Role::Exit, 'e', spec.exits),
        (Role::Client, 'c', spec.clients),
    ];
    let named = kinds
        .into_iter()
        .flat_map(|(role, letter, count)| (1..=count).map(move |n| (role, format!("{letter}{n}"))));
    let mut nodes = Vec::new();
    for ((role, name), last) in named.zip(1..) {
        let slot = spec
            .slots
            .iter()
            .find(|slot| slot.node == name)
            .map(|slot| slot.command.clone());
        nodes.push(Node {
            address: state::address(&spec.prefix, last)?,
            name,
            role,
            slot,
        });
    }
    for slot in &spec.slots {
        if !nodes
            .iter()
            .any(|node| node.name == slot.node && matches!(node.role, Role::Relay | Role::Exit))
        {
            bail!("no relay or exit is called {}: a slot cannot stand there", slot.node);
        }
    }
    Ok(nodes)
}

/// Votes happen at fixed times of day: every 5 s at first, plus this offset. It is chosen so that the first vote comes
/// when all descriptors are in, and no later.
fn voting_offset(places: &Places, state: &State) -> VotingOffset {
    let relays = state.relays();
    let keyless = |name: &&String| !node_folder(places, name).join("data/keys/secret_id_key").exists();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Measured: a start costs 0.2 s of a core, an RSA key four times that.
    let work = 0.2 * relays.len() as f64 + 0.8 * relays.iter().filter(keyless).count() as f64;
    let first_vote = Duration::from_secs_f64(5.0 + work / cores as f64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    VotingOffset((now + first_vote).as_secs() % torrc::INITIAL_VOTING_SECONDS)
}

/// A program on the PATH or where Debian hides it from users who are not root.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into(), "/usr/sbin".into()]);
    let mut places = folders.map(|folder| folder.join(name));
    places
        .find(|place| place.is_file())
        .with_context(|| format!("no {name} on the PATH: apt-get install tor"))
}

impl Network {
    /// Starts the nodes with these names; waits for nothing.
    pub(super) fn start(&self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            let node = self.state.node(name)?;
            let folder = node_folder(&self.places, name);
            let mut command = match node.slot.as_deref() {
                Some([program, arguments @ ..]) => {
                    let mut command = Command::new(program);
                    command.args(arguments);
                    command
                }
                _ => {
                    let mut command = Command::new(&self.state.tor);
                    command.arg("--defaults-torrc").arg(self.places.state.join("empty"));
                    command.arg("-f").arg(folder.join("torrc")).arg("--quiet");
                    command
                }
            };
            command.current_dir(&folder);
            process::spawn(&self.places, name, None, &mut command)?;
        }
        Ok(())
    }

    /// Starts everything and waits until a client can use every relay.
    pub(super) fn bring_up(&self) -> anyhow::Result<()> {
        let wait = Wait::new(self, self.state.spec.patience);
        let relays = self.state.relays();
        self.start(&relays)?;
        self.await_listed(&wait, &relays)?;
        say::step("the consensus lists every relay");

        let seconds = self.state.spec.voting_interval.as_secs();
        for name in self.state.names(&[Role::Authority]) {
            self.control(&name)?
                .command(&format!("SETCONF V3AuthVotingInterval={seconds}"))?;
        }
        self.start(&self.state.names(&[Role::Client]))?;
        self.await_known(&wait, |listed| {
            relays
                .iter()
                .all(|name| listed.iter().any(|entry| entry.nickname == *name))
        })?;
        self.await_slots()
    }

    /// Waits until the relays in slots know the network too: an exit that does not refuses what comes from relays that it
    /// has not heard of. One that shows no metrics is not waited for.
    fn await_slots(&self) -> anyhow::Result<()> {
        let wait = Wait::new(self, SLOTS_PATIENCE);
        for name in self.state.relays() {
            if self.state.node(&name)?.slot.is_none() {
                continue;
            }
            while self
                .metrics(&name)
                .is_ok_and(|page| observe::sum_of(&page, "tor_relay_flag").is_none_or(|flags| flags == 0.0))
            {
                wait.look_again(&format!("{name} to have a consensus"))?;
            }
        }
        Ok(())
    }

    fn await_listed(&self, wait: &Wait<'_>, relays: &[String]) -> anyhow::Result<()> {
        let first = self
            .state
            .names(&[Role::Authority])
            .into_iter()
            .next()
            .context("no authority")?;
        let mut control = wait.control(&first)?;
        let mut told = false;
        loop {
            let listed = listed(&mut control)?;
            let lacking: Vec<&str> = relays
                .iter()
                .map(String::as_str)
                .filter(|name| !listed.iter().any(|entry| entry.nickname == *name && entry.is_usable()))
                .collect();
            if lacking.is_empty() {
                return Ok(());
            }
            if !listed.is_empty() && !told {
                say::step(format!("a consensus is there, and lacks {} as yet", lacking.join(", ")));
                told = true;
            }
            wait.look_again(&format!("{} in the consensus", lacking.join(", ")))?;
        }
    }

    /// Waits until clients have the descriptors of all relays that fit, and relays the consensus: exits refuse
    /// streams that come from a relay they do not know. A stranger cannot be asked.
    pub(super) fn await_known(&self, wait: &Wait<'_>, fits: impl Fn(&[Listed]) -> bool) -> anyhow::Result<()> {
        let ours = self
            .state
            .nodes
            .iter()
            .filter(|node| node.slot.is_none() && node.role != Role::Authority);
        for node in ours {
            let mut control = wait.control(&node.name)?;
            let mut asked: Option<Instant> = None;
            loop {
                let listed = listed(&mut control)?;
                if fits(&listed) && (node.role != Role::Client || is_equipped(&mut control, &listed)?) {
                    break;
                }
                if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(1)) {
                    // Without a nudge tor waits for its own time to fetch the next consensus, and a client that was
                    // idle for an hour fetches no descriptors at all until someone asks something of it.
                    let nudge = if node.role == Role::Client {
                        "RESOLVE awake.invalid"
                    } else {
                        "SIGNAL RELOAD"
                    };
                    control.command(nudge)?;
                    asked = Some(Instant::now());
                }
                wait.look_again(&format!("{} to know the relays", node.name))?;
            }
        }
        Ok(())
    }
}

/// What a node's consensus lists; nothing as long as it has none.
pub(super) fn listed(control: &mut Control) -> anyhow::Result<Vec<Listed>> {
    Ok(consensus::read(&control.info("ns/all")?.unwrap_or_default()))
}

/// Whether a client could build circuits, and holds every relay's microdescriptor. It builds none of its own accord, so
/// its bootstrap never says that it is done.
fn is_equipped(control: &mut Control, listed: &[Listed]) -> anyhow::Result<bool> {
    if control.info("status/enough-dir-info")?.as_deref() != Some("1") {
        return Ok(false);
    }
    for entry in listed {
        if control.info(&format!("md/id/{}", entry.fingerprint))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waiting with an end, which comes early if a node dies.
pub(super) struct Wait<'a> {
    network: &'a Network,
    patience: Duration,
    end: Instant,
}

impl<'a> Wait<'a> {
    pub(super) fn new(network: &'a Network, patience: Duration) -> Self {
        Self {
            network,
            patience,
            end: Instant::now() + patience,
        }
    }

    /// A control connection to a node that may still be starting.
    pub(super) fn control(&self, name: &str) -> anyhow::Result<Control> {
        loop {
            match self.network.control(name) {
                Ok(control) => return Ok(control),
                Err(_) => self.look_again(&format!("the control port of {name}"))?,
            }
        }
    }

    /// Lets a moment pass.
    pub(super) fn look_again(&self, what: &str) -> anyhow::Result<()> {
        for name in process::names(&self.network.places) {
            if process::recorded(&self.network.places, &name).is_none() {
                bail!("{name} ended by itself while we waited for {what}");
            }
        }
        if Instant::now() > self.end {
            bail!("gave up after {} s waiting for {what}", self.patience.as_secs());
        }
        std::thread::sleep(LOOK);
        Ok(())
    }
}
