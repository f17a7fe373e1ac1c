//! Bodies of the conflux messages: circuits to one exit that carry one set of streams (proposal 329; tor-spec, "Conflux").

use crate::reader::{CutShort, Reader};

/// Bytes of a set's name.
pub const NONCE_BYTES: usize = 32;

/// Bytes of LINK and LINKED.
pub const LINK_BYTES: usize = 1 + NONCE_BYTES + 8 + 8 + 1;

/// What the sender wishes for what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DesiredUx {
    /// No wish.
    NoOpinion = 0,
    /// The leg that answers soonest, and no other.
    MinLatency = 1,
    /// The same, and little to be put into order.
    LowMemLatency = 2,
    /// All legs as far as their windows go.
    HighThroughput = 3,
    /// The same, with little to be put into order.
    LowMemThroughput = 4,
}

impl DesiredUx {
    fn of_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::NoOpinion,
            1 => Self::MinLatency,
            2 => Self::LowMemLatency,
            3 => Self::HighThroughput,
            4 => Self::LowMemThroughput,
            _ => return None,
        })
    }
}

/// Why LINK cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// Shorter than it must be.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// Another version than 1.
    #[error("LINK of an unknown version")]
    Version,
    /// A wish that nobody has defined.
    #[error("LINK with an unknown wish")]
    DesiredUx,
}

/// LINK, and LINKED, its answer. No `Debug`: whoever knows the nonce may join the set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The set's name, the client's secret.
    pub nonce: [u8; NONCE_BYTES],
    /// The highest sequence number that the sender has sent on any leg.
    pub last_seqno_sent: u64,
    /// The highest that it has received in order.
    pub last_seqno_received: u64,
    /// What it wishes for.
    pub desired_ux: DesiredUx,
}

impl Link {
    /// Reads the body. What follows is ignored.
    pub fn read(data: &[u8]) -> Result<Self, BadLink> {
        let mut reader = Reader::new(data);
        if reader.u8()? != 1 {
            return Err(BadLink::Version);
        }
        Ok(Self {
            nonce: reader.array()?,
            last_seqno_sent: u64::from_be_bytes(reader.array()?),
            last_seqno_received: u64::from_be_bytes(reader.array()?),
            desired_ux: DesiredUx::of_number(reader.u8()?).ok_or(BadLink::DesiredUx)?,
        })
    }

    /// What goes into the message.
    pub fn write(&self) -> [u8; LINK_BYTES] {
        let (sent, received) = (
            self.last_seqno_sent.to_be_bytes(),
            self.last_seqno_received.to_be_bytes(),
        );
        let ux = [self.desired_ux as u8];
        let parts = [&[1][..], &self.nonce, &sent, &received, &ux];
        let mut body = [0; LINK_BYTES];
        let bytes = parts.into_iter().flatten();
        body.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        body
    }
}

/// SWITCH: by how much the sequence number of the leg that it comes on jumps.
pub fn read_switch(data: &[u8]) -> Result<u32, CutShort> {
    Reader::new(data).u32()
}

/// The body of SWITCH.
pub fn write_switch(by: u32) -> [u8; 4] {
    by.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> Link {
        Link {
            nonce: std::array::from_fn(|at| at as u8),
            last_seqno_sent: 5,
            last_seqno_received: u64::MAX,
            desired_ux: DesiredUx::HighThroughput,
        }
    }

    #[test]
    fn a_link_lies_as_the_proposal_says() {
        let body = link().write();
        assert_eq!((body[0], body[1], body[32], body[49]), (1, 0, 31, 3));
        assert_eq!(
            body[33..49],
            [0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 255, 255, 255, 255, 255, 255]
        );
        assert!(Link::read(&body) == Ok(link()));
    }

    #[test]
    fn a_link_that_is_cut_or_of_tomorrow_is_refused() {
        let body = link().write();
        for length in 1..LINK_BYTES {
            assert!(
                Link::read(&body[..length]) == Err(BadLink::CutShort(CutShort)),
                "{length}"
            );
        }
        let (mut version, mut wish) = (body, body);
        (version[0], wish[49]) = (2, 5);
        assert!(Link::read(&version) == Err(BadLink::Version));
        assert!(Link::read(&wish) == Err(BadLink::DesiredUx));
        assert_eq!(read_switch(&[0, 0, 1]), Err(CutShort));
        assert_eq!(read_switch(&write_switch(260)), Ok(260));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Link::read(&data).is_ok();
            let _ = read_switch(&data);
        }
    }
}
