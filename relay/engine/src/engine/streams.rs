//! Streams that end here: messages of clients in, wishes to the driver out, and back.

use relay_wire::destination::{Destination, NameRule};
use relay_wire::flow_control::{XOFF, Xon};
use relay_wire::relay_cells::{
    DestroyReason, EndReason, Format, RelayCommand, RelayMessage, V0_DATA_BYTES_MAX, V1_DATA_BYTES_MAX,
};
use relay_wire::stream::{self as bodies, Answer, Begin, Resolve};

use super::legs::room_here;
use super::{Engine, Verdict};
use crate::circuit::Circuit;
use crate::circuit::duty::Duty;
use crate::conflux::Set;
use crate::door::{ClientAddress, Effect, Host, Now, Outbox, Question, Refusal, StreamBytes, StreamId, Target};
use crate::dos::StreamDefense;
use crate::flow::{FlowError, FlowVerdict, Signal, Tag, Vegas};
use crate::slab::{Key, Slab};
use crate::stream::{BACKLOG_BYTES_MAX, Desk, Owner, Room, STREAMS_MAX, Stage, Stream, Turn};
use crate::timers::Alarm;

/// The desk that an owner's streams are at. The parts come one by one, as the caller holds others.
fn desk_of<'a>(circuits: &'a mut Slab<Circuit>, sets: &'a mut Slab<Set>, owner: Owner) -> Option<&'a mut Desk> {
    match owner {
        Owner::Circuit(key) => Some(&mut circuits.get_mut(key)?.edge.as_mut()?.desk),
        Owner::Set(key) => Some(&mut sets.get_mut(key)?.desk),
    }
}

