//! Bodies of the cells that speak about the link itself (tor-spec, "Negotiating and initializing channels").
//!
//! CERTS is read where certificates are known, in relay-formats.

use std::net::{IpAddr, Ipv4Addr};

use crate::reader::{CutShort, Reader};

/// Why the body of a link cell makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLinkCell {
    /// The body ends too early.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// VERSIONS has an odd length.
    #[error("VERSIONS has an odd length")]
    OddVersions,
    /// AUTHENTICATE is of another type than 3, or too short for it.
    #[error("AUTHENTICATE is not of type 3")]
    NotTypeThree,
    /// An IPv4 or IPv6 address in NETINFO has not the length of one.
    #[error("an address in NETINFO has a wrong length")]
    AddressLength,
    /// PADDING_NEGOTIATE has an unknown version or command.
    #[error("PADDING_NEGOTIATE is unknown")]
    UnknownPadding,
}

/// The versions that a VERSIONS body lists.
pub fn versions(body: &[u8]) -> Result<impl Iterator<Item = u16>, BadLinkCell> {
    let (pairs, odd) = body.as_chunks::<2>();
    if odd.is_empty() {
        Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)))
    } else {
        Err(BadLinkCell::OddVersions)
    }
}

/// The body of a VERSIONS cell.
pub fn write_versions(versions: &[u16]) -> Vec<u8> {
    versions.iter().flat_map(|version| version.to_be_bytes()).collect()
}

/// The one way to authenticate that is left: Ed25519-SHA256-RFC5705.
pub const AUTH_TYPE_ED25519: u16 = 3;

/// Whether an AUTH_CHALLENGE offers [`AUTH_TYPE_ED25519`].
pub fn challenge_offers_ed25519(body: &[u8]) -> Result<bool, BadLinkCell> {
    let mut reader = Reader::new(body);
    reader.take(32)?;
    let mut offered = false;
    for _ in 0..reader.u16()? {
        offered |= reader.u16()? == AUTH_TYPE_ED25519;
    }
    Ok(offered)
}

/// The body of an AUTH_CHALLENGE that offers [`AUTH_TYPE_ED25519`] alone.
pub fn write_auth_challenge(challenge: &[u8; 32]) -> Vec<u8> {
    [&challenge[..], &1_u16.to_be_bytes(), &AUTH_TYPE_ED25519.to_be_bytes()].concat()
}

/// Bytes of AUTHENTICATE type 3 up to and without RAND: what the responder computes for itself.
pub const AUTHENTICATE_FIXED_BYTES: usize = 8 + 8 * 32;
/// Bytes that the signature covers: the fixed part and 24 random bytes.
pub const AUTHENTICATE_SIGNED_BYTES: usize = AUTHENTICATE_FIXED_BYTES + 24;
/// Bytes of AUTHENTICATE type 3 with its signature.
pub const AUTHENTICATE_BYTES: usize = AUTHENTICATE_SIGNED_BYTES + 64;

/// AUTHENTICATE type 3.
#[derive(Clone, Copy, Debug)]
pub struct Authenticate<'a> {
    /// TYPE to TLSSECRETS.
    pub fixed: &'a [u8],
    /// TYPE to RAND.
    pub signed: &'a [u8],
    /// Ed25519 signature over `signed`.
    pub signature: [u8; 64],
}

impl<'a> Authenticate<'a> {
    /// Reads the body; bytes beyond the signature are ignored, as C tor does.
    pub fn read(body: &'a [u8]) -> Result<Self, BadLinkCell> {
        let mut reader = Reader::new(body);
        if reader.u16()? != AUTH_TYPE_ED25519 {
            return Err(BadLinkCell::NotTypeThree);
        }
        let length = usize::from(reader.u16()?);
        let mut inner = Reader::new(reader.take(length)?);
        let signed = inner.take(AUTHENTICATE_SIGNED_BYTES)?;
        let (fixed, _) = signed.split_at_checked(AUTHENTICATE_FIXED_BYTES).ok_or(CutShort)?;
        Ok(Self {
            fixed,
            signed,
            signature: inner.array()?,
        })
    }

    /// The body of the cell.
    pub fn write(signed: &[u8; AUTHENTICATE_SIGNED_BYTES], signature: &[u8; 64]) -> Vec<u8> {
        let length = AUTHENTICATE_BYTES as u16;
        [
            &AUTH_TYPE_ED25519.to_be_bytes()[..],
            &length.to_be_bytes(),
            signed,
            signature,
        ]
        .concat()
    }
}

/// NETINFO: the sender's clock, the address it sees the receiver at, and its own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netinfo {
    /// Seconds since 1970, 0 where the sender does not tell.
    pub timestamp: u32,
    /// Where the sender sees the receiver; `None` for a kind of address that we do not know.
    pub other: Option<IpAddr>,
    /// The sender's own addresses, those of kinds that we know.
    pub own: Vec<IpAddr>,
}

impl Netinfo {
    /// Reads the body.
    pub fn read(body: &[u8]) -> Result<Self, BadLinkCell> {
        let mut reader = Reader::new(body);
        let timestamp = reader.u32()?;
        let other = address(&mut reader)?;
        let mut own = Vec::new();
        for _ in 0..reader.u8()? {
            own.extend(address(&mut reader)?);
        }
        Ok(Self { timestamp, other, own })
    }

