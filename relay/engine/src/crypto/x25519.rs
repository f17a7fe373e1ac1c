//! X25519 (RFC 7748) as relays need it for circuit handshakes, of which it is nearly all the cost.
//!
//! By AWS-LC, which TLS has brought along anyway and whose code for it is proven and takes half of the time that the ladder
//! of curve25519-dalek takes. Clients, which only tests and the load generator have, use that one: so each handshake
//! between the two compares them.

use std::sync::Arc;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key, secret or public, and of what two of them share.
pub const KEY_BYTES: usize = 32;

/// A secret key, ready for use, with its public one. No `Debug`; AWS-LC wipes what it gives back.
#[derive(Clone)]
pub struct Secret {
    /// None where there was no memory for it: then nothing can be agreed on.
    key: Option<Arc<PrivateKey>>,
    public: [u8; KEY_BYTES],
}

impl Secret {
    /// The key of these bytes, which are clamped where they are used.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let key = PrivateKey::from_private_key(&agreement::X25519, bytes).ok();
        let mut public = [0; KEY_BYTES];
        let computed = key.as_ref().and_then(|key| key.compute_public_key().ok());
        let computed = computed.filter(|computed| computed.as_ref().len() == KEY_BYTES);
        if let Some(computed) = &computed {
            public.copy_from_slice(computed.as_ref());
        }
        Self {
            key: key.filter(|_| computed.is_some()).map(Arc::new),
            public,
        }
    }

    /// What others are told.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// What is shared with the owner of `theirs`. `None` where it is all zeros, whatever our key is (RFC 7748, section 6.1):
    /// their key is one of the few of small order.
    pub fn agree(&self, theirs: &[u8; KEY_BYTES]) -> Option<Shared> {
        let theirs = UnparsedPublicKey::new(&agreement::X25519, theirs);
        agreement::agree(self.key.as_deref()?, theirs, (), |shared| {
            let mut copy = Zeroizing::new([0; KEY_BYTES]);
            copy.copy_from_slice(shared.get(..KEY_BYTES).ok_or(())?);
            Ok(Shared(copy))
        })
        .ok()
    }
}

impl From<&StaticSecret> for Secret {
    fn from(secret: &StaticSecret) -> Self {
        let mut bytes = secret.to_bytes();
        let ready = Self::new(&bytes);
        bytes.zeroize();
        ready
    }
}

/// What two keys share; never all zeros. Wiped on drop; no `Debug`, no `Clone`.
pub struct Shared(Zeroizing<[u8; KEY_BYTES]>);

impl Shared {
    /// For the hash that makes keys of it.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What the other implementation has computed, if it is not all zeros.
    pub(super) fn of_client(shared: &x25519_dalek::SharedSecret) -> Option<Self> {
        let contributory = shared.was_contributory();
        contributory.then(|| Self(Zeroizing::new(*shared.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x25519_dalek::PublicKey;

    use super::*;

    fn bytes(text: &str) -> [u8; KEY_BYTES] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn the_published_example_comes_out() {
        let alice = Secret::new(&bytes(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = Secret::new(&bytes(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        assert_eq!(
            hex::encode(bob.public()),
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
        );
        let shared = alice.agree(&bob.public()).unwrap();
        assert_eq!(
            hex::encode(shared.as_bytes()),
            "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
        );
    }

    /// The points of small order, and what is congruent to them: a handshake with one of them must fail.
    #[test]
    fn a_key_of_small_order_shares_nothing() {
        for theirs in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let theirs = bytes(theirs);
            assert!(Secret::new(&[7; KEY_BYTES]).agree(&theirs).is_none(), "{theirs:?}");
            let other = StaticSecret::from([7; KEY_BYTES]).diffie_hellman(&PublicKey::from(theirs));
            assert!(Shared::of_client(&other).is_none(), "{theirs:?}");
        }
    }

    proptest! {
        #[test]
        fn both_implementations_agree_on_every_key(secret: [u8; KEY_BYTES], theirs: [u8; KEY_BYTES]) {
            let (ours, oracle) = (Secret::new(&secret), StaticSecret::from(secret));
            prop_assert_eq!(ours.public(), PublicKey::from(&oracle).to_bytes());
            let expected = Shared::of_client(&oracle.diffie_hellman(&PublicKey::from(theirs)));
            let found = ours.agree(&theirs);
            prop_assert_eq!(found.map(|one| *one.as_bytes()), expected.map(|one| *one.as_bytes()));
        }
    }
}
