//! Whole fetches against a little server that has the documents of `testdata/`.

use std::path::Path;
use std::time::Duration;

use relay_formats::torrc::Torrc;

use super::*;
use crate::directory::test_server::TestServer;

const CONSENSUS: &str = include_str!("../../../testdata/consensus-microdesc.txt");
const CERTIFICATES: &str = include_str!("../../../testdata/certificates.txt");
const MICRODESCRIPTORS: &str = include_str!("../../../testdata/microdescriptors.txt");

fn then() -> SystemTime {
    ConsensusUnverified::parse(CONSENSUS)
        .unwrap()
        .claimed_lifetime()
        .valid_after
        + Duration::from_secs(5)
}

/// The three authorities of `testdata/`, all of them found at one server.
fn authorities(at: &TestServer) -> Vec<DirAuthority> {
    let torrc = Torrc::parse(include_str!("../../../testdata/torrc")).unwrap();
    torrc
        .dir_authorities
        .into_iter()
        .map(|one| DirAuthority {
            dir_address: at.address,
            ..one
        })
        .collect()
}

async fn server(consensus: &'static str) -> TestServer {
    TestServer::start(move |path| match path {
        _ if path.starts_with("/tor/status-vote/current/consensus-microdesc/") => (200, consensus.into()),
        _ if path.starts_with("/tor/keys/fp-sk/") => (200, CERTIFICATES.into()),
        _ if path.starts_with("/tor/micro/d/") => (200, MICRODESCRIPTORS.into()),
        _ => (404, Vec::new()),
    })
    .await
}

fn open(server: &TestServer, cache: &Path) -> Directory {
    Directory::open(
        authorities(server),
        Vec::new(),
        Cache::new(cache),
        Keeps::default(),
        then(),
    )
}

#[tokio::test]
async fn a_relay_that_knows_only_the_authorities_learns_the_network() {
    let (server, room) = (server(CONSENSUS).await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());
    let before = directory.view();
    assert_eq!((before.relays.len(), before.valid_after), (3, None));
    assert!(
        before
            .relays
            .values()
            .all(|relay| relay.is_authority && relay.addresses.len() == 1)
    );

    assert!(directory.fetch_consensus(then()).await.unwrap());
    assert_eq!(directory.microdescriptors_missing(), 5);
    assert_eq!(directory.fetch_microdescriptors(then()).await, 5);

    let view = directory.view();
    assert_eq!(view.relays.len(), 5);
    assert!(view.relays.values().all(|relay| relay.ed25519_identity.is_some()));
    assert_eq!(view.relays.values().filter(|relay| relay.is_authority).count(), 3);
    assert!(view.valid_after.is_some());
}

#[tokio::test]
async fn a_restart_begins_where_the_cache_left_off() {
    let (server, room) = (server(CONSENSUS).await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());
    directory.fetch_consensus(then()).await.unwrap();
    directory.fetch_microdescriptors(then()).await;
    let asked = server.requests().len();

    let again = open(&server, room.path());

    assert_eq!(again.view().relays, directory.view().relays);
    assert_eq!(again.microdescriptors_missing(), 0);
    assert_eq!(server.requests().len(), asked);
    let too_late = then() + Duration::from_secs(3600);
    assert!(
        Directory::open(
            authorities(&server),
            Vec::new(),
            Cache::new(room.path()),
            Keeps::default(),
            too_late
        )
        .consensus()
        .is_none()
    );
}

#[tokio::test]
async fn the_same_consensus_again_is_no_news() {
    let (server, room) = (server(CONSENSUS).await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());
    assert!(directory.fetch_consensus(then()).await.unwrap());
    assert!(!directory.fetch_consensus(then()).await.unwrap());
}

#[tokio::test]
async fn a_liar_is_not_believed_and_nothing_of_his_is_kept() {
    let forged: &'static str = CONSENSUS.replacen("\nr e1 ", "\nr e9 ", 1).leak();
    let (server, room) = (server(forged).await, tempfile::tempdir().unwrap());
    let mut directory = open(&server, room.path());

    assert!(matches!(
        directory.fetch_consensus(then()).await,
        Err(FetchError::Refused(_))
    ));
    assert!(directory.consensus().is_none());
    assert_eq!(Cache::new(room.path()).read(Name::Consensus), "");
    assert_eq!(
        server
            .requests()
            .iter()
            .filter(|one| one.line.contains("consensus"))
            .count(),
        3,
        "all were asked"
    );
}

#[tokio::test]
async fn an_authority_without_a_consensus_yet_says_404_and_is_asked_again_later() {
    let (server, room) = (
        TestServer::start(|_| (404, Vec::new())).await,
        tempfile::tempdir().unwrap(),
    );
    let mut directory = open(&server, room.path());
    assert!(matches!(
        directory.fetch_consensus(then()).await,
        Err(FetchError::Status(404, _))
    ));
}
