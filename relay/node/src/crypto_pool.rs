//! Public-key work off the shards' threads: circuit handshakes take a tenth of a millisecond each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use relay_engine::crypto::onion;
use relay_engine::door::{OnionRequest, Ticket};

use crate::shards::{Mailbox, Order};

/// Handshakes that may wait for a thread, all shards together. The engine keeps its own queue by the estimated wait
/// (tor's `MaxOnionQueueDelay`); this bound only keeps memory finite should an engine forget to.
pub const WAITING_MAX: usize = 4_096;

struct Work {
    ticket: Ticket,
    request: OnionRequest,
    answer_to: Mailbox,
}

/// Where shards leave their tickets. Cheap to clone; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct CryptoPool {
    queue: SyncSender<Work>,
}

impl CryptoPool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name(format!("crypto-{number}"))
                .spawn(move || while serve_one(&waiting).is_some() {})?;
        }
        Ok(Self { queue })
    }

    /// Takes the work; the answer comes into `answer_to`. `false` says that the queue is full: refuse the handshake.
    pub fn take(&self, ticket: Ticket, request: OnionRequest, answer_to: Mailbox) -> bool {
        match self.queue.try_send(Work {
            ticket,
            request,
            answer_to,
        }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Waits for one piece of work and does it; `None` when no shard is left to ask.
fn serve_one(waiting: &Mutex<Receiver<Work>>) -> Option<()> {
    let work = waiting.lock().ok()?.recv().ok()?;
    // A client's bytes must not be able to take a thread from all others.
    let answer = catch_unwind(AssertUnwindSafe(|| onion::answer(&work.request))).unwrap_or_else(|_| {
        tracing::error!("Bug: a circuit handshake panicked; it is refused.");
        None
    });
    work.answer_to.post(Order::OnionAnswered {
        ticket: work.ticket,
        answer,
    });
    Some(())
}
