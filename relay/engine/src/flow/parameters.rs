//! Consensus parameters of flow control, each with its default and bounds (param-spec, "Congestion control"; C tor
//! `congestion_control_common.c`, `_vegas.c`, `_flow.c`). Read once when a circuit is made; it keeps them for life.

use crate::network::Parameters;

/// Cells that fit one TLS record, from which the defaults are made (C tor `TLS_RECORD_MAX_CELLS`).
const RECORD_CELLS: i32 = 31;
/// Cells of one channel's output buffer, as the defaults see it.
const OUTBUF_CELLS: i32 = 2 * RECORD_CELLS;
/// Data bytes of a cell where an amount may be too small (format 1).
const CELL_BYTES_MIN: u64 = 488;
/// Data bytes of a cell where an amount may be too large (format 0).
const CELL_BYTES_MAX: u64 = 498;

/// Whether circuits may have congestion control: `cc_alg` 2, Vegas. 0 turns it off; 1 and 3 name algorithms that are gone
/// and count as 2, as in C tor.
pub fn congestion_control_enabled(parameters: &Parameters) -> bool {
    parameters.clamped("cc_alg", 2, 0, 3) != 0
}

/// Cells that one SENDME acknowledges on a circuit with CC: what the relay's half of the handshake tells the client.
pub fn sendme_increment_cells(parameters: &Parameters) -> u8 {
    u8::try_from(parameters.clamped("cc_sendme_inc", RECORD_CELLS, 1, 254)).unwrap_or(u8::MAX)
}

/// Which kind of path a circuit is; the parameters differ. C tor's relays take [`Path::Exit`] for every circuit that ends
/// with them; the others are what clients and services know of their own circuits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Three hops to an exit.
    Exit,
    /// Six hops to an onion service.
    Onion,
    /// Two hops of a bandwidth scanner.
    Sbws,
}

/// What Vegas needs to know. Amounts are cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VegasParameters {
    /// Acknowledged by one SENDME; 1 to 254.
    pub sendme_inc: u64,
    /// The window at birth; never below `cwnd_min` nor above `cwnd_max`.
    pub cwnd_init: u64,
    /// Never below `sendme_inc`, or no SENDME would ever come.
    pub cwnd_min: u64,
    /// Never below `cwnd_min`.
    pub cwnd_max: u64,
    /// A step in steady state.
    pub cwnd_inc: u64,
    /// Steps per window.
    pub cwnd_inc_rate: u64,
    /// Slow start's step, in per cent of `sendme_inc`.
    pub cwnd_inc_pct_ss: u64,
    /// How many `sendme_inc` may be free in a window that counts as full.
    pub cwnd_full_gap: u64,
    /// Below this per cent the window counts as unused.
    pub cwnd_full_minpct: u64,
    /// Whether fullness is forgotten once a window, or else at each step.
    pub cwnd_full_per_cwnd: bool,
    /// From here on slow start's step shrinks (RFC 3742).
    pub ss_cap: u64,
    /// Here slow start ends.
    pub ss_max: u64,
    /// Cells in queues below which the window grows.
    pub alpha: u64,
    /// Above which it shrinks.
    pub beta: u64,
    /// Which end slow start.
    pub gamma: u64,
    /// Above which it falls at once.
    pub delta: u64,
    /// Smoothing in steady state, in per cent of the steps of a window.
    pub ewma_cwnd_pct: u64,
    /// Smoothing at most.
    pub ewma_max: u64,
    /// Smoothing in slow start.
    pub ewma_ss: u64,
    /// How far the smallest RTT goes up when the window lies at its minimum, in per cent of the way; 100 is all of it.
    pub rtt_reset_pct: u64,
}

