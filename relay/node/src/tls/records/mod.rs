//! Our own record layer, for TLS 1.3 after the handshake (RFC 8446 5): sealed and opened from where bytes lie to where they are
//! wanted, without a copy and without memory of its own.
//!
//! rustls does the handshake, gives the keys, and makes those that come after a KeyUpdate. All bounds are its bounds; where it is
//! silent or more lenient than RFC 8446, so much is said.
//!
//! ```text
//!  cipher ─▶ Keys::open ─▶ plain, Messages (KeyUpdate, tickets), alerts
//!  plain  ─▶ (KeyUpdate where these keys have sealed enough) ─▶ Keys::seal ─▶ out
//! ```

mod error;
mod keys;
mod messages;
#[cfg(test)]
mod tests;

use rustls::kernel::KernelConnection;
use rustls::{AlertDescription, ConnectionTrafficSecrets, ExtractedSecrets};

use super::room::Room;
pub use error::RecordError;
use keys::{APPLICATION_DATA, Keys};
use messages::{Messages, Request, key_update};

/// Type, version and length.
const HEADER_BYTES: usize = 5;
/// Of all three ciphers.
const TAG_BYTES: usize = 16;
/// Plain bytes in a record (RFC 8446 5.1).
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// What may stand behind a record's header (RFC 8446 5.2).
const BODY_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;
/// A record is no longer than this.
#[cfg(test)]
pub(super) const RECORD_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Empty records in a row, as in rustls (`ALLOWED_CONSECUTIVE_EMPTY_FRAGMENTS_MAX`): each costs us as much as a short one.
const EMPTY_MAX: u8 = 32;
/// KeyUpdates without a plain byte between them, as in rustls (`INITIAL_KEY_UPDATE_REQUESTS`).
const KEY_UPDATES_MAX: u8 = 32;
/// Warnings in a session's life, as in rustls (`allowed_warning_alerts`).
const WARNINGS_MAX: u8 = 4;

/// Makes the keys that come after the ones in use.
pub(super) trait NextKeys: Send {
    /// For what we send.
    ///
    /// # Errors
    /// rustls cannot.
    fn sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error>;

    /// For what the peer sends.
    ///
    /// # Errors
    /// rustls cannot.
    fn opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error>;
}

impl<D: Send> NextKeys for KernelConnection<D> {
    fn sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        self.update_tx_secret()
    }

    fn opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        self.update_rx_secret()
    }
}

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Began the connection. May be sent tickets, which it does not look at.
    Client,
    /// Was connected to.
    Server,
}

/// The records of one session, both ways.
pub(super) struct Records {
    sealing: Keys,
    opening: Keys,
    next_keys: Box<dyn NextKeys>,
    /// Records that may be sealed under one key; the last of them is a KeyUpdate.
    sealed_max: u64,
    messages: Messages,
    /// The peer has asked for a KeyUpdate, which goes out before the next plain bytes (RFC 8446 4.6.3): one answers all
    /// that have asked since.
    answer_owed: bool,
    /// What may still come of what costs us more than the peer.
    empty_left: u8,
    key_updates_left: u8,
    warnings_left: u8,
    peer_closed: bool,
    /// We have said that nothing more will come from us.
    closed: bool,
    broken: Option<RecordError>,
}

