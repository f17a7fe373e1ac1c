//! The shard's round: sockets, mailbox and deadlines in, the engine told, its wishes done.
//!
//! One file a duty: `links` begins links, `reading` and `writing` move their bytes, `pacing` says who may, `ends` ends
//! them; `effects` is the engine's door, `streams` its words for streams, `exits` those that leave the network here,
//! `directory` those that ask for documents, `holding` the bytes of all these, `mail` what other threads say.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Registry, Token};
use relay_engine::Engine;
use relay_engine::door::{ChannelId, Effect, Input, Load, Outbox, Report, ShardId};
use relay_engine::dos::Holding;
use relay_engine::keyed::KeyedMap;
use relay_engine::network::NetworkView;
use relay_engine::settings::Settings;
use tokio::sync::mpsc;

use super::mailbox::Inbox;
use super::siblings::{Berth, Siblings};
use crate::crypto_pool::CryptoPool;
use crate::dircache::Service;
use crate::link::Link;
use crate::link_keys::LinkKeys;
use crate::rate::RateLimits;
use crate::tls::{Room, Session};
use crate::traffic::Traffic;

mod clock;
mod directory;
mod effects;
mod ends;
mod exits;
mod holding;
mod links;
mod mail;
mod office;
mod pacing;
mod reading;
mod sleeping;
mod streams;
mod writing;

use clock::Clock;
pub use exits::ExitStart;
use exits::Exits;
use office::Office;
use pacing::Dry;

/// Ciphertext read at once, and plain bytes handed to the engine at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Plain bytes taken from the engine for one write: five records of 31 cells, as C tor packs them (`TLS_RECORD_MAX_CELLS`).
/// With what one read brings and a little beside it: a write for the last few cells would cost as much as one for all.
const WRITE_BYTES_MAX: usize = 5 * 31 * 514;
/// Writes for one link before the others have their turn.
const WRITES_IN_A_TURN: usize = 4;
/// Connections accepted before others have their turn.
const ACCEPTS_IN_A_TURN: usize = 64;
/// From the first packet on: TCP, TLS and the cells of the handshake must be through by then. C tor gives peers that stop
/// there 300 s.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the last bytes of a closed channel may take.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the links' last words may take when the relay stops.
const STOPPING_TIME_MAX: Duration = Duration::from_millis(1_500);
/// Cells for one other shard that may gather in a round before they are posted.
const LOAD_BYTES_MAX: usize = 64 * 1024;
/// Spent loads that a shard keeps for its own; further ones are for whoever has none ([`Siblings::keep_load`]).
const SPARE_LOADS_MAX: usize = 4;
/// Where accepting failed for want of descriptors, we try again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub(super) const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Links are named from here on, upwards, and the name is the socket's token.
const FIRST_LINK: u64 = 1_024;

/// What a shard is born with.
pub struct ShardStart {
    /// All the randomness that its engine will have.
    pub seed: [u8; 32],
    /// Listening sockets; this shard accepts from them, for all.
    pub listeners: Vec<TcpListener>,
    /// Peers' links whose handshake is not through, at most: beyond that the one that has waited longest goes, so that
    /// those who only stand in the door cannot take the places of others.
    pub half_open_max: usize,
    /// Our end of outgoing links, at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// What streams that leave here need.
    pub exits: ExitStart,
    /// How fast all links together may be read and written.
    pub rates: Arc<RateLimits>,
    /// The relay's settings.
    pub settings: Arc<Settings>,
    /// The newest consensus.
    pub network: Arc<NetworkView>,
    /// What TLS shows.
    pub link_keys: Arc<LinkKeys>,
    /// Where public-key work goes.
    pub pool: CryptoPool,
    /// The directory server, which all shards share.
    pub directory: Arc<Service>,
    /// Where the bytes of all links are counted.
    pub traffic: Arc<Traffic>,
    /// Where the engine's reports go; full means that the oldest news is enough.
    pub reports: mpsc::Sender<Report>,
    /// Told once, when a retired shard has no circuit left, or when the shard ends.
    pub on_news: Arc<dyn Fn(ShardNews) + Send + Sync>,
}

/// What a shard tells the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardNews {
    /// Retired, and no circuit is open any more.
    Quiet,
    /// The thread has ended as it was told.
    Stopped,
    /// The thread has ended by a bug or a broken poll. The relay must not go on by halves.
    Broken,
}

/// Starts the thread of the shard that `berth` is for.
///
/// # Errors
/// No thread left, or a listener cannot be watched.
pub fn start(start: ShardStart, berth: Berth, siblings: Arc<Siblings>) -> std::io::Result<JoinHandle<()>> {
    let name = format!("shard-{}", berth.shard.0);
    let Berth { shard, poll, inbox } = berth;
    let registry = poll.registry().try_clone()?;
    thread::Builder::new().name(name).spawn(move || {
        let on_news = Arc::clone(&start.on_news);
        // A bug in the engine ends the relay rather than let it go on with half a state.
        let news = match catch_unwind(AssertUnwindSafe(|| {
            let bell = Arc::clone(inbox.bell());
            let driver = Driver::new(start, (shard, registry, inbox), Arc::clone(&siblings));
            let office = Arc::new(Office::new(driver, poll, bell)?);
            siblings.crew.work(shard, office)
        })) {
            Ok(Ok(())) => ShardNews::Stopped,
            Ok(Err(error)) => {
                tracing::error!("A shard cannot go on: {error}");
                ShardNews::Broken
            }
            Err(_) => {
                tracing::error!("Bug: a shard panicked.");
                ShardNews::Broken
            }
        };
        on_news(news);
    })
}

