//! Decompression of what a directory sends, with an eye on bombs.

use flate2::{Decompress, FlushDecompress, Status};

/// Output up to this size is never called a bomb (C tor, `CHECK_FOR_COMPRESSION_BOMB_AFTER`).
const BOMB_BYTES_MIN: usize = 5 * 1024 * 1024;

/// Above it, no honest document shrinks this well (C tor, `MAX_UNCOMPRESSION_FACTOR`).
const BOMB_RATIO_MAX: usize = 25;

/// Why bytes do not decompress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCompression {
    /// Not zlib, or damaged.
    #[error("the compressed answer is damaged")]
    Damaged,
    /// The input ends within a stream.
    #[error("the compressed answer ends early")]
    Truncated,
    /// More than the caller asked for, or far more than it came as.
    #[error("the compressed answer is a compression bomb")]
    Bomb,
}

/// Inflates zlib streams, one or several in a row; both limits count over all of them together (TROVE-2026-022).
pub fn inflate(mut input: &[u8], output_bytes_max: usize) -> Result<Vec<u8>, BadCompression> {
    let input_bytes = input.len();
    let mut output = Vec::new();
    while !input.is_empty() {
        input = one_stream(input, &mut output, |produced| {
            produced <= output_bytes_max
                && (produced <= BOMB_BYTES_MIN || produced / BOMB_RATIO_MAX <= input_bytes.max(1))
        })?;
    }
    Ok(output)
}

/// Inflates the first stream of `input`; gives back what follows it.
fn one_stream<'a>(
    input: &'a [u8],
    output: &mut Vec<u8>,
    may_be: impl Fn(usize) -> bool,
) -> Result<&'a [u8], BadCompression> {
    let mut machine = Decompress::new(true);
    let mut rest = input;
    loop {
        output.reserve(64 * 1024);
        let (taken, made) = (machine.total_in(), output.len());
        let status = machine
            .decompress_vec(rest, output, FlushDecompress::None)
            .map_err(|_| BadCompression::Damaged)?;
        if !may_be(output.len()) {
            return Err(BadCompression::Bomb);
        }
        let step = usize::try_from(machine.total_in() - taken).map_err(|_| BadCompression::Damaged)?;
        rest = rest.get(step..).unwrap_or_default();
        match status {
            Status::StreamEnd => return Ok(rest),
            // No step either way although there was room: the input has ended in mid-stream (TROVE-2026-021).
            Status::Ok | Status::BufError if step == 0 && output.len() == made => {
                return Err(BadCompression::Truncated);
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_in_a_row_become_one_text() {
        let both = [deflate(b"network-status"), deflate(b"-version 3")].concat();
        assert_eq!(inflate(&both, 100).unwrap(), b"network-status-version 3");
        assert_eq!(inflate(b"", 100).unwrap(), b"");
    }

    #[test]
    fn trove_2026_021_a_stream_cut_short_fails_at_every_length() {
        let whole = deflate(&(0..=255).collect::<Vec<u8>>());
        for length in 1..whole.len() {
            assert_eq!(
                inflate(&whole[..length], 1000),
                Err(BadCompression::Truncated),
                "{length}"
            );
        }
    }

    #[test]
    fn trove_2026_022_a_bomb_is_refused_even_in_slices() {
        let slice = deflate(&vec![0; 1_000_000]);
        assert_eq!(inflate(&slice.repeat(7), usize::MAX), Err(BadCompression::Bomb));
        assert_eq!(inflate(&deflate(&[0; 2_000]), 1_000), Err(BadCompression::Bomb));
        assert_eq!(inflate(b"no zlib at all", 1_000), Err(BadCompression::Damaged));
    }
}
