//! Streams that leave the network on this shard: the engine's streams joined with sockets and the DNS.
//!
//! ```text
//! opening: OpenStream ─▶ (resolving) ─▶ gate ─▶ connect ─▶ gate again ─▶ StreamConnected
//! moving:  readable ─▶ StreamReadable, ReadStream ─▶ StreamReceived;  StreamWantsWrite ─▶ StreamWritable ─▶ socket
//! ends:    end or error ─▶ StreamClosed;  CloseStream ─▶ last bytes ─▶ gone
//! ```
//!
//! Nothing is read that the engine has not asked for, and nothing taken from it while the socket is full: what a slow end
//! does not take stays with the fast one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mio::Token;
use relay_engine::door::StreamId;
use relay_engine::keyed::{self, KeyedMap};

use super::pacing::Dry;
use crate::dns::Cache;
use crate::dns::resolver::Resolver;
use crate::exits::{ExitSocket, Rules};

mod ends;
mod moving;
mod opening;
mod resolving;

use resolving::Lookup;

/// Tokens from here on are streams; links count upwards from far below.
const FIRST_STREAM: usize = 1 << (usize::BITS - 2);

/// Bytes read for one `ReadStream`: more than the engine asks for at once (32 cells).
const READ_BYTES_MAX: usize = 16 * 1024;

/// What a shard needs for streams that leave here.
pub struct ExitStart {
    /// Where they may go.
    pub rules: Arc<Rules>,
    /// Who asks the DNS.
    pub resolver: Resolver,
    /// Sockets of streams that may be open at once.
    pub sockets_max: usize,
}

/// All of a shard's streams that leave here.
pub(super) struct Exits {
    rules: Arc<Rules>,
    resolver: Resolver,
    sockets_max: usize,
    cache: Cache<StreamId>,
    lookups: HashMap<StreamId, Lookup>,
    sockets: KeyedMap<StreamId, ExitSocket>,
    /// What all streams that are over have still to say, as of their end.
    leaving_bytes: usize,
    /// Streams by the deadline of their stage.
    deadlines: BTreeSet<(Duration, StreamId)>,
    /// Streams that may have something to write. May name one twice or one that is gone.
    to_write: Vec<StreamId>,
    /// Busy streams that wait for more to write, and until when, in order. May name one that is gone.
    held: VecDeque<(Duration, StreamId)>,
    /// Streams that found an empty bucket, by what they wanted of it.
    pub(super) dry_reads: Dry<StreamId>,
    pub(super) dry_writes: Dry<StreamId>,
    buffer: Vec<u8>,
    /// Of the cache's answers, when memory was short.
    pub(super) forgotten_bytes: u64,
}

impl Exits {
    pub(super) fn new(start: &ExitStart) -> Self {
        Self {
            rules: Arc::clone(&start.rules),
            resolver: start.resolver.clone(),
            sockets_max: start.sockets_max,
            cache: Cache::default(),
            lookups: HashMap::new(),
            sockets: KeyedMap::default(),
            leaving_bytes: 0,
            deadlines: BTreeSet::new(),
            to_write: Vec::new(),
            held: VecDeque::new(),
            dry_reads: Dry::default(),
            dry_writes: Dry::default(),
            buffer: vec![0; READ_BYTES_MAX],
            forgotten_bytes: 0,
        }
    }

    /// Memory of what the DNS has said and is asked.
    pub(super) fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Memory is short.
    pub(super) fn forget_names(&mut self, bytes_max: usize) {
        self.forgotten_bytes += self.cache.shrink_to(bytes_max) as u64;
    }

    /// Whether somebody has a turn due.
    pub(super) fn is_busy(&self) -> bool {
        !self.to_write.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let ends = self.deadlines.first().map(|(deadline, _)| *deadline);
        let held = self.held.front().map(|(until, _)| *until);
        ends.into_iter().chain(held).min()
    }

    /// The stream that a socket's token names.
    pub(super) fn named(token: Token) -> Option<StreamId> {
        let number = token.0.checked_sub(FIRST_STREAM)?;
        Some(StreamId(number as u64))
    }

    fn token(stream: StreamId) -> Option<Token> {
        let number = usize::try_from(stream.0).ok()?;
        FIRST_STREAM.checked_add(number).map(Token)
    }

    /// Takes a stream's socket off the tables. Dropped, it is closed.
    fn forget(&mut self, stream: StreamId) -> Option<ExitSocket> {
        let socket = self.sockets.remove(&stream)?;
        keyed::shrink(&mut self.sockets);
        self.leaving_bytes = self.leaving_bytes.saturating_sub(socket.leaving_bytes);
        if let Some(deadline) = socket.deadline {
            self.deadlines.remove(&(deadline, stream));
        }
        Some(socket)
    }

    /// The stage may last until `deadline`, and no other one counts.
    fn set_deadline(&mut self, stream: StreamId, deadline: Option<Duration>) {
        let Some(socket) = self.sockets.get_mut(&stream) else {
            return;
        };
        if let Some(before) = socket.deadline.take() {
            self.deadlines.remove(&(before, stream));
        }
        socket.deadline = deadline;
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, stream));
        }
    }
}
