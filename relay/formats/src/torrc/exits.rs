//! `ExitPolicy`, `ExitRelay` and what else makes and governs an exit.

use std::net::IpAddr;
use std::path::PathBuf;

use super::reading::{Reading, text};
use super::{Place, Torrc, values};
use crate::exit_policy::{BadPolicy, ExitPolicy, Options, Rule, Warning};

/// C tor's own choice of names that exist for certain.
const TEST_ADDRESSES: [&str; 4] = ["www.google.com", "www.mit.edu", "www.yahoo.com", "www.slashdot.org"];

/// What torrc says of exits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exits {
    /// `ExitRelay`; `None` is `auto`: an exit if one of the next three asks for it.
    pub exit_relay: Option<bool>,
    /// `ExitPolicy`, all lines in order.
    pub lines: Vec<Rule>,
    /// `ReducedExitPolicy`.
    pub reduced: bool,
    /// `IPv6Exit`.
    pub ipv6: bool,
    /// `ExitPolicyRejectPrivate`.
    pub reject_private: bool,
    /// `ExitPolicyRejectLocalInterfaces`.
    pub reject_local_interfaces: bool,
    /// `ReevaluateExitPolicy`: a reload ends streams that the new policy refuses.
    pub reevaluate: bool,
    /// `OutboundBindAddressExit`, else `OutboundBindAddress`: at most one a family.
    pub outbound_bind: Vec<IpAddr>,
    /// `RefuseUnknownExits`; `None` is `auto`: the consensus decides.
    pub refuse_unknown: Option<bool>,
    /// `ServerDNS*`.
    pub dns: ServerDns,
}

/// How an exit asks the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDns {
    /// `ServerDNSResolvConfFile`; the system's without one.
    pub resolv_conf: Option<PathBuf>,
    /// `ServerDNSAllowBrokenConfig`: start even if that file names no server.
    pub allow_broken_config: bool,
    /// `ServerDNSSearchDomains`: try names in the file's search domains too.
    pub search_domains: bool,
    /// `ServerDNSAllowNonRFC953Hostnames`: names may hold any printable character.
    pub any_printable_name: bool,
    /// `ServerDNSDetectHijacking`: look whether the servers answer for names that do not exist.
    pub detect_hijacking: bool,
    /// `ServerDNSTestAddresses`: names that exist for certain, to look whether the servers lie about these too.
    pub test_addresses: Vec<String>,
    /// `ServerDNSRandomizeCase`: questions in random letter case, which answers must keep.
    pub randomize_case: bool,
}

/// A torrc without one word on exits.
impl Default for Exits {
    fn default() -> Self {
        Self {
            exit_relay: None,
            lines: Vec::new(),
            reduced: false,
            ipv6: false,
            reject_private: true,
            reject_local_interfaces: false,
            reevaluate: false,
            outbound_bind: Vec::new(),
            refuse_unknown: None,
            dns: ServerDns::default(),
        }
    }
}

/// C tor's defaults.
impl Default for ServerDns {
    fn default() -> Self {
        Self {
            resolv_conf: None,
            allow_broken_config: true,
            search_domains: false,
            any_printable_name: false,
            detect_hijacking: true,
            test_addresses: TEST_ADDRESSES.map(str::to_owned).to_vec(),
            randomize_case: true,
        }
    }
}

impl Torrc {
    /// What the exit policy is made of. `local_addresses` are the machine's: those of its interfaces. Together with all that
    /// we listen on, send from and advertise they are our own, which `ExitPolicyRejectPrivate` covers; C tor leaves the other
    /// interfaces to `ExitPolicyRejectLocalInterfaces`, and an exit could so be asked for what its own machine serves.
    pub fn exit_policy_options(&self, advertised: &[IpAddr], local_addresses: &[IpAddr]) -> Options {
        let Exits {
            exit_relay,
            lines,
            reduced,
            ipv6,
            reject_private,
            reject_local_interfaces,
            outbound_bind,
            ..
        } = &self.exits;
        let mut own: Vec<IpAddr> = self.or_ports.iter().filter_map(|port| port.address).collect();
        own.extend(advertised);
        own.extend(&self.outbound_bind);
        own.extend(outbound_bind);
        own.extend(local_addresses);
        own.sort();
        own.dedup();
        Options {
            exit_relay: *exit_relay,
            ipv6_exit: *ipv6,
            lines: lines.clone(),
            reduced: *reduced,
            reject_private: *reject_private,
            reject_local_interfaces: *reject_local_interfaces,
            local_addresses: own.clone(),
            own_addresses: own,
            ..Options::default()
        }
    }
}

