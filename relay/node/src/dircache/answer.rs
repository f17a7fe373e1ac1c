//! What we say to a directory request.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::compress::{Effort, Encoding, pack};
use super::request::{BadRequest, Certificates, Descriptors, Request, Wanted};
use super::store::{Consensus, Descriptor, Store, Text};

/// Documents that one request may name. C tor's clients ask for at most 92 microdescriptors at a time; a head of
/// 50,000 bytes could name 1,100.
const DOCUMENTS_MAX: usize = 1_200;

/// How long an answer may be kept by the asker: C tor's `*_CACHE_LIFETIME`.
const LIFETIME_BY_DIGEST: Duration = Duration::from_secs(48 * 60 * 60);
const LIFETIME_ALL: Duration = Duration::from_secs(60 * 60);
const LIFETIME_ROBOTS: Duration = Duration::from_secs(24 * 60 * 60);

/// What we know of whoever asks.
#[derive(Clone, Copy)]
pub struct Asker {
    /// The address that its circuit comes from, said back to it in `X-Your-Address-Is` and nowhere else. `None` where
    /// the last hop is a relay.
    pub address: Option<IpAddr>,
}

/// What is to be sent, and how long it is good for.
enum Content {
    /// Packed ahead.
    Ready {
        encoding: Encoding,
        body: Text,
        expires: SystemTime,
        varies: bool,
    },
    /// To be packed for this answer.
    Parts { parts: Vec<Text>, expires: SystemTime },
    /// A status and nothing else.
    Nothing { status: u16, reason: &'static str },
}

const NOT_FOUND: Content = Content::Nothing {
    status: 404,
    reason: "Not found",
};

/// The whole answer to `request`, head and body (HTTP/1.0; the stream ends after it).
pub fn answer(store: &Store, request: &Result<Request, BadRequest>, asker: Asker, now: SystemTime) -> Vec<u8> {
    let request = match request {
        Ok(request) => request,
        Err(_) => return head_only(400, "Bad request", asker, now),
    };
    match content(store, request, now) {
        Content::Ready {
            encoding,
            body,
            expires,
            varies,
        } => whole(encoding, &body, expires, varies, asker, now),
        Content::Parts { parts, expires } => {
            // lzma costs too much for an answer that is made once.
            let cheap = request
                .encodings
                .iter()
                .copied()
                .find(|encoding| *encoding != Encoding::Lzma);
            let encoding = cheap.unwrap_or(Encoding::Identity);
            match pack(&parts, encoding, Effort::OnTheFly) {
                Ok(body) => whole(encoding, &body, expires, false, asker, now),
                Err(_) => head_only(503, "Directory busy, try again later", asker, now),
            }
        }
        Content::Nothing { status, reason } => head_only(status, reason, asker, now),
    }
}

fn content(store: &Store, request: &Request, now: SystemTime) -> Content {
    match &request.wanted {
        Wanted::Consensus { flavor, signed_by } => match store.consensuses.get(flavor) {
            Some(consensus) => consensus_content(consensus, signed_by, request, now),
            None => NOT_FOUND,
        },
        Wanted::Microdescriptors(digests) => {
            let wanted: BTreeSet<_> = digests.iter().take(DOCUMENTS_MAX).collect();
            let found = wanted
                .into_iter()
                .filter_map(|digest| store.microdescriptors.get(digest));
            parts(found.cloned().collect(), now + LIFETIME_BY_DIGEST)
        }
        Wanted::Servers(which) => descriptors(which, &store.servers, store.own_server.as_ref(), now),
        Wanted::ExtraInfos(which) => descriptors(which, &store.extra_infos, store.own_extra_info.as_ref(), now),
        Wanted::Certificates(which) => certificates(store, which, request, now),
        Wanted::Robots => parts(
            vec![Text::from(&b"User-agent: *\r\nDisallow: /\r\n"[..])],
            now + LIFETIME_ROBOTS,
        ),
        Wanted::Nothing => NOT_FOUND,
        Wanted::Upload => Content::Nothing {
            status: 400,
            reason: "Nonauthoritative directory does not accept posted server descriptors",
        },
    }
}

fn consensus_content(consensus: &Consensus, signed_by: &[String], request: &Request, now: SystemTime) -> Content {
    if now >= consensus.valid_until {
        return Content::Nothing {
            status: 404,
            reason: "Consensus is too old",
        };
    }
    if now < consensus.valid_after {
        return Content::Nothing {
            status: 404,
            reason: "Consensus not yet valid",
        };
    }
    // More than half of those whom the asker trusts must have signed (dir-spec, "Consensus ... URLs").
    let known: Vec<String> = consensus.signed_by.iter().map(ToString::to_string).collect();
    let agreed = signed_by
        .iter()
        .filter(|prefix| known.iter().any(|name| name.starts_with(prefix.as_str())))
        .count();
    if agreed * 2 < signed_by.len() + usize::from(!signed_by.is_empty()) {
        return Content::Nothing {
            status: 404,
            reason: "Consensus not signed by sufficient number of requested authorities",
        };
    }
    if request.modified_since.is_some_and(|date| date >= consensus.valid_after) {
        return Content::Nothing {
            status: 304,
            reason: "Not modified",
        };
    }
    let diff = request
        .has_consensuses
        .iter()
        .find_map(|from| consensus.diffs.get(from));
    let document = diff.unwrap_or(&consensus.document);
    match document.choose(request.encodings.iter().copied()) {
        Some((encoding, body)) => Content::Ready {
            encoding,
            body,
            expires: consensus.fresh_until,
            varies: true,
        },
        None => Content::Nothing {
            status: 406,
            reason: "No acceptable encoding",
        },
    }
}

fn descriptors(which: &Descriptors, held: &[Descriptor], own: Option<&Text>, now: SystemTime) -> Content {
    let wanted = |descriptor: &&Descriptor| match which {
        Descriptors::All => true,
        Descriptors::Authority => false,
        Descriptors::ByDigest(digests) => digests.contains(&descriptor.digest),
        Descriptors::ByFingerprint(relays) => relays.contains(&descriptor.relay),
    };
    match which {
        Descriptors::Authority => parts(own.cloned().into_iter().collect(), now + LIFETIME_BY_DIGEST),
        Descriptors::All => parts(held.iter().map(|each| each.text.clone()).collect(), now + LIFETIME_ALL),
        Descriptors::ByDigest(list) if list.len() > DOCUMENTS_MAX => NOT_FOUND,
        Descriptors::ByFingerprint(list) if list.len() > DOCUMENTS_MAX => NOT_FOUND,
        _ => parts(
            held.iter().filter(wanted).map(|each| each.text.clone()).collect(),
            now + LIFETIME_BY_DIGEST,
        ),
    }
}

fn certificates(store: &Store, which: &Certificates, request: &Request, now: SystemTime) -> Content {
    let found = store.certificates.iter().filter(|each| match which {
        Certificates::All => true,
        Certificates::ByIdentity(list) => list.contains(&each.identity),
        Certificates::BySigningKey(list) => list.contains(&each.signing_key),
        Certificates::ByBoth(list) => list.contains(&(each.identity, each.signing_key)),
    });
    let found: Vec<Text> = found.map(|each| each.text.clone()).collect();
    if !found.is_empty() && request.modified_since.is_some_and(|date| date >= now) {
        return Content::Nothing {
            status: 304,
            reason: "Not modified",
        };
    }
    parts(found, now + LIFETIME_ALL)
}

fn parts(parts: Vec<Text>, expires: SystemTime) -> Content {
    if parts.is_empty() {
        NOT_FOUND
    } else {
        Content::Parts { parts, expires }
    }
}

fn head(status: u16, reason: &str, asker: Asker, now: SystemTime) -> String {
    let mut head = format!(
        "HTTP/1.0 {status} {reason}\r\nDate: {}\r\n",
        httpdate::fmt_http_date(now)
    );
    if let Some(address) = asker.address {
        // Writing into a String does not fail.
        let _ = write!(head, "X-Your-Address-Is: {address}\r\n");
    }
    head
}

fn head_only(status: u16, reason: &str, asker: Asker, now: SystemTime) -> Vec<u8> {
    (head(status, reason, asker, now) + "\r\n").into_bytes()
}

fn whole(encoding: Encoding, body: &[u8], expires: SystemTime, varies: bool, asker: Asker, now: SystemTime) -> Vec<u8> {
    let mut head = head(200, "OK", asker, now);
    let _ = write!(
        head,
        "Content-Type: text/plain\r\nContent-Encoding: {}\r\nContent-Length: {}\r\nExpires: {}\r\n{}\r\n",
        encoding.name(),
        body.len(),
        httpdate::fmt_http_date(expires),
        if varies {
            "Vary: X-Or-Diff-From-Consensus\r\n"
        } else {
            ""
        },
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use relay_formats::fingerprint::RsaIdentity;

    use super::super::request::{Flavor, parse};
    use super::super::store::Packed;
    use super::*;

    const NOON: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn text(bytes: &[u8]) -> Text {
        Text::from(bytes)
    }

    fn store() -> Store {
        let consensus = Consensus {
            valid_after: NOON,
            fresh_until: NOON + HOUR,
            valid_until: NOON + 3 * HOUR,
            signed_by: vec![RsaIdentity([0xaa; 20]), RsaIdentity([0xbb; 20])],
            document: Packed::new(text(b"the whole consensus")).unwrap(),
            diffs: HashMap::from([([9; 32], Packed::new(text(b"what changed")).unwrap())]),
        };
        let descriptor = Descriptor {
            relay: RsaIdentity([1; 20]),
            digest: [2; 20],
            text: text(b"router one\n"),
        };
        Store {
            consensuses: [(Flavor::Microdesc, consensus)].into(),
            microdescriptors: [([3; 32], text(b"onion-key\n"))].into(),
            servers: vec![descriptor],
            own_server: Some(text(b"router self\n")),
            ..Store::default()
        }
    }

    fn ask(name: &str, headers: &str, after: Duration) -> String {
        let request = parse(format!("GET {name} HTTP/1.0\r\n{headers}\r\n").as_bytes()).map(Option::unwrap);
        let said = answer(&store(), &request, Asker { address: None }, NOON + after);
        String::from_utf8(said).unwrap()
    }

    const CONSENSUS: &str = "/tor/status-vote/current/consensus-microdesc";

    #[test]
    fn a_consensus_is_served_while_it_is_valid() {
        let said = ask(CONSENSUS, "", HOUR);
        assert!(
            said.starts_with("HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 1970 01:00:00 GMT\r\n"),
            "{said}"
        );
        assert!(
            said.contains("\r\nExpires: Thu, 01 Jan 1970 01:00:00 GMT\r\n"),
            "{said}"
        );
        assert!(said.contains("\r\nVary: X-Or-Diff-From-Consensus\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\nthe whole consensus"), "{said}");
        assert!(ask(CONSENSUS, "", 3 * HOUR).starts_with("HTTP/1.0 404 Consensus is too old\r\n"));
        assert!(ask("/tor/status-vote/current/consensus", "", HOUR).starts_with("HTTP/1.0 404 Not found\r\n"));
    }

    #[test]
    fn more_than_half_of_the_trusted_must_have_signed() {
        let signed = |list: &str| ask(&format!("{CONSENSUS}/{list}"), "", HOUR).starts_with("HTTP/1.0 200");
        assert!(signed("AA+BB+CC"));
        assert!(signed("aaaa"));
        assert!(!signed("AA+CC"));
        assert!(!signed("CC"));
    }

    #[test]
    fn who_has_an_older_one_gets_what_changed() {
        let known = format!("X-Or-Diff-From-Consensus: {}\r\n", "09".repeat(32));
        assert!(ask(CONSENSUS, &known, HOUR).ends_with("\r\n\r\nwhat changed"));
        assert!(ask(&format!("{CONSENSUS}/diff/{}/AA", "09".repeat(32)), "", HOUR).ends_with("what changed"));
        let unknown = format!("X-Or-Diff-From-Consensus: {}\r\n", "08".repeat(32));
        assert!(ask(CONSENSUS, &unknown, HOUR).ends_with("the whole consensus"));
    }

    #[test]
    fn who_has_the_newest_gets_nothing() {
        let head = "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        assert!(ask(CONSENSUS, head, HOUR).starts_with("HTTP/1.0 304 Not modified\r\n"));
    }

    #[test]
    fn descriptors_are_found_by_digest_fingerprint_and_as_our_own() {
        let one = |name: &str| ask(name, "", HOUR).ends_with("router one\n");
        assert!(one(&format!("/tor/server/d/{}", "02".repeat(20))));
        assert!(one(&format!("/tor/server/fp/{}", "01".repeat(20))));
        assert!(one("/tor/server/all"));
        assert!(ask("/tor/server/authority", "", HOUR).ends_with("router self\n"));
        assert!(ask("/tor/extra/all", "", HOUR).starts_with("HTTP/1.0 404"));
        assert!(ask("/tor/micro/d/AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM", "", HOUR).ends_with("onion-key\n"));
    }

    #[test]
    fn an_asker_that_is_no_relay_is_told_its_own_address() {
        let request = parse(b"GET /tor/robots.txt HTTP/1.0\r\n\r\n").map(Option::unwrap);
        let asker = Asker {
            address: Some([198, 18, 1, 2].into()),
        };
        let said = String::from_utf8(answer(&Store::default(), &request, asker, NOON)).unwrap();
        assert!(said.contains("\r\nX-Your-Address-Is: 198.18.1.2\r\n"), "{said}");
    }

    #[test]
    fn what_is_no_request_is_answered_with_400() {
        let said = answer(&store(), &Err(BadRequest::Malformed), Asker { address: None }, NOON);
        assert!(said.starts_with(b"HTTP/1.0 400 "));
    }
}
