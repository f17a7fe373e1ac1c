//! One shard: its channels, its circuits, and the order in which things happen to them.
//!
//! Handlers never end a circuit or a channel: they return a [`Verdict`], which [`Engine::carry_out`] executes when the
//! handler is done with whatever it held. That is the only place where either dies.

mod abroad;
mod carried;
mod circuits;
mod conflux;
mod directory;
mod errands;
mod extending;
mod guests;
mod legs;
mod links;
mod memory;
mod onion_services;
mod padding;
mod resting;
mod streams;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use relay_wire::relay_cells::DestroyReason;

use self::directory::Directory;
use self::extending::Attempts;
use self::onion_services::OnionServices;
use crate::channel::{Channel, RelayLinks};
use crate::circuit::guest::Guest;
use crate::circuit::onion_queue::OnionQueue;
use crate::circuit::{Circuit, Seat, Seated, Side};
use crate::conflux::{Nonce, Set};
use crate::door::carry::ShardId;
use crate::door::{ChannelId, Input, Now, Outbox, StreamId, Tally};
use crate::dos::{Commons, DosRules};
use crate::keyed::KeyedMap;
use crate::mux::{CELLS_WAITING_MAX, Pool};
use crate::network::NetworkView;
use crate::settings::Settings;
use crate::slab::{Key, Slab};
use crate::stream::{Owner, Streams};
use crate::timers::Timers;

/// C tor's `EWMA_DEFAULT_HALF_LIFE`, where the consensus is silent.
const PRIORITY_HALFLIFE: Duration = Duration::from_secs(30);

/// Names that a shard gives away begin with its number, so that a driver may keep those of all shards together; so many
/// bits are left to count.
const NAME_BITS: u32 = 48;

/// One shard: channels, their circuits, and nothing of the outside world.
///
/// Channels are named by the driver, across all shards; everything else is named by the engine.
pub struct Engine {
    dice: StdRng,
    /// `None` until the driver has said who we are; until then no channel is taken.
    settings: Option<Arc<Settings>>,
    network: Arc<NetworkView>,
    channels: Slab<Channel>,
    channel_keys: KeyedMap<ChannelId, Key>,
    relays: RelayLinks,
    attempts: Attempts,
    directory: Directory,
    circuits: Slab<Circuit>,
    guests: Slab<Guest>,
    /// Counts our wishes to other shards.
    next_visit: u64,
    streams: Streams,
    /// Conflux sets whose home this shard is: as many as there are circuits at most.
    sets: Slab<Set>,
    set_of: HashMap<Nonce, Key>,
    /// Bytes that wait out of order in all of them.
    held_bytes: u64,
    /// What all shards of the relay have in common.
    commons: Commons,
    /// How floods are met, by torrc and consensus together.
    dos: DosRules,
    /// Beginnings of cells, of all channels.
    unread_bytes: u64,
    /// The other shards have been told that memory is full, and it has been so ever since.
    full_told: bool,
    /// Bytes in queues that the others know of.
    queued_bytes_told: u64,
    onion_services: OnionServices,
    pool: Pool,
    /// Cells that may wait on one circuit in one direction: param-spec `circ_max_cell_queue_size`. Asked for each
    /// cell, so it is looked up once for each consensus.
    cells_waiting_max: u32,
    /// The same away from the client: `circ_max_cell_queue_size_out`.
    cells_waiting_out_max: u32,
    /// After this time a sent cell counts half where circuits share a channel: `CircuitPriorityHalflifeMsec`.
    priority_halflife: Duration,
    onions: OnionQueue,
    timers: Timers,
    /// The onion queue's alarm that is set already.
    onion_alarm: Option<Duration>,
    /// Where among the circuits the next look begins; `None` while there is nothing to look at.
    look_from: Option<usize>,
    retiring: bool,
    tally: Tally,
}

/// What a handler wants to be done once it is through.
#[must_use]
enum Verdict {
    /// Nothing.
    Go,
    /// The circuit ends; each side that has a reason is told it.
    EndCircuit {
        circuit: Key,
        to_prev: Option<DestroyReason>,
        to_next: Option<DestroyReason>,
    },
    /// A circuit of another shard has no leg here any more; its owner, and the next relay, are told the reason if there is one.
    EndGuest {
        guest: Key,
        to_owner: Option<DestroyReason>,
        to_next: Option<DestroyReason>,
    },
    /// A conflux set ends with all its legs, whose clients are told the reason.
    EndSet { set: Key, reason: DestroyReason },
    /// The channel ends with all its circuits; the text names the rule that was broken, if one was.
    CloseChannel { channel: Key, rule: Option<&'static str> },
}

impl Verdict {
    /// The circuit ends for a reason of ours: the client is told it, the rest only that it ended.
    fn end(circuit: Key, reason: DestroyReason) -> Self {
        Self::EndCircuit {
            circuit,
            to_prev: Some(reason),
            to_next: Some(DestroyReason::Destroyed),
        }
    }

