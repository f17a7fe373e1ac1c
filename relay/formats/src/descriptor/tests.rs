use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::ed25519_key;
use crate::extra_info::{BandwidthHistory, ExtraInfo, ExtraInfoFacts, Histories};
use crate::rsa_key::RsaPublic;
use crate::test_dice;

const PROTOCOLS: &str = "Cons=1-2 Desc=1-2 FlowCtrl=1 Link=3-5 LinkAuth=3 Microdesc=1-2 Relay=2-4";

fn published() -> SystemTime {
    time_text::parse("2026-11-22 06:11:34").unwrap()
}

/// A relay's keys.
struct Keys {
    rsa: RsaSecret,
    tap: RsaSecret,
    signing: Ed25519Secret,
    signing_cert: Ed25519Cert,
    onion: OnionKeyPair,
    nickname: Nickname,
    no_exit: ExitPolicy,
}

impl Keys {
    fn new() -> Self {
        let mut dice = test_dice(1);
        let (master, signing) = (Ed25519Secret::generate(&mut dice), Ed25519Secret::generate(&mut dice));
        let (kind, certified) = (CertType::IDENTITY_SIGNING, Certified::Key(signing.public()));
        let ends = published() + Duration::from_secs(30 * 86_400);
        Self {
            rsa: RsaSecret::from_pem(include_str!("../../tests/ctor/relay/keys/secret_id_key")).unwrap(),
            tap: RsaSecret::from_pem(include_str!("../../tests/ctor/relay/keys/secret_onion_key")).unwrap(),
            signing_cert: Ed25519Cert::issue(kind, certified, ends, &master, NameSigner::Yes),
            signing,
            onion: OnionKeyPair::generate(&mut dice),
            nickname: "r1".parse().unwrap(),
            no_exit: ExitPolicy::reject_all(),
        }
    }
    fn signer(&self) -> RelaySigner<'_> {
        RelaySigner {
            rsa: &self.rsa,
            signing: &self.signing,
            signing_cert: &self.signing_cert,
        }
    }
    /// What a plain middle says.
    fn facts(&self) -> DescriptorFacts<'_> {
        DescriptorFacts {
            nickname: &self.nickname,
            ipv4: Ipv4Addr::new(127, 4, 1, 1),
            or_port: 9001,
            ipv6: None,
            version: "0.1.0",
            protocols: PROTOCOLS,
            published: published(),
            uptime: Duration::from_millis(7_900),
            bandwidth: DescribedBandwidth {
                rate: 1 << 30,
                burst: 1 << 30,
                observed: 864,
            },
            extra_info: None,
            caches_extra_info: false,
            onion: &self.onion,
            onion_expires: published() + Duration::from_secs(28 * 86_400),
            dummy_tap: Some(&self.tap),
            family: &[],
            family_keys: &[],
            family_certs: &[],
            hibernating: false,
            contact: Some("r1@example.invalid"),
            exit_policy: &self.no_exit,
            hidden_service_dir: true,
            tunnelled_dir_server: true,
            overload_general: None,
        }
    }
    fn build(&self, facts: &DescriptorFacts<'_>) -> String {
        Descriptor::build(facts, &self.signer()).unwrap().text
    }
    fn extra_info(&self, statistics: Vec<String>) -> ExtraInfo {
        let facts = ExtraInfoFacts {
            nickname: &self.nickname,
            published: published(),
            histories: Histories::default(),
            statistics,
        };
        ExtraInfo::build(&facts, &self.signer()).unwrap()
    }
}

/// Keywords in their order, objects left out.
fn shape(document: &str) -> Vec<&str> {
    let mut within = false;
    let outside = document.lines().filter(|line| {
        let marker = line.starts_with("-----");
        within ^= marker;
        !marker && !within
    });
    outside.filter_map(|line| line.split(' ').next()).collect()
}

fn line<'a>(document: &'a str, keyword: &str) -> Option<&'a str> {
    document
        .lines()
        .find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' '))
}

