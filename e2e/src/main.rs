//! The command line over the crate `e2e`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::suite::Layer;
use e2e::suite::stories::Form;
use e2e::{bench, cluster, demo, fuzz, image, interrupt, programs, say, scale, snapshot, story, suite, tornet};

/// Real processes on this machine: a cluster, a private Tor network, and the stories told on them.
#[derive(Parser)]
#[command(name = "e2e", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Everything at once, to look at: cluster, Tor network, operator, relays, a fetch through them.
    Demo(demo::Arguments),
    /// Every test of the project, or one layer of them.
    Test {
        /// Which layer.
        #[arg(value_enum, default_value = "all")]
        layer: Layer,
        /// One story of the layer e2e, by its name.
        story: Option<String>,
    },
    /// Build Kubernetes' own programs (once per machine and version) and print their folder.
    Programs,
    /// A real Kubernetes in network namespaces of its own.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Container images without a registry.
    Image(image::cli::Arguments),
    /// A private Tor network of C tor.
    Tornet(tornet::cli::Arguments),
    /// What is shown on real processes.
    #[command(subcommand)]
    Story(Story),
    /// Our relay beside C tor at the same position: how fast, and what it costs.
    Bench(bench::Arguments),
    /// The relay's fuzz targets: search each for some minutes, and keep what was learnt.
    Fuzz(fuzz::Arguments),
    /// Everything of this machine that a run of ours could leave behind, one line each.
    Snapshot,
}

#[derive(Subcommand)]
enum Story {
    /// Our relay as a node of a network of C tor: bytes through it, and no complaint.
    Slot(story::slot::Slotted),
    /// Clients of C tor's that know nothing learn the network from our relay, their only directory and guard.
    Bootstrap(story::bootstrap::Bootstrap),
    /// Relays of ours as guard, middle, exit and all three: bytes both ways, C tor's own flags, and no complaint.
    Carry(story::carry::Carried),
    /// C tor's client links circuits to an exit of ours, and bytes come whole over them.
    Conflux(story::conflux::Linked),
    /// An onion service of C tor's whose introduction points, rendezvous points and directories are all ours.
    Onion(story::onion::Onions),
    /// One of the stories that are told on the demo, on the one that is up.
    Demo {
        /// Its name, as in `e2e/test e2e NAME`.
        name: String,
        /// All of it, not only what every run of all tests has time for.
        #[arg(long)]
        long: bool,
    },
    /// A hostile peer of our own plays every attack against C tor and ours in one run, and compares the answers.
    Hostile(story::hostile::Hostility),
    /// A quota of 60 MiB under load, beside C tor: what goes beyond it, a kill, sleep and wake.
    Accounting(story::accounting::Quotas),
    /// C tor and ours scraped side by side under the same load: every series of C tor's is in ours, or the reference says why.
    Scrape(story::scrape::Scraped),
    /// Mixed load for as long as asked for, with neighbours that are killed: memory stays, and nothing is left open.
    Endure(story::endure::Endured),
    /// Floods of every kind, against C tor and ours in turn: honest bytes go on, memory is bounded, all is given back.
    Floods(story::floods::Flooded),
    /// A thousand Relays on a real API server with simulated nodes: time, memory, CPU, reads and writes of the operator.
    Thousand(scale::Thousand),
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Start it, or use the one that is up; what a killed run left half done is cleared away first.
    Up {
        /// Nodes, each a network namespace of its own.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
    /// Stop it and remove everything of it.
    Down,
    /// Bring OCI archives into the containerd of every node.
    Import {
        /// Archives as `docker save` or the image builder write them.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Print the path of the running cluster's kubeconfig.
    Kubeconfig,
}

fn main() -> ExitCode {
    // The clock of the progress lines starts here.
    say::elapsed();
    match run(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::step(format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Demo(arguments) => {
            interrupt::explain_on_interrupt()?;
            demo::run(&arguments)?;
        }
        What::Test { layer, story } => {
            interrupt::explain_on_interrupt()?;
            suite::run(layer, story.as_deref())?;
        }
        What::Programs => say::plain(programs::ready()?.display().to_string()),
        What::Cluster(ClusterCommand::Up { nodes }) => {
            let cluster = cluster::up(nodes)?;
            say::plain(cluster.kubectl(["get", "nodes", "-o", "wide"])?);
            say::plain(format!("export KUBECONFIG={}", cluster.kubeconfig().display()));
        }
        What::Cluster(ClusterCommand::Down) => cluster::down()?,
        What::Cluster(ClusterCommand::Import { archives }) => cluster::running()?.import(&archives)?,
        What::Cluster(ClusterCommand::Kubeconfig) => {
            say::plain(cluster::running()?.kubeconfig().display().to_string());
        }
        What::Image(arguments) => image::cli::run(arguments)?,
        What::Tornet(arguments) => tornet::cli::run(arguments)?,
        What::Story(Story::Slot(slotted)) => story::slot::tell(&slotted)?,
        What::Story(Story::Conflux(linked)) => story::conflux::tell(&linked)?,
        What::Story(Story::Onion(onions)) => story::onion::tell(&onions)?,
        What::Story(Story::Accounting(quotas)) => story::accounting::tell(&quotas)?,
        What::Story(Story::Scrape(scraped)) => story::scrape::tell(&scraped)?,
        What::Story(Story::Endure(endured)) => story::endure::tell(&endured)?,
        What::Story(Story::Floods(flooded)) => story::floods::tell(&flooded)?,
        What::Story(Story::Hostile(hostility)) => story::hostile::tell(&hostility)?,
        What::Story(Story::Thousand(thousand)) => scale::tell(&thousand)?,
        What::Story(Story::Bootstrap(bootstrap)) => story::bootstrap::tell(&bootstrap)?,
        What::Story(Story::Carry(carried)) => story::carry::tell(&carried)?,
        What::Story(Story::Demo { name, long }) => {
            let form = if long { Form::Long } else { Form::Short };
            suite::stories::tell(&name, form)?;
        }
        What::Bench(arguments) => bench::run(arguments)?,
        What::Fuzz(arguments) => fuzz::run(&arguments)?,
        What::Snapshot => say::plain(snapshot::take()?.to_string()),
    }
    Ok(())
}
