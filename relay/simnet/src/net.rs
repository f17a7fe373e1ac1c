//! Relays and clients in memory. Does what the driver does: sessions, exporter, workers, time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_engine::crypto::onion;
use relay_engine::door::{
    AttemptId, ChannelFacts, ChannelId, Load, OnionRequest, Report, Role, ShardId, StreamId, Ticket,
};
use relay_engine::dos::Visit;
use relay_engine::network::NetworkView;
use relay_engine::settings::{Defences, Settings, StreamServices};
use relay_engine::{Effect, Input, Now, Outbox};
use sha2::{Digest, Sha256};

use self::weather::Weather;
use crate::client::Client;
use crate::keys::{Keys, birthday};
use crate::shards::Shards;

mod weather;

/// Plain bytes that a session takes at once; as the driver has it.
const ROOM_BYTES: usize = 16 * 1024;

/// A relay in the simulation.
pub struct Relay {
    /// The machine itself.
    pub engine: Shards,
    /// Who it is.
    pub keys: Arc<Keys>,
    /// What it told the process.
    pub reports: Vec<Report>,
    /// Addresses that it wanted to connect to.
    pub connects: Vec<SocketAddr>,
    /// What it wants done for streams.
    pub streams: Vec<Effect>,
    outbox: Outbox,
    /// Where the next session goes.
    next_shard: u16,
    /// Which shard has a session.
    shard_of: BTreeMap<ChannelId, ShardId>,
    /// Off: answers of the workers wait until [`Net::work`].
    pub workers_run: bool,
    work: Vec<(Ticket, OnionRequest)>,
    /// Off: wishes to write wait for [`Net::unblock`].
    pub sockets_take: bool,
    blocked: Vec<ChannelId>,
    /// How far its clock is ahead of the right time.
    pub clock_ahead: Duration,
    settings: Arc<Settings>,
    network: Option<Arc<NetworkView>>,
    /// How often it has crashed.
    pub crashes: u32,
}

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Relay(usize, ChannelId),
    Client(usize),
}

/// What is on its way.
enum Event {
    Bytes {
        to: End,
        bytes: Vec<u8>,
    },
    Write {
        relay: usize,
        channel: ChannelId,
    },
    Exported {
        relay: usize,
        channel: ChannelId,
        context: [u8; 32],
    },
    Connect {
        relay: usize,
        attempt: AttemptId,
        address: SocketAddr,
    },
    Down {
        end: End,
    },
    Answered {
        relay: usize,
        ticket: Ticket,
        request: OnionRequest,
    },
    /// A shard looks into its mailbox for what one other has left there.
    Mail {
        relay: usize,
        from: ShardId,
        to: ShardId,
    },
}

/// What two ends share.
struct Session {
    other: End,
    secret: u64,
    /// Counts for a client's address.
    _visit: Option<Visit>,
}

/// From which relay, to which, and what becomes of the bytes.
pub type Meddler = (usize, usize, fn(&mut [u8]));

/// The network.
pub struct Net {
    dice: StdRng,
    steady: Duration,
    /// Relays by number.
    pub relays: Vec<Relay>,
    /// Clients by number.
    pub clients: Vec<Client>,
    /// Whether a client's session still is.
    pub clients_up: Vec<bool>,
    client_ends: Vec<End>,
    sessions: BTreeMap<(usize, ChannelId), Session>,
    events: VecDeque<Event>,
    next_channel: u64,
    /// Identities lie: whoever connects to the first address reaches the second relay.
    pub detours: BTreeMap<SocketAddr, usize>,
    /// What the first of two relays writes to the second goes through this before it arrives.
    pub meddler: Option<Meddler>,
    /// Bytes go in pieces of random size, and mail between shards waits for a random time.
    pub choppy: bool,
    /// `None`: everything arrives at once, in the order in which it was said.
    weather: Option<Weather>,
}

impl Net {
    /// A network with relays of these keys, one shard each.
    pub fn new(seed: u64, keys: Vec<Arc<Keys>>) -> Self {
        Self::sharded(seed, keys, NonZeroU16::MIN)
    }

