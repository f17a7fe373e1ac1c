//! Known answers that others published, read from the sources of crates that are dependencies by name only: nothing of
//! them is compiled, nothing of them is copied. One test follows them all and counts them.
//!
//! All are published: by the proposal's reference implementation (CGO), by C tor's own tests as Arti's crates carry them
//! (tor1, CREATE_FAST, ntor, ntor-v3, keys), or signed by C tor in test networks and in the real one (certificates).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use relay_formats::cert::{CertError, CertType, Ed25519Cert, verify_rsa_cross_cert};
use relay_formats::ed25519_key::from_curve25519_public;
use relay_formats::fingerprint::Ed25519Identity;
use relay_formats::object_block;
use relay_formats::onion_key::OnionKeyPair;
use relay_formats::rsa_key::RsaPublic;
use relay_wire::cell::BODY_BYTES;
use relay_wire::onion_service::EstablishIntro;
use shake::Shake256;
use shake::digest::{ExtendableOutput, Update, XofReader};
use x25519_dalek::{PublicKey, StaticSecret};

use super::cgo::tests as cgo;
use super::keys::{CircuitKeys, RelayKeys};
use super::x25519::Secret;
use super::{introduction, kdf_tor, ntor, ntor_v3, tor1};

/// A file of a package, wherever cargo has unpacked it.
pub(in crate::crypto) fn source(package: &str, file: &str) -> String {
    static METADATA: OnceLock<String> = OnceLock::new();
    let metadata = METADATA.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--manifest-path", manifest])
            .output()
            .expect("cargo metadata runs");
        String::from_utf8(output.stdout).expect("cargo prints text")
    });
    let folder = format!("/{package}-0.47.0");
    let end = metadata
        .find(&format!("{folder}/Cargo.toml"))
        .expect("the package is a dependency");
    let start = metadata[..end].rfind('"').expect("a path is quoted") + 1;
    let path = PathBuf::from(format!("{}{folder}/{file}", &metadata[start..end]));
    std::fs::read_to_string(path).expect("the package ships its vectors")
}

/// The text of one function of a Rust source.
fn function<'a>(text: &'a str, signature: &str) -> &'a str {
    let rest = &text[text.find(signature).expect("the function exists")..];
    let next = rest[1..].find("#[test]").map_or(rest.len(), |at| at + 1);
    &rest[..next]
}

/// What each `hex!` of a source says, in order.
fn hexes(text: &str) -> Vec<Vec<u8>> {
    let literals = text.split("hex!(").skip(1).map(|rest| {
        let digits: String = rest.split('"').nth(1).expect("a literal").split_whitespace().collect();
        hex::decode(digits).expect("hex")
    });
    literals.collect()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a vector has other lengths than expected")
}

fn tor1_bytes(keys: &CircuitKeys) -> &[u8] {
    match &keys.relay {
        RelayKeys::Tor1(keys) => keys.as_slice(),
        RelayKeys::Cgo(_) => panic!("these are tor1 keys"),
    }
}

