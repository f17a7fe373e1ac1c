//! From lines to `Torrc`: each option by its fate, each value by its type, then what must hold between them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::lines::{self, Doing, Line};
use super::options::{self, Fate};
use super::{
    AdvertisedAddress, DirectoryOptions, LogDestination, LogLine, OrPort, Place, Severity, Torrc, TorrcError,
    TorrcErrors, ports, values,
};
use crate::nickname::Nickname;

/// A signing key must live twice as long as the time before its end at which it is renewed (one day).
const SIGNING_KEY_LIFETIME_MIN: Duration = Duration::from_secs(2 * 86_400);

pub(super) fn read(text: &str, command_line: &[(String, String)]) -> Result<Torrc, TorrcErrors> {
    let mut reading = Reading::new(text);
    reading.overrule(command_line);
    reading.judge_fates();
    let torrc = reading.torrc();
    let Reading {
        mut errors,
        mut warnings,
        ..
    } = reading;
    // A value that two options look at is wrong once.
    errors.sort_by_key(|error| error.place);
    errors.dedup();
    warnings.sort_by_key(|warning| warning.place);
    match errors.is_empty() {
        true => Ok(Torrc { warnings, ..torrc }),
        false => Err(TorrcErrors(errors)),
    }
}

/// A value and where it stands.
#[derive(Clone)]
struct Given {
    value: String,
    at: Place,
    name_at: Place,
}

pub(super) struct Reading {
    given: BTreeMap<&'static str, Vec<Given>>,
    pub(super) errors: Vec<TorrcError>,
    warnings: Vec<TorrcError>,
}

impl Reading {
    fn new(text: &str) -> Self {
        let (lines, errors) = lines::read(text);
        let mut reading = Self {
            given: BTreeMap::new(),
            errors,
            warnings: Vec::new(),
        };
        for line in lines {
            reading.sort_in(line);
        }
        reading
    }

    /// The command line's word stands above the file's.
    fn overrule(&mut self, command_line: &[(String, String)]) {
        let lines = command_line.iter().zip(1..);
        let lines: Vec<Line> = lines
            .map(|((name, value), number)| lines::from_command_line(name, value, number))
            .collect();
        for line in &lines {
            if let (Doing::Set, Some((name, _))) = (line.doing, options::find(&line.name)) {
                self.given.remove(name);
            }
        }
        for line in lines {
            self.sort_in(line);
        }
    }

    fn sort_in(&mut self, line: Line) {
        if line.name.eq_ignore_ascii_case("%include") {
            return self.error(line.name_at, "%include is not built yet; write its lines here");
        }
        let Some((name, _)) = options::find(&line.name) else {
            let hint = options::nearest(&line.name).map_or(String::new(), |known| format!("; did you mean {known}?"));
            return self.error(line.name_at, format!("unknown option `{}`{hint}", line.name));
        };
        let values = self.given.entry(name).or_default();
        if line.doing == Doing::Clear {
            return values.clear();
        }
        if !options::is_list(name) && !values.is_empty() {
            values.clear();
            self.warnings.push(TorrcError::at(
                line.name_at,
                format!("{name} stands here again; only the last counts"),
            ));
        }
        let Line {
            value,
            value_at,
            name_at,
            ..
        } = line;
        let given = Given {
            value,
            at: value_at,
            name_at,
        };
        self.given.entry(name).or_default().push(given);
    }

