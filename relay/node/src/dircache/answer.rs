//! What we say to a directory request.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use relay_formats::onion_descriptor::OnionDescriptor;
use sha2::{Digest as _, Sha256};

use super::budget::Lease;
use super::compress::{Effort, Encoding, pack};
use super::request::{BadRequest, Certificates, Descriptors, Flavor, Request, Wanted};
use super::service::Service;
use super::store::{Descriptor, Shelf, Store, Text};
use crate::config::is_public;

/// Documents that one request may name. C tor's clients ask for at most 92 microdescriptors at a time; a head of
/// 50,000 bytes could name 1,100.
const DOCUMENTS_MAX: usize = 1_200;

/// More than this is not packed for one asker: it would take the shard's thread for too long. It goes out as it is, and
/// costs no memory but its parts' names. Only `all` and batches that no client asks for are so large.
const PACKED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How long an answer may be kept by the asker: C tor's `*_CACHE_LIFETIME`.
const LIFETIME_BY_DIGEST: Duration = Duration::from_secs(48 * 60 * 60);
const LIFETIME_ALL: Duration = Duration::from_secs(60 * 60);
const LIFETIME_ROBOTS: Duration = Duration::from_secs(24 * 60 * 60);
const LIFETIME_FRONT_PAGE: Duration = Duration::from_secs(20 * 60);

/// A consensus is served for so long before and after it is valid (C tor, `REASONABLY_LIVE_TIME`): an old one is better than
/// none for whoever has none.
const REASONABLY_LIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// An onion service's descriptor is shorter, where the consensus says nothing else (`HS_DESC_MAX_LEN`).
const ONION_DESCRIPTOR_BYTES_MAX: usize = 50_000;

/// What we know of whoever asks.
#[derive(Clone, Copy)]
pub struct Asker {
    /// The address that its circuit comes from, said back to it in `X-Your-Address-Is` and nowhere else. `None` where
    /// the last hop is a relay.
    pub address: Option<IpAddr>,
}

/// An answer on its way. Holds shared documents, and of its own no more than its lease of the service's budget says.
#[derive(Debug)]
pub struct Answer {
    /// What is still to be sent: the head, then the body.
    pieces: VecDeque<Text>,
    /// Bytes of the first piece that have gone.
    sent: usize,
    _lease: Option<Lease>,
}

impl Answer {
    /// Appends the next bytes to `out`, at most so many.
    pub fn read(&mut self, bytes_max: usize, out: &mut Vec<u8>) {
        let mut room = bytes_max;
        while let Some(piece) = self.pieces.front() {
            let rest = piece.get(self.sent..).unwrap_or_default();
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            out.extend_from_slice(now);
            room -= now.len();
            if !later.is_empty() {
                self.sent += now.len();
                return;
            }
            self.pieces.pop_front();
            self.sent = 0;
        }
    }