/// Cells for the last of three hops, as C tor's client wrapped them; and three relays unwrap all of them.
fn tor1_vectors() -> usize {
    let text = source("tor-proto", "src/crypto/cell/tor1.rs");
    let text = function(&text, "fn testvec()");
    let strings: Vec<&[u8]> = text
        .split("b\"")
        .skip(1)
        .map(|rest| &rest.as_bytes()[..rest.find("\";").expect("a string ends")])
        .collect();
    let pairs = |at: usize| tor1::Direction::pair(&array(&strings[at][..72])).0;
    let (mut client, mut relays) = ([0, 1, 2].map(pairs), [0, 1, 2].map(pairs));
    let mut shake = Shake256::default();
    shake.update(strings[3]);
    let mut stream = shake.finalize_xof();
    let cells = source("tor-proto", "testdata/cell_crypt.rs");
    let expected: HashMap<usize, Vec<u8>> = cells
        .lines()
        .filter_map(|line| {
            let (number, cell) = line.trim().strip_prefix('(')?.split_once(',')?;
            let cell = hex::decode(cell.split('"').nth(1)?).expect("hex");
            Some((number.trim().parse().expect("a number"), cell))
        })
        .collect();
    let mut count = 0;
    for number in 0..51 {
        let mut body = [0; BODY_BYTES];
        (body[0], body[4], body[9], body[10]) = (2, 1, 1, 242);
        stream.read(&mut body[11..]);
        let plain = body;
        client[2].sign(&mut body);
        client.iter_mut().rev().for_each(|hop| hop.crypt(&mut body));
        if let Some(expected) = expected.get(&number) {
            assert_eq!(body.as_slice(), expected, "cell {number}");
            count += 1;
        }
        let found = relays.iter_mut().position(|relay| {
            relay.crypt(&mut body);
            relay.recognise(&mut body).is_some()
        });
        assert_eq!((found, body), (Some(2), plain), "cell {number}");
    }
    assert_eq!(count, expected.len());
    count
}

fn create_fast_vectors() -> usize {
    let text = source("tor-proto", "src/crypto/handshake/fast.rs");
    let hexes = hexes(function(&text, "fn testvec()"));
    for vector in hexes.chunks(3) {
        let [client, reply, keys] = vector else {
            panic!("a vector has three parts")
        };
        let answered = kdf_tor::answer(&array(client), &array(&reply[..20]));
        assert_eq!(answered.reply.as_slice(), reply);
        // Arti's stream begins behind the proof; behind our keys nobody uses it.
        assert_eq!(tor1_bytes(&answered.keys), &keys[..72]);
    }
    hexes.len() / 3
}

fn ntor_vectors() -> usize {
    let text = source("tor-proto", "src/crypto/handshake/ntor.rs");
    let hexes = hexes(function(&text, "fn testvec()"));
    let [b, b_public, x, x_public, y, y_public, id, opening, reply, keys] = hexes.as_slice() else {
        panic!("the vector has ten parts")
    };
    let secret = |bytes: &[u8]| StaticSecret::from(array::<32>(bytes));
    let (b, x, y) = (secret(b), secret(x), secret(y));
    for (secret, public) in [(&b, b_public), (&x, x_public), (&y, y_public)] {
        assert_eq!(PublicKey::from(secret).as_bytes(), public.as_slice());
    }
    let public = ntor::Public {
        identity: array(id),
        onion_key: PublicKey::from(&b),
        client: PublicKey::from(&x),
    };
    assert_eq!(&ntor::client_begins(&public), opening);
    let (answer, ours) = ntor::server(&public, &Secret::from(&b), &Secret::from(&y)).expect("an answer");
    assert_eq!((&answer, tor1_bytes(&ours)), (reply, keys.as_slice()));
    let theirs = ntor::client_ends(&public, &x, &answer).expect("the proof is right");
    assert_eq!(tor1_bytes(&theirs), keys.as_slice());
    1
}

fn ntor_v3_vectors() -> usize {
    let text = source("tor-proto", "src/crypto/handshake/ntor_v3.rs");
    let hexes = hexes(function(&text, "fn test_ntor3_testvec()"));
    let [b, id, x, y, question, verification, answer, opening, reply, stream] = hexes.as_slice() else {
        panic!("the vector has ten parts")
    };
    let secret = |bytes: &[u8]| StaticSecret::from(array::<32>(bytes));
    let (b, x, y) = (secret(b), secret(x), secret(y));
    let public = ntor_v3::Public {
        identity: array(id),
        onion_key: PublicKey::from(&b),
    };
    let (begun, bytes) = ntor_v3::client_begins(public, x, question, verification);
    assert_eq!(&bytes, opening);
    let heard = ntor_v3::hear(
        ntor_v3::Opening::read(opening).expect("an opening"),
        &Secret::from(&b),
        verification,
    )
    .expect("the MAC is right");
    assert_eq!(heard.message.as_slice(), question);
    let (bytes, mut ours) = heard.reply(answer, &Secret::from(&y), verification).expect("an answer");
    assert_eq!(&bytes, reply);
    let (message, mut theirs) = ntor_v3::client_ends(&begun, reply, verification).expect("the proof is right");
    assert_eq!(&message, answer);
    for keys in [&mut ours, &mut theirs] {
        let mut read = vec![0; stream.len()];
        keys.read(&mut read);
        assert_eq!(&read, stream);
    }
    1
}

