//! What our links show: the TLS certificate and the CERTS cells that vouch for it. Lives in memory only; renewed
//! every two hours, as C tor does (`MAX_SSL_KEY_LIFETIME_INTERNAL`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use ed25519_dalek::SigningKey;
use rand::Rng;
use relay_engine::settings::{InitiatorCredentials, ResponderCredentials};
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::link_certs::{LinkCertError, LinkSigner, TlsLinkKey, initiator_certs, responder_link};
use relay_formats::rsa_key::RsaKeyError;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::keys::Keys;
use crate::tls::{LinkCertificate, TlsProfile};

/// New links get new keys after this.
pub const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);

/// One generation of link keys. Links that are up keep the generation that they began with.
pub struct LinkKeys {
    /// TLS of both roles.
    pub tls: TlsProfile,
    /// For links that peers begin; bound to the certificate in `tls`.
    pub responder: Arc<ResponderCredentials>,
    /// For links that we begin.
    pub initiator: Arc<InitiatorCredentials>,
}

/// Why there are no link keys.
#[derive(Debug, thiserror::Error)]
pub enum LinkKeysError {
    /// A certificate could not be made.
    #[error("link certificates: {0}")]
    Certificate(#[from] LinkCertError),
    /// The TLS library could not make, write or read its key.
    #[error("link key: {0}")]
    Key(&'static str),
    /// The TLS library refuses it.
    #[error("link key: {0}")]
    Tls(#[from] rustls::Error),
}

impl LinkKeys {
    /// A fresh generation. Takes a tenth of a second, for its RSA-2048 key: not for a shard's thread.
    ///
    /// `lifetime` is torrc's `SSLKeyLifetime`; none lets it be drawn.
    ///
    /// # Errors
    /// See [`LinkKeysError`].
    pub fn make(keys: &Keys, lifetime: Option<Duration>, now: SystemTime) -> Result<Self, LinkKeysError> {
        let mut dice = rand::rng();
        let signer = LinkSigner {
            rsa: &keys.rsa,
            signing: &keys.signing,
            signing_cert: &keys.signing_cert,
        };
        let tls_key = tls_key()?;
        let shown = responder_link(&signer, &tls_key, lifetime, now, &mut dice)?;
        let key_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(tls_key.pkcs8_der().to_vec()));
        let tls = TlsProfile::new(LinkCertificate {
            certificate_der: shown.tls_certificate_der,
            key_der,
        })?;

        let mut seed = Zeroizing::new([0; 32]);
        dice.fill_bytes(seed.as_mut_slice());
        let link_authentication = SigningKey::from_bytes(&seed);
        let link_public = Ed25519Identity(link_authentication.verifying_key().to_bytes());
        let initiator_body = initiator_certs(&signer, &link_public, now, &mut dice)?;

        let (rsa_identity_sha256, ed25519_identity) = (keys.rsa.public().sha256(), keys.ed25519_identity);
        Ok(Self {
            tls,
            responder: Arc::new(ResponderCredentials {
                certs_body: shown.certs_body,
                tls_certificate_sha256: shown.tls_certificate_sha256,
                rsa_identity_sha256,
                ed25519_identity,
            }),
            initiator: Arc::new(InitiatorCredentials {
                certs_body: initiator_body,
                link_authentication,
                rsa_identity_sha256,
                ed25519_identity,
            }),
        })
    }
}

/// aws-lc makes an RSA-2048 key ten times as fast as crate `rsa`.
fn tls_key() -> Result<TlsLinkKey, LinkKeysError> {
    let key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| LinkKeysError::Key("could not be made"))?;
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|_| LinkKeysError::Key("could not be written"))?;
    let key = TlsLinkKey::from_pkcs8(der.as_ref()).map_err(|error: RsaKeyError| LinkCertError::from(error))?;
    Ok(key)
}
