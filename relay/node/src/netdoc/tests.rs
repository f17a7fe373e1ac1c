//! The documents in `testdata/` were made by C tor 0.4.9.11 in a private network of three authorities.

use std::time::Duration;

use proptest::prelude::*;

use relay_formats::torrc::Torrc;

use super::*;

const CONSENSUS: &str = include_str!("../../testdata/consensus-microdesc.txt");
const CERTIFICATES: &str = include_str!("../../testdata/certificates.txt");
const MICRODESCRIPTORS: &str = include_str!("../../testdata/microdescriptors.txt");
const EXTRA_INFO: &str = include_str!("../../testdata/extra-info.txt");
const DESCRIPTOR: &str = include_str!("../../testdata/descriptor.txt");

fn trusted() -> Vec<RsaIdentity> {
    let torrc = Torrc::parse(include_str!("../../testdata/torrc")).unwrap();
    torrc
        .dir_authorities
        .iter()
        .map(|one| one.v3_identity.unwrap())
        .collect()
}

/// A moment at which the consensus is valid: its lines say so.
fn then() -> SystemTime {
    ConsensusUnverified::parse(CONSENSUS)
        .unwrap()
        .claimed_lifetime()
        .valid_after
        + Duration::from_secs(5)
}

fn certificates() -> Vec<AuthorityCertificate> {
    authority_certificates(CERTIFICATES, &trusted(), then())
}

fn verify(text: &str, trusted: &[RsaIdentity], now: SystemTime) -> Result<Consensus, BadDocument> {
    ConsensusUnverified::parse(text)?.verify(trusted, &certificates(), now)
}

/// The consensus with only its first `count` signatures.
fn with_signatures(count: usize) -> String {
    let parts: Vec<&str> = CONSENSUS.split_inclusive("-----END SIGNATURE-----\n").collect();
    assert_eq!(parts.len(), 3);
    parts[..count].concat()
}

#[test]
fn a_consensus_that_a_majority_signed_is_believed() {
    assert_eq!(certificates().len(), 3);
    let consensus = verify(&with_signatures(2), &trusted(), then()).unwrap();

    assert_eq!(consensus.lifetime.voting_interval(), Duration::from_secs(20));
    assert_eq!(consensus.relays.len(), 5);
    assert!(
        consensus
            .relays
            .iter()
            .all(|relay| relay.running && !relay.stale_descriptor)
    );
    assert_eq!(consensus.relays[0].addresses[0].port(), 9001);
}

#[test]
fn one_signature_of_three_is_no_majority() {
    let refused = verify(&with_signatures(1), &trusted(), then());
    assert!(matches!(refused, Err(BadDocument::Signature(_))), "{refused:?}");
}

#[test]
fn a_signature_twice_counts_once() {
    let (once, twice) = (with_signatures(1), with_signatures(2));
    let first_signature = once.find("directory-signature").map(|at| &once[at..]).unwrap();
    let doubled = format!("{once}{first_signature}");
    assert_ne!(doubled, twice);
    assert!(verify(&doubled, &trusted(), then()).is_err());
}

/// TROVE-2026-019: the name of a digest that nobody knows led beyond a table.
#[test]
fn trove_2026_019_a_signature_over_an_unknown_digest_counts_for_nothing_and_harms_nobody() {
    let signed = with_signatures(2);
    let at = signed.find("directory-signature ").unwrap();
    let (body, signatures) = signed.split_at(at);
    for name in ["sha3-512", "sha1", "sha", "SHA256", "", "md5 md5", &"x".repeat(9_000)] {
        let strange = signatures.replace("directory-signature sha256 ", &format!("directory-signature {name} "));
        assert_ne!(strange, signatures);
        // Alone it is no signature at all; beside good ones it does not spoil them, or the whole is refused.
        assert!(
            verify(&format!("{body}{strange}"), &trusted(), then()).is_err(),
            "{name}"
        );
        if let Ok(consensus) = verify(&format!("{body}{strange}{signatures}"), &trusted(), then()) {
            assert_eq!(consensus.relays.len(), 5, "{name}");
        }
    }
}

#[test]
fn signatures_of_strangers_count_for_nothing() {
    let mut strangers = trusted();
    strangers[0].0[0] ^= 1;
    strangers[1].0[0] ^= 1;
    assert!(matches!(
        verify(CONSENSUS, &strangers, then()),
        Err(BadDocument::Signature(_))
    ));
    assert_eq!(authority_certificates(CERTIFICATES, &strangers, then()).len(), 1);
}

#[test]
fn a_changed_letter_breaks_every_signature() {
    let forged = CONSENSUS.replacen("\nr e1 ", "\nr e9 ", 1);
    assert_ne!(forged, CONSENSUS);
    assert!(matches!(
        verify(&forged, &trusted(), then()),
        Err(BadDocument::Signature(_))
    ));
}

#[test]
fn a_consensus_counts_only_while_it_is_valid() {
    let hour = Duration::from_secs(3600);
    for when in [then() - hour, then() + hour] {
        assert!(matches!(
            verify(CONSENSUS, &trusted(), when),
            Err(BadDocument::NotTimely(_))
        ));
    }
}

#[test]
fn without_certificates_it_says_which_ones_to_fetch() {
    let unverified = ConsensusUnverified::parse(CONSENSUS).unwrap();
    let missing = unverified.missing_certificates(&trusted(), &[]);
    let mut named: Vec<_> = missing.iter().map(|id| id.identity).collect();
    let mut all = trusted();
    named.sort();
    all.sort();
    assert_eq!(named, all);
    assert!(unverified.missing_certificates(&trusted(), &certificates()).is_empty());
    assert_eq!(
        unverified.verify(&trusted(), &[], then()).unwrap_err(),
        BadDocument::CertificatesMissing
    );
}

