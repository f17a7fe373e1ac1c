//! An onion service's descriptor as a directory receives it: as bytes, as a good one damaged, and as anything that the
//! service itself signed.

use std::sync::LazyLock;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::object_block;
use relay_formats::onion_descriptor::OnionDescriptor;

use crate::relay::{DAY, now};
use crate::tape::{Tape, edited};

struct Service {
    blinded: Ed25519Secret,
    signing: Ed25519Secret,
    cert: Ed25519Cert,
}

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let mut dice = ChaCha20Rng::seed_from_u64(41);
    let [blinded, signing] = [(); 2].map(|()| Ed25519Secret::generate(&mut dice));
    let (kind, certified) = (CertType::BLINDED_SIGNING, Certified::Key(signing.public()));
    let cert = Ed25519Cert::issue(kind, certified, now() + DAY, &blinded, NameSigner::Yes);
    Service { blinded, signing, cert }
});

/// The text with the service's signature behind it.
fn signed(text: &str) -> String {
    let message = [b"Tor onion service descriptor sig v3", text.as_bytes()].concat();
    let signature = base64(&SERVICE.signing.sign(&message));
    format!("{text}signature {signature}\n")
}

/// Unpadded, in one line.
fn base64(bytes: &[u8]) -> String {
    let block = object_block::encode("X", bytes);
    let body: String = block.lines().filter(|line| !line.starts_with('-')).collect();
    body.trim_end_matches('=').to_owned()
}

fn good() -> String {
    format!(
        "hs-descriptor 3\ndescriptor-lifetime 180\ndescriptor-signing-key-cert\n{}revision-counter 42\nsuperencrypted\n{}",
        SERVICE.cert.to_block(),
        *object_block::encode("MESSAGE", b"for clients alone")
    )
}

/// The first byte says what the rest is.
pub(super) fn onion_descriptor(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.u8() {
        b'd' => {
            let whole = signed(&good());
            let (text, changed) = edited(whole.as_bytes(), &mut tape);
            let read = OnionDescriptor::read(&String::from_utf8_lossy(&text), now());
            // Base64 has bits that nobody reads, but the whole text up to the signature is signed.
            let (before, _) = whole.split_at(whole.find("signature ").expect("it is signed"));
            let alike = String::from_utf8_lossy(&text).starts_with(before);
            assert!(changed || read.is_ok(), "{read:?}");
            assert!(alike || read.is_err(), "damaged, and taken");
        }
        b's' => {
            let text = String::from_utf8_lossy(tape.rest());
            // The fuzzer cannot make certificates: a word stands for the service's.
            let text = text.replace("@cert\n", &SERVICE.cert.to_block());
            let text = text.replace("@good\n", &good());
            is_sound(&signed(&text));
        }
        _ => is_sound(&String::from_utf8_lossy(data)),
    }
}

fn is_sound(text: &str) {
    if let Ok(read) = OnionDescriptor::read(text, now()) {
        assert_eq!(read.blinded, SERVICE.blinded.public(), "a service whose key nobody has");
        let minute = Duration::from_secs(60);
        assert!((30 * minute..=720 * minute).contains(&read.lifetime));
        let counter = format!("revision-counter {}", read.revision);
        assert!(
            text.contains(&counter) || text.contains("revision-counter"),
            "{counter}"
        );
        assert!(
            OnionDescriptor::read(text, now() + 30 * DAY).is_err(),
            "its certificate has no end"
        );
    }
}
