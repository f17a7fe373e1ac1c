//! What other threads may tell a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::net::TcpStream;
use mio::{Poll, Token, Waker};
use relay_engine::Tally;
use relay_engine::door::{Load, OnionAnswer, ShardId, Ticket};
use relay_engine::dos::Post;
use relay_engine::network::NetworkView;
use relay_engine::settings::Settings;
use relay_formats::facts::AccountingState;
use tokio::sync::oneshot;

use super::siblings::Place;
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
    /// What another shard's engine has for this one's.
    Carried {
        /// Which shard.
        from: ShardId,
        /// What.
        load: Load,
    },
    /// A connection that the listening shard has accepted for this one.
    Welcome {
        /// The connection.
        stream: TcpStream,
        /// Who connected. Never logged.
        peer: SocketAddr,
        /// Its place among the links, counted already.
        place: Place,
    },
    /// Sleep as the quota wants, or wake.
    Hibernate(AccountingState),
    /// Stop listening, refuse new circuits, say when none is open.
    Retire,
    /// Say what has been counted; the answer also shows that the shard is alive.
    Count(oneshot::Sender<Tally>),
    /// End all circuits and links, then the thread.
    Stop,
}

impl Order {
    /// Memory that it takes while it waits.
    fn bytes(&self) -> u64 {
        let beside = match self {
            Self::Carried { load, .. } => load.memory_bytes(),
            Self::NameAnswered { key, outcome } => key.text_bytes() + outcome.text_bytes(),
            _ => 0,
        };
        (size_of::<Self>() + beside) as u64
    }
}

/// A shard's letter box. What lies in it counts against `MaxMemInQueues`. Not bounded by itself: answers are bounded by the crypto pool's queue, cells by the engines'
/// credits, accepted connections by the limit on links; all other orders come from one supervisor at human speed, or from
/// the few who may read the metrics at once.
#[derive(Clone)]
pub struct Mailbox {
    letters: Sender<Order>,
    bell: Arc<Bell>,
    counted: Post,
}

/// The shard's own end of its letter box.
pub(crate) struct Inbox {
    letters: Receiver<Order>,
    bell: Arc<Bell>,
    counted: Post,
}

struct Bell {
    waker: Waker,
    /// Rung, and the shard has not looked yet: to ring again would be a system call for nothing.
    rung: AtomicBool,
}

impl Mailbox {
    /// A mailbox whose post wakes `poll` with `token` and is counted by `counted`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new(poll: &Poll, token: Token, counted: Post) -> std::io::Result<(Self, Inbox)> {
        let (sender, letters) = channel();
        let bell = Arc::new(Bell {
            waker: Waker::new(poll.registry(), token)?,
            rung: AtomicBool::new(false),
        });
        let inbox = Inbox {
            letters,
            bell: Arc::clone(&bell),
            counted: counted.clone(),
        };
        let letters = sender;
        Ok((Self { letters, bell, counted }, inbox))
    }

    /// Leaves an order. A shard that has ended gets no post, and nobody minds.
    pub fn post(&self, order: Order) {
        // Before it can be taken.
        let bytes = order.bytes();
        self.counted.sent(bytes);
        if self.letters.send(order).is_err() {
            self.counted.taken(bytes);
        } else if !self.bell.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.bell.waker.wake()
        {
            tracing::warn!("Couldn't wake a shard: {error}");
        }
    }
}

impl Inbox {
    /// To be called before each look: what is posted from now on rings again.
    pub(crate) fn open(&self) {
        self.bell.rung.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn next(&self) -> Option<Order> {
        let order = self.letters.try_recv().ok()?;
        self.counted.taken(order.bytes());
        Some(order)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use relay_engine::dos::Commons;

    use super::*;

    #[test]
    fn post_counts_as_held_memory_until_it_is_read_or_nobody_is_left_to_read_it() {
        let (poll, commons) = (Poll::new().unwrap(), Commons::new([0; 32]));
        let (mailbox, inbox) = Mailbox::new(&poll, Token(0), commons.post()).unwrap();
        let name = "a".repeat(200);
        let outcome = Outcome::Silence;
        mailbox.post(Order::Retire);
        let empty = commons.held_bytes();
        assert!(empty > 0);
        mailbox.post(Order::NameAnswered {
            key: Key::name(&name),
            outcome,
        });
        assert!(commons.held_bytes() >= 2 * empty + 200);
        assert!(matches!(inbox.next(), Some(Order::Retire)));
        assert!(matches!(inbox.next(), Some(Order::NameAnswered { .. })));
        assert_eq!(commons.held_bytes(), 0);

        mailbox.post(Order::Retire);
        drop(inbox);
        mailbox.post(Order::Retire);
        assert_eq!(commons.held_bytes(), 0);
    }
}
