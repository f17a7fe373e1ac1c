//! Asks the DNS: hickory's resolver by resolv.conf, on a thread of its own.
//!
//! Remembers nothing: that is [`Cache`](super::Cache)'s, whose lifetimes tell nobody what others asked for. Every question
//! gets exactly one answer, whatever breaks on the way.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use relay_formats::torrc::ServerDns;
use relay_wire::destination::{NameRule, checked_name};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Found, Key, Outcome, client_ttl_seconds, honesty};
use crate::metrics::counters::DnsOutcome;
use crate::traffic::Traffic;

/// The file where torrc names none.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// Questions under way at once, ours. Each has a socket, or one for each family.
const UNDER_WAY_MAX: usize = 256;
/// Questions that wait for their turn; beyond it the answer is silence.
const WAITING_MAX: usize = 1_024;
/// For one server's answer (param-spec, `exit_dns_timeout`).
const SERVER_TIME_MAX: Duration = Duration::from_secs(1);
/// Tries after the first (param-spec, `exit_dns_num_attempts`).
const MORE_TRIES: usize = 2;
/// For everything. C tor's clients wait for a stream no longer.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);
/// How often we look whether resolv.conf has changed, while questions come.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Addresses of one name that are kept. RESOLVED takes 48, and nobody tries more than the first.
const ADDRESSES_MAX: usize = 32;

/// When we first look whether the servers tell the truth, and between two looks (C tor, `check_dns_honesty_callback`).
const FIRST_EXAMINATION_SECONDS: std::ops::RangeInclusive<u64> = 60..=180;
const EXAMINATION_SECONDS: std::ops::RangeInclusive<u64> = 12 * 3_600..=24 * 3_600;

/// A question and where its answer goes.
pub struct Question {
    /// What is asked.
    pub key: Key,
    /// Whether IPv6 addresses of a name are wanted too.
    pub ipv6: bool,
    /// Where the answer goes.
    pub answer: Answer,
}

/// Takes the answer of one question. Dropped without one, it says [`Outcome::Silence`].
pub struct Answer(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Answer {
    /// `take` is called once, on another thread.
    pub fn new(take: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(take)))
    }

    fn give(mut self, outcome: Outcome) {
        if let Some(take) = self.0.take() {
            take(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(take) = self.0.take() {
            take(Outcome::Silence);
        }
    }
}

/// Where questions go. Clones ask the same resolver.
#[derive(Clone)]
pub struct Resolver {
    questions: mpsc::Sender<Question>,
    settings: Arc<watch::Sender<ServerDns>>,
}

impl Resolver {
    /// Starts its thread, which ends with the last clone. `on_useless` is told when the servers turn out to lie about
    /// everything.
    ///
    /// # Errors
    /// No thread or descriptor left.
    pub fn start(
        settings: ServerDns,
        traffic: Arc<Traffic>,
        on_useless: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::start_towards(settings, DNS_PORT, traffic, on_useless)
    }

    /// The same with name servers that listen on `port`: a test's cannot have 53.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_towards(
        settings: ServerDns,
        port: u16,
        traffic: Arc<Traffic>,
        on_useless: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (questions, asked) = mpsc::channel(WAITING_MAX);
        let settings = Arc::new(watch::Sender::new(settings));
        let current = settings.subscribe();
        std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            let serving = serve(asked, Servers::new(current, port), traffic, on_useless);
            runtime.block_on(tokio::task::LocalSet::new().run_until(serving));
        })?;
        Ok(Self { questions, settings })
    }

    /// After a reload. Questions under way end by the old settings.
    pub fn change(&self, settings: ServerDns) {
        self.settings.send_replace(settings);
    }

    /// Asks. The answer comes in any case: silence at once where too many wait.
    pub fn ask(&self, question: Question) {
        // Refused, it is dropped, and says so itself.
        let _ = self.questions.try_send(question);
    }
}

/// Why the DNS cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("Unable to parse '{path}', or no nameservers in it: {error}", path = path.display())]
pub struct BrokenConfig {
    path: PathBuf,
    error: String,
}