    /// The body, without the zeros that fill the cell. Holds up to 27 own addresses of either family: that fills a cell.
    pub fn write(&self) -> Vec<u8> {
        let mut body = self.timestamp.to_be_bytes().to_vec();
        write_address(&mut body, self.other.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let own = self.own.get(..27).unwrap_or(&self.own);
        body.push(own.len() as u8);
        own.iter().for_each(|one| write_address(&mut body, *one));
        body
    }
}

/// Kinds that we do not know are passed over; C tor closes the link for them too.
fn address(reader: &mut Reader<'_>) -> Result<Option<IpAddr>, BadLinkCell> {
    let kind = reader.u8()?;
    let length = usize::from(reader.u8()?);
    let value = reader.take(length)?;
    let wrong = |_| BadLinkCell::AddressLength;
    Ok(match kind {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value).map_err(wrong)?)),
        6 => Some(IpAddr::from(<[u8; 16]>::try_from(value).map_err(wrong)?)),
        _ => None,
    })
}

fn write_address(body: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => {
            body.extend([4, 4]);
            body.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            body.extend([6, 16]);
            body.extend(ip.octets());
        }
    }
}

/// PADDING_NEGOTIATE: what the client wishes of link padding (padding-spec, "Connection-level padding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingNegotiate {
    /// Send none.
    Stop,
    /// Send some; a link idle for a time between the two is padded.
    Start {
        /// Milliseconds, the lower end.
        low_ms: u16,
        /// Milliseconds, the upper end.
        high_ms: u16,
    },
}

impl PaddingNegotiate {
    /// Reads the body.
    pub fn read(body: &[u8]) -> Result<Self, BadLinkCell> {
        let mut reader = Reader::new(body);
        match (reader.u8()?, reader.u8()?) {
            (0, 1) => Ok(Self::Stop),
            (0, 2) => Ok(Self::Start {
                low_ms: reader.u16()?,
                high_ms: reader.u16()?,
            }),
            _ => Err(BadLinkCell::UnknownPadding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_netinfo_of_c_tor_reads() {
        let body = [0, 0, 0, 9, 4, 4, 127, 0, 0, 1, 1, 4, 4, 127, 0, 0, 2, 0, 0];
        let netinfo = Netinfo::read(&body).unwrap();
        assert_eq!(netinfo.timestamp, 9);
        assert_eq!(netinfo.other, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(netinfo.own, vec!["127.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(netinfo.write(), &body[..17]);
    }

    #[test]
    fn an_address_of_an_unknown_kind_is_passed_over() {
        let body = [0, 0, 0, 9, 0xf0, 1, 7, 1, 5, 3, 1, 2, 3];
        assert_eq!(
            Netinfo::read(&body).unwrap(),
            Netinfo {
                timestamp: 9,
                other: None,
                own: vec![]
            }
        );
    }

    #[test]
    fn an_address_of_a_wrong_length_is_refused() {
        let bodies: [&[u8]; 3] = [
            &[0, 0, 0, 9, 4, 255],
            &[0, 0, 0, 9, 4, 4, 127, 0, 0, 1, 1, 4, 3, 1, 2, 3],
            &[0, 0, 0, 9, 6, 4, 127, 0, 0, 1, 0],
        ];
        for body in bodies {
            let mut cell = body.to_vec();
            cell.resize(509, 0);
            assert_eq!(Netinfo::read(&cell), Err(BadLinkCell::AddressLength), "{body:?}");
        }
    }

    #[test]
    fn a_netinfo_that_promises_more_than_it_has_is_refused() {
        let body = [0, 0, 0, 9, 4, 4, 127, 0, 0, 1, 2, 4, 4, 127, 0, 0, 2];
        assert_eq!(Netinfo::read(&body), Err(BadLinkCell::CutShort(CutShort)));
    }

    #[test]
    fn a_netinfo_with_many_addresses_still_fits_into_its_cell() {
        let address = "2001:db8::1".parse().unwrap();
        let netinfo = Netinfo {
            timestamp: 9,
            other: Some(address),
            own: vec![address; 40],
        };
        let written = netinfo.write();
        assert_eq!(written.len(), crate::cell::BODY_BYTES);
        assert_eq!(Netinfo::read(&written).unwrap().own.len(), 27);
    }

    #[test]
    fn odd_versions_are_refused() {
        assert!(versions(&[0, 3, 0]).is_err());
        assert_eq!(versions(&[0, 3, 0, 4]).unwrap().collect::<Vec<_>>(), vec![3, 4]);
        assert_eq!(write_versions(&[3, 4]), vec![0, 3, 0, 4]);
    }

    #[test]
    fn a_challenge_says_what_it_offers() {
        assert_eq!(challenge_offers_ed25519(&write_auth_challenge(&[7; 32])), Ok(true));
        let mut old = vec![7; 32];
        old.extend([0, 1, 0, 1]);
        assert_eq!(challenge_offers_ed25519(&old), Ok(false));
        assert!(challenge_offers_ed25519(&old[..35]).is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_a_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..509)) {
            let _ = Netinfo::read(&body);
            let _ = Authenticate::read(&body);
            let _ = challenge_offers_ed25519(&body);
            let _ = versions(&body).map(Iterator::count);
            let _ = PaddingNegotiate::read(&body);
        }

        #[test]
        fn an_authenticate_comes_back_as_it_went(signed: [u8; 32], signature: [u8; 32]) {
            let mut long = [0; AUTHENTICATE_SIGNED_BYTES];
            long[200..232].copy_from_slice(&signed);
            let mut ed = [0; 64];
            ed[..32].copy_from_slice(&signature);
            let body = Authenticate::write(&long, &ed);
            let read = Authenticate::read(&body).unwrap();
            prop_assert_eq!(read.signed, &long[..]);
            prop_assert_eq!(read.signature, ed);
            prop_assert_eq!(read.fixed.len(), 264);
            prop_assert!(Authenticate::read(&body[..body.len() - 1]).is_err());
        }
    }
}
