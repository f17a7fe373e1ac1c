//! What a directory request asks for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use relay_formats::fingerprint::RsaIdentity;

use super::compress::Encoding;

/// Bytes of a request's head that we read at most; C tor's `MAX_HEADERS_SIZE` is the same.
pub const HEAD_BYTES_MAX: usize = 50_000;
/// Headers of a request that we look at. More of them are a nuisance, not a request.
const HEADERS_MAX: usize = 64;

/// One request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub wanted: Wanted,
    /// The packings that the asker can unpack, the preferred first. Never empty: `identity` is always among them unless
    /// the name ended in `.z` and nothing else was said.
    pub encodings: BTreeSet<Encoding>,
    /// Nothing is wanted that is not newer than this.
    pub modified_since: Option<SystemTime>,
    /// SHA3-256 of the signed parts of consensuses that the asker has and could patch.
    pub has_consensuses: Vec<[u8; 32]>,
}

/// The two kinds of consensus (dir-spec, "Consensus flavors").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavor {
    /// `consensus`.
    Ns,
    /// `consensus-microdesc`.
    Microdesc,
}

/// Which authority certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// Every one that we hold.
    All,
    /// Those of these authority identities.
    ByIdentity(Vec<RsaIdentity>),
    /// Those with these signing keys.
    BySigningKey(Vec<RsaIdentity>),
    /// Those with these pairs of identity and signing key.
    ByBoth(Vec<(RsaIdentity, RsaIdentity)>),
}

/// Which server descriptors or extra-infos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// Every one that we hold.
    All,
    /// Our own.
    Authority,
    /// By SHA-1 of the document.
    ByDigest(Vec<[u8; 20]>),
    /// By the relay's fingerprint.
    ByFingerprint(Vec<RsaIdentity>),
}

/// What a name on the server stands for (dir-spec, "Standards compliance", "HTTP URLs").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The consensus, if more than half of some authorities signed it. Each is a prefix of a fingerprint, upper case.
    Consensus {
        /// Which of the two.
        flavor: Flavor,
        /// Whom the asker trusts; empty means whoever signed.
        signed_by: Vec<String>,
    },
    /// Microdescriptors by SHA-256.
    Microdescriptors(Vec<[u8; 32]>),
    /// Server descriptors.
    Servers(Descriptors),
    /// Extra-info documents.
    ExtraInfos(Descriptors),
    /// Authority certificates.
    Certificates(Certificates),
    /// `/tor/robots.txt`.
    Robots,
    /// A name we do not have.
    Nothing,
    /// An upload, which only authorities and HSDirs take.
    Upload,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The head does not end within [`HEAD_BYTES_MAX`].
    #[error("the head of the request is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    /// Not `METHOD NAME HTTP/1.x` and headers.
    #[error("not an HTTP/1 request")]
    Malformed,
}

/// Reads a request. `None`: the head is not whole yet.
///
/// # Errors
/// [`BadRequest`], which is answered with 400 and the end of the stream.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => return Err(BadRequest::TooLong),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadRequest::Malformed),
    }
    let (Some(method), Some(path)) = (head.method, head.path) else {
        return Err(BadRequest::Malformed);
    };
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };

    let (name, packed) = path.strip_suffix(".z").map_or((path, false), |name| (name, true));
    let (mut wanted, diffs_in_name) = match method {
        "GET" => name_to_wanted(name),
        "POST" => (Wanted::Upload, Vec::new()),
        _ => return Err(BadRequest::Malformed),
    };
    if wanted == Wanted::Nothing && name.starts_with("/tor/hs/") && method == "POST" {
        wanted = Wanted::Upload;
    }
    let mut has_consensuses = diffs_in_name;
    has_consensuses.extend(
        header("x-or-diff-from-consensus")
            .into_iter()
            .flat_map(digests_in_header),
    );
    Ok(Some(Request {
        wanted,
        encodings: encodings(header("accept-encoding"), packed),
        modified_since: header("if-modified-since").and_then(|date| httpdate::parse_http_date(date).ok()),
        has_consensuses,
    }))
}

