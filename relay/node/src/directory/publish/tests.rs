use std::path::Path;

use relay_formats::torrc::Torrc;

use super::*;
use crate::directory::test_server::TestServer;

/// A relay of the private network of `testdata/`, with new keys in `room`.
fn relay(room: &Path) -> (Config, Keys) {
    let torrc = include_str!("../../../testdata/torrc");
    let torrc = Torrc::parse(&format!("{torrc}DataDirectory {}\n", room.display())).unwrap();
    let config = Config::new(&torrc, &[]).unwrap();
    let keys = crate::keys::load_or_create(&config.key_plan(), noon()).unwrap();
    (config, keys)
}

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
}

fn circumstances() -> Circumstances {
    Circumstances {
        now: noon(),
        uptime: Duration::from_secs(7),
        observed_bandwidth: 0,
        hibernating: false,
        histories: None,
        overload_general: None,
        overload_lines: Vec::new(),
        dummy_tap_key: true,
    }
}

fn authorities_at(places: &[SocketAddr]) -> Vec<DirAuthority> {
    let torrc = Torrc::parse(include_str!("../../../testdata/torrc")).unwrap();
    let three = torrc.dir_authorities.into_iter().zip(places);
    three
        .map(|(one, place)| DirAuthority {
            dir_address: *place,
            ..one
        })
        .collect()
}

fn document(places: &[SocketAddr]) -> Uploads {
    Uploads::begin(
        "router r9\n".into(),
        Reason::FirstStart,
        &authorities_at(places),
        true,
        noon(),
    )
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
fn a_quota_that_can_be_used_up_offers_no_directory_service() {
    let offers = |more: &str| {
        let room = tempfile::tempdir().unwrap();
        let (_, keys) = relay(room.path());
        let torrc = include_str!("../../../testdata/torrc");
        let torrc = format!("{torrc}DataDirectory {}\n{more}\n", room.path().display());
        let config = Config::new(&Torrc::parse(&torrc).unwrap(), &[]).unwrap();
        let body = make(&config, &keys, &circumstances()).unwrap().body();
        assert!(body.contains("\nhidden-service-dir\n"), "C tor's relays always say so");
        body.contains("\ntunnelled-dir-server\n")
    };
    assert!(offers(""));
    assert!(!offers("AccountingMax 60 MBytes"));
    assert!(offers("AccountingMax 60 MBytes\nAccountingRule in"));
    // 100 KB a second are 8.6 GB a day.
    let day = "RelayBandwidthRate 100 KBytes\nAccountingStart day 0:00\n";
    assert!(offers(&format!("{day}AccountingMax 9 GBytes")));
    assert!(!offers(&format!("{day}AccountingMax 8 GBytes")));
    assert!(!offers(&format!("{day}AccountingMax 9 GBytes\nAccountingRule sum")));
}

#[test]
fn what_we_would_upload_stands_up_to_a_stranger() {
    let room = tempfile::tempdir().unwrap();
    let (config, keys) = relay(room.path());

    let body = make(&config, &keys, &circumstances()).unwrap().body();

    assert!(body.starts_with("router r9 127.9.1.1 9001 0 0\n"));
    assert!(body.contains(&format!("\nproto {}\n", protocols::spoken(&config))));
    assert!(body.contains("\ntunnelled-dir-server\n") && body.contains(" DirCache=2 "));
    assert!(body.contains("\nonion-key\n") && body.contains("\nextra-info r9 "));
    let without_tap = Circumstances {
        dummy_tap_key: false,
        ..circumstances()
    };
    let body = make(&config, &keys, &without_tap).unwrap().body();
    assert!(!body.contains("\nonion-key\n") && !body.contains("\nonion-key-crosscert\n"));
}

#[test]
fn who_is_no_directory_cache_does_not_say_so() {
    let room = tempfile::tempdir().unwrap();
    let (mut config, keys) = relay(room.path());
    config.directory.cache = false;
    let body = make(&config, &keys, &circumstances()).unwrap().body();
    assert!(
        ["tunnelled-dir-server", "hidden-service-dir", "DirCache", "HSDir"]
            .iter()
            .all(|word| !body.contains(word))
    );
}

#[test]
fn a_relay_without_an_ipv4_address_says_so_instead_of_publishing() {
    let room = tempfile::tempdir().unwrap();
    let (mut config, keys) = relay(room.path());
    config.advertised.clear();
    assert!(matches!(
        make(&config, &keys, &circumstances()),
        Err(PublishError::NoIpv4)
    ));
}

#[tokio::test]
async fn every_authority_gets_the_document_with_its_reason_once() {
    let server = TestServer::start(|_| (200, Vec::new())).await;
    let mut uploads = document(&[server.address; 3]);

    assert_eq!(uploads.run(&[], noon()).await, 3);

    assert_eq!(uploads.next(), None);
    let seen = server.requests();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|one| one.line == "POST /tor/ HTTP/1.0" && one.body == b"router r9\n")
    );
    assert!(
        seen[0]
            .head
            .contains("X-Desc-Gen-Reason: first descriptor since the start\r\n")
    );
}

#[tokio::test]
async fn an_authority_that_is_away_is_tried_again_and_the_others_are_left_in_peace() {
    let server = TestServer::start(|_| (200, Vec::new())).await;
    let mut uploads = document(&[server.address, nobody(), server.address]);

    assert_eq!(uploads.run(&[], noon()).await, 2);
    let again = uploads.next().unwrap();
    assert!(again > noon());
    assert_eq!(uploads.run(&[], noon()).await, 0, "its time has not come");
    assert_eq!(uploads.run(&[], again).await, 0, "still away");

    assert_eq!(server.requests().len(), 2);
    assert!(uploads.next().unwrap() > again);
}

#[tokio::test]
async fn a_refused_document_is_not_offered_again() {
    let server = TestServer::start(|_| (400, Vec::new())).await;
    let mut uploads = document(&[server.address; 3]);

    assert_eq!(uploads.run(&[], noon()).await, 0);

    assert_eq!((uploads.next(), server.requests().len()), (None, 3));
}

#[tokio::test]
async fn an_overloaded_authority_is_asked_again() {
    let server = TestServer::start(|_| (503, Vec::new())).await;
    let mut uploads = document(&[server.address]);
    assert_eq!(uploads.run(&[], noon()).await, 0);
    assert!(uploads.next().is_some());
}

#[test]
fn a_members_descriptor_carries_its_familys_certificate_and_list() {
    use relay_formats::cert::{CertType, Certified, Ed25519Cert, NameSigner};
    use relay_formats::ed25519_key::Ed25519Secret;
    let room = tempfile::tempdir().unwrap();
    let (config, mut keys) = relay(room.path());
    let family = Ed25519Secret::generate(&mut rand::rng());
    let cert = |days: u64| {
        let ends = noon() + Duration::from_secs(days * 86_400);
        let (kind, us) = (CertType::FAMILY_IDENTITY, Certified::Key(keys.ed25519_identity));
        Ed25519Cert::issue(kind, us, ends, &family, NameSigner::Yes)
    };
    let (good, expired) = (cert(30), cert(0));
    keys.family_word.certs = vec![good, expired];
    keys.family_word.members = vec![relay_formats::fingerprint::RsaIdentity([7; 20])];
    let body = make(&config, &keys, &circumstances()).unwrap().body();
    assert_eq!(body.matches("\nfamily-cert\n-----BEGIN FAMILY CERT-----").count(), 1);
    assert!(body.contains(&format!("${}", "07".repeat(20))), "{body}");
}
