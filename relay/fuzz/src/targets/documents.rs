//! Documents of the network as we read them: consensuses, certificates, microdescriptors, descriptors, and the diffs
//! between consensuses.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use relay_formats::fingerprint::RsaIdentity;
use relay_formats::torrc::Torrc;
use relay_node::netdoc::{
    AuthorityCertificate, ConsensusUnverified, Unverified, apply_consensus_diff, authority_certificates,
    consensus_diff, extra_infos, is_consensus_diff, microdescriptors, server_descriptors, signed_digest,
};
use sha2::{Digest as _, Sha256};

use crate::tape::Tape;

const CONSENSUS: &str = include_str!("../../../node/testdata/consensus-microdesc.txt");
const CERTIFICATES: &str = include_str!("../../../node/testdata/certificates.txt");
const MICRODESCRIPTORS: &str = include_str!("../../../node/testdata/microdescriptors.txt");
const DESCRIPTOR: &str = include_str!("../../../node/testdata/descriptor.txt");
const EXTRA_INFO: &str = include_str!("../../../node/testdata/extra-info.txt");
const TORRC: &str = include_str!("../../../node/testdata/torrc");

struct Known {
    trusted: Vec<RsaIdentity>,
    certificates: Vec<AuthorityCertificate>,
    then: SystemTime,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let torrc = Torrc::parse(TORRC).expect("the network's torrc");
    let trusted: Vec<RsaIdentity> = torrc.dir_authorities.iter().filter_map(|one| one.v3_identity).collect();
    let consensus = ConsensusUnverified::parse(CONSENSUS).expect("the network's consensus");
    let then = consensus.claimed_lifetime().valid_after + Duration::from_secs(5);
    let certificates = authority_certificates(CERTIFICATES, &trusted, then);
    Known {
        trusted,
        certificates,
        then,
    }
});

/// `text` with lines taken out, put in, repeated, moved or changed.
fn changed(text: &str, tape: &mut Tape<'_>) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for _ in 0..1 + tape.below(6) {
        let (at, other) = (tape.below(lines.len().max(1)), tape.below(lines.len().max(1)));
        if lines.is_empty() {
            break;
        }
        match tape.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => lines.insert(at, format!("{}\n", words(tape))),
            4 => {
                lines[at] = format!(
                    "{} {}\n",
                    lines[at].split(' ').next().unwrap_or_default().trim_end(),
                    words(tape)
                )
            }
            _ => {
                let (place, value) = (tape.below(lines[at].len().max(1)), tape.u8());
                let mut bytes = lines[at].clone().into_bytes();
                bytes[place] ^= value;
                lines[at] = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
    lines.concat()
}

fn words(tape: &mut Tape<'_>) -> String {
    let length = usize::from(tape.u8());
    String::from_utf8_lossy(tape.take(length)).into_owned()
}

/// The first byte says which document, and whether it is ours with changes.
pub(super) fn documents(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.u8() {
        b'c' => consensus(&changed(CONSENSUS, &mut tape)),
        b'k' => certificates(&changed(CERTIFICATES, &mut tape)),
        b'm' => micro(&changed(MICRODESCRIPTORS, &mut tape)),
        b'd' => descriptors(&changed(DESCRIPTOR, &mut tape)),
        b'e' => descriptors(&changed(EXTRA_INFO, &mut tape)),
        b'C' => consensus(&String::from_utf8_lossy(tape.rest())),
        b'K' => certificates(&String::from_utf8_lossy(tape.rest())),
        b'M' => micro(&String::from_utf8_lossy(tape.rest())),
        _ => descriptors(&String::from_utf8_lossy(tape.rest())),
    }
}

/// A consensus counts only as a majority signed it.
fn consensus(text: &str) {
    let Ok(unverified) = ConsensusUnverified::parse(text) else {
        return;
    };
    let known = &*KNOWN;
    let lifetime = unverified.claimed_lifetime();
    assert!(lifetime.valid_after <= lifetime.fresh_until && lifetime.fresh_until <= lifetime.valid_until);
    let missing = unverified.missing_certificates(&known.trusted, &known.certificates);
    assert!(missing.iter().all(|one| known.trusted.contains(&one.identity)));
    if let Ok(verified) = unverified.verify(&known.trusted, &known.certificates, known.then) {
        assert_eq!(signed_digest(text), signed_digest(CONSENSUS), "changed, and verified");
        assert!(2 * verified.signers.len() > known.trusted.len());
        let _ = verified.missing_protocols("Link=1-5 Relay=1-4");
    }
}

fn certificates(text: &str) {
    for one in authority_certificates(text, &KNOWN.trusted, KNOWN.then) {
        assert!(text.contains(&*one.text));
        let known = KNOWN
            .certificates
            .iter()
            .find(|known| known.id == one.id)
            .expect("one that nobody made");
        assert_eq!((one.published, one.expires), (known.published, known.expires));
    }
}

fn micro(text: &str) {
    for one in microdescriptors(text) {
        assert!(text.contains(&*one.text));
        let digest: [u8; 32] = Sha256::digest(&*one.text).into();
        assert_eq!(one.digest, digest, "named for another text");
    }
}

fn descriptors(text: &str) {
    for (found, word) in [
        (server_descriptors(text), "router "),
        (extra_infos(text), "extra-info "),
    ] {
        let bytes: usize = found.iter().map(|one| one.text.len()).sum();
        assert!(bytes <= text.len(), "found twice");
        for one in found {
            assert!(text.contains(&*one.text) && one.text.starts_with(word));
            let _ = one.extra_info();
            let again = if word == "router " {
                server_descriptors(&one.text)
            } else {
                extra_infos(&one.text)
            };
            assert_eq!(again, [one]);
        }
    }
}

/// A diff leads from one to the other and nowhere else. The first byte says who made it.
pub(super) fn consensus_diffs(data: &[u8]) {
    let mut tape = Tape::new(data);
    match tape.u8() {
        b'r' => {
            let _ = apply_consensus_diff(CONSENSUS, &String::from_utf8_lossy(tape.rest()));
        }
        b's' => {
            // With the two digests right, the script itself is what is tried.
            let to = changed(CONSENSUS, &mut tape);
            let good = consensus_diff(CONSENSUS, &to).unwrap_or_default();
            let head: String = good.split_inclusive('\n').take(2).collect();
            let script = String::from_utf8_lossy(tape.rest());
            if let Ok(reached) = apply_consensus_diff(CONSENSUS, &format!("{head}{script}")) {
                assert!(reached == to, "leads where it does not promise");
            }
        }
        _ => {
            let to = changed(CONSENSUS, &mut tape);
            let Ok(diff) = consensus_diff(CONSENSUS, &to) else {
                return;
            };
            assert!(is_consensus_diff(&diff));
            assert!(
                apply_consensus_diff(CONSENSUS, &diff).as_ref() == Ok(&to),
                "a diff of ours leads astray"
            );
            let bent = changed(&diff, &mut tape);
            if let Ok(reached) = apply_consensus_diff(CONSENSUS, &bent) {
                let promised = |diff: &str| diff.lines().nth(1).map(str::to_owned);
                assert!(
                    reached == to || promised(&bent) != promised(&diff),
                    "leads where it does not promise"
                );
            }
            if let Ok(back) = apply_consensus_diff(&to, &diff) {
                // What stands behind the first signature's first words is not told apart.
                let alike = signed_digest(&to) == signed_digest(CONSENSUS);
                assert!(
                    alike,
                    "applies to what it was not made for, and gives {} bytes",
                    back.len()
                );
            }
        }
    }
}