/// Onion keys turned into the Ed25519 keys that sign cross-certificates.
fn onion_key_vectors() -> usize {
    let text = source("tor-llcrypto", "tests/testvec.rs");
    let text = &function(&text, "fn tv_ed25519_convert()");
    let calls: Vec<&str> = text.split("    edconv_single_test(").skip(1).collect();
    for call in &calls {
        let hexes = hexes(call);
        let [curve_secret, ed_secret, ed_public] = hexes.as_slice() else {
            panic!("a vector has three strings")
        };
        let bit = u8::from(call.lines().any(|line| line.trim() == "1,"));
        let (secret, sign_bit) = OnionKeyPair::from_secret(&array(curve_secret)).to_ed25519();
        assert_eq!(sign_bit, bit);
        assert_eq!(secret.public().0, array::<32>(ed_public));
        // The first half is the same scalar, clamped or not; the second is what signing hashes with.
        assert_eq!(secret.expanded()[32..], ed_secret[32..]);
        let public = PublicKey::from(&StaticSecret::from(array::<32>(curve_secret)));
        assert_eq!(from_curve25519_public(public.as_bytes(), bit), Some(secret.public()));
    }
    calls.len()
}

/// A certificate's object after a line that begins with `keyword`, and the rest of that line.
fn certificates(text: &str, keyword: &str) -> Vec<(String, Ed25519Cert)> {
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().enumerate().filter_map(|(at, line)| {
        let rest = line
            .strip_prefix(keyword)
            .filter(|rest| rest.is_empty() || rest.starts_with(' '))?;
        let block: String = lines[at + 1..].iter().take(5).map(|line| format!("{line}\n")).collect();
        let end = block.find("-----END ED25519 CERT-----\n")? + "-----END ED25519 CERT-----\n".len();
        let bytes = object_block::decode("ED25519 CERT", &block[..end]).expect("an object");
        Some((
            rest.trim().to_owned(),
            Ed25519Cert::decode(&bytes).expect("a certificate"),
        ))
    });
    found.collect()
}

fn line_key(text: &str, keyword: &str) -> [u8; 32] {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(keyword))
        .expect("the line exists");
    let padded = format!(
        "-----BEGIN KEY-----\n{}=\n-----END KEY-----\n",
        line.trim().trim_end_matches('=')
    );
    array(&object_block::decode("KEY", &padded).expect("base64"))
}

/// Each certificate is believed an hour before its end and not after it, from its signer and from nobody else.
fn believe(cert: &Ed25519Cert, kind: u8, signer: &Ed25519Identity) -> Ed25519Identity {
    let hour = Duration::from_secs(3_600);
    let key = cert
        .verify_key(CertType(kind), signer, cert.expires() - hour)
        .expect("it is right");
    let late = cert.verify_key(CertType(kind), signer, cert.expires() + hour);
    assert_eq!(late, Err(CertError::Expired));
    let mut altered = cert.encoded().to_vec();
    altered[10] ^= 1;
    let altered = Ed25519Cert::decode(&altered).expect("it is readable");
    let verdict = altered.verify_key(CertType(kind), signer, cert.expires() - hour);
    assert_eq!(verdict, Err(CertError::Signature));
    key
}

