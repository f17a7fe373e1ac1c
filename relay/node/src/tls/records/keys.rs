//! The keys of one direction, and the numbers of its records (RFC 8446 5.2 and 5.3).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::error::RecordError;
use super::{HEADER_BYTES, TAG_BYTES};
use crate::tls::room::Room;

/// The outer type of every record after the handshake, and the inner one of plain bytes.
pub(super) const APPLICATION_DATA: u8 = 23;
/// What `legacy_record_version` says: TLS 1.2.
const VERSION: [u8; 2] = [3, 3];

/// A key, and the number of the next record under it. No number is used twice: it goes up before the record is made.
pub(super) struct Keys {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    /// The number of the next record.
    pub(super) next: u64,
}

impl Keys {
    /// # Errors
    /// A cipher that we do not know, or a key that does not fit it: rustls gives neither.
    pub(super) fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(misfit("an unknown cipher")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| misfit("a key of another length"))?;
        let iv = iv.as_ref().try_into().map_err(|_| misfit("an IV of another length"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: Zeroizing::new(iv),
            next,
        })
    }

    /// Opens `body` into `plain`, which is shorter by the tag.
    ///
    /// # Errors
    /// It is not the next record under this key; anything may be in `plain`.
    pub(super) fn open(
        &mut self,
        header: [u8; HEADER_BYTES],
        body: &[u8],
        plain: &mut [u8],
    ) -> Result<(), RecordError> {
        let (sealed, tag) = body.split_last_chunk::<TAG_BYTES>().ok_or(RecordError::Undecryptable)?;
        let nonce = self.nonce()?;
        self.key
            .open_separate_gather(nonce, Aad::from(header), sealed, tag, plain)
            .map_err(|_| RecordError::Undecryptable)
    }

    /// Appends a record of `kind` with `plain` to `out`; `plain` may hold 16 KiB.
    ///
    /// # Errors
    /// The numbers are used up.
    pub(super) fn seal(&mut self, kind: u8, plain: &[u8], out: &mut Room) -> Result<(), RecordError> {
        let length = plain.len() + 1 + TAG_BYTES;
        let [high, low] = u16::try_from(length).map_err(|_| RecordError::Overlong)?.to_be_bytes();
        let nonce = self.nonce()?;
        let record = out.ahead(HEADER_BYTES + length);
        let header = [APPLICATION_DATA, VERSION[0], VERSION[1], high, low];
        let (front, body) = record
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(RecordError::Overlong)?;
        *front = header;
        let (body, type_and_tag) = body.split_at_mut_checked(plain.len()).ok_or(RecordError::Overlong)?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(header), plain, body, &[kind], type_and_tag)
            .map_err(|_| RecordError::KeysUsedUp)?;
        out.keep(HEADER_BYTES + length);
        Ok(())
    }

    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(RecordError::KeysUsedUp)?;
        let mut nonce = *self.iv;
        for (byte, of_number) in nonce.iter_mut().rev().zip(number.to_be_bytes().iter().rev()) {
            *byte ^= of_number;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn misfit(what: &str) -> RecordError {
    RecordError::Keys(rustls::Error::General(what.to_owned()))
}
