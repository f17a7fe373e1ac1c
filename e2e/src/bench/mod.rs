//! Our relay beside C tor at the same position, in one network and one run: how fast, and what it costs.
//!
//! Figures of two runs cannot be compared, as machines and their other tenants differ from hour to hour. So C tor and
//! ours take turns, the ratio is made within each round, and a second C tor in the same turns shows how far two equal
//! programs differ: what the bench can resolve.

mod costs;
pub(crate) mod lean;
mod measure;
mod memory;
mod plan;
mod profile;
mod report;
mod scaling;

use std::path::PathBuf;

use anyhow::{Result, bail};

pub use plan::{Place, Way};

use crate::demo::images;
use crate::image;
use crate::programs::repository;
use crate::say;
use crate::story::neighbours::{self, Program};
use crate::tornet::{Network, Slot, Spec, spec};
use measure::Sample;
use plan::{Layout, Subject};

/// Where the bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// C tor's client, over two more relays of C tor: what people do.
    Client,
    /// One lean process that plays everybody around the relay under test: outruns a core of C tor.
    Lean,
}

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Our relay's program; built statically unless given
    #[arg(long)]
    relay: Option<String>,
    /// Where the relay under test stands
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Place::ALL)]
    positions: Vec<Place>,
    /// Streams at the same time, over at most 32 circuits
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 128])]
    streams: Vec<usize>,
    /// Which way the bytes go
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Way::ALL)]
    ways: Vec<Way>,
    /// Rounds; C tor, ours and the second C tor take turns in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of a transfer; a quarter of it with a single stream
    #[arg(long, value_parser = crate::tornet::size, default_value = "200M")]
    bytes: u64,
    /// Where the bytes come from
    #[arg(long, value_enum, default_value_t = Load::Client)]
    load: Load,
    /// Links that the lean load opens to the relay under test
    #[arg(long, default_value_t = 1)]
    load_links: usize,
    /// The lean load's program; built unless given
    #[arg(long)]
    load_program: Option<String>,
    /// Measure circuit handshakes, links and memory too, with the lean load
    #[arg(long)]
    costs: bool,
    /// Measure only what three hops and two workers of ours make of it, with the lean load
    #[arg(long, conflicts_with_all = ["costs", "profile", "no_control"])]
    scaling: bool,
    /// No second C tor
    #[arg(long)]
    no_control: bool,
    /// This program in place of the second C tor, so that two builds of ours take turns; see the --json for their ratios
    #[arg(long, conflicts_with = "no_control")]
    control: Option<String>,
    /// Further torrc line of our relay
    #[arg(long)]
    torrc: Vec<String>,
    /// Write where the CPU time goes into this folder, for C tor and for ours (a build of its own, with symbols)
    #[arg(long)]
    profile: Option<PathBuf>,
    /// Our relay with symbols and frame pointers, for --profile; built unless given
    #[arg(long)]
    relay_with_symbols: Option<String>,
    /// Write every single measurement into this file, a JSON object a line
    #[arg(long)]
    json: Option<PathBuf>,
    /// What issue trackers want to know in a quarter of an hour: three rounds, 1 and 32 streams
    #[arg(long)]
    short: bool,
}

impl Arguments {
    fn needs_load(&self) -> bool {
        self.load == Load::Lean || self.costs || self.scaling
    }

    fn build_what_is_missing(&mut self) -> Result<()> {
        let relay = self.profile.is_some() && self.relay_with_symbols.is_none();
        let load = self.needs_load() && self.load_program.is_none();
        if relay || load {
            say::step("building the relay with symbols, and the lean load (cargo, release)");
            let image::BenchPrograms { relay, load } = image::build_bench(&repository())?;
            self.relay_with_symbols
                .get_or_insert_with(|| relay.display().to_string());
            self.load_program.get_or_insert_with(|| load.display().to_string());
        }
        Ok(())
    }
}