/// Looks whether a resolver can be made of `settings` now.
///
/// # Errors
/// The file cannot be read, or names no server.
pub fn check(settings: &ServerDns) -> Result<(), BrokenConfig> {
    read(settings).map(drop)
}

fn path_of(settings: &ServerDns) -> &Path {
    settings.resolv_conf.as_deref().unwrap_or(Path::new(RESOLV_CONF))
}

fn read(settings: &ServerDns) -> Result<(ResolverConfig, ResolverOpts), BrokenConfig> {
    let path = path_of(settings);
    let broken = |error: String| BrokenConfig {
        path: path.to_path_buf(),
        error,
    };
    let text = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
    parse_resolv_conf(text).map_err(|error| broken(error.to_string()))
}

async fn serve(
    mut questions: mpsc::Receiver<Question>,
    mut servers: Servers,
    traffic: Arc<Traffic>,
    on_useless: impl Fn() + Send + 'static,
) {
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut examination = Examination::new(on_useless);
    loop {
        let question = tokio::select! {
            question = questions.recv() => match question {
                Some(question) => question,
                None => return,
            },
            () = examination.due() => {
                examination.begin(&mut servers, &traffic);
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Some((resolver, rules)) = servers.current() else {
            continue;
        };
        let asking = Asking {
            resolver,
            rules,
            traffic: Arc::clone(&traffic),
            false_addresses: Arc::clone(&examination.false_addresses),
        };
        tokio::task::spawn_local(async move {
            let Question { key, ipv6, answer } = question;
            if let Ok(outcome) = tokio::time::timeout(QUESTION_TIME_MAX, asking.look_up(&key, ipv6)).await {
                answer.give(outcome);
            }
            drop(place);
        });
    }
}

/// Looks from time to time whether the servers tell the truth.
struct Examination {
    due: tokio::time::Instant,
    /// What the last one found.
    false_addresses: Arc<RwLock<HashSet<IpAddr>>>,
    on_useless: Arc<Mutex<dyn Fn() + Send>>,
}

impl Examination {
    fn new(on_useless: impl Fn() + Send + 'static) -> Self {
        Self {
            due: after(FIRST_EXAMINATION_SECONDS),
            false_addresses: Arc::default(),
            on_useless: Arc::new(Mutex::new(on_useless)),
        }
    }

    fn due(&self) -> impl Future<Output = ()> + use<> {
        tokio::time::sleep_until(self.due)
    }

    fn begin(&mut self, servers: &mut Servers, traffic: &Arc<Traffic>) {
        self.due = after(EXAMINATION_SECONDS);
        let settings = servers.settings.borrow().clone();
        if !settings.detect_hijacking {
            return;
        }
        let Some((resolver, rules)) = servers.current() else {
            return;
        };
        let asking = Asking {
            resolver,
            rules: Rules {
                search_domains: false,
                ..rules
            },
            traffic: Arc::clone(traffic),
            // Here the false ones are what is looked for.
            false_addresses: Arc::default(),
        };
        let (found, on_useless) = (Arc::clone(&self.false_addresses), Arc::clone(&self.on_useless));
        tokio::task::spawn_local(async move {
            let mut dice = StdRng::from_rng(&mut rand::rng());
            let ask = async |name: &str| match asking.look_up(&Key::name(name), true).await {
                Outcome::Found(Found::Addresses(addresses), _) => addresses.to_vec(),
                _ => Vec::new(),
            };
            let findings = honesty::examine(ask, &settings.test_addresses, &mut dice).await;
            if !findings.false_addresses.is_empty() {
                tracing::warn!(
                    "Your DNS provider answers for names that do not exist, with {} address(es). Apparently they are \
                     hijacking DNS failures. Treating those answers as 'not found'.",
                    findings.false_addresses.len()
                );
            }
            if findings.useless {
                on_useless.lock().unwrap_or_else(PoisonError::into_inner)();
            }
            *found.write().unwrap_or_else(PoisonError::into_inner) = findings.false_addresses;
        });
    }
}

fn after(seconds: std::ops::RangeInclusive<u64>) -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(rand::rng().random_range(seconds))
}

/// What `ServerDns` says of names.
#[derive(Clone, Copy)]
struct Rules {
    search_domains: bool,
    name: NameRule,
}

/// The resolver of the newest settings and the newest file.
struct Servers {
    settings: watch::Receiver<ServerDns>,
    port: u16,
    resolver: Option<TokioResolver>,
    /// When the file was written last, as of the last look; `None`: it could not be read.
    written: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Servers {
    fn new(settings: watch::Receiver<ServerDns>, port: u16) -> Self {
        Self {
            settings,
            port,
            resolver: None,
            written: None,
            looked: None,
        }
    }

    fn current(&mut self) -> Option<(TokioResolver, Rules)> {
        let changed = self.settings.has_changed().unwrap_or(false);
        let settings = self.settings.borrow_and_update().clone();
        if changed || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            let written = std::fs::metadata(path_of(&settings))
                .and_then(|file| file.modified())
                .ok();
            let first = self.looked.replace(Instant::now()).is_none();
            if first || changed || written != self.written {
                self.written = written;
                self.make(&settings);
            }
        }
        let rules = Rules {
            search_domains: settings.search_domains,
            name: match settings.any_printable_name {
                true => NameRule::Printable,
                false => NameRule::Rfc953,
            },
        };
        Some((self.resolver.clone()?, rules))
    }

    /// A file that has become unreadable leaves the old servers in place.
    fn make(&mut self, settings: &ServerDns) {
        let made = read(settings).and_then(|(mut config, mut options)| {
            let connections = config
                .name_servers
                .iter_mut()
                .flat_map(|server| &mut server.connections);
            connections.for_each(|connection| connection.port = self.port);
            options.timeout = SERVER_TIME_MAX;
            options.attempts = MORE_TRIES;
            options.cache_size = 0;
            // One server after the other: the second need not know what the first has answered.
            options.num_concurrent_reqs = 1;
            // Exits speak for the DNS, not for their machine.
            options.use_hosts_file = ResolveHosts::Never;
            options.case_randomization = settings.randomize_case;
            options.max_active_requests = UNDER_WAY_MAX;
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = options;
            builder.build().map_err(|error| BrokenConfig {
                path: path_of(settings).to_path_buf(),
                error: error.to_string(),
            })
        });
        match made {
            Ok(resolver) => self.resolver = Some(resolver),
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// All that one question needs.
struct Asking {
    resolver: TokioResolver,
    rules: Rules,
    traffic: Arc<Traffic>,
    false_addresses: Arc<RwLock<HashSet<IpAddr>>>,
}

impl Asking {
    async fn look_up(&self, key: &Key, ipv6: bool) -> Outcome {
        match key {
            Key::Name(name) => {
                let Some(name) = question_name(name, self.rules.search_domains) else {
                    return Brought::Nothing(0).outcome();
                };
                let v4 = self.addresses(name.clone(), RecordType::A);
                if !ipv6 {
                    return v4.await.outcome();
                }
                let (v4, v6) = tokio::join!(v4, self.addresses(name, RecordType::AAAA));
                v4.and(v6).outcome()
            }
            Key::Address(address) => self.name_of(*address).await,
        }
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Lookup, Brought> {
        let counts = &self.traffic.dns;
        counts.note_query();
        let found = self.resolver.lookup(name, kind).await;
        counts.note_outcome(found.as_ref().map_or_else(counted_as, |_| DnsOutcome::Success));
        found.map_err(|error| in_vain(&error))
    }

    async fn addresses(&self, name: Name, kind: RecordType) -> Brought {
        let found = match self.ask(name, kind).await {
            Ok(found) => found,
            Err(brought) => return brought,
        };
        let mut ttl = u32::MAX;
        let mut addresses = Vec::new();
        for record in found.answers().iter().take(2 * ADDRESSES_MAX) {
            ttl = ttl.min(record.ttl);
            addresses.extend(record.data.ip_addr());
        }
        let known = self.false_addresses.read().unwrap_or_else(PoisonError::into_inner);
        addresses.retain(|address| !known.contains(address));
        addresses.truncate(ADDRESSES_MAX);
        match addresses.is_empty() {
            true => Brought::Nothing(0),
            false => Brought::Addresses(addresses, ttl),
        }
    }

    async fn name_of(&self, address: IpAddr) -> Outcome {
        let found = match self.ask(Name::from(address), RecordType::PTR).await {
            Ok(found) => found,
            Err(brought) => return brought.outcome(),
        };
        let name = found.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some((name.0.to_ascii(), record.ttl)),
            _ => None,
        });
        let Some((name, ttl)) = name else {
            return Brought::Nothing(0).outcome();
        };
        // TROVE-2026-035: what a resolver calls a name may be anything.
        match checked_name(&name, self.rules.name) {
            Ok(name) => Outcome::Found(Found::Name(name.into()), client_ttl_seconds(ttl, &mut rand::rng())),
            Err(_) => Brought::Nothing(ttl).outcome(),
        }
    }
}

/// Made of labels, not of text: a backslash has no meaning here.
fn question_name(name: &str, search_domains: bool) -> Option<Name> {
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(!search_domains);
    Some(name)
}

/// What one question brought, before the noise.
enum Brought {
    Addresses(Vec<IpAddr>, u32),
    Nothing(u32),
    Silence,
}

impl Brought {
    /// Both families of one name.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Addresses(mut some, ttl), Self::Addresses(more, other)) => {
                some.extend(more);
                some.truncate(ADDRESSES_MAX);
                Self::Addresses(some, ttl.min(other))
            }
            (some @ Self::Addresses(..), _) | (_, some @ Self::Addresses(..)) => some,
            (Self::Nothing(ttl), Self::Nothing(other)) => Self::Nothing(ttl.min(other)),
            (Self::Silence, _) | (_, Self::Silence) => Self::Silence,
        }
    }

    fn outcome(self) -> Outcome {
        let noisy = |ttl| client_ttl_seconds(ttl, &mut rand::rng());
        match self {
            Self::Addresses(addresses, ttl) => Outcome::Found(Found::Addresses(addresses.into()), noisy(ttl)),
            Self::Nothing(ttl) => Outcome::Found(Found::Nothing, noisy(ttl)),
            Self::Silence => Outcome::Silence,
        }
    }
}

