//! Bodies of the messages that open, answer and end streams (tor-spec, "Opening streams", "Closing streams", "Remote
//! hostname lookup").

use std::net::{IpAddr, Ipv6Addr};

use crate::destination::{BadName, Destination, NameRule, reverse_address};
use crate::reader::{CutShort, Reader};
use crate::relay_cells::{DATA_BYTES_MAX, EndReason};

/// What a client wants of the two families, in BEGIN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BeginFlags {
    /// An IPv6 address will do.
    pub ipv6_okay: bool,
    /// An IPv4 address will not do.
    pub ipv4_not_okay: bool,
    /// IPv6 where there are both.
    pub ipv6_preferred: bool,
}

impl BeginFlags {
    fn from_bits(bits: u32) -> Self {
        Self {
            ipv6_okay: bits & 1 != 0,
            ipv4_not_okay: bits & 2 != 0,
            ipv6_preferred: bits & 4 != 0,
        }
    }
}

/// BEGIN: connect me to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin<'a> {
    /// Where to.
    pub destination: Destination<'a>,
    /// Never 0.
    pub port: u16,
    /// Which family.
    pub flags: BeginFlags,
}

/// Why a BEGIN opens no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBegin {
    /// Not an address, a colon, a port and a zero byte, or port 0.
    #[error("BEGIN without address and port")]
    Malformed,
    /// The host is none that may be looked up.
    #[error(transparent)]
    Name(#[from] BadName),
}

impl BadBegin {
    /// What END says about it.
    pub fn reason(self) -> EndReason {
        match self {
            Self::Malformed => EndReason::TorProtocol,
            Self::Name(_) => EndReason::ResolveFailed,
        }
    }
}

impl<'a> Begin<'a> {
    /// Reads the body. Flags count only where all four bytes of them are there; fewer are as good as none (TROVE-2026-007).
    pub fn read(data: &'a [u8], rule: NameRule) -> Result<Self, BadBegin> {
        let end = data.iter().position(|byte| *byte == 0).ok_or(BadBegin::Malformed)?;
        let (text, rest) = data.split_at_checked(end).ok_or(BadBegin::Malformed)?;
        let colon = text.iter().rposition(|byte| *byte == b':').ok_or(BadBegin::Malformed)?;
        let (host, port) = text.split_at_checked(colon).ok_or(BadBegin::Malformed)?;
        let port = port
            .split_first()
            .and_then(|(_, digits)| read_port(digits))
            .ok_or(BadBegin::Malformed)?;
        let mut rest = Reader::new(rest);
        let flags = rest.u8().and_then(|_zero| rest.u32()).unwrap_or(0);
        Ok(Self {
            destination: Destination::read(host, rule)?,
            port,
            flags: BeginFlags::from_bits(flags),
        })
    }
}

fn read_port(digits: &[u8]) -> Option<u16> {
    let plain = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok().filter(|port| *port != 0)
}

/// A body under way to a client; no longer than any cell takes.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamBody {
    bytes: [u8; DATA_BYTES_MAX],
    length: usize,
}

impl StreamBody {
    fn empty() -> Self {
        Self {
            bytes: [0; DATA_BYTES_MAX],
            length: 0,
        }
    }

    /// All of `parts`, or nothing of them where they do not fit.
    fn push(&mut self, parts: &[&[u8]]) -> bool {
        let needed: usize = parts.iter().map(|part| part.len()).sum();
        let Some(room) = self
            .bytes
            .get_mut(self.length..)
            .and_then(|room| room.get_mut(..needed))
        else {
            return false;
        };
        let source = parts.iter().flat_map(|part| part.iter());
        room.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        self.length += needed;
        true
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut body = Self::empty();
        body.push(parts);
        body
    }

    /// What goes into the message.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What it holds may be a user's destination.
impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[stream body]")
    }
}

/// CONNECTED: the stream is open. `ttl_seconds` is what the name may be cached for, after clipping.
pub fn connected(address: IpAddr, ttl_seconds: u32) -> StreamBody {
    let ttl = ttl_seconds.to_be_bytes();
    match address {
        IpAddr::V4(v4) => StreamBody::of(&[&v4.octets(), &ttl]),
        IpAddr::V6(v6) => StreamBody::of(&[&[0, 0, 0, 0, 6], &v6.octets(), &ttl]),
    }
}

