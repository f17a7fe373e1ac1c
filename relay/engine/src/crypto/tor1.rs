//! The relay crypto that every client speaks: AES-128-CTR over each cell, a running SHA-1 for those meant for us
//! (tor-spec, "Relay cells" and "Setting circuit keys"). Keys are set up once; cells are crypted where they lie.

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use relay_wire::cell::BODY_BYTES;

use self::keystream::Keystream;
use super::keys::TOR1_KEY_BYTES;

mod keystream;

type Body = [u8; BODY_BYTES];

/// The whole running digest at a cell: what a SENDME for it must carry.
pub type Tag = [u8; 20];

/// Where the digest's first four bytes stand.
const DIGEST_AT: usize = 5;

/// One direction at one hop. Relay and client use the same steps, the client in the other order.
pub struct Direction {
    keystream: Keystream,
    digest: Sha1,
    key: Zeroizing<[u8; 16]>,
}

/// A direction over which nothing goes for now: what it needs to go on, without the key schedule, which takes six times as
/// much memory.
pub struct Resting {
    key: Zeroizing<[u8; 16]>,
    /// Bytes of the keystream that are used up.
    position: u64,
    digest: Sha1,
}

impl Direction {
    /// The pair of a circuit, forward first.
    pub fn pair(keys: &[u8; TOR1_KEY_BYTES]) -> (Self, Self) {
        let (forward, backward) = Resting::pair(keys);
        (forward.wake(), backward.wake())
    }

    /// Bytes of the keystream that are used up; `None` where that is no number of 64 bits.
    pub fn position(&self) -> Option<u64> {
        self.keystream.position()
    }

    /// What goes on where this one stands.
    pub fn rest(&self) -> Option<Resting> {
        Some(Resting {
            key: self.key.clone(),
            position: self.position()?,
            digest: self.digest.clone(),
        })
    }

    /// Puts a layer on or takes it off, on the way from one place to another: what `to` held is gone.
    #[inline]
    pub fn crypt_into(&mut self, from: &Body, to: &mut Body) {
        self.keystream.apply(from, to);
    }

    /// The same where the body lies, for who has no other place for it.
    #[inline]
    pub fn crypt(&mut self, body: &mut Body) {
        let from = *body;
        self.crypt_into(&from, body);
    }

    /// Whether a plain body is meant for the one who asks. If so the digest moves on and its field is cleared.
    #[inline]
    pub fn recognise(&mut self, body: &mut Body) -> Option<Tag> {
        // Only one foreign cell in 65,536 gets past these two bytes.
        let [_, 0, 0, ..] = *body else { return None };
        self.compare(body)
    }

    #[cold]
    fn compare(&mut self, body: &mut Body) -> Option<Tag> {
        let (_, after) = body.split_at_mut(DIGEST_AT);
        let (field, _) = after.split_first_chunk_mut::<4>()?;
        let claimed = std::mem::take(field);
        let running = self.digest.clone().chain_update(body.as_slice());
        let tag: Tag = running.clone().finalize().into();
        let (start, _) = tag.split_first_chunk::<4>()?;
        if bool::from(start.ct_eq(&claimed)) {
            self.digest = running;
            return Some(tag);
        }
        let (_, after) = body.split_at_mut(DIGEST_AT);
        let (field, _) = after.split_first_chunk_mut::<4>()?;
        *field = claimed;
        None
    }

    /// Signs a plain body, whose digest field is zero, as coming from us. A layer must still be put on.
    pub fn sign(&mut self, body: &mut Body) -> Tag {
        self.digest.update(body.as_slice());
        let tag: Tag = self.digest.clone().finalize().into();
        let (_, after) = body.split_at_mut(DIGEST_AT);
        let (field, _) = after.split_at_mut(4);
        field.copy_from_slice(tag.split_at(4).0);
        tag
    }
}