/// The SHA-1 that names the document, and whether both signatures are those of `rsa` and of the certified key.
fn digest_and_verdict(document: &str, rsa: &RsaPublic) -> ([u8; 20], bool) {
    let cert = Ed25519Cert::decode(&object_block::decode("ED25519 CERT", document).unwrap()).unwrap();
    let signer = cert
        .verify_key(CertType::IDENTITY_SIGNING, &cert.named_signer().unwrap(), published())
        .unwrap();
    let (before, after) = document.split_once("router-sig-ed25519 ").unwrap();
    let signature = STANDARD_NO_PAD
        .decode(after.lines().next().unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    let signed = format!("Tor router descriptor signature v1{before}router-sig-ed25519 ");
    let ed25519 = ed25519_key::verify(&signer, &Sha256::digest(signed), &signature);

    let end = document.find("\nrouter-signature\n").unwrap() + "\nrouter-signature\n".len();
    let sha1: [u8; 20] = Sha1::digest(&document[..end]).into();
    let signature = object_block::decode("SIGNATURE", &document[end..]).unwrap();
    (sha1, ed25519 && rsa.verify_unprefixed(&sha1, &signature))
}

/// A C tor relay's descriptor and extra-info of the same minute.
const C_TOR: (&str, &str) = (
    include_str!("../../tests/ctor/descriptor-family-key.txt"),
    include_str!("../../tests/ctor/extra-info-family-key.txt"),
);

fn signing_key(descriptor: &str) -> RsaPublic {
    RsaPublic::from_pem(descriptor.split_once("\nsigning-key\n").unwrap().1).unwrap()
}

#[test]
fn our_test_reads_signatures_as_c_tor_makes_them() {
    let (descriptor, extra_info) = C_TOR;
    let rsa = signing_key(descriptor);
    assert!(digest_and_verdict(descriptor, &rsa).1);
    let (sha1, good) = digest_and_verdict(extra_info, &rsa);
    assert!(good);
    let digests = format!(
        "{} {}",
        hex::encode_upper(sha1),
        STANDARD_NO_PAD.encode(Sha256::digest(extra_info))
    );
    assert_eq!(line(descriptor, "extra-info-digest"), Some(digests.as_str()));
}

#[test]
fn both_keys_sign_the_descriptor_and_its_extra_info() {
    let keys = Keys::new();
    let extra_info = keys.extra_info(vec![]);
    let facts = DescriptorFacts {
        extra_info: Some(extra_info.digests),
        ..keys.facts()
    };
    let descriptor = Descriptor::build(&facts, &keys.signer()).unwrap();
    assert_eq!(
        digest_and_verdict(&descriptor.text, keys.rsa.public()),
        (descriptor.sha1, true)
    );
    assert_eq!(
        digest_and_verdict(&extra_info.text, keys.rsa.public()),
        (extra_info.digests.sha1, true)
    );
    let digests = line(&descriptor.text, "extra-info-digest").unwrap();
    assert!(digests.starts_with(&hex::encode_upper(extra_info.digests.sha1)));
    assert!(digests.ends_with(&STANDARD_NO_PAD.encode(Sha256::digest(&extra_info.text))));
}

#[test]
fn our_lines_come_in_c_tors_order() {
    let keys = Keys::new();
    let family_key = Ed25519Secret::generate(&mut test_dice(7));
    let extra_info = keys.extra_info(vec![]);
    let digests = Some(extra_info.digests);
    let with_key = DescriptorFacts {
        extra_info: digests,
        family_keys: &[&family_key],
        ..keys.facts()
    };
    assert_eq!(shape(&keys.build(&with_key)), shape(C_TOR.0));
    let with_list = DescriptorFacts {
        extra_info: digests,
        family: &[RsaIdentity([7; 20])],
        ..keys.facts()
    };
    let theirs = include_str!("../../tests/ctor/descriptor-myfamily.txt");
    assert_eq!(shape(&keys.build(&with_list)), shape(theirs));
    assert_eq!(shape(&extra_info.text), shape(C_TOR.1));
}

#[test]
fn every_line_that_may_come_comes_in_its_place() {
    let keys = Keys::new();
    let facts = DescriptorFacts {
        ipv6: Some("[2001:db8::1]:9001".parse().unwrap()),
        caches_extra_info: true,
        hibernating: true,
        dummy_tap: None,
        contact: None,
        hidden_service_dir: false,
        overload_general: Some(published()),
        ..keys.facts()
    };
    let text = keys.build(&facts);
    let wanted = "router identity-ed25519 master-key-ed25519 or-address platform proto published fingerprint uptime \
                  bandwidth caches-extra-info signing-key ntor-onion-key-crosscert hibernating ntor-onion-key reject \
                  tunnelled-dir-server overload-general router-sig-ed25519 router-signature";
    assert_eq!(shape(&text).join(" "), wanted);
    assert_eq!(line(&text, "or-address"), Some("[2001:db8::1]:9001"));
    assert_eq!(line(&text, "bandwidth"), Some("1073741824 1073741824 0"));
    assert_eq!(line(&text, "overload-general"), Some("1 2026-11-22 06:00:00"));
    assert_eq!(line(&text, "uptime"), Some("7"));
    assert_eq!(line(&text, "platform"), Some("relayfleet 0.1.0 on Linux"));
}

#[test]
fn an_exit_says_where_it_lets_streams_go() {
    let keys = Keys::new();
    let policy = ExitPolicy::assemble(&crate::exit_policy::Options {
        exit_relay: Some(true),
        ipv6_exit: true,
        reject_private: false,
        lines: ExitPolicy::parse_line("reject 192.0.2.0/24:*,accept *:80,accept *:443,reject *:*")
            .unwrap()
            .rules,
        ..Default::default()
    });
    let text = keys.build(&DescriptorFacts {
        exit_policy: &policy,
        ..keys.facts()
    });
    let policy = "reject 192.0.2.0/24:*\naccept *:80\naccept *:443\nreject *:*\nipv6-policy accept 80,443\n";
    assert!(text.contains(policy), "{text}");
}

#[test]
fn a_family_is_told_sorted_with_ourselves_in_it_or_not_at_all() {
    let keys = Keys::new();
    let ourselves = keys.rsa.public().identity();
    let alone = DescriptorFacts {
        family: &[ourselves],
        ..keys.facts()
    };
    assert_eq!(line(&keys.build(&alone), "family"), None);
    let (first, last) = (RsaIdentity([0; 20]), RsaIdentity([0xff; 20]));
    let three = DescriptorFacts {
        family: &[last, ourselves, first, last],
        ..keys.facts()
    };
    let wanted = format!("${first} ${ourselves} ${last}");
    assert_eq!(line(&keys.build(&three), "family"), Some(wanted.as_str()));
}

#[test]
fn a_contact_stays_on_its_line() {
    assert_eq!(escaped("A <a AT example> größe"), "A <a AT example> größe");
    assert_eq!(escaped("a\nrouter \"b\"\u{7}"), "\"a\\nrouter \\\"b\\\"\\007\"");
    let keys = Keys::new();
    let facts = DescriptorFacts {
        version: "0.1\nrouter",
        ..keys.facts()
    };
    assert_eq!(
        Descriptor::build(&facts, &keys.signer()),
        Err(DocumentError::Word("version"))
    );
}

#[test]
fn a_family_too_large_for_the_authorities_is_refused_here() {
    let keys = Keys::new();
    let members = |count: u16| -> Vec<RsaIdentity> {
        (0..count)
            .map(|n| RsaIdentity([n.to_be_bytes().as_slice(), &[0; 18]].concat().try_into().unwrap()))
            .collect()
    };
    let (some, many) = (members(400), members(450));
    assert!(
        Descriptor::build(
            &DescriptorFacts {
                family: &some,
                ..keys.facts()
            },
            &keys.signer()
        )
        .is_ok()
    );
    let refused = Descriptor::build(
        &DescriptorFacts {
            family: &many,
            ..keys.facts()
        },
        &keys.signer(),
    );
    assert!(matches!(refused, Err(DocumentError::TooLong { max: 20_000, .. })));
}

#[test]
fn an_extra_info_sheds_its_last_statistics_until_it_fits() {
    let keys = Keys::new();
    let statistic = |name: &str| format!("{name} {}", "x".repeat(30_000));
    let extra_info = keys.extra_info(vec![statistic("cell-stats-end"), statistic("padding-counts")]);
    assert!(line(&extra_info.text, "cell-stats-end").is_some());
    assert_eq!(line(&extra_info.text, "padding-counts"), None);
}

#[test]
fn histories_are_told_in_whole_kib() {
    let keys = Keys::new();
    let history = BandwidthHistory {
        ends: published(),
        interval: Duration::from_secs(86_400),
        bytes: vec![0, 1_023, 1_024, 5_000],
    };
    let facts = ExtraInfoFacts {
        nickname: &keys.nickname,
        published: published(),
        histories: Histories {
            read: Some(history.clone()),
            write: Some(history),
            ..Histories::default()
        },
        statistics: vec!["hidserv-stats-end 2026-11-22 06:00:00 (86400 s)".to_owned()],
    };
    let text = ExtraInfo::build(&facts, &keys.signer()).unwrap().text;
    assert_eq!(
        line(&text, "read-history"),
        Some("2026-11-22 06:11:34 (86400 s) 0,0,1024,4096")
    );
    let wanted = [
        "published",
        "write-history",
        "read-history",
        "hidserv-stats-end",
        "router-sig-ed25519",
    ];
    assert_eq!(shape(&text)[2..7], wanted);
}