/// An error may be an answer: there is no such name, or nothing of that kind.
fn in_vain(error: &NetError) -> Brought {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            Brought::Nothing(none.negative_ttl.unwrap_or(0))
        }
        _ => Brought::Silence,
    }
}

fn counted_as(error: &NetError) -> DnsOutcome {
    let code = match error {
        NetError::Timeout => return DnsOutcome::Timeout,
        NetError::Truncated => return DnsOutcome::Truncated,
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        _ => return DnsOutcome::Unknown,
    };
    match code {
        ResponseCode::NoError => DnsOutcome::NoData,
        ResponseCode::FormErr => DnsOutcome::Format,
        ResponseCode::ServFail => DnsOutcome::ServerFailed,
        ResponseCode::NXDomain => DnsOutcome::NotExist,
        ResponseCode::NotImp => DnsOutcome::NotImplemented,
        ResponseCode::Refused => DnsOutcome::Refused,
        _ => DnsOutcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay that is no exit asks nobody; a resolver of its own would only take memory.
    #[test]
    fn who_does_not_examine_its_servers_makes_no_resolver_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        let settings = watch::Sender::new(ServerDns {
            resolv_conf: Some(file),
            detect_hijacking: false,
            ..ServerDns::default()
        });
        let mut servers = Servers::new(settings.subscribe(), DNS_PORT);
        Examination::new(|| ()).begin(&mut servers, &Arc::default());
        assert!(servers.resolver.is_none());
        assert!(servers.current().is_some(), "one could have been made");
    }
}