impl Resting {
    /// The pair of a circuit that has carried nothing yet, forward first.
    pub fn pair(keys: &[u8; TOR1_KEY_BYTES]) -> (Self, Self) {
        let (seeds, ciphers) = keys.split_at(40);
        let (seed_forward, seed_backward) = seeds.split_at(20);
        let (key_forward, key_backward) = ciphers.split_at(16);
        (
            Self::new(seed_forward, key_forward),
            Self::new(seed_backward, key_backward),
        )
    }

    fn new(seed: &[u8], key: &[u8]) -> Self {
        let mut fixed = Zeroizing::new([0; 16]);
        fixed.copy_from_slice(key);
        Self {
            key: fixed,
            position: 0,
            digest: Sha1::new_with_prefix(seed),
        }
    }

    /// Sets the keys up again.
    pub fn wake(&self) -> Direction {
        Direction {
            keystream: Keystream::at(&self.key, self.position),
            digest: self.digest.clone(),
            key: self.key.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: u8) -> Body {
        let mut body = [text; BODY_BYTES];
        body[1..3].fill(0);
        body[DIGEST_AT..DIGEST_AT + 4].fill(0);
        body
    }

    #[test]
    fn a_signed_cell_is_recognised_once_and_in_order() {
        let keys = [9; TOR1_KEY_BYTES];
        let ((mut client, _), (mut relay, _)) = (Direction::pair(&keys), Direction::pair(&keys));
        for text in [1, 2, 3] {
            let mut body = plain(text);
            let sent = client.sign(&mut body);
            let signed = body;
            client.crypt(&mut body);
            assert_ne!(body, signed);
            relay.crypt(&mut body);
            assert_eq!(relay.recognise(&mut body), Some(sent));
            assert_eq!(body, plain(text));
            assert_eq!(relay.recognise(&mut signed.clone()), None, "a repeated cell");
        }
    }

    #[test]
    fn who_has_rested_goes_on_where_it_was() {
        let keys = [9; TOR1_KEY_BYTES];
        let ((mut waking, _), (mut resting, _)) = (Direction::pair(&keys), Direction::pair(&keys));
        for text in 0..40 {
            let (mut one, mut other) = (plain(text), plain(text));
            assert_eq!(waking.sign(&mut one), resting.sign(&mut other));
            waking.crypt(&mut one);
            resting.crypt(&mut other);
            assert_eq!(one, other, "cell {text}");
            resting = resting.rest().unwrap().wake();
            assert_eq!(resting.position(), Some((u64::from(text) + 1) * BODY_BYTES as u64));
        }
        assert!(size_of::<(Resting, Resting)>() <= 256, "a size that allocators know");
    }

    #[test]
    fn cells_are_crypted_as_counter_mode_does_wherever_they_begin() {
        use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
        let key = Zeroizing::new([9; 16]);
        for start in (0..64).chain([u64::from(u32::MAX) * 16 + 5, (1 << 40) - 3, u64::MAX - 70_000]) {
            let mut plain_mode = ctr::Ctr128BE::<aes::Aes128Enc>::new((&*key).into(), &[0; 16].into());
            plain_mode.seek(start);
            let mut ours = Keystream::at(&key, start);
            // Each place within a block comes up once in 16 cells.
            for cell in 0..40_u64 {
                assert_eq!(ours.position(), Some(start + cell * BODY_BYTES as u64));
                let (mut one, mut other) = (plain(cell as u8), [7; BODY_BYTES]);
                plain_mode.apply_keystream(&mut one);
                ours.apply(&plain(cell as u8), &mut other);
                assert_eq!(one, other, "cell {cell} from {start}");
            }
        }
    }

    #[test]
    fn a_foreign_cell_that_looks_like_ours_is_left_as_it_was() {
        let (mut relay, _) = Direction::pair(&[9; TOR1_KEY_BYTES]);
        let mut body = plain(4);
        body[DIGEST_AT] = 77;
        let before = body;
        assert_eq!(relay.recognise(&mut body), None);
        assert_eq!(body, before);
    }
}
