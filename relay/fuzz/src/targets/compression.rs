//! Packing what we serve and unpacking what we fetch.

use std::io::Read as _;

use relay_node::dircache::compress::{Effort, Encoding, pack};
use relay_node::directory::inflate::{BadCompression, inflate};

use crate::tape::Tape;

const BYTES_MAX: usize = 256 * 1024;

/// The first byte says what the rest is: packed bytes of a stranger's, or parts of a document that we pack.
pub(super) fn compression(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.u8() {
        b'i' => strange(tape.rest()),
        b'r' => {
            // Bombs are made of many small ones (TROVE-2026-022).
            let times = usize::from(tape.u8());
            strange(&tape.rest().repeat(times));
        }
        _ => ours(&mut tape),
    }
}

fn strange(bytes: &[u8]) {
    match inflate(bytes, BYTES_MAX) {
        Ok(text) => {
            assert!(text.len() <= BYTES_MAX);
            assert_eq!(
                inflate(bytes, text.len()).as_ref(),
                Ok(&text),
                "just as long as it may be"
            );
            if !text.is_empty() {
                assert_eq!(inflate(bytes, text.len() - 1), Err(BadCompression::Bomb));
            }
            let twice = inflate(&bytes.repeat(2), 2 * BYTES_MAX);
            assert_eq!(twice, Ok(text.repeat(2)), "streams in a row are one text");
        }
        Err(BadCompression::Bomb) => assert!(!bytes.is_empty()),
        Err(BadCompression::Truncated | BadCompression::Damaged) => {}
    }
}

/// A document in parts comes back whole in every packing, and not at all where its end is missing.
fn ours(tape: &mut Tape<'_>) {
    let encoding = Encoding::ALL[tape.below(5)];
    let effort = if tape.u8() == 0xff {
        Effort::Ahead
    } else {
        Effort::OnTheFly
    };
    let mut parts = Vec::new();
    while !tape.is_empty() && parts.len() < 8 {
        let times = 1 + usize::from(tape.u8() & 15);
        parts.push(tape.run().repeat(times));
    }
    let whole = parts.concat();
    let packed = pack(&parts, encoding, effort).expect("memory");
    assert!(
        packed.len() <= whole.len() + whole.len() / 100 + 128,
        "{} for {}",
        packed.len(),
        whole.len()
    );
    assert_eq!(unpacked(&packed, encoding).as_ref(), Some(&whole));
    assert_eq!(Encoding::by_name(encoding.name()), Some(encoding));
    if encoding == Encoding::Deflate {
        assert_eq!(inflate(&packed, whole.len()).as_ref(), Ok(&whole));
        let cut = tape.below(packed.len().min(65_536));
        if cut > 0 {
            assert_eq!(inflate(&packed[..cut], whole.len()), Err(BadCompression::Truncated));
        }
    }
}

/// By the stranger's half of each library.
fn unpacked(packed: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let read = match encoding {
        Encoding::Identity => return Some(packed.to_vec()),
        Encoding::Deflate => flate2::read::ZlibDecoder::new(packed).read_to_end(&mut text),
        Encoding::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut text),
        Encoding::Zstd => return zstd::decode_all(packed).ok(),
        Encoding::Lzma => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(64 << 20).ok()?;
            liblzma::read::XzDecoder::new_stream(packed, stream).read_to_end(&mut text)
        }
    };
    read.ok().map(|_| text)
}
