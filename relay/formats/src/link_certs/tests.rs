use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use crate::ed25519_key::Ed25519Secret;
use crate::fingerprint::Ed25519Identity;
use crate::key_file::parse_fingerprint;
use crate::rsa_key::RsaSecret;
use crate::test_dice;

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_351_180)
}

/// Made beforehand: to make one takes longer than all that is tested with it.
const RSA_KEYS: [&str; 2] = [
    include_str!("../../tests/ctor/relay/keys/secret_id_key"),
    include_str!("../../tests/ctor/relay/keys/secret_onion_key"),
];
static TLS_KEY: LazyLock<TlsLinkKey> = LazyLock::new(|| TlsLinkKey::generate(&mut test_dice(99)).unwrap());

/// A relay with all its keys.
struct Relay {
    rsa: RsaSecret,
    master: Ed25519Secret,
    signing: Ed25519Secret,
    signing_cert: Ed25519Cert,
}

impl Relay {
    fn new(seed: u64) -> Self {
        let mut dice = test_dice(seed);
        let (master, signing) = (Ed25519Secret::generate(&mut dice), Ed25519Secret::generate(&mut dice));
        let certified = Certified::Key(signing.public());
        let kind = CertType::IDENTITY_SIGNING;
        Self {
            rsa: RsaSecret::from_pem(RSA_KEYS[usize::from(seed > 1)]).unwrap(),
            signing_cert: Ed25519Cert::issue(kind, certified, now() + 30 * DAY, &master, NameSigner::Yes),
            master,
            signing,
        }
    }
    fn signer(&self) -> LinkSigner<'_> {
        LinkSigner {
            rsa: &self.rsa,
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        }
    }
    fn responder(&self) -> ResponderLink {
        let mut dice = test_dice(99);
        responder_link(&self.signer(), &TLS_KEY, None, now(), &mut dice).unwrap()
    }
    fn initiator(&self, link_auth: &Ed25519Secret) -> Vec<u8> {
        initiator_certs(&self.signer(), &link_auth.public(), now(), &mut test_dice(98)).unwrap()
    }
}

/// The certificates of a body, to take some out or put some in.
fn taken_apart(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut certs) = (&body[1..], Vec::new());
    while let [kind, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        certs.push((*kind, tail[..length].to_vec()));
        rest = &tail[length..];
    }
    certs
}

fn put_together(certs: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![certs.len() as u8];
    for (kind, cert) in certs {
        body.push(*kind);
        body.extend((cert.len() as u16).to_be_bytes());
        body.extend(cert);
    }
    body
}

#[test]
fn a_responder_proves_both_identities() {
    let relay = Relay::new(1);
    let link = relay.responder();
    let kinds: Vec<u8> = taken_apart(&link.certs_body).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 4, 5, 7]);
    let peer = prove_responder(&link.certs_body, &link.tls_certificate_sha256, now()).unwrap();
    assert_eq!(peer.rsa(), relay.rsa.public().identity());
    assert_eq!(*peer.rsa_sha256(), relay.rsa.public().sha256());
    assert_eq!(peer.ed25519(), relay.master.public());
}

#[test]
fn an_initiator_proves_both_identities_once_it_signs() {
    let relay = Relay::new(1);
    let link_auth = Ed25519Secret::generate(&mut test_dice(5));
    let body = relay.initiator(&link_auth);
    let kinds: Vec<u8> = taken_apart(&body).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [2, 3, 4, 6, 7]);
    let claim = prove_initiator(&body, now()).unwrap();
    assert_eq!(claim.link_auth_key(), link_auth.public());
    assert_eq!(claim.claimed_ed25519(), relay.master.public());
    assert_eq!(*claim.claimed_rsa_sha256(), relay.rsa.public().sha256());
    let stolen = claim.clone().prove(b"AUTH0003", &relay.signing.sign(b"AUTH0003"));
    assert_eq!(stolen, Err(LinkCertError::Authenticate));
    let peer = claim.prove(b"AUTH0003", &link_auth.sign(b"AUTH0003")).unwrap();
    assert_eq!(
        (peer.rsa(), peer.ed25519()),
        (relay.rsa.public().identity(), relay.master.public())
    );
}

#[test]
fn certificates_of_another_link_prove_nothing() {
    let link = Relay::new(1).responder();
    let verdict = prove_responder(&link.certs_body, &[7; 32], now());
    assert_eq!(verdict, Err(LinkCertError::OtherTlsCertificate));
}

#[test]
fn each_link_of_the_chain_is_needed() {
    let link = Relay::new(1).responder();
    for (kind, needed) in [(1, false), (2, true), (4, true), (5, true), (7, true)] {
        let mut certs = taken_apart(&link.certs_body);
        certs.retain(|(other, _)| *other != kind);
        let verdict = prove_responder(&put_together(&certs), &link.tls_certificate_sha256, now());
        match needed {
            true => assert_eq!(verdict, Err(LinkCertError::Missing(kind))),
            false => assert!(verdict.is_ok()),
        }
    }
}

