//! Bodies of the cells that make circuits (tor-spec, "CREATE and CREATED cells").

use crate::cell::BODY_BYTES;
use crate::reader::{CutShort, Reader};

/// Bytes of CREATE_FAST's only field, and of each of CREATED_FAST's two.
pub const FAST_BYTES: usize = 20;
/// Bytes that a CREATE2 can carry as handshake.
pub const CREATE2_DATA_BYTES_MAX: usize = BODY_BYTES - 4;
/// Bytes that a CREATED2 can carry as handshake.
pub const CREATED2_DATA_BYTES_MAX: usize = BODY_BYTES - 2;

/// CREATE2, and the tail of EXTEND2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create2<'a> {
    /// Which handshake: 0 TAP, 2 ntor, 3 ntor-v3.
    pub handshake_type: u16,
    /// The client's half.
    pub data: &'a [u8],
}

impl<'a> Create2<'a> {
    /// Reads from the front of `reader`; a length beyond the end is refused.
    pub fn take(reader: &mut Reader<'a>) -> Result<Self, CutShort> {
        let handshake_type = reader.u16()?;
        let length = usize::from(reader.u16()?);
        Ok(Self {
            handshake_type,
            data: reader.take(length)?,
        })
    }

    /// Appends the body; `data` beyond a cell's room is not written, so check before.
    pub fn write(&self, out: &mut Vec<u8>) {
        let data = self.data.get(..CREATE2_DATA_BYTES_MAX).unwrap_or(self.data);
        out.extend(self.handshake_type.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
}

/// The handshake in a CREATED2 or EXTENDED2: its length is checked on receipt too (TROVE-2026-003).
pub fn created2(body: &[u8]) -> Result<&[u8], CutShort> {
    let mut reader = Reader::new(body);
    let length = usize::from(reader.u16()?);
    reader.take(length)
}

/// Appends the body of a CREATED2 or EXTENDED2.
pub fn write_created2(out: &mut Vec<u8>, data: &[u8]) {
    let data = data.get(..CREATED2_DATA_BYTES_MAX).unwrap_or(data);
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create2_comes_back_as_it_went() {
        let mut body = Vec::new();
        Create2 {
            handshake_type: 2,
            data: &[5; 84],
        }
        .write(&mut body);
        let read = Create2::take(&mut Reader::new(&body)).unwrap();
        assert_eq!((read.handshake_type, read.data), (2, &[5; 84][..]));
    }

    /// TROVE-2026-003: eleven bytes too many were copied.
    #[test]
    fn trove_2026_003_every_length_beyond_the_cell_is_refused() {
        let mut body = [0; BODY_BYTES];
        for length in 0..=u16::MAX {
            body[..2].copy_from_slice(&length.to_be_bytes());
            assert_eq!(created2(&body).is_ok(), usize::from(length) <= 507, "{length}");
        }
    }
}
