//! One connection to a destination: a socket and what waits to be written to it. Knows no engine.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;

use super::Allowed;
use super::pace::Pace;
use crate::link::write_all;
use crate::metrics::counters::OpenConnection;
use crate::shards::SocketPlace;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP is not up yet.
    Connecting,
    /// The engine has been told `StreamConnected`.
    Open,
    /// The stream is over for the client; its last bytes go out.
    Leaving,
}

/// A connection's share in the limit on sockets, and its place among those that are open; both given back with it.
pub type Counted = (SocketPlace, OpenConnection);

/// One connection.
pub struct ExitSocket {
    /// The socket.
    pub stream: TcpStream,
    /// Where to, as the gate let it through. Never logged.
    pub peer: SocketAddr,
    /// For how many seconds the client may remember that.
    pub ttl_seconds: u32,
    /// Where it stands.
    pub stage: Stage,
    /// On the driver's steady clock: when this stage must have ended, where it must.
    pub deadline: Option<Duration>,
    /// The engine has something for it.
    pub wants: bool,
    /// What the engine gave and the socket has not taken yet. One turn's bytes at most, until the stream leaves.
    unsent: Vec<u8>,
    /// How much of it is out.
    sent_bytes: usize,
    /// The socket takes no more until it says so.
    pub blocked: bool,
    /// What was unsent when the stream was over for the client.
    pub leaving_bytes: usize,
    /// When it was written to.
    pub pace: Pace,
    /// What the engine has waits for more.
    pub held: bool,
    /// The engine knows that there may be something to read.
    pub told: bool,
    /// The destination has ended its side, or the connection broke.
    pub ended: bool,
    _counted: Counted,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// This many bytes, and whether there may be more.
    Bytes(usize, bool),
    /// Nothing now.
    Nothing,
    /// The destination has ended its side.
    End,
}

impl ExitSocket {
    /// A connection that has begun.
    pub fn new(stream: TcpStream, allowed: Allowed, ttl_seconds: u32, counted: Counted) -> Self {
        Self {
            stream,
            peer: allowed.address(),
            ttl_seconds,
            stage: Stage::Connecting,
            deadline: None,
            wants: false,
            unsent: Vec::new(),
            sent_bytes: 0,
            blocked: true,
            leaving_bytes: 0,
            pace: Pace::default(),
            held: false,
            told: false,
            ended: false,
            _counted: counted,
        }
    }

    /// Whether TCP is up, and with whom. `None`: not yet.
    ///
    /// # Errors
    /// It will never be.
    pub fn connected(&self) -> io::Result<Option<SocketAddr>> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(peer) => Ok(Some(peer)),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads what is there, into `room`.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Incoming> {
        loop {
            match self.stream.read(room) {
                Ok(0) => return Ok(Incoming::End),
                // Less than asked for means that there is no more, unless the end is already there: the one event that told
                // of both has been used up.
                Ok(length) => return Ok(Incoming::Bytes(length, length == room.len() || self.ended)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Incoming::Nothing),
                Err(error) => return Err(error),
            }
        }
    }

    /// More to write, behind what waits; goes out with the next [`write`](Self::write).
    pub fn add(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Bytes not written yet.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len() - self.sent_bytes
    }

    /// Writes `fresh` where nothing waits, and keeps what the socket does not take; how many it took.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write_fresh(&mut self, fresh: &[u8]) -> io::Result<usize> {
        let taken = match self.unsent_bytes() {
            0 => write_all(&mut self.stream, fresh, &mut self.blocked)?,
            _ => 0,
        };
        self.add(fresh.get(taken..).unwrap_or_default());
        Ok(taken)
    }

    /// Writes at most `bytes_max` of what waits; how many the socket took.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, bytes_max: usize) -> io::Result<usize> {
        let until = self.unsent.len().min(self.sent_bytes.saturating_add(bytes_max));
        let waiting = self.unsent.get(self.sent_bytes..until).unwrap_or_default();
        let taken = write_all(&mut self.stream, waiting, &mut self.blocked)?;
        self.sent_bytes += taken;
        if self.sent_bytes == self.unsent.len() {
            // A stream that waits for nothing holds no memory.
            (self.unsent, self.sent_bytes) = (Vec::new(), 0);
        }
        Ok(taken)
    }

    /// Tells the destination that no more will come.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
