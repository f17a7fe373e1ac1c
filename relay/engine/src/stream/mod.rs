//! Streams: what a client does at the end of its circuit. Tables and queues; knows no cell and no crypto.
//!
//! The engine owns all streams of a shard in [`Streams`]; a circuit that has any, or had, owns an [`Edge`]: its flow
//! control and the names of its streams. Messages are read and made in `engine/streams.rs`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::door::StreamId;
use crate::dos::StreamRules;
use crate::flow::{
    Backlog, CircuitFlow, FlowParameters, Path, SendmeRules, StreamFlow, StreamWindows, TokenBucket, VegasParameters,
    Watermarks,
};
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

/// One stream.
pub(crate) struct Stream {
    pub(crate) circuit: Key,
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
    by_id: HashMap<StreamId, Stream>,
    next: u64,
}

impl Streams {
    /// A table whose names begin there.
    pub(crate) fn named_from(next: u64) -> Self {
        Self {
            backlog_bytes: 0,
            by_id: HashMap::new(),
            next,
        }
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        self.by_id.insert(id, stream);
        id
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
    pub(crate) fn new(circuit: Key, number: u16, stage: Stage, rate: Option<FlowParameters>) -> Self {
        Self {
            circuit,
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
    pub(crate) rate: Option<FlowParameters>,
    queue: Watermarks,
    pub(crate) by_number: HashMap<u16, StreamId>,
    /// Streams with something to read, in turn; each once, so no longer than `by_number` but for the dead.
    turns: VecDeque<StreamId>,
    reserved_cells: u64,
    pub(crate) backlog_bytes: usize,
    /// Since when there is any.
    pub(crate) backlog_since: Duration,
    /// BEGIN and RESOLVE that the client may send; made with the first, where the rules ask for it.
    pub(crate) openings: Option<TokenBucket>,
    /// Whether it waits for its queue to the client to become shorter.
    pub(crate) awaits_queue: bool,
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
            rate,
            queue: Watermarks::cells_of_circuit(parameters),
            by_number: HashMap::new(),
            turns: VecDeque::new(),
            reserved_cells: 0,
            backlog_bytes: 0,
            backlog_since: Duration::ZERO,
            openings: None,
            awaits_queue: false,
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

    /// How Vegas sees our queue to the client.
    pub(crate) fn backlog(&mut self, cells_queued: usize) -> Backlog {
        Backlog {
            blocked: self.queue.note(cells_queued),
            cells: cells_queued as u64,
        }
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

    /// Whose turn it is, and for how much. The room of circuit and queue is shared by turns.
    pub(crate) fn next_turn(
        &mut self,
        now: Duration,
        streams: &mut Streams,
        cells_queued: usize,
        cell_bytes: usize,
    ) -> Turn {
        while let Some(&id) = self.turns.front() {
            let Some(stream) = streams.get_mut(id) else {
                self.turns.pop_front();
                continue;
            };
            self.queue.note(cells_queued);
            let queue_room = self.queue.room(cells_queued) as u64;
            let flow_room = self.flow.room_cells();
            if queue_room <= self.reserved_cells {
                return Turn::QueueFull;
            }
            let room = queue_room.min(flow_room).saturating_sub(self.reserved_cells);
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
    }
}