impl Records {
    /// The records that come after a handshake that gave `secrets`. `sealed_max` is the cipher's confidentiality limit.
    ///
    /// # Errors
    /// The secrets are of a cipher that we do not know.
    pub(super) fn new(
        role: Role,
        secrets: ExtractedSecrets,
        next_keys: Box<dyn NextKeys>,
        sealed_max: u64,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            sealing: Keys::new(secrets.tx)?,
            opening: Keys::new(secrets.rx)?,
            next_keys,
            sealed_max,
            messages: Messages::new(role == Role::Client),
            answer_owed: false,
            empty_left: EMPTY_MAX,
            key_updates_left: KEY_UPDATES_MAX,
            warnings_left: WARNINGS_MAX,
            peer_closed: false,
            closed: false,
            broken: None,
        })
    }

    /// Opens all whole records at the front of `cipher`, appends plain bytes to `plain`, and says how much of `cipher` it has
    /// taken: all of it once the peer has said that nothing more will come.
    ///
    /// # Errors
    /// The peer broke the rules. What came before has been appended to `plain`, an alert to `out`. The session is dead.
    pub(super) fn receive(&mut self, cipher: &[u8], plain: &mut Room, out: &mut Vec<u8>) -> Result<usize, RecordError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let mut taken = 0;
        while !self.peer_closed {
            let rest = cipher.get(taken..).unwrap_or_default();
            let opened = match next_record(rest) {
                Ok(Some(record)) => {
                    taken += HEADER_BYTES + record.body.len();
                    self.open(&record, plain)
                }
                Ok(None) => return Ok(taken),
                Err(error) => Err(error),
            };
            if let Err(error) = opened {
                self.give_up(&error, out);
                return Err(error);
            }
        }
        Ok(cipher.len())
    }

    /// The peer has said that nothing more will come.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Appends `plain`, sealed in records of at most 16 KiB, to `out`.
    ///
    /// # Errors
    /// The session has ended, or there are no keys any more.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Room) -> Result<(), RecordError> {
        self.may_send()?;
        // Half a change of keys must not be gone on from.
        self.seal_all(plain, out)
            .inspect_err(|error| self.broken = Some(error.clone()))
    }

    fn seal_all(&mut self, plain: &[u8], out: &mut Room) -> Result<(), RecordError> {
        if self.answer_owed && !plain.is_empty() {
            self.change_keys(Request::None, out)?;
        }
        for piece in plain.chunks(PLAIN_BYTES_MAX) {
            // The peer is asked to do the same: not all count, and what one may seal the other should not exceed.
            if self.sealing.next.saturating_add(1) >= self.sealed_max {
                self.change_keys(Request::Answer, out)?;
            }
            if self.sealing.next >= self.sealed_max {
                return Err(RecordError::KeysUsedUp);
            }
            self.sealing.seal(APPLICATION_DATA, piece, out)?;
        }
        Ok(())
    }

    /// Appends the message that says that nothing more will come from us.
    ///
    /// # Errors
    /// The session has ended.
    pub(super) fn seal_end(&mut self, out: &mut Room) -> Result<(), RecordError> {
        self.may_send()?;
        self.closed = true;
        self.seal_alert(WARNING, AlertDescription::CloseNotify, out)
    }

    fn may_send(&self) -> Result<(), RecordError> {
        if self.closed || self.broken.is_some() {
            return Err(RecordError::Ended);
        }
        Ok(())
    }

    fn change_keys(&mut self, request: Request, out: &mut Room) -> Result<(), RecordError> {
        self.sealing.seal(HANDSHAKE, &key_update(request), out)?;
        self.sealing = Keys::new(self.next_keys.sealing().map_err(RecordError::Keys)?)?;
        self.answer_owed = false;
        Ok(())
    }

    fn seal_alert(&mut self, level: u8, alert: AlertDescription, out: &mut Room) -> Result<(), RecordError> {
        self.sealing.seal(ALERT, &[level, u8::from(alert)], out)
    }

    /// After an alert nothing follows, and after our end no alert.
    fn give_up(&mut self, error: &RecordError, out: &mut Vec<u8>) {
        self.broken = Some(error.clone());
        if let Some(alert) = error.alert().filter(|_| !self.closed) {
            // Where even the numbers of records have come to an end, the peer is told nothing.
            let _ = Room::append(out, |out| self.seal_alert(FATAL, alert, out));
        }
    }

    fn open(&mut self, record: &Record<'_>, plain: &mut Room) -> Result<(), RecordError> {
        let inner_bytes = record
            .body
            .len()
            .checked_sub(TAG_BYTES)
            .ok_or(RecordError::Undecryptable)?;
        let inner = plain.ahead(inner_bytes);
        self.opening.open(record.header, record.body, inner)?;
        // RFC 8446 5.4: zeros behind the type are padding.
        let padded = inner.iter().rposition(|byte| *byte != 0);
        if inner_bytes > PLAIN_BYTES_MAX + 1 {
            return Err(RecordError::Overlong);
        }
        let (kind, content) = padded
            .and_then(|at| inner.get(..=at))
            .and_then(<[u8]>::split_last)
            .ok_or(RecordError::NoType)?;
        if *kind != HANDSHAKE && !self.messages.is_between() {
            return Err(RecordError::Interleaved);
        }
        match *kind {
            APPLICATION_DATA if content.is_empty() => {
                self.empty_left = self.empty_left.checked_sub(1).ok_or(RecordError::TooManyEmpty)?;
            }
            APPLICATION_DATA => {
                (self.empty_left, self.key_updates_left) = (EMPTY_MAX, KEY_UPDATES_MAX);
                let length = content.len();
                plain.keep(length);
            }
            HANDSHAKE => {
                if let Some(request) = self.messages.take(content)? {
                    self.follow(request)?;
                }
            }
            ALERT => match content {
                [level, alert] => self.heed(*level, AlertDescription::from(*alert))?,
                _ => return Err(RecordError::MalformedAlert),
            },
            other => return Err(RecordError::RecordType(other)),
        }
        Ok(())
    }

    /// The peer has changed its keys.
    fn follow(&mut self, request: Request) -> Result<(), RecordError> {
        let left = self.key_updates_left.checked_sub(1);
        self.key_updates_left = left.ok_or(RecordError::TooManyKeyUpdates)?;
        self.answer_owed |= request == Request::Answer;
        self.opening = Keys::new(self.next_keys.opening().map_err(RecordError::Keys)?)?;
        Ok(())
    }

    fn heed(&mut self, level: u8, alert: AlertDescription) -> Result<(), RecordError> {
        match (level, alert) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => self.peer_closed = true,
            (WARNING, AlertDescription::UserCanceled) => {
                let left = self.warnings_left.checked_sub(1);
                self.warnings_left = left.ok_or(RecordError::Warning(alert))?;
            }
            (WARNING, _) => return Err(RecordError::Warning(alert)),
            (FATAL, _) => return Err(RecordError::Alert(alert)),
            _ => return Err(RecordError::AlertLevel(level)),
        }
        Ok(())
    }
}

/// A record as it came.
struct Record<'c> {
    header: [u8; HEADER_BYTES],
    body: &'c [u8],
}

/// The record at the front of `cipher`, if all of it is there. Its version is not looked at: the cipher covers the header.
///
/// # Errors
/// No record after the handshake looks like this, which its header alone tells.
fn next_record(cipher: &[u8]) -> Result<Option<Record<'_>>, RecordError> {
    let Some((header, rest)) = cipher.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let [kind, _, _, high, low] = *header;
    if kind != APPLICATION_DATA {
        return Err(RecordError::RecordType(kind));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BODY_BYTES_MAX {
        return Err(RecordError::Overlong);
    }
    Ok(rest.get(..length).map(|body| Record { header: *header, body }))
}
