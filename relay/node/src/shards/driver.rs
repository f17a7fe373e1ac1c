//! The shard's round.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use relay_engine::door::{AttemptId, ChannelFacts, ChannelId, Effect, Input, Now, Outbox, Refusal, Report, Role};
use relay_engine::network::NetworkView;
use relay_engine::settings::Settings;
use relay_engine::{Engine, Tally};
use relay_wire::relay_cells::EndReason;
use tokio::sync::mpsc;

use super::mailbox::{Mailbox, Order};
use crate::crypto_pool::CryptoPool;
use crate::link::{self, Beginner, Incoming, Link, Stage};
use crate::link_keys::LinkKeys;
use crate::rate::{RateLimits, Way};
use crate::tls::Session;
use crate::traffic::Traffic;

/// Ciphertext read at once, and plain bytes handed to the engine at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Plain bytes taken from the engine for one write: four records of 31 cells, as C tor packs them (`TLS_RECORD_MAX_CELLS`).
const WRITE_BYTES_MAX: usize = 4 * 31 * 514;
/// Writes for one link before the others have their turn.
const WRITES_IN_A_TURN: usize = 4;
/// Connections accepted before others have their turn.
const ACCEPTS_IN_A_TURN: usize = 64;
/// TCP and TLS must be up by then; C tor waits as long (`TLS_HANDSHAKE_TIMEOUT`, `connection_or.c`: 60 s for a new link).
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the last bytes of a closed channel may take.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);
/// Where accepting failed for want of descriptors, we try again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Links are named from here on, upwards, and the name is the socket's token.
const FIRST_LINK: u64 = 1_024;

