use std::io::{Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::link_certs::{LinkSigner, TlsLinkKey, responder_link};
use relay_formats::rsa_key::RsaSecret;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, Connection, ServerConnection, SupportedCipherSuite};

use super::session::Session;
use super::{LinkCertificate, TlsProfile, client_name};

const LABEL: &[u8] = b"EXPORTER FOR TOR TLS CLIENT BINDING AUTH0003";
const CONTEXT: [u8; 32] = [7; 32];

/// What a relay shows, with a profile of all our suites and, for strangers, one profile a suite.
pub(super) struct Shown {
    certificate_der: Vec<u8>,
    certificate_sha256: [u8; 32],
    key: TlsLinkKey,
}

impl Shown {
    pub(super) fn new() -> Self {
        let mut dice = rand::rng();
        let (master, signing) = (Ed25519Secret::generate(&mut dice), Ed25519Secret::generate(&mut dice));
        let now = SystemTime::now();
        let certified = Certified::Key(signing.public());
        let until = now + std::time::Duration::from_secs(86_400);
        let signing_cert = Ed25519Cert::issue(CertType::IDENTITY_SIGNING, certified, until, &master, NameSigner::Yes);
        let signer = LinkSigner {
            rsa: &RsaSecret::generate(&mut dice).unwrap(),
            signing: &signing,
            signing_cert: &signing_cert,
        };
        let key = TlsLinkKey::generate(&mut dice).unwrap();
        let link = responder_link(&signer, &key, None, now, &mut dice).unwrap();
        Self {
            certificate_der: link.tls_certificate_der,
            certificate_sha256: link.tls_certificate_sha256,
            key,
        }
    }

    fn profile(&self, provider: CryptoProvider) -> TlsProfile {
        let key_der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec()));
        let shown = LinkCertificate {
            certificate_der: self.certificate_der.clone(),
            key_der,
        };
        TlsProfile::with_provider(shown, provider).unwrap()
    }

    pub(super) fn ours(&self) -> TlsProfile {
        self.profile(aws_lc_rs::default_provider())
    }

    pub(super) fn stranger(&self, suite: SupportedCipherSuite) -> TlsProfile {
        self.profile(CryptoProvider {
            cipher_suites: vec![suite],
            ..aws_lc_rs::default_provider()
        })
    }
}

/// The suites that a link with an RSA certificate can have.
pub(super) fn suites() -> Vec<SupportedCipherSuite> {
    let all = aws_lc_rs::default_provider().cipher_suites;
    all.into_iter()
        .filter(|suite| !format!("{suite:?}").contains("ECDSA"))
        .collect()
}

/// rustls's own buffered connection, as the stranger at the other end.
pub(super) struct Stranger(pub(super) Connection);

impl Stranger {
    pub(super) fn client(profile: &TlsProfile) -> Self {
        Self(
            ClientConnection::new(Arc::clone(&profile.client), client_name())
                .unwrap()
                .into(),
        )
    }

    pub(super) fn server(profile: &TlsProfile) -> Self {
        Self(ServerConnection::new(Arc::clone(&profile.server)).unwrap().into())
    }

    pub(super) fn take(&mut self, mut cipher: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !cipher.is_empty() {
            self.0.read_tls(&mut cipher).unwrap();
            self.0.process_new_packets().unwrap();
            let _ = self.0.reader().read_to_end(&mut plain);
        }
        plain
    }

    pub(super) fn give(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut out).unwrap();
        }
        out
    }

    fn export(&self) -> [u8; 32] {
        self.0.export_keying_material([0; 32], LABEL, Some(&CONTEXT)).unwrap()
    }
}

/// Gives `cipher` to our session in reads of `step` bytes, as a socket would; returns plain bytes and our answer.
pub(super) fn feed(session: &mut Session, cipher: &[u8], step: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; Session::unfinished_bytes_max() + step];
    for read in cipher.chunks(step) {
        let held = session.unfinished(&mut buffer);
        buffer[held..held + read.len()].copy_from_slice(read);
        session
            .receive(&mut buffer[..held + read.len()], &mut plain, &mut out)
            .unwrap();
    }
    (plain, out)
}

