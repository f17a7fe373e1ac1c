//! What a destination sends, on its way to the client, by turns and as flow control lets it.

use relay_wire::relay_cells::{EndReason, Format, RelayCommand, RelayMessage, V0_DATA_BYTES_MAX, V1_DATA_BYTES_MAX};

use super::super::legs::room_here;
use super::super::{Engine, Verdict};
use super::desk_of;
use crate::circuit::Circuit;
use crate::circuit::duty::Duty;
use crate::conflux::Set;
use crate::door::{Effect, Now, Outbox, StreamId};
use crate::slab::{Key, Slab};
use crate::stream::{Owner, Room, Stage, Stream, Turn};
use crate::timers::Alarm;

impl Engine {
    /// The destination has something for the client.
    pub(in super::super) fn stream_readable(&mut self, now: Now, id: StreamId, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.stage == Stage::Open) else {
            return;
        };
        let owner = stream.owner;
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.hungry(id, stream);
        }
        let verdict = self.serve_streams(now, owner, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The bytes that `ReadStream` asked for: into DATA cells, for which there is room.
    pub(in super::super) fn stream_received(
        &mut self,
        now: Now,
        id: StreamId,
        bytes: &[u8],
        more: bool,
        outbox: &mut Outbox,
    ) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (owner, number) = (stream.owner, stream.number);
        let cell_bytes = data_bytes_max(&self.circuits, &self.sets, owner);
        let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) else {
            return;
        };
        let asked = desk.answered(stream, more);
        if bytes.len() > asked {
            // The driver's fault; the bytes have no place.
            self.stream_closed(now, id, EndReason::Internal, outbox);
            return;
        }
        if let Some(flow) = stream.rate() {
            flow.on_read(bytes.len() as u64);
        }
        for part in bytes.chunks(cell_bytes) {
            let verdict = self.send_data(owner, id, number, part, outbox);
            if !matches!(verdict, Verdict::Go) {
                return self.carry_out(now, verdict, outbox);
            }
        }
        if let Some(stream) = self.streams.get_mut(id)
            && let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner)
        {
            desk.again(id, stream);
        }
        let verdict = self.serve_streams(now, owner, outbox);
        self.carry_out(now, verdict, outbox);
    }

    fn send_data(&mut self, owner: Owner, id: StreamId, number: u16, data: &[u8], outbox: &mut Outbox) -> Verdict {
        let message = RelayMessage {
            command: RelayCommand::DATA,
            stream_id: number,
            data,
        };
        let verdict = match owner {
            Owner::Circuit(key) => self.originate_counted(key, &message, outbox),
            Owner::Set(key) => self.say_in_order(key, &message, outbox),
        };
        if let Verdict::Go = verdict
            && let Some(windows) = self.streams.get_mut(id).and_then(Stream::windows)
            && let Err(error) = windows.send.on_sent()
        {
            return self.flow_fault(owner, error);
        }
        verdict
    }

    /// What may go to the client now, over one circuit or all legs.
    fn room(&mut self, owner: Owner) -> Option<Room> {
        let circuits = &mut self.circuits;
        match owner {
            Owner::Circuit(key) => {
                let circuit = circuits.get_mut(key)?;
                let queued = circuit.backward.len();
                Some(circuit.edge.as_mut()?.room(queued))
            }
            Owner::Set(key) => Some(self.sets.get_mut(key)?.room(|at| room_here(circuits, at))),
        }
    }

    /// Lets the streams of an owner read, as far as there is room.
    pub(in super::super) fn serve_streams(&mut self, now: Now, owner: Owner, outbox: &mut Outbox) -> Verdict {
        if desk_of(&mut self.circuits, &mut self.sets, owner).is_none_or(|desk| !desk.is_hungry()) {
            return Verdict::Go;
        }
        let Some(room) = self.room(owner) else {
            return Verdict::Go;
        };
        let bytes = data_bytes_max(&self.circuits, &self.sets, owner);
        while let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            match desk.next_turn(now.steady, &mut self.streams, room, bytes) {
                Turn::Nobody => break,
                Turn::Read(stream, bytes_max) => outbox.effects.push(Effect::ReadStream { stream, bytes_max }),
                Turn::Later(stream, when) => self.timers.set(when, Alarm::Stream(stream)),
                Turn::QueueFull => {
                    self.await_queues(owner);
                    break;
                }
            }
        }
        Verdict::Go
    }

    /// Wants to be told when queues of an owner's have become shorter. Other shards tell by themselves.
    fn await_queues(&mut self, owner: Owner) {
        let circuits = &mut self.circuits;
        let keys = match owner {
            Owner::Circuit(key) => vec![key],
            Owner::Set(key) => {
                let set = self.sets.get_mut(key);
                let places = set.map(|set| set.held_up(|at| room_here(circuits, at)));
                places.unwrap_or_default().iter().map(|at| at.circuit).collect()
            }
        };
        for key in keys {
            if let Some(circuit) = self.circuits.get_mut(key)
                && let Some(edge) = circuit.edge.as_mut()
                && !std::mem::replace(&mut edge.awaits_queue, true)
                && let Some(channel) = self.channels.get_mut(circuit.prev.channel)
            {
                channel.awaiting_queue.push(key);
            }
        }
    }

    /// Cells have gone out on a channel: circuits that waited for that may have room.
    pub(in super::super) fn queues_shrank(&mut self, now: Now, channel: Key, outbox: &mut Outbox) {
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        if channel.awaiting_queue.is_empty() {
            return;
        }
        for key in std::mem::take(&mut channel.awaiting_queue) {
            let Some(circuit) = self.circuits.get_mut(key) else {
                continue;
            };
            if let Some(edge) = circuit.edge.as_mut() {
                edge.awaits_queue = false;
            }
            let owner = match &circuit.duty {
                Duty::Leg(leg) => Owner::Set(leg.set),
                _ => Owner::Circuit(key),
            };
            let verdict = self.serve_streams(now, owner, outbox);
            self.carry_out(now, verdict, outbox);
        }
    }

    /// The client's rate lets a stream read again.
    pub(in super::super) fn stream_alarm(&mut self, now: Now, id: StreamId, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let owner = stream.owner;
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.again(id, stream);
        }
        let verdict = self.serve_streams(now, owner, outbox);
        self.carry_out(now, verdict, outbox);
    }
}

/// Bytes that a DATA of theirs may have.
fn data_bytes_max(circuits: &Slab<Circuit>, sets: &Slab<Set>, owner: Owner) -> usize {
    let format = match owner {
        Owner::Circuit(key) => circuits
            .get(key)
            .and_then(|circuit| Some(circuit.layer.as_ref()?.format())),
        Owner::Set(key) => return sets.get(key).map_or(V1_DATA_BYTES_MAX, Set::data_bytes_max),
    };
    match format {
        Some(Format::V0) => V0_DATA_BYTES_MAX,
        Some(Format::V1) | None => V1_DATA_BYTES_MAX,
    }
}
