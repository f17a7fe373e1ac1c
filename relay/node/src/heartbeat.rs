//! The heartbeat: every some hours (torrc `HeartbeatPeriod`) lines in the log that say that the relay lives, in C tor's words.
//! Sums only; nothing of any user.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use relay_engine::Tally;
use relay_formats::facts::Accounting;
use relay_formats::torrc::AccountingRule;
use tokio::sync::watch;

use crate::accounting::period::local_text;
use crate::config::Config;
use crate::metrics::counters::{Began, Kind};
use crate::shards::{self, Mailbox};
use crate::status::Board;
use crate::traffic::Traffic;

/// What a beat tells of.
pub struct Heart {
    /// torrc.
    pub config: watch::Receiver<Arc<Config>>,
    /// Whom to ask what the engine has counted.
    pub shards: Vec<Mailbox>,
    /// Bytes and connections.
    pub traffic: Arc<Traffic>,
    /// Standing and quota.
    pub board: Arc<Board>,
}

/// Beats for as long as the relay lives.
pub async fn run(mut heart: Heart) {
    let mut before = Tally::default();
    loop {
        let period = heart.config.borrow_and_update().heartbeat_period;
        // Without a heartbeat we only wait for a new torrc.
        let rest = tokio::time::sleep(period.unwrap_or(Duration::MAX));
        tokio::select! {
            () = rest => before = beat(&heart, &before).await,
            changed = heart.config.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
        }
    }
}

async fn beat(heart: &Heart, before: &Tally) -> Tally {
    let Some(tally) = shards::tally(&heart.shards).await else {
        tracing::warn!("Heartbeat: a shard does not answer.");
        return before.clone();
    };
    let now = SystemTime::now();
    let uptime = now.duration_since(heart.board.started_at()).unwrap_or_default();
    tracing::info!("{}", life(uptime, &tally, &heart.traffic));
    let (accounting, consensus) = heart.board.quota_and_consensus();
    if consensus.is_some_and(|consensus| consensus.listed.is_none()) {
        tracing::info!("Heartbeat: It seems like we are not in the cached consensus.");
    }
    let quota = heart.config.borrow().accounting;
    if let (Some(accounting), Some(quota)) = (accounting, quota) {
        tracing::info!("{}", books(&accounting, quota.rule, now, &TimeZone::system()));
    }
    tracing::info!("{}", handshakes(&tally, before));
    tracing::info!("{}", defences(&tally));
    tally
}

fn life(uptime: Duration, tally: &Tally, traffic: &Traffic) -> String {
    let (read, written) = traffic.sums();
    let created = |began, ipv6| traffic.connections.seen(Kind::Or, began, ipv6).created;
    format!(
        "Heartbeat: Tor's uptime is {}, with {} circuits open. I've sent {} and received {}. I've received {} connections on \
         IPv4 and {} on IPv6. I've made {} connections with IPv4 and {} with IPv6.",
        hours(uptime),
        tally.circuits_open,
        usage(written),
        usage(read),
        created(Began::Peer, false),
        created(Began::Peer, true),
        created(Began::Us, false),
        created(Began::Us, true)
    )
}

fn books(accounting: &Accounting, rule: AccountingRule, now: SystemTime, zone: &TimeZone) -> String {
    let ends = accounting.interval_ends_at.0;
    let rule = match rule {
        AccountingRule::Max => "max",
        AccountingRule::Sum => "sum",
        AccountingRule::In => "in",
        AccountingRule::Out => "out",
    };
    format!(
        "Heartbeat: Accounting enabled. Sent: {}, Received: {}, Used: {} / {}, Rule: {rule}. The current accounting interval \
         ends on {}, in {}.",
        usage(accounting.bytes_written),
        usage(accounting.bytes_read),
        usage(accounting.bytes_used),
        usage(accounting.bytes_max),
        local_text(ends, zone),
        hours(ends.duration_since(now).unwrap_or_default())
    )
}

