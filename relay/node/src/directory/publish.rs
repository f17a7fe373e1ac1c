//! Makes our descriptor and extra-info, checks them, and brings them to every authority.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use relay_formats::descriptor::{DescribedBandwidth, Descriptor, DescriptorFacts};
use relay_formats::document::DocumentError;
use relay_formats::extra_info::{BandwidthHistory, ExtraInfo, ExtraInfoFacts, Histories};
use relay_formats::relay_signer::RelaySigner;
use relay_formats::torrc::DirAuthority;
use tokio::task::JoinSet;

use super::authority;
use super::http::{self, HttpError, Request, Response};
use super::protocols;
use super::publication::Reason;
use super::schedule::Backoff;
use crate::config::Config;
use crate::keys::Keys;
use crate::netdoc::{self, BadDocument};

/// How long the ntor key of a descriptor is good for: as long as we keep it (param-spec, `onion-key-rotation-days`).
const ONION_KEY_LIFETIME: Duration = Duration::from_secs(28 * 24 * 60 * 60);

/// An authority's answer to an upload has a line of text at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a descriptor says besides configuration and keys.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The time.
    pub now: SystemTime,
    /// How long the relay has been up.
    pub uptime: Duration,
    /// Bytes a second that the relay has been seen to carry (relay-reference: best 10 seconds of the last days).
    pub observed_bandwidth: u64,
    /// Bytes written and read on the days that have ended, if any has.
    pub histories: Option<(BandwidthHistory, BandwidthHistory)>,
    /// When the relay was overloaded last, if that is still told.
    pub overload_general: Option<SystemTime>,
    /// Lines of the extra-info about overload.
    pub overload_lines: Vec<String>,
    /// The quota has put the relay to sleep.
    pub hibernating: bool,
    /// Consensus parameter `publish-dummy-tap-key`: whether a TAP key, which nobody uses, must be in it.
    pub dummy_tap_key: bool,
}

