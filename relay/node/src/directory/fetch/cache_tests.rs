//! What a directory cache fetches and then serves: documents that C tor made in a private network of eight relays.

use std::path::Path;

use relay_formats::torrc::Torrc;

use super::*;
use crate::directory::test_server::TestServer;

const CONSENSUS: &str = include_str!("../../../testdata/cache/consensus.txt");
const MICRODESC: &str = include_str!("../../../testdata/cache/consensus-microdesc.txt");
const CERTIFICATES: &str = include_str!("../../../testdata/cache/certificates.txt");
const SERVERS: &str = include_str!("../../../testdata/cache/servers.txt");

fn then() -> SystemTime {
    let claimed = ServerConsensusUnverified::parse(CONSENSUS).unwrap().claimed_lifetime();
    claimed.valid_after + Duration::from_secs(5)
}

async fn server() -> TestServer {
    TestServer::start(move |path| match path {
        _ if path.starts_with("/tor/status-vote/current/consensus-microdesc/") => (200, MICRODESC.into()),
        _ if path.starts_with("/tor/status-vote/current/consensus/") => (200, CONSENSUS.into()),
        _ if path.starts_with("/tor/keys/fp-sk/") => (200, CERTIFICATES.into()),
        _ if path.starts_with("/tor/server/d/") => (200, SERVERS.into()),
        _ => (404, Vec::new()),
    })
    .await
}

fn open(server: &TestServer, cache: &Path) -> Directory {
    let torrc = Torrc::parse(include_str!("../../../testdata/cache/torrc")).unwrap();
    let authorities = torrc.dir_authorities.into_iter().map(|one| DirAuthority {
        dir_address: server.address,
        ..one
    });
    let keeps = Keeps {
        as_cache: true,
        extra_infos: false,
    };
    Directory::open(authorities.collect(), Vec::new(), Cache::new(cache), keeps, then())
}

#[tokio::test]
async fn a_cache_has_both_flavours_and_every_descriptor_and_has_them_after_a_restart() {
    let (server, room) = (server().await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());
    assert!(directory.cache_is_complete(), "without a consensus nothing is lacking");
    directory.fetch_consensus(then()).await.unwrap();
    assert!(!directory.cache_is_complete());
    assert!(directory.fetch_for_cache(then()).await);
    assert!(directory.cache_is_complete());

    for directory in [&directory, &open(&server, room.path())] {
        let stock = directory.stock();
        assert_eq!(stock.servers.all().count(), 8);
        assert_eq!(stock.certificates.len(), 3);
        let [microdesc, plain] = &stock.consensuses[..] else {
            panic!("two flavours")
        };
        assert_eq!((microdesc.flavor, plain.flavor), (Flavor::Microdesc, Flavor::Ns));
        assert_eq!((&*plain.text, plain.signed_by.len()), (CONSENSUS, 3));
    }
    let asked = server.requests();
    assert_eq!(
        asked.iter().filter(|one| one.line.contains("/tor/server/d/")).count(),
        1
    );
}

#[tokio::test]
async fn who_has_a_consensus_says_which_and_a_diff_that_leads_nowhere_is_asked_for_whole() {
    let nonsense = "network-status-diff-version 1\nhash 00 00\n1d\n";
    let server = TestServer::start(move |path| match path {
        _ if path.contains("/consensus-microdesc/") => (200, nonsense.into()),
        _ => (404, Vec::new()),
    })
    .await;
    let (full, room) = (self::server().await, tempfile::tempdir().unwrap());
    open(&full, room.path()).fetch_consensus(then()).await.unwrap();
    let mut directory = open(&server, room.path());

    let failed = directory.fetch_consensus(then()).await;

    assert!(matches!(failed, Err(FetchError::Refused(_))), "{failed:?}");
    let asked = server.requests();
    assert_eq!(asked.len(), 6, "each authority twice");
    let digest = hex::encode_upper(netdoc::signed_digest(MICRODESC).unwrap());
    let told = format!("X-Or-Diff-From-Consensus: {digest}\r\n");
    assert_eq!(asked.iter().filter(|one| one.head.contains(&told)).count(), 3);
}

#[tokio::test]
async fn trove_2026_034_what_a_liar_sends_instead_of_a_descriptor_is_not_kept() {
    let forged: &'static str = SERVERS.replace("\nplatform Tor ", "\nplatform Rot ").leak();
    let server = TestServer::start(move |path| match path {
        _ if path.contains("/consensus-microdesc/") => (200, MICRODESC.into()),
        _ if path.contains("/consensus/") => (200, CONSENSUS.into()),
        _ if path.starts_with("/tor/keys/") => (200, CERTIFICATES.into()),
        _ => (200, forged.into()),
    })
    .await;
    let room = tempfile::tempdir().unwrap();
    let mut directory = open(&server, room.path());
    directory.fetch_consensus(then()).await.unwrap();
    assert!(directory.fetch_for_cache(then()).await, "the consensus itself came");
    // One of the eight is a relay of ours, whose platform is another.
    let ours = SERVERS.matches("\nplatform relayfleet ").count();
    assert_eq!(directory.stock().servers.all().count(), ours);
    assert!(!directory.cache_is_complete());
}

#[tokio::test]
async fn a_relay_that_is_no_cache_asks_for_none_of_it_and_serves_nothing() {
    let (server, room) = (server().await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());
    directory.keeps = Keeps::default();
    directory.fetch_consensus(then()).await.unwrap();
    assert!(directory.cache_is_complete() && !directory.fetch_for_cache(then()).await);
    assert!(directory.stock().consensuses.is_empty());
    assert!(server.requests().iter().all(|one| !one.line.contains("/consensus/")));
}
