//! Counters of the whole process, raised by its threads.
//!
//! Sums and levels only; nothing per peer, user or destination.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a connection is for, as C tor calls it in `tor_relay_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Listens on an ORPort.
    OrListener,
    /// A link: TLS with a client or relay.
    Or,
    /// Carries a stream to its destination.
    Exit,
    /// Listens on a MetricsPort.
    MetricsListener,
    /// Somebody reads the metrics.
    Metrics,
}

impl Kind {
    /// All of them, in C tor's order.
    pub const ALL: [Self; 5] = [
        Self::OrListener,
        Self::Or,
        Self::Exit,
        Self::MetricsListener,
        Self::Metrics,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::OrListener => "OR listener",
            Self::Or => "OR",
            Self::Exit => "Exit",
            Self::MetricsListener => "Metrics listener",
            Self::Metrics => "Metrics",
        }
    }
}

/// Who began a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// We did. Listeners count here too, as in C tor.
    Us,
    /// The other side did.
    Peer,
}

impl Began {
    /// Both, in C tor's order.
    pub const ALL: [Self; 2] = [Self::Us, Self::Peer];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Us => "initiated",
            Self::Peer => "received",
        }
    }
}

/// Counts for one kind, beginner and family of addresses.
#[derive(Debug, Default)]
struct Cell {
    created: AtomicU64,
    rejected: AtomicU64,
    opened: AtomicU64,
}

/// What was counted of one kind, beginner and family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Since the start.
    pub created: u64,
    /// Turned away since the start.
    pub rejected: u64,
    /// Open now.
    pub opened: u64,
}

const FAMILIES: usize = 2;

/// Connections of the whole relay. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    cells: Arc<[Cell; Kind::ALL.len() * Began::ALL.len() * FAMILIES]>,
}

impl Connections {
    /// Counts a connection that is open from now on, until what comes back is dropped.
    pub fn open(&self, kind: Kind, began: Began, address: IpAddr) -> OpenConnection {
        let at = place(kind, began, address.is_ipv6());
        if let Some(cell) = self.cells.get(at) {
            cell.created.fetch_add(1, Ordering::Relaxed);
            cell.opened.fetch_add(1, Ordering::Relaxed);
        }
        OpenConnection {
            connections: self.clone(),
            at,
        }
    }