/// Why there is no descriptor.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// torrc gives no IPv4 ORPort that others could reach.
    #[error("a relay needs an IPv4 ORPort with an address that others can reach: set Address or ORPort in torrc")]
    NoIpv4,
    /// The documents cannot be built.
    #[error("cannot make a descriptor: {0}")]
    Document(#[from] DocumentError),
    /// They are built, and bad: a fault of ours.
    #[error("our own descriptor would be refused: {0}")]
    SelfCheck(#[from] BadDocument),
}

/// Our two documents, checked.
#[derive(Debug, Clone)]
pub struct Made {
    /// The descriptor.
    pub server: Descriptor,
    /// The extra-info.
    pub extra_info: ExtraInfo,
}

impl Made {
    /// The body of an upload: descriptor, then extra-info.
    pub fn body(&self) -> String {
        [&*self.server.text, &*self.extra_info.text].concat()
    }
}

/// Makes both documents and reads them as a stranger would.
pub fn make(config: &Config, keys: &Keys, circumstances: &Circumstances) -> Result<Made, PublishError> {
    let now = circumstances.now;
    let signer = RelaySigner {
        rsa: &keys.rsa,
        signing: &keys.signing,
        signing_cert: &keys.signing_cert,
    };
    let nickname = &config.nickname;
    let (write, read) = circumstances.histories.clone().unzip();
    // Statistics but for overload, and histories by family and of directory requests, are not built yet; they may be absent.
    let histories = Histories {
        write,
        read,
        ..Histories::default()
    };
    let extra_info = ExtraInfoFacts {
        nickname,
        published: now,
        histories,
        statistics: circumstances.overload_lines.clone(),
    };
    let extra_info = ExtraInfo::build(&extra_info, &signer)?;

    let v4 = |address: &SocketAddr| match address {
        SocketAddr::V4(v4) => Some(*v4),
        SocketAddr::V6(_) => None,
    };
    let v6 = |address: &SocketAddr| match address {
        SocketAddr::V4(_) => None,
        SocketAddr::V6(v6) => Some(*v6),
    };
    let ipv4 = config.advertised.iter().find_map(v4).ok_or(PublishError::NoIpv4)?;
    let family = [&config.my_family[..], &keys.family_word.members].concat();
    // One that has run out would make the whole descriptor worthless (TROVE-2026-062).
    let family_certs = keys.family_word.certs.iter().filter(|cert| cert.expires() > now);
    let family_certs: Vec<_> = family_certs.cloned().collect();
    let family_keys: Vec<_> = keys.families.iter().map(AsRef::as_ref).collect();
    let facts = DescriptorFacts {
        nickname,
        ipv4: *ipv4.ip(),
        or_port: ipv4.port(),
        ipv6: config.advertised.iter().find_map(v6),
        version: env!("CARGO_PKG_VERSION"),
        protocols: &protocols::spoken(config),
        published: now,
        uptime: circumstances.uptime,
        bandwidth: DescribedBandwidth {
            rate: config.bandwidth.advertised_rate(),
            burst: config.bandwidth.advertised_burst(),
            observed: circumstances.observed_bandwidth,
        },
        extra_info: Some(extra_info.digests),
        caches_extra_info: config.directory.cache && config.directory.extra_infos,
        onion: &keys.onion,
        onion_expires: now + ONION_KEY_LIFETIME,
        dummy_tap: circumstances.dummy_tap_key.then_some(&*keys.tap),
        family: &family,
        family_keys: &family_keys,
        family_certs: &family_certs,
        hibernating: circumstances.hibernating,
        exit_policy: &config.exit_policy,
        hidden_service_dir: config.directory.cache,
        contact: config.contact_info.as_deref(),
        tunnelled_dir_server: config.directory.cache && config.keeps_directory_quiet().is_none(),
        overload_general: circumstances.overload_general,
    };
    let server = Descriptor::build(&facts, &signer)?;
    netdoc::check_own_documents(&server.text, &extra_info.text, keys.rsa_identity(), now)?;
    Ok(Made { server, extra_info })
}

/// One document on its way to the authorities.
#[derive(Debug, Default)]
pub struct Uploads {
    body: String,
    reason: &'static str,
    waiting: Vec<Waiting>,
}

/// An authority that has not taken the document yet.
#[derive(Debug)]
struct Waiting {
    authority: DirAuthority,
    at: SystemTime,
    backoff: Backoff,
}

impl Uploads {
    /// A new document; an older one that has not arrived everywhere is forgotten.
    pub fn begin(
        body: String,
        reason: Reason,
        authorities: &[DirAuthority],
        testing_network: bool,
        now: SystemTime,
    ) -> Self {
        let voting = authorities.iter().filter(|one| one.v3_identity.is_some());
        let backoff = Backoff::for_documents(testing_network);
        let waiting = voting.map(|authority| Waiting {
            authority: authority.clone(),
            at: now,
            backoff: backoff.clone(),
        });
        Self {
            body,
            reason: reason.text(),
            waiting: waiting.collect(),
        }
    }

    /// When there is something to do again.
    pub fn next(&self) -> Option<SystemTime> {
        self.waiting.iter().map(|one| one.at).min()
    }

    /// Tries every authority whose turn has come, all at once. How many took the document.
    pub async fn run(&mut self, bind: &[IpAddr], now: SystemTime) -> usize {
        let (due, later): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|one| one.at <= now);
        self.waiting = later;
        let mut tries = JoinSet::new();
        for mut one in due {
            let (body, bind, reason) = (self.body.clone(), bind.to_vec(), self.reason);
            tries.spawn(async move {
                let begun = Instant::now();
                let answer = upload(&one.authority, &bind, &body, reason).await;
                let again = !settled(&one.authority, &answer);
                let taken = answer.is_ok_and(|answer| answer.status == 200);
                // From the end of this try: one that hangs must get a rest too.
                one.at = now + begun.elapsed() + one.backoff.next(&mut rand::rng());
                (taken, again.then_some(one))
            });
        }
        let results = tries.join_all().await;
        let taken = results.iter().filter(|(taken, _)| *taken).count();
        self.waiting.extend(results.into_iter().filter_map(|(_, again)| again));
        taken
    }
}

async fn upload(
    authority: &DirAuthority,
    bind: &[IpAddr],
    body: &str,
    reason: &'static str,
) -> Result<Response, HttpError> {
    let request = Request {
        path: "/tor/",
        body: Some(body.as_bytes()),
        headers: &[("X-Desc-Gen-Reason", reason)],
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    http::exchange(authority.dir_address, bind, &request).await
}

/// Logs an answer. Whether the authority has spoken its last word on this document.
fn settled(authority: &DirAuthority, answer: &Result<Response, HttpError>) -> bool {
    let who = authority::describe(authority);
    match answer {
        Ok(Response { status: 200, .. }) => {
            tracing::debug!("Uploaded server descriptor to {who}: finished.");
            true
        }
        // It has read the document and does not want it; the same one again would fare no better.
        Ok(Response {
            status: 400, reason, ..
        }) => {
            tracing::warn!("http status 400 (\"{reason}\") response from {who}. Please correct.");
            true
        }
        Ok(Response { status, reason, .. }) => {
            tracing::warn!("HTTP status {status} (\"{reason}\") was unexpected while uploading descriptor to {who}.");
            false
        }
        Err(error) => {
            tracing::debug!("Could not upload our descriptor to {who}: {error}. Will try again.");
            false
        }
    }
}

#[cfg(test)]
mod tests;
