//! Handshake messages after the handshake (RFC 8446 4.6), read byte by byte and never kept: of a ticket nothing is wanted, and a
//! KeyUpdate has one byte. So a message may come in any pieces and takes no memory.

use super::error::RecordError;

const NEW_SESSION_TICKET: u8 = 4;
pub(super) const KEY_UPDATE: u8 = 24;

/// Lifetime, age, an empty nonce, one byte of ticket and no extension.
const TICKET_BYTES_MIN: usize = 14;
/// As rustls bounds all handshake messages.
const TICKET_BYTES_MAX: usize = 0xffff;

/// Whether whoever changed its keys wants the other to change its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// `update_not_requested`
    None,
    /// `update_requested`
    Answer,
}

/// KeyUpdate as it is sent: type, length, request.
pub(super) fn key_update(request: Request) -> [u8; 5] {
    [KEY_UPDATE, 0, 0, 1, u8::from(request == Request::Answer)]
}

/// How far the peer's messages have been read.
pub(super) struct Messages {
    /// Only servers send tickets.
    tickets: bool,
    state: State,
}

enum State {
    /// So many bytes of a message's header.
    Header([u8; 4], usize),
    /// A ticket, of which so much is still to come.
    Ticket(usize),
    Update,
}

const BETWEEN: State = State::Header([0; 4], 0);

impl Messages {
    pub(super) fn new(tickets: bool) -> Self {
        Self {
            tickets,
            state: BETWEEN,
        }
    }

    /// No message has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Header(_, 0))
    }

    /// Takes what one record holds; says what its KeyUpdate asks for, if it ends one.
    ///
    /// # Errors
    /// The peer broke the rules.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> Result<Option<Request>, RecordError> {
        if piece.is_empty() {
            return Err(RecordError::Interleaved);
        }
        while let Some((first, rest)) = piece.split_first() {
            match &mut self.state {
                State::Header(header, held) => {
                    if let Some(byte) = header.get_mut(*held) {
                        *byte = *first;
                    }
                    *held += 1;
                    if *held == header.len() {
                        self.state = begin(*header, self.tickets)?;
                    }
                    piece = rest;
                }
                State::Ticket(left) => {
                    let skipped = piece.len().min(*left);
                    *left -= skipped;
                    piece = piece.get(skipped..).unwrap_or_default();
                    if *left == 0 {
                        self.state = BETWEEN;
                    }
                }
                State::Update => {
                    if !rest.is_empty() {
                        return Err(RecordError::BehindKeyUpdate);
                    }
                    self.state = BETWEEN;
                    return match first {
                        0 => Ok(Some(Request::None)),
                        1 => Ok(Some(Request::Answer)),
                        other => Err(RecordError::KeyUpdateRequest(*other)),
                    };
                }
            }
        }
        Ok(None)
    }
}

fn begin([kind, high, middle, low]: [u8; 4], tickets: bool) -> Result<State, RecordError> {
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    match kind {
        KEY_UPDATE if length == 1 => Ok(State::Update),
        NEW_SESSION_TICKET if tickets && (TICKET_BYTES_MIN..=TICKET_BYTES_MAX).contains(&length) => {
            Ok(State::Ticket(length))
        }
        KEY_UPDATE => Err(RecordError::Malformed(kind)),
        NEW_SESSION_TICKET if tickets => Err(RecordError::Malformed(kind)),
        _ => Err(RecordError::MessageType(kind)),
    }
}
