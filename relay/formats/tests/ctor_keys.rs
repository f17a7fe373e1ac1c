//! A relay may change from C tor to us and back: we read its key files, and write them byte for byte.

use std::time::{Duration, SystemTime};

use relay_formats::cert::CertType;
use relay_formats::key_file::{self, Ed25519Role};
use relay_formats::rsa_key::{RsaPublic, RsaSecret};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("ctor/relay/", $name))
    };
}
macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("ctor/relay/", $name))
    };
}

#[test]
fn both_fingerprints_of_a_c_tor_relay_stay_the_same() {
    let rsa = RsaSecret::from_pem(text!("keys/secret_id_key")).unwrap();
    let (nickname, fingerprint) = key_file::parse_fingerprint(text!("fingerprint")).unwrap();
    assert_eq!(rsa.public().identity(), fingerprint);
    assert_eq!(
        key_file::fingerprint_text(&nickname, &fingerprint),
        text!("fingerprint")
    );

    let master =
        key_file::decode_ed25519_secret(Ed25519Role::Master, file!("keys/ed25519_master_id_secret_key")).unwrap();
    let public = key_file::decode_master_public(file!("keys/ed25519_master_id_public_key")).unwrap();
    let (_, identity) = key_file::parse_fingerprint(text!("fingerprint-ed25519")).unwrap();
    assert_eq!((master.public(), public), (identity, identity));
    assert_eq!(
        key_file::fingerprint_ed25519_text(&nickname, &identity),
        text!("fingerprint-ed25519")
    );
}

#[test]
fn the_signing_key_carries_the_master_keys_word_until_the_day_c_tor_names() {
    let signing =
        key_file::decode_ed25519_secret(Ed25519Role::Signing, file!("keys/ed25519_signing_secret_key")).unwrap();
    let cert = key_file::decode_signing_cert(file!("keys/ed25519_signing_cert")).unwrap();
    let master = cert.named_signer().unwrap();
    let (_, identity) = key_file::parse_fingerprint(text!("fingerprint-ed25519")).unwrap();
    assert_eq!(master, identity);
    // `tor --key-expiration sign` says 2031-11-22 18:00:00.
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_953_136_800);
    assert_eq!(cert.expires(), end);
    let kind = CertType::IDENTITY_SIGNING;
    assert_eq!(cert.verify_key(kind, &master, end), Ok(signing.public()));
    assert!(cert.verify_key(kind, &master, end + Duration::from_secs(1)).is_err());
}

#[test]
fn the_family_key_gives_the_family_id() {
    let key = key_file::decode_ed25519_secret(Ed25519Role::Family, file!("fixture.secret_family_key")).unwrap();
    assert_eq!(
        key_file::family_id_text(&key.public()),
        text!("fixture.public_family_id")
    );
}

#[test]
fn what_we_write_is_what_c_tor_wrote() {
    let master = file!("keys/ed25519_master_id_secret_key");
    let key = key_file::decode_ed25519_secret(Ed25519Role::Master, master).unwrap();
    assert_eq!(
        key_file::encode_ed25519_secret(Ed25519Role::Master, &key)[..],
        master[..]
    );
    assert_eq!(
        key_file::encode_master_public(&key.public())[..],
        file!("keys/ed25519_master_id_public_key")[..]
    );
    let cert = file!("keys/ed25519_signing_cert");
    let read = key_file::decode_signing_cert(cert).unwrap();
    assert_eq!(key_file::encode_signing_cert(&read)[..], cert[..]);
    let onion = file!("keys/secret_onion_key_ntor");
    let read = key_file::decode_onion_key(onion).unwrap();
    assert_eq!(key_file::encode_onion_key(&read)[..], onion[..]);
    for pem in [text!("keys/secret_id_key"), text!("keys/secret_onion_key")] {
        let key = RsaSecret::from_pem(pem).unwrap();
        // C tor ends the file with a NUL that no reader needs.
        assert_eq!(key.to_pem().unwrap().as_str(), pem.trim_end_matches('\0'));
        assert_eq!(
            RsaPublic::from_der(key.public().der()).unwrap().sha256(),
            key.public().sha256()
        );
    }
}
