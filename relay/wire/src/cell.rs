//! Cells on the link: where they begin and end (tor-spec, "Cell packet format").
//!
//! A fixed cell is circuit id, command and 509 bytes; a variable one (VERSIONS and commands from 128 on)
//! carries its own length. Until a link version is agreed, and with version 3, the circuit id has two
//! bytes; from version 4 on it has four. VERSIONS itself always has two.

/// Bytes of the body of a fixed cell.
pub const BODY_BYTES: usize = 509;

/// Bytes of the largest variable cell with its header.
pub const VARIABLE_CELL_BYTES_MAX: usize = 4 + 1 + 2 + u16::MAX as usize;

/// What a cell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Command(pub u8);

impl Command {
    /// Nothing; keeps the link alive.
    pub const PADDING: Self = Self(0);
    /// The TAP handshake, no longer spoken.
    pub const CREATE: Self = Self(1);
    /// The answer of the TAP handshake, no longer spoken.
    pub const CREATED: Self = Self(2);
    /// A relay message, or bytes for another hop.
    pub const RELAY: Self = Self(3);
    /// The circuit ends.
    pub const DESTROY: Self = Self(4);
    /// A first hop without public keys.
    pub const CREATE_FAST: Self = Self(5);
    /// The answer to it.
    pub const CREATED_FAST: Self = Self(6);
    /// The link versions that the sender speaks.
    pub const VERSIONS: Self = Self(7);
    /// Time and addresses.
    pub const NETINFO: Self = Self(8);
    /// As RELAY, but may extend the circuit.
    pub const RELAY_EARLY: Self = Self(9);
    /// A circuit handshake.
    pub const CREATE2: Self = Self(10);
    /// The answer to it.
    pub const CREATED2: Self = Self(11);
    /// A wish about link padding (link version 5).
    pub const PADDING_NEGOTIATE: Self = Self(12);
    /// Padding of any length.
    pub const VPADDING: Self = Self(128);
    /// Certificates.
    pub const CERTS: Self = Self(129);
    /// The responder's challenge.
    pub const AUTH_CHALLENGE: Self = Self(130);
    /// The initiator's proof.
    pub const AUTHENTICATE: Self = Self(131);
    /// Reserved.
    pub const AUTHORIZE: Self = Self(132);

    /// Whether the cell carries its own length.
    pub fn is_variable(self) -> bool {
        self == Self::VERSIONS || self.0 >= 128
    }
}

/// How many bytes a circuit id has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircIdWidth {
    /// Before a version is agreed, and link version 3.
    Two,
    /// Link versions 4 and 5.
    Four,
}

impl CircIdWidth {
    /// The width that a link version uses.
    pub fn of_version(version: u16) -> Self {
        if version >= 4 { Self::Four } else { Self::Two }
    }

    /// In bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Bytes of a whole fixed cell.
    pub fn cell_bytes(self) -> usize {
        self.bytes() + 1 + BODY_BYTES
    }
}

/// Where the first cell of a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its circuit; 0 is the link itself.
    pub circ_id: u32,
    /// What it is for.
    pub command: Command,
    /// Where its body begins.
    pub body_begins: usize,
    /// Where its body ends and the next cell begins.
    pub ends: usize,
}

impl Frame {
    /// Whether it is one of those that circuits carry.
    #[inline]
    pub fn is_relay(&self) -> bool {
        matches!(self.command, Command::RELAY | Command::RELAY_EARLY)
    }
}

/// What a buffer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A whole cell.
    Whole(Frame),
    /// A part of one; ask again when the buffer has this many bytes.
    Short {
        /// The next length at which more is known; always more than the buffer has.
        total_bytes: usize,
    },
}

