//! `e2e tornet`: the private Tor network from the command line.

/// What `e2e tornet` is asked to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Does what was asked.
///
/// # Errors
/// Always, as yet: the network manager is not built.
pub fn run(_arguments: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("the private Tor network is not built yet")
}