    /// The same for the owner of streams.
    fn end_owner(owner: Owner, reason: DestroyReason) -> Self {
        match owner {
            Owner::Circuit(circuit) => Self::end(circuit, reason),
            Owner::Set(set) => Self::EndSet { set, reason },
        }
    }

    /// The same for whoever has that seat, be it a guest or one of ours.
    fn end_seat(seat: Seat, reason: DestroyReason) -> Self {
        match seat.side {
            Side::Guest => Self::EndGuest {
                guest: seat.circuit,
                to_owner: Some(reason),
                to_next: Some(DestroyReason::Destroyed),
            },
            Side::Prev | Side::Next => Self::end(seat.circuit, reason),
        }
    }
}

impl Engine {
    /// The only shard of a relay, without channels. `seed` is all the randomness that it will ever have.
    pub fn new(seed: [u8; 32]) -> Self {
        Self::of_several(seed, ShardId(0), NonZeroU16::MIN)
    }

    /// One shard of several, which carry for each other. All of them must be told of each other's number rightly:
    /// `shards` is how many there are, and `own` is below it.
    pub fn of_several(seed: [u8; 32], own: ShardId, shards: NonZeroU16) -> Self {
        let first_name = u64::from(own.0) << NAME_BITS;
        Self {
            dice: StdRng::from_seed(seed),
            settings: None,
            network: Arc::default(),
            channels: Slab::new(),
            channel_keys: KeyedMap::default(),
            relays: RelayLinks::default(),
            attempts: Attempts::named_from(first_name),
            directory: Directory::new(own, shards),
            circuits: Slab::new(),
            guests: Slab::new(),
            next_visit: 0,
            streams: Streams::named_from(first_name),
            sets: Slab::new(),
            set_of: HashMap::new(),
            held_bytes: 0,
            onion_services: OnionServices::default(),
            commons: Commons::new([0; 32]),
            dos: DosRules::default(),
            unread_bytes: 0,
            full_told: false,
            queued_bytes_told: 0,
            pool: Pool::new(),
            cells_waiting_max: CELLS_WAITING_MAX as u32,
            cells_waiting_out_max: CELLS_WAITING_MAX as u32,
            priority_halflife: PRIORITY_HALFLIFE,
            onions: OnionQueue::named_from(first_name),
            timers: Timers::default(),
            onion_alarm: None,
            look_from: None,
            retiring: false,
            tally: Tally::default(),
        }
    }

    /// Takes one input; all its consequences are in `outbox` when this returns.
    pub fn handle(&mut self, now: Now, input: Input<'_>, outbox: &mut Outbox) {
        self.pool.is(now.steady);
        match input {
            Input::Settings(settings) => {
                self.settings = Some(settings);
                self.renew_rules();
            }
            Input::Network(network) => {
                let parameters = &network.parameters;
                let cells = parameters.clamped("circ_max_cell_queue_size", CELLS_WAITING_MAX, 1_000, i32::MAX);
                self.cells_waiting_max = cells as u32;
                let cells = parameters.clamped("circ_max_cell_queue_size_out", cells, 1_000, i32::MAX);
                self.cells_waiting_out_max = cells as u32;
                let usual = PRIORITY_HALFLIFE.as_millis() as i32;
                let halflife = parameters.clamped("CircuitPriorityHalflifeMsec", usual, 1, i32::MAX);
                self.priority_halflife = Duration::from_millis(halflife as u64);
                self.network = network;
                self.renew_rules();
            }
            Input::ChannelUp { channel, facts } => self.channel_up(now, channel, facts, outbox),
            Input::Received { channel, bytes } => self.received(now, channel, bytes, outbox),
            Input::Writable {
                channel,
                room_bytes_max,
            } => self.writable(now, channel, room_bytes_max, outbox),
            Input::Exported { channel, material } => self.exported(now, channel, material, outbox),
            Input::ChannelDown { channel } => self.channel_down(now, channel, outbox),
            Input::ConnectFailed { attempt } => {
                self.attempt_failed(now, attempt, DestroyReason::ConnectFailed, outbox);
            }
            Input::OnionAnswered { ticket, answer } => self.onion_answered(now, ticket, answer, outbox),
            Input::Timeout => self.timeout(now, outbox),
            Input::Retire => self.retiring = true,
            Input::Resume => self.retiring = false,
            Input::EndCircuits => self.end_circuits(now, outbox),
            Input::StreamConnected { stream, address } => self.stream_connected(now, stream, address, outbox),
            Input::StreamRefused { stream, refusal } => self.stream_refused(now, stream, refusal, outbox),
            Input::StreamResolved { stream, answers } => self.stream_resolved(now, stream, answers, outbox),
            Input::StreamReadable { stream } => self.stream_readable(now, stream, outbox),
            Input::StreamReceived { stream, bytes, more } => self.stream_received(now, stream, bytes, more, outbox),
            Input::StreamWritable { stream, room_bytes_max } => {
                self.stream_writable(now, stream, room_bytes_max, outbox)
            }
            Input::StreamClosed { stream, reason } => self.stream_closed(now, stream, reason, outbox),
            Input::Carried { from, load } => self.carried(now, from, load, outbox),
        }
        self.mind_memory(now, outbox);
    }

