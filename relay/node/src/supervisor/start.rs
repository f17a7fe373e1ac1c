//! The start: sockets, keys and threads, in the order in which a fault is cheapest.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Instant, SystemTime};

use mio::net::TcpListener;
use rand::Rng;
use relay_engine::door::Report;
use relay_engine::network::NetworkView;
use relay_engine::settings::{OnionKey, Settings, StreamServices};
use relay_formats::facts::AccountingState;
use relay_formats::torrc::Torrc;
use tokio::sync::{mpsc, watch};

use super::news::{News, listen_for_signals};
use super::torrc_watch;
use crate::accounting::keeper::Keeper;
use crate::admin::{self, Admin, BindError};
use crate::cli::CommandLine;
use crate::config::{Config, Listen};
use crate::crypto_pool::CryptoPool;
use crate::dircache::Service;
use crate::directory::{self, DirectoryContext};
use crate::dns::resolver::{self, BrokenConfig, Resolver};
use crate::exits::{Rules, tell_rules};
use crate::heartbeat::{self, Heart};
use crate::keys::{DataLock, Keys, Stamps};
use crate::limits;
use crate::link;
use crate::link_keys::{LinkKeys, LinkKeysError};
use crate::logging::LogHandle;
use crate::metrics::counters::{Began, Kind, OpenConnection};
use crate::rate::{Limits, RateLimits};
use crate::reports;
use crate::shards::{self, ExitStart, Mailbox, Order, ShardStart, Siblings};
use crate::startup::{self, StartError};
use crate::state_store::StateStore;
use crate::status::Board;
use crate::traffic::Traffic;
use crate::user::{self, UserError};

/// Reports that may wait for the directory part.
const REPORTS_WAITING_MAX: usize = 256;

/// Threads for public-key work: as many as shards, and as in C tor two at least.
const CRYPTO_THREADS_MIN: usize = 2;

/// Everything the supervisor holds on to.
pub(super) struct Relay {
    pub(super) config: watch::Sender<Arc<Config>>,
    pub(super) keys: watch::Sender<Arc<Keys>>,
    pub(super) shutdown: watch::Sender<bool>,
    pub(super) shards: Vec<Mailbox>,
    /// When the link keys were made.
    pub(super) link_keys_made: Instant,
    /// How the files looked when the keys were last loaded, and when that was.
    pub(super) key_stamps: Stamps,
    pub(super) keys_looked_at: Instant,
    /// How fast the links of all shards may be read and written.
    pub(super) rates: Arc<RateLimits>,
    /// Who asks the DNS for streams that leave here.
    pub(super) resolver: Resolver,
    /// What the owner may want to know.
    pub(super) board: Arc<Board>,
    /// Its OR listeners among the open connections.
    pub(super) listening: Vec<OpenConnection>,
    /// Where it listens while it is awake.
    pub(super) bound: Vec<SocketAddr>,
    /// Keeps to the quota.
    pub(super) keeper: Keeper,
    /// Where the quota has the relay, as the shards know it.
    pub(super) hibernation: AccountingState,
    pub(super) log: LogHandle,
    /// The port of each ORPort line, `auto` resolved.
    pub(super) ports: Vec<u16>,
    /// Held for as long as the relay lives.
    pub(super) _lock: DataLock,
}

