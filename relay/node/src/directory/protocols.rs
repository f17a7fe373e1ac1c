//! The subprotocols that our relay speaks, and what we make of those that the network asks for.

use crate::config::Config;
use crate::netdoc::{BadDocument, Consensus};

/// What we speak always; [`spoken`] adds what torrc may turn off (tor-spec, "Subprotocol versioning"). Whoever builds
/// another one adds it here.
///
/// An authority lists a relay whatever it says: it puts the `proto` line into its vote and compares it with no list (C tor,
/// `dirvote.c`); only clients choose by it.
const SPOKEN: &str =
    "Cons=1-2 Desc=1-4 FlowCtrl=1-2 HSIntro=4-5 HSRend=1-2 Link=3-5 LinkAuth=3 Microdesc=1-3 Relay=2-6";

/// What hangs on torrc `ConfluxEnabled`.
const WITH_CONFLUX: &str = "Conflux=1";

/// What hangs on torrc `CircuitPadding`.
const WITH_PADDING: &str = "Padding=2";

/// What hangs on torrc `DirCache`.
const WITH_CACHE: &str = "DirCache=2 HSDir=2";

/// The `proto` line of our descriptor: exactly what is built and not turned off, sorted.
pub fn spoken(config: &Config) -> String {
    let by_choice = [
        (config.directory.cache, WITH_CACHE),
        (config.extras.conflux != Some(false), WITH_CONFLUX),
        (config.extras.circuit_padding, WITH_PADDING),
    ];
    let chosen = by_choice.iter().filter(|(chosen, _)| *chosen);
    let mut all: Vec<&str> = SPOKEN
        .split(' ')
        .chain(chosen.flat_map(|(_, words)| words.split(' ')))
        .collect();
    all.sort_unstable();
    all.join(" ")
}

/// What relays were required to speak when this was written, and we do not with every torrc. C tor ends itself when it lacks
/// a protocol that was required after its release date; this list is our release date. It may only become shorter.
const LACKING_KNOWN: [&str; 2] = ["DirCache=2", "HSDir=2"];

/// What a consensus makes us do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    Met,
    /// Tell the owner.
    Warn(String),
    /// Tell the owner and stop: the network has moved on and this build would harm it.
    Stop(String),
}

/// Compares what a consensus asks of relays with what we speak (tor-spec, "Required protocols").
pub fn demand(consensus: &Consensus, config: &Config) -> Result<Demand, BadDocument> {
    let missing = consensus.missing_protocols(&spoken(config))?;
    Ok(verdict(&missing.required, &missing.recommended))
}

fn verdict(required: &str, recommended: &str) -> Demand {
    let news: Vec<&str> = required
        .split_whitespace()
        .filter(|one| !LACKING_KNOWN.contains(one))
        .collect();
    if !news.is_empty() {
        return Demand::Stop(format!(
            "At least one protocol listed as required in the consensus is not supported by this version of relay. You \
             should upgrade. This version will not work as a relay on the Tor network. The missing protocols are: {}",
            news.join(" ")
        ));
    }
    if !required.is_empty() {
        return Demand::Warn(format!(
            "Protocols that the consensus requires of relays are not built yet or turned off: {required}. Clients will not use this \
             relay for what needs them."
        ));
    }
    match recommended {
        "" => Demand::Met,
        missing => Demand::Warn(format!(
            "At least one protocol listed as recommended in the consensus is not supported by this version of relay. \
             You should upgrade. The missing protocols are: {missing}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_name_exactly_what_we_speak() {
        let page = include_str!("../../../../docs/subprotocols.md");
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let documented: Vec<&str> = rows.collect();
        let all = [SPOKEN, WITH_CACHE, WITH_CONFLUX, WITH_PADDING];
        let mut spoken: Vec<&str> = all.iter().flat_map(|words| words.split(' ')).collect();
        spoken.sort_unstable();
        assert_eq!(documented, spoken);
    }

    #[test]
    fn what_is_known_to_be_unbuilt_is_told_and_no_reason_to_stop() {
        let demand = verdict("DirCache=2 HSDir=2", "");
        assert!(matches!(demand, Demand::Warn(text) if text.contains("HSDir=2")));
    }

    #[test]
    fn a_demand_of_tomorrow_stops_the_relay() {
        let demand = verdict("DirCache=2 Relay=7", "");
        assert!(matches!(demand, Demand::Stop(text) if text.ends_with("are: Relay=7")));
    }

    #[test]
    fn a_recommendation_is_only_told() {
        assert_eq!(verdict("", ""), Demand::Met);
        assert!(matches!(verdict("", "Conflux=2"), Demand::Warn(_)));
    }
}