    /// Counts a connection that was turned away.
    pub fn reject(&self, kind: Kind, address: IpAddr) {
        if let Some(cell) = self.cells.get(place(kind, Began::Peer, address.is_ipv6())) {
            cell.rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts of one kind, beginner and family.
    pub fn seen(&self, kind: Kind, began: Began, ipv6: bool) -> Seen {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cell = self.cells.get(place(kind, began, ipv6));
        cell.map_or(Seen::default(), |cell| Seen {
            created: read(&cell.created),
            rejected: read(&cell.rejected),
            opened: read(&cell.opened),
        })
    }

    /// Sockets of all kinds that are open now.
    pub fn opened(&self) -> u64 {
        let cells = self.cells.iter();
        cells.map(|cell| cell.opened.load(Ordering::Relaxed)).sum()
    }
}

fn place(kind: Kind, began: Began, ipv6: bool) -> usize {
    (kind as usize * Began::ALL.len() + began as usize) * FAMILIES + usize::from(ipv6)
}

/// One connection among those that are open; dropped when it ends.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Connections,
    at: usize,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(cell) = self.connections.cells.get(self.at) {
            cell.opened.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How a question to the DNS ended, by C tor's names for what its resolver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsOutcome {
    /// An answer.
    Success,
    /// The server understood nothing (FORMERR).
    Format,
    /// The server failed (SERVFAIL).
    ServerFailed,
    /// There is no such name (NXDOMAIN).
    NotExist,
    /// The server does not do this (NOTIMP).
    NotImplemented,
    /// The server does not want to (REFUSED).
    Refused,
    /// Cut short.
    Truncated,
    /// Something else.
    Unknown,
    /// No answer in time.
    Timeout,
    /// We stopped meanwhile.
    Shutdown,
    /// Nobody wanted the answer any more.
    Cancel,
    /// The name is there, but has no address (NODATA).
    NoData,
}

impl DnsOutcome {
    /// All of them, in C tor's order.
    pub const ALL: [Self; 12] = [
        Self::Success,
        Self::Format,
        Self::ServerFailed,
        Self::NotExist,
        Self::NotImplemented,
        Self::Refused,
        Self::Truncated,
        Self::Unknown,
        Self::Timeout,
        Self::Shutdown,
        Self::Cancel,
        Self::NoData,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Format => "format",
            Self::ServerFailed => "serverfailed",
            Self::NotExist => "notexist",
            Self::NotImplemented => "notimpl",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::Unknown => "unknown",
            Self::Timeout => "tor_timeout",
            Self::Shutdown => "shutdown",
            Self::Cancel => "cancel",
            Self::NoData => "nodata",
        }
    }
}

/// Questions to the DNS and how they ended.
#[derive(Debug, Default)]
pub struct DnsCounts {
    queries: AtomicU64,
    outcomes: [AtomicU64; DnsOutcome::ALL.len()],
}

impl DnsCounts {
    /// A question went out. What the cache answers is none.
    pub fn note_query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// It ended.
    pub fn note_outcome(&self, outcome: DnsOutcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Questions since the start.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Those that ended so, since the start.
    pub fn outcomes(&self, outcome: DnsOutcome) -> u64 {
        let counter = self.outcomes.get(outcome as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// Signs that the relay is asked for more than it has.
#[derive(Debug, Default)]
pub struct LoadCounts {
    /// Times that a connection failed for want of local ports (EADDRNOTAVAIL).
    pub tcp_ports_exhausted: AtomicU64,
    /// Times that there was no file descriptor left (EMFILE, ENFILE).
    pub descriptors_exhausted: AtomicU64,
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn a_connection_that_ends_was_still_created() {
        let connections = Connections::default();
        let one = connections.open(Kind::Or, Began::Peer, V4);
        let other = connections.clone().open(Kind::Or, Began::Peer, V4);
        assert_eq!(connections.seen(Kind::Or, Began::Peer, false).opened, 2);
        drop(one);
        let seen = connections.seen(Kind::Or, Began::Peer, false);
        assert_eq!((seen.created, seen.opened, connections.opened()), (2, 1, 1));
        drop(other);
        assert_eq!(connections.opened(), 0);
    }

    #[test]
    fn each_kind_beginner_and_family_counts_for_itself() {
        let connections = Connections::default();
        let mut held = Vec::new();
        for kind in Kind::ALL {
            for began in Began::ALL {
                held.push(connections.open(kind, began, V4));
                held.push(connections.open(kind, began, V6));
            }
            connections.reject(kind, V6);
        }
        for kind in Kind::ALL {
            for (began, ipv6) in [
                (Began::Us, false),
                (Began::Us, true),
                (Began::Peer, false),
                (Began::Peer, true),
            ] {
                let rejected = u64::from(began == Began::Peer && ipv6);
                let wanted = Seen {
                    created: 1,
                    rejected,
                    opened: 1,
                };
                assert_eq!(connections.seen(kind, began, ipv6), wanted, "{kind:?} {began:?} {ipv6}");
            }
        }
    }

    #[test]
    fn an_outcome_of_the_dns_counts_under_its_own_name() {
        let dns = DnsCounts::default();
        dns.note_query();
        for outcome in DnsOutcome::ALL {
            dns.note_outcome(outcome);
        }
        assert_eq!(DnsOutcome::ALL.map(|outcome| dns.outcomes(outcome)), [1; 12]);
        assert_eq!(dns.queries(), 1);
    }
}
