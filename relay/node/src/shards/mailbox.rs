//! What other threads may tell a shard.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::{Poll, Token, Waker};
use relay_engine::Tally;
use relay_engine::door::{OnionAnswer, Ticket};
use relay_engine::network::NetworkView;
use relay_engine::settings::Settings;
use tokio::sync::oneshot;

use crate::dns::{Key, Outcome};
use crate::exits::Rules;
use crate::link_keys::LinkKeys;

/// News from other threads. The answers, which are its largest kind, are its commonest one too.
#[allow(clippy::large_enum_variant)]
pub enum Order {
    /// After a reload or a key rotation.
    Settings(Arc<Settings>),
    /// A newer consensus.
    Network(Arc<NetworkView>),
    /// New links use these.
    LinkKeys(Arc<LinkKeys>),
    /// Work of the crypto pool.
    OnionAnswered {
        /// Its ticket.
        ticket: Ticket,
        /// `None` refuses the handshake.
        answer: Option<OnionAnswer>,
    },
    /// After a reload or a newer consensus: where streams may go.
    ExitRules(Arc<Rules>),
    /// The DNS has answered, or never will.
    NameAnswered {
        /// What was asked.
        key: Key,
        /// How it ended.
        outcome: Outcome,
    },
    /// Stop listening, refuse new circuits, say when none is open.
    Retire,
    /// Say what has been counted; the answer also shows that the shard is alive.
    Count(oneshot::Sender<Tally>),
    /// End the thread.
    Stop,
}

/// A shard's letter box. Not bounded by itself: answers are bounded by the crypto pool's queue and by the
/// questions to the DNS that a shard may have, and all other orders
/// come from one supervisor at human speed, or from the few who may read the metrics at once.
#[derive(Clone)]
pub struct Mailbox {
    letters: Sender<Order>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// A mailbox whose post wakes `poll` with `token`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(poll: &Poll, token: Token) -> std::io::Result<(Self, Receiver<Order>)> {
        let (letters, inbox) = channel();
        let waker = Arc::new(Waker::new(poll.registry(), token)?);
        Ok((Self { letters, waker }, inbox))
    }

    /// Leaves an order. A shard that has ended gets no post, and nobody minds.
    pub fn post(&self, order: Order) {
        if self.letters.send(order).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!("Couldn't wake a shard: {error}");
        }
    }
}
