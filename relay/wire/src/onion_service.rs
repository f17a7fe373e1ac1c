//! What clients and onion services say to introduction and rendezvous points (rend-spec, "The introduction protocol" and
//! "The rendezvous protocol").
//!
//! A point reads as little as it must: what is encrypted for the other side passes through.

use crate::reader::{CutShort, Reader};

/// Bytes of a rendezvous cookie.
pub const COOKIE_BYTES: usize = 20;
/// Ed25519 keys with SHA3-256; the only kind that is left.
const AUTH_KEY_ED25519: u8 = 2;
/// The extension of ESTABLISH_INTRO that sets limits.
const EXTENSION_DOS: u8 = 1;
const PARAMETER_RATE: u8 = 1;
const PARAMETER_BURST: u8 = 2;
/// What the signature of ESTABLISH_INTRO begins with.
const SIGNED_PREFIX: &[u8] = b"Tor establish-intro cell v1";
/// An INTRODUCE1 must fit into format 1 on the service's circuit too.
pub const INTRODUCE_BYTES_MAX: usize = 490;

/// Names an introduction point's service: its authentication key for that point.
pub type AuthKey = [u8; 32];
/// Names a rendezvous.
pub type Cookie = [u8; COOKIE_BYTES];

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOnionService {
    /// Ends before it should.
    #[error(transparent)]
    CutShort(#[from] CutShort),
    /// Not an Ed25519 key.
    #[error("the authentication key is of a kind that is not in use")]
    KeyKind,
    /// Not 32 bytes.
    #[error("the authentication key has a wrong length")]
    KeyLength,
    /// Not 64 bytes.
    #[error("the signature has a wrong length")]
    SignatureLength,
    /// More bytes than the message has.
    #[error("bytes stand behind the message")]
    Longer,
    /// An INTRODUCE1 of the second version of onion services.
    #[error("a key of the old protocol stands where zeros should")]
    Legacy,
    /// An INTRODUCE1 without anything for the service.
    #[error("there is nothing for the service in it")]
    Empty,
}

/// Limits that a service wants at its introduction point, as it says them (proposal 305).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DosParameters {
    /// INTRODUCE2 messages a second.
    pub rate: Option<u64>,
    /// How many at once.
    pub burst: Option<u64>,
}

impl DosParameters {
    fn read(data: &[u8]) -> Result<Self, CutShort> {
        let mut reader = Reader::new(data);
        let mut found = Self::default();
        for _ in 0..reader.u8()? {
            let (kind, value) = (reader.u8()?, u64::from_be_bytes(reader.array()?));
            match kind {
                PARAMETER_RATE => found.rate = Some(value),
                PARAMETER_BURST => found.burst = Some(value),
                _ => {}
            }
        }
        Ok(found)
    }

    fn write(&self) -> Vec<u8> {
        let all = [(PARAMETER_RATE, self.rate), (PARAMETER_BURST, self.burst)];
        let said = all.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
        let mut data = vec![said.clone().count() as u8];
        for (kind, value) in said {
            data.push(kind);
            data.extend(value.to_be_bytes());
        }
        data
    }
}

/// ESTABLISH_INTRO: a service wants to be introduced here. Neither MAC nor signature is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstablishIntro<'a> {
    /// The service's key for this point.
    pub auth_key: AuthKey,
    /// Limits, if it names any.
    pub dos: Option<DosParameters>,
    /// What the MAC covers.
    pub maced: &'a [u8],
    /// Binds the message to its circuit.
    pub mac: [u8; 32],
    /// What the signature covers, behind its prefix.
    signed: &'a [u8],
    /// By the authentication key.
    pub signature: [u8; 64],
}

impl<'a> EstablishIntro<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub fn read(data: &'a [u8]) -> Result<Self, BadOnionService> {
        let mut reader = Reader::new(data);
        let auth_key = auth_key(&mut reader)?;
        let mut dos = None;
        extensions(&mut reader, |kind, data| {
            // What cannot be read sets no limits; C tor keeps the point too.
            if kind == EXTENSION_DOS && dos.is_none() {
                dos = DosParameters::read(data).ok();
            }
        })?;
        let maced = data.split_at(data.len() - reader.clone().rest().len()).0;
        let mac = reader.array()?;
        let signed = data.split_at(data.len() - reader.clone().rest().len()).0;
        if reader.u16()? != 64 {
            return Err(BadOnionService::SignatureLength);
        }
        let signature = reader.array()?;
        match reader.is_empty() {
            true => Ok(Self {
                auth_key,
                dos,
                maced,
                mac,
                signed,
                signature,
            }),
            false => Err(BadOnionService::Longer),
        }
    }

    /// What the signature was made over.
    pub fn signed(&self) -> Vec<u8> {
        [SIGNED_PREFIX, self.signed].concat()
    }

    /// Makes a body; `mac` and `sign` are asked for what covers the bytes before them.
    pub fn write(
        auth_key: &AuthKey,
        dos: Option<&DosParameters>,
        mac: impl FnOnce(&[u8]) -> [u8; 32],
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Vec<u8> {
        let mut data = vec![AUTH_KEY_ED25519, 0, 32];
        data.extend(auth_key);
        data.push(u8::from(dos.is_some()));
        if let Some(dos) = dos {
            let body = dos.write();
            data.extend([EXTENSION_DOS, body.len() as u8]);
            data.extend(body);
        }
        data.extend(mac(&data));
        let signature = sign(&[SIGNED_PREFIX, &data].concat());
        data.extend([0, 64]);
        data.extend(signature);
        data
    }
}