impl VegasParameters {
    /// From the consensus. `sendme_inc` is what the handshake of this circuit said: [`sendme_increment_cells`] of that time.
    pub fn read(parameters: &Parameters, path: Path, sendme_inc: u8) -> Self {
        let read = |name: &str, default, low, high| non_negative(parameters.clamped(name, default, low, high));
        let queue = |name: &str, outbufs: i32| non_negative(parameters.clamped(name, outbufs, 0, 1_000));
        let names = Names::of(path);
        let sendme_inc = u64::from(sendme_inc.max(1));
        let cwnd_min = read("cc_cwnd_min", 4 * RECORD_CELLS, RECORD_CELLS, 1_000).max(sendme_inc);
        let cwnd_max = read("cc_cwnd_max", i32::MAX, 500, i32::MAX).max(cwnd_min);
        Self {
            sendme_inc,
            cwnd_init: read("cc_cwnd_init", 4 * RECORD_CELLS, RECORD_CELLS, 10_000).clamp(cwnd_min, cwnd_max),
            cwnd_min,
            cwnd_max,
            cwnd_inc: read("cc_cwnd_inc", 1, 1, 1_000),
            cwnd_inc_rate: read("cc_cwnd_inc_rate", RECORD_CELLS, 1, 250),
            cwnd_inc_pct_ss: read("cc_cwnd_inc_pct_ss", 100, 1, 500),
            cwnd_full_gap: read("cc_cwnd_full_gap", 4, 0, i32::from(i16::MAX)),
            cwnd_full_minpct: read("cc_cwnd_full_minpct", 25, 0, 100),
            cwnd_full_per_cwnd: read("cc_cwnd_full_per_cwnd", 1, 0, 1) == 1,
            ss_cap: read(names.ss_cap.0, names.ss_cap.1, 100, i32::MAX),
            ss_max: read("cc_ss_max", 5_000, 500, i32::MAX),
            alpha: queue(names.alpha.0, names.alpha.1),
            beta: queue(names.beta.0, names.beta.1),
            gamma: queue(names.gamma.0, names.gamma.1),
            delta: read(names.delta.0, names.delta.1, 0, i32::MAX),
            ewma_cwnd_pct: read("cc_ewma_cwnd_pct", 50, 1, 255),
            ewma_max: read("cc_ewma_max", 10, 2, i32::MAX),
            ewma_ss: read("cc_ewma_ss", 2, 2, i32::MAX),
            rtt_reset_pct: read("cc_rtt_reset_pct", 100, 0, 100),
        }
    }
}

