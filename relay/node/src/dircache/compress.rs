//! How a document may be packed on its way (dir-spec, "HTTP headers": Accept-Encoding, Content-Encoding).

use std::io::Write as _;

use liblzma::stream::{LzmaOptions, Stream};

/// How far back lzma may refer: as far as a consensus is long. The packer needs ten times as much memory, so preset 6's
/// own 8 MiB would cost more than they save.
const LZMA_WINDOW_BYTES: u32 = 4 << 20;

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

/// Packs `parts`, one after the other, as one document.
///
/// # Errors
/// Only where the packer itself fails, which for writing into memory means that memory ran out.
pub fn pack(parts: &[impl AsRef<[u8]>], encoding: Encoding, effort: Effort) -> std::io::Result<Vec<u8>> {
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
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
        Encoding::Lzma => {
            let mut options = LzmaOptions::new_preset(if effort == Effort::Ahead { 6 } else { 1 })?;
            options.dict_size(LZMA_WINDOW_BYTES);
            let stream = Stream::new_lzma_encoder(&options)?;
            let mut packer = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            parts.iter().try_for_each(|part| packer.write_all(part.as_ref()))?;
            packer.finish()
        }
    }
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
                        let alone = Stream::new_lzma_decoder(16 << 20).unwrap();
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
    fn every_encoding_is_found_by_its_own_name() {
        for encoding in Encoding::ALL {
            assert_eq!(Encoding::by_name(encoding.name()), Some(encoding));
        }
        assert_eq!(Encoding::by_name("br"), None);
    }
}
