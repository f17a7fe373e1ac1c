use super::*;

fn ask(head: &str) -> Request {
    parse(format!("{head}\r\n\r\n").as_bytes()).unwrap().unwrap()
}

#[test]
fn a_client_of_c_tor_asks_for_a_consensus_with_what_it_has() {
    let hash = "0F".repeat(32);
    let request = ask(&format!(
        "GET /tor/status-vote/current/consensus-microdesc/0232AF+14C131.z HTTP/1.0\r\nHost: 198.18.200.5\r\n\
         If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT\r\nAccept-Encoding: deflate, gzip, x-tor-lzma, x-zstd\r\n\
         X-Or-Diff-From-Consensus: {hash}"
    ));
    let signed_by = vec!["0232AF".to_owned(), "14C131".to_owned()];
    assert_eq!(
        request.wanted,
        Wanted::Consensus {
            flavor: Flavor::Microdesc,
            signed_by,
            diff_only: false,
        }
    );
    assert_eq!(request.encodings.first(), Some(&Encoding::Lzma));
    assert_eq!(request.has_consensuses, [[0x0f; 32]]);
    let noon = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_348_800);
    assert_eq!(request.modified_since, Some(noon));
}

#[test]
fn a_name_with_z_means_deflate_where_nothing_else_is_said() {
    assert_eq!(
        ask("GET /tor/server/authority.z HTTP/1.0").encodings,
        BTreeSet::from([Encoding::Deflate, Encoding::Identity])
    );
    assert_eq!(
        ask("GET /tor/server/authority HTTP/1.0").encodings,
        BTreeSet::from([Encoding::Identity])
    );
    let both = ask("GET /tor/server/all.z HTTP/1.0\r\nAccept-Encoding: identity");
    assert_eq!(both.encodings, BTreeSet::from([Encoding::Deflate, Encoding::Identity]));
}

#[test]
fn names_mean_what_the_specification_says() {
    let digest = STANDARD_NO_PAD.encode([7; 32]);
    let fingerprint = "AB".repeat(20);
    let id = RsaIdentity([0xab; 20]);
    let cases = [
        (
            format!("/tor/micro/d/{digest}-{digest}"),
            Wanted::Microdescriptors(vec![[7; 32]; 2]),
        ),
        (
            format!("/tor/server/fp/{fingerprint}"),
            Wanted::Servers(Descriptors::ByFingerprint(vec![id])),
        ),
        (
            format!("/tor/extra/d/{fingerprint}+00"),
            Wanted::ExtraInfos(Descriptors::ByDigest(vec![[0xab; 20]])),
        ),
        ("/tor/keys/all".to_owned(), Wanted::Certificates(Certificates::All)),
        (
            format!("/tor/keys/fp-sk/{fingerprint}-{fingerprint}"),
            Wanted::Certificates(Certificates::ByBoth(vec![(id, id)])),
        ),
        (format!("/tor/hs/3/{digest}"), Wanted::OnionService(Some([7; 32]))),
        ("/tor/hs/3/none".to_owned(), Wanted::OnionService(None)),
        ("/tor/keys/odd".to_owned(), Wanted::BadKeys),
        (
            "/tor/status-vote/current/consensus/diff/00/AA".to_owned(),
            Wanted::BadDiff,
        ),
        ("/tor/status-vote/next/consensus".to_owned(), Wanted::Nothing),
        (
            "/tor/status-vote/current/consensus".to_owned(),
            Wanted::Consensus {
                flavor: Flavor::Ns,
                signed_by: vec![],
                diff_only: false,
            },
        ),
        ("/tor/robots.txt".to_owned(), Wanted::Robots),
        ("/robots.txt".to_owned(), Wanted::Robots),
        ("/".to_owned(), Wanted::FrontPage),
    ];
    for (name, wanted) in cases {
        assert_eq!(ask(&format!("GET {name} HTTP/1.0")).wanted, wanted, "{name}");
    }
    assert_eq!(ask("POST /tor/ HTTP/1.0").wanted, Wanted::Upload);
}

#[test]
fn an_upload_waits_for_its_last_byte_and_a_giant_is_refused() {
    let head = "POST /tor/hs/3/publish HTTP/1.0\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(parse(format!("{head}abc").as_bytes()), Ok(None));
    let request = parse(format!("{head}abcdef").as_bytes()).unwrap().unwrap();
    assert_eq!(request.wanted, Wanted::PublishOnionService(true));
    assert_eq!(request.body, b"abcd");
    let giant = format!(
        "POST /tor/hs/3/publish HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        u64::MAX
    );
    assert_eq!(parse(giant.as_bytes()), Err(BadRequest::TooLong));
}

#[test]
fn half_a_head_waits_and_an_endless_one_is_refused() {
    assert_eq!(parse(b"GET /tor/keys/all HTTP/1.0\r\n"), Ok(None));
    let endless = format!("GET /tor/keys/all HTTP/1.0\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(parse(endless.as_bytes()), Err(BadRequest::TooLong));
    assert_eq!(parse(b"\x16\x03\x01 hello\r\n\r\n"), Err(BadRequest::Malformed));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
        let _ = parse(&bytes);
    }
    #[test]
    fn no_name_makes_it_panic(name in "/tor/[ -~]{0,300}") {
        let _ = parse(format!("GET {name} HTTP/1.0\r\n\r\n").as_bytes());
    }
}
