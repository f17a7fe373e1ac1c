//! Ports that serve the relay's owner: `MetricsPort`, and our own `StatusPort`.

use std::net::{IpAddr, Ipv4Addr};

use super::reading::Reading;
use super::{ports, values};
use crate::exit_policy::{ExitPolicy, Rule};

/// One `MetricsPort` or `StatusPort` line: `[address:]port|auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    /// Where to listen; this machine alone (127.0.0.1) where the line names no address.
    pub address: IpAddr,
    /// Port to listen on; `None` for `auto`: whatever the system gives.
    pub port: Option<u16>,
}

impl Reading {
    pub(super) fn metrics_ports(&mut self) -> Vec<ServicePort> {
        let found = self.every("MetricsPort", metrics_port);
        found.into_iter().filter_map(|(_, port)| port).collect()
    }

    pub(super) fn status_ports(&mut self) -> Vec<ServicePort> {
        let found = self.every("StatusPort", service_port);
        found.into_iter().filter_map(|(_, port)| port).collect()
    }

    /// The rules of all lines. Only their addresses count.
    pub(super) fn metrics_policy(&mut self) -> Vec<Rule> {
        let read = |text: &str| ExitPolicy::parse_line(text).map_err(|error| error.to_string());
        let mut rules = Vec::new();
        for (at, line) in self.every("MetricsPortPolicy", read) {
            for warning in line.warnings {
                self.warn(at, format!("MetricsPortPolicy: {warning}"));
            }
            rules.extend(line.rules);
        }
        rules
    }
}

/// None for `0`, which asks for no port. The format may follow; there is one only.
fn metrics_port(text: &str) -> Result<Option<ServicePort>, String> {
    let (place, format) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match format.trim() {
        "" => service_port(place),
        format if format.eq_ignore_ascii_case("prometheus") => service_port(place),
        format => Err(format!("`{format}` is no format of metrics: prometheus")),
    }
}

fn service_port(text: &str) -> Result<Option<ServicePort>, String> {
    if text.starts_with("unix:") {
        return Err("a Unix socket is not built yet; give an address and a port".to_owned());
    }
    // What is an address alone, C tor would listen on at a default port: rather a clear error than a guess.
    if values::address(text).is_ok() {
        return Err(format!("expected ADDRESS:PORT, found `{text}`"));
    }
    let (address, port) = ports::address_and_port(text)?;
    if port == Some(0) {
        return match address {
            None => Ok(None),
            Some(_) => Err("expected a port from 1 to 65535".to_owned()),
        };
    }
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    Ok(Some(ServicePort { address, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(String, Option<u16>)> {
        metrics_port(text)
            .unwrap()
            .map(|one| (one.address.to_string(), one.port))
    }

    #[test]
    fn a_bare_port_serves_this_machine_alone() {
        assert_eq!(place("9035"), Some(("127.0.0.1".to_owned(), Some(9035))));
        assert_eq!(place("auto prometheus"), Some(("127.0.0.1".to_owned(), None)));
        assert_eq!(
            place("0.0.0.0:9035 Prometheus"),
            Some(("0.0.0.0".to_owned(), Some(9035)))
        );
        assert_eq!(place("[::]:9035"), Some(("::".to_owned(), Some(9035))));
        assert_eq!(place("0"), None);
    }

    #[test]
    fn what_is_no_place_or_no_format_is_told() {
        for bad in [
            "",
            "x",
            "9035 json",
            "unix:/run/metrics",
            "127.0.0.1",
            "::1",
            "1.2.3.4:0",
            "70000",
        ] {
            assert!(metrics_port(bad).is_err(), "{bad}");
        }
    }
}
