//! One link: socket, TLS, and cells both ways.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use relay_node::link_keys::LinkKeys;
use relay_node::tls::Session;
use relay_wire::cell::{CircIdWidth, Command, Frame, Framed, frame};

use crate::handshake::{Handshake, Part};

/// Plain bytes that are sealed at once, and sealed ones that may wait for the socket: beyond that the circuits wait.
const BATCH_BYTES_MAX: usize = 4 * 31 * 514;

/// Reads from one link before the others have their turn.
const READS_IN_A_TURN: usize = 4;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Where bytes are read into; shared by all links of a thread.
pub(crate) fn read_buffer() -> Vec<u8> {
    vec![0; Session::unfinished_bytes_max() + READ_BYTES]
}

/// Where a link that we begin stops for good, as those do who only want to take a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It goes on until it is open.
    Nowhere,
    /// TCP and no byte.
    Tcp,
    /// One byte of TLS.
    Byte,
    /// TLS and no cell.
    Tls,
    /// VERSIONS and no NETINFO.
    Versions,
}

/// A link in any state.
pub(crate) struct Link {
    stream: TcpStream,
    hold: Hold,
    session: Session,
    /// `None` once it is open.
    handshake: Option<Box<Handshake>>,
    part: Part,
    addresses: (SocketAddr, SocketAddr),
    tls_up: bool,
    /// Plain bytes that came in; those before `taken` are spent.
    plain: Vec<u8>,
    taken: usize,
    /// Plain bytes to be sealed.
    pub(crate) out: Vec<u8>,
    sealed: Vec<u8>,
    written: usize,
    readable: bool,
    writable: bool,
}

/// A cell that came in: its circuit, what it is for, and where its body lies.
pub(crate) type Cell = Frame;

impl Link {
    pub(crate) fn new(
        stream: TcpStream,
        part: Part,
        peer: SocketAddr,
        own: SocketAddr,
        keys: &LinkKeys,
    ) -> Result<Self> {
        let mut sealed = Vec::new();
        let session = match part {
            Part::Responder => Session::accept(&keys.tls)?,
            Part::Client | Part::Relay => Session::connect(&keys.tls, &mut sealed)?,
        };
        Ok(Self {
            stream,
            hold: Hold::Nowhere,
            session,
            handshake: None,
            part,
            addresses: (peer, own),
            tls_up: false,
            plain: Vec::new(),
            taken: 0,
            out: Vec::new(),
            sealed,
            written: 0,
            readable: false,
            writable: false,
        })
    }

    /// The same, but it stops there.
    pub(crate) fn holding(mut self, hold: Hold) -> Self {
        self.hold = hold;
        match hold {
            Hold::Tcp => self.sealed.clear(),
            Hold::Byte => self.sealed.truncate(1),
            Hold::Nowhere | Hold::Tls | Hold::Versions => {}
        }
        self
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    pub(crate) fn is_open(&self) -> bool {
        self.tls_up && self.handshake.is_none() && self.hold == Hold::Nowhere
    }

    pub(crate) fn note(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Whether there may be more to read at once.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Room for cells in this batch.
    pub(crate) fn has_room(&self) -> bool {
        self.out.len() < BATCH_BYTES_MAX && self.sealed.len() - self.written < BATCH_BYTES_MAX
    }

    /// Whether another batch could go out at once.
    pub(crate) fn takes_more(&self) -> bool {
        self.writable && self.has_room()
    }

    /// Reads what is there, up to a bound, and goes on with the handshake.
    pub(crate) fn read(&mut self, buffer: &mut [u8], keys: &LinkKeys) -> Result<()> {
        for _ in 0..READS_IN_A_TURN {
            if !self.readable {
                break;
            }
            let kept = self.session.unfinished(buffer);
            let room = buffer.get_mut(kept..kept + READ_BYTES).context("a short buffer")?;
            let length = match self.stream.read(room) {
                Ok(0) => bail!("the relay closed the link"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the link broke"),
            };
            self.readable = length == READ_BYTES;
            self.compact();
            let cipher = buffer.get_mut(..kept + length).context("a short buffer")?;
            let progress = self.session.receive(cipher, &mut self.plain, &mut self.sealed)?;
            if progress.peer_closed {
                bail!("the relay ended TLS");
            }
            if progress.established && !self.tls_up {
                self.tls_up = true;
                if self.hold == Hold::Tls {
                    return Ok(());
                }
                let (peer, own) = self.addresses;
                self.handshake = Some(Box::new(Handshake::begin(self.part, peer, own, &mut self.out)?));
            }
        }
        self.shake_hands(keys)
    }

    fn compact(&mut self) {
        if self.taken > 0 {
            self.plain.drain(..self.taken);
            self.taken = 0;
        }
    }

    fn shake_hands(&mut self, keys: &LinkKeys) -> Result<()> {
        while let Some(mut handshake) = self.handshake.take() {
            let rest = self.plain.get(self.taken..).unwrap_or_default();
            let Framed::Whole(found) = frame(rest, handshake.width()) else {
                self.handshake = Some(handshake);
                return Ok(());
            };
            let raw = rest.get(..found.ends).unwrap_or_default();
            if found.command == Command::NETINFO && self.hold == Hold::Versions {
                self.taken += found.ends;
                self.handshake = Some(handshake);
                return Ok(());
            }
            let body = rest.get(found.body_begins..found.ends).unwrap_or_default();
            let open = handshake.on_cell(found.command, raw, body, &self.session, keys, &mut self.out)?;
            self.taken += found.ends;
            if !open {
                self.handshake = Some(handshake);
            }
        }
        Ok(())
    }

    /// The next cell of an open link, and its body, which may be worked on where it lies.
    pub(crate) fn next_cell(&mut self) -> Option<(u32, Command, &mut [u8])> {
        if !self.is_open() {
            return None;
        }
        let rest = self.plain.get_mut(self.taken..)?;
        let Framed::Whole(Cell {
            circ_id,
            command,
            body_begins,
            ends,
        }) = frame(rest, CircIdWidth::Four)
        else {
            return None;
        };
        self.taken += ends;
        Some((circ_id, command, rest.get_mut(body_begins..ends)?))
    }

    /// All whole plain bytes that wait, for somebody who frames them.
    pub(crate) fn take_plain(&mut self) -> Vec<u8> {
        self.compact();
        std::mem::take(&mut self.plain)
    }

    /// Seals and writes as much as the socket takes.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        if self.tls_up && !self.out.is_empty() && self.sealed.len() - self.written < BATCH_BYTES_MAX {
            if self.written > 0 {
                self.sealed.drain(..self.written);
                self.written = 0;
            }
            self.session.seal(&self.out, &mut self.sealed)?;
            self.out.clear();
        }
        while let Some(rest) = self.sealed.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => bail!("the link takes nothing"),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the link broke"),
            }
        }
        self.sealed.clear();
        self.written = 0;
        Ok(())
    }
}
