//! A directory authority, as a torrc `DirAuthority` line names it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use relay_formats::fingerprint::RsaIdentity;

/// One directory authority that we trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its nickname, for log lines; empty where the line has none.
    pub nickname: String,
    /// Fingerprint of its v3 identity key, which signs consensuses. `None`: it does not vote (the bridge authority).
    pub v3_identity: Option<RsaIdentity>,
    /// Where it speaks HTTP.
    pub dir_address: SocketAddr,
    /// Its ORPorts: IPv4 first.
    pub or_addresses: Vec<SocketAddr>,
    /// Fingerprint of its relay identity.
    pub rsa_identity: RsaIdentity,
    /// Whether it collects bridges rather than relays.
    pub bridge_authority: bool,
}

/// Why a `DirAuthority` line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAuthority {
    /// No word has the form `address:port`.
    #[error("DirAuthority needs `address:port` of its DirPort, with a numeric address")]
    NoAddress,
    /// What follows the address is not a fingerprint.
    #[error("DirAuthority needs a fingerprint of 40 hexadecimal digits after the address")]
    NoFingerprint,
    /// A flag that we know has a value that we cannot read.
    #[error("DirAuthority has a bad value: `{0}`")]
    BadFlag(String),
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nickname.as_str() {
            "" => write!(f, "directory authority at {}", self.dir_address),
            name => write!(f, "directory authority \"{name}\" at {}", self.dir_address),
        }
    }
}

/// `[nickname] [flags] address:port fingerprint` (tor man page, `DirAuthority`). The fingerprint may be in groups.
/// Flags that we have no use for (`no-v2`, `weight=`, ...) are passed over, as C tor does.
impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(line: &str) -> Result<Self, BadAuthority> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_address = |word: &&str| word.parse::<SocketAddr>().is_ok();
        let at = words.iter().position(is_address).ok_or(BadAuthority::NoAddress)?;
        let (before, rest) = words.split_at(at);
        let (address, fingerprint) = rest.split_first().ok_or(BadAuthority::NoAddress)?;
        let dir_address: SocketAddr = address.parse().map_err(|_| BadAuthority::NoAddress)?;
        let rsa_identity = fingerprint.concat().parse().map_err(|_| BadAuthority::NoFingerprint)?;

        let mut flags = Flags::default();
        let mut nickname = String::new();
        for (index, word) in before.iter().enumerate() {
            let known = flags.take(word)?;
            if !known && index == 0 && word.chars().all(|c| c.is_ascii_alphanumeric()) {
                nickname = (*word).to_owned();
            }
        }
        let ipv4 = flags.or_port.map(|port| SocketAddr::new(dir_address.ip(), port));
        Ok(Self {
            nickname,
            v3_identity: flags.v3_identity,
            dir_address,
            or_addresses: ipv4.into_iter().chain(flags.ipv6).collect(),
            rsa_identity,
            bridge_authority: flags.bridge,
        })
    }
}

/// The flags of a line that mean something to us.
#[derive(Default)]
struct Flags {
    or_port: Option<u16>,
    ipv6: Option<SocketAddr>,
    v3_identity: Option<RsaIdentity>,
    bridge: bool,
}

impl Flags {
    /// Whether `word` was a flag that we know.
    fn take(&mut self, word: &str) -> Result<bool, BadAuthority> {
        let bad = || BadAuthority::BadFlag(word.to_owned());
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name.to_ascii_lowercase().as_str() {
            "orport" => self.or_port = Some(value.parse().map_err(|_| bad())?),
            "ipv6" => self.ipv6 = Some(value.parse().map_err(|_| bad())?),
            "v3ident" => self.v3_identity = Some(value.parse().map_err(|_| bad())?),
            "bridge" => self.bridge = true,
            "no-v2" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "a1 orport=9001 no-v2 v3ident=F27AEA06C2DDD8464599FA902C97DD26EBF53072 ipv6=[::1]:9001 \
                        127.1.1.1:9030 EC56 E9B3 9EB6 D392 3977 6704 7309 6525 8A01 04 3E";

    #[test]
    fn a_line_of_c_tor_is_read_in_full() {
        let authority: Authority = LINE.parse().unwrap();

        assert_eq!(authority.nickname, "a1");
        assert_eq!(authority.dir_address, "127.1.1.1:9030".parse().unwrap());
        assert_eq!(
            authority.or_addresses,
            vec!["127.1.1.1:9001".parse().unwrap(), "[::1]:9001".parse().unwrap()]
        );
        assert_eq!(
            authority.v3_identity.unwrap().to_string(),
            "F27AEA06C2DDD8464599FA902C97DD26EBF53072"
        );
        assert_eq!(
            authority.rsa_identity.to_string(),
            "EC56E9B39EB6D3923977670473096525 8A01043E".replace(' ', "")
        );
    }

    #[test]
    fn nickname_and_flags_may_be_missing() {
        let authority: Authority = "127.1.1.1:9030 EC56E9B39EB6D39239776704730965258A01043E"
            .parse()
            .unwrap();

        assert_eq!((authority.nickname.as_str(), authority.v3_identity), ("", None));
        assert!(authority.or_addresses.is_empty());
    }

    #[test]
    fn a_flag_of_tomorrow_is_passed_over_and_a_bad_one_is_named() {
        let tomorrow = LINE.replace("no-v2", "weight=1.5 download=http://127.1.1.1/");
        assert!(tomorrow.parse::<Authority>().is_ok());

        let bad = LINE.replace("orport=9001", "orport=90011");
        assert_eq!(
            bad.parse::<Authority>(),
            Err(BadAuthority::BadFlag("orport=90011".into()))
        );
        assert_eq!("a1 orport=1".parse::<Authority>(), Err(BadAuthority::NoAddress));
        assert_eq!(
            "127.1.1.1:9030 EC56".parse::<Authority>(),
            Err(BadAuthority::NoFingerprint)
        );
    }
}
