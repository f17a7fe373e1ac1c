//! The token that the status is told for. Its file is read for each request: a Secret that is mounted may change at any
//! time, and requests are few.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::constant_time;
use zeroize::Zeroizing;

/// A file that is longer holds no token.
const TOKEN_BYTES_MAX: u64 = 4 * 1024;
/// A token that is shorter could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It shows the token.
    Right,
    /// It shows none, or another.
    Wrong,
    /// There is no token that it could show.
    NoToken,
}

/// Compares the `Authorization` header with the token in `file`.
pub(super) fn judge(file: Option<&Path>, authorization: Option<&[u8]>) -> Verdict {
    let Some(token) = file.and_then(read) else {
        return Verdict::NoToken;
    };
    let shown = authorization.and_then(bearer).unwrap_or_default();
    match constant_time::verify_slices_are_equal(shown, token.trim_ascii()) {
        Ok(()) => Verdict::Right,
        Err(_) => Verdict::Wrong,
    }
}

fn read(file: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut token = Zeroizing::new(Vec::new());
    let read = File::open(file).and_then(|file| file.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut token));
    if let Err(error) = read {
        tracing::warn!("StatusTokenFile {}: {error}", file.display());
        return None;
    }
    let length = token.trim_ascii().len();
    if length < TOKEN_BYTES_MIN || token.len() as u64 > TOKEN_BYTES_MAX {
        tracing::warn!(
            "StatusTokenFile {}: a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes",
            file.display()
        );
        return None;
    }
    Some(token)
}

/// What follows `Bearer`, in any letter case.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn only_the_whole_token_opens() {
        let file = file("0123456789abcdef-secret\n");
        let judge = |header: Option<&str>| judge(Some(file.path()), header.map(str::as_bytes));
        assert_eq!(judge(Some("Bearer 0123456789abcdef-secret")), Verdict::Right);
        assert_eq!(judge(Some("bearer 0123456789abcdef-secret ")), Verdict::Right);
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer 0123456789abcdef-secre"),
            Some("Bearer 0123456789abcdef-secret2"),
            Some("Basic 0123456789abcdef-secret"),
            Some("0123456789abcdef-secret"),
        ] {
            assert_eq!(judge(wrong), Verdict::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn without_a_token_nobody_is_told() {
        assert_eq!(judge(None, Some(b"Bearer ")), Verdict::NoToken);
        assert_eq!(
            judge(Some(Path::new("/nowhere/token")), Some(b"Bearer x")),
            Verdict::NoToken
        );
        for short in ["", "\n", "short"] {
            let file = file(short);
            let header = format!("Bearer {short}");
            assert_eq!(
                judge(Some(file.path()), Some(header.as_bytes())),
                Verdict::NoToken,
                "{short:?}"
            );
        }
        assert_eq!(
            judge(Some(file(&"x".repeat(5_000)).path()), Some(b"Bearer x")),
            Verdict::NoToken
        );
    }
}