fn non_negative(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The parameters that each path has its own of, with C tor's defaults.
struct Names {
    ss_cap: (&'static str, i32),
    alpha: (&'static str, i32),
    beta: (&'static str, i32),
    gamma: (&'static str, i32),
    delta: (&'static str, i32),
}

impl Names {
    const EXIT: Self = Self {
        ss_cap: ("cc_sscap_exit", 600),
        alpha: ("cc_vegas_alpha_exit", 3 * OUTBUF_CELLS),
        beta: ("cc_vegas_beta_exit", 4 * OUTBUF_CELLS),
        gamma: ("cc_vegas_gamma_exit", 3 * OUTBUF_CELLS),
        delta: ("cc_vegas_delta_exit", 5 * OUTBUF_CELLS),
    };
    const ONION: Self = Self {
        ss_cap: ("cc_sscap_onion", 475),
        alpha: ("cc_vegas_alpha_onion", 3 * OUTBUF_CELLS),
        beta: ("cc_vegas_beta_onion", 6 * OUTBUF_CELLS),
        gamma: ("cc_vegas_gamma_onion", 4 * OUTBUF_CELLS),
        delta: ("cc_vegas_delta_onion", 7 * OUTBUF_CELLS),
    };
    const SBWS: Self = Self {
        ss_cap: ("cc_sscap_sbws", 400),
        alpha: ("cc_vegas_alpha_sbws", 2 * OUTBUF_CELLS - RECORD_CELLS),
        beta: ("cc_vegas_beta_sbws", 2 * OUTBUF_CELLS + RECORD_CELLS),
        gamma: ("cc_vegas_gamma_sbws", 2 * OUTBUF_CELLS),
        delta: ("cc_vegas_delta_sbws", 4 * OUTBUF_CELLS),
    };

    fn of(path: Path) -> Self {
        match path {
            Path::Exit => Self::EXIT,
            Path::Onion => Self::ONION,
            Path::Sbws => Self::SBWS,
        }
    }
}

/// What the streams of circuits with CC need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowParameters {
    /// More than this for a destination asks for XOFF.
    pub xoff_bytes: u64,
    /// A drain rate is taken each time this much has gone.
    pub xon_rate_bytes: u64,
    /// A rate that moves more than this per cent is told in a new XON.
    pub xon_change_pct: u64,
    /// Smoothing of the drain rate.
    pub xon_ewma_count: u64,
    /// More than this for a destination proves that the client ignores XOFF: what XOFF allows, and two windows of the
    /// size at which slow start ends, for what was under way. C tor leaves this to its OOM handler.
    pub backlog_bytes_max: u64,
}

impl FlowParameters {
    /// From the consensus, as an exit reads it.
    pub fn read(parameters: &Parameters) -> Self {
        let read = |name: &str, default, low, high| non_negative(parameters.clamped(name, default, low, high));
        let xoff_bytes = read("cc_xoff_exit", 500, 1, 10_000) * CELL_BYTES_MIN;
        Self {
            xoff_bytes,
            xon_rate_bytes: read("cc_xon_rate", 500, 1, 5_000) * CELL_BYTES_MAX,
            xon_change_pct: read("cc_xon_change_pct", 25, 1, 99),
            xon_ewma_count: read("cc_xon_ewma_cnt", 2, 2, 100),
            backlog_bytes_max: xoff_bytes + 2 * read("cc_ss_max", 5_000, 500, i32::MAX) * CELL_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, i32)]) -> Parameters {
        Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    /// The values of the public network of July 2026 are the defaults, but for the scanner's.
    #[test]
    fn defaults_are_those_of_c_tor() {
        let read = |path| VegasParameters::read(&Parameters::default(), path, 31);
        let queues = |p: VegasParameters| [p.alpha, p.beta, p.gamma, p.delta, p.ss_cap];
        assert_eq!(queues(read(Path::Exit)), [186, 248, 186, 310, 600]);
        assert_eq!(queues(read(Path::Onion)), [186, 372, 248, 434, 475]);
        assert_eq!(queues(read(Path::Sbws)), [93, 155, 124, 248, 400]);
        let exit = read(Path::Exit);
        assert_eq!(
            [
                exit.cwnd_init,
                exit.cwnd_min,
                exit.cwnd_inc,
                exit.cwnd_inc_rate,
                exit.ss_max
            ],
            [124, 124, 1, 31, 5_000]
        );
        let flow = FlowParameters::read(&Parameters::default());
        assert_eq!(
            [flow.xoff_bytes, flow.xon_rate_bytes, flow.xon_change_pct],
            [244_000, 249_000, 25]
        );
        assert!(congestion_control_enabled(&Parameters::default()));
        assert_eq!(sendme_increment_cells(&Parameters::default()), 31);
    }

    #[test]
    fn a_consensus_that_asks_for_nonsense_is_clamped() {
        let zeros = parameters(&[
            ("cc_sendme_inc", 0),
            ("cc_cwnd_min", 0),
            ("cc_cwnd_init", 0),
            ("cc_cwnd_max", -5),
        ]);
        assert_eq!(sendme_increment_cells(&zeros), 1);
        let read = VegasParameters::read(&zeros, Path::Exit, 0);
        assert_eq!(
            [read.sendme_inc, read.cwnd_min, read.cwnd_init, read.cwnd_max],
            [1, 31, 31, 500]
        );
        let wide = parameters(&[("cc_sendme_inc", i32::MAX), ("cc_cwnd_min", 0), ("cc_cwnd_init", 0)]);
        let read = VegasParameters::read(&wide, Path::Exit, sendme_increment_cells(&wide));
        assert_eq!([read.sendme_inc, read.cwnd_min, read.cwnd_init], [254, 254, 254]);
    }

    #[test]
    fn congestion_control_can_be_voted_away() {
        assert!(!congestion_control_enabled(&parameters(&[("cc_alg", 0)])));
        assert!(congestion_control_enabled(&parameters(&[("cc_alg", 1)])));
    }
}
