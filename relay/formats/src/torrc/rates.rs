//! `BandwidthRate` and its kin, with the rules that C tor has between them (`relay_config.c`).

use super::reading::Reading;
use super::{Bandwidth, LinkBandwidth, RelayedBandwidth, TorrcError, values};

/// Least rate of a relay (C tor, `RELAY_REQUIRED_MIN_BANDWIDTH`), bytes a second.
const RATE_MIN: u64 = 75 * 1024;
/// Greatest rate or burst (C tor, `ROUTER_MAX_DECLARED_BANDWIDTH`).
const RATE_MAX: u64 = i32::MAX as u64;
const GIGABYTE: u64 = 1 << 30;

impl Reading {
    pub(super) fn bandwidth(&mut self) -> Bandwidth {
        let mut amount = |name| self.last(name, rate_in_range);
        let rate = amount("BandwidthRate");
        let burst = amount("BandwidthBurst");
        let relay_rate = amount("RelayBandwidthRate").filter(|rate| *rate > 0);
        let relay_burst = amount("RelayBandwidthBurst").filter(|burst| *burst > 0);
        let advertised_max = amount("MaxAdvertisedBandwidth").unwrap_or(GIGABYTE);
        let link = LinkBandwidth {
            bytes_per_second_max: amount("PerConnBWRate").filter(|rate| *rate > 0),
            bytes_burst_max: amount("PerConnBWBurst").filter(|burst| *burst > 0),
        };

        self.floor("BandwidthRate", rate, RATE_MIN);
        self.floor("RelayBandwidthRate", relay_rate, RATE_MIN);
        self.floor("MaxAdvertisedBandwidth", Some(advertised_max), RATE_MIN / 2);
        let relayed = relay_rate.or(relay_burst).map(|bytes_per_second_max| RelayedBandwidth {
            bytes_per_second_max,
            bytes_burst_max: relay_burst.unwrap_or(bytes_per_second_max),
        });
        if let Some(relayed) = relayed {
            let RelayedBandwidth {
                bytes_per_second_max,
                bytes_burst_max,
            } = relayed;
            self.burst_covers_rate(
                "RelayBandwidthBurst",
                bytes_burst_max,
                "RelayBandwidthRate",
                bytes_per_second_max,
            );
            if relay_rate.is_none() {
                self.floor("RelayBandwidthBurst", relay_burst, RATE_MIN);
            }
        }
        let least_rate = relayed.map_or(0, |relayed| relayed.bytes_per_second_max);
        let least_burst = relayed.map_or(0, |relayed| relayed.bytes_burst_max);
        let bandwidth = Bandwidth {
            bytes_per_second_max: rate.unwrap_or(GIGABYTE).max(least_rate),
            bytes_burst_max: burst.unwrap_or(GIGABYTE).max(least_burst),
            relayed,
            advertised_max,
            link,
        };
        let Bandwidth {
            bytes_per_second_max,
            bytes_burst_max,
            ..
        } = bandwidth;
        self.burst_covers_rate("BandwidthBurst", bytes_burst_max, "BandwidthRate", bytes_per_second_max);
        bandwidth
    }

    fn floor(&mut self, name: &str, rate: Option<u64>, floor: u64) {
        if let (Some(rate), Some(at)) = (rate, self.place(name))
            && rate < floor
        {
            self.error(
                at,
                format!("{name}: a relay needs at least {floor} bytes a second, found {rate}"),
            );
        }
    }

    fn burst_covers_rate(&mut self, burst_name: &str, burst: u64, rate_name: &str, rate: u64) {
        if burst < rate {
            let place = self.place(burst_name).max(self.place(rate_name));
            let message = format!("{burst_name} ({burst} bytes) must not be below {rate_name} ({rate} bytes)");
            self.errors.push(TorrcError { place, message });
        }
    }
}

fn rate_in_range(text: &str) -> Result<u64, String> {
    match values::bytes(text)? {
        // Who writes 2 GB means the most there is.
        amount if amount == RATE_MAX + 1 => Ok(RATE_MAX),
        amount if amount > RATE_MAX => Err(format!("at most {RATE_MAX} bytes a second, found {amount}")),
        amount => Ok(amount),
    }
}
