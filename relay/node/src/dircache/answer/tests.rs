use std::collections::HashMap;

use relay_formats::fingerprint::RsaIdentity;

use super::super::request::parse;
use super::super::store::{Certificate, Consensus, Diffs, Packed};
use super::*;

const NOON: SystemTime = SystemTime::UNIX_EPOCH;
const HOUR: Duration = Duration::from_secs(3_600);

fn text(bytes: &[u8]) -> Text {
    Text::from(bytes)
}

fn service() -> Service {
    let consensus = Consensus {
        digest: [8; 32],
        valid_after: NOON,
        fresh_until: NOON + HOUR,
        valid_until: NOON + 3 * HOUR,
        signed_by: vec![RsaIdentity([0xaa; 20]), RsaIdentity([0xbb; 20])],
        document: Packed::new(text(b"the whole consensus")).unwrap(),
    };
    let diffs = Diffs {
        to: [8; 32],
        from: HashMap::from([([9; 32], Arc::new(Packed::new(text(b"what changed")).unwrap()))]),
    };
    let descriptor = |relay: u8, digest: u8, words: &[u8]| Descriptor {
        relay: RsaIdentity([relay; 20]),
        digest: [digest; 20],
        text: text(words),
    };
    let older = [([5; 20], text(b"router one of yesterday\n"))];
    let certificate = Certificate {
        identity: RsaIdentity([0xaa; 20]),
        signing_key: RsaIdentity([0xab; 20]),
        published: NOON,
        text: text(b"dir-key-certificate\n"),
    };
    let service = Service::default();
    service.change(|store| {
        store.consensuses = [(Flavor::Microdesc, Arc::new(consensus))].into();
        store.diffs = [(Flavor::Microdesc, Arc::new(diffs))].into();
        store.microdescriptors = Arc::new([([3; 32], text(b"onion-key\n"))].into());
        store.servers = Arc::new(Shelf::new([descriptor(1, 2, b"router one\n")], older));
        store.certificates = Arc::new(vec![certificate]);
        store.own_server = Some(descriptor(7, 7, b"router self\n"));
    });
    service
}

fn read(mut answer: Answer) -> Vec<u8> {
    let mut said = Vec::new();
    answer.read(usize::MAX, &mut said);
    assert!(answer.is_over());
    said
}

fn ask_by(asker: Asker, name: &str, headers: &str, after: Duration) -> String {
    let request = parse(format!("GET {name} HTTP/1.0\r\n{headers}\r\n").as_bytes()).map(Option::unwrap);
    String::from_utf8(read(answer(&service(), &request, asker, NOON + after))).unwrap()
}

fn ask(name: &str, headers: &str, after: Duration) -> String {
    ask_by(Asker { address: None }, name, headers, after)
}

const CONSENSUS: &str = "/tor/status-vote/current/consensus-microdesc";

#[test]
fn a_consensus_is_served_while_it_is_valid() {
    let said = ask(CONSENSUS, "", HOUR / 2);
    assert!(
        said.starts_with("HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 1970 00:30:00 GMT\r\n"),
        "{said}"
    );
    assert!(
        said.contains("\r\nExpires: Thu, 01 Jan 1970 01:00:00 GMT\r\n"),
        "{said}"
    );
    assert!(said.contains("\r\nVary: X-Or-Diff-From-Consensus\r\n"), "{said}");
    assert!(said.ends_with("\r\n\r\nthe whole consensus"), "{said}");
    assert!(
        ask(CONSENSUS, "", 4 * HOUR).contains("\r\nPragma: no-cache\r\n"),
        "no longer fresh"
    );
    assert!(
        ask(CONSENSUS, "", 27 * HOUR).starts_with("HTTP/1.0 200 OK\r\n"),
        "better than none"
    );
    assert!(ask(CONSENSUS, "", 28 * HOUR).starts_with("HTTP/1.0 404 Consensus is too old\r\n"));
    assert!(ask("/tor/status-vote/current/consensus", "", HOUR).starts_with("HTTP/1.0 404 Not found\r\n"));
}

#[test]
fn more_than_half_of_the_trusted_must_have_signed() {
    let signed = |list: &str| ask(&format!("{CONSENSUS}/{list}"), "", HOUR).starts_with("HTTP/1.0 200");
    assert!(signed("AA+BB+CC"));
    assert!(signed("aaaa"));
    assert!(!signed("AA+CC"));
    assert!(!signed("CC"));
}

#[test]
fn who_has_an_older_one_gets_what_changed() {
    let known = format!("X-Or-Diff-From-Consensus: {}\r\n", "09".repeat(32));
    assert!(ask(CONSENSUS, &known, HOUR).ends_with("\r\n\r\nwhat changed"));
    assert!(ask(&format!("{CONSENSUS}/diff/{}/AA", "09".repeat(32)), "", HOUR).ends_with("what changed"));
    let gone = ask(&format!("{CONSENSUS}/diff/{}/AA", "07".repeat(32)), "", HOUR);
    assert!(gone.starts_with("HTTP/1.0 404 No such diff available\r\n"), "{gone}");
    let unknown = format!("X-Or-Diff-From-Consensus: {}\r\n", "07".repeat(32));
    assert!(ask(CONSENSUS, &unknown, HOUR).ends_with("the whole consensus"));
}