/// Reads CONNECTED: `None` for an empty one, as a directory stream gets it.
pub fn read_connected(data: &[u8]) -> Result<Option<(IpAddr, u32)>, CutShort> {
    if data.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(data);
    let v4 = reader.ipv4()?;
    if !v4.is_unspecified() {
        return Ok(Some((v4.into(), reader.u32().unwrap_or(0))));
    }
    match reader.u8()? {
        6 => Ok(Some((reader.ipv6()?.into(), reader.u32().unwrap_or(0)))),
        _ => Err(CutShort),
    }
}

/// END for any reason but the exit policy, which says more.
pub fn end(reason: EndReason) -> StreamBody {
    StreamBody::of(&[&[reason as u8]])
}

/// END because the exit policy refuses what the name resolved to, so that the client asks elsewhere the next time.
pub fn end_exit_policy(address: IpAddr, ttl_seconds: u32) -> StreamBody {
    let (reason, ttl) = ([EndReason::ExitPolicy as u8], ttl_seconds.to_be_bytes());
    match address {
        IpAddr::V4(v4) => StreamBody::of(&[&reason, &v4.octets(), &ttl]),
        IpAddr::V6(v6) => StreamBody::of(&[&reason, &v6.octets(), &ttl]),
    }
}

/// Reads an END's reason: an empty body means MISC (TROVE-2026-011), and so does a reason that nobody has defined.
pub fn read_end(data: &[u8]) -> EndReason {
    match data.first() {
        Some(2) => EndReason::ResolveFailed,
        Some(3) => EndReason::ConnectRefused,
        Some(4) => EndReason::ExitPolicy,
        Some(5) => EndReason::Destroy,
        Some(6) => EndReason::Done,
        Some(7) => EndReason::Timeout,
        Some(8) => EndReason::NoRoute,
        Some(9) => EndReason::Hibernating,
        Some(10) => EndReason::Internal,
        Some(11) => EndReason::ResourceLimit,
        Some(12) => EndReason::ConnReset,
        Some(13) => EndReason::TorProtocol,
        Some(14) => EndReason::NotDirectory,
        _ => EndReason::Misc,
    }
}

/// RESOLVE: what a client asks. `Debug` tells nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resolve<'a> {
    /// The addresses of a name; an address is its own answer.
    Forward(Destination<'a>),
    /// The name of an address.
    Reverse(IpAddr),
}

impl std::fmt::Debug for Resolve<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[question]")
    }
}

impl<'a> Resolve<'a> {
    /// Reads the body: a name, with or without a zero byte behind it.
    pub fn read(data: &'a [u8], rule: NameRule) -> Result<Self, BadName> {
        let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(name).map_err(|_| BadName)?;
        match reverse_address(text) {
            Some(address) => address.map(Self::Reverse),
            None => Destination::read(name, rule).map(Self::Forward),
        }
    }
}

/// One answer to RESOLVE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A host name, of an address; check it with [`checked_name`](crate::destination::checked_name) first.
    Name(&'a str),
    /// An address.
    Address(IpAddr),
    /// Ask again later.
    TransientError,
    /// There is no answer.
    PermanentError,
}

impl std::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[answer]")
    }
}

impl Answer<'_> {
    fn write(&self, body: &mut StreamBody, ttl: &[u8; 4]) -> bool {
        match self {
            // At most 253 bytes, or it was never checked and does not pass.
            Self::Name(name) => match u8::try_from(name.len()) {
                Ok(length) => body.push(&[&[0, length], name.as_bytes(), ttl]),
                Err(_) => false,
            },
            Self::Address(IpAddr::V4(v4)) => body.push(&[&[4, 4], &v4.octets(), ttl]),
            Self::Address(IpAddr::V6(v6)) => body.push(&[&[6, 16], &v6.octets(), ttl]),
            Self::TransientError => body.push(&[&[0xf0, 0], ttl]),
            Self::PermanentError => body.push(&[&[0xf1, 0], ttl]),
        }
    }
}

/// The TTL that every RESOLVED carries, whatever the DNS said: an exit's cache must not be readable from outside (C tor
/// 0.4.9.4, bug 40979).
pub const RESOLVED_TTL_SECONDS: u32 = 60;

/// RESOLVED with as many of the answers as fit; there are 488 bytes.
pub fn resolved<'a>(answers: impl IntoIterator<Item = Answer<'a>>) -> StreamBody {
    let (mut body, ttl) = (StreamBody::empty(), RESOLVED_TTL_SECONDS.to_be_bytes());
    for answer in answers {
        if !answer.write(&mut body, &ttl) {
            break;
        }
    }
    body
}

