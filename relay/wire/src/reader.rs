//! A bounds-checked reader: the only way into bytes that came from outside.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The bytes end before the message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message is cut short")]
pub struct CutShort;

/// Reads big-endian numbers and byte runs from the front.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], CutShort> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CutShort)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CutShort> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CutShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CutShort> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, CutShort> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, CutShort> {
        self.array().map(u32::from_be_bytes)
    }

    /// Four bytes as an address.
    pub fn ipv4(&mut self) -> Result<Ipv4Addr, CutShort> {
        self.array::<4>().map(Ipv4Addr::from)
    }

    /// Sixteen bytes as an address.
    pub fn ipv6(&mut self) -> Result<Ipv6Addr, CutShort> {
        self.array::<16>().map(Ipv6Addr::from)
    }

    /// What nobody has read yet.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gives_what_is_there_and_refuses_what_is_not() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u16(), Err(CutShort));
        assert_eq!(reader.take(2), Err(CutShort));
        assert_eq!(reader.clone().rest(), &[9]);
        assert_eq!(reader.take(1), Ok(&[9][..]));
        assert!(reader.is_empty());
    }
}
