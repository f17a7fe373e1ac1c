//! The TLS settings of both roles: TLS 1.3 and 1.2, no tickets, no resumption, no client certificates, no ALPN.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion};

/// Both versions that tor 0.4.9 speaks.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// The certificate that our server side shows, and its key. C tor closes the link where the key is not RSA.
pub struct LinkCertificate {
    /// X.509, signed by our RSA identity key.
    pub certificate_der: Vec<u8>,
    /// PKCS#8 of the RSA-2048 link key.
    pub key_der: PrivateKeyDer<'static>,
}

/// Settings that new sessions are made with. One per life of a link key.
#[derive(Clone)]
pub struct TlsProfile {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl TlsProfile {
    /// The profile that shows `shown`.
    ///
    /// # Errors
    /// rustls refuses the key.
    pub fn new(shown: LinkCertificate) -> Result<Self, Error> {
        Self::with_provider(shown, aws_lc_rs::default_provider())
    }

    pub(super) fn with_provider(shown: LinkCertificate, provider: CryptoProvider) -> Result<Self, Error> {
        // rustls refuses a version for which the provider has no suite; only tests leave any out.
        let offered = |version: &&SupportedProtocolVersion| {
            provider
                .cipher_suites
                .iter()
                .any(|suite| suite.version().version == version.version)
        };
        let versions: Vec<_> = VERSIONS.into_iter().filter(offered).collect();
        let provider = Arc::new(provider);
        let key = provider.key_provider.load_private_key(shown.key_der)?;
        let chain = vec![CertificateDer::from(shown.certificate_der)];
        let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        // For our own record layer.
        server.enable_secret_extraction = true;

        let verifier = Arc::new(SignatureOnly {
            algorithms: provider.signature_verification_algorithms,
        });
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;

        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// A name for SNI that says nothing: `www.`, 4 to 25 random base32 characters, `.com`, as C tor makes them.
pub fn client_name() -> ServerName<'static> {
    const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut dice = rand::rng();
    let length = dice.random_range(4..=25);
    let middle: String = (0..length)
        .map(|_| char::from(BASE32.choose(&mut dice).copied().unwrap_or(b'a')))
        .collect();
    // A name of this form is always a valid one; were it not, no name at all would do as well.
    ServerName::try_from(format!("www.{middle}.com"))
        .unwrap_or(ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()))
}

/// Asks of a TLS certificate only that the peer holds its key; who the peer is, CERTS and AUTHENTICATE say.
#[derive(Debug)]
struct SignatureOnly {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignatureOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