    /// Whether all has been read.
    pub fn is_over(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// What is to be sent, and how long it is good for.
enum Content {
    /// Packed ahead.
    Ready {
        encoding: Encoding,
        body: Text,
        expires: Option<SystemTime>,
        varies: bool,
    },
    /// As it is, as text or as a page.
    Plain {
        mime: &'static str,
        body: Text,
        expires: Option<SystemTime>,
    },
    /// To be packed for this answer.
    Parts {
        /// SHA-256 over the names of the parts.
        names: [u8; 32],
        parts: Vec<Text>,
        expires: Option<SystemTime>,
    },
    /// A status and nothing else.
    Nothing { status: u16, reason: &'static str },
}

const fn nothing(status: u16, reason: &'static str) -> Content {
    Content::Nothing { status, reason }
}

const NOT_FOUND: Content = nothing(404, "Not found");
const NOT_MODIFIED: Content = nothing(304, "Not modified");
const BUSY: Content = nothing(503, "Directory busy, try again later");

/// The whole answer to `request`, head and body (HTTP/1.0; the stream ends after it).
pub fn answer(service: &Service, request: &Result<Request, BadRequest>, asker: Asker, now: SystemTime) -> Answer {
    let content = match request {
        Ok(request) => content(service, request, asker, now),
        Err(_) => nothing(400, "Bad request"),
    };
    let accepted = request.as_ref().map(|request| request.encodings.clone());
    let status = match &content {
        Content::Nothing { status, .. } => *status,
        _ => 200,
    };
    service.count(status);
    match content {
        Content::Ready {
            encoding,
            body,
            expires,
            varies,
        } => {
            let more = if varies {
                "Vary: X-Or-Diff-From-Consensus\r\n"
            } else {
                ""
            };
            whole(head("text/plain", encoding, expires, more, asker, now), [body], None)
        }
        Content::Plain { mime, body, expires } => {
            whole(head(mime, Encoding::Identity, expires, "", asker, now), [body], None)
        }
        Content::Parts { names, parts, expires } => {
            let (encoding, parts, lease) = packed(service, names, parts, accepted.unwrap_or_default());
            whole(head("text/plain", encoding, expires, "", asker, now), parts, lease)
        }
        Content::Nothing { status, reason } => {
            let head = format!(
                "HTTP/1.0 {status} {reason}\r\nDate: {}\r\n\r\n",
                httpdate::fmt_http_date(now)
            );
            whole_of(head.into_bytes(), [], None)
        }
    }
}

/// Packs what is asked for in parts, if it is small enough and there is memory for it. lzma costs too much for an answer
/// that is made once.
fn packed(
    service: &Service,
    names: [u8; 32],
    parts: Vec<Text>,
    accepted: BTreeSet<Encoding>,
) -> (Encoding, Vec<Text>, Option<Lease>) {
    let cheap = accepted.into_iter().find(|encoding| *encoding != Encoding::Lzma);
    let encoding = cheap.unwrap_or(Encoding::Identity);
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if encoding == Encoding::Identity || bytes > PACKED_BYTES_MAX {
        return (Encoding::Identity, parts, None);
    }
    if let Some(text) = service.packed_before(&(names, encoding)) {
        return (encoding, vec![text], None);
    }
    let Ok(text) = pack(&parts, encoding, Effort::OnTheFly).map(Text::from) else {
        return (Encoding::Identity, parts, None);
    };
    match service.budget().take(text.len()) {
        Some(lease) => {
            service.keep(names, encoding, &text);
            (encoding, vec![text], Some(lease))
        }
        None => (Encoding::Identity, parts, None),
    }
}

fn content(service: &Service, request: &Request, asker: Asker, now: SystemTime) -> Content {
    let store = service.store();
    match &request.wanted {
        Wanted::Consensus {
            flavor,
            signed_by,
            diff_only,
        } => consensus(&store, *flavor, signed_by, *diff_only, request, now),
        Wanted::BadDiff => nothing(404, "Couldn't parse request"),
        Wanted::Microdescriptors(digests) => {
            let wanted: BTreeSet<_> = digests.iter().take(DOCUMENTS_MAX).collect();
            let mut found = Found::new(b'm');
            for digest in wanted {
                found.add(digest, store.microdescriptors.get(digest));
            }
            found.content(Some(now + LIFETIME_BY_DIGEST))
        }
        Wanted::Servers(which) => descriptors(b's', which, &store.servers, store.own_server.as_ref(), now),
        Wanted::ExtraInfos(which) => descriptors(b'e', which, &store.extra_infos, store.own_extra_info.as_ref(), now),
        Wanted::Certificates(which) => certificates(&store, which, request, now),
        Wanted::BadKeys => nothing(400, "Bad request"),
        // Whoever is one hop away is no onion service's client, or one that forgets to hide (C tor,
        // `connection_dir_is_anonymous`).
        Wanted::OnionService(_) | Wanted::PublishOnionService(_) if asker.address.is_some() => {
            nothing(503, "Not found")
        }
        Wanted::OnionService(blinded) => {
            let found = blinded.and_then(|blinded| service.onion_services().find(&blinded, now));
            found.map_or(NOT_FOUND, |body| Content::Plain {
                mime: "text/plain",
                body,
                expires: None,
            })
        }
        Wanted::PublishOnionService(is_v3) => {
            let bytes_max = store.onion_descriptor_bytes_max.unwrap_or(ONION_DESCRIPTOR_BYTES_MAX);
            match *is_v3 && keeps_onion_service(service, &request.body, bytes_max, now) {
                true => nothing(200, "HS descriptor stored successfully."),
                false => nothing(400, "Invalid HS descriptor. Rejected."),
            }
        }
        Wanted::FrontPage => match &store.front_page {
            Some(page) => Content::Plain {
                mime: "text/html",
                body: Arc::clone(page),
                expires: Some(now + LIFETIME_FRONT_PAGE),
            },
            None => NOT_FOUND,
        },
        Wanted::Robots => Content::Plain {
            mime: "text/plain",
            body: Text::from(&b"User-agent: *\r\nDisallow: /\r\n"[..]),
            expires: Some(now + LIFETIME_ROBOTS),
        },
        Wanted::Nothing => NOT_FOUND,
        Wanted::Upload => nothing(
            400,
            "Nonauthoritative directory does not accept posted server descriptors",
        ),
    }
}

/// Whether the descriptor is good and newer than ours. The signatures are checked before the lock is taken.
fn keeps_onion_service(service: &Service, body: &[u8], bytes_max: usize, now: SystemTime) -> bool {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() < bytes_max);
    let read = text.and_then(|text| OnionDescriptor::read(text, now).ok());
    read.is_some_and(|descriptor| service.onion_services().keep(&descriptor, body.into(), now))
}

fn consensus(
    store: &Store,
    flavor: Flavor,
    signed_by: &[String],
    diff_only: bool,
    request: &Request,
    now: SystemTime,
) -> Content {
    let Some(consensus) = store.consensuses.get(&flavor) else {
        return NOT_FOUND;
    };
    if request.has_consensuses.contains(&consensus.digest) {
        return NOT_MODIFIED;
    }
    let diffs = store.diffs.get(&flavor).filter(|diffs| diffs.to == consensus.digest);
    let diff = diffs.and_then(|diffs| request.has_consensuses.iter().find_map(|from| diffs.from.get(from)));
    if diff_only && diff.is_none() {
        return nothing(404, "No such diff available");
    }
    if now + REASONABLY_LIVE < consensus.valid_after {
        return nothing(404, "Consensus is too new");
    }
    if now > consensus.valid_until + REASONABLY_LIVE {
        return nothing(404, "Consensus is too old");
    }
    // More than half of those whom the asker trusts must have signed (dir-spec, "Consensus ... URLs").
    let known: Vec<String> = consensus.signed_by.iter().map(ToString::to_string).collect();
    let agreed = signed_by
        .iter()
        .filter(|prefix| known.iter().any(|name| name.starts_with(prefix.as_str())))
        .count();
    if !signed_by.is_empty() && agreed < signed_by.len() / 2 + 1 {
        return nothing(
            404,
            "Consensus not signed by sufficient number of requested authorities",
        );
    }
    if request.modified_since.is_some_and(|date| date >= consensus.valid_after) {
        return NOT_MODIFIED;
    }
    // A diff may not be kept in the packing that is asked for; the whole consensus is in all of them.
    let accepted = || request.encodings.iter().copied();
    let chosen = diff.and_then(|diff| diff.choose(accepted()));
    match chosen.or_else(|| consensus.document.choose(accepted())) {
        Some((encoding, body)) => Content::Ready {
            encoding,
            body,
            expires: Some(consensus.fresh_until).filter(|fresh_until| *fresh_until > now),
            varies: true,
        },
        None => BUSY,
    }
}

/// Documents that are asked for by their names.
struct Found {
    names: Sha256,
    parts: Vec<Text>,
}

impl Found {
    fn new(kind: u8) -> Self {
        Self {
            names: Sha256::new().chain_update([kind]),
            parts: Vec::new(),
        }
    }

    fn add(&mut self, name: &[u8], text: Option<&Text>) {
        if let Some(text) = text {
            self.names.update(name);
            self.parts.push(Text::clone(text));
        }
    }

    fn content(self, expires: Option<SystemTime>) -> Content {
        match self.parts.is_empty() {
            true => NOT_FOUND,
            false => Content::Parts {
                names: self.names.finalize().into(),
                parts: self.parts,
                expires,
            },
        }
    }
}

fn descriptors(kind: u8, which: &Descriptors, shelf: &Shelf, own: Option<&Descriptor>, now: SystemTime) -> Content {
    let mut found = Found::new(kind);
    match which {
        Descriptors::Authority => {
            if let Some(own) = own {
                found.add(&own.digest, Some(&own.text));
            }
        }
        Descriptors::All => {
            shelf.all().for_each(|(digest, text)| found.add(digest, Some(text)));
            return found.content(Some(now + LIFETIME_ALL));
        }
        Descriptors::ByDigest(digests) => {
            for digest in digests.iter().take(DOCUMENTS_MAX).collect::<BTreeSet<_>>() {
                let ours = own.filter(|own| own.digest == *digest).map(|own| &own.text);
                found.add(digest, ours.or_else(|| shelf.by_digest(digest)));
            }
        }
        Descriptors::ByFingerprint(relays) => {
            for relay in relays.iter().take(DOCUMENTS_MAX).collect::<BTreeSet<_>>() {
                let ours = own
                    .filter(|own| own.relay == *relay)
                    .map(|own| (&own.digest, &own.text));
                if let Some((digest, text)) = ours.or_else(|| shelf.by_relay(relay)) {
                    found.add(digest, Some(text));
                }
            }
        }
    }
    let expires = (found.parts.len() == 1).then_some(now + LIFETIME_BY_DIGEST);
    found.content(expires)
}

fn certificates(store: &Store, which: &Certificates, request: &Request, now: SystemTime) -> Content {
    let asked = store.certificates.iter().filter(|each| match which {
        Certificates::All => true,
        Certificates::ByIdentity(list) => list.contains(&each.identity),
        Certificates::BySigningKey(list) => list.contains(&each.signing_key),
        Certificates::ByBoth(list) => list.contains(&(each.identity, each.signing_key)),
    });
    let mut asked = asked.peekable();
    if asked.peek().is_none() {
        return NOT_FOUND;
    }
    let mut found = Found::new(b'k');
    let newer = asked.filter(|each| request.modified_since.is_none_or(|date| each.published >= date));
    for each in newer {
        found.add(&[each.identity.0, each.signing_key.0].concat(), Some(&each.text));
    }
    match found.parts.is_empty() {
        true => NOT_MODIFIED,
        false => found.content(Some(now + LIFETIME_ALL)),
    }
}

/// The head, up to what depends on the body's length.
fn head(
    mime: &str,
    encoding: Encoding,
    expires: Option<SystemTime>,
    more: &str,
    asker: Asker,
    now: SystemTime,
) -> String {
    let mut head = format!(
        "HTTP/1.0 200 OK\r\nDate: {}\r\nContent-Type: {mime}\r\n",
        httpdate::fmt_http_date(now)
    );
    // Somebody on our side of a router would learn an address that is of no use to it. Writing into a String does not
    // fail.
    if let Some(address) = asker.address.filter(|address| is_public(*address)) {
        let _ = write!(head, "X-Your-Address-Is: {address}\r\n");
    }
    let _ = write!(head, "Content-Encoding: {}\r\n", encoding.name());
    let _ = match expires {
        Some(expires) => write!(head, "Expires: {}\r\n", httpdate::fmt_http_date(expires)),
        None => write!(head, "Pragma: no-cache\r\n"),
    };
    head.push_str(more);
    head
}

fn whole(mut head: String, body: impl IntoIterator<Item = Text>, lease: Option<Lease>) -> Answer {
    let body: Vec<Text> = body.into_iter().collect();
    let length: usize = body.iter().map(|piece| piece.len()).sum();
    let _ = write!(head, "Content-Length: {length}\r\n\r\n");
    whole_of(head.into_bytes(), body, lease)
}

fn whole_of(head: Vec<u8>, body: impl IntoIterator<Item = Text>, lease: Option<Lease>) -> Answer {
    Answer {
        pieces: std::iter::once(Text::from(head)).chain(body).collect(),
        sent: 0,
        _lease: lease,
    }
}

#[cfg(test)]
mod tests;
