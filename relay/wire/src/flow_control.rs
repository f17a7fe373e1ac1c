//! Bodies of SENDME, XOFF and XON (tor-spec, "Flow control"; proposals 289 and 324).

use crate::reader::{CutShort, Reader};

/// Bytes of a tag on a circuit with tor1 crypto: the running SHA-1.
pub const TOR1_TAG_BYTES: usize = 20;
/// Bytes of a tag on a circuit with CGO.
pub const CGO_TAG_BYTES: usize = 16;

/// A circuit's SENDME as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sendme<'a> {
    /// An empty body or version 0: proves nothing.
    V0,
    /// Names the cell that it acknowledges.
    V1 {
        /// The tag, as long as the peer says.
        tag: &'a [u8],
    },
}

/// Why a SENDME cannot be read. The circuit must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSendme {
    /// Shorter than its own length says.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// A version that nobody has defined.
    #[error("SENDME of an unknown version")]
    Version,
}

impl<'a> Sendme<'a> {
    /// Reads the body. What follows the tag is ignored, so that later versions may add to it.
    pub fn read(data: &'a [u8]) -> Result<Self, BadSendme> {
        let mut reader = Reader::new(data);
        match reader.u8() {
            Err(CutShort) | Ok(0) => Ok(Self::V0),
            Ok(1) => {
                let length = reader.u16()?;
                Ok(Self::V1 {
                    tag: reader.take(usize::from(length))?,
                })
            }
            Ok(_) => Err(BadSendme::Version),
        }
    }
}

/// A SENDME body that we send, 23 bytes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendmeBody {
    bytes: [u8; 3 + TOR1_TAG_BYTES],
    length: usize,
}

impl SendmeBody {
    /// Version 0: empty.
    pub const V0: Self = Self {
        bytes: [0; 3 + TOR1_TAG_BYTES],
        length: 0,
    };

    /// Version 1. A tag has 20 bytes at most; `None` beyond.
    pub fn v1(tag: &[u8]) -> Option<Self> {
        let mut body = Self {
            length: 3 + tag.len(),
            ..Self::V0
        };
        let [high, low] = u16::try_from(tag.len()).ok()?.to_be_bytes();
        body.bytes.get_mut(..3)?.copy_from_slice(&[1, high, low]);
        body.bytes.get_mut(3..body.length)?.copy_from_slice(tag);
        Some(body)
    }

    /// What goes into the message.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The body of an XOFF: its version. What a peer's XOFF holds is not looked at, as in C tor.
pub const XOFF: [u8; 1] = [0];

/// XON: the peer may send again, at about this rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xon {
    /// In 1,000 bytes a second; 0 means that there is no limit.
    pub kilobytes_per_second: u32,
}

/// An XON that is cut short or of an unknown version. It is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("XON that cannot be read")]
pub struct BadXon;

impl Xon {
    /// Reads the body.
    pub fn read(data: &[u8]) -> Result<Self, BadXon> {
        let mut reader = Reader::new(data);
        match (reader.u8(), reader.u32()) {
            (Ok(0), Ok(kilobytes_per_second)) => Ok(Self { kilobytes_per_second }),
            _ => Err(BadXon),
        }
    }

    /// The body.
    pub fn write(self) -> [u8; 5] {
        let [a, b, c, d] = self.kilobytes_per_second.to_be_bytes();
        [0, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sendme_comes_back_as_it_went() {
        for length in [0, CGO_TAG_BYTES, TOR1_TAG_BYTES] {
            let tag = &[7; TOR1_TAG_BYTES][..length];
            assert_eq!(
                Sendme::read(SendmeBody::v1(tag).unwrap().as_bytes()),
                Ok(Sendme::V1 { tag })
            );
        }
        assert_eq!(Sendme::read(SendmeBody::V0.as_bytes()), Ok(Sendme::V0));
        assert_eq!(SendmeBody::v1(&[0; 21]), None);
    }

    #[test]
    fn a_sendme_that_lies_about_its_length_is_refused() {
        let mut body = SendmeBody::v1(&[7; 20]).unwrap().as_bytes().to_vec();
        for cut in 1..body.len() {
            assert!(Sendme::read(&body[..cut]).is_err(), "{cut}");
        }
        body[1] = 0xff;
        assert!(Sendme::read(&body).is_err());
        assert_eq!(Sendme::read(&[2, 0, 0]), Err(BadSendme::Version));
        assert_eq!(Sendme::read(&[0, 9, 9]), Ok(Sendme::V0));
    }

    #[test]
    fn an_xon_comes_back_as_it_went_and_others_do_not() {
        let xon = Xon {
            kilobytes_per_second: 0x0102_0304,
        };
        assert_eq!(Xon::read(&xon.write()), Ok(xon));
        assert_eq!(Xon::read(&[0, 1, 2, 3]), Err(BadXon));
        assert_eq!(Xon::read(&[1, 0, 0, 0, 0]), Err(BadXon));
        assert_eq!(Xon::read(&[]), Err(BadXon));
    }
}
