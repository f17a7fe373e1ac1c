//! Streams: what a client does at the end of its circuit. Tables and queues; knows no cell and no crypto.
//!
//! The engine owns all streams of a shard in [`Streams`]; a circuit that has any, or had, owns an [`Edge`]: its flow
//! control and a [`Desk`], where the names of its streams are and whose turn it is. Circuits that are legs of one conflux
//! set have one desk together, the set's. Messages are read and made in `engine/streams.rs`.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::door::StreamId;
use crate::dos::StreamRules;
use crate::flow::{
    Backlog, CircuitFlow, FlowParameters, Path, SendmeRules, StreamFlow, StreamWindows, TokenBucket, VegasParameters,
    Watermarks,
};
use crate::keyed::KeyedMap;
use crate::network::Parameters;
use crate::slab::Key;

/// A table with room for so many streams is not worth making smaller (our own number).
const TABLE_KEPT: usize = 1_024;

/// Streams that a circuit may have at once. C tor has no limit but the 65,535 ids; a client's circuit has ten minutes for
/// new streams. Beyond it BEGIN gets END MISC.
pub(crate) const STREAMS_MAX: usize = 4_096;

/// Bytes that all streams of a circuit together may hold for their destinations: three streams with congestion control
/// at their own limit ([`FlowParameters::backlog_bytes_max`]), or 67 full windows without. Ours; C tor leaves it to its
/// OOM handler. Beyond it the circuit ends.
pub(crate) const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Cells that one stream may fill in its turn: 16 KiB, what C tor reads at once.
const TURN_CELLS: u64 = 32;

/// Streams that have ended may stand in the turns of a desk, besides twice as many as live there; ours, so that they are
/// cleared away seldom.
const DEAD_TURNS_MAX: usize = 64;

/// How much may go on a stream.
enum Flow {
    Windows(StreamWindows),
    Rate(Box<StreamFlow>),
}

/// What a stream waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The driver's answer to `OpenStream` or `OpenDirectory`.
    Opening,
    /// The driver's answer to `Resolve`.
    Asking,
    /// Bytes.
    Open,
}

/// Whose desk a stream is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Circuit(Key),
    /// A conflux set of this shard.
    Set(Key),
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) owner: Owner,
    /// The client's number for it.
    pub(crate) number: u16,
    pub(crate) stage: Stage,
    flow: Flow,
    /// For the destination. Bounded by the window or by [`FlowParameters::backlog_bytes_max`].
    pub(crate) backlog: VecDeque<u8>,
    pub(crate) wants_write_said: bool,
    /// The driver has something to read.
    readable: bool,
    in_turns: bool,
    /// Cells kept free for what `ReadStream` asked for.
    reserved_cells: u64,
    asked_bytes: usize,
    /// The alarm that is set, where the client told a rate.
    alarm_at: Option<Duration>,
}

/// All streams of a shard.
pub(crate) struct Streams {
    /// Bytes that wait for all destinations.
    pub(crate) backlog_bytes: u64,
    by_id: KeyedMap<StreamId, Stream>,
    next: u64,
}

impl Streams {
    /// A table whose names begin there.
    pub(crate) fn named_from(next: u64) -> Self {
        Self {
            backlog_bytes: 0,
            by_id: KeyedMap::default(),
            next,
        }
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        self.by_id.insert(id, stream);
        id
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.by_id.get_mut(&id)
    }