/// INTRODUCE1: whom a client wants to be introduced to. The rest is for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduce1 {
    /// The service's key for this point.
    pub auth_key: AuthKey,
}

impl Introduce1 {
    /// Reads what concerns the introduction point.
    ///
    /// # Errors
    /// What keeps it from being read or passed on.
    pub fn read(data: &[u8]) -> Result<Self, BadOnionService> {
        let mut reader = Reader::new(data);
        if reader.array::<20>()? != [0; 20] {
            return Err(BadOnionService::Legacy);
        }
        let auth_key = auth_key(&mut reader)?;
        extensions(&mut reader, |_, _| ())?;
        if reader.is_empty() {
            return Err(BadOnionService::Empty);
        }
        match data.len() <= INTRODUCE_BYTES_MAX {
            true => Ok(Self { auth_key }),
            false => Err(BadOnionService::Longer),
        }
    }

    /// Makes a body.
    pub fn write(&self, encrypted: &[u8]) -> Vec<u8> {
        let mut data = vec![0; 20];
        data.extend([AUTH_KEY_ED25519, 0, 32]);
        data.extend(self.auth_key);
        data.push(0);
        data.extend(encrypted);
        data
    }
}

/// What INTRODUCE_ACK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum IntroduceStatus {
    /// It has been passed on.
    Success = 0,
    /// No such service here.
    UnknownId = 1,
    /// INTRODUCE1 could not be read.
    BadFormat = 2,
    /// It could not be passed on.
    CannotRelay = 3,
}

impl IntroduceStatus {
    /// The body of INTRODUCE_ACK: status, no extensions.
    pub fn write(self) -> [u8; 3] {
        let [high, low] = (self as u16).to_be_bytes();
        [high, low, 0]
    }
}

/// The body of INTRO_ESTABLISHED: no extensions.
pub const INTRO_ESTABLISHED: [u8; 1] = [0];

fn auth_key(reader: &mut Reader<'_>) -> Result<AuthKey, BadOnionService> {
    if reader.u8()? != AUTH_KEY_ED25519 {
        return Err(BadOnionService::KeyKind);
    }
    match reader.u16()? {
        32 => Ok(reader.array()?),
        _ => Err(BadOnionService::KeyLength),
    }
}

fn extensions<'a>(reader: &mut Reader<'a>, mut each: impl FnMut(u8, &'a [u8])) -> Result<(), CutShort> {
    for _ in 0..reader.u8()? {
        let (kind, length) = (reader.u8()?, reader.u8()?);
        each(kind, reader.take(length.into())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn establish(dos: Option<&DosParameters>) -> Vec<u8> {
        EstablishIntro::write(&[7; 32], dos, |_| [1; 32], |_| [2; 64])
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dos = DosParameters {
            rate: Some(25),
            burst: Some(200),
        };
        for dos in [None, Some(dos)] {
            let data = establish(dos.as_ref());
            let read = EstablishIntro::read(&data).unwrap();
            assert_eq!(
                (read.auth_key, read.dos, read.mac, read.signature),
                ([7; 32], dos, [1; 32], [2; 64])
            );
            assert_eq!(read.maced.len() + 32 + 2 + 64, data.len());
            assert!(read.signed().ends_with(&[1; 32]) && read.signed().starts_with(SIGNED_PREFIX));
        }
        let introduce = Introduce1 { auth_key: [8; 32] };
        assert_eq!(Introduce1::read(&introduce.write(b"for you")), Ok(introduce));
    }

    #[test]
    fn what_is_odd_is_refused_by_name() {
        let good = establish(None);
        let mut odd = good.clone();
        odd[0] = 1;
        assert_eq!(EstablishIntro::read(&odd), Err(BadOnionService::KeyKind));
        odd = good.clone();
        odd[2] = 31;
        assert_eq!(EstablishIntro::read(&odd), Err(BadOnionService::KeyLength));
        odd = good.clone();
        odd.push(0);
        assert_eq!(EstablishIntro::read(&odd), Err(BadOnionService::Longer));
        for length in 0..good.len() {
            assert!(EstablishIntro::read(&good[..length]).is_err(), "{length}");
        }

        let good = Introduce1 { auth_key: [8; 32] }.write(&[9; 400]);
        let mut odd = good.clone();
        odd[19] = 1;
        assert_eq!(Introduce1::read(&odd), Err(BadOnionService::Legacy));
        odd = good.clone();
        odd.resize(491, 0);
        assert_eq!(Introduce1::read(&odd), Err(BadOnionService::Longer));
        assert_eq!(Introduce1::read(&good[..56]), Err(BadOnionService::Empty));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = EstablishIntro::read(&data);
            let _ = Introduce1::read(&data);
        }
    }
}