    /// A network with relays of these keys and so many shards each. Sessions that others begin go to each shard in turn.
    pub fn sharded(seed: u64, keys: Vec<Arc<Keys>>, shards: NonZeroU16) -> Self {
        let mut net = Self {
            dice: StdRng::seed_from_u64(seed),
            steady: Duration::from_secs(1),
            relays: Vec::new(),
            clients: Vec::new(),
            clients_up: Vec::new(),
            client_ends: Vec::new(),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            next_channel: 1,
            detours: BTreeMap::new(),
            meddler: None,
            choppy: false,
            weather: None,
        };
        for keys in keys {
            let settings = Arc::clone(&keys.settings);
            net.relays.push(Relay {
                engine: Shards::new(&mut net.dice, shards),
                settings: Arc::clone(&keys.settings),
                network: None,
                crashes: 0,
                keys,
                reports: Vec::new(),
                connects: Vec::new(),
                streams: Vec::new(),
                outbox: Outbox::default(),
                next_shard: 0,
                shard_of: BTreeMap::new(),
                workers_run: true,
                work: Vec::new(),
                sockets_take: true,
                blocked: Vec::new(),
                clock_ahead: Duration::ZERO,
            });
            net.handle(net.relays.len() - 1, Input::Settings(settings));
        }
        net
    }

    /// The time.
    pub fn now(&self) -> Now {
        Now {
            steady: self.steady,
            wall: birthday() + self.steady,
        }
    }

    /// Gives all relays a consensus.
    pub fn set_network(&mut self, network: &Arc<NetworkView>) {
        for relay in 0..self.relays.len() {
            self.handle(relay, Input::Network(Arc::clone(network)));
            if let Some(state) = self.relays.get_mut(relay) {
                state.network = Some(Arc::clone(network));
            }
        }
    }

    fn fresh_channel(&mut self) -> ChannelId {
        self.next_channel += 1;
        ChannelId(self.next_channel)
    }

    /// A client connects to a relay; its number comes back.
    pub fn connect(&mut self, client: Client, relay: usize) -> usize {
        let number = self.clients.len();
        let channel = self.fresh_channel();
        self.clients.push(client);
        self.clients_up.push(true);
        self.client_ends.push(End::Relay(relay, channel));
        let peer = SocketAddr::from(([198, 51, 100, 200], 40_000));
        let (now, state) = (self.steady, self.relays.get(relay));
        let visit = state.map(|state| state.engine.commons.addresses.connect(now, peer.ip()));
        let visit = match visit {
            Some(Err(_)) => {
                self.clients_up.pop();
                self.clients_up.push(false);
                return number;
            }
            visit => visit.and_then(Result::ok),
        };
        let session = Session {
            other: End::Client(number),
            secret: self.dice.random(),
            _visit: visit,
        };
        self.sessions.insert((relay, channel), session);
        let shard = self.shard_in_turn(relay);
        self.up(relay, shard, channel, peer, None);
        number
    }

    fn shard_in_turn(&mut self, relay: usize) -> ShardId {
        let Some(state) = self.relays.get_mut(relay) else {
            return ShardId(0);
        };
        let shard = ShardId(state.next_shard);
        state.next_shard = (state.next_shard + 1) % state.engine.count() as u16;
        shard
    }

