//! All keys of a relay that exists only here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use relay_engine::settings::{
    Defences, Extras, InitiatorCredentials, OnionKey, ResponderCredentials, Settings, StreamServices,
};
use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::link_certs::{LinkSigner, TlsLinkKey, initiator_certs, responder_link};
use relay_formats::rsa_key::RsaSecret;
use x25519_dalek::StaticSecret;

use crate::client::Hop;

/// The date on which every simulation begins: 22 November 2026.
pub fn birthday() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_351_180)
}

/// A relay's settings and what it shows on links.
pub struct Keys {
    /// For the engine.
    pub settings: Arc<Settings>,
    /// For those who connect to it.
    pub responder: Arc<ResponderCredentials>,
    /// For those whom it connects to.
    pub initiator: Arc<InitiatorCredentials>,
    /// What a client must know of it.
    pub hop: Hop,
}

/// Why a relay could not be made.
#[derive(Debug)]
pub struct NoKeys;

impl Keys {
    /// A relay at `address`; the same seed makes the same keys. Takes a moment: there is an RSA key in it.
    ///
    /// # Errors
    /// [`NoKeys`] where a key cannot be made, which no seed is known to do.
    pub fn new(seed: u64, address: SocketAddr) -> Result<Self, NoKeys> {
        let mut dice = StdRng::seed_from_u64(seed);
        let (master, signing) = (Ed25519Secret::generate(&mut dice), Ed25519Secret::generate(&mut dice));
        let certified = Certified::Key(signing.public());
        let expires = birthday() + Duration::from_secs(365 * 24 * 3_600);
        let kind = CertType::IDENTITY_SIGNING;
        let signing_cert = Ed25519Cert::issue(kind, certified, expires, &master, NameSigner::Yes);
        let rsa = RsaSecret::generate(&mut dice).map_err(|_| NoKeys)?;
        let signer = LinkSigner {
            rsa: &rsa,
            signing: &signing,
            signing_cert: &signing_cert,
        };
        let tls_key = TlsLinkKey::generate(&mut dice).map_err(|_| NoKeys)?;
        let link = responder_link(&signer, &tls_key, None, birthday(), &mut dice).map_err(|_| NoKeys)?;
        let link_authentication = SigningKey::from_bytes(&dice.random());
        let link_public = Ed25519Identity(link_authentication.verifying_key().to_bytes());
        let certs_body = initiator_certs(&signer, &link_public, birthday(), &mut dice).map_err(|_| NoKeys)?;
        let onion_key = OnionKey::from(&StaticSecret::from(dice.random::<[u8; 32]>()));
        let (rsa_identity, ed25519_identity) = (rsa.public().identity(), master.public());
        let rsa_identity_sha256 = rsa.public().sha256();
        Ok(Self {
            settings: Arc::new(Settings {
                rsa_identity,
                ed25519_identity,
                advertised: vec![address],
                onion_keys: vec![onion_key.clone()],
                extend_allow_private_addresses: false,
                services: StreamServices::default(),
                defences: Defences::default(),
                extras: Extras::default(),
            }),
            responder: Arc::new(ResponderCredentials {
                certs_body: link.certs_body,
                tls_certificate_sha256: link.tls_certificate_sha256,
                rsa_identity_sha256,
                ed25519_identity,
            }),
            initiator: Arc::new(InitiatorCredentials {
                certs_body,
                link_authentication,
                rsa_identity_sha256,
                ed25519_identity,
            }),
            hop: Hop {
                rsa_identity,
                ed25519_identity,
                onion_key: onion_key.public,
                address,
            },
        })
    }
}
