//! The running relay: starts its threads, keeps its keys fresh, heeds signals, ends it.

mod maintenance;
mod news;
mod quota;
mod start;
mod torrc_watch;

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use crate::accounting::keeper;
use crate::cli::CommandLine;
use crate::shards::{Order, ShardNews};
use crate::startup;

use news::News;
use start::Relay;

/// How often keys and certificates are looked at, also where no file has changed.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// How often the files are looked at that others may change: a new signing key is taken up this soon.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);
/// How long the threads may take to end once nothing is left to wait for.
const ENDING_TIME_MAX: Duration = Duration::from_secs(2);

/// Is a relay until it is told to stop; the exit code of the process.
pub fn run(line: &CommandLine) -> ExitCode {
    match start::start(line) {
        Ok((mut relay, news)) => supervise(line, &mut relay, &news),
        Err(error) => startup::refuse(&error),
    }
}

/// How the relay ends.
enum Ending {
    /// As it was told.
    Clean,
    /// By a fault that is in the log already.
    Fault,
}

fn supervise(line: &CommandLine, relay: &mut Relay, news: &Receiver<News>) -> ExitCode {
    let ending = loop {
        let patience = match relay.keeper.has_quota() {
            true => keeper::LOOK_EVERY,
            false => LOOK_AT_FILES,
        };
        let heard = news.recv_timeout(patience);
        quota::look(relay);
        match heard {
            Ok(News::Stop(signal)) => break retire(relay, news, signal),
            Ok(News::Reload) => {
                tracing::info!("Received reload signal (hup). Reloading config and resetting internal state.");
                maintenance::reload(line, relay);
            }
            Ok(News::TorrcChanged) => {
                tracing::info!("torrc has changed on disk. Reloading config.");
                maintenance::reload(line, relay);
            }
            Ok(News::DnsUseless) => maintenance::give_up_exit(relay),
            Ok(News::Shard(ShardNews::Broken) | News::DirectoryEnded) => break Ending::Fault,
            // The look above was what it is about.
            Ok(News::QuotaReached | News::Shard(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                if maintenance::look_if_due(relay).is_err() {
                    break Ending::Fault;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break Ending::Fault,
        }
    };
    end(relay, news);
    quota::look(relay);
    relay.keeper.save(SystemTime::now());
    match ending {
        Ending::Clean => {
            tracing::info!("Clean shutdown finished. Exiting.");
            ExitCode::SUCCESS
        }
        Ending::Fault => ExitCode::FAILURE,
    }
}

/// Stops taking connections and circuits, and waits for the open ones: in a pod SIGTERM comes first, so it does what
/// SIGINT does to C tor.
fn retire(relay: &mut Relay, news: &Receiver<News>, signal: news::Signal) -> Ending {
    if signal == news::Signal::Terminate {
        tracing::info!("Catching signal TERM, exiting cleanly.");
    }
    let wait = relay.config.borrow().shutdown_wait;
    tracing::info!(
        "Interrupt: we have stopped accepting new connections, and will shut down in {} seconds. Interrupt again to \
         exit now.",
        wait.as_secs()
    );
    relay.board.note_retiring();
    relay.listening.clear();
    relay.shards.iter().for_each(|shard| shard.post(Order::Retire));
    let until = Instant::now() + wait;
    let mut busy = relay.shards.len();
    while busy > 0 {
        match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(News::Shard(ShardNews::Quiet)) => busy -= 1,
            Ok(News::Shard(ShardNews::Broken) | News::DirectoryEnded) => return Ending::Fault,
            Ok(
                News::Reload
                | News::TorrcChanged
                | News::DnsUseless
                | News::QuotaReached
                | News::Shard(ShardNews::Stopped),
            ) => {}
            Ok(News::Stop(_)) | Err(_) => break,
        }
    }
    Ending::Clean
}

/// Ends the threads; links get their last bytes out, if they take no longer than `ENDING_TIME_MAX`.
fn end(relay: &mut Relay, news: &Receiver<News>) {
    let _ = relay.shutdown.send(true);
    relay.shards.iter().for_each(|shard| shard.post(Order::Stop));
    let until = Instant::now() + ENDING_TIME_MAX;
    let mut running = relay.shards.len() + 1;
    while running > 0 {
        match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(News::Shard(ShardNews::Stopped | ShardNews::Broken) | News::DirectoryEnded) => running -= 1,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