    /// Shares what is common with the relay's other shards. Asked before anything else, or not at all: then the shard has
    /// its own.
    pub fn share(&mut self, commons: Commons) {
        self.commons = commons;
        self.renew_rules();
    }

    fn renew_rules(&mut self) {
        if let Some(settings) = &self.settings {
            self.dos = DosRules::of(&settings.defences.dos, &self.network.parameters);
            self.commons.addresses.set_rules(self.dos);
        }
    }

    /// When the driver must say `Timeout` at the latest, on the steady clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Sums and levels for metrics.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        tally.circuits_open = self.circuits.len() as u64;
        tally.streams_open = self.streams.len() as u64;
        // Shards share what is known of addresses; one of them tells it.
        if self.directory.own() == ShardId(0) {
            let of_addresses = self.commons.addresses.tally();
            tally.dos_circuits_rejected = of_addresses.circuits_rejected;
            tally.dos_addresses_marked = of_addresses.addresses_marked;
            tally.dos_addresses_marked_maxq = of_addresses.addresses_marked_maxq;
            tally.dos_connections_rejected = of_addresses.connections_rejected;
            tally.dos_concurrent_connections_rejected = of_addresses.concurrent_connections_rejected;
        }
        tally
    }

    /// Cells that wait in all queues of this shard.
    pub fn cells_waiting(&self) -> usize {
        self.pool.cells_waiting()
    }

    /// Bytes that wait for a stream's destination; 0 for a stream that is not there.
    pub fn stream_backlog_bytes(&self, stream: StreamId) -> usize {
        self.streams.get(stream).map_or(0, |stream| stream.backlog.len())
    }

    /// Conflux sets that live here.
    pub fn conflux_sets(&self) -> usize {
        self.sets.len()
    }

    /// Circuits of other shards that have a leg here.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Ends all circuits. Clients are told so that they need not wait for an answer.
    fn end_circuits(&mut self, now: Now, outbox: &mut Outbox) {
        self.retiring = true;
        for circuit in self.circuits.keys() {
            self.carry_out(now, Verdict::end(circuit, DestroyReason::Hibernating), outbox);
        }
        for guest in self.guests.keys() {
            let reason = Some(DestroyReason::Destroyed);
            let (to_owner, to_next) = (reason, reason);
            self.carry_out(
                now,
                Verdict::EndGuest {
                    guest,
                    to_owner,
                    to_next,
                },
                outbox,
            );
        }
    }

    /// The one place where circuits and channels end.
    #[inline]
    fn carry_out(&mut self, now: Now, verdict: Verdict, outbox: &mut Outbox) {
        if !matches!(verdict, Verdict::Go) {
            self.end(now, verdict, outbox);
        }
    }

    #[cold]
    fn end(&mut self, now: Now, verdict: Verdict, outbox: &mut Outbox) {
        match verdict {
            Verdict::Go => {}
            Verdict::EndCircuit {
                circuit,
                to_prev,
                to_next,
            } => {
                self.end_circuit(now, circuit, to_prev, to_next, outbox);
            }
            Verdict::EndGuest {
                guest,
                to_owner,
                to_next,
            } => self.end_guest(now, guest, to_owner, to_next, outbox),
            Verdict::EndSet { set, reason } => self.end_set(now, set, reason, outbox),
            Verdict::CloseChannel { channel, rule } => self.close_channel(now, channel, rule, outbox),
        }
    }

    fn seated(&mut self) -> Seated<'_> {
        Seated {
            circuits: &mut self.circuits,
            guests: &mut self.guests,
        }
    }

    fn advertised(&self) -> &[SocketAddr] {
        self.settings
            .as_ref()
            .map(|settings| settings.advertised.as_slice())
            .unwrap_or_default()
    }
}
