//! EXTEND2: where a circuit goes next (tor-spec, "EXTEND and EXTENDED messages").

use std::net::{SocketAddrV4, SocketAddrV6};

use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};

use crate::create::Create2;
use crate::reader::{CutShort, Reader};

/// Why an EXTEND2 makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadExtend {
    /// It ends too early.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// A specifier of a known type has a wrong length.
    #[error("a link specifier has a wrong length")]
    SpecifierLength,
}

/// EXTEND2 as sent. Of two specifiers of one type the first counts; unknown types are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extend2<'a> {
    /// Specifier 0.
    pub ipv4: Option<SocketAddrV4>,
    /// Specifier 1.
    pub ipv6: Option<SocketAddrV6>,
    /// Specifier 2.
    pub rsa_identity: Option<RsaIdentity>,
    /// Specifier 3.
    pub ed25519_identity: Option<Ed25519Identity>,
    /// What the CREATE2 to the next hop is to carry, unchanged.
    pub create: Create2<'a>,
}

impl<'a> Extend2<'a> {
    /// Reads the data of the message.
    pub fn read(data: &'a [u8]) -> Result<Self, BadExtend> {
        let mut reader = Reader::new(data);
        let (mut ipv4, mut ipv6, mut rsa_identity, mut ed25519_identity) = (None, None, None, None);
        for _ in 0..reader.u8()? {
            let kind = reader.u8()?;
            let length = usize::from(reader.u8()?);
            let mut value = Reader::new(reader.take(length)?);
            match (kind, length) {
                (0, 6) => {
                    let found = SocketAddrV4::new(value.ipv4()?, value.u16()?);
                    ipv4.get_or_insert(found);
                }
                (1, 18) => {
                    let found = SocketAddrV6::new(value.ipv6()?, value.u16()?, 0, 0);
                    ipv6.get_or_insert(found);
                }
                (2, 20) => {
                    let found = RsaIdentity(value.array()?);
                    rsa_identity.get_or_insert(found);
                }
                (3, 32) => {
                    let found = Ed25519Identity(value.array()?);
                    ed25519_identity.get_or_insert(found);
                }
                (0..=3, _) => return Err(BadExtend::SpecifierLength),
                _ => {}
            }
        }
        let create = Create2::take(&mut reader)?;
        Ok(Self {
            ipv4,
            ipv6,
            rsa_identity,
            ed25519_identity,
            create,
        })
    }

    /// The data of the message: the specifiers that are there, in the order of their numbers.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0];
        let mut count = 0;
        let mut specifier = |out: &mut Vec<u8>, kind: u8, value: &[&[u8]]| {
            count += 1;
            out.extend([kind, value.iter().map(|part| part.len() as u8).sum()]);
            value.iter().for_each(|part| out.extend_from_slice(part));
        };
        if let Some(address) = self.ipv4 {
            specifier(&mut out, 0, &[&address.ip().octets(), &address.port().to_be_bytes()]);
        }
        if let Some(address) = self.ipv6 {
            specifier(&mut out, 1, &[&address.ip().octets(), &address.port().to_be_bytes()]);
        }
        if let Some(identity) = self.rsa_identity {
            specifier(&mut out, 2, &[&identity.0]);
        }
        if let Some(identity) = self.ed25519_identity {
            specifier(&mut out, 3, &[&identity.0]);
        }
        if let Some(first) = out.first_mut() {
            *first = count;
        }
        self.create.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Extend2<'static> {
        Extend2 {
            ipv4: Some("192.0.2.1:9001".parse().unwrap()),
            ipv6: Some("[2001:db8::1]:9001".parse().unwrap()),
            rsa_identity: Some(RsaIdentity([1; 20])),
            ed25519_identity: Some(Ed25519Identity([2; 32])),
            create: Create2 {
                handshake_type: 3,
                data: &[9; 100],
            },
        }
    }

    #[test]
    fn an_extend2_comes_back_as_it_went() {
        assert_eq!(Extend2::read(&sample().write()), Ok(sample()));
    }

    #[test]
    fn of_two_identities_the_first_counts_and_strange_specifiers_are_passed_over() {
        let mut data = vec![3, 77, 2, 0, 0, 2, 20];
        data.extend([4; 20]);
        data.extend([2, 20]);
        data.extend([5; 20]);
        data.extend([0, 2, 0, 0]);
        let read = Extend2::read(&data).unwrap();
        assert_eq!(read.rsa_identity, Some(RsaIdentity([4; 20])));
        assert_eq!(
            read.create,
            Create2 {
                handshake_type: 2,
                data: &[]
            }
        );
    }

    #[test]
    fn a_known_specifier_of_wrong_length_is_refused() {
        assert_eq!(
            Extend2::read(&[1, 0, 5, 1, 2, 3, 4, 5, 0, 2, 0, 0]),
            Err(BadExtend::SpecifierLength)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..498)) {
            let _ = Extend2::read(&data);
        }

        #[test]
        fn a_cut_extend2_is_refused_at_every_byte(cut in 0_usize..190) {
            let whole = sample().write();
            prop_assume!(cut < whole.len());
            prop_assert!(Extend2::read(&whole[..cut]).is_err());
        }
    }
}
