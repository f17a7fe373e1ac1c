//! What has come on the legs of a set before its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_wire::relay_cells::{DestroyReason, RelayCommand, RelayMessage};

/// What a message that waits costs besides its data: its place in the tree, and the allocator's.
const HELD_OVERHEAD_BYTES: usize = 96;

/// A message that waits for those before it.
pub(crate) struct Held {
    command: RelayCommand,
    stream_id: u16,
    data: Box<[u8]>,
}

impl Held {
    pub(crate) fn message(&self) -> RelayMessage<'_> {
        RelayMessage {
            command: self.command,
            stream_id: self.stream_id,
            data: &self.data,
        }
    }

    fn bytes(&self) -> usize {
        HELD_OVERHEAD_BYTES + self.data.len()
    }
}

/// What becomes of a message that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is its turn.
    Now,
    /// It waits.
    Later,
}

/// What a client must not do with sequence numbers. The set ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Disorder {
    /// Two messages with the same number.
    #[error("a sequence number came twice")]
    Twice,
    /// More is missing than may be.
    #[error("too much waits out of order")]
    TooMuch,
}

impl Disorder {
    pub(crate) fn reason(self) -> DestroyReason {
        match self {
            Self::Twice => DestroyReason::TorProtocol,
            Self::TooMuch => DestroyReason::ResourceLimit,
        }
    }
}

/// Puts the messages of all legs into one order.
pub(crate) struct Order {
    delivered: u64,
    held: BTreeMap<u64, Held>,
    bytes: usize,
    bytes_max: usize,
    since: Duration,
}

impl Order {
    /// Nothing has come; so many bytes may wait.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            delivered: 0,
            held: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            since: Duration::ZERO,
        }
    }

    /// The number of the last message whose turn has been.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What waits, with what it costs to keep it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when something waits.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }

    /// Takes the message of this number; it is copied only if it has to wait.
    pub(crate) fn take(&mut self, now: Duration, number: u64, message: &RelayMessage<'_>) -> Result<Taken, Disorder> {
        if number <= self.delivered || self.held.contains_key(&number) {
            return Err(Disorder::Twice);
        }
        if number == self.delivered + 1 {
            self.delivered = number;
            return Ok(Taken::Now);
        }
        let held = Held {
            command: message.command,
            stream_id: message.stream_id,
            data: message.data.into(),
        };
        if self.bytes + held.bytes() > self.bytes_max {
            return Err(Disorder::TooMuch);
        }
        if self.held.is_empty() {
            self.since = now;
        }
        self.bytes += held.bytes();
        self.held.insert(number, held);
        Ok(Taken::Later)
    }

    /// The message whose turn it is, if it has come already. Asked again after each: the set may end in between
    /// (tor#41162).
    pub(crate) fn next(&mut self) -> Option<Held> {
        let number = self.delivered.checked_add(1)?;
        let held = self.held.remove(&number)?;
        self.delivered = number;
        self.bytes -= held.bytes();
        Some(held)
    }
}
