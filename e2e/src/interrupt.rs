//! Ctrl-C: nothing is half written by it, as after a kill; the person is told what remains.

use std::process::exit;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::say;

/// Tells what remains and ends, when someone interrupts. What was started lives in sessions of its own and hears
/// nothing of it.
///
/// # Errors
/// The signals cannot be caught.
pub fn explain_on_interrupt() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            say::step(
                "interrupted: what is up stays up, and the next run clears away what is half done. \
                 Take it all away with e2e/demo --down",
            );
            exit(128 + signal);
        }
    });
    Ok(())
}
