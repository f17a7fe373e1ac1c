//! The relay process.

use std::process::ExitCode;

use relay_node::cli::{self, Command};
use relay_node::{startup, supervisor};

/// Ten thousand queues that grow and shrink would tear holes into the C library's heap, which it gives back from its end
/// only. The C libraries among us call it too (`Cargo.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let line = match cli::parse(std::env::args().skip(1)) {
        Ok(line) => line,
        Err(error) => return startup::refuse(&error),
    };
    match &line.command {
        Command::Help => startup::say(cli::HELP),
        Command::Version => startup::say(&startup::version_text()),
        Command::VerifyConfig => startup::verify_config(&line),
        Command::ListFingerprint { ed25519 } => startup::list_fingerprint(&line, *ed25519),
        Command::Keygen { no_passphrase } => startup::keygen(&line, *no_passphrase),
        Command::ImportKeys { from, to } => startup::import_keys(from, to),
        Command::Run => supervisor::run(&line),
    }
}

#[cfg(test)]
mod tests {
    use tikv_jemalloc_ctl::opt;

    /// `.cargo/config.toml` says so when the allocator is built; a build that has not read it would hold more for each thread.
    #[test]
    fn what_is_freed_stays_with_no_thread_and_goes_back_to_the_system() {
        assert!(!opt::tcache::read().unwrap(), "a cache for each thread");
        assert!(opt::background_thread::read().unwrap(), "nobody who gives back");
    }
}
