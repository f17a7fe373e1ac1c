//! What other threads may tell a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::net::TcpStream;
use mio::{Poll, Token, Waker};
use relay_engine::Tally;
use relay_engine::door::{Load, OnionAnswer, ShardId, Ticket};
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

/// A shard's letter box. Not bounded by itself: answers are bounded by the crypto pool's queue, cells by the engines'
/// credits, accepted connections by the limit on links; all other orders come from one supervisor at human speed, or from
/// the few who may read the metrics at once.
#[derive(Clone)]
pub struct Mailbox {
    letters: Sender<Order>,
    bell: Arc<Bell>,
}

/// The shard's own end of its letter box.
pub(crate) struct Inbox {
    letters: Receiver<Order>,
    bell: Arc<Bell>,
}

struct Bell {
    waker: Waker,
    /// Rung, and the shard has not looked yet: to ring again would be a system call for nothing.
    rung: AtomicBool,
}

impl Mailbox {
    /// A mailbox whose post wakes `poll` with `token`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(crate) fn new(poll: &Poll, token: Token) -> std::io::Result<(Self, Inbox)> {
        let (sender, letters) = channel();
        let bell = Arc::new(Bell {
            waker: Waker::new(poll.registry(), token)?,
            rung: AtomicBool::new(false),
        });
        let inbox = Inbox {
            letters,
            bell: Arc::clone(&bell),
        };
        Ok((Self { letters: sender, bell }, inbox))
    }

    /// Leaves an order. A shard that has ended gets no post, and nobody minds.
    pub fn post(&self, order: Order) {
        if self.letters.send(order).is_ok()
            && !self.bell.rung.swap(true, Ordering::AcqRel)
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
        self.letters.try_recv().ok()
    }
}