/// Lets both talk until neither has anything to say; begins with what we said first, if we did.
pub(super) fn shake(ours: &mut Session, stranger: &mut Stranger, hello: Vec<u8>, step: usize) {
    let mut from_us = hello;
    loop {
        stranger.take(&from_us);
        let answer = stranger.give();
        from_us = feed(ours, &answer, step).1;
        if from_us.is_empty() {
            return;
        }
    }
}

fn check(ours: &mut Session, stranger: &mut Stranger, step: usize) {
    assert_eq!(ours.export(&CONTEXT), Some(stranger.export()));

    let said: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    let mut sealed = Vec::new();
    ours.seal(&said, &mut sealed).unwrap();
    assert_eq!(stranger.take(&sealed), said);

    stranger.0.writer().write_all(&said[..60_000]).unwrap();
    let (heard, answer) = feed(ours, &stranger.give(), step);
    assert_eq!(heard, said[..60_000]);
    assert!(answer.is_empty());
    // In the middle of a record we can still speak.
    stranger.0.writer().write_all(b"split").unwrap();
    let split = stranger.give();
    let mut heard = feed(ours, &split[..7], step).0;
    sealed.clear();
    ours.seal(b"meanwhile", &mut sealed).unwrap();
    assert_eq!(stranger.take(&sealed), b"meanwhile");
    heard.extend(feed(ours, &split[7..], step).0);
    assert_eq!(heard, b"split");
}

#[test]
fn both_ends_of_every_suite_export_the_same() {
    let shown = Shown::new();
    let ours = shown.ours();
    assert_eq!(suites().len(), 6);
    for suite in suites() {
        let theirs = shown.stranger(suite);
        for step in [13, 65_536] {
            let mut stranger = Stranger::client(&theirs);
            let mut session = Session::accept(&ours).unwrap();
            shake(&mut session, &mut stranger, Vec::new(), step);
            check(&mut session, &mut stranger, step);
            assert_eq!(session.peer_certificate_sha256(), None);

            let (mut hello, mut stranger) = (Vec::new(), Stranger::server(&theirs));
            let mut session = Session::connect(&ours, &mut hello).unwrap();
            shake(&mut session, &mut stranger, hello, step);
            check(&mut session, &mut stranger, step);
            assert_eq!(session.peer_certificate_sha256(), Some(shown.certificate_sha256));
        }
    }
}

#[test]
fn nothing_can_be_said_or_exported_before_the_handshakes_end() {
    let shown = Shown::new();
    let mut session = Session::connect(&shown.ours(), &mut Vec::new()).unwrap();
    assert!(session.seal(b"too early", &mut Vec::new()).is_err());
    assert_eq!(session.export(&CONTEXT), None);
}

#[test]
fn the_end_of_a_session_is_told() {
    let shown = Shown::new();
    let mut stranger = Stranger::client(&shown.ours());
    let mut session = Session::accept(&shown.ours()).unwrap();
    shake(&mut session, &mut stranger, Vec::new(), 65_536);
    stranger.0.writer().write_all(b"last").unwrap();
    stranger.0.send_close_notify();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let progress = session.receive(&mut stranger.give(), &mut plain, &mut out).unwrap();
    assert_eq!(plain, b"last");
    assert!(progress.peer_closed);
}

#[test]
fn a_stranger_who_speaks_no_tls_is_told_so_and_left() {
    let shown = Shown::new();
    let mut session = Session::accept(&shown.ours()).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    assert!(
        session
            .receive(&mut b"GET / HTTP/1.0\r\n\r\n".to_vec(), &mut plain, &mut out)
            .is_err()
    );
    assert!(plain.is_empty());
    assert_eq!(out.first(), Some(&0x15), "an alert record");
}

#[test]
fn a_key_update_in_mid_talk_is_followed() {
    let shown = Shown::new();
    let mut stranger = Stranger::client(&shown.ours());
    let mut session = Session::accept(&shown.ours()).unwrap();
    shake(&mut session, &mut stranger, Vec::new(), 65_536);
    match &mut stranger.0 {
        Connection::Client(client) => client.refresh_traffic_keys().unwrap(),
        Connection::Server(_) => unreachable!(),
    }
    stranger.0.writer().write_all(b"under new keys").unwrap();
    let (plain, answer) = feed(&mut session, &stranger.give(), 65_536);
    assert_eq!(plain, b"under new keys");
    stranger.take(&answer);
    check(&mut session, &mut stranger, 65_536);
}
