//! Link padding towards clients (padding-spec, "Connection-level padding"): an idle link sends a cell now and then, so
//! that the records of routers on the way tell less.

use std::time::Duration;

use rand::RngExt;
use relay_wire::channel_cells::PaddingNegotiate;

use crate::network::Parameters;

/// Whether and how a link is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    Off,
    /// Pad after `wait` without a cell.
    On {
        low_ms: u16,
        high_ms: u16,
        wait: Duration,
    },
}

/// The consensus's range: the ends are param-spec's `nf_ito_low` and `nf_ito_high`.
fn consensus_range(parameters: &Parameters) -> (u16, u16) {
    let low = parameters.clamped("nf_ito_low", 1_500, 0, 60_000);
    let high = parameters.clamped("nf_ito_high", 9_500, low, 60_000);
    (low as u16, high as u16)
}

impl Padding {
    /// What a client's link starts with.
    pub(crate) fn of_consensus(parameters: &Parameters, dice: &mut impl RngExt) -> Self {
        let (low_ms, high_ms) = consensus_range(parameters);
        Self::between(low_ms, high_ms, dice)
    }

    /// What a client's wish makes of it: never more padding than the consensus has.
    pub(crate) fn negotiated(wish: PaddingNegotiate, parameters: &Parameters, dice: &mut impl RngExt) -> Self {
        match wish {
            PaddingNegotiate::Stop => Self::Off,
            PaddingNegotiate::Start { low_ms, high_ms } => {
                let (low, high) = consensus_range(parameters);
                let low_ms = low_ms.max(low);
                Self::between(low_ms, high_ms.max(high).max(low_ms), dice)
            }
        }
    }

    /// An upper end of zero turns padding off.
    fn between(low_ms: u16, high_ms: u16, dice: &mut impl RngExt) -> Self {
        if high_ms == 0 {
            return Self::Off;
        }
        // The larger of two draws: as both ends draw so, the link still pads about as often as one plain draw would
        // make it (padding-spec 2.3).
        let draw = dice
            .random_range(low_ms..=high_ms)
            .max(dice.random_range(low_ms..=high_ms));
        Self::On {
            low_ms,
            high_ms,
            wait: Duration::from_millis(draw.into()),
        }
    }

    /// The next wait, drawn anew.
    pub(crate) fn redrawn(self, dice: &mut impl RngExt) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::On { low_ms, high_ms, .. } => Self::between(low_ms, high_ms, dice),
        }
    }

    /// When a cell of padding is due if nothing else is sent.
    pub(crate) fn due(&self, last_sent: Duration) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::On { wait, .. } => Some(last_sent + *wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn a_client_gets_no_more_padding_than_the_consensus_allows() {
        let mut dice = StdRng::from_seed([1; 32]);
        let parameters = Parameters::default();
        let greedy = PaddingNegotiate::Start { low_ms: 1, high_ms: 2 };
        let Padding::On { low_ms, high_ms, wait } = Padding::negotiated(greedy, &parameters, &mut dice) else {
            panic!("padding is on")
        };
        assert_eq!((low_ms, high_ms), (1_500, 9_500));
        assert!(wait >= Duration::from_millis(1_500) && wait <= Duration::from_millis(9_500));
        assert_eq!(
            Padding::negotiated(PaddingNegotiate::Stop, &parameters, &mut dice),
            Padding::Off
        );
        let modest = PaddingNegotiate::Start {
            low_ms: 9_000,
            high_ms: 14_000,
        };
        let Padding::On { low_ms, high_ms, .. } = Padding::negotiated(modest, &parameters, &mut dice) else {
            panic!("padding is on")
        };
        assert_eq!((low_ms, high_ms), (9_000, 14_000));
    }

    #[test]
    fn a_consensus_of_zeros_turns_padding_off() {
        let zeros = [("nf_ito_low".to_owned(), 0), ("nf_ito_high".to_owned(), 0)];
        let parameters = Parameters(zeros.into_iter().collect());
        assert_eq!(
            Padding::of_consensus(&parameters, &mut StdRng::from_seed([1; 32])),
            Padding::Off
        );
    }
}