    fn up(
        &mut self,
        relay: usize,
        shard: ShardId,
        channel: ChannelId,
        peer: SocketAddr,
        wish: Option<(AttemptId, [u8; 32])>,
    ) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        state.shard_of.insert(channel, shard);
        let local = state.keys.hop.address;
        let role = match wish {
            None => Role::Responder {
                credentials: Arc::clone(&state.keys.responder),
            },
            Some((attempt, peer_tls_certificate_sha256)) => Role::Initiator {
                attempt,
                peer_tls_certificate_sha256,
                credentials: Arc::clone(&state.keys.initiator),
            },
        };
        self.handle(
            relay,
            Input::ChannelUp {
                channel,
                facts: ChannelFacts { role, peer, local },
            },
        );
    }

    /// Tells a relay something, and notes what it wants. It goes to the shard that it is for; what is for none, to all.
    pub fn handle(&mut self, relay: usize, input: Input<'_>) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        let named = |name: u64| Some(ShardId((name >> 48) as u16));
        let shard = match &input {
            Input::Received { channel, .. }
            | Input::ChannelUp { channel, .. }
            | Input::Writable { channel, .. }
            | Input::Exported { channel, .. } => state.shard_of.get(channel).copied(),
            Input::ChannelDown { channel } => state.shard_of.remove(channel),
            Input::ConnectFailed { attempt } => named(attempt.0),
            Input::OnionAnswered { ticket, .. } => named(ticket.0),
            Input::StreamConnected { stream, .. }
            | Input::StreamRefused { stream, .. }
            | Input::StreamResolved { stream, .. }
            | Input::StreamReadable { stream }
            | Input::StreamReceived { stream, .. }
            | Input::StreamWritable { stream, .. }
            | Input::StreamClosed { stream, .. } => named(stream.0),
            Input::Settings(settings) => {
                let told = || Input::Settings(Arc::clone(settings));
                return self.tell_all(relay, told);
            }
            Input::Network(network) => return self.tell_all(relay, || Input::Network(Arc::clone(network))),
            Input::Timeout => return self.tell_all(relay, || Input::Timeout),
            Input::Retire => return self.tell_all(relay, || Input::Retire),
            Input::Resume => return self.tell_all(relay, || Input::Resume),
            Input::EndCircuits => return self.tell_all(relay, || Input::EndCircuits),
            // Only mail brings it, and knows where to.
            Input::Carried { .. } => None,
        };
        if let Some(shard) = shard {
            self.tell(relay, shard, input);
        }
    }

    fn tell_all<'a>(&mut self, relay: usize, input: impl Fn() -> Input<'a>) {
        let Some(state) = self.relays.get(relay) else { return };
        for shard in state.engine.all() {
            self.tell(relay, shard, input());
        }
    }

    fn tell(&mut self, relay: usize, shard: ShardId, input: Input<'_>) {
        let mut now = self.now();
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        now.wall += state.clock_ahead;
        let Some(engine) = state.engine.get_mut(shard) else {
            return;
        };
        engine.handle(now, input, &mut state.outbox);
        for (to, load) in state.outbox.carry.waiting() {
            let mail = state.engine.mail.entry((shard, to)).or_default();
            mail.push_back(std::mem::take(load));
            self.events.push_back(Event::Mail { relay, from: shard, to });
        }
        for effect in state.outbox.effects.drain(..) {
            match effect {
                Effect::Connect { attempt, address } => {
                    state.connects.push(address);
                    self.events.push_back(Event::Connect {
                        relay,
                        attempt,
                        address,
                    });
                }
                Effect::Export { channel, context } => {
                    self.events.push_back(Event::Exported {
                        relay,
                        channel,
                        context,
                    });
                }
                Effect::AnswerOnion { ticket, request } => {
                    if state.workers_run {
                        self.events.push_back(Event::Answered { relay, ticket, request });
                    } else {
                        state.work.push((ticket, request));
                    }
                }
                Effect::WantsWrite { channel } => self.events.push_back(Event::Write { relay, channel }),
                Effect::Close { channel } => {
                    if let Some(session) = self.sessions.remove(&(relay, channel)) {
                        self.events.push_back(Event::Down { end: session.other });
                    }
                }
                Effect::Opened { .. } => {}
                Effect::Report(report) => state.reports.push(report),
                effect @ (Effect::OpenStream { .. }
                | Effect::OpenDirectory { .. }
                | Effect::Resolve { .. }
                | Effect::ReadStream { .. }
                | Effect::StreamWantsWrite { .. }
                | Effect::CloseStream { .. }) => state.streams.push(effect),
            }
        }
    }

    /// Says which streams may end at a relay.
    pub fn serve(&mut self, relay: usize, services: StreamServices) {
        let defences = self.relays.get(relay).map(|state| state.settings.defences.clone());
        self.set(relay, services, defences.unwrap_or_default());
    }

    /// Says how a relay stands up to floods.
    pub fn defend(&mut self, relay: usize, defences: Defences) {
        let services = self.relays.get(relay).map(|state| state.settings.services.clone());
        self.set(relay, services.unwrap_or_default(), defences);
    }

    fn set(&mut self, relay: usize, services: StreamServices, defences: Defences) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        let old = &state.keys.settings;
        let settings = Settings {
            rsa_identity: old.rsa_identity,
            ed25519_identity: old.ed25519_identity,
            advertised: old.advertised.clone(),
            onion_keys: old.onion_keys.clone(),
            extend_allow_private_addresses: old.extend_allow_private_addresses,
            services,
            defences,
            extras: old.extras,
        };
        state.settings = Arc::new(settings);
        let settings = Arc::clone(&state.settings);
        self.handle(relay, Input::Settings(settings));
    }

    /// Lets a stream's destination take bytes, and gives them.
    pub fn drain(&mut self, relay: usize, stream: StreamId, room_bytes_max: usize) -> Vec<u8> {
        self.handle(relay, Input::StreamWritable { stream, room_bytes_max });
        let state = self.relays.get_mut(relay);
        state
            .map(|state| std::mem::take(&mut state.outbox.written))
            .unwrap_or_default()
    }

    /// Lets the workers of a relay do what has piled up.
    pub fn work(&mut self, relay: usize) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        for (ticket, request) in state.work.drain(..) {
            self.events.push_back(Event::Answered { relay, ticket, request });
        }
    }

    /// Lets a relay's sockets take bytes again.
    pub fn unblock(&mut self, relay: usize) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        state.sockets_take = true;
        for channel in state.blocked.drain(..) {
            self.events.push_back(Event::Write { relay, channel });
        }
    }

    /// Cuts a client's session.
    pub fn hang_up(&mut self, client: usize) {
        if let Some(End::Relay(relay, channel)) = self.client_ends.get(client).copied() {
            self.sessions.remove(&(relay, channel));
            self.handle(relay, Input::ChannelDown { channel });
        }
    }

    /// Cuts all sessions between two relays.
    pub fn cut(&mut self, one: usize, other: usize) {
        let between = self.sessions.iter().filter_map(|(&(relay, channel), session)| {
            let End::Relay(peer, _) = session.other else {
                return None;
            };
            (relay == one && peer == other || relay == other && peer == one).then_some((relay, channel))
        });
        let between: Vec<(usize, ChannelId)> = between.collect();
        for (relay, channel) in between {
            self.sessions.remove(&(relay, channel));
            self.handle(relay, Input::ChannelDown { channel });
        }
    }

    /// The relay that a client is connected to.
    pub fn relay_of(&self, client: usize) -> Option<usize> {
        match self.client_ends.get(client) {
            Some(End::Relay(relay, channel)) if self.sessions.contains_key(&(*relay, *channel)) => Some(*relay),
            _ => None,
        }
    }

    /// What the relay calls a client's session.
    pub fn channel_of(&self, client: usize) -> Option<ChannelId> {
        match self.client_ends.get(client) {
            Some(End::Relay(_, channel)) => Some(*channel),
            _ => None,
        }
    }

    /// Hands a relay bytes as if they came on a client's session.
    pub fn inject(&mut self, client: usize, bytes: &[u8]) {
        if let Some(&to) = self.client_ends.get(client) {
            self.events.push_back(Event::Bytes {
                to,
                bytes: bytes.to_vec(),
            });
        }
    }

    /// From now on everything takes its time, and one connection in so many is refused.
    pub fn set_weather(&mut self, seed: u64, refused_one_in: u32) {
        self.weather = Some(Weather::new(seed, refused_one_in));
    }

    /// A relay's process ends without a word, and another begins with the same keys. Peers see their sessions end.
    pub fn crash(&mut self, relay: usize) {
        let gone: Vec<_> = self.sessions.keys().filter(|(at, _)| *at == relay).copied().collect();
        for end in gone {
            if let Some(session) = self.sessions.remove(&end) {
                self.events.push_back(Event::Down { end: session.other });
            }
        }
        if let Some(weather) = &mut self.weather {
            weather.forget_work_of(relay);
        }
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        state.crashes += 1;
        state.engine = state.engine.anew(&mut self.dice);
        state.shard_of.clear();
        state.outbox = Outbox::default();
        state.streams.clear();
        state.work.clear();
        state.blocked.clear();
        state.sockets_take = true;
        let (settings, network) = (Arc::clone(&state.settings), state.network.clone());
        self.handle(relay, Input::Settings(settings));
        if let Some(network) = network {
            self.handle(relay, Input::Network(network));
        }
    }

    /// When something happens next by itself.
    pub fn due(&self) -> Option<Duration> {
        let deadlines = self.relays.iter().filter_map(|relay| relay.engine.deadline());
        deadlines
            .chain(self.weather.as_ref().and_then(Weather::next))
            .min()
            .map(|due| due.max(self.steady))
    }

    /// Lets time pass; what is due happens on the way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.steady + time;
        loop {
            self.run();
            let Some(due) = self.due().filter(|due| *due <= end) else {
                break;
            };
            self.pass_to(due);
        }
        self.steady = end;
        self.run();
    }

    /// Makes it that late, and lets happen what is due.
    pub fn pass_to(&mut self, due: Duration) {
        self.steady = self.steady.max(due);
        while let Some(event) = self.weather.as_mut().and_then(|weather| weather.arrived(due)) {
            self.happen(event);
        }
        for relay in 0..self.relays.len() {
            let deadline = self.relays.get(relay).and_then(|state| state.engine.deadline());
            if deadline.is_some_and(|deadline| deadline <= self.steady) {
                self.handle(relay, Input::Timeout);
            }
        }
        self.run();
    }

    /// Runs until nothing is on its way; with weather, until all that was said is on its way.
    pub fn run(&mut self) {
        loop {
            self.clients_speak();
            let Some(event) = self.events.pop_front() else { break };
            match &mut self.weather {
                Some(weather) => weather.take(self.steady, event),
                None => self.happen(event),
            }
        }
    }

    fn clients_speak(&mut self) {
        for (client, to) in self.clients.iter_mut().zip(&self.client_ends) {
            if !client.output.is_empty() {
                let bytes = std::mem::take(&mut client.output);
                self.events.push_back(Event::Bytes { to: *to, bytes });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bytes {
                to: End::Client(number),
                bytes,
            } => {
                if let Some(client) = self.clients.get_mut(number) {
                    client.receive(&bytes);
                }
            }
            Event::Bytes {
                to: End::Relay(relay, channel),
                mut bytes,
            } => {
                let mut rest = bytes.as_mut_slice();
                while !rest.is_empty() {
                    let piece = if self.choppy {
                        self.dice.random_range(1..=rest.len().min(1_500))
                    } else {
                        rest.len()
                    };
                    let (now, behind) = rest.split_at_mut(piece.min(64 * 1024));
                    self.handle(relay, Input::Received { channel, bytes: now });
                    rest = behind;
                }
            }
            Event::Write { relay, channel } => self.write(relay, channel),
            Event::Exported {
                relay,
                channel,
                context,
            } => {
                if let Some(session) = self.sessions.get(&(relay, channel)) {
                    let material = Sha256::new()
                        .chain_update(session.secret.to_be_bytes())
                        .chain_update(context);
                    let material = material.finalize().into();
                    self.handle(relay, Input::Exported { channel, material });
                }
            }
            Event::Connect {
                relay,
                attempt,
                address,
            } => self.link(relay, attempt, address),
            Event::Down {
                end: End::Client(number),
            } => {
                if let Some(up) = self.clients_up.get_mut(number) {
                    *up = false;
                }
            }
            Event::Down {
                end: End::Relay(relay, channel),
            } => {
                self.sessions.remove(&(relay, channel));
                self.handle(relay, Input::ChannelDown { channel });
            }
            Event::Answered { relay, ticket, request } => {
                let answer = onion::answer(&request);
                self.handle(relay, Input::OnionAnswered { ticket, answer });
            }
            Event::Mail { relay, from, to } => self.deliver(relay, from, to),
        }
    }

    fn deliver(&mut self, relay: usize, from: ShardId, to: ShardId) {
        // It waits, and all that the same shard has left behind it.
        if self.choppy && self.dice.random_range(0..3) == 0 {
            self.events.push_back(Event::Mail { relay, from, to });
            return;
        }
        let state = self.relays.get_mut(relay);
        let mail = state.and_then(|state| state.engine.mail.get_mut(&(from, to)));
        if let Some(mut load) = mail.and_then(VecDeque::pop_front) {
            let load: &mut Load = &mut load;
            self.tell(relay, to, Input::Carried { from, load });
        }
    }

    fn write(&mut self, relay: usize, channel: ChannelId) {
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        if !state.sockets_take {
            state.blocked.push(channel);
            return;
        }
        let room_bytes_max = self
            .weather
            .as_mut()
            .map_or(ROOM_BYTES, |weather| weather.room(ROOM_BYTES));
        self.handle(
            relay,
            Input::Writable {
                channel,
                room_bytes_max,
            },
        );
        let Some(state) = self.relays.get_mut(relay) else {
            return;
        };
        let mut bytes = std::mem::take(&mut state.outbox.written);
        if let (Some((from, to, change)), Some(session)) = (self.meddler, self.sessions.get(&(relay, channel)))
            && from == relay
            && matches!(session.other, End::Relay(other, _) if other == to)
        {
            change(&mut bytes);
        }
        if let Some(session) = self.sessions.get(&(relay, channel)).filter(|_| !bytes.is_empty()) {
            self.events.push_back(Event::Bytes {
                to: session.other,
                bytes,
            });
            self.events.push_back(Event::Write { relay, channel });
        }
    }

    fn link(&mut self, relay: usize, attempt: AttemptId, address: SocketAddr) {
        let listens = |state: &Relay| state.keys.hop.address == address;
        let found = self
            .detours
            .get(&address)
            .copied()
            .or_else(|| self.relays.iter().position(listens));
        let found = found.filter(|_| !self.weather.as_mut().is_some_and(Weather::refuses));
        let (Some(other), Some(state)) = (found, self.relays.get(relay)) else {
            self.handle(relay, Input::ConnectFailed { attempt });
            return;
        };
        let from = SocketAddr::new(state.keys.hop.address.ip(), 50_000);
        let Some(certificate) = self
            .relays
            .get(other)
            .map(|state| state.keys.responder.tls_certificate_sha256)
        else {
            return;
        };
        let (ours, theirs) = (self.fresh_channel(), self.fresh_channel());
        let secret = self.dice.random();
        self.sessions.insert(
            (relay, ours),
            Session {
                other: End::Relay(other, theirs),
                secret,
                _visit: None,
            },
        );
        self.sessions.insert(
            (other, theirs),
            Session {
                other: End::Relay(relay, ours),
                secret,
                _visit: None,
            },
        );
        let shard = self.shard_in_turn(other);
        self.up(other, shard, theirs, from, None);
        let shard = ShardId((attempt.0 >> 48) as u16);
        self.up(relay, shard, ours, address, Some((attempt, certificate)));
    }

    /// Sessions between relays that are up.
    pub fn links_between(&self, one: usize, other: usize) -> usize {
        let mut links = 0;
        for ((relay, _), session) in &self.sessions {
            links += usize::from(*relay == one && matches!(session.other, End::Relay(peer, _) if peer == other));
        }
        links
    }
}