#[test]
fn a_chain_with_another_relays_link_breaks() {
    let (ours, theirs) = (Relay::new(1).responder(), Relay::new(2).responder());
    let foreign = taken_apart(&theirs.certs_body);
    for kind in [2, 4, 5, 7] {
        let mut certs = taken_apart(&ours.certs_body);
        for (other, cert) in &mut certs {
            if *other == kind {
                *cert = foreign.iter().find(|(found, _)| found == other).unwrap().1.clone();
            }
        }
        let verdict = prove_responder(&put_together(&certs), &ours.tls_certificate_sha256, now());
        assert!(verdict.is_err(), "type {kind}");
    }
}

#[test]
fn a_type_may_come_once_and_unknown_types_do_no_harm() {
    let link = Relay::new(1).responder();
    let verdict = |certs: &[(u8, Vec<u8>)]| prove_responder(&put_together(certs), &link.tls_certificate_sha256, now());
    let mut certs = taken_apart(&link.certs_body);
    certs.insert(0, (200, vec![1, 2, 3]));
    certs.insert(2, (200, vec![]));
    assert!(verdict(&certs).is_ok());
    certs.push(certs[1].clone());
    assert_eq!(verdict(&certs), Err(LinkCertError::Twice(1)));
}

#[test]
fn link_certificates_last_two_days() {
    let link = Relay::new(1).responder();
    let verdict = |at| prove_responder(&link.certs_body, &link.tls_certificate_sha256, at);
    assert!(verdict(now() + 2 * DAY).is_ok());
    let late = verdict(now() + 2 * DAY + Duration::from_secs(3_601));
    assert_eq!(late, Err(LinkCertError::Broken(5, CertError::Expired)));
}

#[test]
fn the_tls_certificate_is_good_now_and_tomorrow_whatever_the_dice_say() {
    let relay = Relay::new(1);
    assert!(TlsLinkKey::from_pkcs8(TLS_KEY.pkcs8_der()).is_ok());
    for seed in 0..40 {
        let link = responder_link(&relay.signer(), &TLS_KEY, None, now(), &mut test_dice(seed)).unwrap();
        let parsed: x509_cert::Certificate = x509_cert::der::Decode::from_der(&link.tls_certificate_der).unwrap();
        let tbs = parsed.tbs_certificate;
        assert!(tbs.extensions.is_none() && tbs.version == x509_cert::Version::V3);
        assert!(tbs.validity.not_before.to_system_time() <= now());
        assert!(tbs.validity.not_after.to_system_time() >= now() + DAY - Duration::from_secs(1));
        let subject = tbs.subject.to_string();
        assert!(subject.starts_with("CN=www.") && subject.ends_with(".net"), "{subject}");
    }
}

/// CERTS of C tor 0.4.9.11 on a real link.
#[test]
fn c_tor_proves_itself_to_us() {
    let body = include_bytes!("../../tests/ctor/link/certs-responder.bin");
    let tls = Sha256::digest(include_bytes!("../../tests/ctor/link/tls-certificate.der")).into();
    let peer = prove_responder(body, &tls, now()).unwrap();
    let (_, rsa) = parse_fingerprint(include_str!("../../tests/ctor/relay/fingerprint")).unwrap();
    let (_, ed25519) =
        parse_fingerprint::<Ed25519Identity>(include_str!("../../tests/ctor/relay/fingerprint-ed25519")).unwrap();
    assert_eq!((peer.rsa(), peer.ed25519()), (rsa, ed25519));
}

#[test]
fn a_flipped_bit_in_a_certificate_that_counts_is_noticed() {
    let body = include_bytes!("../../tests/ctor/link/certs-responder.bin");
    let tls = Sha256::digest(include_bytes!("../../tests/ctor/link/tls-certificate.der")).into();
    let first_that_counts = 1 + 3 + 581;
    for at in first_that_counts..body.len() {
        let mut altered = body.to_vec();
        altered[at] ^= 1;
        assert!(prove_responder(&altered, &tls, now()).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_prover_stumble(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(prove_responder(&body, &[0; 32], now()).is_err());
        prop_assert!(prove_initiator(&body, now()).is_err());
    }

    #[test]
    fn no_damage_to_a_good_cell_makes_it_stumble(at in 0_usize..1445, cut in 0_usize..1445, byte: u8) {
        let mut body = include_bytes!("../../tests/ctor/link/certs-responder.bin").to_vec();
        body[at] = byte;
        let _ = prove_initiator(&body, now());
        let _ = prove_responder(&body, &[0; 32], now());
        prop_assert!(prove_responder(&body[..cut], &[0; 32], now()).is_err());
    }
}
