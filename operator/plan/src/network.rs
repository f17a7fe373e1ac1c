//! The lines that relays of a private Tor network share: which options may stand there.
//!
//! A person who may write that ConfigMap must not be able to give a relay another name, key directory or exit policy.

/// Options that concern the network, not one relay. Those that begin with `Testing` are allowed too.
const NETWORK_OPTIONS: [&str; 10] = [
    "AlternateDirAuthority",
    "AssumeReachable",
    "AssumeReachableIPv6",
    "CountPrivateBandwidth",
    "DirAllowPrivateAddresses",
    "DirAuthority",
    "EnforceDistinctSubnets",
    "ExtendAllowPrivateAddresses",
    "FallbackDir",
    "UseDefaultFallbackDirs",
];

/// Longer than any network needs; a ConfigMap could hold a megabyte.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Why lines cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// An option that is not for a whole network.
    #[error("line {line}: {option} is not an option of a network; allowed are Testing…, {}", NETWORK_OPTIONS.join(", "))]
    Option {
        /// Counted from 1.
        line: usize,
        /// The option as written.
        option: String,
    },
    /// A line that goes on in the next one, or holds control characters.
    #[error("line {0}: write each option on one line, without control characters and without a backslash at the end")]
    Line(usize),
    /// More than 64 KiB.
    #[error("the text has {0} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// The lines that say something, trimmed.
///
/// # Errors
/// The first line that cannot be used.
pub fn network_lines(text: &str) -> Result<Vec<&str>, BadNetwork> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadNetwork::TooLong(text.len()));
    }
    let numbered = text.lines().map(str::trim).zip(1..);
    let said = numbered.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(line, number)| allowed(line, number)).collect()
}

fn allowed(line: &str, number: usize) -> Result<&str, BadNetwork> {
    if line.ends_with('\\') || line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(BadNetwork::Line(number));
    }
    let option = line.split_whitespace().next().unwrap_or_default();
    let testing = option.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("Testing"));
    if testing || NETWORK_OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(option)) {
        return Ok(line);
    }
    Err(BadNetwork::Option {
        line: number,
        option: option.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        let text = "# ours\n\nTestingTorNetwork 1\r\n  dirauthority a orport=1 v3ident=A 198.18.0.1:80 B\n";
        let lines = [
            "TestingTorNetwork 1",
            "dirauthority a orport=1 v3ident=A 198.18.0.1:80 B",
        ];
        assert_eq!(network_lines(text), Ok(lines.to_vec()));
    }

    #[test]
    fn a_network_cannot_rename_a_relay() {
        for line in [
            "Nickname evil",
            "+KeyDirectory /",
            "%include /etc/passwd",
            "ExitPolicy accept *:*",
            "tëst 1",
        ] {
            let refused = network_lines(&format!("TestingTorNetwork 1\n{line}")).unwrap_err();
            assert!(
                matches!(refused, BadNetwork::Option { line: 2, .. }),
                "{line}: {refused}"
            );
        }
    }

    #[test]
    fn a_line_cannot_swallow_the_next() {
        assert_eq!(network_lines("TestingTorNetwork \\\nx"), Err(BadNetwork::Line(1)));
        assert_eq!(network_lines("TestingTorNetwork\u{b}1"), Err(BadNetwork::Line(1)));
    }
}