    /// Refuses what is not built, warns of what changes nothing.
    fn judge_fates(&mut self) {
        let testing = self
            .given
            .get("TestingTorNetwork")
            .and_then(|all| all.last())
            .is_some_and(|one| one.value == "1");
        for (name, given) in self.given.clone() {
            let Some((_, fate)) = options::find(name) else { continue };
            for Given { value, at, name_at } in given {
                let off = matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "auto");
                match fate {
                    Fate::Honoured => {}
                    Fate::OffOnly(_) | Fate::OffOutsideTests(_) if off => {}
                    Fate::WithoutEffect(why) => self.warn(name_at, format!("{name} changes nothing: {why}")),
                    Fate::OffOutsideTests(why) if testing => {
                        self.warn(name_at, format!("{name} changes nothing: {why}"));
                    }
                    Fate::OffOnly(why) | Fate::OffOutsideTests(why) | Fate::NotBuilt(why) => {
                        self.error(at, format!("{name} {value}: {why}"));
                    }
                }
            }
        }
    }

    fn torrc(&mut self) -> Torrc {
        let testing = self.switch("TestingTorNetwork", false);
        Torrc {
            nickname: self
                .last("Nickname", |text| {
                    text.parse::<Nickname>().map_err(|error| error.to_string())
                })
                .unwrap_or_else(Nickname::unnamed),
            contact_info: self.last("ContactInfo", text),
            or_ports: self.or_ports(),
            addresses: self.addresses(),
            ipv6_disabled: self.switch("AddressDisableIPv6", false),
            outbound_bind: self.outbound_bind("OutboundBindAddressOR"),
            exits: self.exits(),
            dos: self.dos(),
            conflux_enabled: self.last("ConfluxEnabled", values::switch_or_auto).flatten(),
            circuit_padding: self.switch("CircuitPadding", true),
            connection_padding: self.last("ConnectionPadding", values::switch_or_auto).flatten(),
            max_mem_in_queues: self.max_mem_in_queues(),
            assume_reachable: self.switch("AssumeReachable", testing),
            assume_reachable_ipv6: self.last("AssumeReachableIPv6", values::switch_or_auto).flatten(),
            directory: self.directory(),
            publish_server_descriptor: self.last("PublishServerDescriptor", publish).unwrap_or(true),
            extend_allow_private_addresses: self.switch("ExtendAllowPrivateAddresses", testing),
            testing_tor_network: testing,
            data_directory: self.last("DataDirectory", text).map(Into::into),
            cache_directory: self.last("CacheDirectory", text).map(Into::into),
            key_directory: self.last("KeyDirectory", text).map(Into::into),
            family_key_directory: self.last("FamilyKeyDirectory", text).map(Into::into),
            family_directory: self.last("FamilyDirectory", text).map(Into::into),
            signing_key_directory: self.signing_key_directory(),
            user: self.last("User", text),
            logs: self.logs(),
            cpus: self.last("NumCPUs", values::cpus).flatten(),
            shutdown_wait: self
                .last("ShutdownWaitLength", values::interval)
                .unwrap_or(Duration::from_secs(30)),
            tls_certificate_lifetime: self
                .last("SSLKeyLifetime", values::interval)
                .filter(|lifetime| !lifetime.is_zero()),
            dir_authorities: self.dir_authorities(testing),
            bandwidth: self.bandwidth(),
            count_private_bandwidth: self.switch("CountPrivateBandwidth", testing),
            overload_statistics: self.switch("OverloadStatistics", true),
            heartbeat_period: self.heartbeat_period(),
            my_family: self.my_family(),
            family_ids: self.family_ids(),
            offline_master_key: self.switch("OfflineMasterKey", false),
            signing_key_lifetime: self
                .last("SigningKeyLifetime", signing_key_lifetime)
                .unwrap_or(30 * DAY),
            accounting: self.accounting(),
            metrics_ports: self.metrics_ports(),
            metrics_policy: self.metrics_policy(),
            status_ports: self.status_ports(),
            status_token_file: self.last("StatusTokenFile", text).map(Into::into),
            warnings: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, at: Place, message: impl Into<String>) {
        self.errors.push(TorrcError::at(at, message));
    }

    /// C tor raises what is below half an hour; 0 is no heartbeat.
    fn heartbeat_period(&mut self) -> Option<Duration> {
        const USUAL: Duration = Duration::from_secs(6 * 3_600);
        const LEAST: Duration = Duration::from_secs(1_800);
        let period = self.last("HeartbeatPeriod", values::interval).unwrap_or(USUAL);
        if let Some(at) = self
            .place("HeartbeatPeriod")
            .filter(|_| !period.is_zero() && period < LEAST)
        {
            self.warn(at, "HeartbeatPeriod option is too short; raising to 1800 seconds.");
        }
        (!period.is_zero()).then(|| period.max(LEAST))
    }

    pub(super) fn warn(&mut self, at: Place, message: impl Into<String>) {
        self.warnings.push(TorrcError::at(at, message));
    }

    /// Where the option's last value stands.
    pub(super) fn place(&self, name: &str) -> Option<Place> {
        self.given.get(name)?.last().map(|given| given.at)
    }

    /// The option's values with their places, by a type of their own; what does not fit becomes an error.
    pub(super) fn every<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<(Place, T)> {
        debug_assert!(matches!(options::find(name), Some((_, Fate::Honoured))), "{name}");
        let mut read_values = Vec::new();
        for Given { value, at, .. } in self.given.get(name).cloned().unwrap_or_default() {
            match read(&value) {
                Ok(value) => read_values.push((at, value)),
                Err(message) => self.error(at, format!("{name}: {message}")),
            }
        }
        read_values
    }

    pub(super) fn last<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.every(name, read).pop().map(|(_, value)| value)
    }

    pub(super) fn switch(&mut self, name: &str, otherwise: bool) -> bool {
        self.last(name, values::switch).unwrap_or(otherwise)
    }

    fn directory(&mut self) -> DirectoryOptions {
        DirectoryOptions {
            cache: self.switch("DirCache", true),
            extra_infos: self.switch("DownloadExtraInfo", false),
            diffs_age_max: self
                .last("MaxConsensusAgeForDiffs", values::interval)
                .filter(|age| !age.is_zero()),
            onion_services_bytes_max: self
                .last("MaxHSDirCacheBytes", values::bytes)
                .filter(|bytes| *bytes > 0),
            front_page: self.last("DirPortFrontPage", text).map(Into::into),
        }
    }

    fn or_ports(&mut self) -> Vec<OrPort> {
        let mistakes = self.errors.len();
        let ports: Vec<OrPort> = self
            .every("ORPort", ports::or_port)
            .into_iter()
            .filter_map(|(_, port)| port)
            .collect();
        if ports.is_empty() && self.errors.len() == mistakes {
            let message = "ORPort is missing: a relay must have a port for others to connect to".to_owned();
            let place = self.place("ORPort");
            self.errors.push(TorrcError { place, message });
        }
        ports
    }

    fn addresses(&mut self) -> Vec<AdvertisedAddress> {
        let found = self.every("Address", ports::advertised_address);
        let ip = |one: &AdvertisedAddress| match one {
            AdvertisedAddress::Ip(address) => Some(*address),
            AdvertisedAddress::Host(_) => None,
        };
        let places = found.iter().filter_map(|(at, one)| Some((*at, ip(one)?))).collect();
        self.one_a_family("Address", places);
        found.into_iter().map(|(_, address)| address).collect()
    }

    /// `option`'s addresses, and `OutboundBindAddress` for the family that it does not name.
    pub(super) fn outbound_bind(&mut self, option: &str) -> Vec<IpAddr> {
        let general = self.every("OutboundBindAddress", values::address);
        let general = self.one_a_family("OutboundBindAddress", general);
        let special = self.every(option, values::address);
        let mut chosen = self.one_a_family(option, special);
        for address in general {
            if !chosen.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                chosen.push(address);
            }
        }
        chosen
    }

    fn one_a_family(&mut self, name: &str, found: Vec<(Place, IpAddr)>) -> Vec<IpAddr> {
        let mut kept: Vec<IpAddr> = Vec::new();
        for (at, address) in found {
            if kept.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                self.error(at, format!("{name}: a second {family} address; one a family is enough"));
            } else {
                kept.push(address);
            }
        }
        kept
    }

    fn logs(&mut self) -> Vec<LogLine> {
        let logs: Vec<LogLine> = self
            .every("Log", ports::log_line)
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        if !logs.is_empty() {
            return logs;
        }
        vec![LogLine {
            from: Severity::Notice,
            to: Severity::Err,
            destination: LogDestination::Stdout,
        }]
    }

    fn dir_authorities(&mut self, testing: bool) -> Vec<super::DirAuthority> {
        let mut authorities = Vec::new();
        for (at, (authority, ignored)) in self.every("DirAuthority", ports::dir_authority) {
            for flag in ignored {
                self.warn(at, format!("DirAuthority: `{flag}` is passed over"));
            }
            authorities.push(authority);
        }
        if testing && authorities.is_empty() {
            let message = "TestingTorNetwork 1 needs DirAuthority lines: it must not touch the public network";
            let place = self.place("TestingTorNetwork");
            self.errors.push(TorrcError {
                place,
                message: message.to_owned(),
            });
        }
        authorities
    }
}

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected a value".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn publish(text: &str) -> Result<bool, String> {
    let mut publish = false;
    for word in text.split(',').map(|word| word.trim().to_ascii_lowercase()) {
        match word.as_str() {
            "0" => {}
            "1" | "v3" => publish = true,
            "bridge" => return Err("bridges are not built yet".to_owned()),
            _ => return Err(format!("expected 0, 1 or v3, found `{text}`")),
        }
    }
    Ok(publish)
}

fn signing_key_lifetime(text: &str) -> Result<Duration, String> {
    match values::interval(text)? {
        lifetime if lifetime < SIGNING_KEY_LIFETIME_MIN => Err(format!("expected 2 days at least, found `{text}`")),
        lifetime => Ok(lifetime),
    }
}
