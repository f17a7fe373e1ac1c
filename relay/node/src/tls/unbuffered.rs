//! rustls's unbuffered sessions of either role, driven: the handshake, and all of TLS 1.2.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ProtocolVersion};

use super::room::Room;
use super::session::TlsError;

/// Type, version and length.
const HEADER_BYTES: usize = 5;

/// What goes out by a call.
#[derive(Clone, Copy)]
pub(super) enum Outgoing<'p> {
    Data(&'p [u8]),
    End,
}

/// What both roles of rustls's unbuffered session offer, under one name.
pub(super) trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(cipher)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, cipher: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(cipher)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

/// How far rustls has looked into ciphertext that it has not taken.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    /// So many bytes.
    pub bytes: usize,
    /// So many of them in whole records.
    pub whole: usize,
}

/// What [`take_in`] brought.
#[derive(Default)]
pub(super) struct Taken {
    /// So much of `cipher` is done with.
    pub bytes: usize,
    /// rustls has seen the records until here.
    pub whole: usize,
    pub established: bool,
    pub peer_closed: bool,
    /// A handshake of TLS 1.3 has just ended, and rustls has seen nothing that came after it.
    pub can_turn: bool,
}

/// Feeds all of `cipher` that forms whole records and messages, until a handshake of TLS 1.3 ends; `seen` of it has been shown before.
///
/// Records go in one by one. Whoever takes over from rustls at the handshake's end must do so before it has followed
/// a KeyUpdate, whose answer would be lost with it.
pub(super) fn take_in(
    connection: &mut impl Unbuffered,
    cipher: &mut [u8],
    seen: Seen,
    plain: &mut Room,
    out: &mut Vec<u8>,
) -> Result<Taken, TlsError> {
    let was_handshaking = connection.common().is_handshaking();
    let mut shown = seen.bytes.min(cipher.len());
    let mut taken = Taken {
        whole: seen.whole,
        ..Taken::default()
    };
    loop {
        let to_see = cipher.get_mut(taken.bytes..shown).unwrap_or_default();
        if !step(connection, to_see, &mut taken, plain, out)? {
            continue;
        }
        let common = connection.common();
        let turned = was_handshaking && !common.is_handshaking();
        if turned && common.protocol_version() == Some(ProtocolVersion::TLSv1_3) && taken.bytes == taken.whole {
            taken.can_turn = true;
            return Ok(taken);
        }
        match end_of_record(cipher, taken.whole) {
            Some(end) => {
                taken.whole = end;
                shown = shown.max(end);
            }
            // What has only begun may be no record at all.
            None if shown < cipher.len() => shown = cipher.len(),
            None => return Ok(taken),
        }
    }
}

/// One state of rustls's. `true` when it wants more, or has no more to do.
fn step(
    connection: &mut impl Unbuffered,
    cipher: &mut [u8],
    taken: &mut Taken,
    plain: &mut Room,
    out: &mut Vec<u8>,
) -> Result<bool, TlsError> {
    let UnbufferedStatus { mut discard, state } = connection.process(cipher);
    let mut done = false;
    match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                plain.put(record.payload);
            }
        }
        Ok(ConnectionState::EncodeTlsData(mut handshake)) => {
            Room::append(out, |out| encode(&mut handshake, out)).ok_or(TlsError::CannotSend)?;
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
    Ok(done)
}

/// Where the record that begins at `start` ends, if all of it is there.
fn end_of_record(cipher: &[u8], start: usize) -> Option<usize> {
    let [_, _, _, high, low] = *cipher.get(start..)?.first_chunk::<HEADER_BYTES>()?;
    let end = start + HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    (end <= cipher.len()).then_some(end)
}

/// After an error rustls may hold an alert for the peer.
fn last_words(connection: &mut impl Unbuffered, out: &mut Vec<u8>) {
    while let Ok(ConnectionState::EncodeTlsData(mut alert)) = connection.process(&mut []).state {
        let told = Room::append(out, |out| encode(&mut alert, out));
        if told.is_none() {
            return;
        }
    }
}

/// Appends `what` to `out`, behind whatever rustls has to say first.
pub(super) fn put_out(
    connection: &mut impl Unbuffered,
    unfinished: &mut Vec<u8>,
    what: Outgoing<'_>,
    out: &mut Room,
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
                encode(&mut handshake, out).ok_or(TlsError::CannotSend)?;
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

fn encode<D>(message: &mut EncodeTlsData<'_, D>, out: &mut Room) -> Option<()> {
    out.write(|room| {
        message.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(short) => Some(short.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}
