//! The lean load as a process beside the network: it plays two relays that the network lists and that do not run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::Arguments;
use super::measure::{Counted, Sample};
use super::plan::{Case, Layout, Place, Subject, Way};
use crate::story::neighbours::Program;
use crate::tornet::Network;
use crate::tornet::observe::{self, Usage};

/// The program, and whose parts it plays.
pub(crate) struct Lean {
    program: Program,
    links: usize,
    before: String,
    behind: String,
    /// Off: circuits end at the relay under test, and another run may stand behind it.
    listens: bool,
    niceness: u8,
}

/// A run of it.
pub(crate) struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What it says of a transfer.
#[derive(Deserialize)]
struct Carried {
    cells: u64,
    bytes: Option<u64>,
    seconds: f64,
}

impl Lean {
    /// Ends the two relays that it plays.
    pub(super) fn take(network: &Network, layout: &Layout, arguments: &Arguments) -> Result<Self> {
        let program = arguments.load_program.as_deref().context("no lean load was built")?;
        Ok(Self {
            links: arguments.load_links,
            ..Self::playing(network, program, layout.played())?
        })
    }

    /// Ends the relays before and behind, and plays them from now on.
    pub(crate) fn playing(network: &Network, program: &str, [before, behind]: [String; 2]) -> Result<Self> {
        network.end(&before)?;
        network.end(&behind)?;
        Ok(Self {
            program: Program::take(program)?,
            links: 1,
            before,
            behind,
            listens: true,
            niceness: 0,
        })
    }

    /// The same with less of a claim to the CPU: 0 to 19.
    pub(crate) fn nice(self, niceness: u8) -> Self {
        Self { niceness, ..self }
    }

    /// The same for who is not behind the relay: it may run beside another that is.
    pub(crate) fn only_before(self) -> Self {
        Self { listens: false, ..self }
    }

    /// Starts it against a relay, and waits until it is ready.
    pub(crate) fn start<'a>(
        &self,
        network: &Network,
        node: &str,
        what: impl IntoIterator<Item = &'a str>,
    ) -> Result<Running> {
        self.started(network, node, what, self.listens)
    }

    /// The same for what needs nobody behind the relay: any number of these may run at once.
    pub(super) fn start_beside<'a>(
        &self,
        network: &Network,
        node: &str,
        what: impl IntoIterator<Item = &'a str>,
    ) -> Result<Running> {
        self.started(network, node, what, false)
    }

    fn started<'a>(
        &self,
        network: &Network,
        node: &str,
        what: impl IntoIterator<Item = &'a str>,
        listens: bool,
    ) -> Result<Running> {
        let descriptor = network.descriptor(node)?;
        let word = |name: &str| {
            let line = descriptor.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.map(str::to_owned)
                .with_context(|| format!("the descriptor of {node} lacks {name}"))
        };
        let fingerprint: String = descriptor
            .lines()
            .find_map(|line| line.strip_prefix("fingerprint "))
            .with_context(|| format!("the descriptor of {node} lacks its fingerprint"))?
            .split_whitespace()
            .collect();
        let mut command = Command::new("nice");
        command
            .args(["-n", &self.niceness.to_string(), self.program.path()])
            .args(["--relay", &network.or_port(node)?.to_string()])
            .args(["--fingerprint", &fingerprint])
            .args(["--ed25519", &word("master-key-ed25519 ")?])
            .args(["--onion-key", &word("ntor-onion-key ")?]);
        for (name, played) in [("before", &self.before), ("behind", &self.behind)] {
            let mut address = network.or_port(played)?;
            if !listens {
                address.set_port(0);
            }
            command
                .arg(format!("--{name}-directory"))
                .arg(network.node_folder(played).join("data"))
                .args([format!("--{name}"), address.to_string()]);
        }
        let mut child = command
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the lean load")?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        let mut running = Running {
            child,
            input,
            output: BufReader::new(output),
        };
        let ready = running.line().with_context(|| format!("the load against {node}"))?;
        if ready.get("ready").is_none() {
            bail!("the load is not ready: {ready}");
        }
        Ok(running)
    }

    /// One measurement.
    pub(super) fn one(
        &self,
        network: &Network,
        layout: &Layout,
        case: Case,
        subject: Subject,
        round: usize,
    ) -> Result<Sample> {
        let node = layout.node(case.place, subject).context("no such node")?;
        let (cells, bytes) = (case.cells().to_string(), case.bytes.to_string());
        let (streams, links) = (case.streams.to_string(), self.links.min(case.streams).to_string());
        let circuits = case.circuits().to_string();
        let mut what = match case.place {
            Place::Exit => vec![
                "exit",
                "--bytes",
                &bytes,
                "--streams",
                &streams,
                "--circuits",
                &circuits,
            ],
            Place::Guard | Place::Middle => vec!["carry", "--cells", &cells, "--circuits", &streams, "--links", &links],
        };
        if case.place == Place::Guard {
            what.push("--as-client");
        }
        if case.way == Way::Down {
            what.push("--down");
        }
        let mut running = self.start(network, &node, what)?;
        let before = network.usage(&node).context("the relay under test ended")?;
        let own_before = running.usage()?;
        let carried: Carried = serde_json::from_value(running.once()?)?;
        let after = network.usage(&node).context("the relay under test ended")?;
        let counted = Counted {
            cells: carried.cells,
            bytes: carried.bytes.unwrap_or(case.bytes),
            seconds: carried.seconds,
            cpu_seconds: after.since(Some(&before)),
            other_cpu_seconds: running.usage()?.since(Some(&own_before)),
            rss_kib: after.rss_kib,
        };
        running.end()?;
        Ok(counted.sample(subject, case, round))
    }
}

impl Running {
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!(
                "the load ended by itself ({}); its last words stand above",
                self.child.wait()?
            );
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Lets it do its work once.
    pub(crate) fn once(&mut self) -> Result<Value> {
        writeln!(self.input, "go")?;
        self.line()
    }

    /// What it used itself.
    pub(crate) fn usage(&self) -> Result<Usage> {
        observe::usage(i32::try_from(self.child.id())?).context("the load ended by itself")
    }

    /// Its links go with it.
    pub(crate) fn end(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait().map(drop).context("the load does not end")
    }
}
