//! Bytes between a stream and its destination, by the engine's leave.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::time::Instant;

use mio::event::Event;
use relay_engine::door::{Input, StreamId};
use relay_wire::relay_cells::EndReason;

use super::super::{Driver, WRITES_IN_A_TURN};
use crate::exits::{Incoming, Stage, reason_of};
use crate::rate::Way;

/// Bytes taken from the engine for one write.
const WRITE_BYTES_MAX: usize = 32 * 1024;

impl Driver {
    pub(in super::super) fn on_exit_event(&mut self, stream: StreamId, event: &Event) {
        self.look_at_clock();
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return;
        };
        let ended = event.is_read_closed() || event.is_error();
        socket.ended |= ended;
        if socket.stage == Stage::Connecting && !self.exit_connected(stream) {
            return;
        }
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return;
        };
        if event.is_writable() {
            socket.blocked = false;
            self.exits.to_write.push(stream);
        }
        if event.is_readable() || ended {
            self.say_readable(stream);
        }
    }

    fn say_readable(&mut self, stream: StreamId) {
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return;
        };
        match socket.stage {
            Stage::Connecting => {}
            Stage::Open => {
                if !mem::replace(&mut socket.told, true) {
                    self.tell(Input::StreamReadable { stream });
                }
            }
            Stage::Leaving => self.leave(stream),
        }
    }

    /// The engine has room for so many bytes.
    pub(in super::super) fn read_exit(&mut self, stream: StreamId, bytes_max: usize) {
        let Some(peer) = self.exits.sockets.get(&stream).map(|socket| socket.peer.ip()) else {
            return;
        };
        let Some(share) = self.exit_share(stream, peer, Way::Read, bytes_max) else {
            return self.received(stream, &[], false);
        };
        let mut buffer = mem::take(&mut self.exits.buffer);
        let room = share.min(buffer.len());
        let read = match (self.exits.sockets.get_mut(&stream), buffer.get_mut(..room)) {
            (Some(socket), Some(room)) => socket.read(room),
            _ => Ok(Incoming::Nothing),
        };
        match read {
            Ok(Incoming::Bytes(length, more)) => {
                self.start.rates.take_exit(Instant::now(), Way::Read, peer, length);
                self.start.traffic.note_read(length);
                self.received(stream, buffer.get(..length).unwrap_or_default(), more);
            }
            Ok(Incoming::Nothing) => self.received(stream, &[], false),
            Ok(Incoming::End) => {
                if let Some(socket) = self.exits.sockets.get_mut(&stream) {
                    socket.ended = true;
                }
                let reason = EndReason::Done;
                self.hand_over(Input::StreamClosed { stream, reason });
            }
            Err(error) => {
                self.exits.forget(stream);
                let reason = reason_of(&error);
                self.hand_over(Input::StreamClosed { stream, reason });
            }
        }
        self.exits.buffer = buffer;
    }

    fn received(&mut self, stream: StreamId, bytes: &[u8], more: bool) {
        if let Some(socket) = self.exits.sockets.get_mut(&stream) {
            socket.told = more;
        }
        self.hand_over(Input::StreamReceived { stream, bytes, more });
    }

    pub(in super::super) fn exit_wants_write(&mut self, stream: StreamId) {
        if let Some(socket) = self.exits.sockets.get_mut(&stream) {
            socket.wants = true;
            self.exits.to_write.push(stream);
        }
    }

    pub(in super::super) fn write_exits(&mut self) {
        let now = self.now();
        while let Some((_, stream)) = self.exits.held.pop_front_if(|(until, _)| *until <= now) {
            if let Some(socket) = self.exits.sockets.get_mut(&stream) {
                socket.held = false;
                self.exits.to_write.push(stream);
            }
        }
        for stream in mem::take(&mut self.exits.to_write) {
            self.write_exit(stream);
        }
    }

    fn write_exit(&mut self, stream: StreamId) {
        self.look_at_clock();
        for _ in 0..WRITES_IN_A_TURN {
            let Some(socket) = self.exits.sockets.get(&stream) else {
                return;
            };
            if socket.stage == Stage::Connecting || socket.blocked {
                return;
            }
            let nothing = socket.unsent_bytes() == 0;
            if nothing && socket.stage == Stage::Leaving {
                return self.leave(stream);
            }
            if nothing && (!socket.wants || socket.held || self.holds_back(stream)) {
                return;
            }
            let Some(socket) = self.exits.sockets.get(&stream) else {
                return;
            };
            let peer = socket.peer.ip();
            let Some(share) = self.exit_share(stream, peer, Way::Write, WRITE_BYTES_MAX) else {
                return;
            };
            let written = if nothing {
                self.pull_for_exit(stream, share)
            } else {
                let socket = self.exits.sockets.get_mut(&stream);
                socket.map_or(Ok(0), |socket| socket.write(share))
            };
            match written {
                Ok(taken) => {
                    self.start.rates.take_exit(Instant::now(), Way::Write, peer, taken);
                    self.start.traffic.note_written(taken);
                }
                Err(error) => return self.break_exit(stream, reason_of(&error)),
            }
        }
        self.exits.to_write.push(stream);
    }

    /// Whether a busy stream waits for more to write; then it stands among those that do.
    fn holds_back(&mut self, stream: StreamId) -> bool {
        let (now, waiting_bytes) = (self.now(), self.engine.stream_backlog_bytes(stream));
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return false;
        };
        let until = socket.pace.holds_until(now, waiting_bytes);
        let Some(until) = until.filter(|_| socket.stage == Stage::Open) else {
            return false;
        };
        socket.held = true;
        self.exits.held.push_back((until, stream));
        true
    }

    /// Takes up to `room_bytes_max` from the engine; how many the socket took at once. All are the socket's before anything
    /// that follows from it is done: that may be the stream's end.
    fn pull_for_exit(&mut self, stream: StreamId, room_bytes_max: usize) -> io::Result<usize> {
        self.outbox.written.clear();
        self.hand_over(Input::StreamWritable { stream, room_bytes_max });
        let mut taken = Ok(0);
        let now = self.now();
        if let Some(socket) = self.exits.sockets.get_mut(&stream) {
            socket.wants = self.outbox.written.len() == room_bytes_max;
            taken = socket.write_fresh(&self.outbox.written);
            let all = !socket.wants && socket.unsent_bytes() == 0;
            socket.pace.note(now, self.outbox.written.len(), all);
        }
        self.do_all();
        taken
    }

    /// Bytes that this stream may move now. None: it has been put among those that wait.
    fn exit_share(&mut self, stream: StreamId, peer: IpAddr, way: Way, bytes_max: usize) -> Option<usize> {
        let now = Instant::now();
        let share = self.start.rates.share_exit(now, way, peer, bytes_max);
        if share.is_none() {
            match way {
                Way::Read => self.exits.dry_reads.add(stream),
                Way::Write => self.exits.dry_writes.add(stream),
            }
            self.note_drought(now);
        }
        share
    }

    /// After a refill those who waited have their turn.
    pub(in super::super) fn end_drought_of_exits(&mut self) {
        let waited = self.exits.dry_writes.take();
        self.exits.to_write.splice(0..0, waited);
        for stream in self.exits.dry_reads.take() {
            self.say_readable(stream);
        }
    }
}
