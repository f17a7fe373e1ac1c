//! What the consensus says about relays, as C tor's control port tells it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;

/// One relay's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its nickname, which is not unique.
    pub nickname: String,
    /// Of its RSA identity: 40 hexadecimal digits, upper case.
    pub fingerprint: String,
    /// Where it takes links.
    pub address: String,
    /// Its port there.
    pub or_port: u16,
    /// As the authorities voted: Fast, Running, Valid, …
    pub flags: Vec<String>,
    /// The entry's lines as they stand there.
    pub lines: Vec<String>,
}

impl Listed {
    /// Whether the authorities gave this flag.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// Running and Valid: what clients ask of every relay.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.has("Running") && self.has("Valid")
    }

    /// Whether this is the relay called so: by nickname, or by fingerprint with or without `$`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.nickname == name || self.fingerprint.eq_ignore_ascii_case(name.trim_start_matches('$'))
    }
}

/// Reads router status entries (dir-spec "Router status entries": `r` begins one). What cannot be read is left out.
#[must_use]
pub fn read(text: &str) -> Vec<Listed> {
    let mut entries: Vec<Listed> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("r ") {
            entries.extend(begun(rest));
        } else if let Some(entry) = entries.last_mut()
            && !line.is_empty()
        {
            if let Some(flags) = line.strip_prefix("s ") {
                entry.flags = flags.split_whitespace().map(str::to_owned).collect();
            }
            entry.lines.push(line.to_owned());
        }
    }
    entries
}

/// `nickname identity [digest] date time address ORPort DirPort`: the digest is missing in microdescriptor consensuses.
fn begun(rest: &str) -> Option<Listed> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [nickname, identity, .., address, or_port, _dir_port] = words.as_slice() else {
        return None;
    };
    Some(Listed {
        nickname: (*nickname).to_owned(),
        fingerprint: hex::encode_upper(STANDARD_NO_PAD.decode(identity).ok()?),
        address: (*address).to_owned(),
        or_port: or_port.parse().ok()?,
        flags: Vec::new(),
        lines: vec![format!("r {rest}")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "r r1 AAECAwQFBgcICQoLDA0ODxAREhM c2hhMSBvZiBhIGRlc2NyaXB0b3I 2038-01-01 00:00:00 198.18.200.4 9001 0\n\
                        s Fast Running Stable V2Dir Valid\nw Bandwidth=100\n\
                        r r2 //////////////////////////8 2038-01-01 00:00:00 198.18.200.5 9001 0\ns Valid\n";

    #[test]
    fn an_entry_gives_identity_address_and_flags() {
        let entries = read(TEXT);
        let names: Vec<&str> = entries.iter().map(|entry| entry.nickname.as_str()).collect();
        assert_eq!(names, ["r1", "r2"]);

        let first = &entries[0];
        assert_eq!(first.fingerprint, "000102030405060708090A0B0C0D0E0F10111213");
        assert_eq!((first.address.as_str(), first.or_port), ("198.18.200.4", 9001));
        assert!(first.has("Fast") && first.is_usable());
        assert_eq!(first.lines.len(), 3);
        assert!(!entries[1].is_usable(), "Valid alone is not enough");
    }

    #[test]
    fn a_relay_answers_to_nickname_and_fingerprint() {
        let entries = read(TEXT);
        for name in [
            "r1",
            "$000102030405060708090A0B0C0D0E0F10111213",
            "000102030405060708090a0b0c0d0e0f10111213",
        ] {
            assert!(entries[0].is_called(name), "{name}");
            assert!(!entries[1].is_called(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        assert!(read("").is_empty());
        assert!(read("s Fast\nr\nr short line\nr name ??? a b c d 1 0\n").is_empty());
    }
}
