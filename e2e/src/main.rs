//! End to end: real processes on this machine.

use clap::{Parser, Subcommand};

/// Real processes on this machine: a cluster, a private Tor network, images, and what is shown on them.
#[derive(Parser)]
#[command(name = "e2e", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Container images without a registry
    Image(e2e::image::cli::Arguments),
    /// A private Tor network of C tor
    Tornet(e2e::tornet::cli::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Image(arguments) => e2e::image::cli::run(arguments),
        Command::Tornet(arguments) => e2e::tornet::cli::run(arguments),
    }
}
