//! What a running relay tells its operator: the JSON that `GET /status` answers with.
//!
//! The relay writes it, the operator reads it; both use these types. Times are RFC 3339, UTC, to the second. What the
//! relay does not know is absent, never 0 or empty. Nothing in here can carry a user: no address but the relay's own.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::fingerprint::{Ed25519Identity, RsaIdentity};
use crate::time_text;

/// Version of the form. Fields may be added without a new one; a field that goes or changes its meaning makes one.
pub const VERSION: u32 = 1;

/// A point in time, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub SystemTime);

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time_text::format(self.0).replacen(' ', "T", 1) + "Z";
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bare = text.strip_suffix('Z').unwrap_or_default();
        let time = time_text::parse(bare);
        time.map(Self)
            .ok_or_else(|| serde::de::Error::custom("expected a time YYYY-MM-DDTHH:MM:SSZ"))
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// [`VERSION`].
    pub version: u32,
    /// Program and its version.
    pub program: String,
    /// When the process started.
    pub started_at: Timestamp,
    /// When this was told.
    pub told_at: Timestamp,
    /// Who the relay is.
    pub identity: Identity,
    /// Where it listens for OR connections; empty once it retires.
    pub listening: Vec<SocketAddr>,
    /// It has been told to stop and takes no new circuits.
    pub retiring: bool,
    /// Its published addresses, and what is known of each.
    pub addresses: Vec<Address>,
    /// The key that signs descriptors.
    pub signing_key: SigningKey,
    /// The families that the relay proves to be of.
    pub families: Vec<Family>,
    /// The newest descriptor that was made; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<MadeDescriptor>,
    /// The newest consensus; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consensus: Option<SeenConsensus>,
    /// What the relay says of itself being overloaded.
    pub overload: Overload,
    /// The quota; absent where torrc sets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounting: Option<Accounting>,
}

impl Facts {
    /// Where the consensus lists the relay if that is not where it is: another process publishes with its keys.
    ///
    /// Told only of a consensus that was voted on after a majority of the authorities had our newest descriptor for a whole
    /// interval: before that it may still be our own of before.
    pub fn listed_elsewhere(&self) -> Option<SocketAddr> {
        let (descriptor, consensus) = (self.descriptor.as_ref()?, self.consensus.as_ref()?);
        let interval = consensus.fresh_until.0.duration_since(consensus.valid_after.0).ok()?;
        let settled = descriptor.accepted_at?.0.checked_add(interval)?;
        if descriptor.accepted_by <= descriptor.authorities / 2 || consensus.valid_after.0 < settled {
            return None;
        }
        let listed = &consensus.listed.as_ref()?.addresses;
        let ours = |address: &&SocketAddr| self.addresses.iter().any(|own| own.address == **address);
        let known = !self.addresses.is_empty() && !listed.iter().any(|address| ours(&address));
        listed.first().copied().filter(|_| known)
    }

    /// It takes connections.
    pub fn is_listening(&self) -> bool {
        !self.listening.is_empty() && !self.retiring
    }

    /// At least one authority has taken the newest descriptor.
    pub fn is_published(&self) -> bool {
        self.descriptor.as_ref().is_some_and(|one| one.accepted_by > 0)
    }

    /// The newest consensus lists the relay as running, and is still valid at `now`.
    pub fn is_in_consensus(&self, now: SystemTime) -> bool {
        self.consensus.as_ref().is_some_and(|consensus| {
            let running = consensus
                .listed
                .as_ref()
                .is_some_and(|us| us.flags.iter().any(|flag| flag == "Running"));
            running && now <= consensus.valid_until.0
        })
    }
}

/// Who the relay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `Nickname`.
    pub nickname: String,
    /// RSA fingerprint: 40 upper-case hexadecimal digits.
    #[serde(with = "as_text")]
    pub fingerprint: RsaIdentity,
    /// Ed25519 master identity: base64 without padding.
    #[serde(with = "as_text")]
    pub ed25519: Ed25519Identity,
}

/// One published address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// Where others reach the relay.
    pub address: SocketAddr,
    /// What is known of that.
    pub reachable: Reachable,
}

/// Whether others can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reachable {
    /// Nothing is known.
    Unknown,
    /// torrc's owner says so.
    Assumed,
    /// A connection from the relay's own machine works.
    FromHere,
    /// A peer came in over it.
    FromOutside,
}

/// The medium-term signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKey {
    /// When its certificate ends.
    pub expires_at: Timestamp,
    /// The master key is kept elsewhere (`OfflineMasterKey`): nobody here renews the signing key.
    pub offline_master: bool,
}

/// A family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Its public key: base64 without padding.
    #[serde(with = "as_text")]
    pub id: Ed25519Identity,
    /// When the certificate that the family's keeper gave us ends; absent where we hold the family's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A descriptor that the relay has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeDescriptor {
    /// SHA-1 of the signed part, as authorities name it: 40 upper-case hexadecimal digits.
    pub digest: String,
    /// Its `published` line.
    pub published_at: Timestamp,
    /// It says `hibernating 1`.
    pub hibernating: bool,
    /// Authorities that have taken it.
    pub accepted_by: u32,
    /// Authorities that it is offered to.
    pub authorities: u32,
    /// When the last of `accepted_by` took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
}

/// The newest consensus that the relay knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenConsensus {
    /// `valid-after`.
    pub valid_after: Timestamp,
    /// `fresh-until`.
    pub fresh_until: Timestamp,
    /// `valid-until`.
    pub valid_until: Timestamp,
    /// What it says of this relay; absent if it does not list it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
}

