//! The ports for the relay's owner: MetricsPort, and the status port with its probes.
//!
//! `listen` opens them while the process may still be root; `serve` takes connections, few and briefly; `answer` says what
//! each path gives to whom. A thread of its own: neither a slow directory nor a busy shard keeps a probe waiting, and a
//! shard that hangs is found out here.
//!
//! | port | path | for whom |
//! |---|---|---|
//! | `MetricsPort` | `/metrics` | addresses that `MetricsPortPolicy` accepts |
//! | `StatusPort` | `/livez`, `/readyz` | everybody; they tell nothing but yes or no |
//! | `StatusPort` | `/status` | who shows the token of `StatusTokenFile` |

mod answer;
mod listen;
mod serve;
mod token;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use relay_engine::Tally;
use tokio::sync::watch;

pub use listen::{BindError, Port, Ports, listen};

use crate::config::Config;
use crate::keys::Keys;
use crate::rate::RateLimits;
use crate::shards::{self, Mailbox};
use crate::status::Board;
use crate::traffic::Traffic;

/// Whom the ports ask.
pub struct Admin {
    /// The configuration; a new value after each reload.
    pub config: watch::Receiver<Arc<Config>>,
    /// Our keys.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// All shards.
    pub shards: Vec<Mailbox>,
    /// What is counted by the whole process.
    pub traffic: Arc<Traffic>,
    /// How often the relay's rates were reached.
    pub rates: Arc<RateLimits>,
    /// What the relay knows of its standing.
    pub board: Arc<Board>,
    /// File descriptors that links may take.
    pub sockets_max: usize,
    /// Turns `true` when the process is about to end.
    pub shutdown: watch::Receiver<bool>,
}

impl Admin {
    /// What all shards have counted together; none if one of them does not answer.
    async fn tally(&self) -> Option<Tally> {
        shards::tally(&self.shards).await
    }
}

/// Serves `ports` in a thread of its own until `shutdown`.
///
/// # Errors
/// No thread or descriptor left.
pub fn start(ports: Ports, admin: Admin) -> std::io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = {
        let _entered = runtime.enter();
        ports.into_listeners()?
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(serve::serve(listeners, Arc::new(admin)))
        }));
        if ran.is_err() {
            tracing::error!("Bug: the metrics and status ports panicked; they are closed until a restart.");
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
