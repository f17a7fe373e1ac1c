//! What other threads may tell a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// How a shard that waits for its sockets learns of post. One that does not wait looks by itself before it does.
pub(crate) struct Bell {
    waker: Waker,
    /// Orders that were left and not taken yet.
    waiting: AtomicUsize,
    /// The shard's thread waits for its sockets, or is about to.
    parked: AtomicBool,
    /// Rung, and the shard has not looked yet: to ring again would be a system call for nothing.
    rung: AtomicBool,
}

impl Bell {
    /// The shard's thread is about to wait. `false`: there is post, so it must not.
    ///
    /// Who posts counts the order first and looks whether we are parked then; we do it the other way round. In the one
    /// order that all see (`SeqCst`) one of us sees the other.
    pub(crate) fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        !self.has_post()
    }

    /// It waits no longer, and looks before it waits again.
    pub(crate) fn rise(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Whether an order was left that nobody has taken.
    pub(crate) fn has_post(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Has the shard's thread look, if it waits.
    pub(crate) fn ring(&self) {
        if self.parked.load(Ordering::SeqCst)
            && !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!("Couldn't wake a shard: {error}");
        }
    }
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
            waiting: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
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
        self.bell.waiting.fetch_add(1, Ordering::SeqCst);
        if self.letters.send(order).is_err() {
            self.bell.waiting.fetch_sub(1, Ordering::SeqCst);
            self.counted.taken(bytes);
        } else {
            self.bell.ring();
        }
    }

    /// Its bell.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

impl Inbox {
    /// Its bell.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// To be called before each look: what is posted from now on rings again.
    pub(crate) fn open(&self) {
        self.bell.rung.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn next(&self) -> Option<Order> {
        let order = self.letters.try_recv().ok()?;
        self.bell.waiting.fetch_sub(1, Ordering::SeqCst);
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

    #[test]
    fn only_who_waits_is_rung_for_and_nobody_waits_before_the_mail_is_read() {
        let (mut poll, commons) = (Poll::new().unwrap(), Commons::new([0; 32]));
        let (mailbox, inbox) = Mailbox::new(&poll, Token(0), commons.post()).unwrap();
        let mut events = mio::Events::with_capacity(4);
        let mut rung = || {
            poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
            events.iter().count()
        };
        mailbox.post(Order::Retire);
        assert_eq!(rung(), 0, "it is awake");
        assert!(!inbox.bell().park(), "there is mail");
        inbox.bell().rise();
        inbox.open();
        assert!(inbox.next().is_some());
        assert!(inbox.bell().park(), "now there is none");
        mailbox.post(Order::Retire);
        mailbox.post(Order::Retire);
        assert_eq!(rung(), 1, "once for both");
        inbox.bell().rise();
        assert!(!inbox.bell().park(), "two orders lie there");
    }
}
