//! The door's words for streams: what a driver does for a client at the end of a circuit.
//!
//! A stream is born with [`Effect::OpenStream`](super::Effect::OpenStream), `OpenDirectory` or `Resolve`. The engine holds
//! what is under way to the destination; the driver holds nothing but what it has just been given.
//!
//! ```text
//! OpenStream ──▶ StreamConnected ──▶ the two ways below ──▶ StreamClosed ──▶ CloseStream
//!           └──▶ StreamRefused: over
//! Resolve ────▶ StreamResolved: over
//!
//! to the client     StreamReadable ──▶ ReadStream ──▶ StreamReceived
//! to the target     StreamWantsWrite ──▶ StreamWritable ──▶ Outbox.written
//! ```
//!
//! The engine may say `CloseStream` at any time, also while it waits for `StreamConnected` or `StreamResolved`. It says it
//! once for each stream that the driver has neither refused nor resolved. What the driver says of a stream that is over
//! finds nobody and is dropped.

use std::fmt;
use std::net::IpAddr;

use relay_wire::relay_cells::EndReason;
pub use relay_wire::stream::BeginFlags;

/// The engine's name for one stream or one question. Never used twice, nor by another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// An address or a name, sound by its syntax (`relay_wire::destination`). `Debug` does not tell which: destinations are
/// never logged.
#[derive(Clone, PartialEq, Eq)]
pub enum Host {
    /// Nothing to resolve.
    Address(IpAddr),
    /// To be resolved; 253 bytes at most, without a last dot.
    Name(Box<str>),
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[destination]")
    }
}

/// Where a client wants a stream to go (tor-spec, "Opening streams").
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Where to.
    pub host: Host,
    /// Never 0.
    pub port: u16,
    /// Which address family.
    pub flags: BeginFlags,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[destination]")
    }
}

/// What a client wants to know of the DNS (tor-spec, "Remote hostname lookup").
#[derive(Clone, PartialEq, Eq)]
pub enum Question {
    /// The addresses of a name; an address is its own answer.
    Forward(Host),
    /// The name of an address.
    Reverse(IpAddr),
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[question]")
    }
}

/// Where a client sits. It may be counted and limited, never written down.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[client]")
    }
}

/// A user's bytes. `Debug` tells only how many.
#[derive(Default, PartialEq, Eq)]
pub struct StreamBytes(pub Vec<u8>);

impl fmt::Debug for StreamBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// Why the driver does not open a stream; becomes the END cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// For this reason. [`EndReason::ExitPolicy`] here means that no address is told.
    Reason(EndReason),
    /// The exit policy refuses what the name resolved to; the client is told, so that it asks elsewhere the next time.
    ExitPolicy {
        /// What the name resolved to.
        address: IpAddr,
        /// How long the client may remember that: after clipping (relay-side TTLs have two values only).
        ttl_seconds: u32,
    },
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reason(reason) => write!(f, "{reason:?}"),
            Self::ExitPolicy { .. } => f.write_str("ExitPolicy"),
        }
    }
}
