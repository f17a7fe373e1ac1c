//! The extra-info document (dir-spec, "Extra-info document format"): statistics beside the descriptor.
//!
//! It is made first: the descriptor names its digests.

use std::time::{Duration, SystemTime};

use crate::document::{DocumentError, Lines, one_line, sign};
use crate::nickname::Nickname;
use crate::relay_signer::RelaySigner;
use crate::time_text;

/// Bytes that an extra-info document has at most (C tor, `MAX_EXTRAINFO_UPLOAD_SIZE`).
pub const EXTRA_INFO_BYTES_MAX: usize = 50_000;

/// Bytes that went one way, day by day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BandwidthHistory {
    /// When the last of the intervals ended.
    pub ends: SystemTime,
    /// Length of each interval; relays have a day.
    pub interval: Duration,
    /// Bytes in each interval, the oldest first; C tor keeps five.
    pub bytes: Vec<u64>,
}

/// What an extra-info document says.
pub struct ExtraInfoFacts<'a> {
    /// The relay's nickname.
    pub nickname: &'a Nickname,
    /// When it was made; the descriptor of the same time goes with it.
    pub published: SystemTime,
    /// Histories that have values; others are left out.
    pub histories: Histories,
    /// Further statistics, each one or more whole lines without the last line end, in the order of dir-spec.
    /// They are dropped from the end until the document is short enough.
    pub statistics: Vec<String>,
}

/// The six histories, in the order in which they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histories {
    /// `write-history`.
    pub write: Option<BandwidthHistory>,
    /// `read-history`.
    pub read: Option<BandwidthHistory>,
    /// `ipv6-write-history`.
    pub ipv6_write: Option<BandwidthHistory>,
    /// `ipv6-read-history`.
    pub ipv6_read: Option<BandwidthHistory>,
    /// `dirreq-write-history`.
    pub dir_write: Option<BandwidthHistory>,
    /// `dirreq-read-history`.
    pub dir_read: Option<BandwidthHistory>,
}

/// A signed extra-info document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraInfo {
    /// The document.
    pub text: String,
    /// What the descriptor says of it.
    pub digests: ExtraInfoDigests,
}

/// The two digests of the descriptor's `extra-info-digest` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtraInfoDigests {
    /// Of all before the RSA signature.
    pub sha1: [u8; 20],
    /// Of the whole document.
    pub sha256: [u8; 32],
}

impl ExtraInfo {
    /// Makes and signs the document.
    ///
    /// # Errors
    /// A key that cannot sign, or a document that stays above [`EXTRA_INFO_BYTES_MAX`] without any statistics.
    pub fn build(facts: &ExtraInfoFacts<'_>, signer: &RelaySigner<'_>) -> Result<Self, DocumentError> {
        let mut kept = facts.statistics.len();
        loop {
            let document = sign(text(facts, kept, signer)?, signer)?;
            let length = document.text.len();
            if length <= EXTRA_INFO_BYTES_MAX {
                let digests = ExtraInfoDigests {
                    sha1: document.sha1,
                    sha256: document.sha256,
                };
                return Ok(Self {
                    text: document.text,
                    digests,
                });
            }
            kept = kept.checked_sub(1).ok_or(DocumentError::TooLong {
                length,
                max: EXTRA_INFO_BYTES_MAX,
            })?;
        }
    }
}

fn text(facts: &ExtraInfoFacts<'_>, kept: usize, signer: &RelaySigner<'_>) -> Result<String, DocumentError> {
    let mut lines = Lines::default();
    lines.line(&format!(
        "extra-info {} {}",
        facts.nickname,
        signer.rsa.public().identity()
    ));
    lines.identity_cert(signer.signing_cert);
    lines.published(facts.published);
    let Histories {
        write,
        read,
        ipv6_write,
        ipv6_read,
        dir_write,
        dir_read,
    } = &facts.histories;
    for (keyword, history) in [
        ("write-history", write),
        ("read-history", read),
        ("ipv6-write-history", ipv6_write),
        ("ipv6-read-history", ipv6_read),
        ("dirreq-write-history", dir_write),
        ("dirreq-read-history", dir_read),
    ] {
        if let Some(history) = history.as_ref().filter(|history| !history.bytes.is_empty()) {
            lines.line(&history_line(keyword, history));
        }
    }
    for statistic in facts.statistics.iter().take(kept) {
        for line in statistic.split('\n') {
            lines.line(one_line("a statistic", line)?);
        }
    }
    Ok(lines.0)
}

/// Told in whole KiB, rounded down, so that nobody's traffic shows in the last digits.
fn history_line(keyword: &str, history: &BandwidthHistory) -> String {
    let bytes: Vec<String> = history
        .bytes
        .iter()
        .map(|bytes| (bytes / 1024 * 1024).to_string())
        .collect();
    let (ends, seconds) = (time_text::format(history.ends), history.interval.as_secs());
    format!("{keyword} {ends} ({seconds} s) {}", bytes.join(","))
}
