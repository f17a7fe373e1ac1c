//! What torrc and the consensus say of the defences.

use std::time::Duration;

pub use relay_formats::torrc::DosOptions;

use crate::network::Parameters;

/// What holds now. A defence that is off is `None`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DosRules {
    pub(crate) circuits: Option<CircuitRules>,
    pub(crate) connections: Option<ConnectionRules>,
    pub(crate) streams: Option<StreamRules>,
    pub(crate) refuse_single_hop_rendezvous: bool,
    /// Circuits of one address that may fill a queue away from it before the address is marked.
    pub(crate) full_queues_max: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CircuitRules {
    pub(crate) connections_min: u32,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    /// Whether marked addresses are refused; otherwise they are only counted.
    pub(crate) refuses: bool,
    pub(crate) period: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionRules {
    pub(crate) concurrent_max: u32,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    /// Whether connections are closed; otherwise they are only counted.
    pub(crate) closes: bool,
    pub(crate) period: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamRules {
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    pub(crate) defense: StreamDefense,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamDefense {
    Nothing,
    /// END with reason MISC: RESOURCELIMIT would make clients shun us.
    Refuse,
    CloseCircuit,
}

impl DosRules {
    /// torrc's word counts, else the consensus's, else C tor's default (`dos.h`).
    pub fn of(options: &DosOptions, parameters: &Parameters) -> Self {
        let on = |option: Option<bool>, name: &str| option.unwrap_or_else(|| parameters.clamped(name, 0, 0, 1) == 1);
        let number = |option: Option<u32>, name: &str, default: i32, low: i32| {
            let of_network = parameters.clamped(name, default, low, i32::MAX) as u32;
            option.filter(|number| *number > 0).unwrap_or(of_network)
        };
        let period = |option: Option<Duration>, name: &str, default: i32, low: i32| {
            let of_network = Duration::from_secs(parameters.clamped(name, default, low, i32::MAX) as u64);
            option.filter(|period| !period.is_zero()).unwrap_or(of_network)
        };
        let o = options;
        let circuits = || CircuitRules {
            connections_min: number(
                o.circuit_creation_min_connections,
                "DoSCircuitCreationMinConnections",
                3,
                1,
            ),
            rate: number(o.circuit_creation_rate, "DoSCircuitCreationRate", 3, 1),
            burst: number(o.circuit_creation_burst, "DoSCircuitCreationBurst", 90, 1),
            refuses: number(o.circuit_creation_defense_type, "DoSCircuitCreationDefenseType", 2, 1) == 2,
            period: period(
                o.circuit_creation_defense_time_period,
                "DoSCircuitCreationDefenseTimePeriod",
                3_600,
                0,
            ),
        };
        let connections = || ConnectionRules {
            concurrent_max: number(
                o.connection_max_concurrent_count,
                "DoSConnectionMaxConcurrentCount",
                100,
                1,
            ),
            rate: number(o.connection_connect_rate, "DoSConnectionConnectRate", 20, 1),
            burst: number(o.connection_connect_burst, "DoSConnectionConnectBurst", 40, 1),
            closes: number(o.connection_defense_type, "DoSConnectionDefenseType", 2, 1) == 2,
            period: period(
                o.connection_connect_defense_time_period,
                "DoSConnectionConnectDefenseTimePeriod",
                86_400,
                10,
            ),
        };
        let streams = || StreamRules {
            rate: number(o.stream_creation_rate, "DoSStreamCreationRate", 100, 1),
            burst: number(o.stream_creation_burst, "DoSStreamCreationBurst", 300, 1),
            defense: match number(o.stream_creation_defense_type, "DoSStreamCreationDefenseType", 2, 1) {
                1 => StreamDefense::Nothing,
                3 => StreamDefense::CloseCircuit,
                _ => StreamDefense::Refuse,
            },
        };
        Self {
            circuits: on(o.circuit_creation_enabled, "DoSCircuitCreationEnabled").then(circuits),
            connections: on(o.connection_enabled, "DoSConnectionEnabled").then(connections),
            streams: on(o.stream_creation_enabled, "DoSStreamCreationEnabled").then(streams),
            refuse_single_hop_rendezvous: on(
                o.refuse_single_hop_client_rendezvous,
                "DoSRefuseSingleHopClientRendezvous",
            ),
            full_queues_max: parameters.clamped("dos_num_circ_max_outq", 3, 0, i32::MAX) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, i32)]) -> Parameters {
        Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    #[test]
    fn torrc_counts_before_the_consensus_and_the_consensus_before_the_default() {
        let silent = DosRules::of(&DosOptions::default(), &Parameters::default());
        assert_eq!(
            (silent.circuits, silent.connections, silent.streams),
            (None, None, None)
        );
        let network = parameters(&[("DoSCircuitCreationEnabled", 1), ("DoSCircuitCreationRate", 2)]);
        let of_network = DosRules::of(&DosOptions::default(), &network).circuits.unwrap();
        assert_eq!((of_network.rate, of_network.burst, of_network.refuses), (2, 90, true));
        let own = DosOptions {
            circuit_creation_rate: Some(7),
            circuit_creation_burst: Some(0),
            circuit_creation_defense_type: Some(1),
            ..DosOptions::default()
        };
        let own_words = DosRules::of(&own, &network).circuits.unwrap();
        assert_eq!((own_words.rate, own_words.burst, own_words.refuses), (7, 90, false));
        let off = DosOptions {
            circuit_creation_enabled: Some(false),
            ..own
        };
        assert_eq!(DosRules::of(&off, &network).circuits, None);
    }

    /// Consensus parameters are forced into bounds: nobody divides by them.
    #[test]
    fn no_value_of_a_parameter_makes_a_rule_of_zero() {
        for value in [i32::MIN, -1, 0, i32::MAX] {
            let names = [
                "DoSCircuitCreationRate",
                "DoSCircuitCreationBurst",
                "DoSConnectionConnectRate",
                "DoSConnectionConnectDefenseTimePeriod",
                "DoSStreamCreationBurst",
            ];
            let mut pairs: Vec<_> = names.map(|name| (name, value)).into();
            pairs.extend([
                ("DoSCircuitCreationEnabled", 1),
                ("DoSConnectionEnabled", 1),
                ("DoSStreamCreationEnabled", 1),
            ]);
            let rules = DosRules::of(&DosOptions::default(), &parameters(&pairs));
            assert!(rules.circuits.unwrap().rate >= 1 && rules.circuits.unwrap().burst >= 1);
            assert!(rules.connections.unwrap().rate >= 1);
            assert!(rules.connections.unwrap().period >= Duration::from_secs(10));
            assert!(rules.streams.unwrap().burst >= 1);
        }
    }
}