#[test]
fn a_damaged_certificate_is_passed_over_and_the_others_serve() {
    let damaged = CERTIFICATES.replacen("dir-key-published", "dir-key-publ\u{f6}shed", 1);
    assert_eq!(authority_certificates(&damaged, &trusted(), then()).len(), 2);
    let expired = then() + Duration::from_secs(5 * 365 * 86_400);
    assert!(authority_certificates(CERTIFICATES, &trusted(), expired).is_empty());
}

#[test]
fn every_listed_relay_finds_its_microdescriptor() {
    let consensus = verify(CONSENSUS, &trusted(), then()).unwrap();
    let all = microdescriptors(MICRODESCRIPTORS);
    assert!(
        consensus
            .relays
            .iter()
            .all(|relay| all.iter().any(|one| one.digest == relay.microdescriptor))
    );

    let annotated: String = all
        .iter()
        .map(|one| format!("@last-listed 2026-11-22 12:00:00\n{}", one.text))
        .collect();
    assert_eq!(microdescriptors(&annotated), all, "C tor's cache file has annotations");
}

#[test]
fn required_protocols_that_we_lack_are_named() {
    let consensus = verify(CONSENSUS, &trusted(), then()).unwrap();
    let missing =
        consensus.missing_protocols("Cons=1-2 Desc=1-4 FlowCtrl=1-2 Link=3-5 LinkAuth=3 Microdesc=1-3 Relay=2-4");
    assert_eq!(missing.unwrap().required, "DirCache=2 HSDir=2 HSIntro=4-5 HSRend=2");
    assert!(consensus.missing_protocols("no list").is_err());
}

/// TROVE-2018-005: a range of all versions was written out, one by one.
#[test]
fn trove_2018_005_a_range_of_all_versions_costs_nothing() {
    let consensus = verify(CONSENSUS, &trusted(), then()).unwrap();
    let ranges: String = (0..2_000).map(|number| format!(" P{number}=0-4294967294")).collect();
    for list in ["Link=0-4294967295".to_owned(), format!("Link=1-5{ranges}")] {
        // Versions go up to 63, and who names others is refused; were they written out, this would end without memory.
        assert!(consensus.missing_protocols(&list).is_err());
    }
}

/// What the descriptor of `testdata/` says of itself: when it was made, and by whom.
fn descriptor_facts() -> (SystemTime, RsaIdentity) {
    let line = DESCRIPTOR
        .lines()
        .find_map(|line| line.strip_prefix("fingerprint "))
        .unwrap();
    let published = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_328_400);
    (published, line.replace(' ', "").parse().unwrap())
}

#[test]
fn our_own_documents_are_checked_as_a_stranger_would() {
    let (then, identity) = descriptor_facts();
    let check = |descriptor: &str, extra_info: &str, when| check_own_documents(descriptor, extra_info, identity, when);

    assert_eq!(check(DESCRIPTOR, EXTRA_INFO, then), Ok(()));
    let year = Duration::from_secs(365 * 86_400);
    assert!(matches!(
        check(DESCRIPTOR, EXTRA_INFO, then + year),
        Err(BadDocument::NotTimely(_))
    ));
    let forged = DESCRIPTOR.replacen("uptime ", "uptime 9", 1);
    assert!(matches!(
        check(&forged, EXTRA_INFO, then),
        Err(BadDocument::Signature(_))
    ));
    let forged = EXTRA_INFO.replacen(
        "router-sig-ed25519",
        "write-history 2026-11-22 06:11:34 (86400 s) 1\nrouter-sig-ed25519",
        1,
    );
    assert!(matches!(
        check(DESCRIPTOR, &forged, then),
        Err(BadDocument::Signature(_))
    ));
    let stranger = check_own_documents(DESCRIPTOR, EXTRA_INFO, RsaIdentity([0; 20]), then);
    assert!(matches!(stranger, Err(BadDocument::Signature(_))));
}

proptest! {
    #[test]
    fn a_document_cut_anywhere_is_refused_without_a_panic(at in 0..with_signatures(2).len() - 1) {
        prop_assert!(verify(&CONSENSUS[..at], &trusted(), then()).is_err());
        microdescriptors(MICRODESCRIPTORS.get(..at).unwrap_or_default());
        authority_certificates(CERTIFICATES.get(..at).unwrap_or_default(), &trusted(), then());
        let (then, identity) = descriptor_facts();
        // The descriptor is shorter than the consensus, and whole without its last line end.
        let descriptor = DESCRIPTOR.get(..at.min(DESCRIPTOR.trim_end().len() - 1)).unwrap_or_default();
        prop_assert!(check_own_documents(descriptor, EXTRA_INFO, identity, then).is_err());
    }

    #[test]
    fn garbage_anywhere_before_the_signatures_is_refused_without_a_panic(
        garbage in "\\PC+",
        at in 0..CONSENSUS.find("directory-signature").unwrap(),
    ) {
        let mut text = CONSENSUS.to_owned();
        text.insert_str(at, &garbage);
        prop_assert!(verify(&text, &trusted(), then()).is_err());
        microdescriptors(&garbage);
        authority_certificates(&garbage, &trusted(), then());
    }
}
