//! Relay messages: what a client says to one hop inside RELAY cells (tor-spec, "Relay cells"; proposal 359 for format 1).

use crate::cell::BODY_BYTES;
use crate::reader::{CutShort, Reader};

/// Why a circuit ends (tor-spec, "Tearing down circuits").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum DestroyReason {
    None = 0,
    TorProtocol = 1,
    Internal = 2,
    Requested = 3,
    Hibernating = 4,
    ResourceLimit = 5,
    ConnectFailed = 6,
    OrIdentity = 7,
    ChannelClosed = 8,
    Finished = 9,
    Timeout = 10,
    Destroyed = 11,
    NoSuchService = 12,
}

/// Why a stream ends (tor-spec, "Closing streams").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum EndReason {
    Misc = 1,
    ResolveFailed = 2,
    ConnectRefused = 3,
    ExitPolicy = 4,
    Destroy = 5,
    Done = 6,
    Timeout = 7,
    NoRoute = 8,
    Hibernating = 9,
    Internal = 10,
    ResourceLimit = 11,
    ConnReset = 12,
    TorProtocol = 13,
    NotDirectory = 14,
}

/// What a relay message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayCommand(pub u8);

#[expect(missing_docs, reason = "the names are the specification's own")]
impl RelayCommand {
    pub const BEGIN: Self = Self(1);
    pub const DATA: Self = Self(2);
    pub const END: Self = Self(3);
    pub const CONNECTED: Self = Self(4);
    pub const SENDME: Self = Self(5);
    pub const EXTEND: Self = Self(6);
    pub const EXTENDED: Self = Self(7);
    pub const TRUNCATE: Self = Self(8);
    pub const TRUNCATED: Self = Self(9);
    pub const DROP: Self = Self(10);
    pub const RESOLVE: Self = Self(11);
    pub const RESOLVED: Self = Self(12);
    pub const BEGIN_DIR: Self = Self(13);
    pub const EXTEND2: Self = Self(14);
    pub const EXTENDED2: Self = Self(15);
    pub const CONFLUX_LINK: Self = Self(19);
    pub const CONFLUX_LINKED: Self = Self(20);
    pub const CONFLUX_LINKED_ACK: Self = Self(21);
    pub const CONFLUX_SWITCH: Self = Self(22);
    pub const ESTABLISH_INTRO: Self = Self(32);
    pub const ESTABLISH_RENDEZVOUS: Self = Self(33);
    pub const INTRODUCE1: Self = Self(34);
    pub const INTRODUCE2: Self = Self(35);
    pub const RENDEZVOUS1: Self = Self(36);
    pub const RENDEZVOUS2: Self = Self(37);
    pub const INTRO_ESTABLISHED: Self = Self(38);
    pub const RENDEZVOUS_ESTABLISHED: Self = Self(39);
    pub const INTRODUCE_ACK: Self = Self(40);
    pub const PADDING_NEGOTIATE: Self = Self(41);
    pub const PADDING_NEGOTIATED: Self = Self(42);
    pub const XOFF: Self = Self(43);
    pub const XON: Self = Self(44);

    /// Whether the specifications name it.
    pub fn is_known(self) -> bool {
        matches!(self.0, 1..=15 | 19..=22 | 32..=44)
    }

    /// Whether format 1 gives it a stream id (proposal 359).
    pub fn has_stream(self) -> bool {
        [
            Self::BEGIN,
            Self::BEGIN_DIR,
            Self::CONNECTED,
            Self::DATA,
            Self::END,
            Self::RESOLVE,
            Self::RESOLVED,
            Self::XON,
            Self::XOFF,
        ]
        .contains(&self)
    }
}

/// How a message lies in the body of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Command, recognized, stream, digest, length, data: circuits with tor1 crypto.
    V0,
    /// Tag, command, length, maybe stream, data: circuits with CGO.
    V1,
}

/// Bytes before the data in format 0.
pub const V0_HEADER_BYTES: usize = 11;
/// Data bytes of a message in format 0.
pub const V0_DATA_BYTES_MAX: usize = BODY_BYTES - V0_HEADER_BYTES;
/// Data bytes of a message with a stream in format 1; without a stream there is room for two more.
pub const V1_DATA_BYTES_MAX: usize = BODY_BYTES - 21;
/// Data bytes that fit whatever the format.
pub const DATA_BYTES_MAX: usize = V1_DATA_BYTES_MAX;

/// One relay message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayMessage<'a> {
    /// What it is for.
    pub command: RelayCommand,
    /// Its stream; 0 is the circuit itself.
    pub stream_id: u16,
    /// What it carries.
    pub data: &'a [u8],
}

/// Why a cell meant for us holds no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Its length reaches beyond the cell.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// Format 1 does not tell how an unknown command lies in its cell.
    #[error("an unknown command in format 1")]
    UnknownCommand,
    /// Format 1 has no stream 0 where there is a stream.
    #[error("stream 0 where a stream is needed")]
    StreamZero,
}

