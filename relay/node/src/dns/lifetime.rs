//! How long an answer of the DNS is remembered, here and by the client.
//!
//! Two values and noise, so that nobody can read off our answers what others asked for and when (TROVE-2021-009; C tor,
//! `clip_dns_fuzzy_ttl`).

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// What is shorter counts as this (C tor, `MIN_DNS_TTL`).
const SHORT_SECONDS: u32 = 5 * 60;
/// What is not, counts as this (C tor, `MAX_DNS_TTL`).
const LONG_SECONDS: u32 = 60 * 60;
/// The noise, up or down (C tor, `FUZZY_DNS_TTL`).
const NOISE_SECONDS: u32 = 4 * 60;

/// No answer is remembered for longer, whoever asks for it (C tor, `MAX_DNS_ENTRY_AGE`).
pub const LIFETIME_MAX: Duration = Duration::from_secs(3 * 60 * 60);

/// For how long we remember an answer, and what CONNECTED and END tell the client of that: 60 to 540, or 3,360 to 3,840.
pub fn client_ttl_seconds(ttl_seconds: u32, dice: &mut impl Rng) -> u32 {
    let clipped = if ttl_seconds < SHORT_SECONDS {
        SHORT_SECONDS
    } else {
        LONG_SECONDS
    };
    clipped - NOISE_SECONDS + dice.random_range(0..=2 * NOISE_SECONDS)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn trove_2021_009_two_values_with_noise_tell_nothing_of_the_third() {
        let mut dice = StdRng::seed_from_u64(7);
        for ttl in [0, 1, 299] {
            assert!((0..500).all(|_| (60..=540).contains(&client_ttl_seconds(ttl, &mut dice))));
        }
        for ttl in [300, 3_600, u32::MAX] {
            assert!((0..500).all(|_| (3_360..=3_840).contains(&client_ttl_seconds(ttl, &mut dice))));
        }
        let drawn: std::collections::HashSet<u32> = (0..5_000).map(|_| client_ttl_seconds(0, &mut dice)).collect();
        assert!(drawn.len() > 450 && drawn.contains(&60) && drawn.contains(&540));
    }
}
