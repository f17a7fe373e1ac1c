//! Holds a pod's namespaces open until it is told to end, and buries what is orphaned there.
//!
//! The first process of a pod's sandbox. As process 1 it is spared the default deed of every signal, so it ends only
//! because it listens for them.

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    for signal in signals.forever() {
        if signal != SIGCHLD {
            break;
        }
        // One SIGCHLD may stand for several dead children.
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    }
    Ok(())
}
