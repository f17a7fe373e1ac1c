//! What a client sends, on its way to the destination, and what that does to flow control.

use relay_wire::flow_control::XOFF;
use relay_wire::relay_cells::{RelayCommand, RelayMessage};

use super::super::{Engine, Verdict};
use super::{desk_of, wake};
use crate::circuit::duty::Duty;
use crate::door::{Now, Outbox, StreamId};
use crate::flow::{FlowError, Signal, Tag, Vegas};
use crate::slab::Key;
use crate::stream::{BACKLOG_BYTES_MAX, Owner, Stage, Stream};

impl Engine {
    /// DATA: for flow control first, whether the stream is there or not; then for the stream.
    pub(in super::super) fn data(
        &mut self,
        now: Now,
        key: Key,
        tag: &Tag,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        match self.acknowledge(key, tag, outbox) {
            Verdict::Go => self.data_in_turn(now, Owner::Circuit(key), message, outbox),
            verdict => verdict,
        }
    }

    /// A DATA has come on this circuit.
    pub(in super::super) fn acknowledge(&mut self, key: Key, tag: &Tag, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let edge = circuit.edge(&self.network.parameters);
        match edge.flow.on_data_received(tag) {
            Ok(Some(body)) => self.tell(key, RelayCommand::SENDME, body.as_bytes(), outbox),
            Ok(None) => Verdict::Go,
            Err(error) => self.flow_fault(Owner::Circuit(key), error),
        }
    }

    /// A DATA for its stream.
    pub(in super::super) fn data_in_turn(
        &mut self,
        now: Now,
        owner: Owner,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        match self.deliver(now, owner, message, outbox) {
            Ok(None) if message.data.is_empty() => self.acknowledge_nothing(owner, message.stream_id, outbox),
            Ok(Some(Signal::Xoff)) => self.say(owner, RelayCommand::XOFF, message.stream_id, &XOFF, outbox),
            Ok(Some(Signal::Xon(xon))) => self.say(owner, RelayCommand::XON, message.stream_id, &xon.write(), outbox),
            Ok(None) => Verdict::Go,
            Err(error) => self.flow_fault(owner, error),
        }
    }

    /// An empty DATA takes its place in the window, but no destination will ever drain it.
    fn acknowledge_nothing(&mut self, owner: Owner, number: u16, outbox: &mut Outbox) -> Verdict {
        let desk = desk_of(&mut self.circuits, &mut self.sets, owner);
        let id = desk.and_then(|desk| desk.by_number.get(&number).copied());
        let stream = id
            .and_then(|id| self.streams.get_mut(id))
            .filter(|stream| stream.backlog.is_empty());
        match stream
            .and_then(Stream::windows)
            .is_some_and(|windows| windows.receive.take_sendme())
        {
            true => self.say(owner, RelayCommand::SENDME, number, &[], outbox),
            false => Verdict::Go,
        }
    }

    fn deliver(
        &mut self,
        now: Now,
        owner: Owner,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Result<Option<Signal>, FlowError> {
        let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) else {
            return Ok(None);
        };
        let found = desk.by_number.get(&message.stream_id).copied();
        let Some((id, (stream, all))) = found.and_then(|id| Some((id, self.streams.get_counted(id)?))) else {
            self.tally.stray_stream_cells += 1;
            return Ok(None);
        };
        // Nobody has data for a question.
        if stream.stage == Stage::Asking {
            self.tally.stray_stream_cells += 1;
            return Ok(None);
        }
        if let Some(windows) = stream.windows() {
            windows.receive.on_received()?;
        }
        stream.backlog.extend(message.data);
        *all += message.data.len() as u64;
        if desk.backlog_bytes == 0 {
            desk.backlog_since = now.steady;
        }
        desk.backlog_bytes += message.data.len();
        if desk.backlog_bytes > BACKLOG_BYTES_MAX {
            return Err(FlowError::XoffIgnored);
        }
        let backlog = stream.backlog.len() as u64;
        let signal = match stream.rate() {
            Some(flow) => flow.on_data_received(now.steady, backlog)?,
            None => None,
        };
        wake(id, stream, outbox);
        Ok(signal)
    }

    /// SENDME of a circuit.
    pub(in super::super) fn sendme(
        &mut self,
        now: Now,
        key: Key,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let queued = circuit.backward.len();
        let is_leg = matches!(circuit.duty, Duty::Leg(_));
        let edge = circuit.edge(&self.network.parameters);
        let backlog = edge.backlog(queued);
        if let Err(error) = edge.flow.on_sendme(now.steady, message.data, backlog) {
            return self.flow_fault(Owner::Circuit(key), error);
        }
        if let Some(vegas) = edge.flow.congestion_control() {
            self.tally.congestion.note(vegas.lesson());
        }
        if is_leg {
            let rtt = edge.flow.congestion_control().and_then(Vegas::rtt);
            self.leg_measured(now, key, rtt, outbox);
            return Verdict::Go;
        }
        self.serve_streams(now, Owner::Circuit(key), outbox)
    }

    /// The destination takes bytes.
    pub(in super::super) fn stream_writable(
        &mut self,
        now: Now,
        id: StreamId,
        room_bytes_max: usize,
        outbox: &mut Outbox,
    ) {
        outbox.written.clear();
        let found = self.streams.get_counted(id);
        let Some((stream, all)) = found.filter(|(stream, _)| stream.stage == Stage::Open) else {
            return;
        };
        let (owner, number) = (stream.owner, stream.number);
        let written = stream.backlog.len().min(room_bytes_max);
        // Piece by piece: an iterator over the bytes of a ring would move them one by one.
        let (front, back) = stream.backlog.as_slices();
        let from_front = front.len().min(written);
        for piece in [front.get(..from_front), back.get(..written - from_front)] {
            outbox.written.extend_from_slice(piece.unwrap_or_default());
        }
        stream.backlog.drain(..written);
        *all = all.saturating_sub(written as u64);
        let left = stream.backlog.len();
        // With something left the driver comes again by itself, unless the room was too small to show it that.
        stream.wants_write_said = left > 0 && written > 0;
        wake(id, stream, outbox);
        if left == 0 && stream.backlog.capacity() > 64 * 1024 {
            stream.backlog = std::collections::VecDeque::new();
        }
        let signal = stream
            .rate()
            .and_then(|flow| flow.on_drained(now.steady, written as u64, left as u64));
        let mut sendmes = 0;
        if let Some(windows) = stream.windows().filter(|_| left == 0) {
            while windows.receive.take_sendme() {
                sendmes += 1;
            }
        }
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.backlog_bytes = desk.backlog_bytes.saturating_sub(written);
        }
        let mut verdict = match signal {
            Some(Signal::Xon(xon)) => self.say(owner, RelayCommand::XON, number, &xon.write(), outbox),
            Some(Signal::Xoff) => self.say(owner, RelayCommand::XOFF, number, &XOFF, outbox),
            None => Verdict::Go,
        };
        for _ in 0..sendmes {
            if matches!(verdict, Verdict::Go) {
                verdict = self.say(owner, RelayCommand::SENDME, number, &[], outbox);
            }
        }
        self.carry_out(now, verdict, outbox);
    }

    /// Bytes that wait for a stream's destination.
    pub(super) fn backlog_bytes(&mut self, owner: Owner, number: u16) -> u64 {
        let desk = desk_of(&mut self.circuits, &mut self.sets, owner);
        let id = desk.and_then(|desk| desk.by_number.get(&number).copied());
        let stream = id.and_then(|id| self.streams.get_mut(id));
        stream.map_or(0, |stream| stream.backlog.len() as u64)
    }
}