/// What a consensus says of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its flags, in the order of the alphabet.
    pub flags: Vec<String>,
    /// Consensus weight, kilobytes a second.
    pub weight: u32,
    /// Whether bandwidth authorities have measured it, rather than believed it.
    pub measured: bool,
    /// Its ORPorts. Other ones than the relay's own: another process has its keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SocketAddr>,
}

/// Signs of overload, as descriptor and extra-info tell them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overload {
    /// `overload-general`: out of memory, circuit handshakes dropped, or out of ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_at: Option<Timestamp>,
    /// `overload-ratelimits`: the rates of torrc were reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits_at: Option<Timestamp>,
    /// `overload-fd-exhausted`: out of file descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors_at: Option<Timestamp>,
}

/// The quota and how far it is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accounting {
    /// Whether the relay carries traffic.
    pub state: AccountingState,
    /// When this interval began.
    pub interval_starts_at: Timestamp,
    /// When it ends.
    pub interval_ends_at: Timestamp,
    /// `AccountingMax`, bytes.
    pub bytes_max: u64,
    /// What `AccountingRule` counts, bytes.
    pub bytes_used: u64,
    /// Bytes read in this interval.
    pub bytes_read: u64,
    /// Bytes written in this interval.
    pub bytes_written: u64,
    /// When it wakes, or woke, in this interval.
    pub wakes_at: Timestamp,
}

/// Whether a relay with a quota carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountingState {
    /// It does.
    Awake,
    /// Near the quota's end: what is open goes on, nothing new begins.
    SoftLimit,
    /// The quota is used up, or the time to wake has not come.
    Dormant,
}

/// Values by their own `Display` and `FromStr`.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts() -> Facts {
        let at = |seconds| Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        Facts {
            version: VERSION,
            program: "relayfleet 0.1.0".to_owned(),
            started_at: at(1_000_000),
            told_at: at(1_000_060),
            identity: Identity {
                nickname: "r1".to_owned(),
                fingerprint: RsaIdentity([0xab; 20]),
                ed25519: Ed25519Identity([7; 32]),
            },
            listening: vec!["0.0.0.0:9001".parse().unwrap()],
            retiring: false,
            addresses: vec![Address {
                address: "192.0.2.1:9001".parse().unwrap(),
                reachable: Reachable::FromOutside,
            }],
            signing_key: SigningKey {
                expires_at: at(2_000_000),
                offline_master: true,
            },
            families: Vec::new(),
            descriptor: None,
            consensus: Some(SeenConsensus {
                valid_after: at(999_000),
                fresh_until: at(1_002_600),
                valid_until: at(1_009_800),
                listed: Some(Listed {
                    flags: vec!["Fast".to_owned(), "Running".to_owned()],
                    weight: 20,
                    measured: false,
                    addresses: vec!["192.0.2.1:9001".parse().unwrap()],
                }),
            }),
            overload: Overload::default(),
            accounting: None,
        }
    }

    #[test]
    fn what_the_relay_writes_the_operator_reads() {
        let text = serde_json::to_string(&facts()).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts());
        assert!(text.contains(r#""startedAt":"1970-01-12T13:46:40Z""#), "{text}");
        assert!(
            text.contains(&format!(r#""fingerprint":"{}""#, "AB".repeat(20))),
            "{text}"
        );
        assert!(!text.contains("descriptor"), "what is not known is absent: {text}");
    }

    #[test]
    fn an_operator_of_today_reads_a_relay_of_tomorrow() {
        let text = serde_json::to_string(&facts()).unwrap();
        let newer = text.replacen("{", r#"{"weather":"fine","#, 1);
        assert_eq!(serde_json::from_str::<Facts>(&newer).unwrap(), facts());
    }

    #[test]
    fn another_address_is_another_process_once_the_network_had_time_to_take_ours() {
        let mut facts = facts();
        let at = |seconds| Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut told = |accepted_by, accepted_at, listed: &str| {
            facts.descriptor = Some(MadeDescriptor {
                digest: "AB".repeat(20),
                published_at: at(990_000),
                hibernating: false,
                accepted_by,
                authorities: 3,
                accepted_at: Some(at(accepted_at)),
            });
            let listed_at = vec![listed.parse().unwrap()];
            facts.consensus.as_mut().unwrap().listed.as_mut().unwrap().addresses = listed_at;
            facts.listed_elsewhere().map(|address| address.to_string())
        };
        let elsewhere = "198.51.100.9:9001";
        assert_eq!(told(2, 999_000 - 3_600, elsewhere).as_deref(), Some(elsewhere));
        assert_eq!(told(2, 999_000 - 3_600, "192.0.2.1:9001"), None);
        assert_eq!(
            told(2, 999_000 - 3_599, elsewhere),
            None,
            "the vote may have been before"
        );
        assert_eq!(
            told(1, 999_000 - 3_600, elsewhere),
            None,
            "most authorities may not know us yet"
        );
        facts.addresses.clear();
        assert_eq!(
            facts.listed_elsewhere(),
            None,
            "who does not know where it is cannot tell"
        );
    }

    #[test]
    fn a_consensus_that_has_run_out_lists_nobody() {
        let facts = facts();
        assert!(facts.is_in_consensus(facts.told_at.0));
        assert!(!facts.is_in_consensus(facts.told_at.0 + Duration::from_secs(86_400)));
    }

    #[test]
    fn a_relay_that_retires_listens_no_more() {
        let mut facts = facts();
        assert!(facts.is_listening() && !facts.is_published());
        facts.retiring = true;
        assert!(!facts.is_listening());
    }
}
