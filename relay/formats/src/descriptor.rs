//! The server descriptor (dir-spec, "Server descriptor format"): what a relay tells the authorities of itself.
//!
//! The lines come in C tor's order, which other software has come to expect.

use std::net::{Ipv4Addr, SocketAddrV6};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::cert::{CertType, Certified, Ed25519Cert, NameSigner, issue_onion_cross_cert};
use crate::document::{DocumentError, Lines, one_line, sign};
use crate::ed25519_key::Ed25519Secret;
use crate::exit_policy::ExitPolicy;
use crate::extra_info::ExtraInfoDigests;
use crate::fingerprint::{Ed25519Identity, RsaIdentity};
use crate::nickname::Nickname;
use crate::object_block;
use crate::onion_key::OnionKeyPair;
use crate::relay_signer::RelaySigner;
use crate::rsa_key::RsaSecret;
use crate::time_text;

/// Bytes that a descriptor has at most (C tor, `MAX_DESCRIPTOR_UPLOAD_SIZE`).
pub const DESCRIPTOR_BYTES_MAX: usize = 20_000;

/// Lifetime of a family certificate (dir-spec, "family-cert": at most 30 days after `published`).
const FAMILY_CERT_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
const HOUR_SECONDS: u64 = 3_600;

/// What a descriptor says.
pub struct DescriptorFacts<'a> {
    /// The relay's nickname.
    pub nickname: &'a Nickname,
    /// Where others reach it over IPv4.
    pub ipv4: Ipv4Addr,
    /// Its ORPort there, not 0.
    pub or_port: u16,
    /// Where others reach it over IPv6.
    pub ipv6: Option<SocketAddrV6>,
    /// Version of this program, for the `platform` line: no blanks.
    pub version: &'a str,
    /// The `proto` line without its keyword: only what is built may be claimed.
    pub protocols: &'a str,
    /// When it was made, to the second.
    pub published: SystemTime,
    /// How long the relay has been up.
    pub uptime: Duration,
    /// Rate, burst and observed bandwidth.
    pub bandwidth: DescribedBandwidth,
    /// Of the extra-info document made with it.
    pub extra_info: Option<ExtraInfoDigests>,
    /// The relay keeps others' extra-info documents.
    pub caches_extra_info: bool,
    /// The newest ntor onion key.
    pub onion: &'a OnionKeyPair,
    /// When that key is no longer accepted: the end of its cross-certificate.
    pub onion_expires: SystemTime,
    /// A TAP key, which nobody uses, while authorities still ask for one (`publish-dummy-tap-key`).
    pub dummy_tap: Option<&'a RsaSecret>,
    /// `MyFamily`, in any order, with or without this relay.
    pub family: &'a [RsaIdentity],
    /// Keys of the families that this relay proves to be of (`FamilyId`).
    pub family_keys: &'a [&'a Ed25519Secret],
    /// Certificates of families whose key somebody else holds; they must be valid.
    pub family_certs: &'a [Ed25519Cert],
    /// Accounting has put it to sleep.
    pub hibernating: bool,
    /// `ContactInfo`.
    pub contact: Option<&'a str>,
    /// Where it lets streams go.
    pub exit_policy: &'a ExitPolicy,
    /// It keeps onion services' descriptors; C tor's relays always do.
    pub hidden_service_dir: bool,
    /// It answers directory requests on its ORPort.
    pub tunnelled_dir_server: bool,
    /// When it was overloaded last, if within 72 hours.
    pub overload_general: Option<SystemTime>,
}

/// The `bandwidth` line, bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribedBandwidth {
    /// What it is willing to carry in the long run.
    pub rate: u64,
    /// What it is willing to carry for a moment.
    pub burst: u64,
    /// What it has been seen to carry; told as 0 while it hibernates.
    pub observed: u64,
}

/// A signed descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The document.
    pub text: String,
    /// SHA-1 of all before the RSA signature: how others name this descriptor.
    pub sha1: [u8; 20],
}

impl Descriptor {
    /// Makes and signs the document.
    ///
    /// # Errors
    /// A contact, version or protocol list that cannot stand on a line, a key that cannot sign,
    /// or more than [`DESCRIPTOR_BYTES_MAX`] (about 400 members of a family).
    pub fn build(facts: &DescriptorFacts<'_>, signer: &RelaySigner<'_>) -> Result<Self, DocumentError> {
        let identity = signer.identity()?;
        let mut lines = Lines::default();
        names(&mut lines, facts, signer, &identity)?;
        state(&mut lines, facts, signer)?;
        keys(&mut lines, facts, signer, &identity)?;
        belonging(&mut lines, facts, signer, &identity);
        services(&mut lines, facts);
        let document = sign(lines.0, signer)?;
        match document.text.len() {
            ..=DESCRIPTOR_BYTES_MAX => Ok(Self {
                text: document.text,
                sha1: document.sha1,
            }),
            length => Err(DocumentError::TooLong {
                length,
                max: DESCRIPTOR_BYTES_MAX,
            }),
        }
    }
}