/// Runs the network, measures, and prints a line for each measurement and a table at the end.
///
/// # Errors
/// The network does not come up, or a transfer fails: a relay that loses bytes has no speed.
pub fn run(mut arguments: Arguments) -> Result<()> {
    if arguments.short {
        arguments.streams = vec![1, 32];
        arguments.rounds = 3;
    }
    if arguments.scaling {
        arguments.positions.clear();
    }
    let folder = spec::folder().with_file_name("relayfleet-bench");
    let _alone = neighbours::alone(&folder)?;
    Network::down(&folder)?;
    let relay = match &arguments.relay {
        Some(relay) => relay.clone(),
        None => images::programs()?.relay.display().to_string(),
    };
    let mut programs = vec![(Subject::Ours, Program::take(&relay)?)];
    if let Some(control) = &arguments.control {
        programs.push((Subject::Control, Program::take(control)?));
    }
    arguments.build_what_is_missing()?;
    if arguments.profile.is_some()
        && let Some(relay) = &arguments.relay_with_symbols
    {
        programs.push((Subject::Profiled, Program::take(relay)?));
    }
    let layout = Layout::new(!arguments.no_control, arguments.profile.is_some());
    let network = Network::up(&folder, &spec(&arguments, &layout, &programs)?)?;
    match measured(&network, &arguments, &layout) {
        Ok(()) => Network::down(&folder),
        Err(error) => {
            Network::stop(&folder)?;
            bail!("{error:#}\nthe logs: {}", folder.join("node").display())
        }
    }
}

fn spec(arguments: &Arguments, layout: &Layout, programs: &[(Subject, Program)]) -> Result<Spec> {
    let mut slots = Vec::new();
    let mut torrc = Vec::new();
    let mut places = arguments.positions.clone();
    if arguments.costs {
        places.extend([Place::Guard, Place::Exit]);
    }
    for place in &places {
        for (subject, program) in programs {
            let Some(node) = layout.node(*place, *subject) else {
                continue;
            };
            if slots.iter().any(|slot: &Slot| slot.node == node) {
                continue;
            }
            torrc.extend(arguments.torrc.iter().map(|line| (node.clone(), line.clone())));
            slots.push(Slot {
                node,
                command: program.command(),
            });
        }
    }
    if let (true, Some((_, program))) = (arguments.scaling, programs.first()) {
        (slots, torrc) = scaling::slots(layout, &program.command())?;
    }
    Ok(Spec {
        prefix: neighbours::prefix(),
        relays: layout.relays(),
        exits: layout.exits(places.contains(&Place::Exit) || arguments.scaling),
        slots,
        torrc,
        // Votes cost CPU; the network is up for less than this.
        voting_interval: std::time::Duration::from_secs(300),
        ..Spec::default()
    })
}

fn measured(network: &Network, arguments: &Arguments, layout: &Layout) -> Result<()> {
    let mut samples: Vec<Sample> = Vec::new();
    report::machine();
    let lean = if arguments.needs_load() {
        Some(lean::Lean::take(network, layout, arguments)?)
    } else {
        None
    };
    if let Some(lean) = lean.as_ref().filter(|_| arguments.costs) {
        say::plain(costs::measured(network, layout, lean, arguments.rounds)?);
    }
    if let Some(lean) = lean.as_ref().filter(|_| arguments.scaling) {
        say::plain(scaling::measured(network, layout, lean, arguments.rounds)?);
    }
    for place in &arguments.positions {
        for subject in layout.subjects() {
            measure::warm_up(network, layout, *place, *subject)?;
        }
        for streams in &arguments.streams {
            for way in &arguments.ways {
                let case = plan::Case {
                    place: *place,
                    way: *way,
                    streams: *streams,
                    bytes: if *streams == 1 {
                        arguments.bytes / 4
                    } else {
                        arguments.bytes
                    },
                };
                samples.extend(rounds(network, arguments, layout, lean.as_ref(), case)?);
            }
        }
    }
    if let Some(path) = &arguments.json {
        report::write_json(path, &samples)?;
    }
    if !samples.is_empty() {
        say::plain(report::table(&samples));
    }
    if let Some(folder) = &arguments.profile {
        profile::take(network, layout, &arguments.positions, arguments.bytes, folder)?;
    }
    Ok(())
}

fn rounds(
    network: &Network,
    arguments: &Arguments,
    layout: &Layout,
    lean: Option<&lean::Lean>,
    case: plan::Case,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 0..arguments.rounds {
        // Each is first as often as the others: what a turn leaves behind would favour the same one every time.
        let measured = layout.measured();
        for subject in measured
            .iter()
            .cycle()
            .skip(round % measured.len())
            .take(measured.len())
        {
            let measure = || match lean.filter(|_| arguments.load == Load::Lean) {
                Some(lean) => lean.one(network, layout, case, *subject, round),
                None => measure::one(network, layout, case, *subject, round),
            };
            // C tor alone loses the end of a stream now and then where several share a circuit.
            let sample = measure().or_else(|error| {
                say::step(format!("once more: {error:#}"));
                measure()
            })?;
            say::step(report::line(&sample));
            samples.push(sample);
        }
    }
    Ok(samples)
}