impl<'a> RelayMessage<'a> {
    /// Reads the message of a decrypted body.
    pub fn read(body: &'a [u8; BODY_BYTES], format: Format) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(body);
        match format {
            Format::V0 => {
                let command = RelayCommand(reader.u8()?);
                reader.take(2)?;
                let stream_id = reader.u16()?;
                reader.take(4)?;
                let length = usize::from(reader.u16()?);
                Ok(Self {
                    command,
                    stream_id,
                    data: reader.take(length)?,
                })
            }
            Format::V1 => {
                reader.take(16)?;
                let command = RelayCommand(reader.u8()?);
                let length = usize::from(reader.u16()?);
                if !command.is_known() {
                    return Err(BadMessage::UnknownCommand);
                }
                let stream_id = if command.has_stream() { reader.u16()? } else { 0 };
                if command.has_stream() && stream_id == 0 {
                    return Err(BadMessage::StreamZero);
                }
                Ok(Self {
                    command,
                    stream_id,
                    data: reader.take(length)?,
                })
            }
        }
    }

    /// A body with the message and zeros where digest, tag and fill will be. Returns it with the place where the
    /// fill begins. Data beyond [`DATA_BYTES_MAX`] (format 0: [`V0_DATA_BYTES_MAX`]) is refused.
    pub fn write(&self, format: Format) -> Result<([u8; BODY_BYTES], usize), CutShort> {
        let mut body = [0; BODY_BYTES];
        let fill = self.write_into(format, &mut body)?;
        Ok((body, fill))
    }

    /// The same into a body of the caller's, whatever that held before. Where data is refused, it stays as it was.
    #[inline]
    pub fn write_into(&self, format: Format, body: &mut [u8; BODY_BYTES]) -> Result<usize, CutShort> {
        let stream = self.stream_id.to_be_bytes();
        let length = u16::try_from(self.data.len()).map_err(|_| CutShort)?.to_be_bytes();
        let mut head = [0; 21];
        let head_bytes = match format {
            Format::V0 => {
                let found = [
                    self.command.0,
                    0,
                    0,
                    stream[0],
                    stream[1],
                    0,
                    0,
                    0,
                    0,
                    length[0],
                    length[1],
                ];
                head[..V0_HEADER_BYTES].copy_from_slice(&found);
                V0_HEADER_BYTES
            }
            Format::V1 => {
                head[16..].copy_from_slice(&[self.command.0, length[0], length[1], stream[0], stream[1]]);
                if self.command.has_stream() { 21 } else { 19 }
            }
        };
        let fill = head_bytes + self.data.len();
        let (message, rest) = body.split_at_mut_checked(fill).ok_or(CutShort)?;
        let (header, data) = message.split_at_mut_checked(head_bytes).ok_or(CutShort)?;
        header.copy_from_slice(head.split_at(head_bytes).0);
        data.copy_from_slice(self.data);
        rest.fill(0);
        Ok(fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_end_reads() {
        let message = RelayMessage {
            command: RelayCommand::END,
            stream_id: 3,
            data: &[],
        };
        for format in [Format::V0, Format::V1] {
            let (body, _) = message.write(format).unwrap();
            assert_eq!(RelayMessage::read(&body, format), Ok(message));
        }
    }

    #[test]
    fn a_cell_holds_498_bytes_in_format_0_and_488_or_490_in_format_1() {
        let data = [1; 500];
        let fits = |command, format, length: usize| {
            RelayMessage {
                command,
                stream_id: 1,
                data: &data[..length],
            }
            .write(format)
            .is_ok()
        };
        assert!(fits(RelayCommand::DATA, Format::V0, 498) && !fits(RelayCommand::DATA, Format::V0, 499));
        assert!(fits(RelayCommand::DATA, Format::V1, 488) && !fits(RelayCommand::DATA, Format::V1, 489));
        assert!(fits(RelayCommand::DROP, Format::V1, 490) && !fits(RelayCommand::DROP, Format::V1, 491));
    }

    #[test]
    fn format_1_refuses_what_it_cannot_lay_out() {
        let mut body = [0; BODY_BYTES];
        body[16] = 99;
        assert_eq!(RelayMessage::read(&body, Format::V1), Err(BadMessage::UnknownCommand));
        body[16] = RelayCommand::DATA.0;
        assert_eq!(RelayMessage::read(&body, Format::V1), Err(BadMessage::StreamZero));
        body[17] = 255;
        body[20] = 1;
        assert_eq!(
            RelayMessage::read(&body, Format::V1),
            Err(BadMessage::CutShort(CutShort))
        );
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_went(
            command in prop::sample::select(vec![1_u8, 2, 3, 5, 8, 10, 14, 15, 43]),
            stream_id in 1_u16.., data in proptest::collection::vec(any::<u8>(), 0..=488), v1: bool,
        ) {
            let command = RelayCommand(command);
            let format = if v1 { Format::V1 } else { Format::V0 };
            let stream_id = if v1 && !command.has_stream() { 0 } else { stream_id };
            let message = RelayMessage { command, stream_id, data: &data };
            let (body, fill) = message.write(format).unwrap();
            prop_assert!(fill <= BODY_BYTES);
            prop_assert_eq!(RelayMessage::read(&body, format), Ok(message));
        }

        #[test]
        fn no_body_makes_the_reader_panic(start in proptest::collection::vec(any::<u8>(), 32), v1: bool) {
            let mut body = [0xff; BODY_BYTES];
            body[..32].copy_from_slice(&start);
            let _ = RelayMessage::read(&body, if v1 { Format::V1 } else { Format::V0 });
        }
    }
}
