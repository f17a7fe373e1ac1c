//! Object blocks of Tor documents (dir-spec, "Document meta-format"), which PEM files share:
//! `-----BEGIN LABEL-----`, base64 in lines of 64, `-----END LABEL-----`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Characters in one line of base64.
const LINE: usize = 64;

/// Why a text holds no object block of the wanted label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    /// No `-----BEGIN label-----` line.
    #[error("expected a line `-----BEGIN {0}-----`")]
    NoBegin(String),
    /// No `-----END label-----` line after it.
    #[error("expected a line `-----END {0}-----`")]
    NoEnd(String),
    /// What stands between them is no base64.
    #[error("expected base64 between the BEGIN and END lines of {0}")]
    NoBase64(String),
}

/// The block of `label` around `bytes`; ends with a newline. Wiped on drop, as it may carry a secret.
pub fn encode(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(bytes));
    let mut text = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / LINE + 2 * label.len() + 40,
    ));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The bytes of the first block of `label` in `text`; what stands around it is skipped.
///
/// # Errors
/// Says which line, or base64, was expected and is missing.
pub fn decode(label: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, BadBlock> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut lines = text.lines().map(str::trim_end);
    lines
        .find(|line| *line == begin)
        .ok_or_else(|| BadBlock::NoBegin(label.to_owned()))?;
    // Sized at once, so that a growing buffer leaves no copies of a secret behind.
    let mut body = Zeroizing::new(String::with_capacity(text.len()));
    for line in lines {
        if line == end {
            let bytes = STANDARD.decode(body.as_bytes());
            return Ok(Zeroizing::new(bytes.map_err(|_| BadBlock::NoBase64(label.to_owned()))?));
        }
        body.push_str(line);
    }
    Err(BadBlock::NoEnd(label.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_as_it_went() {
        for length in [0, 1, 47, 48, 49, 140] {
            let bytes = vec![7; length];
            assert_eq!(*decode("ED25519 CERT", &encode("ED25519 CERT", &bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_full_line_has_64_characters() {
        let text = encode("CROSSCERT", &[0; 128]);
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(widths, [25, 64, 64, 44, 23]);
    }

    #[test]
    fn a_torn_block_says_what_it_lacks() {
        let whole = encode("X", b"hello");
        assert_eq!(decode("Y", &whole), Err(BadBlock::NoBegin("Y".into())));
        assert_eq!(
            decode("X", "-----BEGIN X-----\naGVsbG8=\n"),
            Err(BadBlock::NoEnd("X".into()))
        );
        assert_eq!(
            decode("X", &whole.replace('=', "!")),
            Err(BadBlock::NoBase64("X".into()))
        );
    }
}