    /// A stream, and the count of all streams' bytes that must be kept with its own.
    pub(crate) fn get_counted(&mut self, id: StreamId) -> Option<(&mut Stream, &mut u64)> {
        Some((self.by_id.get_mut(&id)?, &mut self.backlog_bytes))
    }

    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let removed = self.by_id.remove(&id)?;
        // What a flood took is given back; seldom enough to cost nothing.
        if self.by_id.len() * 8 < self.by_id.capacity() && self.by_id.capacity() > TABLE_KEPT {
            self.by_id.shrink_to(self.by_id.len() * 2);
        }
        self.backlog_bytes = self.backlog_bytes.saturating_sub(removed.backlog.len() as u64);
        Some(removed)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Stream {
    pub(crate) fn new(owner: Owner, number: u16, stage: Stage, rate: Option<FlowParameters>) -> Self {
        Self {
            owner,
            number,
            stage,
            flow: match rate {
                Some(parameters) => Flow::Rate(Box::new(StreamFlow::new(parameters))),
                None => Flow::Windows(StreamWindows::new()),
            },
            backlog: VecDeque::new(),
            wants_write_said: false,
            readable: false,
            in_turns: false,
            reserved_cells: 0,
            asked_bytes: 0,
            alarm_at: None,
        }
    }

    pub(crate) fn windows(&mut self) -> Option<&mut StreamWindows> {
        match &mut self.flow {
            Flow::Windows(windows) => Some(windows),
            Flow::Rate(_) => None,
        }
    }

    pub(crate) fn rate(&mut self) -> Option<&mut StreamFlow> {
        match &mut self.flow {
            Flow::Windows(_) => None,
            Flow::Rate(flow) => Some(flow),
        }
    }

    /// Cells that flow control lets it fill now, and when it will be more if a clock decides that.
    fn room_cells(&mut self, now: Duration, cell_bytes: usize) -> (u64, Option<Duration>) {
        match &mut self.flow {
            Flow::Windows(windows) => (u64::from(windows.send.room_cells()), None),
            Flow::Rate(flow) => match flow.read_allowance_bytes(now) / cell_bytes.max(1) as u64 {
                0 => (0, flow.readable_at()),
                cells => (cells, None),
            },
        }
    }

    /// Bytes that the driver was asked for; the question is answered with this.
    pub(crate) fn take_asked_bytes(&mut self) -> (usize, u64) {
        (
            std::mem::take(&mut self.asked_bytes),
            std::mem::take(&mut self.reserved_cells),
        )
    }
}

/// A circuit's end at this relay.
pub(crate) struct Edge {
    pub(crate) flow: CircuitFlow,
    queue: Watermarks,
    /// Whether it waits for its queue to the client to become shorter.
    pub(crate) awaits_queue: bool,
    pub(crate) desk: Desk,
}

/// Where streams that share their way to the client take turns.
pub(crate) struct Desk {
    /// `None`: streams have windows.
    pub(crate) rate: Option<FlowParameters>,
    pub(crate) by_number: KeyedMap<u16, StreamId>,
    /// Streams with something to read, in turn; each once, so no longer than `by_number` but for the dead.
    turns: VecDeque<StreamId>,
    reserved_cells: u64,
    pub(crate) backlog_bytes: usize,
    /// Since when there is any.
    pub(crate) backlog_since: Duration,
    /// BEGIN and RESOLVE that the client may send; made with the first, where the rules ask for it.
    pub(crate) openings: Option<TokenBucket>,
}

/// DATA cells that may go to the client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Until our own queue is too long.
    pub(crate) queue: u64,
    /// By flow control.
    pub(crate) flow: u64,
}

/// What a stream may do in its turn.
pub(crate) enum Turn {
    /// Nobody has one, or nobody may.
    Nobody,
    /// Our own queue to the client is too long.
    QueueFull,
    /// Read so many bytes.
    Read(StreamId, usize),
    /// Not before that time.
    Later(StreamId, Duration),
}

impl Edge {
    /// For a circuit with (`sendme_increment`) or without congestion control.
    pub(crate) fn new(parameters: &Parameters, sendme_increment: Option<u8>, made_by_create_fast: bool) -> Self {
        let rules = SendmeRules::read(parameters, made_by_create_fast);
        let (flow, rate) = match sendme_increment {
            Some(increment) => {
                let vegas = VegasParameters::read(parameters, Path::Exit, increment);
                (CircuitFlow::vegas(rules, vegas), Some(FlowParameters::read(parameters)))
            }
            None => (CircuitFlow::fixed(rules), None),
        };
        Self {
            flow,
            queue: Watermarks::cells_of_circuit(parameters),
            awaits_queue: false,
            desk: Desk::new(rate),
        }
    }

    /// How Vegas sees our queue to the client.
    pub(crate) fn backlog(&mut self, cells_queued: usize) -> Backlog {
        Backlog {
            blocked: self.queue.note(cells_queued),
            cells: cells_queued as u64,
        }
    }

    /// What may go, while so many cells wait for the client.
    pub(crate) fn room(&mut self, cells_queued: usize) -> Room {
        self.queue.note(cells_queued);
        Room {
            queue: self.queue.room(cells_queued) as u64,
            flow: self.flow.room_cells(),
        }
    }

    /// Whether the client has not acknowledged all that a SENDME will ever acknowledge.
    pub(crate) fn has_unacknowledged(&self, sendme_increment: u8) -> bool {
        let vegas = self.flow.congestion_control();
        vegas.is_some_and(|vegas| vegas.inflight_cells() >= u64::from(sendme_increment))
    }
}

