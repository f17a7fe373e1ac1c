//! One TLS connection without its socket.

use std::sync::Arc;

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use sha2::{Digest, Sha256};

use super::exporter::ExporterSecrets;
use super::profile::{TlsProfile, client_name};

/// Ciphertext that may wait for its record's or handshake message's end: rustls takes handshake messages of 64 KiB,
/// and one more record (16 KiB and its overhead) may have begun.
const UNFINISHED_BYTES_MAX: usize = 96 * 1024;

/// Where in the server's first flight the server's random stands: after the record's header (5), the message's (4)
/// and the version (2).
const SERVER_RANDOM_AT: std::ops::Range<usize> = 11..43;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer, or we, broke TLS's rules.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A message that never ends.
    #[error("TLS: a message longer than {UNFINISHED_BYTES_MAX} bytes")]
    TooLong,
    /// Asked to seal before the handshake's end, or after the session's.
    #[error("TLS: the session cannot send")]
    CannotSend,
    /// No more may be encrypted under this session's keys.
    #[error("TLS: the session's keys are used up")]
    KeysUsedUp,
}

/// What a call to [`Session::receive`] brought.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The handshake has ended, now or before.
    pub established: bool,
    /// The peer has said that nothing more will come.
    pub peer_closed: bool,
}

/// One TLS connection of either role.
pub struct Session {
    side: Side,
    secrets: Arc<ExporterSecrets>,
    server_random: Option<[u8; 32]>,
    /// Ciphertext of a record or handshake message that has not ended.
    unfinished: Vec<u8>,
    established: bool,
}

/// The larger variant is the common one.
#[allow(clippy::large_enum_variant)]
enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Session {
    /// The responder's side; waits for a ClientHello.
    ///
    /// # Errors
    /// rustls refuses the profile.
    pub fn accept(profile: &TlsProfile) -> Result<Self, TlsError> {
        let secrets = Arc::new(ExporterSecrets::default());
        let mut config = (*profile.server).clone();
        config.key_log = Arc::clone(&secrets) as _;
        let side = Side::Server(UnbufferedServerConnection::new(Arc::new(config))?);
        Ok(Self {
            side,
            secrets,
            server_random: None,
            unfinished: Vec::new(),
            established: false,
        })
    }

    /// The initiator's side; its ClientHello is appended to `out`.
    ///
    /// # Errors
    /// rustls refuses the profile.
    pub fn connect(profile: &TlsProfile, out: &mut Vec<u8>) -> Result<Self, TlsError> {
        let secrets = Arc::new(ExporterSecrets::default());
        let mut config = (*profile.client).clone();
        config.key_log = Arc::clone(&secrets) as _;
        let side = Side::Client(UnbufferedClientConnection::new(Arc::new(config), client_name())?);
        let mut session = Self {
            side,
            secrets,
            server_random: None,
            unfinished: Vec::new(),
            established: false,
        };
        session.receive(&mut [], &mut Vec::new(), out)?;
        Ok(session)
    }

    /// Copies what is left of the last read to the front of `buffer` and says how long it is. The next read goes
    /// behind it, and both together into [`Session::receive`].
    pub fn unfinished(&self, buffer: &mut [u8]) -> usize {
        match buffer.get_mut(..self.unfinished.len()) {
            Some(front) => front.copy_from_slice(&self.unfinished),
            None => return 0,
        }
        self.unfinished.len()
    }

    /// Memory that what is left of the last read takes.
    pub fn unfinished_capacity(&self) -> usize {
        self.unfinished.capacity()
    }

    /// How much room [`Session::unfinished`] needs at most.
    pub const fn unfinished_bytes_max() -> usize {
        UNFINISHED_BYTES_MAX
    }

    /// Takes ciphertext, beginning with what [`Session::unfinished`] gave; appends plain bytes to `plain`, and
    /// ciphertext for the peer to `out`.
    ///
    /// # Errors
    /// The session is dead; `out` may still hold an alert for the peer.
    pub fn receive(&mut self, cipher: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Progress, TlsError> {
        let out_from = out.len();
        if self.server_random.is_none() && matches!(self.side, Side::Client(_)) {
            self.server_random = server_random(cipher);
        }
        let taken = match &mut self.side {
            Side::Client(client) => take_in(client, cipher, plain, out),
            Side::Server(server) => take_in(server, cipher, plain, out),
        };
        if self.server_random.is_none() && matches!(self.side, Side::Server(_)) {
            self.server_random = out.get(out_from..).and_then(server_random);
        }
        let taken = taken?;
        let rest = cipher.get(taken.bytes..).unwrap_or_default();
        if rest.len() > UNFINISHED_BYTES_MAX {
            return Err(TlsError::TooLong);
        }
        self.unfinished.clear();
        self.unfinished.extend_from_slice(rest);
        if rest.is_empty() {
            self.unfinished.shrink_to(0);
        }
        self.established |= taken.established;
        Ok(Progress {
            established: self.established,
            peer_closed: taken.peer_closed,
        })
    }

    /// Appends `plain`, sealed in records of at most 16 KiB, to `out`.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        Out::append(out, |out| self.put_out(Outgoing::Data(plain), out))
    }

    /// Puts `plain`, sealed in records of at most 16 KiB, at the front of `room`, and says how many bytes it became. `room`
    /// grows where it must and is never made shorter: kept from batch to batch, nothing is cleared that is about to be
    /// written anyway.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal_into(&mut self, plain: &[u8], room: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut out = Out { room, filled: 0 };
        self.put_out(Outgoing::Data(plain), &mut out)?;
        Ok(out.filled)
    }

    /// Appends the message that says that nothing more will come from us.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal_end(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        Out::append(out, |out| self.put_out(Outgoing::End, out))
    }

    /// Exported keying material for Tor's AUTHENTICATE; `None` before the handshake's end.
    pub fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        let (version, suite) = (
            self.common().protocol_version()?,
            self.common().negotiated_cipher_suite()?,
        );
        self.secrets.export(version, suite, self.server_random, context)
    }

    /// SHA-256 of the DER of the certificate that the peer showed; a client shows none.
    pub fn peer_certificate_sha256(&self) -> Option<[u8; 32]> {
        let shown = self.common().peer_certificates()?.first()?;
        Some(Sha256::digest(shown).into())
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(client) => client,
            Side::Server(server) => server,
        }
    }

    fn put_out(&mut self, what: Outgoing<'_>, out: &mut Out<'_>) -> Result<(), TlsError> {
        match &mut self.side {
            Side::Client(client) => put_out(client, &mut self.unfinished, what, out),
            Side::Server(server) => put_out(server, &mut self.unfinished, what, out),
        }
    }
}