/// What a shard is born with.
pub struct ShardStart {
    /// Names the thread.
    pub number: usize,
    /// All the randomness that its engine will have.
    pub seed: [u8; 32],
    /// Listening sockets; this shard accepts from them.
    pub listeners: Vec<TcpListener>,
    /// Our end of outgoing links, at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// Links that may be open at once, both directions.
    pub links_max: usize,
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
    /// Where the bytes of all links are counted.
    pub traffic: Arc<Traffic>,
    /// Where the engine's reports go; full means that the oldest news is enough.
    pub reports: mpsc::Sender<Report>,
    /// Told once, when a retired shard has no circuit left, or when the shard ends.
    pub on_news: Box<dyn Fn(ShardNews) + Send>,
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

/// Starts the shard's thread.
///
/// # Errors
/// No descriptor or thread left, or a listener cannot be watched.
pub fn start(start: ShardStart) -> std::io::Result<(Mailbox, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let (mailbox, inbox) = Mailbox::new(&poll, WAKER)?;
    let name = format!("shard-{}", start.number);
    let ours = mailbox.clone();
    let thread = thread::Builder::new().name(name).spawn(move || {
        let mut driver = Driver::new(start, poll, inbox, ours);
        // A bug in the engine ends the relay rather than let it go on with half a state.
        let news = match catch_unwind(AssertUnwindSafe(|| driver.run())) {
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
        (driver.start.on_news)(news);
    })?;
    Ok((mailbox, thread))
}

/// Links that wait for the next refill, in the order in which they came, each once.
#[derive(Default)]
struct Dry {
    order: Vec<ChannelId>,
    names: HashSet<ChannelId>,
}

impl Dry {
    fn add(&mut self, name: ChannelId) {
        if self.names.insert(name) {
            self.order.push(name);
        }
    }

    /// All of them; nobody waits any more.
    fn take(&mut self) -> Vec<ChannelId> {
        self.names.clear();
        mem::take(&mut self.order)
    }
}

struct Driver {
    start: ShardStart,
    poll: Poll,
    inbox: Receiver<Order>,
    mailbox: Mailbox,
    born: Instant,
    engine: Engine,
    outbox: Outbox,
    /// What the engine has asked for and is not done yet, in order.
    to_do: VecDeque<Effect>,
    links: HashMap<ChannelId, Link>,
    next_link: u64,
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
    dry_reads: Dry,
    dry_writes: Dry,
    /// When they may try again; none while nobody waits.
    refill_at: Option<Duration>,
    retiring: bool,
    quiet_said: bool,
    stopping: bool,
    cipher: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Driver {
    fn new(start: ShardStart, poll: Poll, inbox: Receiver<Order>, mailbox: Mailbox) -> Self {
        Self {
            engine: Engine::new(start.seed),
            start,
            poll,
            inbox,
            mailbox,
            born: Instant::now(),
            outbox: Outbox::default(),
            to_do: VecDeque::new(),
            links: HashMap::new(),
            next_link: FIRST_LINK,
            deadlines: BTreeSet::new(),
            to_write: Vec::new(),
            to_read: Vec::new(),
            to_accept: Vec::new(),
            accept_again: None,
            dry_reads: Dry::default(),
            dry_writes: Dry::default(),
            refill_at: None,
            retiring: false,
            quiet_said: false,
            stopping: false,
            cipher: vec![0; Session::unfinished_bytes_max() + READ_BYTES_MAX],
            plain: Vec::with_capacity(READ_BYTES_MAX * 2),
            sealed: Vec::with_capacity(READ_BYTES_MAX * 2),
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        for (number, listener) in self.start.listeners.iter_mut().enumerate() {
            self.poll
                .registry()
                .register(listener, Token(FIRST_LISTENER + number), Interest::READABLE)?;
        }
        self.tell(Input::Settings(Arc::clone(&self.start.settings)));
        self.tell(Input::Network(Arc::clone(&self.start.network)));
        let mut events = Events::with_capacity(1_024);
        while !self.stopping {
            match self.poll.poll(&mut events, self.time_to_wait()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.end_drought();
            for link in mem::take(&mut self.to_read) {
                self.on_readable(link);
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(number) if (number as u64) < FIRST_LINK => self.note_listener(number - FIRST_LISTENER),
                    Token(name) => self.on_event(ChannelId(name as u64), event),
                }
            }
            self.read_mail();
            self.accept_all();
            self.on_deadlines();
            self.write_all();
            self.say_quiet();
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn time_to_wait(&self) -> Option<Duration> {
        if !(self.to_read.is_empty() && self.to_accept.is_empty() && self.to_write.is_empty()) {
            return Some(Duration::ZERO);
        }
        let ours = self.deadlines.first().map(|(deadline, _)| *deadline);
        let next = [self.engine.deadline(), ours, self.accept_again, self.refill_at]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_sub(self.now()))
    }

    // ---- torrc's bandwidth ----

    /// Bytes that this link may move now. None: it has been put among those that wait.
    fn share(&mut self, name: ChannelId, way: Way, bytes_max: usize) -> Option<usize> {
        let (now, peer) = (Instant::now(), self.links.get(&name)?.peer.ip());
        let share = self.start.rates.share(now, way, peer, bytes_max);
        if share.is_none() {
            match way {
                Way::Read => self.dry_reads.add(name),
                Way::Write => self.dry_writes.add(name),
            }
            let refill = self.start.rates.next_refill(now);
            self.refill_at = Some(refill.saturating_duration_since(self.born));
        }
        share
    }

    /// After a refill those who waited have their turn before all others, in their order.
    fn end_drought(&mut self) {
        if self.refill_at.is_none_or(|refill| refill > self.now()) {
            return;
        }
        self.refill_at = None;
        let waited = self.dry_reads.take();
        self.to_read.splice(0..0, waited);
        let waited = self.dry_writes.take();
        self.to_write.splice(0..0, waited);
    }

    // ---- the engine's door ----

    /// Tells the engine, then does all that it asks for.
    fn tell(&mut self, input: Input<'_>) {
        self.hand_over(input);
        while let Some(effect) = self.to_do.pop_front() {
            self.perform(effect);
        }
    }

    fn hand_over(&mut self, input: Input<'_>) {
        let now = Now {
            steady: self.now(),
            wall: SystemTime::now(),
        };
        self.engine.handle(now, input, &mut self.outbox);
        self.to_do.extend(self.outbox.effects.drain(..));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { attempt, address } => self.connect(attempt, address),
            Effect::Export { channel, context } => {
                if let Some(material) = self.links.get(&channel).and_then(|link| link.session.export(&context)) {
                    self.hand_over(Input::Exported { channel, material });
                }
            }
            Effect::AnswerOnion { ticket, request } => {
                if !self.start.pool.take(ticket, request, self.mailbox.clone()) {
                    self.hand_over(Input::OnionAnswered { ticket, answer: None });
                }
            }
            Effect::WantsWrite { channel } => {
                if let Some(link) = self.links.get_mut(&channel) {
                    link.wants = true;
                    self.to_write.push(channel);
                }
            }
            Effect::Close { channel } => self.close(channel),
            Effect::Report(report) => {
                // Full or gone: the directory part lags behind or has ended; its news is not worth a wait.
                let _ = self.start.reports.try_send(report);
            }
            // Not asked for: our settings allow no streams yet.
            Effect::OpenStream { stream, .. }
            | Effect::OpenDirectory { stream, .. }
            | Effect::Resolve { stream, .. } => {
                let refusal = Refusal::Reason(EndReason::NotDirectory);
                self.hand_over(Input::StreamRefused { stream, refusal });
            }
            Effect::ReadStream { .. } | Effect::StreamWantsWrite { .. } | Effect::CloseStream { .. } => {}
        }
    }

    // ---- the mailbox ----

    fn read_mail(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Settings(settings) => self.tell(Input::Settings(settings)),
                Order::Network(network) => self.tell(Input::Network(network)),
                Order::LinkKeys(keys) => self.start.link_keys = keys,
                Order::OnionAnswered { ticket, answer } => self.tell(Input::OnionAnswered { ticket, answer }),
                Order::Retire => self.retire(),
                Order::Stop => self.stopping = true,
            }
        }
    }

    fn retire(&mut self) {
        for mut listener in self.start.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.to_accept.clear();
        self.accept_again = None;
        self.retiring = true;
        self.tell(Input::Retire);
    }

    fn say_quiet(&mut self) {
        if self.retiring && !self.quiet_said && self.tally().circuits_open == 0 {
            self.quiet_said = true;
            (self.start.on_news)(ShardNews::Quiet);
        }
    }

    fn tally(&self) -> Tally {
        self.engine.tally()
    }

    // ---- new links ----

    fn note_listener(&mut self, number: usize) {
        if !self.to_accept.contains(&number) {
            self.to_accept.push(number);
        }
    }

    fn accept_all(&mut self) {
        if self.accept_again.is_some_and(|again| again <= self.now()) {
            self.accept_again = None;
            (0..self.start.listeners.len()).for_each(|number| self.note_listener(number));
        }
        for number in mem::take(&mut self.to_accept) {
            let mut drained = false;
            for _ in 0..ACCEPTS_IN_A_TURN {
                drained = true;
                match self.start.listeners.get(number).map(TcpListener::accept) {
                    Some(Ok((stream, peer))) => self.welcome(stream, peer),
                    Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                    // The peer went away before we came.
                    Some(Err(error))
                        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                    Some(Err(error)) => {
                        tracing::warn!("Couldn't accept a connection: {error}. Trying again.");
                        self.accept_again = Some(self.now() + ACCEPT_PAUSE);
                        break;
                    }
                    None => break,
                }
                drained = false;
            }
            // Edge-triggered: until the listener says that it has no more, it is asked again.
            if !drained {
                self.note_listener(number);
            }
        }
    }

    fn welcome(&mut self, stream: mio::net::TcpStream, peer: SocketAddr) {
        if self.links.len() >= self.start.links_max {
            return;
        }
        let _ = stream.set_nodelay(true);
        let keys = Arc::clone(&self.start.link_keys);
        let Ok(session) = Session::accept(&keys.tls) else {
            return;
        };
        self.keep(
            stream,
            session,
            Beginner::Peer(Arc::clone(&keys.responder)),
            Stage::Handshaking,
            peer,
        );
    }

    fn connect(&mut self, attempt: AttemptId, address: SocketAddr) {
        let begun = self.begin(attempt, address);
        if begun.is_none() {
            self.hand_over(Input::ConnectFailed { attempt });
        }
    }

    fn begin(&mut self, attempt: AttemptId, address: SocketAddr) -> Option<()> {
        if self.links.len() >= self.start.links_max {
            return None;
        }
        let stream = link::connect(address, &self.start.outbound_bind).ok()?;
        let keys = Arc::clone(&self.start.link_keys);
        let mut hello = Vec::new();
        let session = Session::connect(&keys.tls, &mut hello).ok()?;
        let beginner = Beginner::Us(attempt, Arc::clone(&keys.initiator));
        let name = self.keep(stream, session, beginner, Stage::Connecting, address)?;
        let link = self.links.get_mut(&name)?;
        link.unsent = hello;
        link.blocked = true;
        Some(())
    }

    fn keep(
        &mut self,
        mut stream: mio::net::TcpStream,
        session: Session,
        beginner: Beginner,
        stage: Stage,
        peer: SocketAddr,
    ) -> Option<ChannelId> {
        let name = ChannelId(self.next_link);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(usize::try_from(name.0).ok()?), both)
            .ok()?;
        self.next_link += 1;
        let deadline = self.now() + HANDSHAKE_TIME_MAX;
        self.deadlines.insert((deadline, name));
        let link = Link {
            stream,
            session,
            beginner,
            stage,
            peer,
            traffic: Arc::clone(&self.start.traffic),
            deadline: Some(deadline),
            wants: false,
            unsent: Vec::new(),
            blocked: false,
        };
        self.links.insert(name, link);
        Some(name)
    }

    // ---- reading ----

    fn on_event(&mut self, name: ChannelId, event: &mio::event::Event) {
        let Some(link) = self.links.get_mut(&name) else { return };
        if event.is_writable() {
            if link.stage == Stage::Connecting {
                // Writable with an error, or without a peer: the connection has failed.
                if !matches!(link.stream.take_error(), Ok(None)) || link.stream.peer_addr().is_err() {
                    return self.lose(name);
                }
                link.stage = Stage::Handshaking;
            }
            link.blocked = false;
            self.to_write.push(name);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.on_readable(name);
        }
    }

    fn on_readable(&mut self, name: ChannelId) {
        let Some(link) = self.links.get_mut(&name) else { return };
        if link.stage == Stage::Connecting {
            return;
        }
        let Some(share) = self.share(name, Way::Read, READ_BYTES_MAX) else {
            return;
        };
        let Some(link) = self.links.get_mut(&name) else { return };
        let held = link.session.unfinished(&mut self.cipher);
        let room = self.cipher.get_mut(held..held + share).unwrap_or_default();
        let length = match link.read(room) {
            Ok(Incoming::Bytes(length, more)) => {
                self.start.rates.take(Instant::now(), Way::Read, link.peer.ip(), length);
                if more {
                    self.to_read.push(name);
                }
                held + length
            }
            Ok(Incoming::Nothing) => return,
            Ok(Incoming::End) | Err(_) => return self.lose(name),
        };
        // What a peer says after the engine has closed the channel reaches nobody.
        if link.stage == Stage::Closing {
            return;
        }
        let (mut plain, mut sealed) = (mem::take(&mut self.plain), mem::take(&mut self.sealed));
        plain.clear();
        sealed.clear();
        let cipher = self.cipher.get_mut(..length).unwrap_or_default();
        let progress = link.session.receive(cipher, &mut plain, &mut sealed);
        let written = if sealed.is_empty() { Ok(()) } else { link.write(&sealed) };
        let answered = sealed.len();
        self.start
            .rates
            .take(Instant::now(), Way::Write, link.peer.ip(), answered);
        let just_up = link.stage == Stage::Handshaking && progress.as_ref().is_ok_and(|progress| progress.established);
        if just_up {
            self.raise(name);
        }
        for bytes in plain.chunks_mut(READ_BYTES_MAX) {
            self.tell(Input::Received { channel: name, bytes });
        }
        (self.plain, self.sealed) = (plain, sealed);
        match progress {
            Ok(progress) if !progress.peer_closed && written.is_ok() => {}
            _ => self.lose(name),
        }
    }

    /// TLS is up: the link becomes a channel.
    fn raise(&mut self, name: ChannelId) {
        let Some(link) = self.links.get_mut(&name) else { return };
        let role = match &link.beginner {
            Beginner::Peer(credentials) => Role::Responder {
                credentials: Arc::clone(credentials),
            },
            Beginner::Us(attempt, credentials) => match link.session.peer_certificate_sha256() {
                Some(peer_tls_certificate_sha256) => Role::Initiator {
                    attempt: *attempt,
                    peer_tls_certificate_sha256,
                    credentials: Arc::clone(credentials),
                },
                None => return self.lose(name),
            },
        };
        let Ok(local) = link.stream.local_addr() else {
            return self.lose(name);
        };
        link.stage = Stage::Open;
        let facts = ChannelFacts {
            role,
            peer: link.peer,
            local,
        };
        if let Some(deadline) = link.deadline.take() {
            self.deadlines.remove(&(deadline, name));
        }
        self.tell(Input::ChannelUp { channel: name, facts });
    }

    // ---- writing ----

    fn write_all(&mut self) {
        for name in mem::take(&mut self.to_write) {
            self.write(name);
        }
    }

    fn write(&mut self, name: ChannelId) {
        for _ in 0..WRITES_IN_A_TURN {
            let Some(link) = self.links.get_mut(&name) else { return };
            if link.stage == Stage::Connecting {
                return;
            }
            if !link.unsent.is_empty() && link.write(&[]).is_err() {
                return self.lose(name);
            }
            if link.blocked || !link.unsent.is_empty() {
                return;
            }
            if link.stage == Stage::Closing {
                // The peer's own end tells that it has read the last bytes; closing at once could throw them away.
                let _ = link.stream.shutdown(std::net::Shutdown::Write);
                return;
            }
            if link.stage != Stage::Open || !link.wants {
                return;
            }
            let Some(share) = self.share(name, Way::Write, WRITE_BYTES_MAX) else {
                return;
            };
            if !self.pull(name, share) {
                return;
            }
        }
        self.to_write.push(name);
    }

    /// Takes one batch from the engine onto the socket; `false` when the engine has no more for this link.
    fn pull(&mut self, name: ChannelId, room_bytes_max: usize) -> bool {
        self.outbox.written.clear();
        self.hand_over(Input::Writable {
            channel: name,
            room_bytes_max,
        });
        let plain = mem::take(&mut self.outbox.written);
        let more = !plain.is_empty();
        let mut ok = true;
        if let Some(link) = self.links.get_mut(&name) {
            link.wants = more;
            if more {
                self.sealed.clear();
                ok = link.session.seal(&plain, &mut self.sealed).is_ok() && link.write(&self.sealed).is_ok();
                let (now, bytes) = (Instant::now(), self.sealed.len());
                self.start.rates.take(now, Way::Write, link.peer.ip(), bytes);
            }
        }
        self.outbox.written = plain;
        while let Some(effect) = self.to_do.pop_front() {
            self.perform(effect);
        }
        if !ok {
            self.lose(name);
        }
        more
    }

    // ---- ends ----

    /// The engine wants the channel to end, after what it has still to say.
    fn close(&mut self, name: ChannelId) {
        if self.links.get(&name).is_none_or(|link| link.stage != Stage::Open) {
            return;
        }
        while self
            .links
            .get(&name)
            .is_some_and(|link| link.wants && link.unsent.len() < WRITE_BYTES_MAX)
        {
            self.outbox.written.clear();
            self.hand_over(Input::Writable {
                channel: name,
                room_bytes_max: WRITE_BYTES_MAX,
            });
            let Some(link) = self.links.get_mut(&name) else { return };
            link.wants = !self.outbox.written.is_empty();
            self.sealed.clear();
            if link.session.seal(&self.outbox.written, &mut self.sealed).is_err() || link.write(&self.sealed).is_err() {
                break;
            }
            let (now, bytes) = (Instant::now(), self.sealed.len());
            self.start.rates.take(now, Way::Write, link.peer.ip(), bytes);
        }
        let deadline = self.now() + CLOSING_TIME_MAX;
        if let Some(link) = self.links.get_mut(&name) {
            self.sealed.clear();
            if link.session.seal_end(&mut self.sealed).is_ok() {
                let _ = link.write(&self.sealed);
            }
            link.stage = Stage::Closing;
            link.wants = false;
            link.deadline = Some(deadline);
            self.deadlines.insert((deadline, name));
            self.to_write.push(name);
        }
        self.hand_over(Input::ChannelDown { channel: name });
    }

    /// The link is gone; the engine is told what it must know.
    fn lose(&mut self, name: ChannelId) {
        let Some(link) = self.links.remove(&name) else { return };
        if let Some(deadline) = link.deadline {
            self.deadlines.remove(&(deadline, name));
        }
        match (link.stage, link.beginner) {
            (Stage::Open, _) => self.tell(Input::ChannelDown { channel: name }),
            (Stage::Connecting | Stage::Handshaking, Beginner::Us(attempt, _)) => {
                self.tell(Input::ConnectFailed { attempt });
            }
            (Stage::Connecting | Stage::Handshaking, Beginner::Peer(_)) | (Stage::Closing, _) => {}
        }
    }

    fn on_deadlines(&mut self) {
        let now = self.now();
        while let Some((deadline, name)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, name));
            self.lose(name);
        }
        if self.engine.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell(Input::Timeout);
        }
    }
}
