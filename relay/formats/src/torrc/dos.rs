//! `DoS*` and `MaxMemInQueues`: how the relay stands up to floods.

use std::time::Duration;

use super::reading::Reading;
use super::values;

/// Less than this is taken for this (C tor `compute_real_max_mem_in_queues`).
const QUEUES_BYTES_MIN: u64 = 64 << 20;
/// Less than this is worth a warning.
const QUEUES_BYTES_ADVISED: u64 = 256 << 20;

/// The `DoS*` options. A switch that is `None` is `auto`; a number that is left open, or 0, is the consensus's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are torrc's own, without the prefix")]
pub struct DosOptions {
    pub circuit_creation_enabled: Option<bool>,
    pub circuit_creation_min_connections: Option<u32>,
    pub circuit_creation_rate: Option<u32>,
    pub circuit_creation_burst: Option<u32>,
    pub circuit_creation_defense_type: Option<u32>,
    pub circuit_creation_defense_time_period: Option<Duration>,
    pub connection_enabled: Option<bool>,
    pub connection_max_concurrent_count: Option<u32>,
    pub connection_defense_type: Option<u32>,
    pub connection_connect_rate: Option<u32>,
    pub connection_connect_burst: Option<u32>,
    pub connection_connect_defense_time_period: Option<Duration>,
    pub stream_creation_enabled: Option<bool>,
    pub stream_creation_rate: Option<u32>,
    pub stream_creation_burst: Option<u32>,
    pub stream_creation_defense_type: Option<u32>,
    pub refuse_single_hop_client_rendezvous: Option<bool>,
}

impl Reading {
    pub(super) fn dos(&mut self) -> DosOptions {
        let switch = |this: &mut Self, name| this.last(name, values::switch_or_auto).flatten();
        let number = |this: &mut Self, name| this.last(name, number);
        let period = |this: &mut Self, name| this.last(name, values::interval);
        DosOptions {
            circuit_creation_enabled: switch(self, "DoSCircuitCreationEnabled"),
            circuit_creation_min_connections: number(self, "DoSCircuitCreationMinConnections"),
            circuit_creation_rate: number(self, "DoSCircuitCreationRate"),
            circuit_creation_burst: number(self, "DoSCircuitCreationBurst"),
            circuit_creation_defense_type: number(self, "DoSCircuitCreationDefenseType"),
            circuit_creation_defense_time_period: period(self, "DoSCircuitCreationDefenseTimePeriod"),
            connection_enabled: switch(self, "DoSConnectionEnabled"),
            connection_max_concurrent_count: number(self, "DoSConnectionMaxConcurrentCount"),
            connection_defense_type: number(self, "DoSConnectionDefenseType"),
            connection_connect_rate: number(self, "DoSConnectionConnectRate"),
            connection_connect_burst: number(self, "DoSConnectionConnectBurst"),
            connection_connect_defense_time_period: period(self, "DoSConnectionConnectDefenseTimePeriod"),
            stream_creation_enabled: switch(self, "DoSStreamCreationEnabled"),
            stream_creation_rate: number(self, "DoSStreamCreationRate"),
            stream_creation_burst: number(self, "DoSStreamCreationBurst"),
            stream_creation_defense_type: number(self, "DoSStreamCreationDefenseType"),
            refuse_single_hop_client_rendezvous: switch(self, "DoSRefuseSingleHopClientRendezvous"),
        }
    }

    /// `MaxMemInQueues`; `None` leaves it to the machine's memory.
    pub(super) fn max_mem_in_queues(&mut self) -> Option<u64> {
        let bytes = self.last("MaxMemInQueues", values::bytes).filter(|bytes| *bytes > 0)?;
        if let Some(at) = self.place("MaxMemInQueues").filter(|_| bytes < QUEUES_BYTES_ADVISED) {
            let megabytes = bytes.max(QUEUES_BYTES_MIN) >> 20;
            self.warn(
                at,
                format!("MaxMemInQueues: {megabytes} MB are few; a relay that is used needs 256 MB or more"),
            );
        }
        Some(bytes.max(QUEUES_BYTES_MIN))
    }
}

fn number(text: &str) -> Result<u32, String> {
    let number: Option<u32> = text.parse().ok();
    let number = number.filter(|number| *number <= i32::MAX as u32);
    number.ok_or_else(|| format!("expected a number from 0 to 2147483647, found `{text}`"))
}
