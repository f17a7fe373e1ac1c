//! What reaches the supervisor: signals, and word from the other threads.

use std::sync::mpsc::Sender;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::shards::ShardNews;

/// Which signal asks for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// Word for the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The relay is asked to end.
    Stop(Signal),
    /// torrc is to be read again.
    Reload,
    /// torrc is another one than before.
    TorrcChanged,
    /// From a shard.
    Shard(ShardNews),
    /// The name servers lie about everything.
    DnsUseless,
    /// Nobody may move any more before the books are looked at.
    QuotaReached,
    /// The directory part has ended, asked or not.
    DirectoryEnded,
}

/// Starts a thread that turns signals into news. As process 1 of a container we would get no signal that nobody
/// listens to.
pub(super) fn listen_for_signals(news: Sender<News>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let word = match signal {
                SIGINT => News::Stop(Signal::Interrupt),
                SIGTERM => News::Stop(Signal::Terminate),
                SIGHUP => News::Reload,
                // C tor logs statistics at USR1 and turns to debug at USR2; neither must end us.
                _ => {
                    tracing::info!("Signal {signal} is not built yet; ignored.");
                    continue;
                }
            };
            if news.send(word).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
