use proptest::prelude::*;

use super::*;
use crate::test_dice;

/// A moment that is no full hour.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_001)
}
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn signing_cert(identity: &Ed25519Secret, signing: &Ed25519Secret) -> Ed25519Cert {
    let certified = Certified::Key(signing.public());
    Ed25519Cert::issue(
        CertType::IDENTITY_SIGNING,
        certified,
        noon() + DAY,
        identity,
        NameSigner::Yes,
    )
}

#[test]
fn a_certificate_survives_the_wire_and_vouches_for_its_key() {
    let (identity, signing) = (
        Ed25519Secret::generate(&mut test_dice(1)),
        Ed25519Secret::generate(&mut test_dice(2)),
    );
    let cert = signing_cert(&identity, &signing);
    assert_eq!(cert.encoded().len(), 140);
    let read = Ed25519Cert::decode(cert.encoded()).unwrap();
    assert_eq!(read, cert);
    assert_eq!(read.named_signer(), Ok(identity.public()));
    let key = read.verify_key(CertType::IDENTITY_SIGNING, &identity.public(), noon());
    assert_eq!(key, Ok(signing.public()));
}

#[test]
fn a_certificate_vouches_neither_late_nor_elsewhere_nor_for_others() {
    let (identity, signing) = (
        Ed25519Secret::generate(&mut test_dice(1)),
        Ed25519Secret::generate(&mut test_dice(2)),
    );
    let cert = signing_cert(&identity, &signing);
    let kind = CertType::IDENTITY_SIGNING;
    let wrong_type = CertError::Type { expected: 5, found: 4 };
    assert_eq!(
        cert.verify(CertType::SIGNING_TLS, &identity.public(), noon()),
        Err(wrong_type)
    );
    assert_eq!(cert.verify(kind, &signing.public(), noon()), Err(CertError::Signer));
    assert_eq!(
        cert.verify(kind, &identity.public(), noon() + 2 * DAY),
        Err(CertError::Expired)
    );
    assert!(cert.verify(kind, &identity.public(), cert.expires()).is_ok());
}

#[test]
fn the_expiry_is_the_next_full_hour() {
    let identity = Ed25519Secret::generate(&mut test_dice(1));
    let hour = SystemTime::UNIX_EPOCH + Duration::from_secs(500_000 * 3_600);
    for (asked, told) in [
        (hour, hour),
        (hour + Duration::from_millis(1), hour + Duration::from_secs(3_600)),
    ] {
        let certified = Certified::X509Sha256([0; 32]);
        let cert = Ed25519Cert::issue(CertType::SIGNING_TLS, certified, asked, &identity, NameSigner::No);
        assert_eq!((cert.expires(), cert.encoded().len()), (told, 104));
    }
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let (identity, signing) = (
        Ed25519Secret::generate(&mut test_dice(1)),
        Ed25519Secret::generate(&mut test_dice(2)),
    );
    let good = signing_cert(&identity, &signing);
    for at in 0..good.encoded().len() {
        let mut bytes = good.encoded().to_vec();
        bytes[at] ^= 1;
        let verdict = Ed25519Cert::decode(&bytes)
            .and_then(|cert| cert.verify(CertType::IDENTITY_SIGNING, &identity.public(), noon()));
        assert!(verdict.is_err(), "byte {at}");
    }
}

#[test]
fn an_unknown_extension_is_skipped_unless_it_affects_validation() {
    let identity = Ed25519Secret::generate(&mut test_dice(1));
    let with_extension = |flags| {
        let mut bytes = vec![1, 4, 0, 9, 0, 0, 1];
        bytes.extend([7; 32]);
        bytes.extend([1, 0, 2, 99, flags, 0xaa, 0xbb]);
        bytes.extend(identity.sign(&bytes));
        bytes
    };
    let cert = Ed25519Cert::decode(&with_extension(0)).unwrap();
    assert!(
        cert.verify(CertType::IDENTITY_SIGNING, &identity.public(), noon())
            .is_ok()
    );
    assert_eq!(Ed25519Cert::decode(&with_extension(1)), Err(CertError::Extension(99)));
}

#[test]
fn the_onion_key_vouches_for_the_identity() {
    for seed in 0..4 {
        let onion = OnionKeyPair::generate(&mut test_dice(seed));
        let identity = Ed25519Identity([9; 32]);
        let (cert, sign_bit) = issue_onion_cross_cert(&onion, &identity, noon() + DAY);
        let signer = ed25519_key::from_curve25519_public(onion.public(), sign_bit).unwrap();
        assert_eq!(cert.verify_key(CertType::ONION_IDENTITY, &signer, noon()), Ok(identity));
    }
}

#[test]
fn the_rsa_key_vouches_for_the_ed25519_key() {
    let rsa = RsaSecret::generate(&mut test_dice(1)).unwrap();
    let other = RsaSecret::generate(&mut test_dice(2)).unwrap();
    let identity = Ed25519Identity([9; 32]);
    let mut cert = issue_rsa_cross_cert(&identity, noon() + DAY, &rsa).unwrap();
    assert_eq!(cert.len(), 165);
    let check = |cert: &[u8], signer: &RsaSecret, key, now| verify_rsa_cross_cert(cert, signer.public(), &key, now);
    assert_eq!(check(&cert, &rsa, identity, noon()), Ok(()));
    assert_eq!(check(&cert, &rsa, identity, noon() + 2 * DAY), Err(CertError::Expired));
    assert_eq!(check(&cert, &other, identity, noon()), Err(CertError::Signature));
    assert_eq!(
        check(&cert, &rsa, Ed25519Identity([8; 32]), noon()),
        Err(CertError::Subject)
    );
    cert.push(0);
    assert_eq!(check(&cert, &rsa, identity, noon()), Err(CertError::Length));
}

/// Certificates of a relay run by C tor 0.4.9.11 in a private network.
#[test]
fn certificates_made_by_c_tor_are_believed() {
    let descriptor = include_str!("../../tests/ctor/descriptor-family-key.txt");
    let block = |label, text: &str| Ed25519Cert::decode(&object_block::decode(label, text).unwrap()).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_327_894);
    let identity: Ed25519Identity = "qbqjLQNgjOSibOLuuv1dDBzCqtcztn9pzvkziCiP6Jw".parse().unwrap();

    let signing = block("ED25519 CERT", descriptor);
    assert!(signing.verify_key(CertType::IDENTITY_SIGNING, &identity, at).is_ok());

    let after = descriptor.split("ntor-onion-key-crosscert 1").nth(1).unwrap();
    let onion = after.split("ntor-onion-key ").nth(1).unwrap().lines().next().unwrap();
    let onion: Ed25519Identity = onion.parse().unwrap();
    let signer = ed25519_key::from_curve25519_public(&onion.0, 1).unwrap();
    assert_eq!(
        block("ED25519 CERT", after).verify_key(CertType::ONION_IDENTITY, &signer, at),
        Ok(identity)
    );

    let family = block("FAMILY CERT", descriptor);
    let family_key = family.named_signer().unwrap();
    assert_eq!(family_key.to_string(), "1hhRwO2OrcndgZiCroHaqGdunWz6OfDS5gZvnt1spSA");
    assert_eq!(
        family.verify_key(CertType::FAMILY_IDENTITY, &family_key, at),
        Ok(identity)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Ed25519Cert::decode(&bytes);
    }

    #[test]
    fn no_tail_after_a_good_head_makes_the_reader_stumble(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![1, 4, 0, 9, 0, 0, 1];
        bytes.extend([7; 32]);
        bytes.extend(tail);
        let _ = Ed25519Cert::decode(&bytes);
    }
}
