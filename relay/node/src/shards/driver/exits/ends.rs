//! Streams that end: by the client, by the destination, by a deadline.

use std::time::Duration;

use relay_engine::door::{Input, Refusal, StreamBytes, StreamId};
use relay_wire::relay_cells::EndReason;

use super::super::Driver;
use crate::exits::Stage;

/// How long the last bytes of a stream may take; our own choice. C tor waits while some move.
const LEAVING_TIME_MAX: Duration = Duration::from_secs(30);

/// Bytes of all streams that are over and have not said all; our own choice. The engine bounds what waits on a circuit, but
/// circuits can come and go within the time of `LEAVING_TIME_MAX`. Full: the next one ends without its last bytes.
const LEAVING_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Driver {
    /// The engine has done with the stream; what the client sent before its end still goes out.
    pub(in super::super) fn close_exit(&mut self, stream: StreamId, StreamBytes(rest): StreamBytes) {
        if let Some(lookup) = self.exits.lookups.remove(&stream) {
            self.exits.cache.give_up(&lookup.key, &stream);
            return;
        }
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return;
        };
        if socket.stage != Stage::Open {
            self.exits.forget(stream);
            return;
        }
        socket.stage = Stage::Leaving;
        let leaving_bytes = socket.unsent_bytes() + rest.len();
        if leaving_bytes == 0 || self.exits.leaving_bytes + leaving_bytes > LEAVING_BYTES_MAX {
            self.exits.forget(stream);
            return;
        }
        socket.add(&rest);
        socket.leaving_bytes = leaving_bytes;
        self.exits.leaving_bytes += leaving_bytes;
        let deadline = self.now() + LEAVING_TIME_MAX;
        self.exits.set_deadline(stream, Some(deadline));
        self.exits.to_write.push(stream);
    }

    /// A stream that is over for the client: once all is out, the destination is told, and heard to the end. Closing at once
    /// could take back what is still on its way, if the destination has sent something too.
    pub(super) fn leave(&mut self, stream: StreamId) {
        let Some(socket) = self.exits.sockets.get_mut(&stream) else {
            return;
        };
        if socket.unsent_bytes() > 0 {
            return;
        }
        socket.end();
        if socket.ended {
            self.exits.forget(stream);
        }
    }

    /// The connection is broken: nothing more goes either way.
    pub(super) fn break_exit(&mut self, stream: StreamId, reason: EndReason) {
        let known = self
            .exits
            .forget(stream)
            .is_some_and(|socket| socket.stage == Stage::Open);
        if known {
            self.tell(Input::StreamClosed { stream, reason });
        }
    }

    pub(in super::super) fn on_exit_deadlines(&mut self) {
        let now = self.now();
        while let Some((_, stream)) = self
            .exits
            .deadlines
            .first()
            .copied()
            .filter(|(deadline, _)| *deadline <= now)
        {
            let late = self.exits.forget(stream);
            if late.is_some_and(|socket| socket.stage == Stage::Connecting) {
                let refusal = Refusal::Reason(EndReason::Timeout);
                self.tell(Input::StreamRefused { stream, refusal });
            }
        }
    }
}