/// Each different one counts once. Signing keys and onion keys of relays: those of a network of C tor, and those of authorities of the real one.
fn descriptor_certificates() -> usize {
    let live = ["Akka", "Ukko", "d2d4", "lisdex", "moria1"];
    let files = ["testdata2/cached-descriptors.new", "testdata2/cached-extrainfo.new"]
        .map(str::to_owned)
        .into_iter()
        .chain((1..=3).map(|number| format!("testdata/routerdesc{number}.txt")))
        .chain(live.iter().map(|name| format!("testdata-live/authority--desc--{name}")))
        .chain(live.iter().map(|name| format!("testdata-live/consensus--desc--{name}")));
    let mut seen = HashSet::new();
    for file in files {
        let text = source("tor-netdoc", &file);
        for document in documents(&text) {
            let mut identity = None;
            for (_, cert) in certificates(document, "identity-ed25519") {
                let signer = cert.named_signer().expect("it names its signer");
                believe(&cert, 4, &signer);
                identity = Some(signer);
                seen.insert(cert.encoded().to_vec());
            }
            for (bit, cert) in certificates(document, "ntor-onion-key-crosscert") {
                let onion_key = line_key(document, "ntor-onion-key ");
                let bit = bit.parse().expect("a sign bit");
                let signer = from_curve25519_public(&onion_key, bit).expect("a key");
                assert_eq!(Some(believe(&cert, 10, &signer)), identity, "{file}");
                seen.insert(cert.encoded().to_vec());
            }
        }
    }
    seen.len()
}

fn documents(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = text
        .match_indices('\n')
        .map(|(at, _)| at + 1)
        .chain([0])
        .filter(|at| text[*at..].starts_with("router ") || text[*at..].starts_with("extra-info "))
        .collect();
    let mut starts = starts;
    starts.sort_unstable();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(from, to)| &text[from..to])
}

/// Descriptors of onion services: the descriptor's signing key, and the keys of introduction points.
fn onion_service_certificates() -> usize {
    let mut seen = HashSet::new();
    for (file, keyword, kind) in [
        ("hsdesc1.txt", "descriptor-signing-key-cert", 8),
        ("hsdesc2.txt", "descriptor-signing-key-cert", 8),
        ("hsdesc-inner.txt", "auth-key", 9),
        ("hsdesc-inner.txt", "enc-key-cert", 11),
        ("hsdesc-inner-pow-v1.txt", "auth-key", 9),
        ("hsdesc-inner-pow-v1.txt", "enc-key-cert", 11),
        ("hsdesc-inner-pow-empty.txt", "auth-key", 9),
        ("hsdesc-inner-pow-empty.txt", "enc-key-cert", 11),
    ] {
        let text = source("tor-netdoc", &format!("testdata/{file}"));
        for (_, cert) in certificates(&text, keyword) {
            believe(&cert, kind, &cert.named_signer().expect("it names its signer"));
            seen.insert(cert.encoded().to_vec());
        }
    }
    seen.len()
}

