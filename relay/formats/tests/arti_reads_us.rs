//! A stranger reads what we write: Arti's parsers verify our certificates, descriptor and extra-info.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;
use relay_formats::cert::{self, CertType, Certified, NameSigner};
use relay_formats::descriptor::{DescribedBandwidth, Descriptor, DescriptorFacts};
use relay_formats::ed25519_key::Ed25519Secret;
use relay_formats::extra_info::{ExtraInfo, ExtraInfoFacts, Histories};
use relay_formats::fingerprint::RsaIdentity;
use relay_formats::nickname::Nickname;
use relay_formats::onion_key::OnionKeyPair;
use relay_formats::relay_signer::RelaySigner;
use relay_formats::rsa_key::RsaSecret;
use tor_checkable::{ExternallySigned as _, SelfSigned as _, TimeBound as _};
use tor_netdoc::doc::routerdesc::{RouterDesc, RouterDescUnverified};
use tor_netdoc::parse2::{ParseInput, parse_netdoc};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_351_180)
}

struct Relay {
    rsa: RsaSecret,
    tap: RsaSecret,
    master: Ed25519Secret,
    signing: Ed25519Secret,
    signing_cert: cert::Ed25519Cert,
    onion: OnionKeyPair,
    family: Ed25519Secret,
    nickname: Nickname,
}

impl Relay {
    fn new() -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let (master, signing) = (Ed25519Secret::generate(&mut dice), Ed25519Secret::generate(&mut dice));
        let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(signing.public()));
        Self {
            rsa: RsaSecret::from_pem(include_str!("ctor/relay/keys/secret_id_key")).unwrap(),
            tap: RsaSecret::from_pem(include_str!("ctor/relay/keys/secret_onion_key")).unwrap(),
            signing_cert: cert::Ed25519Cert::issue(kind, certified, now() + 30 * DAY, &master, NameSigner::Yes),
            master,
            signing,
            onion: OnionKeyPair::generate(&mut dice),
            family: Ed25519Secret::generate(&mut dice),
            nickname: "ours".parse().unwrap(),
        }
    }
    fn signer(&self) -> RelaySigner<'_> {
        RelaySigner {
            rsa: &self.rsa,
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        }
    }
    fn documents(&self, dummy_tap: bool) -> (Descriptor, ExtraInfo) {
        let extra_info = ExtraInfoFacts {
            nickname: &self.nickname,
            published: now(),
            histories: Histories::default(),
            statistics: vec![],
        };
        let extra_info = ExtraInfo::build(&extra_info, &self.signer()).unwrap();
        let facts = DescriptorFacts {
            nickname: &self.nickname,
            ipv4: Ipv4Addr::new(192, 0, 2, 1),
            or_port: 9001,
            ipv6: Some("[2001:db8::1]:9001".parse().unwrap()),
            version: "0.1.0",
            protocols: "Cons=1-2 Desc=1-4 Link=3-5 LinkAuth=3 Microdesc=1-3 Relay=2-4",
            published: now(),
            uptime: Duration::from_secs(60),
            bandwidth: DescribedBandwidth {
                rate: 1 << 20,
                burst: 2 << 20,
                observed: 5_000,
            },
            extra_info: Some(extra_info.digests),
            caches_extra_info: false,
            onion: &self.onion,
            onion_expires: now() + 28 * DAY,
            dummy_tap: dummy_tap.then_some(&self.tap),
            family: &[RsaIdentity([7; 20])],
            family_keys: &[&self.family],
            family_certs: &[],
            hibernating: false,
            contact: Some("someone <someone AT example>"),
            exit_policy: &relay_formats::exit_policy::ExitPolicy::reject_all(),
            hidden_service_dir: true,
            tunnelled_dir_server: true,
            overload_general: Some(now()),
        };
        (Descriptor::build(&facts, &self.signer()).unwrap(), extra_info)
    }
}

#[test]
fn arti_verifies_our_descriptor() {
    let relay = Relay::new();
    for dummy_tap in [true, false] {
        let (descriptor, _) = relay.documents(dummy_tap);
        let parsed = RouterDesc::parse(&descriptor.text).unwrap();
        let parsed = parsed.check_signature().unwrap().if_valid_at(&now()).unwrap();
        assert_eq!(parsed.rsa_identity().as_bytes(), relay.rsa.public().identity().0);
        assert_eq!(parsed.ed_identity().as_bytes(), &relay.master.public().0);
        assert_eq!(parsed.ntor_onion_key().as_bytes(), relay.onion.public());
        assert_eq!(parsed.or_ports().count(), 2);
    }
}

/// Arti's newer parser checks the certificates of onion key and families too.
#[test]
fn arti_verifies_every_certificate_in_our_descriptor() {
    let relay = Relay::new();
    let (descriptor, _) = relay.documents(true);
    let parsed: RouterDescUnverified = parse_netdoc(&ParseInput::new(&descriptor.text, "descriptor")).unwrap();
    let parsed = parsed.verify().unwrap().if_valid_at(&now()).unwrap();
    assert!(format!("{:?}", parsed.family_ids()).contains(&relay.family.public().to_string()));
}

#[test]
fn arti_notices_a_letter_changed() {
    let (descriptor, _) = Relay::new().documents(true);
    let altered = descriptor.text.replace("uptime 60", "uptime 61");
    let verdict = RouterDesc::parse(&altered).map(|parsed| parsed.check_signature().is_ok());
    assert!(matches!(verdict, Ok(false)));
}

#[test]
fn arti_believes_our_cross_certificate() {
    let relay = Relay::new();
    let cert = cert::issue_rsa_cross_cert(&relay.master.public(), now() + DAY, &relay.rsa).unwrap();
    let signer = tor_llcrypto::pk::rsa::PublicKey::from_der(relay.rsa.public().der()).unwrap();
    let parsed = tor_cert::rsa::RsaCrosscert::decode(&cert).unwrap();
    let parsed = parsed.check_signature(&signer).unwrap().if_valid_at(&now()).unwrap();
    assert!(parsed.subject_key_matches(&relay.master.public().0.into()));
}