#[test]
fn who_has_the_newest_gets_nothing() {
    let head = "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    assert!(ask(CONSENSUS, head, HOUR).starts_with("HTTP/1.0 304 Not modified\r\n"));
    let same = format!("X-Or-Diff-From-Consensus: {}\r\n", "08".repeat(32));
    assert!(ask(CONSENSUS, &same, HOUR).starts_with("HTTP/1.0 304 Not modified\r\n"));
    let later = "If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n";
    assert!(ask("/tor/keys/all", later, HOUR).starts_with("HTTP/1.0 304 "));
    assert!(ask("/tor/keys/all", head, HOUR).ends_with("\r\n\r\ndir-key-certificate\n"));
}

#[test]
fn descriptors_are_found_by_digest_fingerprint_and_as_our_own() {
    let one = |name: &str| ask(name, "", HOUR).ends_with("router one\n");
    assert!(one(&format!("/tor/server/d/{}", "02".repeat(20))));
    assert!(one(&format!("/tor/server/fp/{}", "01".repeat(20))));
    assert!(one("/tor/server/all"));
    assert!(ask(&format!("/tor/server/d/{}", "05".repeat(20)), "", HOUR).ends_with("of yesterday\n"));
    assert!(ask(&format!("/tor/server/fp/{}", "07".repeat(20)), "", HOUR).ends_with("router self\n"));
    assert!(ask("/tor/server/authority", "", HOUR).ends_with("router self\n"));
    assert!(ask("/tor/extra/all", "", HOUR).starts_with("HTTP/1.0 404"));
    assert!(ask("/tor/micro/d/AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM", "", HOUR).ends_with("onion-key\n"));
}

#[test]
fn an_asker_that_is_no_relay_is_told_its_own_address() {
    let ask_from = |address: [u8; 4]| {
        let asker = Asker {
            address: Some(address.into()),
        };
        ask_by(asker, "/tor/robots.txt", "", HOUR)
    };
    let said = ask_from([198, 18, 1, 2]);
    assert!(said.contains("\r\nX-Your-Address-Is: 198.18.1.2\r\n"), "{said}");
    let said = ask_from([192, 168, 1, 2]);
    assert!(!said.contains("X-Your-Address-Is"), "of no use outside: {said}");
}

#[test]
fn the_same_batch_again_is_not_packed_again() {
    let service = service();
    let head =
        "GET /tor/micro/d/AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM HTTP/1.0\r\nAccept-Encoding: x-zstd\r\n\r\n";
    let request = parse(head.as_bytes()).map(Option::unwrap);
    let ask = || answer(&service, &request, Asker { address: None }, NOON);
    let first = ask();
    assert!(service.budget().spent() > 0, "packed for this asker");
    let spent = service.budget().spent();
    let second = ask();
    assert_eq!(service.budget().spent(), spent);
    let (first, second) = (read(first), read(second));
    assert_eq!(first, second);
    let at = first.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(zstd::decode_all(&first[at..]).unwrap(), b"onion-key\n");
    assert_eq!(service.budget().spent(), 0);
}

#[test]
fn what_is_no_request_is_answered_with_400() {
    let said = answer(&service(), &Err(BadRequest::Malformed), Asker { address: None }, NOON);
    assert!(read(said).starts_with(b"HTTP/1.0 400 "));
}

#[test]
fn an_upload_for_authorities_is_refused_as_c_tor_refuses_it() {
    let request = parse(b"POST /tor/ HTTP/1.0\r\n\r\n").map(Option::unwrap);
    let said = read(answer(&service(), &request, Asker { address: None }, NOON));
    assert!(said.starts_with(b"HTTP/1.0 400 Nonauthoritative directory does not accept posted server descriptors\r\n"));
}

#[test]
fn onion_services_are_for_those_who_come_by_three_hops() {
    let near = Asker {
        address: Some([198, 18, 1, 2].into()),
    };
    let name = "/tor/hs/3/AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM";
    assert!(ask_by(near, name, "", HOUR).starts_with("HTTP/1.0 503 "));
    assert!(ask(name, "", HOUR).starts_with("HTTP/1.0 404 Not found\r\n"));
    let garbage = parse(b"POST /tor/hs/3/publish HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc").map(Option::unwrap);
    let said = read(answer(&service(), &garbage, Asker { address: None }, NOON));
    assert!(said.starts_with(b"HTTP/1.0 400 Invalid HS descriptor. Rejected.\r\n"));
}
