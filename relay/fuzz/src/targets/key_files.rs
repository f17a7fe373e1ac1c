//! Key files: C tor's tagged containers, RSA keys in PEM, fingerprints, certificates, base64 blocks.

use relay_formats::cert::Ed25519Cert;
use relay_formats::fingerprint::{Ed25519Identity, RsaIdentity};
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::object_block;
use relay_formats::rsa_key::{RsaPublic, RsaSecret};

/// The first byte says as which file the rest is read.
pub(super) fn key_files(data: &[u8]) {
    let Some((&kind, file)) = data.split_first() else {
        return;
    };
    match kind {
        b'e' => ed25519(file),
        b'o' => {
            if let Ok(key) = key_file::decode_onion_key(file) {
                let written = key_file::encode_onion_key(&key);
                let again = key_file::decode_onion_key(&written).expect("we wrote it");
                assert_eq!(again.public(), key.public());
                assert_eq!(written[64..], file[64..]);
                let (signing, bit) = key.to_ed25519();
                let public = relay_formats::ed25519_key::from_curve25519_public(key.public(), bit);
                assert_eq!(public, Some(signing.public()), "a key that cannot certify itself");
            }
        }
        b'c' => cert(file),
        b'r' => rsa_secret(&String::from_utf8_lossy(file)),
        b'p' => rsa_public(&String::from_utf8_lossy(file)),
        b'd' => {
            if let Ok(public) = RsaPublic::from_der(file) {
                assert_eq!(public.der(), file, "one key has two names");
                rsa_public(&public.to_pem());
            }
        }
        b'f' => fingerprints(&String::from_utf8_lossy(file)),
        _ => block(&String::from_utf8_lossy(file)),
    }
}

fn ed25519(file: &[u8]) {
    for role in [Ed25519Role::Master, Ed25519Role::Signing, Ed25519Role::Family] {
        if let Ok(key) = key_file::decode_ed25519_secret(role, file) {
            let written = key_file::encode_ed25519_secret(role, &key);
            let again = key_file::decode_ed25519_secret(role, &written).expect("we wrote it");
            // A scalar that was not clamped is now.
            assert_eq!(again.expanded(), key.expanded());
            assert_eq!(written[64..], file[64..]);
            let signature = key.sign(b"whatever");
            assert!(relay_formats::ed25519_key::verify(
                &key.public(),
                b"whatever",
                &signature
            ));
        }
    }
    if let Ok(identity) = key_file::decode_master_public(file) {
        assert_eq!(key_file::encode_master_public(&identity), file);
    }
}

fn cert(file: &[u8]) {
    if let Ok(cert) = key_file::decode_signing_cert(file) {
        assert_eq!(key_file::encode_signing_cert(&cert), file);
    }
    if let Ok(cert) = Ed25519Cert::decode(file) {
        assert_eq!(cert.encoded(), file);
        let block = cert.to_block();
        let family = object_block::decode("FAMILY CERT", &block);
        let bytes = family
            .or_else(|_| object_block::decode("ED25519 CERT", &block))
            .expect("we wrote it");
        assert_eq!(bytes[..], *file);
        let _ = cert.expires();
    }
}

fn rsa_secret(text: &str) {
    if let Ok(key) = RsaSecret::from_pem(text) {
        let again = RsaSecret::from_pem(&key.to_pem().expect("we read it")).expect("we wrote it");
        assert_eq!(again.public().identity(), key.public().identity());
        let signature = key.sign_unprefixed(&[7; 20]).expect("a sound key signs");
        assert!(key.public().verify_unprefixed(&[7; 20], &signature));
    }
}

fn rsa_public(text: &str) {
    if let Ok(key) = RsaPublic::from_pem(text) {
        let again = RsaPublic::from_pem(&key.to_pem()).expect("we wrote it");
        assert_eq!(again.der(), key.der());
        assert!(!key.verify_unprefixed(&[7; 20], &[9; 128]), "nobody signed this");
        assert!(!key.verify_sha256(b"whatever", &[9; 128]), "nobody signed this");
    }
}

fn fingerprints(text: &str) {
    if let Ok((nickname, identity)) = key_file::parse_fingerprint::<RsaIdentity>(text) {
        let written = key_file::fingerprint_text(&nickname, &identity);
        assert_eq!(key_file::parse_fingerprint(&written), Ok((nickname, identity)));
    }
    if let Ok((nickname, identity)) = key_file::parse_fingerprint::<Ed25519Identity>(text) {
        let written = key_file::fingerprint_ed25519_text(&nickname, &identity);
        assert_eq!(key_file::parse_fingerprint(&written), Ok((nickname, identity)));
    }
}

fn block(text: &str) {
    for label in ["RSA PUBLIC KEY", "ED25519 CERT", "X"] {
        if let Ok(bytes) = object_block::decode(label, text) {
            assert!(bytes.len() <= text.len());
            let written = object_block::encode(label, &bytes);
            assert_eq!(object_block::decode(label, &written).as_deref(), Ok(&*bytes));
        }
    }
}