/// What goes out by a call.
#[derive(Clone, Copy)]
enum Outgoing<'p> {
    Data(&'p [u8]),
    End,
}

/// What both roles of rustls's unbuffered session offer, under one name.
trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(cipher)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(cipher)
    }
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    established: bool,
    peer_closed: bool,
}

/// Feeds all of `cipher` that forms whole records and messages.
fn take_in(
    connection: &mut impl Unbuffered,
    cipher: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<Taken, TlsError> {
    let mut taken = Taken::default();
    loop {
        let UnbufferedStatus { mut discard, state } =
            connection.process(cipher.get_mut(taken.bytes..).unwrap_or_default());
        let mut done = false;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut handshake)) => {
                encode(&mut handshake, out).ok_or(TlsError::CannotSend)?;
            }
            // What `out` holds goes to the socket in order, so as far as rustls must know it has gone.
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            Ok(ConnectionState::WriteTraffic(_)) => {
                taken.established = true;
                done = true;
            }
            Ok(ConnectionState::PeerClosed) => taken.peer_closed = true,
            Ok(ConnectionState::Closed) => {
                taken.peer_closed = true;
                done = true;
            }
            Ok(ConnectionState::BlockedHandshake) => done = true,
            Ok(_) => return Err(rustls::Error::General("early data that we never offered".to_owned()).into()),
            Err(error) => {
                last_words(connection, out);
                return Err(error.into());
            }
        }
        taken.bytes += discard;
        if done {
            return Ok(taken);
        }
    }
}

/// After an error rustls may hold an alert for the peer.
fn last_words(connection: &mut impl Unbuffered, out: &mut Vec<u8>) {
    while let Ok(ConnectionState::EncodeTlsData(mut alert)) = connection.process(&mut []).state {
        let told = encode(&mut alert, out);
        if told.is_none() {
            return;
        }
    }
}

/// Appends `what` to `out`, behind whatever rustls has to say first.
fn put_out(
    connection: &mut impl Unbuffered,
    unfinished: &mut Vec<u8>,
    what: Outgoing<'_>,
    out: &mut Out<'_>,
) -> Result<(), TlsError> {
    loop {
        // rustls remembers how far into `unfinished` it has looked, so it must see it again.
        let UnbufferedStatus { discard, state } = connection.process(unfinished);
        let mut done = false;
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let mut write = |room: &mut [u8]| match what {
                    Outgoing::Data(plain) => traffic.encrypt(plain, room),
                    Outgoing::End => traffic.queue_close_notify(room),
                };
                let mut used_up = false;
                out.write(|room| {
                    write(room).map_err(|error| match error {
                        EncryptError::InsufficientSize(short) => Some(short.required_size),
                        EncryptError::EncryptExhausted => {
                            used_up = true;
                            None
                        }
                    })
                })
                .ok_or(if used_up {
                    TlsError::KeysUsedUp
                } else {
                    TlsError::CannotSend
                })?;
                done = true;
            }
            ConnectionState::EncodeTlsData(mut handshake) => {
                encode_into(&mut handshake, out).ok_or(TlsError::CannotSend)?;
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(TlsError::CannotSend),
        }
        unfinished.drain(..discard.min(unfinished.len()));
        if done {
            return Ok(());
        }
    }
}

fn encode<D>(message: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Option<()> {
    Out::append(out, |out| encode_into(message, out))
}

fn encode_into<D>(message: &mut EncodeTlsData<'_, D>, out: &mut Out<'_>) -> Option<()> {
    out.write(|room| {
        message.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(short) => Some(short.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

/// Where ciphertext goes: behind the first `filled` bytes of `room`.
struct Out<'v> {
    room: &'v mut Vec<u8>,
    filled: usize,
}

impl Out<'_> {
    /// Lets `write` append to what `out` holds.
    fn append<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Out<'_>) -> T) -> T {
        let filled = out.len();
        let mut out = Out { room: out, filled };
        let result = write(&mut out);
        let filled = out.filled;
        out.room.truncate(filled);
        result
    }

    /// Appends what `write` writes; `write` says how much room it needs where it has too little.
    fn write(&mut self, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> Option<()> {
        for _ in 0..2 {
            match write(self.room.get_mut(self.filled..).unwrap_or_default()) {
                Ok(length) => {
                    self.filled += length;
                    return Some(());
                }
                Err(Some(required)) => self.room.resize(self.filled + required, 0),
                Err(None) => break,
            }
        }
        None
    }
}

fn server_random(flight: &[u8]) -> Option<[u8; 32]> {
    flight.get(SERVER_RANDOM_AT)?.try_into().ok()
}
