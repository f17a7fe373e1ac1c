//! `tor_relay_congestion_control` and `tor_relay_congestion_control_total`.

use relay_engine::Tally;
use relay_engine::flow::Mean;

use super::super::exposition::{Exposition, Kind};

/// Counts, and means of what has been seen at all.
pub(super) fn write(text: &mut Exposition, tally: &Tally) {
    means(text, tally);
    counts(text, tally);
}

/// A mean of nothing is left out: C tor says 0 then.
fn means(text: &mut Exposition, tally: &Tally) {
    let seen = &tally.congestion;
    let means: [(&'static str, &'static str, &Mean); 17] = [
        ("slow_start_exit", "cwnd", &seen.exit_cwnd),
        ("slow_start_exit", "bdp", &seen.exit_bdp),
        ("slow_start_exit", "inc", &seen.exit_increment),
        ("on_circ_close", "cwnd", &seen.close_cwnd),
        ("on_circ_close", "ss_cwnd", &seen.close_slow_start_cwnd),
        ("buffers", "xon_outbuf", &seen.xon_backlog_bytes),
        ("buffers", "xoff_outbuf", &seen.xoff_backlog_bytes),
        ("cc_backoff", "chan_blocked_pct", &seen.blocked_percent),
        ("cc_backoff", "gamma_drop", &seen.gamma_drop),
        ("cc_backoff", "delta_drop", &seen.delta_drop),
        ("cc_backoff", "ss_chan_blocked_pct", &seen.slow_start_blocked_percent),
        ("cc_cwnd_update", "alpha_pct", &seen.alpha_percent),
        ("cc_cwnd_update", "beta_pct", &seen.beta_percent),
        ("cc_cwnd_update", "delta_pct", &seen.delta_percent),
        ("cc_estimates", "ss_queue", &seen.slow_start_queue),
        ("cc_estimates", "queue", &seen.queue),
        ("cc_estimates", "bdp", &seen.bdp),
    ];
    if means.iter().all(|(_, _, mean)| mean.rounded().is_none()) {
        return;
    }
    let mut family = text.family(
        "tor_relay_congestion_control",
        Kind::Gauge,
        "Congestion control related gauges",
    );
    for (state, action, mean) in means {
        if let Some(value) = mean.rounded() {
            family.sample(&[("state", state), ("action", action)], value);
        }
    }
}

fn counts(text: &mut Exposition, tally: &Tally) {
    let seen = &tally.congestion;
    let mut family = text.family(
        "tor_relay_congestion_control_total",
        Kind::Counter,
        "Congestion control related counters",
    );
    for (state, action, count) in [
        ("starvation", "rtt_reset", seen.rtt_resets),
        ("clock_stalls", "rtt_skipped", seen.rtts_skipped),
        ("flow_control", "xoff_num_sent", tally.xoff_sent),
        ("flow_control", "xon_num_sent", tally.xon_sent),
        ("cc_limits", "above_delta", seen.above_delta),
        ("cc_limits", "above_ss_cwnd_max", seen.above_slow_start_max),
        ("cc_limits", "below_ss_inc_floor", seen.below_increment_floor),
        ("cc_circuits", "circs_created", tally.congestion_circuits_opened),
        ("cc_circuits", "circs_closed", tally.congestion_circuits_closed),
        ("cc_circuits", "circs_exited_ss", seen.slow_starts_ended),
    ] {
        family.sample(&[("state", state), ("action", action)], count);
    }
}
