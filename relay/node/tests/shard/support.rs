//! Shards on loopback, and a client's TLS.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use relay_engine::network::NetworkView;
use relay_engine::settings::{Defences, Extras, OnionKey, Settings, StreamServices};
use relay_formats::exit_policy::ExitPolicy;
use relay_formats::torrc::{Bandwidth, LinkBandwidth, ServerDns};
use relay_node::crypto_pool::CryptoPool;
use relay_node::dns::resolver::Resolver;
use relay_node::exits::{Gate, Rules};
use relay_node::keys::{FamilyChoice, KeyPlan, Keys, load_or_create};
use relay_node::link;
use relay_node::link_keys::LinkKeys;
use relay_node::rate::{Limits, RateLimits};
use relay_node::shards::{self, ExitStart, Mailbox, ShardNews, ShardStart, Sharing, Siblings};
use relay_simnet::client::Hop;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};
use x25519_dalek::PublicKey;

/// A hang is a failure too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Keys of the relays that a test has at once.
const RELAYS_MAX: usize = 2;

fn keys(relay: usize) -> &'static Keys {
    static KEYS: [OnceLock<Keys>; RELAYS_MAX] = [const { OnceLock::new() }; RELAYS_MAX];
    KEYS[relay].get_or_init(|| {
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

/// A relay to be.
pub(crate) struct Relay {
    /// Which keys it has.
    pub(crate) relay: usize,
    pub(crate) shards: u16,
    pub(crate) sharing: Sharing,
    pub(crate) links_max: usize,
    pub(crate) half_open_max: usize,
    pub(crate) sockets_max: usize,
    /// Rate and burst.
    pub(crate) bytes_per_second_max: u64,
    pub(crate) link: LinkBandwidth,
    pub(crate) services: StreamServices,
    pub(crate) rules: Rules,
    pub(crate) resolver: Option<Resolver>,
}

impl Default for Relay {
    /// No exit.
    fn default() -> Self {
        Self {
            relay: 0,
            shards: 1,
            sharing: Sharing::AsLoadWants,
            links_max: 10,
            half_open_max: 10,
            sockets_max: 0,
            bytes_per_second_max: 1 << 30,
            link: LinkBandwidth::default(),
            services: StreamServices::default(),
            rules: rules(ExitPolicy::reject_all()),
            resolver: None,
        }
    }
}

/// A policy and no more.
pub(crate) fn rules(policy: ExitPolicy) -> Rules {
    Rules {
        gate: Gate::new(Arc::new(policy), false, &NetworkView::default()),
        ipv6: false,
        outbound_bind: Vec::new(),
        reevaluate: false,
    }
}

/// A relay that runs.
pub(crate) struct Shard {
    /// The first shard's.
    pub(crate) mailbox: Mailbox,
    pub(crate) siblings: Arc<Siblings>,
    pub(crate) news: Receiver<ShardNews>,
    pub(crate) address: SocketAddr,
    pub(crate) hop: Hop,
    /// Its settings, with other defences.
    pub(crate) settings: Box<dyn Fn(Defences) -> Arc<Settings>>,
}

impl Relay {
    pub(crate) fn start(self) -> Shard {
        let keys = keys(self.relay);
        let listener = link::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, news) = channel();
        let bandwidth = Bandwidth {
            bytes_per_second_max: self.bytes_per_second_max,
            bytes_burst_max: self.bytes_per_second_max,
            relayed: None,
            advertised_max: self.bytes_per_second_max,
            link: self.link,
        };
        let limits = Limits {
            bandwidth,
            count_private: true,
        };
        let onion_key = PublicKey::from(*keys.onion.public());
        let no_dns = || Resolver::start(ServerDns::default(), Arc::default(), || ()).unwrap();
        let (siblings, berths) =
            Siblings::shared_out(self.shards.try_into().unwrap(), self.links_max, self.sharing).unwrap();
        let (mut listeners, rules) = (vec![listener], Arc::new(self.rules));
        let rates = Arc::new(RateLimits::new(Instant::now(), limits));
        let resolver = self.resolver.unwrap_or_else(no_dns);
        let services = self.services;
        let settings = move |defences| {
            Arc::new(Settings {
                rsa_identity: keys.rsa_identity(),
                ed25519_identity: keys.ed25519_identity,
                advertised: vec![address],
                onion_keys: vec![OnionKey::from(keys.onion.secret())],
                extend_allow_private_addresses: true,
                services: services.clone(),
                defences,
                extras: Extras::default(),
            })
        };
        for berth in berths {
            let tell = tell.clone();
            let start = ShardStart {
                seed: [7; 32],
                listeners: std::mem::take(&mut listeners),
                half_open_max: self.half_open_max,
                outbound_bind: Vec::new(),
                exits: ExitStart {
                    rules: Arc::clone(&rules),
                    resolver: resolver.clone(),
                    sockets_max: self.sockets_max,
                },
                rates: Arc::clone(&rates),
                settings: settings(Defences::default()),
                network: Arc::new(NetworkView::default()),
                link_keys: Arc::new(LinkKeys::make(keys, None, SystemTime::now()).unwrap()),
                pool: CryptoPool::start(1).unwrap(),
                directory: Arc::default(),
                traffic: Arc::default(),
                reports: tokio::sync::mpsc::channel(1).0,
                on_news: Arc::new(move |news| _ = tell.send(news)),
            };
            shards::start(start, berth, Arc::clone(&siblings)).unwrap();
        }
        Shard {
            mailbox: siblings.mailboxes().remove(0),
            siblings,
            news,
            address,
            hop: Hop {
                rsa_identity: keys.rsa_identity(),
                ed25519_identity: keys.ed25519_identity,
                onion_key,
                address,
            },
            settings: Box::new(settings),
        }
    }
}

pub(crate) fn socket(shard: &Shard) -> TcpStream {
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

pub(crate) fn tls(socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
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
