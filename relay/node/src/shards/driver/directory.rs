//! Directory streams: they end in this process, at the directory server that all shards share.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, SystemTime};

use relay_engine::door::{ClientAddress, Input, StreamId};
use relay_wire::relay_cells::EndReason;

use super::Driver;
use crate::dircache::{Asker, Conversation};

/// Bytes of a request taken from the engine at once.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// How often stalled streams are looked for, while there are any streams.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Bytes of answers given in a round, all streams together: as much as a link is read in one. So documents that a crowd
/// asks for cost other people's cells half of the shard at most, and none of it while those come slowly.
const ROUND_BYTES_MAX: usize = 64 * 1024;

/// The open ones.
#[derive(Default)]
pub(super) struct DirectoryStreams {
    open: HashMap<StreamId, Conversation>,
    /// Those for which the engine has room, and how much, in order.
    to_answer: VecDeque<(StreamId, usize)>,
    sweep_at: Option<Duration>,
}

impl DirectoryStreams {
    /// Whether anybody waits for a part of an answer.
    pub(super) fn is_busy(&self) -> bool {
        !self.to_answer.is_empty()
    }

    /// Whether this stream is one of them.
    pub(super) fn has(&self, stream: StreamId) -> bool {
        self.open.contains_key(&stream)
    }

    /// When the shard must look for stalled ones.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.sweep_at
    }
}

impl Driver {
    pub(super) fn open_directory(&mut self, stream: StreamId, asker: Option<ClientAddress>) {
        let asker = Asker {
            address: asker.map(|client| client.0),
        };
        let now = self.now();
        self.directory.open.insert(stream, Conversation::new(asker, now));
        self.directory.sweep_at.get_or_insert(now + SWEEP_EVERY);
        self.hand_over(Input::StreamConnected { stream, address: None });
    }

    /// The engine has something for the server.
    pub(super) fn hear_request(&mut self, stream: StreamId) {
        loop {
            self.outbox.written.clear();
            self.hand_over(Input::StreamWritable {
                stream,
                room_bytes_max: REQUEST_BYTES_MAX,
            });
            let bytes = mem::take(&mut self.outbox.written);
            let (now, more) = (self.now(), bytes.len() == REQUEST_BYTES_MAX);
            let conversation = self.directory.open.get_mut(&stream);
            let ready = conversation
                .is_some_and(|conversation| conversation.hear(&bytes, &self.start.directory, now, SystemTime::now()));
            self.outbox.written = bytes;
            if ready {
                self.hand_over(Input::StreamReadable { stream });
            }
            if !more {
                return;
            }
        }
    }

    /// The engine has room for more of the answer.
    pub(super) fn read_answer(&mut self, stream: StreamId, bytes_max: usize) {
        self.directory.to_answer.push_back((stream, bytes_max));
    }

    /// Answers as many as have their turn in this round.
    pub(super) fn answer_some(&mut self) {
        let mut left = ROUND_BYTES_MAX;
        while left > 0
            && let Some((stream, bytes_max)) = self.directory.to_answer.pop_front()
        {
            left = left.saturating_sub(self.answer(stream, bytes_max));
            self.do_all();
        }
    }

    /// Gives the engine what it has room for; how many bytes.
    fn answer(&mut self, stream: StreamId, bytes_max: usize) -> usize {
        let now = self.now();
        let Some(conversation) = self.directory.open.get_mut(&stream) else {
            return 0;
        };
        let mut bytes = Vec::with_capacity(bytes_max.min(REQUEST_BYTES_MAX));
        let more = conversation.say(bytes_max, now, &mut bytes);
        let over = conversation.is_over();
        self.hand_over(Input::StreamReceived {
            stream,
            bytes: &bytes,
            more,
        });
        if over {
            self.end_directory(stream, EndReason::Done);
        }
        bytes.len()
    }

    pub(super) fn close_directory(&mut self, stream: StreamId) {
        self.directory.open.remove(&stream);
    }

    /// Ends what has stalled.
    pub(super) fn sweep_directory(&mut self) {
        let now = self.now();
        if self.directory.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let open = self.directory.open.iter();
        let stalled = open.filter(|(_, conversation)| conversation.is_stalled(now));
        for stream in stalled.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.directory.open.remove(&stream);
            self.tell(Input::StreamClosed {
                stream,
                reason: EndReason::Timeout,
            });
        }
        // What a flood took is given back.
        if self.directory.open.len() * 8 < self.directory.open.capacity() {
            self.directory.open.shrink_to(self.directory.open.len() * 2);
        }
        self.directory.sweep_at = (!self.directory.open.is_empty()).then_some(now + SWEEP_EVERY);
    }

    fn end_directory(&mut self, stream: StreamId, reason: EndReason) {
        self.directory.open.remove(&stream);
        self.hand_over(Input::StreamClosed { stream, reason });
    }
}
