//! Bodies of PADDING_NEGOTIATE and PADDING_NEGOTIATED of circuits (padding-spec, "Circuit-level padding").

use crate::reader::{CutShort, Reader};

/// Bytes of either.
pub const BODY_BYTES: usize = 8;

/// What a client wants of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PaddingCommand {
    /// It is to end.
    Stop = 1,
    /// It is to begin.
    Start = 2,
}

/// Why PADDING_NEGOTIATE cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNegotiate {
    /// Shorter than it must be.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// Another version than 0.
    #[error("padding of an unknown version")]
    Version,
    /// Neither start nor stop.
    #[error("an unknown command for a padding machine")]
    Command,
}

/// PADDING_NEGOTIATE: a client's word about a padding machine of its circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitPaddingNegotiate {
    /// What is to become of it.
    pub command: PaddingCommand,
    /// Which machine: C tor's number for it, 0 for introduction circuits and 1 for rendezvous circuits.
    pub machine: u8,
    /// How many the client has had on this circuit, this one included: an old STOP ends no new machine.
    pub counter: u32,
}

impl CircuitPaddingNegotiate {
    /// Reads the body. What follows is ignored.
    pub fn read(data: &[u8]) -> Result<Self, BadNegotiate> {
        let mut reader = Reader::new(data);
        if reader.u8()? != 0 {
            return Err(BadNegotiate::Version);
        }
        let command = reader.u8()?;
        let machine = reader.u8()?;
        let _unused = reader.u8()?;
        let counter = reader.u32()?;
        let command = match command {
            1 => PaddingCommand::Stop,
            2 => PaddingCommand::Start,
            _ => return Err(BadNegotiate::Command),
        };
        Ok(Self {
            command,
            machine,
            counter,
        })
    }

    /// PADDING_NEGOTIATED that answers it.
    pub fn answer(&self, agreed: bool) -> [u8; BODY_BYTES] {
        let [a, b, c, d] = self.counter.to_be_bytes();
        let response = if agreed { 1 } else { 2 };
        [0, self.command as u8, response, self.machine, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_and_its_answer_lie_as_c_tor_lays_them() {
        let wish = CircuitPaddingNegotiate::read(&[0, 2, 1, 99, 0, 0, 1, 9]).unwrap();
        assert_eq!(
            (wish.command, wish.machine, wish.counter),
            (PaddingCommand::Start, 1, 265)
        );
        assert_eq!(wish.answer(true), [0, 2, 1, 1, 0, 0, 1, 9]);
        assert_eq!(wish.answer(false), [0, 2, 2, 1, 0, 0, 1, 9]);
    }

    #[test]
    fn what_makes_no_sense_is_no_wish() {
        let read = CircuitPaddingNegotiate::read;
        for length in 0..8 {
            assert_eq!(
                read(&[0, 1, 0, 0, 0, 0, 0, 0][..length]),
                Err(BadNegotiate::CutShort(CutShort))
            );
        }
        assert_eq!(read(&[1, 1, 0, 0, 0, 0, 0, 0]), Err(BadNegotiate::Version));
        assert_eq!(read(&[0, 3, 0, 0, 0, 0, 0, 0]), Err(BadNegotiate::Command));
    }
}