fn handshakes(tally: &Tally, before: &Tally) -> String {
    let since = |now: u64, before: u64| now.saturating_sub(before);
    let ntor = since(tally.onionskins_ntor, before.onionskins_ntor);
    let v3 = since(tally.onionskins_ntor_v3, before.onionskins_ntor_v3);
    let dropped = since(tally.onionskins_dropped, before.onionskins_dropped);
    let ntor_dropped = since(tally.onionskins_ntor_dropped, before.onionskins_ntor_dropped);
    format!(
        "Circuit handshake stats since last time: 0/0 TAP, {ntor}/{} NTor, {v3}/{} NTor (v3).",
        ntor + ntor_dropped,
        v3 + dropped.saturating_sub(ntor_dropped)
    )
}

fn defences(tally: &Tally) -> String {
    format!(
        "Heartbeat: DoS mitigation since startup: {} circuits killed with too many cells, {} circuits rejected, {} marked \
         addresses, {} marked addresses for max queue, {} same address concurrent connections rejected, {} connections \
         rejected, {} single hop clients refused, {} INTRODUCE2 rejected.",
        tally.dos_circuits_killed_max_cell,
        tally.dos_circuits_rejected,
        tally.dos_addresses_marked,
        tally.dos_addresses_marked_maxq,
        tally.dos_concurrent_connections_rejected,
        tally.dos_connections_rejected,
        tally.dos_single_hop_refused,
        tally.dos_introduce2_rejected
    )
}

fn hours(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
    match days {
        0 => format!("{hours}:{minutes:02} hours"),
        1 => format!("1 day {hours}:{minutes:02} hours"),
        days => format!("{days} days {hours}:{minutes:02} hours"),
    }
}

fn usage(bytes: u64) -> String {
    const MEGABYTE: u64 = 1 << 20;
    const GIGABYTE: u64 = 1 << 30;
    match bytes {
        GIGABYTE.. => format!("{:.2} GB", bytes as f64 / GIGABYTE as f64),
        MEGABYTE.. => format!("{:.2} MB", bytes as f64 / MEGABYTE as f64),
        _ => format!("{} kB", bytes / 1_024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_amounts_are_said_as_c_tor_says_them() {
        let minutes = |minutes: u64| hours(Duration::from_secs(60 * minutes));
        assert_eq!(minutes(0), "0:00 hours");
        assert_eq!(minutes(6 * 60), "6:00 hours");
        assert_eq!(minutes(25 * 60 + 5), "1 day 1:05 hours");
        assert_eq!(minutes(48 * 60), "2 days 0:00 hours");
        assert_eq!(usage(1 << 19), "512 kB");
        assert_eq!(usage(3 << 19), "1.50 MB");
        assert_eq!(usage(5 << 29), "2.50 GB");
    }

    #[test]
    fn a_beat_tells_sums_and_nobodys_address() {
        let traffic = Traffic::default();
        traffic.note_read(3 << 20);
        let address = "192.0.2.77".parse().unwrap();
        let _open = traffic.connections.open(Kind::Or, Began::Peer, address);
        let tally = Tally {
            circuits_open: 4,
            onionskins_ntor: 9,
            onionskins_ntor_dropped: 1,
            onionskins_dropped: 3,
            ..Tally::default()
        };
        assert_eq!(
            life(Duration::from_secs(6 * 3_600), &tally, &traffic),
            "Heartbeat: Tor's uptime is 6:00 hours, with 4 circuits open. I've sent 0 kB and received 3.00 MB. I've received 1 \
             connections on IPv4 and 0 on IPv6. I've made 0 connections with IPv4 and 0 with IPv6."
        );
        let before = Tally {
            onionskins_ntor: 4,
            ..Tally::default()
        };
        assert_eq!(
            handshakes(&tally, &before),
            "Circuit handshake stats since last time: 0/0 TAP, 5/6 NTor, 0/2 NTor (v3)."
        );
    }
}
