//! What a directory request asks for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use relay_formats::fingerprint::RsaIdentity;

use super::compress::Encoding;

/// Bytes of a request's head that we read at most; C tor's `MAX_HEADERS_SIZE` is the same.
pub const HEAD_BYTES_MAX: usize = 50_000;
/// Bytes of an upload that we read at most: an onion service's descriptor, as large as `HSV3MaxDescriptorSize` lets it be
/// (50,000 by default) and some more, so that one that is too long is answered.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Older consensuses that an asker may name; C tor's clients name one.
const HAS_MAX: usize = 64;
/// Headers of a request that we look at. More of them are a nuisance, not a request.
const HEADERS_MAX: usize = 64;

/// One request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub wanted: Wanted,
    /// The packings that the asker can unpack, the preferred first. `Identity` is always among them.
    pub encodings: BTreeSet<Encoding>,
    /// Nothing is wanted that is not newer than this.
    pub modified_since: Option<SystemTime>,
    /// SHA3-256 of the signed parts of consensuses that the asker has and could patch.
    pub has_consensuses: Vec<[u8; 32]>,
    /// What is uploaded; empty unless `wanted` is [`Wanted::PublishOnionService`].
    pub body: Vec<u8>,
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
        /// Whether nothing but a diff will do (`diff` in the name).
        diff_only: bool,
    },
    /// Microdescriptors by SHA-256.
    Microdescriptors(Vec<[u8; 32]>),
    /// Server descriptors.
    Servers(Descriptors),
    /// Extra-info documents.
    ExtraInfos(Descriptors),
    /// Authority certificates.
    Certificates(Certificates),
    /// An onion service's descriptor, by its blinded key (rend-spec, "Publishing"); `None` is no such key.
    OnionService(Option<[u8; 32]>),
    /// An onion service wants to leave its descriptor; `false` is another version than 3.
    PublishOnionService(bool),
    /// `/` or `/tor/`: torrc `DirPortFrontPage`.
    FrontPage,
    /// `/tor/robots.txt`.
    Robots,
    /// A name below `/tor/keys/` that says nothing.
    BadKeys,
    /// A name that names a diff badly.
    BadDiff,
    /// A name we do not have.
    Nothing,
    /// An upload that only authorities take.
    Upload,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The head does not end within [`HEAD_BYTES_MAX`], or the body not within [`BODY_BYTES_MAX`].
    #[error("the request is longer than {HEAD_BYTES_MAX} bytes and {BODY_BYTES_MAX} of a body")]
    TooLong,
    /// Not `METHOD NAME HTTP/1.x` and headers.
    #[error("not an HTTP/1 request")]
    Malformed,
}

/// Reads a request. `None`: it is not whole yet.
///
/// # Errors
/// [`BadRequest`], which is answered with 400 and the end of the stream.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) => return Err(BadRequest::TooLong),
        Err(_) => return Err(BadRequest::Malformed),
    };
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

    // C tor reads every name as if it began so.
    let path = match path.starts_with("/tor/") {
        true => path.to_owned(),
        false => format!("/tor/{}", path.strip_prefix('/').unwrap_or(path)),
    };
    let (name, packed) = path
        .strip_suffix(".z")
        .map_or((path.as_str(), false), |name| (name, true));
    let (wanted, diffs_in_name) = match method {
        "GET" => name_to_wanted(name),
        "POST" => (upload(name), Vec::new()),
        _ => return Err(BadRequest::Malformed),
    };
    let mut body = Vec::new();
    if matches!(wanted, Wanted::PublishOnionService(_)) {
        let length: usize = match header("content-length") {
            Some(length) => length.parse().map_err(|_| BadRequest::Malformed)?,
            None => bytes.len() - head_bytes,
        };
        if length > BODY_BYTES_MAX {
            return Err(BadRequest::TooLong);
        }
        match bytes.get(head_bytes..head_bytes + length) {
            Some(whole) => body.extend_from_slice(whole),
            None => return Ok(None),
        }
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
        body,
    }))
}

fn upload(name: &str) -> Wanted {
    match name.strip_prefix("/tor/hs/") {
        Some(rest) => Wanted::PublishOnionService(rest.strip_prefix("3/publish").is_some()),
        None => Wanted::Upload,
    }
}

/// What the header lists, and always identity; a name with `.z` says that deflate is welcome.
fn encodings(accepted: Option<&str>, packed: bool) -> BTreeSet<Encoding> {
    let named = accepted
        .unwrap_or_default()
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
        .take(HAS_MAX)
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
        Some(certificates(rest).map_or(Wanted::BadKeys, Wanted::Certificates))
    } else if let Some(key) = name.strip_prefix("hs/3/") {
        Some(Wanted::OnionService(base64_digests(key).pop()))
    } else if name == "robots.txt" {
        Some(Wanted::Robots)
    } else if name.is_empty() {
        Some(Wanted::FrontPage)
    } else {
        None
    };
    (wanted.unwrap_or(Wanted::Nothing), Vec::new())
}

/// `[-FLAVOR][/diff/HASH][/FP+FP…]`. As C tor does, a flavour that nobody knows counts as the plain one.
fn consensus(rest: &str) -> (Wanted, Vec<[u8; 32]>) {
    let (flavor, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let flavor = match flavor {
        "-microdesc" => Flavor::Microdesc,
        _ => Flavor::Ns,
    };
    let (from, signed_by) = match rest.strip_prefix("diff/") {
        Some(rest) => {
            let (hash, signed_by) = rest.split_once('/').unwrap_or((rest, ""));
            match hex_array(hash) {
                Some(hash) => (Some(hash), signed_by),
                None => return (Wanted::BadDiff, Vec::new()),
            }
        }
        None => (None, rest),
    };
    let signed_by = signed_by.split('+').filter(|prefix| !prefix.is_empty());
    let signed_by = signed_by.filter(|prefix| prefix.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let wanted = Wanted::Consensus {
        flavor,
        signed_by: signed_by.map(str::to_ascii_uppercase).collect(),
        diff_only: from.is_some(),
    };
    (wanted, from.into_iter().collect())
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
        // An authority's own; we are none.
        "authority" => Some(Certificates::ByIdentity(Vec::new())),
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
mod tests;
