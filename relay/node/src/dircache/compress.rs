//! How a document may be packed on its way (dir-spec, "HTTP headers": Accept-Encoding, Content-Encoding).

use std::io::Write as _;

use lzma_rust2::{LzmaOptions, LzmaWriter};

/// How far back lzma may refer at most: as far as a consensus is long. The packer needs ten times as much memory, so preset
/// 6's own 8 MiB would cost more than they save.
const LZMA_WINDOW_BYTES_MAX: u32 = 4 << 20;

/// C tor takes for lzma what begins with `5d 00 00`: the lower half of the window's length is 0.
const LZMA_WINDOW_BYTES_MIN: u32 = 64 << 10;

/// One way of packing. The order is the order of choice: the smallest result first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// The old `.lzma` container; C tor's unpacker knows no other (`lzma_alone_decoder`).
    Lzma,
    /// Zstandard.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate; what a name with `.z` asks for.
    Deflate,
    /// As it is.
    Identity,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Packed once, served often: consensuses and their diffs.
    Ahead,
    /// Packed for one answer.
    OnTheFly,
}

impl Encoding {
    /// All of them, the preferred first.
    pub const ALL: [Self; 5] = [Self::Lzma, Self::Zstd, Self::Gzip, Self::Deflate, Self::Identity];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lzma => "x-tor-lzma",
            Self::Zstd => "x-zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Identity => "identity",
        }
    }

    /// By its name; unknown names are for the caller to skip.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }
}

/// Packs `parts`, one after the other, as one document. Lzma and zstd are told how much will come, and take no more memory
/// than that wants: what zstd, which is C, has taken once in some thread stays in a heap of that thread's own.
///
/// # Errors
/// Only where the packer itself fails, which for writing into memory means that memory ran out.
pub fn pack(parts: &[impl AsRef<[u8]>], encoding: Encoding, effort: Effort) -> std::io::Result<Vec<u8>> {
    let bytes: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    match encoding {
        Encoding::Identity => Ok(parts.iter().flat_map(|part| part.as_ref()).copied().collect()),
        Encoding::Deflate => {
            let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), level(effort));
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
        Encoding::Gzip => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), level(effort));
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
        Encoding::Zstd => {
            // A window of 8 MiB at most, which every client of C tor's age can unpack.
            let mut packer = zstd::Encoder::new(Vec::new(), if effort == Effort::Ahead { 9 } else { 3 })?;
            packer.window_log(23)?;
            packer.set_pledged_src_size(Some(bytes as u64))?;
            packer.include_contentsize(false)?;
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
        Encoding::Lzma => {
            let mut options = LzmaOptions::with_preset(if effort == Effort::Ahead { 6 } else { 1 });
            options.dict_size = lzma_window_bytes(bytes);
            let mut packer = LzmaWriter::new_use_header(Vec::new(), &options, None)?;
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
    }
}

/// A power of two, as unpackers expect, in which all of it has room.
fn lzma_window_bytes(bytes: usize) -> u32 {
    let enough = u32::try_from(bytes).ok().and_then(u32::checked_next_power_of_two);
    let enough = enough.unwrap_or(LZMA_WINDOW_BYTES_MAX);
    enough.clamp(LZMA_WINDOW_BYTES_MIN, LZMA_WINDOW_BYTES_MAX)
}

fn level(effort: Effort) -> flate2::Compression {
    match effort {
        Effort::Ahead => flate2::Compression::best(),
        Effort::OnTheFly => flate2::Compression::fast(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_packed_in_parts_unpacks_as_one() {
        let parts = [
            b"network-status-version 3\n".repeat(200),
            b"directory-footer\n".to_vec(),
        ];
        let whole: Vec<u8> = parts.concat();
        for encoding in Encoding::ALL {
            for effort in [Effort::Ahead, Effort::OnTheFly] {
                let packed = pack(&parts, encoding, effort).unwrap();
                let mut unpacked = Vec::new();
                match encoding {
                    Encoding::Lzma => {
                        assert_eq!(packed[..3], [0x5d, 0, 0], "what C tor takes for lzma");
                        let alone = liblzma::stream::Stream::new_lzma_decoder(16 << 20).unwrap();
                        liblzma::read::XzDecoder::new_stream(&*packed, alone)
                            .read_to_end(&mut unpacked)
                            .unwrap()
                    }
                    Encoding::Zstd => zstd::Decoder::new(&*packed)
                        .unwrap()
                        .read_to_end(&mut unpacked)
                        .unwrap(),
                    Encoding::Gzip => flate2::read::GzDecoder::new(&*packed)
                        .read_to_end(&mut unpacked)
                        .unwrap(),
                    Encoding::Deflate => flate2::read::ZlibDecoder::new(&*packed)
                        .read_to_end(&mut unpacked)
                        .unwrap(),
                    Encoding::Identity => {
                        unpacked.clone_from(&packed);
                        packed.len()
                    }
                };
                assert_eq!(unpacked, whole, "{}", encoding.name());
                assert!(
                    encoding == Encoding::Identity || packed.len() < whole.len() / 10,
                    "{}",
                    encoding.name()
                );
            }
        }
    }

    #[test]
    fn lzma_looks_back_as_far_as_there_is_something_and_no_further_than_a_consensus() {
        let windows = [0, 1, 65_536, 65_537, 100_000, 3 << 20, 1 << 30, usize::MAX].map(lzma_window_bytes);
        let (k, m) = (1 << 10, 1 << 20);
        assert_eq!(windows, [64 * k, 64 * k, 64 * k, 128 * k, 128 * k, 4 * m, 4 * m, 4 * m]);
        let packed = pack(&[vec![7; 70_000]], Encoding::Lzma, Effort::Ahead).unwrap();
        assert_eq!(packed[1..5], (128 * k).to_le_bytes(), "the head tells the unpacker");
        // Beyond the window, where what comes again is new to it.
        let text: Vec<u8> = (0_u32..1_300_000)
            .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
            .collect();
        let packed = pack(&[&text], Encoding::Lzma, Effort::OnTheFly).unwrap();
        let alone = liblzma::stream::Stream::new_lzma_decoder(16 << 20).unwrap();
        let mut unpacked = Vec::new();
        liblzma::read::XzDecoder::new_stream(&*packed, alone)
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(unpacked == text);
    }

    #[test]
    fn every_encoding_is_found_by_its_own_name() {
        for encoding in Encoding::ALL {
            assert_eq!(Encoding::by_name(encoding.name()), Some(encoding));
        }
        assert_eq!(Encoding::by_name("br"), None);
    }
}
