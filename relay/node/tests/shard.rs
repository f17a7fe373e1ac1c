//! A shard on real sockets, met by a stranger who speaks TLS but is not ours.

// A test may end where something is not as it should be, in its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use relay_engine::network::NetworkView;
use relay_engine::settings::{Settings, StreamServices};
use relay_formats::exit_policy::ExitPolicy;
use relay_formats::torrc::{Bandwidth, ServerDns};
use relay_node::crypto_pool::CryptoPool;
use relay_node::dns::resolver::Resolver;
use relay_node::exits::{Gate, Rules};
use relay_node::keys::{FamilyChoice, KeyPlan, Keys, load_or_create};
use relay_node::link;
use relay_node::link_keys::LinkKeys;
use relay_node::rate::{Limits, RateLimits};
use relay_node::shards::{self, ExitStart, Mailbox, Order, ShardNews, ShardStart};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

/// A hang is a failure too.
const PATIENCE: Duration = Duration::from_secs(60);

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let data = tempfile::tempdir().unwrap();
        let plan = KeyPlan {
            key_directory: data.path().join("keys"),
            signing_directory: data.path().join("keys"),
            data_directory: data.path().to_path_buf(),
            nickname: "Unnamed".parse().unwrap(),
            offline_master: false,
            signing_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            families: FamilyChoice::Named(Vec::new()),
            family_key_directory: data.path().join("keys"),
            family_directory: None,
        };
        load_or_create(&plan, SystemTime::now()).unwrap()
    })
}

struct Shard {
    mailbox: Mailbox,
    news: Receiver<ShardNews>,
    address: SocketAddr,
}

fn shard(links_max: usize) -> Shard {
    let listener = link::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, news) = channel();
    let plenty = 1 << 30;
    let bandwidth = Bandwidth {
        bytes_per_second_max: plenty,
        bytes_burst_max: plenty,
        relayed: None,
        advertised_max: plenty,
    };
    let limits = Limits {
        bandwidth,
        count_private: true,
    };
    let start = ShardStart {
        number: 0,
        seed: [7; 32],
        listeners: vec![listener],
        outbound_bind: Vec::new(),
        links_max,
        exits: ExitStart {
            rules: Arc::new(Rules {
                gate: Gate::new(Arc::new(ExitPolicy::reject_all()), false, &NetworkView::default()),
                ipv6: false,
                outbound_bind: Vec::new(),
                reevaluate: false,
            }),
            resolver: Resolver::start(ServerDns::default(), Arc::default()).unwrap(),
            sockets_max: 0,
        },
        rates: Arc::new(RateLimits::new(Instant::now(), limits)),
        settings: Arc::new(Settings {
            rsa_identity: keys().rsa_identity(),
            ed25519_identity: keys().ed25519_identity,
            advertised: vec![address],
            onion_keys: Vec::new(),
            extend_allow_private_addresses: true,
            services: StreamServices::default(),
        }),
        network: Arc::new(NetworkView::default()),
        link_keys: Arc::new(LinkKeys::make(keys(), None, SystemTime::now()).unwrap()),
        pool: CryptoPool::start(1).unwrap(),
        directory: Arc::default(),
        traffic: Arc::default(),
        reports: tokio::sync::mpsc::channel(1).0,
        on_news: Box::new(move |news| tell.send(news).unwrap()),
    };
    let (mailbox, _) = shards::start(start).unwrap();
    Shard { mailbox, news, address }
}

fn socket(shard: &Shard) -> TcpStream {
    let socket = TcpStream::connect(shard.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The peer's certificate proves nothing in Tor, so a stranger need not look at it.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn tls(socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let name = ServerName::try_from("www.example.com").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// VERSIONS of a client that speaks 3, 4 and 5.
const VERSIONS: [u8; 11] = [0, 0, 7, 0, 6, 0, 3, 0, 4, 0, 5];

/// Command and body of the next cell, link version 5.
fn next_cell(link: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 5];
    link.read_exact(&mut head).unwrap();
    let mut length = 509;
    if head[4] >= 128 {
        let mut bytes = [0; 2];
        link.read_exact(&mut bytes).unwrap();
        length = usize::from(u16::from_be_bytes(bytes));
    }
    let mut body = vec![0; length];
    link.read_exact(&mut body).unwrap();
    (head[4], body)
}

#[test]
fn a_stranger_gets_versions_certs_auth_challenge_and_netinfo() {
    let shard = shard(10);
    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    let mut versions = [0; 5];
    link.read_exact(&mut versions).unwrap();
    assert_eq!(versions[..3], [0, 0, 7]);
    let mut offered = vec![0; usize::from(versions[4])];
    link.read_exact(&mut offered).unwrap();
    let commands: Vec<u8> = (0..3).map(|_| next_cell(&mut link).0).collect();
    assert_eq!(commands, [129, 130, 8], "CERTS, AUTH_CHALLENGE, NETINFO");
}

#[test]
fn who_speaks_no_tls_is_hung_up_on_and_the_next_is_served() {
    let shard = shard(10);
    let mut noise = socket(&shard);
    noise.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = noise.read_to_end(&mut answer);
    assert!(answer.len() < 16, "an alert at most");

    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    link.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn no_more_links_than_there_is_room_for() {
    let shard = shard(1);
    let mut first = tls(socket(&shard));
    first.write_all(&VERSIONS).unwrap();
    first.read_exact(&mut [0; 5]).unwrap();
    let mut second = socket(&shard);
    assert_eq!(second.read(&mut [0; 1]).unwrap_or(0), 0, "hung up on");
    // The first is as well as before.
    first.read_exact(&mut [0; 100]).unwrap();
}

#[test]
fn a_retired_shard_takes_nobody_new_and_says_when_it_is_quiet() {
    let shard = shard(10);
    let mut link = tls(socket(&shard));
    link.write_all(&VERSIONS).unwrap();
    link.read_exact(&mut [0; 5]).unwrap();
    shard.mailbox.post(Order::Retire);
    assert_eq!(shard.news.recv_timeout(PATIENCE), Ok(ShardNews::Quiet));
    assert!(TcpStream::connect(shard.address).is_err());
    shard.mailbox.post(Order::Stop);
    assert_eq!(shard.news.recv_timeout(PATIENCE), Ok(ShardNews::Stopped));
}