/// The examples of the CERTS cell, good and bad.
fn link_certificates() -> usize {
    let text = source("tor-cert", "tests/testvec_certs.rs");
    let good = hexes(function(&text, "fn test_valid_ed()"));
    let [signing, identity, four, five, digest] = good.as_slice() else {
        panic!("the example has five parts")
    };
    let (signing, identity) = (Ed25519Identity(array(signing)), Ed25519Identity(array(identity)));
    let four = Ed25519Cert::decode(four).expect("a certificate");
    assert_eq!(believe(&four, 4, &identity), signing);
    let five = Ed25519Cert::decode(five).expect("a certificate");
    let certified = five.verify(CertType(5), &signing, five.expires()).expect("it is right");
    assert_eq!(certified, relay_formats::cert::Certified::X509Sha256(array(digest)));

    let rsa = hexes(function(&text, "fn test_valid_rsa_cc()"));
    let [key, wrong_key, subject, cross] = rsa.as_slice() else {
        panic!("the example has four parts")
    };
    let subject = Ed25519Identity(array(subject));
    let before = four.expires() - Duration::from_secs(31 * 86_400);
    let verdict =
        |key: &[u8]| verify_rsa_cross_cert(cross, &RsaPublic::from_der(key).expect("a key"), &subject, before);
    assert_eq!((verdict(key), verdict(wrong_key)), (Ok(()), Err(CertError::Signature)));

    let text = source("tor-cert", "tests/invalid_certs.rs");
    let bad = hexes(function(&text, "fn cant_parse()"));
    let read: Vec<_> = bad.iter().map(|bytes| Ed25519Cert::decode(bytes).map(|_| ())).collect();
    let expected = [CertError::Version(3), CertError::Length, CertError::Extension(9)];
    // The first is a single byte: its version is what is looked at first.
    assert_eq!(read, expected.map(Err));
    let mismatched = hexes(function(&text, "fn mismatched_signing_key()"));
    let [cert, other, unnamed] = mismatched.as_slice() else {
        panic!("the example has three parts")
    };
    let cert = Ed25519Cert::decode(cert).expect("a certificate");
    let verdict = cert.verify(CertType(4), &Ed25519Identity(array(other)), before);
    assert_eq!(verdict, Err(CertError::Signer));
    let unnamed = Ed25519Cert::decode(unnamed).expect("a certificate");
    assert_eq!(unnamed.named_signer(), Err(CertError::NoSigner));
    // Two good ones, two of RSA, three unreadable, two with another signer.
    2 + 2 + bad.len() + 2
}

/// A service's message as C tor made it for a circuit whose nonce is known.
fn introduction_vectors() -> usize {
    let text = source("tor-cell", "tests/testvec_relaymsg.rs");
    let text = function(&text, "fn establish_intro_canned()");
    let literals: Vec<Vec<u8>> = text
        .split("unhex(")
        .skip(1)
        .map(|rest| {
            let digits: String = rest.split('"').nth(1).expect("a literal").split_whitespace().collect();
            hex::decode(digits).expect("hex")
        })
        .collect();
    let [message, nonce] = literals.as_slice() else {
        panic!("the example has two parts")
    };
    let wish = EstablishIntro::read(message).expect("it is readable");
    assert!(introduction::is_proven(&wish, &array(nonce)));
    let mut altered = message.clone();
    for place in [3, 40, message.len() - 1] {
        altered[place] ^= 1;
        let wish = EstablishIntro::read(&altered).expect("it is readable");
        assert!(!introduction::is_proven(&wish, &array(nonce)), "byte {place}");
        altered[place] ^= 1;
    }
    1
}

#[test]
fn every_published_vector_is_followed() {
    let counts = [
        ("CGO, block cipher", cgo::block_vectors()),
        ("CGO, wide block", cgo::wide_block_vectors()),
        ("CGO, key update", cgo::key_update_vectors()),
        ("CGO, stream", cgo::stream_vectors()),
        ("CGO, relay", cgo::relay_vectors()),
        ("CGO, client", cgo::client_vectors()),
        ("tor1, cells", tor1_vectors()),
        ("CREATE_FAST", create_fast_vectors()),
        ("ntor", ntor_vectors()),
        ("ntor-v3", ntor_v3_vectors()),
        ("ESTABLISH_INTRO", introduction_vectors()),
        ("Ed25519 certificates, onion keys that sign them", onion_key_vectors()),
        ("Ed25519 certificates of links", link_certificates()),
        ("Ed25519 certificates of descriptors", descriptor_certificates()),
        ("Ed25519 certificates of onion services", onion_service_certificates()),
    ];
    for (kind, count) in counts {
        println!("{count:4} published vectors: {kind}");
        assert!(count > 0, "{kind}");
    }
    let sum: usize = counts.iter().map(|(_, count)| count).sum();
    println!("{sum:4} published vectors in all");
    assert!(sum >= 150, "only {sum} vectors were found");
}