/// Finds the cell at the beginning of `bytes`.
#[inline]
pub fn frame(bytes: &[u8], width: CircIdWidth) -> Framed {
    let id_bytes = width.bytes();
    let (circ_id, command) = match (width, bytes) {
        (CircIdWidth::Two, [a, b, command, ..]) => (u32::from_be_bytes([0, 0, *a, *b]), Command(*command)),
        (CircIdWidth::Four, [a, b, c, d, command, ..]) => (u32::from_be_bytes([*a, *b, *c, *d]), Command(*command)),
        _ => {
            return Framed::Short {
                total_bytes: id_bytes + 1,
            };
        }
    };
    let (body_begins, body_bytes) = if command.is_variable() {
        let header = id_bytes + 3;
        match bytes.get(id_bytes + 1..header) {
            Some(&[high, low]) => (header, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Framed::Short { total_bytes: header },
        }
    } else {
        (id_bytes + 1, BODY_BYTES)
    };
    let ends = body_begins + body_bytes;
    if bytes.len() < ends {
        return Framed::Short { total_bytes: ends };
    }
    Framed::Whole(Frame {
        circ_id,
        command,
        body_begins,
        ends,
    })
}

/// Appends the header of a fixed cell. With a width of two the upper half of `circ_id` is not sent.
#[inline]
pub fn write_header(out: &mut Vec<u8>, width: CircIdWidth, circ_id: u32, command: Command) {
    let id = circ_id.to_be_bytes();
    match width {
        CircIdWidth::Two => out.extend_from_slice(&[id[2], id[3], command.0]),
        CircIdWidth::Four => out.extend_from_slice(&[id[0], id[1], id[2], id[3], command.0]),
    }
}

/// Appends a fixed cell whose body is `body` and zeros; what is beyond [`BODY_BYTES`] is left out.
pub fn write_fixed(out: &mut Vec<u8>, width: CircIdWidth, circ_id: u32, command: Command, body: &[u8]) {
    write_header(out, width, circ_id, command);
    let body = body.get(..BODY_BYTES).unwrap_or(body);
    out.extend_from_slice(body);
    out.resize(out.len() + BODY_BYTES - body.len(), 0);
}

/// A body does not fit into a variable cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a variable cell holds at most 65535 bytes")]
pub struct TooLong;

/// Appends a variable cell.
pub fn write_variable(out: &mut Vec<u8>, width: CircIdWidth, command: Command, body: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(body.len()).map_err(|_| TooLong)?;
    write_header(out, width, 0, command);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_versions_cell_of_c_tor_is_found() {
        let bytes = [0, 0, 7, 0, 6, 0, 3, 0, 4, 0, 5];
        let whole = Framed::Whole(Frame {
            circ_id: 0,
            command: Command::VERSIONS,
            body_begins: 5,
            ends: 11,
        });
        assert_eq!(frame(&bytes, CircIdWidth::Two), whole);
        assert_eq!(frame(&bytes[..4], CircIdWidth::Two), Framed::Short { total_bytes: 5 });
        assert_eq!(frame(&bytes[..10], CircIdWidth::Two), Framed::Short { total_bytes: 11 });
        assert_eq!(frame(&[], CircIdWidth::Two), Framed::Short { total_bytes: 3 });
    }

    #[test]
    fn a_fixed_cell_is_514_bytes_from_link_version_4_on() {
        let mut bytes = Vec::new();
        write_fixed(&mut bytes, CircIdWidth::Four, 0x8000_0001, Command::RELAY, b"hello");
        assert_eq!(bytes.len(), 514);
        let Framed::Whole(found) = frame(&bytes, CircIdWidth::Four) else {
            panic!("not found")
        };
        assert_eq!(
            (found.circ_id, found.command, found.ends),
            (0x8000_0001, Command::RELAY, 514)
        );
        assert_eq!(&bytes[found.body_begins..][..5], b"hello");
    }

    proptest! {
        #[test]
        fn whatever_comes_a_frame_lies_inside_or_asks_for_more(
            bytes in proptest::collection::vec(any::<u8>(), 0..1200), wide: bool,
        ) {
            let width = if wide { CircIdWidth::Four } else { CircIdWidth::Two };
            match frame(&bytes, width) {
                Framed::Whole(found) => prop_assert!(found.body_begins <= found.ends && found.ends <= bytes.len()),
                Framed::Short { total_bytes } => prop_assert!(total_bytes > bytes.len()),
            }
        }

        #[test]
        fn a_variable_cell_comes_back_as_it_went(body in proptest::collection::vec(any::<u8>(), 0..900), command in 128_u8..) {
            let mut bytes = Vec::new();
            write_variable(&mut bytes, CircIdWidth::Four, Command(command), &body).unwrap();
            let Framed::Whole(found) = frame(&bytes, CircIdWidth::Four) else { panic!("not found") };
            prop_assert_eq!(&bytes[found.body_begins..found.ends], &body[..]);
            prop_assert_eq!(found.ends, bytes.len());
        }
    }
}