impl Reading {
    pub(super) fn exits(&mut self) -> Exits {
        let exits = Exits {
            exit_relay: self.last("ExitRelay", values::switch_or_auto).flatten(),
            lines: self.exit_policy_lines(),
            reduced: self.switch("ReducedExitPolicy", false),
            ipv6: self.switch("IPv6Exit", false),
            reject_private: self.switch("ExitPolicyRejectPrivate", true),
            reject_local_interfaces: self.switch("ExitPolicyRejectLocalInterfaces", false),
            reevaluate: self.switch("ReevaluateExitPolicy", false),
            outbound_bind: self.outbound_bind("OutboundBindAddressExit"),
            refuse_unknown: self.last("RefuseUnknownExits", values::switch_or_auto).flatten(),
            dns: self.server_dns(),
        };
        self.warn_of_contradictions(&exits);
        exits
    }

    fn exit_policy_lines(&mut self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (at, line) in self.every("ExitPolicy", |text| Ok(text.to_owned())) {
            match ExitPolicy::parse_line(&line) {
                Ok(line) => {
                    for Warning { column } in line.warnings {
                        self.warn(within(at, column), format!("ExitPolicy: {}", Warning::MESSAGE));
                    }
                    rules.extend(line.rules);
                }
                Err(BadPolicy { column, problem }) => self.error(within(at, column), format!("ExitPolicy: {problem}")),
            }
        }
        rules
    }

    fn server_dns(&mut self) -> ServerDns {
        let plain = ServerDns::default();
        ServerDns {
            resolv_conf: self.last("ServerDNSResolvConfFile", text).map(Into::into),
            allow_broken_config: self.switch("ServerDNSAllowBrokenConfig", plain.allow_broken_config),
            search_domains: self.switch("ServerDNSSearchDomains", plain.search_domains),
            any_printable_name: self.switch("ServerDNSAllowNonRFC953Hostnames", plain.any_printable_name),
            detect_hijacking: self.switch("ServerDNSDetectHijacking", plain.detect_hijacking),
            test_addresses: self
                .last("ServerDNSTestAddresses", |text| Ok(names(text)))
                .unwrap_or(plain.test_addresses),
            randomize_case: self.switch("ServerDNSRandomizeCase", plain.randomize_case),
        }
    }

    /// What an owner may not have meant.
    fn warn_of_contradictions(&mut self, exits: &Exits) {
        let asking = ["ExitPolicy", "ReducedExitPolicy", "IPv6Exit"];
        let policy = |exits: &Exits| {
            let options = Options {
                exit_relay: exits.exit_relay,
                ipv6_exit: exits.ipv6,
                lines: exits.lines.clone(),
                reduced: exits.reduced,
                ..Options::default()
            };
            ExitPolicy::assemble(&options)
        };
        let open = Exits {
            exit_relay: None,
            ..exits.clone()
        };
        if policy(&open).is_reject_all() {
            return;
        }
        let Some((name, at)) = asking.iter().find_map(|name| Some((name, self.place(name)?))) else {
            return;
        };
        match exits.exit_relay {
            Some(true) => {}
            Some(false) => self.warn(at, format!("{name} changes nothing: ExitRelay is 0")),
            None => self.warn(
                at,
                format!(
                    "{name} makes this relay an exit. If that is what you want, say ExitRelay 1; if not, ExitRelay 0"
                ),
            ),
        }
    }
}

fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The place of a value's `column`, both from 1. On the command line columns count options.
fn within(at: Place, column: usize) -> Place {
    match at.line {
        0 => at,
        line => Place {
            line,
            column: at.column + column - 1,
        },
    }
}