/// Why the relay does not come up.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpError {
    /// Configuration or keys.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A port that torrc wants.
    #[error("Could not bind to {address}: {error}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// A port for the owner.
    #[error(transparent)]
    BindForOwner(#[from] BindError),
    /// Not the user that torrc wants.
    #[error(transparent)]
    User(#[from] UserError),
    /// No link keys.
    #[error("Error initializing keys: {0}")]
    LinkKeys(#[from] LinkKeysError),
    /// An exit without name servers, and torrc does not allow that.
    #[error("Error initializing dns: {0}")]
    Dns(#[from] BrokenConfig),
    /// No thread, no descriptor.
    #[error("Couldn't start the relay's threads: {0}")]
    System(#[from] std::io::Error),
}

pub(super) fn start(line: &CommandLine) -> Result<(Relay, Receiver<News>), UpError> {
    // First of all: as process 1 we would not hear a signal that comes while we start.
    let (tell, news) = channel();
    listen_for_signals(tell.clone())?;
    if line.watch_torrc {
        torrc_watch::watch(startup::torrc_path(line).to_path_buf(), tell.clone())?;
    }
    let (torrc, config) = startup::read_config(line)?;
    let log = startup::start_log(line, &torrc, &config)?;
    tracing::info!("{}", startup::version_text().trim_end());
    let links_max = limits::room_for_links();
    let (listeners, ports) = open_listeners(&torrc, &config)?;
    let traffic = Arc::new(Traffic::default());
    let for_the_owner = admin::listen(&config, &traffic.connections)?;
    if let Some(user) = &config.user {
        user::become_user(user)?;
    }
    let config = Arc::new(Config::new(&torrc, &ports).map_err(StartError::from)?);
    let (lock, keys) = startup::take_keys(&config)?;
    say_who_we_are(&config, &keys);
    let keys = Arc::new(keys);
    let link_keys = Arc::new(LinkKeys::make(
        &keys,
        config.tls_certificate_lifetime,
        SystemTime::now(),
    )?);

    let network = watch::Sender::new(Arc::new(NetworkView::default()));
    check_dns(&config)?;
    let resolver = {
        let tell = tell.clone();
        Resolver::start(config.server_dns(), Arc::clone(&traffic), move || {
            let _ = tell.send(News::DnsUseless);
        })?
    };
    let (report, reports) = mpsc::channel(REPORTS_WAITING_MAX);
    let service = Arc::new(Service::default());
    let rates = Arc::new(RateLimits::new(Instant::now(), limits_of(&config)));
    rates.on_ceiling({
        let tell = tell.clone();
        move || _ = tell.send(News::QuotaReached)
    });
    let pool = CryptoPool::start(usize::from(config.shards.get()).max(CRYPTO_THREADS_MIN))?;
    let (siblings, berths) = Siblings::new(config.shards, links_max)?;
    let engine_settings = Arc::new(settings(&config, &keys));
    let rules = Arc::new(Rules::new(&config, &network.borrow()));
    let board = Arc::new(Board::new(SystemTime::now()));
    let bound = bound_addresses(&listeners);
    let count = |address: &SocketAddr| {
        let connections = &traffic.connections;
        connections.open(Kind::OrListener, Began::Us, address.ip())
    };
    let listening = bound.iter().map(count).collect();
    board.note_listening(bound.clone());
    let store = Arc::new(StateStore::open(&config.data_directory));
    let mut keeper = Keeper::new(Arc::clone(&store), Arc::clone(&rates), Arc::clone(&board));
    keeper.configure(&config, keys.rsa_identity(), SystemTime::now());
    // The first shard accepts for all.
    let mut listeners = Some(listeners);
    for berth in berths {
        let tell = tell.clone();
        let shard = ShardStart {
            seed: seed(),
            listeners: listeners.take().unwrap_or_default(),
            half_open_max: half_open_max(links_max, config.shards),
            outbound_bind: config.outbound_bind.clone(),
            exits: ExitStart {
                rules: Arc::clone(&rules),
                resolver: resolver.clone(),
                // Streams must not take the last places of links, without which they are of no use.
                sockets_max: links_max / 4 * 3 / usize::from(config.shards.get()),
            },
            rates: Arc::clone(&rates),
            settings: Arc::clone(&engine_settings),
            network: Arc::clone(&network.borrow()),
            link_keys: Arc::clone(&link_keys),
            pool: pool.clone(),
            directory: Arc::clone(&service),
            traffic: Arc::clone(&traffic),
            reports: report.clone(),
            on_news: Arc::new(move |news| _ = tell.send(News::Shard(news))),
        };
        shards::start(shard, berth, Arc::clone(&siblings))?;
    }
    drop(report);
    tracing::info!("Carrying cells on {} threads.", config.shards);
    let mut relay = Relay {
        config: watch::Sender::new(config),
        keys: watch::Sender::new(keys),
        shutdown: watch::Sender::new(false),
        shards: siblings.mailboxes(),
        link_keys_made: Instant::now(),
        key_stamps: Stamps::default(),
        keys_looked_at: Instant::now(),
        rates,
        resolver,
        board: Arc::clone(&board),
        listening,
        bound,
        keeper,
        hibernation: AccountingState::Awake,
        log,
        ports,
        _lock: lock,
    };
    admin::start(
        for_the_owner,
        Admin {
            config: relay.config.subscribe(),
            keys: relay.keys.subscribe(),
            shards: relay.shards.clone(),
            traffic: Arc::clone(&traffic),
            rates: Arc::clone(&relay.rates),
            board,
            sockets_max: links_max,
            shutdown: relay.shutdown.subscribe(),
        },
    )?;
    // Before anybody hears of us: who wakes late must not be published as awake.
    super::quota::look(&mut relay);
    start_directory(&relay, store, network, reports, service, traffic, tell)?;
    Ok((relay, news))
}

/// A quarter of all sockets may be those of peers that have not said who they are (our own share).
fn half_open_max(links_max: usize, shards: NonZeroU16) -> usize {
    (links_max / 4 / usize::from(shards.get())).max(16)
}

/// As in C tor a missing resolv.conf is worth a warning, and ends the start only where torrc wants that.
fn check_dns(config: &Config) -> Result<(), BrokenConfig> {
    if config.exit_policy.is_reject_all() {
        return Ok(());
    }
    match resolver::check(&config.exits.dns) {
        Err(error) if config.exits.dns.allow_broken_config => tracing::warn!("{error}"),
        other => return other,
    }
    Ok(())
}

fn bound_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    addresses.collect()
}

/// All sockets, and the port of each ORPort line.
fn open_listeners(torrc: &Torrc, config: &Config) -> Result<(Vec<TcpListener>, Vec<u16>), UpError> {
    let mut listeners = Vec::new();
    let mut ports: Vec<u16> = torrc.or_ports.iter().map(|line| line.port.unwrap_or(0)).collect();
    for Listen {
        address,
        wanted,
        or_port,
    } in &config.listen
    {
        // The second family of an `auto` port listens where the first does.
        let port = ports.get(*or_port).copied().unwrap_or_default();
        let address = SocketAddr::new(address.ip(), port);
        tracing::info!("Opening OR listener on {address}");
        match link::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((bound, listener)) => {
                tracing::info!("Opened OR listener connection (ready) on {bound}");
                if let Some(port) = ports.get_mut(*or_port) {
                    *port = bound.port();
                }
                listeners.push(listener);
            }
            Err(error) if *wanted => return Err(UpError::Bind { address, error }),
            Err(error) => tracing::warn!("Could not bind to {address}: {error}. Going on without it."),
        }
    }
    Ok((listeners, ports))
}

fn say_who_we_are(config: &Config, keys: &Keys) {
    let nickname = &config.nickname;
    tracing::info!(
        "Your Tor server's identity key fingerprint is '{nickname} {}'",
        keys.rsa_identity()
    );
    tracing::info!(
        "Your Tor server's identity key ed25519 fingerprint is '{nickname} {}'",
        keys.ed25519_identity
    );
    if config.advertised.is_empty() {
        tracing::warn!(
            "Unable to find our public address: set Address in torrc. Until then nobody will know this relay."
        );
    }
}

/// What the engine must know of configuration and keys.
pub(super) fn settings(config: &Config, keys: &Keys) -> Settings {
    let onion_keys = std::iter::once(&keys.onion)
        .chain(&keys.onion_old)
        .map(|pair| OnionKey::from(pair.secret()));
    Settings {
        rsa_identity: keys.rsa_identity(),
        ed25519_identity: keys.ed25519_identity,
        advertised: config.advertised.clone(),
        onion_keys: onion_keys.collect(),
        extend_allow_private_addresses: config.extend_allow_private_addresses,
        services: StreamServices {
            exits: !config.exit_policy.is_reject_all(),
            refuse_unknown_exits: config.exits.refuse_unknown,
            any_printable_name: config.exits.dns.any_printable_name,
            directory: config.directory.cache,
        },
        defences: config.defences.clone(),
        extras: config.extras,
    }
}

/// What torrc says of bandwidth.
pub(super) fn limits_of(config: &Config) -> Limits {
    Limits {
        bandwidth: config.bandwidth,
        count_private: config.count_private_bandwidth,
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    seed
}

/// The directory part in a thread of its own, with the two messengers between it and the shards.
fn start_directory(
    relay: &Relay,
    store: Arc<StateStore>,
    network: watch::Sender<Arc<NetworkView>>,
    reports: mpsc::Receiver<Report>,
    service: Arc<Service>,
    traffic: Arc<Traffic>,
    tell: Sender<News>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (onward, heard) = mpsc::channel(REPORTS_WAITING_MAX);
    let news_of_network = network.subscribe();
    let (config, network_of_rules) = (relay.config.subscribe(), network.subscribe());
    let context = DirectoryContext {
        config: relay.config.subscribe(),
        keys: relay.keys.subscribe(),
        network,
        service,
        reports: heard,
        shards: relay.shards.clone(),
        rates: Arc::clone(&relay.rates),
        traffic,
        board: Arc::clone(&relay.board),
        store,
        shutdown: relay.shutdown.subscribe(),
    };
    let shards = relay.shards.clone();
    let heart = Heart {
        config: relay.config.subscribe(),
        shards: shards.clone(),
        traffic: Arc::clone(&context.traffic),
        board: Arc::clone(&relay.board),
    };
    std::thread::Builder::new()
        .name("directory".to_owned())
        .spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(async {
                    tokio::select! {
                        () = directory::run(context) => {}
                        () = tell_network(news_of_network, &shards) => {}
                        () = tell_rules(config, network_of_rules, &shards) => {}
                        () = reports::pass_on(reports, onward) => {}
                        () = heartbeat::run(heart) => {}
                    }
                });
            }));
            if ran.is_err() {
                tracing::error!("Bug: the directory part panicked.");
            }
            let _ = tell.send(News::DirectoryEnded);
        })?;
    Ok(())
}

/// Tells the shards of each new consensus, for as long as there is someone who brings any.
async fn tell_network(mut news: watch::Receiver<Arc<NetworkView>>, shards: &[Mailbox]) {
    while news.changed().await.is_ok() {
        let view = Arc::clone(&news.borrow_and_update());
        shards
            .iter()
            .for_each(|shard| shard.post(Order::Network(Arc::clone(&view))));
    }
}
