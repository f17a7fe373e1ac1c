//! Streams that end here: messages of clients in, wishes to the driver out, and back.

use relay_wire::flow_control::Xon;
use relay_wire::relay_cells::{DestroyReason, EndReason, RelayCommand, RelayMessage};
use relay_wire::stream::{self as bodies, Answer};

use super::{Engine, Verdict};
use crate::circuit::Circuit;
use crate::conflux::Set;
use crate::door::{Effect, Now, Outbox, StreamBytes, StreamId};
use crate::flow::{FlowError, FlowVerdict};
use crate::slab::Slab;
use crate::stream::{Desk, Owner, Stage, Stream};

mod opening;
mod toward_client;
mod toward_destination;

/// The desk that an owner's streams are at. The parts come one by one, as the caller holds others.
fn desk_of<'a>(circuits: &'a mut Slab<Circuit>, sets: &'a mut Slab<Set>, owner: Owner) -> Option<&'a mut Desk> {
    match owner {
        Owner::Circuit(key) => Some(&mut circuits.get_mut(key)?.edge.as_mut()?.desk),
        Owner::Set(key) => Some(&mut sets.get_mut(key)?.desk),
    }
}

impl Engine {
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
