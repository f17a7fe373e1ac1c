//! Exported keying material (RFC 5705, RFC 8446 7.5), from the secrets that rustls shows to a key log.
//!
//! rustls 0.23's unbuffered sessions have no exporter of their own. The secrets stay in this process, in memory that
//! is wiped, exactly as long as rustls itself would keep them.

use std::fmt;
use std::sync::Mutex;

use aws_lc_rs::{digest, hmac};
use rustls::{KeyLog, ProtocolVersion, SupportedCipherSuite};
use zeroize::Zeroizing;

/// What tor-spec's AUTHENTICATE cell binds a channel to its TLS session with.
const LABEL: &[u8] = b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003";

/// The secrets of one session that an exporter needs. Given to rustls as its key log; writes nothing anywhere.
#[derive(Default)]
pub(super) struct ExporterSecrets(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    /// TLS 1.3: exporter_master_secret.
    exporter: Option<Zeroizing<Vec<u8>>>,
    /// TLS 1.2: the client's random and the master secret.
    master: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl fmt::Debug for ExporterSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterSecrets")
    }
}

impl KeyLog for ExporterSecrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let Ok(mut noted) = self.0.lock() else { return };
        let secret = Zeroizing::new(secret.to_vec());
        match label {
            "EXPORTER_SECRET" => noted.exporter = Some(secret),
            "CLIENT_RANDOM" => noted.master = Some((client_random.to_vec(), secret)),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "EXPORTER_SECRET" | "CLIENT_RANDOM")
    }
}

impl ExporterSecrets {
    /// 32 bytes for Tor's label and `context`; `None` before the handshake's end.
    ///
    /// `server_random` stands in ServerHello; TLS 1.2 mixes it in, TLS 1.3 needs none.
    pub(super) fn export(
        &self,
        version: ProtocolVersion,
        suite: SupportedCipherSuite,
        server_random: Option<[u8; 32]>,
        context: &[u8; 32],
    ) -> Option<[u8; 32]> {
        let noted = self.0.lock().ok()?;
        let hash = Hash::of(suite);
        match version {
            ProtocolVersion::TLSv1_3 => hash.export_tls13(noted.exporter.as_ref()?, context),
            ProtocolVersion::TLSv1_2 => {
                let (client_random, master) = noted.master.as_ref()?;
                hash.export_tls12(master, client_random, &server_random?, context)
            }
            _ => None,
        }
    }
}

/// The hash of a cipher suite, as HMAC and alone.
struct Hash {
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
}

impl Hash {
    fn of(suite: SupportedCipherSuite) -> Self {
        use rustls::crypto::hash::HashAlgorithm::SHA384;
        let common = match &suite {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        if common.hash_provider.algorithm() == SHA384 {
            Self {
                hmac: hmac::HMAC_SHA384,
                digest: &digest::SHA384,
            }
        } else {
            Self {
                hmac: hmac::HMAC_SHA256,
                digest: &digest::SHA256,
            }
        }
    }

    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(self.hmac, key));
        parts.iter().for_each(|part| mac.update(part));
        mac.sign()
    }

    /// HKDF-Expand-Label (RFC 8446 7.1) of at most one hash's length: its first block is enough.
    fn expand_label(&self, secret: &[u8], label: &[u8], context: &[u8], length: usize) -> hmac::Tag {
        let length_be = (length as u16).to_be_bytes();
        let label_length = [(6 + label.len()) as u8];
        let context_length = [context.len() as u8];
        self.mac(
            secret,
            &[
                &length_be,
                &label_length,
                b"tls13 ",
                label,
                &context_length,
                context,
                &[1],
            ],
        )
    }

    /// RFC 8446 7.5.
    fn export_tls13(&self, exporter_master: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let of_nothing = digest::digest(self.digest, b"");
        let derived = self.expand_label(exporter_master, LABEL, of_nothing.as_ref(), self.digest.output_len());
        let of_context = digest::digest(self.digest, context);
        first_32(self.expand_label(derived.as_ref(), b"exporter", of_context.as_ref(), 32))
    }

    /// RFC 5705 4 over the PRF of RFC 5246 5: its first block is enough. The context is present, so its length is mixed in.
    fn export_tls12(&self, master: &[u8], client: &[u8], server: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let context_length = (context.len() as u16).to_be_bytes();
        let seed: [&[u8]; 5] = [LABEL, client, server, &context_length, context];
        let a1 = self.mac(master, &seed);
        first_32(self.mac(master, &[a1.as_ref(), LABEL, client, server, &context_length, context]))
    }
}

fn first_32(tag: hmac::Tag) -> Option<[u8; 32]> {
    tag.as_ref().get(..32)?.try_into().ok()
}
