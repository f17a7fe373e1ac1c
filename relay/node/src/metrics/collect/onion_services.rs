//! What became of the cells of onion services and their clients.

use relay_engine::Tally;

use super::super::exposition::{Exposition, Kind};

pub(super) fn write(text: &mut Exposition, tally: &Tally) {
    let seen = &tally.onion_services;
    let mut family = |name, help, actions: &[(&'static str, u64)]| {
        let mut family = text.family(name, Kind::Counter, help);
        for (action, count) in actions {
            family.sample(&[("action", action)], *count);
        }
    };
    family(
        "tor_relay_est_intro_total",
        "Total number of EST_INTRO cells we received",
        &[
            ("success", seen.est_intro_success),
            ("malformed", seen.est_intro_malformed),
            ("unsuitable_circuit", seen.est_intro_unsuitable_circuit),
            ("circuit_dead", seen.est_intro_circuit_dead),
        ],
    );
    family(
        "tor_relay_est_rend_total",
        "Total number of EST_REND cells we received",
        &[
            ("success", seen.est_rend_success),
            ("unsuitable_circuit", seen.est_rend_unsuitable_circuit),
            ("single_hop", seen.est_rend_single_hop),
            ("malformed", seen.est_rend_malformed),
            ("duplicate_cookie", seen.est_rend_duplicate_cookie),
            ("circuit_dead", seen.est_rend_circuit_dead),
        ],
    );
    family(
        "tor_relay_intro1_total",
        "Total number of INTRO1 cells we received",
        &[
            ("success", seen.intro1_success),
            ("circuit_dead", seen.intro1_circuit_dead),
            ("malformed", seen.intro1_malformed),
            ("unknown_service", seen.intro1_unknown_service),
            ("rate_limited", seen.intro1_rate_limited),
            ("circuit_reused", seen.intro1_circuit_reused),
            ("single_hop", seen.intro1_single_hop),
        ],
    );
    family(
        "tor_relay_rend1_total",
        "Total number of REND1 cells we received",
        &[
            ("success", seen.rend1_success),
            ("unsuitable_circuit", seen.rend1_unsuitable_circuit),
            ("malformed", seen.rend1_malformed),
            ("unknown_cookie", seen.rend1_unknown_cookie),
            ("circuit_dead", seen.rend1_circuit_dead),
        ],
    );
}