/// With no header a name with `.z` means deflate and one without means identity; with one, what it lists and identity.
fn encodings(accepted: Option<&str>, packed: bool) -> BTreeSet<Encoding> {
    let Some(accepted) = accepted else {
        return BTreeSet::from([if packed { Encoding::Deflate } else { Encoding::Identity }]);
    };
    let named = accepted
        .split(',')
        .filter_map(|name| Encoding::by_name(name.split(';').next().unwrap_or("").trim()));
    named
        .chain([Encoding::Identity])
        .chain(packed.then_some(Encoding::Deflate))
        .collect()
}

fn digests_in_header(value: &str) -> Vec<[u8; 32]> {
    value
        .split([',', ' '])
        .filter_map(|word| hex_array(word.trim()))
        .collect()
}

fn name_to_wanted(name: &str) -> (Wanted, Vec<[u8; 32]>) {
    let Some(name) = name.strip_prefix("/tor/") else {
        return (Wanted::Nothing, Vec::new());
    };
    if let Some(rest) = name.strip_prefix("status-vote/current/consensus") {
        return consensus(rest);
    }
    let wanted = if let Some(list) = name.strip_prefix("micro/d/") {
        Some(Wanted::Microdescriptors(base64_digests(list)))
    } else if let Some(rest) = name.strip_prefix("server/") {
        descriptors(rest).map(Wanted::Servers)
    } else if let Some(rest) = name.strip_prefix("extra/") {
        descriptors(rest).map(Wanted::ExtraInfos)
    } else if let Some(rest) = name.strip_prefix("keys/") {
        certificates(rest).map(Wanted::Certificates)
    } else if name == "robots.txt" {
        Some(Wanted::Robots)
    } else {
        None
    };
    (wanted.unwrap_or(Wanted::Nothing), Vec::new())
}

/// `[-microdesc][/diff/HASH][/FP+FP…]`.
fn consensus(rest: &str) -> (Wanted, Vec<[u8; 32]>) {
    let (flavor, rest) = match rest.strip_prefix("-microdesc") {
        Some(rest) => (Flavor::Microdesc, rest),
        None => (Flavor::Ns, rest),
    };
    let mut steps = rest.split('/');
    if steps.next() != Some("") {
        return (Wanted::Nothing, Vec::new()); // another flavour, such as `consensus-foo`
    }
    let mut steps = steps.peekable();
    let mut from = Vec::new();
    if steps.peek() == Some(&"diff") {
        steps.next();
        from.extend(steps.next().and_then(hex_array));
    }
    let signed_by = steps
        .next()
        .unwrap_or("")
        .split('+')
        .filter(|prefix| !prefix.is_empty());
    let signed_by = signed_by.filter(|prefix| prefix.bytes().all(|digit| digit.is_ascii_hexdigit()));
    (
        Wanted::Consensus {
            flavor,
            signed_by: signed_by.map(str::to_ascii_uppercase).collect(),
        },
        from,
    )
}

fn descriptors(rest: &str) -> Option<Descriptors> {
    match rest {
        "all" => Some(Descriptors::All),
        "authority" => Some(Descriptors::Authority),
        _ => match rest.split_once('/')? {
            ("d", list) => Some(Descriptors::ByDigest(list.split('+').filter_map(hex_array).collect())),
            ("fp", list) => Some(Descriptors::ByFingerprint(identities(list))),
            _ => None,
        },
    }
}

fn certificates(rest: &str) -> Option<Certificates> {
    match rest {
        "all" => Some(Certificates::All),
        "authority" => None,
        _ => match rest.split_once('/')? {
            ("fp", list) => Some(Certificates::ByIdentity(identities(list))),
            ("sk", list) => Some(Certificates::BySigningKey(identities(list))),
            ("fp-sk", list) => Some(Certificates::ByBoth(
                list.split('+')
                    .filter_map(|pair| pair.split_once('-'))
                    .filter_map(|(identity, key)| Some((identity.parse().ok()?, key.parse().ok()?)))
                    .collect(),
            )),
            _ => None,
        },
    }
}

fn identities(list: &str) -> Vec<RsaIdentity> {
    list.split('+')
        .filter_map(|fingerprint| fingerprint.parse().ok())
        .collect()
}

fn base64_digests(list: &str) -> Vec<[u8; 32]> {
    let decoded = list.split('-').filter_map(|digest| STANDARD_NO_PAD.decode(digest).ok());
    decoded.filter_map(|digest| digest.try_into().ok()).collect()
}

fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(head: &str) -> Request {
        parse(format!("{head}\r\n\r\n").as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_client_of_c_tor_asks_for_a_consensus_with_what_it_has() {
        let hash = "0F".repeat(32);
        let request = ask(&format!(
            "GET /tor/status-vote/current/consensus-microdesc/0232AF+14C131.z HTTP/1.0\r\nHost: 198.18.200.5\r\n\
             If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT\r\nAccept-Encoding: deflate, gzip, x-tor-lzma, x-zstd\r\n\
             X-Or-Diff-From-Consensus: {hash}"
        ));
        let signed_by = vec!["0232AF".to_owned(), "14C131".to_owned()];
        assert_eq!(
            request.wanted,
            Wanted::Consensus {
                flavor: Flavor::Microdesc,
                signed_by
            }
        );
        assert_eq!(request.encodings.first(), Some(&Encoding::Lzma));
        assert_eq!(request.has_consensuses, [[0x0f; 32]]);
        let noon = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_348_800);
        assert_eq!(request.modified_since, Some(noon));
    }

    #[test]
    fn a_name_with_z_means_deflate_where_nothing_else_is_said() {
        assert_eq!(
            ask("GET /tor/server/authority.z HTTP/1.0").encodings,
            BTreeSet::from([Encoding::Deflate])
        );
        assert_eq!(
            ask("GET /tor/server/authority HTTP/1.0").encodings,
            BTreeSet::from([Encoding::Identity])
        );
        let both = ask("GET /tor/server/all.z HTTP/1.0\r\nAccept-Encoding: identity");
        assert_eq!(both.encodings, BTreeSet::from([Encoding::Deflate, Encoding::Identity]));
    }

    #[test]
    fn names_mean_what_the_specification_says() {
        let digest = STANDARD_NO_PAD.encode([7; 32]);
        let fingerprint = "AB".repeat(20);
        let id = RsaIdentity([0xab; 20]);
        let cases = [
            (
                format!("/tor/micro/d/{digest}-{digest}"),
                Wanted::Microdescriptors(vec![[7; 32]; 2]),
            ),
            (
                format!("/tor/server/fp/{fingerprint}"),
                Wanted::Servers(Descriptors::ByFingerprint(vec![id])),
            ),
            (
                format!("/tor/extra/d/{fingerprint}+00"),
                Wanted::ExtraInfos(Descriptors::ByDigest(vec![[0xab; 20]])),
            ),
            ("/tor/keys/all".to_owned(), Wanted::Certificates(Certificates::All)),
            (
                format!("/tor/keys/fp-sk/{fingerprint}-{fingerprint}"),
                Wanted::Certificates(Certificates::ByBoth(vec![(id, id)])),
            ),
            ("/tor/status-vote/current/consensus-foo".to_owned(), Wanted::Nothing),
            (
                "/tor/status-vote/current/consensus".to_owned(),
                Wanted::Consensus {
                    flavor: Flavor::Ns,
                    signed_by: vec![],
                },
            ),
            ("/tor/robots.txt".to_owned(), Wanted::Robots),
            ("/".to_owned(), Wanted::Nothing),
        ];
        for (name, wanted) in cases {
            assert_eq!(ask(&format!("GET {name} HTTP/1.0")).wanted, wanted, "{name}");
        }
        assert_eq!(ask("POST /tor/ HTTP/1.0").wanted, Wanted::Upload);
    }

    #[test]
    fn half_a_head_waits_and_an_endless_one_is_refused() {
        assert_eq!(parse(b"GET /tor/keys/all HTTP/1.0\r\n"), Ok(None));
        let endless = format!("GET /tor/keys/all HTTP/1.0\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(endless.as_bytes()), Err(BadRequest::TooLong));
        assert_eq!(parse(b"\x16\x03\x01 hello\r\n\r\n"), Err(BadRequest::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
            let _ = parse(&bytes);
        }
        #[test]
        fn no_name_makes_it_panic(name in "/tor/[ -~]{0,300}") {
            let _ = parse(format!("GET {name} HTTP/1.0\r\n\r\n").as_bytes());
        }
    }
}
