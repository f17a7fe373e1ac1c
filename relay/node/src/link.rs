//! One link: a socket, its TLS session, and what waits to be written to it. Knows no engine.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use relay_engine::door::AttemptId;
use relay_engine::settings::{InitiatorCredentials, ResponderCredentials};
use relay_formats::fingerprint::RsaIdentity;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::metrics::counters::{Began, OpenConnection};
use crate::rate::links::LinkBuckets;
use crate::shards::Place;
use crate::tls::Session;
use crate::traffic::Traffic;

/// Who began a link, and what that side shows once TLS is up.
pub enum Beginner {
    /// The peer connected to us.
    Peer(Arc<ResponderCredentials>),
    /// We did, by the engine's wish.
    Us(AttemptId, Arc<InitiatorCredentials>),
}

impl Beginner {
    /// As it is counted.
    pub fn began(&self) -> Began {
        match self {
            Self::Peer(_) => Began::Peer,
            Self::Us(..) => Began::Us,
        }
    }
}

/// Where a link stands. Only an `Open` one is known to the engine as a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP is not up yet.
    Connecting,
    /// TLS is not up yet.
    Handshaking,
    /// The engine has been told `ChannelUp`.
    Open,
    /// The engine has asked for its end; the last bytes go out.
    Closing,
    /// All has been said and our side is ended; the peer's own end is waited for.
    Ended,
}

/// Who a peer has proven to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// Nobody, as clients do.
    Nobody,
    /// The relay of this identity, whether or not the consensus knows it.
    Relay(RsaIdentity),
}

/// One connection to a client or relay.
pub struct Link {
    /// The socket.
    pub stream: TcpStream,
    /// Its TLS.
    pub session: Session,
    /// Who began, with what credentials.
    pub beginner: Beginner,
    /// Where it stands.
    pub stage: Stage,
    /// The peer's address. Never logged.
    pub peer: SocketAddr,
    /// Where its bytes are counted.
    pub traffic: Arc<Traffic>,
    /// Who the peer is, once the link handshake is through.
    pub proven: Option<Proven>,
    /// What it may move, beside the relay's own rate; none where that is all that holds it.
    pub buckets: Option<Box<LinkBuckets>>,
    /// Held for as long as it is one of the relay's links.
    pub _place: Place,
    /// Its place among the open connections.
    pub counted: OpenConnection,
    /// On the driver's steady clock: when this stage must have ended, where it must.
    pub deadline: Option<Duration>,
    /// The engine has something to say on it.
    pub wants: bool,
    /// Sealed bytes that the socket has not taken yet. At most one batch.
    pub unsent: Vec<u8>,
    /// How many bytes of it and of the session are in the shard's sum.
    pub counted_bytes: usize,
    /// On the driver's steady clock: since when there has always been something unsent.
    pub stuck_since: Option<Duration>,
    /// The socket takes no more until it says so.
    pub blocked: bool,
    /// The peer has ended its side, or the connection broke; what it said before may still be unread.
    pub ended: bool,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// This many bytes, and whether there may be more.
    Bytes(usize, bool),
    /// Nothing now.
    Nothing,
    /// The peer has ended its side.
    End,
}

impl Link {
    /// Memory that it holds for its peer.
    pub fn held_bytes(&self) -> usize {
        self.unsent.capacity() + self.session.unfinished_capacity()
    }

    /// Reads what is there, into `room`.
    ///
    /// # Errors
    /// The socket is dead.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Incoming> {
        loop {
            match self.stream.read(room) {
                Ok(0) => return Ok(Incoming::End),
                // A stream socket under epoll that gave less than asked for has no more (epoll(7), questions and answers 9),
                // unless the end is already there: the one event that told of both has been used up.
                Ok(length) => {
                    self.traffic.note_read(length);
                    return Ok(Incoming::Bytes(length, length == room.len() || self.ended));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Incoming::Nothing),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what waits, then `fresh`; keeps what the socket does not take.
    ///
    /// # Errors
    /// The socket is dead.
    pub fn write(&mut self, fresh: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(fresh);
            if !self.blocked {
                let taken = write_all(&mut self.stream, &self.unsent, &mut self.blocked)?;
                self.traffic.note_written(taken);
                self.unsent.drain(..taken);
                if self.unsent.is_empty() {
                    self.unsent = Vec::new();
                }
            }
            return Ok(());
        }
        let taken = if self.blocked {
            0
        } else {
            write_all(&mut self.stream, fresh, &mut self.blocked)?
        };
        self.traffic.note_written(taken);
        self.unsent.extend_from_slice(fresh.get(taken..).unwrap_or_default());
        Ok(())
    }
}

/// Writes until all is gone or the socket is full, which sets `blocked`; how many bytes it took.
///
/// # Errors
/// The socket is dead.
pub fn write_all(stream: &mut TcpStream, bytes: &[u8], blocked: &mut bool) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => taken += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                *blocked = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// Bytes that the kernel may hold for one link and has not sent yet, besides those that are under way. More would only wait
/// where no ping can overtake it; C tor's KIST keeps a socket's buffer as short, by asking for its state every few
/// milliseconds. One and a half of our writes (our own number).
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What every link's socket is told. Where the system refuses, the link only is a little slower.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

/// Begins a TCP connection to `address` from the one of `from` that is of its family.
///
/// # Errors
/// The system refuses at once: no route, no descriptors, address not ours.
pub fn connect(address: SocketAddr, from: &[IpAddr]) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    let ours = from.iter().find(|ours| ours.is_ipv4() == address.is_ipv4());
    // As in C tor a public source address is not used towards loopback, where it would not work.
    if let Some(ours) = ours.filter(|ours| ours.is_loopback() || !address.ip().is_loopback()) {
        socket.bind(&SocketAddr::new(*ours, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// A listening socket on `address`.
///
/// # Errors
/// The port is taken, the address is not ours, or the port needs a privilege.
pub fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Connections that the system may hold for us before we accept them; the system caps it at `somaxconn`.
pub(crate) const BACKLOG: i32 = 4_096;
