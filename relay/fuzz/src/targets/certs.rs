//! CERTS cells, put together of good certificates of two relays, damaged ones and bytes.

use std::sync::LazyLock;

use relay_formats::cert::{Ed25519Cert, verify_rsa_cross_cert};
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::link_certs::{prove_initiator, prove_responder};
use relay_formats::x509::verify_self_signed_identity;

use crate::relay::{Relay, now, tls_key};
use crate::tape::{Tape, edited};

struct Known {
    relays: [Relay; 2],
    /// SHA-256 of the TLS certificate that each showed.
    tls_sha256: [[u8; 32]; 2],
    /// All certificates of both, as responders and as initiators, with their types.
    certs: Vec<(u8, Vec<u8>)>,
    bodies: Vec<Vec<u8>>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let (relays, tls) = ([Relay::new(0), Relay::new(1)], tls_key());
    let responders = relays.each_ref().map(|relay| relay.responder(&tls));
    let bodies = vec![
        responders[0].certs_body.clone(),
        relays[0].initiator(),
        responders[1].certs_body.clone(),
        relays[1].initiator(),
    ];
    Known {
        certs: bodies.iter().flat_map(|body| taken_apart(body)).collect(),
        tls_sha256: responders.each_ref().map(|link| link.tls_certificate_sha256),
        relays,
        bodies,
    }
});

fn taken_apart(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut certs) = (&body[1..], Vec::new());
    while let [kind, high, low, tail @ ..] = rest {
        let (cert, tail) = tail.split_at(u16::from_be_bytes([*high, *low]).into());
        certs.push((*kind, cert.to_vec()));
        rest = tail;
    }
    certs
}

/// The first byte says how the rest makes a cell.
pub(super) fn certs(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.u8() {
        b'b' => body(tape.rest()),
        b'e' => {
            let whole = &KNOWN.bodies[tape.below(KNOWN.bodies.len())];
            body(&edited(whole, &mut tape).0);
        }
        b'x' => single(tape.rest()),
        b's' => {
            let (_, cert) = &KNOWN.certs[tape.below(KNOWN.certs.len())];
            single(&edited(cert, &mut tape).0);
        }
        _ => body(&mixed(&mut tape)),
    }
}

/// Certificates of both relays in any order, under any type, some damaged.
fn mixed(tape: &mut Tape<'_>) -> Vec<u8> {
    let count = tape.below(9);
    let mut body = vec![count as u8];
    for _ in 0..count {
        let (kind, cert) = &KNOWN.certs[tape.below(KNOWN.certs.len())];
        let (kind, cert) = match tape.below(8) {
            0 => (tape.u8(), cert.clone()),
            1 => (*kind, edited(cert, tape).0),
            2 => (*kind, tape.run().to_vec()),
            _ => (*kind, cert.clone()),
        };
        body.push(kind);
        body.extend((cert.len() as u16).to_be_bytes());
        body.extend(cert);
    }
    body
}

/// Whoever is proven is one relay as a whole, and the one whose link it is.
fn body(body: &[u8]) {
    for (relay, tls_sha256) in KNOWN.relays.iter().zip(&KNOWN.tls_sha256) {
        if let Ok(peer) = prove_responder(body, tls_sha256, now()) {
            assert_eq!((peer.rsa(), peer.ed25519()), names(relay), "another's link");
            assert_eq!(*peer.rsa_sha256(), relay.rsa.public().sha256());
        }
    }
    if let Ok(peer) = prove_initiator(body, now()) {
        let claimed = KNOWN
            .relays
            .iter()
            .find(|relay| names(relay).1 == peer.claimed_ed25519());
        let relay = claimed.expect("someone whose key nobody has");
        assert_eq!(*peer.claimed_rsa_sha256(), relay.rsa.public().sha256());
        assert_eq!(peer.link_auth_key(), relay.link_auth.public());
        assert!(peer.prove(b"signed", &[5; 64]).is_err(), "nobody signed this");
    }
}

fn names(relay: &Relay) -> (RsaIdentity, Ed25519Identity) {
    (relay.rsa.public().identity(), relay.master.public())
}

/// One certificate, read as each kind.
fn single(bytes: &[u8]) {
    if let Ok(key) = verify_self_signed_identity(bytes, now()) {
        let known = KNOWN
            .relays
            .iter()
            .any(|relay| relay.rsa.public().identity() == key.identity());
        // The fuzzer could in principle make a key of its own; it never did.
        assert!(known, "a stranger's certificate");
    }
    for relay in &KNOWN.relays {
        let verdict = verify_rsa_cross_cert(bytes, relay.rsa.public(), &relay.master.public(), now());
        if verdict.is_ok() {
            assert!(
                KNOWN.certs.iter().any(|(_, cert)| bytes.starts_with(cert)),
                "a cross-certificate that nobody made"
            );
        }
    }
    if let Ok(cert) = Ed25519Cert::decode(bytes) {
        assert_eq!(cert.encoded(), bytes);
        let _ = cert.named_signer();
    }
}