impl Engine {
    /// DATA: for flow control first, whether the stream is there or not; then for the stream.
    pub(super) fn data(
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
    pub(super) fn acknowledge(&mut self, key: Key, tag: &Tag, outbox: &mut Outbox) -> Verdict {
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
    pub(super) fn data_in_turn(
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

    /// BEGIN, BEGIN_DIR and RESOLVE, in the order of C tor's checks (`connection_exit_begin_conn`).
    pub(super) fn begin(&mut self, now: Now, owner: Owner, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        if let Owner::Circuit(key) = owner
            && let Some(circuit) = self.circuits.get_mut(key)
        {
            circuit.edge(&self.network.parameters);
        }
        let rules = self.dos.streams.filter(|_| message.command != RelayCommand::BEGIN_DIR);
        let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) else {
            return Verdict::Go;
        };
        if desk.by_number.contains_key(&message.stream_id) {
            self.tally.stray_stream_cells += 1;
            return Verdict::Go;
        }
        let defense = rules
            .filter(|rules| !desk.may_open(now.steady, rules))
            .map(|rules| rules.defense);
        let (rate, full) = (desk.rate, desk.by_number.len() >= STREAMS_MAX);
        self.tally.dos_streams_rejected += u64::from(defense.is_some());
        match defense {
            Some(StreamDefense::CloseCircuit) => return Verdict::end_owner(owner, DestroyReason::ResourceLimit),
            Some(StreamDefense::Refuse) => return self.decline(owner, message, outbox),
            Some(StreamDefense::Nothing) | None => {}
        }
        if full {
            // RESOURCELIMIT would make clients shun us for good.
            return self.decline(owner, message, outbox);
        }
        let wish = match self.wish(owner, message) {
            Ok(wish) => wish,
            Err(_) if message.command == RelayCommand::RESOLVE => {
                let body = bodies::resolved([Answer::PermanentError]);
                return self.say(
                    owner,
                    RelayCommand::RESOLVED,
                    message.stream_id,
                    body.as_bytes(),
                    outbox,
                );
            }
            Err(reason) => return self.say_end(owner, message.stream_id, reason, outbox),
        };
        let stage = match wish {
            Wish::Resolve(_) => Stage::Asking,
            Wish::Open(_) | Wish::Directory(_) => Stage::Opening,
        };
        let stream = self.streams.insert(Stream::new(owner, message.stream_id, stage, rate));
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.by_number.insert(message.stream_id, stream);
        }
        self.tally.streams_begun += 1;
        match &wish {
            Wish::Open(_) => {}
            Wish::Directory(_) => self.tally.streams_directory += 1,
            Wish::Resolve(_) => self.tally.streams_resolve += 1,
        }
        outbox.effects.push(match wish {
            Wish::Open(target) => Effect::OpenStream { stream, target },
            Wish::Directory(asker) => Effect::OpenDirectory { stream, asker },
            Wish::Resolve(question) => Effect::Resolve { stream, question },
        });
        Verdict::Go
    }

    /// There are too many streams. A question is answered in its own kind, as C tor answers it.
    fn decline(&mut self, owner: Owner, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        if message.command != RelayCommand::RESOLVE {
            return self.say_end(owner, message.stream_id, EndReason::Misc, outbox);
        }
        let body = bodies::resolved([Answer::TransientError]);
        self.say(
            owner,
            RelayCommand::RESOLVED,
            message.stream_id,
            body.as_bytes(),
            outbox,
        )
    }

    /// What the client wants, if it may.
    fn wish(&self, owner: Owner, message: &RelayMessage<'_>) -> Result<Wish, EndReason> {
        let Some(settings) = &self.settings else {
            return Err(EndReason::Internal);
        };
        if self.retiring {
            return Err(EndReason::Hibernating);
        }
        let rule = match settings.services.any_printable_name {
            true => NameRule::Printable,
            false => NameRule::Rfc953,
        };
        match message.command {
            RelayCommand::BEGIN_DIR => Ok(Wish::Directory(self.client_of(owner))),
            RelayCommand::RESOLVE => match Resolve::read(message.data, rule) {
                Ok(Resolve::Forward(host)) => Ok(Wish::Resolve(Question::Forward(owned(host)))),
                Ok(Resolve::Reverse(address)) => Ok(Wish::Resolve(Question::Reverse(address))),
                Err(_) => Err(EndReason::ResolveFailed),
            },
            _ => {
                let begin = Begin::read(message.data, rule).map_err(|bad| bad.reason())?;
                self.may_leave(owner)?;
                Ok(Wish::Open(Target {
                    host: owned(begin.destination),
                    port: begin.port,
                    flags: begin.flags,
                }))
            }
        }
    }

    /// Where the client sits, if it is before us.
    fn client_of(&self, owner: Owner) -> Option<ClientAddress> {
        let Owner::Circuit(key) = owner else { return None };
        let channel = self.channels.get(self.circuits.get(key)?.prev.channel)?;
        let address = ClientAddress(channel.peer_address.ip());
        channel.peer().is_none().then_some(address)
    }

    /// Nobody may use us as a proxy of one hop; nor may who is no relay of the network, where it says so. Of a set all legs
    /// must be right.
    fn may_leave(&self, owner: Owner) -> Result<(), EndReason> {
        let peers = match owner {
            Owner::Circuit(key) => {
                let circuit = self.circuits.get(key).ok_or(EndReason::Internal)?;
                let peer = self
                    .channels
                    .get(circuit.prev.channel)
                    .and_then(|channel| channel.peer());
                vec![peer.map(|peer| peer.rsa())]
            }
            Owner::Set(key) => {
                let set = self.sets.get(key).ok_or(EndReason::Internal)?;
                set.legs().iter().map(|leg| leg.peer).collect()
            }
        };
        for peer in peers {
            let peer = peer.ok_or(EndReason::TorProtocol)?;
            if !self.network.relays.contains_key(&peer) && self.refuses_unknown_exits() {
                return Err(EndReason::Misc);
            }
        }
        Ok(())
    }

    /// torrc `RefuseUnknownExits`, or param-spec `refuseunknownexits`.
    fn refuses_unknown_exits(&self) -> bool {
        let own = self
            .settings
            .as_ref()
            .and_then(|settings| settings.services.refuse_unknown_exits);
        own.unwrap_or_else(|| self.network.parameters.clamped("refuseunknownexits", 1, 0, 1) == 1)
    }

    /// SENDME of a circuit.
    pub(super) fn sendme(&mut self, now: Now, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
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

    /// END, SENDME, XON and XOFF of a stream.
    pub(super) fn stream_message(
        &mut self,
        now: Now,
        owner: Owner,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        let desk = desk_of(&mut self.circuits, &mut self.sets, owner);
        let found = desk.and_then(|desk| desk.by_number.get(&message.stream_id).copied());
        let Some((id, stream)) = found.and_then(|id| Some((id, self.streams.get_mut(id)?))) else {
            self.tally.stray_stream_cells += 1;
            return Verdict::Go;
        };
        let result = match message.command {
            RelayCommand::END => {
                self.close_stream(id, outbox);
                return Verdict::Go;
            }
            RelayCommand::SENDME => match stream.windows() {
                Some(windows) => windows.send.on_sendme(),
                None => Err(FlowError::StreamSendme),
            },
            RelayCommand::XOFF => match stream.rate() {
                Some(flow) => flow.on_xoff(),
                None => Err(FlowError::UnexpectedXon),
            },
            _ => match (stream.rate(), Xon::read(message.data)) {
                (Some(flow), Ok(xon)) => {
                    flow.on_xon(now.steady, xon);
                    Ok(())
                }
                _ => Err(FlowError::UnexpectedXon),
            },
        };
        match result {
            Ok(()) => {
                if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
                    desk.again(id, stream);
                }
                self.serve_streams(now, owner, outbox)
            }
            Err(error) => self.flow_fault(owner, error),
        }
    }

    /// The driver's answer: open.
    pub(super) fn stream_connected(
        &mut self,
        now: Now,
        id: StreamId,
        address: Option<(std::net::IpAddr, u32)>,
        outbox: &mut Outbox,
    ) {
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.stage == Stage::Opening) else {
            return;
        };
        stream.stage = Stage::Open;
        let (owner, number) = (stream.owner, stream.number);
        wake(id, stream, outbox);
        let body = address.map(|(address, ttl_seconds)| bodies::connected(address, ttl_seconds));
        let data = body.as_ref().map(|body| body.as_bytes()).unwrap_or_default();
        let verdict = self.say(owner, RelayCommand::CONNECTED, number, data, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The driver's answer: not to be.
    pub(super) fn stream_refused(&mut self, now: Now, id: StreamId, refusal: Refusal, outbox: &mut Outbox) {
        let Some(stream) = self.forget_stream(id) else { return };
        let verdict = match (stream.stage, refusal) {
            (Stage::Asking, _) => {
                let body = bodies::resolved([Answer::TransientError]);
                self.say(
                    stream.owner,
                    RelayCommand::RESOLVED,
                    stream.number,
                    body.as_bytes(),
                    outbox,
                )
            }
            (_, Refusal::Reason(reason)) => self.say_end(stream.owner, stream.number, reason, outbox),
            (_, Refusal::ExitPolicy { address, ttl_seconds }) => {
                let body = bodies::end_exit_policy(address, ttl_seconds);
                self.say(stream.owner, RelayCommand::END, stream.number, body.as_bytes(), outbox)
            }
        };
        self.carry_out(now, verdict, outbox);
    }

    /// The driver's answer to a question.
    pub(super) fn stream_resolved(&mut self, now: Now, id: StreamId, answers: &[Answer<'_>], outbox: &mut Outbox) {
        if self
            .streams
            .get_mut(id)
            .is_none_or(|stream| stream.stage != Stage::Asking)
        {
            return;
        }
        let Some(stream) = self.forget_stream(id) else { return };
        let body = bodies::resolved(answers.iter().copied());
        let verdict = self.say(
            stream.owner,
            RelayCommand::RESOLVED,
            stream.number,
            body.as_bytes(),
            outbox,
        );
        self.carry_out(now, verdict, outbox);
    }

    /// The destination has something for the client.
    pub(super) fn stream_readable(&mut self, now: Now, id: StreamId, outbox: &mut Outbox) {
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
    pub(super) fn stream_received(&mut self, now: Now, id: StreamId, bytes: &[u8], more: bool, outbox: &mut Outbox) {
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
    pub(super) fn serve_streams(&mut self, now: Now, owner: Owner, outbox: &mut Outbox) -> Verdict {
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
    pub(super) fn queues_shrank(&mut self, now: Now, channel: Key, outbox: &mut Outbox) {
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
    pub(super) fn stream_alarm(&mut self, now: Now, id: StreamId, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let owner = stream.owner;
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, owner) {
            desk.again(id, stream);
        }
        let verdict = self.serve_streams(now, owner, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The destination takes bytes.
    pub(super) fn stream_writable(&mut self, now: Now, id: StreamId, room_bytes_max: usize, outbox: &mut Outbox) {
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

    /// The destination has ended.
    pub(super) fn stream_closed(&mut self, now: Now, id: StreamId, reason: EndReason, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (owner, number) = (stream.owner, stream.number);
        let question = stream.stage == Stage::Asking;
        self.close_stream(id, outbox);
        let verdict = if question {
            let body = bodies::resolved([Answer::TransientError]);
            self.say(owner, RelayCommand::RESOLVED, number, body.as_bytes(), outbox)
        } else {
            self.say_end(owner, number, reason, outbox)
        };
        self.carry_out(now, verdict, outbox);
        // What was kept free for it is free for others.
        let verdict = self.serve_streams(now, owner, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// Takes a stream off the tables.
    fn forget_stream(&mut self, id: StreamId) -> Option<Stream> {
        let mut stream = self.streams.remove(id)?;
        if let Some(desk) = desk_of(&mut self.circuits, &mut self.sets, stream.owner) {
            desk.forget(&mut stream);
        }
        Some(stream)
    }

    fn close_stream(&mut self, id: StreamId, outbox: &mut Outbox) {
        if let Some(stream) = self.forget_stream(id) {
            farewell(id, stream, outbox);
        }
    }

    /// The owner is gone: so are its streams.
    pub(super) fn close_streams(&mut self, desk: &Desk, outbox: &mut Outbox) {
        let mut streams: Vec<_> = desk.by_number.values().copied().collect();
        // A hash map's order is nobody's; a run must be the same each time.
        streams.sort_unstable();
        for id in streams {
            if let Some(stream) = self.streams.remove(id) {
                farewell(id, stream, outbox);
            }
        }
    }

    pub(super) fn say_end(&mut self, owner: Owner, number: u16, reason: EndReason, outbox: &mut Outbox) -> Verdict {
        self.say(owner, RelayCommand::END, number, bodies::end(reason).as_bytes(), outbox)
    }

    pub(super) fn say(
        &mut self,
        owner: Owner,
        command: RelayCommand,
        stream_id: u16,
        data: &[u8],
        outbox: &mut Outbox,
    ) -> Verdict {
        match command {
            RelayCommand::XON => {
                self.tally.xon_sent += 1;
                let bytes = self.backlog_bytes(owner, stream_id);
                self.tally.congestion.xon_backlog_bytes.note(bytes);
            }
            RelayCommand::XOFF => {
                self.tally.xoff_sent += 1;
                let bytes = self.backlog_bytes(owner, stream_id);
                self.tally.congestion.xoff_backlog_bytes.note(bytes);
            }
            _ => {}
        }
        let message = RelayMessage {
            command,
            stream_id,
            data,
        };
        match owner {
            Owner::Circuit(key) => self.originate(key, &message, outbox),
            Owner::Set(key) => self.say_in_order(key, &message, outbox),
        }
    }

    /// Bytes that wait for a stream's destination.
    fn backlog_bytes(&mut self, owner: Owner, number: u16) -> u64 {
        let desk = desk_of(&mut self.circuits, &mut self.sets, owner);
        let id = desk.and_then(|desk| desk.by_number.get(&number).copied());
        let stream = id.and_then(|id| self.streams.get_mut(id));
        stream.map_or(0, |stream| stream.backlog.len() as u64)
    }

    #[cold]
    pub(super) fn flow_fault(&mut self, owner: Owner, error: FlowError) -> Verdict {
        match error.verdict() {
            FlowVerdict::CloseCircuit(reason) => {
                self.tally.protocol_violations += u64::from(reason == DestroyReason::TorProtocol);
                Verdict::end_owner(owner, reason)
            }
            FlowVerdict::Ignore => {
                self.tally.stray_stream_cells += 1;
                Verdict::Go
            }
        }
    }
}

/// What a client wants of us.
enum Wish {
    Open(Target),
    Directory(Option<ClientAddress>),
    Resolve(Question),
}

fn owned(destination: Destination<'_>) -> Host {
    match destination {
        Destination::Address(address) => Host::Address(address),
        Destination::Name(name) => Host::Name(name.into()),
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

/// Asks the driver to write, unless that is said already, or there is nothing yet to write or to write to.
fn wake(id: StreamId, stream: &mut Stream, outbox: &mut Outbox) {
    if stream.stage == Stage::Open && !stream.backlog.is_empty() && !stream.wants_write_said {
        stream.wants_write_said = true;
        outbox.effects.push(Effect::StreamWantsWrite { stream: id });
    }
}

fn farewell(id: StreamId, stream: Stream, outbox: &mut Outbox) {
    outbox.effects.push(Effect::CloseStream {
        stream: id,
        rest: StreamBytes(stream.backlog.into()),
    });
}