/// `router` to `proto`.
fn names(
    lines: &mut Lines,
    facts: &DescriptorFacts<'_>,
    signer: &RelaySigner<'_>,
    identity: &Ed25519Identity,
) -> Result<(), DocumentError> {
    let DescriptorFacts {
        nickname,
        ipv4,
        or_port,
        ..
    } = facts;
    lines.line(&format!("router {nickname} {ipv4} {or_port} 0 0"));
    lines.identity_cert(signer.signing_cert);
    lines.line(&format!("master-key-ed25519 {identity}"));
    if let Some(ipv6) = facts.ipv6 {
        lines.line(&format!("or-address [{}]:{}", ipv6.ip(), ipv6.port()));
    }
    // Authorities take a platform that does not begin with "Tor " as new enough.
    lines.line(&format!(
        "platform relayfleet {} on Linux",
        one_line("version", facts.version)?
    ));
    lines.line(&format!("proto {}", one_line("protocol list", facts.protocols)?));
    Ok(())
}

/// `published` to `caches-extra-info`.
fn state(lines: &mut Lines, facts: &DescriptorFacts<'_>, signer: &RelaySigner<'_>) -> Result<(), DocumentError> {
    lines.published(facts.published);
    let fingerprint = signer.rsa.public().identity().to_string();
    let groups: Vec<&str> = fingerprint
        .as_bytes()
        .chunks(4)
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    lines.line(&format!("fingerprint {}", groups.join(" ")));
    lines.line(&format!("uptime {}", facts.uptime.as_secs()));
    let DescribedBandwidth { rate, burst, observed } = facts.bandwidth;
    let observed = if facts.hibernating { 0 } else { observed };
    lines.line(&format!("bandwidth {rate} {burst} {observed}"));
    if let Some(ExtraInfoDigests { sha1, sha256 }) = facts.extra_info {
        let (sha1, sha256) = (hex::encode_upper(sha1), STANDARD_NO_PAD.encode(sha256));
        lines.line(&format!("extra-info-digest {sha1} {sha256}"));
    }
    if facts.caches_extra_info {
        lines.line("caches-extra-info");
    }
    Ok(())
}

/// `onion-key` to `ntor-onion-key-crosscert`.
fn keys(
    lines: &mut Lines,
    facts: &DescriptorFacts<'_>,
    signer: &RelaySigner<'_>,
    identity: &Ed25519Identity,
) -> Result<(), DocumentError> {
    if let Some(tap) = facts.dummy_tap {
        lines.line("onion-key");
        lines.0.push_str(&tap.public().to_pem());
    }
    lines.line("signing-key");
    lines.0.push_str(&signer.rsa.public().to_pem());
    if let Some(tap) = facts.dummy_tap {
        let identities = [&signer.rsa.public().identity().0[..], &identity.0].concat();
        lines.line("onion-key-crosscert");
        lines
            .0
            .push_str(&object_block::encode("CROSSCERT", &tap.sign_unprefixed(&identities)?));
    }
    let (cert, sign_bit) = issue_onion_cross_cert(facts.onion, identity, facts.onion_expires);
    lines.line(&format!("ntor-onion-key-crosscert {sign_bit}"));
    lines.0.push_str(&cert.to_block());
    Ok(())
}

/// `family` to `contact`.
fn belonging(lines: &mut Lines, facts: &DescriptorFacts<'_>, signer: &RelaySigner<'_>, identity: &Ed25519Identity) {
    let ourselves = signer.rsa.public().identity();
    if facts.family.iter().any(|member| *member != ourselves) {
        let mut family = facts.family.to_vec();
        family.push(ourselves);
        family.sort();
        family.dedup();
        let members: Vec<String> = family.iter().map(|member| format!("${member}")).collect();
        lines.line(&format!("family {}", members.join(" ")));
    }
    if facts.hibernating {
        lines.line("hibernating 1");
    }
    if facts.hidden_service_dir {
        lines.line("hidden-service-dir");
    }
    for key in facts.family_keys {
        let (kind, ends) = (CertType::FAMILY_IDENTITY, facts.published + FAMILY_CERT_LIFETIME);
        let cert = Ed25519Cert::issue(kind, Certified::Key(*identity), ends, key, NameSigner::Yes);
        lines.line("family-cert");
        lines.0.push_str(&cert.to_block());
    }
    for cert in facts.family_certs {
        lines.line("family-cert");
        lines.0.push_str(&cert.to_block());
    }
    if let Some(contact) = facts.contact {
        lines.line(&format!("contact {}", escaped(contact)));
    }
}

/// `ntor-onion-key` to the last line before the signatures.
fn services(lines: &mut Lines, facts: &DescriptorFacts<'_>) {
    lines.line(&format!(
        "ntor-onion-key {}",
        STANDARD_NO_PAD.encode(facts.onion.public())
    ));
    for rule in facts.exit_policy.descriptor_lines() {
        lines.line(&rule);
    }
    if let Some(summary) = facts.exit_policy.ipv6_policy() {
        lines.line(&format!("ipv6-policy {summary}"));
    }
    if facts.tunnelled_dir_server {
        lines.line("tunnelled-dir-server");
    }
    if let Some(time) = facts.overload_general {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let hour = Duration::from_secs(since / HOUR_SECONDS * HOUR_SECONDS);
        let hour = time_text::format(SystemTime::UNIX_EPOCH + hour);
        lines.line(&format!("overload-general 1 {hour}"));
    }
}

/// A contact as it stands on its line; one with line breaks or other control characters becomes a quoted C string.
fn escaped(contact: &str) -> String {
    if !contact.chars().any(char::is_control) {
        return contact.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in contact.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    quoted.push_str(&format!("\\{byte:03o}"));
                }
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests;