impl Desk {
    /// Without streams.
    pub(crate) fn new(rate: Option<FlowParameters>) -> Self {
        Self {
            rate,
            by_number: KeyedMap::default(),
            turns: VecDeque::new(),
            reserved_cells: 0,
            backlog_bytes: 0,
            backlog_since: Duration::ZERO,
            openings: None,
        }
    }

    /// Whether the client may open or ask for one more now.
    pub(crate) fn may_open(&mut self, now: Duration, rules: &StreamRules) -> bool {
        let (rate, burst) = (u64::from(rules.rate), u64::from(rules.burst));
        let bucket = self.openings.get_or_insert_with(|| TokenBucket::new(now, rate, burst));
        let may = bucket.available(now) > 0;
        bucket.take(u64::from(may));
        may
    }

    /// The stream has something to read and wants a turn.
    pub(crate) fn hungry(&mut self, id: StreamId, stream: &mut Stream) {
        stream.readable = true;
        self.again(id, stream);
    }

    /// It may have room again.
    pub(crate) fn again(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.readable && !stream.in_turns && stream.asked_bytes == 0 {
            stream.in_turns = true;
            self.turns.push_back(id);
        }
    }

    /// The driver has answered `ReadStream`: gives back what was kept free. Returns the bytes that were asked for.
    pub(crate) fn answered(&mut self, stream: &mut Stream, more: bool) -> usize {
        let (asked, cells) = stream.take_asked_bytes();
        self.reserved_cells = self.reserved_cells.saturating_sub(cells);
        stream.readable = more;
        asked
    }

    /// Whether anybody wants a turn.
    pub(crate) fn is_hungry(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whose turn it is, and for how much. The room is shared by turns.
    pub(crate) fn next_turn(&mut self, now: Duration, streams: &mut Streams, room: Room, cell_bytes: usize) -> Turn {
        while let Some(&id) = self.turns.front() {
            let Some(stream) = streams.get_mut(id) else {
                self.turns.pop_front();
                continue;
            };
            if room.queue <= self.reserved_cells {
                return Turn::QueueFull;
            }
            let room = room.queue.min(room.flow).saturating_sub(self.reserved_cells);
            if room == 0 {
                return Turn::Nobody;
            }
            self.turns.pop_front();
            stream.in_turns = false;
            let (own, later) = stream.room_cells(now, cell_bytes);
            let cells = room.min(own).min(TURN_CELLS);
            if cells == 0 {
                match later {
                    // An alarm that is set already will do.
                    Some(when) if stream.alarm_at.is_none_or(|set| set <= now) => {
                        stream.alarm_at = Some(when);
                        return Turn::Later(id, when);
                    }
                    _ => continue,
                }
            }
            stream.reserved_cells = cells;
            stream.asked_bytes = cells as usize * cell_bytes;
            self.reserved_cells += cells;
            return Turn::Read(id, stream.asked_bytes);
        }
        Turn::Nobody
    }

    /// Takes a stream off the tables.
    pub(crate) fn forget(&mut self, stream: &mut Stream) {
        self.by_number.remove(&stream.number);
        let (_, cells) = stream.take_asked_bytes();
        self.reserved_cells = self.reserved_cells.saturating_sub(cells);
        self.backlog_bytes = self.backlog_bytes.saturating_sub(stream.backlog.len());
        // Of streams that have ended nothing is kept: what still comes for them is dropped, as C tor's relays do.
        if self.turns.len() > DEAD_TURNS_MAX + 2 * self.by_number.len() {
            let live: HashSet<StreamId> = self.by_number.values().copied().collect();
            self.turns.retain(|id| live.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams that end while others wait for the window are not to fill the list of turns.
    #[test]
    fn a_hundred_thousand_streams_that_have_ended_leave_nothing() {
        let (mut desk, mut streams) = (Desk::new(None), Streams::named_from(0));
        let owner = Owner::Circuit(crate::slab::Slab::new().insert(()));
        let mut begin = |desk: &mut Desk, number: u16| {
            let id = streams.insert(Stream::new(owner, number, Stage::Open, None));
            desk.by_number.insert(number, id);
            if let Some(stream) = streams.get_mut(id) {
                desk.hungry(id, stream);
            }
            (id, streams.remove(id))
        };
        // It waits for its turn, in front of all others.
        begin(&mut desk, 1);
        for number in (2..=u16::MAX).cycle().take(100_000) {
            let (_, stream) = begin(&mut desk, number);
            desk.forget(&mut stream.expect("a stream"));
        }
        assert_eq!(desk.by_number.len(), 1);
        assert!(desk.turns.len() <= DEAD_TURNS_MAX + 3, "{}", desk.turns.len());
    }
}
