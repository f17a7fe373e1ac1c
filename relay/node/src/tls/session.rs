//! One TLS connection without its socket.

use std::mem;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, ProtocolVersion, SupportedCipherSuite};
use sha2::{Digest, Sha256};

use super::exporter::ExporterSecrets;
use super::profile::{TlsProfile, client_name};
use super::records::{NextKeys, RecordError, Records, Role};
use super::room::Room;
use super::unbuffered::{Outgoing, Seen, Taken, put_out, take_in};

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
    /// The same, in TLS 1.3 after the handshake.
    #[error("TLS: {0}")]
    Record(RecordError),
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

impl From<RecordError> for TlsError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Ended => Self::CannotSend,
            RecordError::KeysUsedUp => Self::KeysUsedUp,
            other => Self::Record(other),
        }
    }
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
    /// So many bytes of it are whole records that rustls has seen.
    unfinished_whole: usize,
    established: bool,
}

/// Who seals and opens. A session begins as rustls's; one of TLS 1.3 becomes our own when its handshake ends.
enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    Own(Box<Own>),
    /// rustls would not give its keys.
    Broken,
}

/// What is left of a session when its handshake has ended.
struct Own {
    records: Records,
    suite: SupportedCipherSuite,
    peer_certificate_sha256: Option<[u8; 32]>,
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
        let server = UnbufferedServerConnection::new(Arc::new(config))?;
        Ok(Self::new(Side::Server(Box::new(server)), secrets))
    }

    /// The initiator's side; its ClientHello is appended to `out`.
    ///
    /// # Errors
    /// rustls refuses the profile.
    pub fn connect(profile: &TlsProfile, out: &mut Vec<u8>) -> Result<Self, TlsError> {
        let secrets = Arc::new(ExporterSecrets::default());
        let mut config = (*profile.client).clone();
        config.key_log = Arc::clone(&secrets) as _;
        let client = UnbufferedClientConnection::new(Arc::new(config), client_name())?;
        let mut session = Self::new(Side::Client(Box::new(client)), secrets);
        session.receive(&mut [], &mut Vec::new(), out)?;
        Ok(session)
    }

    fn new(side: Side, secrets: Arc<ExporterSecrets>) -> Self {
        Self {
            side,
            secrets,
            server_random: None,
            unfinished: Vec::new(),
            unfinished_whole: 0,
            established: false,
        }
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
    /// The session is dead; `plain` holds what came before, `out` may still hold an alert for the peer.
    pub fn receive(&mut self, cipher: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Progress, TlsError> {
        Room::append(plain, |plain| self.receive_into(cipher, plain, out))
    }

    /// As [`Session::receive`], with plain bytes appended to a room.
    ///
    /// # Errors
    /// As there.
    pub fn receive_into(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Room,
        out: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        let mut taken = self.shake_hands(cipher, plain, out)?;
        if let Side::Own(own) = &mut self.side {
            let behind = cipher.get(taken.bytes..).unwrap_or_default();
            taken.bytes += own.records.receive(behind, plain, out)?;
            taken.whole = taken.bytes;
            taken.established = true;
            taken.peer_closed = own.records.peer_closed();
        }
        let rest = cipher.get(taken.bytes..).unwrap_or_default();
        if rest.len() > UNFINISHED_BYTES_MAX {
            return Err(TlsError::TooLong);
        }
        self.unfinished.clear();
        self.unfinished.extend_from_slice(rest);
        self.unfinished_whole = taken.whole.saturating_sub(taken.bytes);
        if rest.is_empty() {
            self.unfinished.shrink_to(0);
        }
        self.established |= taken.established;
        Ok(Progress {
            established: self.established,
            peer_closed: taken.peer_closed,
        })
    }

    /// What rustls makes of `cipher`, as long as the session is its own.
    fn shake_hands(&mut self, cipher: &mut [u8], plain: &mut Room, out: &mut Vec<u8>) -> Result<Taken, TlsError> {
        let out_from = out.len();
        let seen = Seen {
            bytes: self.unfinished.len(),
            whole: self.unfinished_whole,
        };
        let taken = match &mut self.side {
            Side::Client(client) => {
                self.server_random = self.server_random.or_else(|| server_random(cipher));
                take_in(&mut **client, cipher, seen, plain, out)
            }
            Side::Server(server) => {
                let taken = take_in(&mut **server, cipher, seen, plain, out);
                let random = || out.get(out_from..).and_then(server_random);
                self.server_random = self.server_random.or_else(random);
                taken
            }
            Side::Own(_) => Ok(Taken::default()),
            Side::Broken => Err(TlsError::CannotSend),
        }?;
        if taken.can_turn {
            self.take_over()?;
        }
        Ok(taken)
    }

    /// Takes the keys out of rustls, of which only what makes further keys is left.
    fn take_over(&mut self) -> Result<(), TlsError> {
        let Some(SupportedCipherSuite::Tls13(suite)) = self.common().and_then(CommonState::negotiated_cipher_suite)
        else {
            return Ok(());
        };
        let peer_certificate_sha256 = self.peer_certificate_sha256();
        let (role, secrets, next_keys): (_, _, Box<dyn NextKeys>) = match mem::replace(&mut self.side, Side::Broken) {
            Side::Client(client) => {
                let (secrets, kernel) = client.dangerous_into_kernel_connection()?;
                (Role::Client, secrets, Box::new(kernel))
            }
            Side::Server(server) => {
                let (secrets, kernel) = server.dangerous_into_kernel_connection()?;
                (Role::Server, secrets, Box::new(kernel))
            }
            other => {
                self.side = other;
                return Ok(());
            }
        };
        self.side = Side::Own(Box::new(Own {
            records: Records::new(role, secrets, next_keys, suite.common.confidentiality_limit)?,
            suite: SupportedCipherSuite::Tls13(suite),
            peer_certificate_sha256,
        }));
        Ok(())
    }

    /// Appends `plain`, sealed in records of at most 16 KiB, to `out`.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        Room::append(out, |out| self.put_out(Outgoing::Data(plain), out))
    }

    /// Puts `plain`, sealed in records of at most 16 KiB, into `room`, in place of what it held.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal_into(&mut self, plain: &[u8], room: &mut Room) -> Result<(), TlsError> {
        room.clear();
        self.put_out(Outgoing::Data(plain), room)
    }

    /// Appends the message that says that nothing more will come from us.
    ///
    /// # Errors
    /// The handshake has not ended, or the session has.
    pub fn seal_end(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        Room::append(out, |out| self.put_out(Outgoing::End, out))
    }

    /// Exported keying material for Tor's AUTHENTICATE; `None` before the handshake's end.
    pub fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        let (version, suite) = match &self.side {
            Side::Own(own) => (ProtocolVersion::TLSv1_3, own.suite),
            _ => {
                let common = self.common()?;
                (common.protocol_version()?, common.negotiated_cipher_suite()?)
            }
        };
        self.secrets.export(version, suite, self.server_random, context)
    }

    /// SHA-256 of the DER of the certificate that the peer showed; a client shows none.
    pub fn peer_certificate_sha256(&self) -> Option<[u8; 32]> {
        if let Side::Own(own) = &self.side {
            return own.peer_certificate_sha256;
        }
        let shown = self.common()?.peer_certificates()?.first()?;
        Some(Sha256::digest(shown).into())
    }

    fn common(&self) -> Option<&CommonState> {
        match &self.side {
            Side::Client(client) => Some(client),
            Side::Server(server) => Some(server),
            Side::Own(_) | Side::Broken => None,
        }
    }

    /// Our own records, once they are.
    #[cfg(test)]
    pub(super) fn records(&mut self) -> Option<&mut Records> {
        match &mut self.side {
            Side::Own(own) => Some(&mut own.records),
            _ => None,
        }
    }

    fn put_out(&mut self, what: Outgoing<'_>, out: &mut Room) -> Result<(), TlsError> {
        let held = self.unfinished.len();
        let put = match &mut self.side {
            Side::Client(client) => put_out(&mut **client, &mut self.unfinished, what, out),
            Side::Server(server) => put_out(&mut **server, &mut self.unfinished, what, out),
            Side::Own(own) => match what {
                Outgoing::Data(plain) => own.records.seal(plain, out),
                Outgoing::End => own.records.seal_end(out),
            }
            .map_err(TlsError::from),
            Side::Broken => Err(TlsError::CannotSend),
        };
        let drained = held - self.unfinished.len();
        self.unfinished_whole = self.unfinished_whole.saturating_sub(drained);
        put
    }
}

fn server_random(flight: &[u8]) -> Option<[u8; 32]> {
    flight.get(SERVER_RANDOM_AT)?.try_into().ok()
}
