//! Relays with all their keys, made from seeds: the fuzzer knows none of them.

use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::link_certs::{ResponderLink, TlsLinkKey, initiator_certs, responder_link};
use relay_formats::relay_signer::RelaySigner;
use relay_formats::rsa_key::RsaSecret;

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The date of all stories: November 2026.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_351_180)
}

/// Made beforehand: to make one takes longer than a thousand stories.
const RSA_KEYS: [&str; 2] = [
    include_str!("../../formats/tests/ctor/relay/keys/secret_id_key"),
    include_str!("../../formats/tests/ctor/relay/keys/secret_onion_key"),
];

/// A relay with all its keys.
pub(crate) struct Relay {
    pub(crate) rsa: RsaSecret,
    pub(crate) master: Ed25519Secret,
    pub(crate) signing: Ed25519Secret,
    pub(crate) signing_cert: Ed25519Cert,
    /// Signs AUTHENTICATE.
    pub(crate) link_auth: Ed25519Secret,
}

impl Relay {
    /// Relay 0 or 1, the same each time.
    pub(crate) fn new(which: usize) -> Self {
        let mut dice = ChaCha20Rng::seed_from_u64(which as u64);
        let [master, signing, link_auth] = [(); 3].map(|()| Ed25519Secret::generate(&mut dice));
        let certified = Certified::Key(signing.public());
        let kind = CertType::IDENTITY_SIGNING;
        Self {
            rsa: RsaSecret::from_pem(RSA_KEYS[which]).expect("a key of C tor's"),
            signing_cert: Ed25519Cert::issue(kind, certified, now() + 30 * DAY, &master, NameSigner::Yes),
            master,
            signing,
            link_auth,
        }
    }

    /// What signs for it.
    pub(crate) fn signer(&self) -> RelaySigner<'_> {
        RelaySigner {
            rsa: &self.rsa,
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        }
    }

    /// What it shows to those who connect to it.
    pub(crate) fn responder(&self, tls: &TlsLinkKey) -> ResponderLink {
        let mut dice = ChaCha20Rng::seed_from_u64(98);
        responder_link(&self.signer(), tls, None, now(), &mut dice).expect("sound keys")
    }

    /// What it shows to those whom it connects to.
    pub(crate) fn initiator(&self) -> Vec<u8> {
        let mut dice = ChaCha20Rng::seed_from_u64(99);
        initiator_certs(&self.signer(), &self.link_auth.public(), now(), &mut dice).expect("sound keys")
    }
}

/// A key for TLS, of no relay in particular. Takes a second, so ask once.
pub(crate) fn tls_key() -> TlsLinkKey {
    TlsLinkKey::generate(&mut ChaCha20Rng::seed_from_u64(97)).expect("there are primes enough")
}
