//! Which floods there are, how strong each is, and what C tor counts of it.

/// One flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    /// What there is too much of, in a few words.
    pub(super) what: &'static str,
    /// What the lean load is told.
    pub(super) load: &'static [&'static str],
    pub(super) seconds: u64,
    /// Lines of `tor_relay_dos_total` that must move, in C tor as in ours.
    pub(super) counters: &'static [&'static str],
    /// Whether the relay must close all its links by itself within the time.
    pub(super) closes_all: bool,
}

/// Address by address they stay below what makes an address suspicious where the flood is meant to get in, and above it
/// where it is meant to be turned away.
pub(super) const FLOODS: [Flood; 9] = [
    Flood {
        name: "circuits",
        what: "CREATE_FAST and DESTROY without end, 5 links from each of 10 addresses",
        load: &["circuits", "--sources", "10", "--links", "5", "--circuits", "40"],
        seconds: 15,
        counters: &["circuit_rejected", "marked_address"],
        closes_all: false,
    },
    Flood {
        name: "onionskins",
        what: "CREATE2 without end, 2 links from each of 4 addresses: too few for a mark",
        load: &["onionskins", "--sources", "4", "--links", "2", "--circuits", "0"],
        seconds: 15,
        counters: &[],
        closes_all: false,
    },
    Flood {
        name: "connections",
        what: "60 connections from each of 20 addresses, made anew when closed, 2,000 a second",
        load: &["connections", "--sources", "20", "--links", "60", "--rate", "2000"],
        seconds: 15,
        counters: &["conn_rejected"],
        closes_all: false,
    },
    Flood {
        name: "half-open",
        what: "4,940 link handshakes that stop, from 130 addresses",
        load: &["half-open", "--sources", "130", "--links", "38", "--rate", "1000"],
        // A minute from the moment that the relay accepts the last one, which a busy machine may put off by some tries of TCP.
        seconds: 100,
        counters: &[],
        closes_all: true,
    },
    Flood {
        name: "streams",
        what: "BEGIN without end, 16 circuits of 20 streams from a relay",
        load: &[
            "streams",
            "--sources",
            "1",
            "--links",
            "2",
            "--circuits",
            "8",
            "--streams",
            "20",
        ],
        seconds: 15,
        counters: &["stream_rejected"],
        closes_all: false,
    },
    Flood {
        name: "directory",
        what: "documents without end, 512 streams on 16 links",
        load: &[
            "directory",
            "--sources",
            "8",
            "--links",
            "2",
            "--circuits",
            "4",
            "--streams",
            "8",
        ],
        seconds: 15,
        counters: &[],
        closes_all: false,
    },
    Flood {
        name: "sniper",
        what: "46,080 documents asked for and never read, 768 circuits on 48 links",
        load: &[
            "sniper",
            "--sources",
            "24",
            "--links",
            "2",
            "--circuits",
            "16",
            "--streams",
            "60",
        ],
        seconds: 20,
        counters: &[],
        closes_all: false,
    },
    Flood {
        name: "hoard",
        what: "2,400 cells on each of 384 circuits to a relay that never reads",
        load: &[
            "hoard",
            "--sources",
            "24",
            "--links",
            "2",
            "--circuits",
            "8",
            "--cells",
            "2400",
        ],
        seconds: 20,
        counters: &[],
        closes_all: false,
    },
    Flood {
        name: "queues",
        what: "2,600 cells on each of 32 circuits to a relay that never reads: more than a queue holds",
        load: &[
            "hoard",
            "--sources",
            "4",
            "--links",
            "1",
            "--circuits",
            "8",
            "--cells",
            "2600",
        ],
        seconds: 10,
        counters: &["circuit_killed_max_cell_outq", "marked_address_maxq"],
        closes_all: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_chosen_by_their_names() {
        let mut names: Vec<_> = FLOODS.iter().map(|flood| flood.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FLOODS.len());
    }
}
