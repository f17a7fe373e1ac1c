//! What can go wrong with records, and what the peer is told of it.

use rustls::AlertDescription;

/// Why a session has ended, or cannot do what it is asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// Forged, changed, repeated, out of order, or under other keys.
    #[error("a record that its keys do not open")]
    Undecryptable,
    /// More than RFC 8446 5.2 allows, with or without padding.
    #[error("a record that is too long")]
    Overlong,
    /// On the outside, or inside.
    #[error("a record of type {0}")]
    RecordType(u8),
    /// Nothing but padding, so not even a type.
    #[error("a record without a type")]
    NoType,
    /// Bound as in rustls.
    #[error("too many empty records in a row")]
    TooManyEmpty,
    /// Another record between the pieces of a message, or an empty piece (RFC 8446 5.1).
    #[error("a handshake message in pieces that do not belong together")]
    Interleaved,
    /// Anything but KeyUpdate, and NewSessionTicket for a client.
    #[error("a handshake message of type {0} after the handshake")]
    MessageType(u8),
    /// Of a length that its kind does not have.
    #[error("a handshake message of type {0} that is malformed")]
    Malformed(u8),
    /// Messages may not span a change of keys (RFC 8446 5.1).
    #[error("more of a record behind KeyUpdate")]
    BehindKeyUpdate,
    /// Bound as in rustls.
    #[error("too many KeyUpdates in a row")]
    TooManyKeyUpdates,
    /// Neither asks for an answer nor does not.
    #[error("a KeyUpdate that asks for {0}")]
    KeyUpdateRequest(u8),
    /// Not of two bytes.
    #[error("a malformed alert")]
    MalformedAlert,
    /// Neither a warning nor fatal.
    #[error("an alert of level {0}")]
    AlertLevel(u8),
    /// A warning that TLS 1.3 knows no more, or too many of those that it does.
    #[error("the alert {0:?} as a warning")]
    Warning(AlertDescription),
    /// The peer has given up.
    #[error("the peer's alert {0:?}")]
    Alert(AlertDescription),
    /// rustls made no new keys, or they do not fit their cipher.
    #[error("no keys: {0}")]
    Keys(rustls::Error),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// No more may be sealed under these keys.
    #[error("the keys are used up")]
    KeysUsedUp,
}

impl RecordError {
    /// What the peer is told; nothing where it is not its fault, or where it has given up itself.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::Undecryptable => AlertDescription::BadRecordMac,
            Self::Overlong => AlertDescription::RecordOverflow,
            Self::RecordType(_)
            | Self::NoType
            | Self::TooManyEmpty
            | Self::Interleaved
            | Self::MessageType(_)
            | Self::BehindKeyUpdate
            | Self::TooManyKeyUpdates => AlertDescription::UnexpectedMessage,
            Self::Malformed(_) | Self::MalformedAlert | Self::Warning(_) => AlertDescription::DecodeError,
            Self::KeyUpdateRequest(_) | Self::AlertLevel(_) => AlertDescription::IllegalParameter,
            Self::Keys(_) => AlertDescription::InternalError,
            Self::Alert(_) | Self::Ended | Self::KeysUsedUp => return None,
        })
    }
}