/// Reads RESOLVED: the answers with their TTL in seconds. Types that nobody has defined are passed over.
pub fn read_resolved(data: &[u8]) -> Result<Vec<(Answer<'_>, u32)>, CutShort> {
    let mut reader = Reader::new(data);
    let mut answers = Vec::new();
    while !reader.is_empty() {
        let (kind, length) = (reader.u8()?, reader.u8()?);
        let value = reader.take(usize::from(length))?;
        let ttl = reader.u32()?;
        answers.extend(read_answer(kind, value).map(|answer| (answer, ttl)));
    }
    Ok(answers)
}

fn read_answer(kind: u8, value: &[u8]) -> Option<Answer<'_>> {
    match kind {
        0 => std::str::from_utf8(value).ok().map(Answer::Name),
        4 => <[u8; 4]>::try_from(value)
            .ok()
            .map(|octets| Answer::Address(octets.into())),
        6 => <[u8; 16]>::try_from(value)
            .ok()
            .map(|octets| Answer::Address(Ipv6Addr::from(octets).into())),
        0xf0 => Some(Answer::TransientError),
        0xf1 => Some(Answer::PermanentError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begin(data: &[u8]) -> Result<Begin<'_>, BadBegin> {
        Begin::read(data, NameRule::Rfc953)
    }

    #[test]
    fn a_begin_names_host_and_port() {
        let table: [(&[u8], Destination<'_>, u16); 4] = [
            (b"example.com:80\0", Destination::Name("example.com"), 80),
            (
                b"192.0.2.1:443\0",
                Destination::Address(IpAddr::from([192, 0, 2, 1])),
                443,
            ),
            (
                b"[2001:db8::1]:65535\0",
                Destination::Address("2001:db8::1".parse().unwrap()),
                65535,
            ),
            (
                b"2001:db8::1:80\0",
                Destination::Address("2001:db8::1".parse().unwrap()),
                80,
            ),
        ];
        for (data, destination, port) in table {
            assert_eq!(
                begin(data),
                Ok(Begin {
                    destination,
                    port,
                    flags: BeginFlags::default()
                })
            );
        }
    }

    /// TROVE-2026-007: the zero byte may be the last one, and flags may be cut short.
    #[test]
    fn trove_2026_007_flags_count_only_when_all_four_bytes_are_there() {
        for given in 0..=4 {
            let mut data = b"example.com:80\0".to_vec();
            data.extend(&[0, 0, 0, 7][..given]);
            let all = given == 4;
            let flags = BeginFlags {
                ipv6_okay: all,
                ipv4_not_okay: all,
                ipv6_preferred: all,
            };
            assert_eq!(begin(&data).map(|begin| begin.flags), Ok(flags), "{given}");
        }
    }

    #[test]
    fn a_malformed_begin_is_a_protocol_error_and_a_bad_name_fails_to_resolve() {
        let malformed: [&[u8]; 9] = [
            b"",
            b"\0",
            b"example.com:80",
            b"example.com\0",
            b"example.com:\0",
            b"example.com:0\0",
            b"example.com:65536\0",
            b"example.com:+80\0",
            b"example.com:8 0\0",
        ];
        for data in malformed {
            assert_eq!(
                begin(data).map_err(BadBegin::reason),
                Err(EndReason::TorProtocol),
                "{data:?}"
            );
        }
        for data in [&b":80\0"[..], b"a b:80\0", b"x.onion:80\0", b"[::1:80\0"] {
            assert_eq!(
                begin(data).map_err(BadBegin::reason),
                Err(EndReason::ResolveFailed),
                "{data:?}"
            );
        }
    }

    #[test]
    fn connected_tells_address_and_ttl() {
        for address in [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()] {
            assert_eq!(
                read_connected(connected(address, 300).as_bytes()),
                Ok(Some((address, 300)))
            );
        }
        assert_eq!(
            connected(IpAddr::from([192, 0, 2, 1]), 1).as_bytes(),
            [192, 0, 2, 1, 0, 0, 0, 1]
        );
        assert_eq!(connected("::1".parse().unwrap(), 1).as_bytes().len(), 25);
        assert_eq!(read_connected(&[]), Ok(None));
        assert_eq!(read_connected(&[0, 0, 0, 0, 4, 1]), Err(CutShort));
        assert_eq!(read_connected(&[1, 2]), Err(CutShort));
    }

    /// TROVE-2026-011: no reason is a reason.
    #[test]
    fn trove_2026_011_an_empty_end_means_misc() {
        assert_eq!(read_end(&[]), EndReason::Misc);
        assert_eq!(
            (read_end(&[0]), read_end(&[15]), read_end(&[255])),
            (EndReason::Misc, EndReason::Misc, EndReason::Misc)
        );
        for reason in 1..=14 {
            assert_eq!(read_end(&[reason]) as u8, reason);
            assert_eq!(end(read_end(&[reason])).as_bytes(), [reason]);
        }
        assert_eq!(
            end_exit_policy(IpAddr::from([192, 0, 2, 1]), 60).as_bytes(),
            [4, 192, 0, 2, 1, 0, 0, 0, 60]
        );
        assert_eq!(end_exit_policy("::1".parse().unwrap(), 60).as_bytes().len(), 21);
    }

    /// tor#40979: what stood in the cache for how long could be read off the answers.
    #[test]
    fn trove_40979_every_answer_is_remembered_for_a_minute() {
        let address = Answer::Address(IpAddr::from([192, 0, 2, 1]));
        for answer in [
            Answer::Name("example.com"),
            address,
            Answer::TransientError,
            Answer::PermanentError,
        ] {
            let body = resolved([answer, answer]);
            let read = read_resolved(body.as_bytes()).unwrap();
            assert!(read.iter().all(|(_, ttl)| *ttl == 60) && read.len() == 2);
        }
    }

    #[test]
    fn a_question_is_forward_or_reverse() {
        let read = |data: &'static [u8]| Resolve::read(data, NameRule::Rfc953);
        assert_eq!(
            read(b"example.com\0"),
            Ok(Resolve::Forward(Destination::Name("example.com")))
        );
        assert_eq!(
            read(b"example.com"),
            Ok(Resolve::Forward(Destination::Name("example.com")))
        );
        assert_eq!(
            read(b"192.0.2.1\0"),
            Ok(Resolve::Forward(Destination::Address(IpAddr::from([192, 0, 2, 1]))))
        );
        assert_eq!(
            read(b"1.2.0.192.in-addr.arpa\0"),
            Ok(Resolve::Reverse(IpAddr::from([192, 0, 2, 1])))
        );
        for odd in [&b""[..], b"\0", b"2.0.192.in-addr.arpa\0", b"a b\0", b"\xff\0"] {
            assert_eq!(read(odd), Err(BadName));
        }
    }

    #[test]
    fn answers_come_back_as_they_went_and_always_last_a_minute() {
        let answers = [
            Answer::Address(IpAddr::from([192, 0, 2, 1])),
            Answer::Address("2001:db8::1".parse().unwrap()),
            Answer::Name("example.com"),
            Answer::TransientError,
            Answer::PermanentError,
        ];
        let body = resolved(answers);
        assert_eq!(
            read_resolved(body.as_bytes()),
            Ok(answers.map(|answer| (answer, 60)).to_vec())
        );
    }

    #[test]
    fn answers_that_do_not_fit_stay_out_whole() {
        let many = resolved((0..200).map(|last| Answer::Address(IpAddr::from([192, 0, 2, last]))));
        assert_eq!(
            (many.as_bytes().len(), read_resolved(many.as_bytes()).unwrap().len()),
            (480, 48)
        );
        let long = "a".repeat(256);
        assert_eq!(resolved([Answer::Name(&long)]).as_bytes(), []);
    }

    #[test]
    fn unknown_answers_are_passed_over() {
        assert_eq!(read_resolved(&[9, 1, 7, 0, 0, 0, 1]), Ok(vec![]));
        assert_eq!(read_resolved(&[4, 3, 1, 2, 3, 0, 0, 0, 1]), Ok(vec![]));
        assert_eq!(read_resolved(&[4, 4, 1, 2, 3]), Err(CutShort));
    }

    proptest! {
        #[test]
        fn no_body_makes_a_reader_panic(data in prop::collection::vec(any::<u8>(), 0..=498)) {
            for rule in [NameRule::Rfc953, NameRule::Printable] {
                let _ = (Begin::read(&data, rule), Resolve::read(&data, rule));
            }
            let _ = (read_connected(&data), read_end(&data), read_resolved(&data));
        }

        #[test]
        fn begins_near_the_real_form_do_not_panic(data in r"[a-c:\[\]0-9.]{0,20}:[0-9]{0,6}\x00?.{0,5}") {
            let _ = Begin::read(data.as_bytes(), NameRule::Rfc953);
        }
    }
}