struct Driver {
    start: ShardStart,
    own: ShardId,
    siblings: Arc<Siblings>,
    registry: Registry,
    inbox: Inbox,
    /// Memory of loads that others have sent, for our own.
    spare_loads: Vec<Load>,
    clock: Clock,
    engine: Engine,
    outbox: Outbox,
    /// What the engine has asked for and is not done yet, in order.
    to_do: VecDeque<Effect>,
    links: KeyedMap<ChannelId, Link>,
    next_link: u64,
    /// Links that peers have begun and whose handshake is not through.
    half_open: BTreeSet<ChannelId>,
    /// Links by the deadline of their stage.
    deadlines: BTreeSet<(Duration, ChannelId)>,
    /// Links that may have something to write. May name one twice or one that is gone.
    to_write: Vec<ChannelId>,
    /// Links whose last read filled the buffer.
    to_read: Vec<ChannelId>,
    /// Listeners that may hold more connections, by number.
    to_accept: Vec<usize>,
    accept_again: Option<Duration>,
    /// Links that found an empty bucket, by what they wanted of it.
    dry_reads: Dry<ChannelId>,
    dry_writes: Dry<ChannelId>,
    /// When they may try again; none while nobody waits.
    refill_at: Option<Duration>,
    /// Bytes that links hold, and what the other shards know of it.
    link_bytes: usize,
    held: Holding,
    look_at_held: Option<Duration>,
    exits: Exits,
    directory: directory::DirectoryStreams,
    retiring: bool,
    /// The quota has it refuse what is new.
    asleep: bool,
    quiet_said: bool,
    /// When the thread ends, whatever is still open then; none until it is told to stop.
    stop_at: Option<Duration>,
    cipher: Vec<u8>,
    /// What the link that is being read has said.
    plain: Room,
    sealed: Vec<u8>,
    /// A batch's records.
    records: Room,
}

impl Driver {
    fn new(start: ShardStart, (shard, registry, inbox): (ShardId, Registry, Inbox), siblings: Arc<Siblings>) -> Self {
        let held = siblings.commons.holding();
        Self {
            engine: Engine::of_several(start.seed, shard, siblings.count()),
            exits: Exits::new(&start.exits),
            start,
            own: shard,
            siblings,
            registry,
            inbox,
            spare_loads: Vec::new(),
            clock: Clock::new(),
            outbox: Outbox::default(),
            to_do: VecDeque::new(),
            links: KeyedMap::default(),
            next_link: FIRST_LINK,
            half_open: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            to_write: Vec::new(),
            to_read: Vec::new(),
            to_accept: Vec::new(),
            accept_again: None,
            dry_reads: Dry::default(),
            dry_writes: Dry::default(),
            refill_at: None,
            link_bytes: 0,
            held,
            look_at_held: None,
            directory: directory::DirectoryStreams::default(),
            retiring: false,
            asleep: false,
            quiet_said: false,
            stop_at: None,
            cipher: vec![0; Session::unfinished_bytes_max() + READ_BYTES_MAX],
            plain: Room::default(),
            sealed: Vec::with_capacity(READ_BYTES_MAX * 2),
            records: Room::default(),
        }
    }

    fn take_up(&mut self) -> std::io::Result<()> {
        self.engine.share(self.siblings.commons.clone());
        for (number, listener) in self.start.listeners.iter_mut().enumerate() {
            self.registry
                .register(listener, Token(FIRST_LISTENER + number), Interest::READABLE)?;
        }
        self.tell(Input::Settings(Arc::clone(&self.start.settings)));
        self.tell(Input::Network(Arc::clone(&self.start.network)));
        Ok(())
    }

    /// All that there is to do now, with what the sockets say.
    fn round(&mut self, events: &Events) {
        self.look_at_clocks();
        self.end_drought();
        for link in mem::take(&mut self.to_read) {
            self.on_readable(link);
        }
        for event in events {
            match event.token() {
                WAKER => {}
                Token(number) if (number as u64) < FIRST_LINK => self.note_listener(number - FIRST_LISTENER),
                token => match Exits::named(token) {
                    Some(stream) => self.on_exit_event(stream, event),
                    None => self.on_event(ChannelId(token.0 as u64), event),
                },
            }
        }
        self.read_mail();
        self.accept_all();
        self.on_deadlines();
        self.on_exit_deadlines();
        // First, as it makes room at the engine: what clients are told of that goes out with the same round.
        self.write_exits();
        self.answer_some();
        // Before we write, so that the others can begin.
        self.post_loads(0);
        self.write_all();
        self.post_loads(0);
        self.tell_held();
        self.close_silent();
        self.say_quiet();
    }

    /// Told to stop, and all links have said their last words or had their time for it.
    fn is_done(&self) -> bool {
        self.stop_at
            .is_some_and(|stop| self.links.is_empty() || stop <= self.now())
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let links_idle = self.to_read.is_empty() && self.to_accept.is_empty() && self.to_write.is_empty();
        if !links_idle || self.exits.is_busy() || self.directory.is_busy() {
            return Some(Duration::ZERO);
        }
        let ours = self.deadlines.first().map(|(deadline, _)| *deadline);
        let exits = self.exits.next_deadline();
        let (directory, engine) = (self.directory.deadline(), self.engine.deadline());
        let (accept, refill, stop, held) = (self.accept_again, self.refill_at, self.stop_at, self.look_at_held);
        let next = [engine, ours, exits, directory, accept, refill, stop, held]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_sub(self.now()))
    }
}
