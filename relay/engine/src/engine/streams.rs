//! Streams that end here: messages of clients in, wishes to the driver out, and back.

use relay_wire::destination::{Destination, NameRule};
use relay_wire::flow_control::{XOFF, Xon};
use relay_wire::relay_cells::{
    DestroyReason, EndReason, Format, RelayCommand, RelayMessage, V0_DATA_BYTES_MAX, V1_DATA_BYTES_MAX,
};
use relay_wire::stream::{self as bodies, Answer, Begin, Resolve};

use super::{Engine, Verdict};
use crate::door::{ClientAddress, Effect, Host, Now, Outbox, Question, Refusal, StreamBytes, StreamId, Target};
use crate::dos::StreamDefense;
use crate::flow::{FlowError, FlowVerdict, Signal, Tag};
use crate::slab::Key;
use crate::stream::{BACKLOG_BYTES_MAX, Edge, STREAMS_MAX, Stage, Stream, Turn};
use crate::timers::Alarm;

/// The circuit's edge; made when it is first needed. The parts come one by one, as the caller holds others.
macro_rules! edge {
    ($engine:ident, $circuit:ident) => {
        $circuit.edge.get_or_insert_with(|| {
            Box::new(Edge::new(
                &$engine.network.parameters,
                $circuit.sendme_increment,
                $circuit.made_by_create_fast,
            ))
        })
    };
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
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let edge = edge!(self, circuit);
        let sendme = match edge.flow.on_data_received(tag) {
            Ok(sendme) => sendme,
            Err(error) => return self.flow_fault(key, error),
        };
        if let Some(body) = sendme {
            let verdict = self.say(key, RelayCommand::SENDME, 0, body.as_bytes(), outbox);
            if !matches!(verdict, Verdict::Go) {
                return verdict;
            }
        }
        match self.deliver(now, key, message, outbox) {
            Ok(None) if message.data.is_empty() => self.acknowledge_nothing(key, message.stream_id, outbox),
            Ok(Some(Signal::Xoff)) => self.say(key, RelayCommand::XOFF, message.stream_id, &XOFF, outbox),
            Ok(Some(Signal::Xon(xon))) => self.say(key, RelayCommand::XON, message.stream_id, &xon.write(), outbox),
            Ok(None) => Verdict::Go,
            Err(error) => self.flow_fault(key, error),
        }
    }

    /// An empty DATA takes its place in the window, but no destination will ever drain it.
    fn acknowledge_nothing(&mut self, key: Key, number: u16, outbox: &mut Outbox) -> Verdict {
        let edge = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut());
        let id = edge.and_then(|edge| edge.by_number.get(&number).copied());
        let stream = id
            .and_then(|id| self.streams.get_mut(id))
            .filter(|stream| stream.backlog.is_empty());
        match stream
            .and_then(Stream::windows)
            .is_some_and(|windows| windows.receive.take_sendme())
        {
            true => self.say(key, RelayCommand::SENDME, number, &[], outbox),
            false => Verdict::Go,
        }
    }

    fn deliver(
        &mut self,
        now: Now,
        key: Key,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Result<Option<Signal>, FlowError> {
        let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) else {
            return Ok(None);
        };
        let found = edge.by_number.get(&message.stream_id).copied();
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
        if edge.backlog_bytes == 0 {
            edge.backlog_since = now.steady;
        }
        edge.backlog_bytes += message.data.len();
        if edge.backlog_bytes > BACKLOG_BYTES_MAX {
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
    pub(super) fn begin(&mut self, now: Now, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let rules = self.dos.streams.filter(|_| message.command != RelayCommand::BEGIN_DIR);
        let edge = edge!(self, circuit);
        if edge.by_number.contains_key(&message.stream_id) {
            self.tally.stray_stream_cells += 1;
            return Verdict::Go;
        }
        let defense = rules
            .filter(|rules| !edge.may_open(now.steady, rules))
            .map(|rules| rules.defense);
        let (rate, full) = (edge.rate, edge.by_number.len() >= STREAMS_MAX);
        self.tally.dos_streams_rejected += u64::from(defense.is_some());
        match defense {
            Some(StreamDefense::CloseCircuit) => return Verdict::end(key, DestroyReason::ResourceLimit),
            Some(StreamDefense::Refuse) => return self.decline(key, message, outbox),
            Some(StreamDefense::Nothing) | None => {}
        }
        if full {
            // RESOURCELIMIT would make clients shun us for good.
            return self.decline(key, message, outbox);
        }
        let wish = match self.wish(key, message) {
            Ok(wish) => wish,
            Err(_) if message.command == RelayCommand::RESOLVE => {
                let body = bodies::resolved([Answer::PermanentError]);
                return self.say(key, RelayCommand::RESOLVED, message.stream_id, body.as_bytes(), outbox);
            }
            Err(reason) => return self.say_end(key, message.stream_id, reason, outbox),
        };
        let stage = match wish {
            Wish::Resolve(_) => Stage::Asking,
            Wish::Open(_) | Wish::Directory(_) => Stage::Opening,
        };
        let stream = self.streams.insert(Stream::new(key, message.stream_id, stage, rate));
        if let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) {
            edge.by_number.insert(message.stream_id, stream);
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
    fn decline(&mut self, key: Key, message: &RelayMessage<'_>, outbox: &mut Outbox) -> Verdict {
        if message.command != RelayCommand::RESOLVE {
            return self.say_end(key, message.stream_id, EndReason::Misc, outbox);
        }
        let body = bodies::resolved([Answer::TransientError]);
        self.say(key, RelayCommand::RESOLVED, message.stream_id, body.as_bytes(), outbox)
    }

    /// What the client wants, if it may.
    fn wish(&self, key: Key, message: &RelayMessage<'_>) -> Result<Wish, EndReason> {
        let (Some(settings), Some(circuit)) = (&self.settings, self.circuits.get(key)) else {
            return Err(EndReason::Internal);
        };
        if self.retiring {
            return Err(EndReason::Hibernating);
        }
        let channel = self.channels.get(circuit.prev.channel);
        let peer = channel.and_then(|channel| channel.peer());
        let rule = match settings.services.any_printable_name {
            true => NameRule::Printable,
            false => NameRule::Rfc953,
        };
        match message.command {
            RelayCommand::BEGIN_DIR => {
                let client = channel.filter(|_| peer.is_none());
                Ok(Wish::Directory(
                    client.map(|channel| ClientAddress(channel.peer_address.ip())),
                ))
            }
            RelayCommand::RESOLVE => match Resolve::read(message.data, rule) {
                Ok(Resolve::Forward(host)) => Ok(Wish::Resolve(Question::Forward(owned(host)))),
                Ok(Resolve::Reverse(address)) => Ok(Wish::Resolve(Question::Reverse(address))),
                Err(_) => Err(EndReason::ResolveFailed),
            },
            _ => {
                let begin = Begin::read(message.data, rule).map_err(|bad| bad.reason())?;
                // Nobody may use us as a proxy of one hop.
                let Some(peer) = peer else {
                    return Err(EndReason::TorProtocol);
                };
                let known = self.network.relays.contains_key(&peer.rsa());
                if !known && self.refuses_unknown_exits() {
                    return Err(EndReason::Misc);
                }
                Ok(Wish::Open(Target {
                    host: owned(begin.destination),
                    port: begin.port,
                    flags: begin.flags,
                }))
            }
        }
    }

    /// torrc `RefuseUnknownExits`, or param-spec `refuseunknownexits`.
    fn refuses_unknown_exits(&self) -> bool {
        let own = self
            .settings
            .as_ref()
            .and_then(|settings| settings.services.refuse_unknown_exits);
        own.unwrap_or_else(|| self.network.parameters.clamped("refuseunknownexits", 1, 0, 1) == 1)
    }

    /// END, SENDME, XON and XOFF of a stream, and the circuit's SENDME.
    pub(super) fn stream_message(
        &mut self,
        now: Now,
        key: Key,
        message: &RelayMessage<'_>,
        outbox: &mut Outbox,
    ) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let edge = edge!(self, circuit);
        if message.stream_id == 0 {
            let backlog = edge.backlog(circuit.backward.len());
            let taken = edge.flow.on_sendme(now.steady, message.data, backlog);
            if let (Ok(()), Some(vegas)) = (&taken, edge.flow.congestion_control()) {
                self.tally.congestion.note(vegas.lesson());
            }
            return match taken {
                Ok(()) => self.serve_streams(now, key, outbox),
                Err(error) => self.flow_fault(key, error),
            };
        }
        let found = edge.by_number.get(&message.stream_id).copied();
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
                edge.again(id, stream);
                self.serve_streams(now, key, outbox)
            }
            Err(error) => self.flow_fault(key, error),
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
        let (key, number) = (stream.circuit, stream.number);
        wake(id, stream, outbox);
        let body = address.map(|(address, ttl_seconds)| bodies::connected(address, ttl_seconds));
        let data = body.as_ref().map(|body| body.as_bytes()).unwrap_or_default();
        let verdict = self.say(key, RelayCommand::CONNECTED, number, data, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The driver's answer: not to be.
    pub(super) fn stream_refused(&mut self, now: Now, id: StreamId, refusal: Refusal, outbox: &mut Outbox) {
        let Some(stream) = self.forget_stream(id) else { return };
        let verdict = match (stream.stage, refusal) {
            (Stage::Asking, _) => {
                let body = bodies::resolved([Answer::TransientError]);
                self.say(
                    stream.circuit,
                    RelayCommand::RESOLVED,
                    stream.number,
                    body.as_bytes(),
                    outbox,
                )
            }
            (_, Refusal::Reason(reason)) => self.say_end(stream.circuit, stream.number, reason, outbox),
            (_, Refusal::ExitPolicy { address, ttl_seconds }) => {
                let body = bodies::end_exit_policy(address, ttl_seconds);
                self.say(
                    stream.circuit,
                    RelayCommand::END,
                    stream.number,
                    body.as_bytes(),
                    outbox,
                )
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
            stream.circuit,
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
        let key = stream.circuit;
        if let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) {
            edge.hungry(id, stream);
        }
        let verdict = self.serve_streams(now, key, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The bytes that `ReadStream` asked for: into DATA cells, for which there is room.
    pub(super) fn stream_received(&mut self, now: Now, id: StreamId, bytes: &[u8], more: bool, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (key, number) = (stream.circuit, stream.number);
        let Some(circuit) = self.circuits.get_mut(key) else {
            return;
        };
        let (Some(edge), Some(layer)) = (circuit.edge.as_mut(), circuit.layer.as_ref()) else {
            return;
        };
        let cell_bytes = cell_bytes(layer.format());
        let asked = edge.answered(stream, more);
        if bytes.len() > asked {
            // The driver's fault; the bytes have no place.
            self.stream_closed(now, id, EndReason::Internal, outbox);
            return;
        }
        if let Some(flow) = stream.rate() {
            flow.on_read(bytes.len() as u64);
        }
        for part in bytes.chunks(cell_bytes) {
            let verdict = self.send_data(now, key, id, number, part, outbox);
            if !matches!(verdict, Verdict::Go) {
                return self.carry_out(now, verdict, outbox);
            }
        }
        if let Some(stream) = self.streams.get_mut(id)
            && let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut())
        {
            edge.again(id, stream);
        }
        let verdict = self.serve_streams(now, key, outbox);
        self.carry_out(now, verdict, outbox);
    }

    fn send_data(
        &mut self,
        now: Now,
        key: Key,
        id: StreamId,
        number: u16,
        data: &[u8],
        outbox: &mut Outbox,
    ) -> Verdict {
        let message = RelayMessage {
            command: RelayCommand::DATA,
            stream_id: number,
            data,
        };
        let (verdict, tag) = self.originate_tagged(key, &message, outbox);
        let edge = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut());
        let (Some(tag), Some(edge), Verdict::Go) = (tag, edge, &verdict) else {
            return verdict;
        };
        let mut noted = edge.flow.on_data_sent(now.steady, tag);
        if let Some(windows) = self.streams.get_mut(id).and_then(Stream::windows) {
            noted = noted.and_then(|()| windows.send.on_sent().map(|_| ()));
        }
        match noted {
            Ok(()) => Verdict::Go,
            Err(error) => self.flow_fault(key, error),
        }
    }

    /// Lets the streams of a circuit read, as far as there is room.
    pub(super) fn serve_streams(&mut self, now: Now, key: Key, outbox: &mut Outbox) -> Verdict {
        let Some(circuit) = self.circuits.get_mut(key) else {
            return Verdict::Go;
        };
        let (Some(edge), Some(layer)) = (circuit.edge.as_mut(), circuit.layer.as_ref()) else {
            return Verdict::Go;
        };
        let (queued, bytes) = (circuit.backward.len(), cell_bytes(layer.format()));
        loop {
            match edge.next_turn(now.steady, &mut self.streams, queued, bytes) {
                Turn::Nobody => return Verdict::Go,
                Turn::Read(stream, bytes_max) => outbox.effects.push(Effect::ReadStream { stream, bytes_max }),
                Turn::Later(stream, when) => self.timers.set(when, Alarm::Stream(stream)),
                Turn::QueueFull => {
                    if !std::mem::replace(&mut edge.awaits_queue, true)
                        && let Some(channel) = self.channels.get_mut(circuit.prev.channel)
                    {
                        channel.awaiting_queue.push(key);
                    }
                    return Verdict::Go;
                }
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
            if let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) {
                edge.awaits_queue = false;
                let verdict = self.serve_streams(now, key, outbox);
                self.carry_out(now, verdict, outbox);
            }
        }
    }

    /// The client's rate lets a stream read again.
    pub(super) fn stream_alarm(&mut self, now: Now, id: StreamId, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let key = stream.circuit;
        if let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) {
            edge.again(id, stream);
        }
        let verdict = self.serve_streams(now, key, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// The destination takes bytes.
    pub(super) fn stream_writable(&mut self, now: Now, id: StreamId, room_bytes_max: usize, outbox: &mut Outbox) {
        outbox.written.clear();
        let found = self.streams.get_counted(id);
        let Some((stream, all)) = found.filter(|(stream, _)| stream.stage == Stage::Open) else {
            return;
        };
        let (key, number) = (stream.circuit, stream.number);
        let written = stream.backlog.len().min(room_bytes_max);
        outbox.written.extend(stream.backlog.drain(..written));
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
        if let Some(edge) = self.circuits.get_mut(key).and_then(|circuit| circuit.edge.as_mut()) {
            edge.backlog_bytes = edge.backlog_bytes.saturating_sub(written);
        }
        let mut verdict = match signal {
            Some(Signal::Xon(xon)) => self.say(key, RelayCommand::XON, number, &xon.write(), outbox),
            Some(Signal::Xoff) => self.say(key, RelayCommand::XOFF, number, &XOFF, outbox),
            None => Verdict::Go,
        };
        for _ in 0..sendmes {
            if matches!(verdict, Verdict::Go) {
                verdict = self.say(key, RelayCommand::SENDME, number, &[], outbox);
            }
        }
        self.carry_out(now, verdict, outbox);
    }

    /// The destination has ended.
    pub(super) fn stream_closed(&mut self, now: Now, id: StreamId, reason: EndReason, outbox: &mut Outbox) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let (key, number) = (stream.circuit, stream.number);
        let question = stream.stage == Stage::Asking;
        self.close_stream(id, outbox);
        let verdict = if question {
            let body = bodies::resolved([Answer::TransientError]);
            self.say(key, RelayCommand::RESOLVED, number, body.as_bytes(), outbox)
        } else {
            self.say_end(key, number, reason, outbox)
        };
        self.carry_out(now, verdict, outbox);
        // What was kept free for it is free for others.
        let verdict = self.serve_streams(now, key, outbox);
        self.carry_out(now, verdict, outbox);
    }

    /// Takes a stream off the tables.
    fn forget_stream(&mut self, id: StreamId) -> Option<Stream> {
        let mut stream = self.streams.remove(id)?;
        if let Some(edge) = self
            .circuits
            .get_mut(stream.circuit)
            .and_then(|circuit| circuit.edge.as_mut())
        {
            edge.forget(&mut stream);
        }
        Some(stream)
    }

    fn close_stream(&mut self, id: StreamId, outbox: &mut Outbox) {
        if let Some(stream) = self.forget_stream(id) {
            farewell(id, stream, outbox);
        }
    }

    /// The circuit is gone: so are its streams.
    pub(super) fn close_streams(&mut self, edge: &Edge, outbox: &mut Outbox) {
        let mut streams: Vec<_> = edge.by_number.values().copied().collect();
        // A hash map's order is nobody's; a run must be the same each time.
        streams.sort_unstable();
        for id in streams {
            if let Some(stream) = self.streams.remove(id) {
                farewell(id, stream, outbox);
            }
        }
    }

    fn say_end(&mut self, key: Key, number: u16, reason: EndReason, outbox: &mut Outbox) -> Verdict {
        self.say(key, RelayCommand::END, number, bodies::end(reason).as_bytes(), outbox)
    }

    fn say(&mut self, key: Key, command: RelayCommand, stream_id: u16, data: &[u8], outbox: &mut Outbox) -> Verdict {
        match command {
            RelayCommand::XON => {
                self.tally.xon_sent += 1;
                let bytes = self.backlog_bytes(key, stream_id);
                self.tally.congestion.xon_backlog_bytes.note(bytes);
            }
            RelayCommand::XOFF => {
                self.tally.xoff_sent += 1;
                let bytes = self.backlog_bytes(key, stream_id);
                self.tally.congestion.xoff_backlog_bytes.note(bytes);
            }
            _ => {}
        }
        let message = RelayMessage {
            command,
            stream_id,
            data,
        };
        self.originate(key, &message, outbox)
    }

    /// Bytes that wait for a stream's destination.
    fn backlog_bytes(&mut self, key: Key, number: u16) -> u64 {
        let edge = self.circuits.get(key).and_then(|circuit| circuit.edge.as_ref());
        let id = edge.and_then(|edge| edge.by_number.get(&number)).copied();
        let stream = id.and_then(|id| self.streams.get_mut(id));
        stream.map_or(0, |stream| stream.backlog.len() as u64)
    }

    #[cold]
    fn flow_fault(&mut self, key: Key, error: FlowError) -> Verdict {
        match error.verdict() {
            FlowVerdict::CloseCircuit(DestroyReason::TorProtocol) => self.violation(key),
            FlowVerdict::CloseCircuit(reason) => Verdict::end(key, reason),
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

fn cell_bytes(format: Format) -> usize {
    match format {
        Format::V0 => V0_DATA_BYTES_MAX,
        Format::V1 => V1_DATA_BYTES_MAX,
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
