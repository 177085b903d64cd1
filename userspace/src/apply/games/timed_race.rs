//! A race against the clock: rounds of some seconds, and every so many of them a
//! bonus round.

use veltrix_abi::kinds::HuntSetup;

use super::GameType;
use crate::index::Hunt;

pub(super) struct TimedRace;

/// What the settings of a race say: bits 0..16 seconds of a round, 16..24 every which
/// round is a bonus round, 24..28 the factor.
struct Rounds {
    round_s: u32,
    every: u32,
    factor: u32,
}

impl Rounds {
    const fn of(settings: u64) -> Self {
        Self {
            round_s: (settings & 0xffff) as u32,
            every: (settings >> 16 & 0xff) as u32,
            factor: (settings >> 24 & 0xf) as u32,
        }
    }
}

impl GameType for TimedRace {
    fn takes(setup: &HuntSetup) -> bool {
        let rounds = Rounds::of(setup.settings);
        setup.length_s > 0
            && setup.settings >> 28 == 0
            && rounds.round_s > 0
            && rounds.every >= 2
            && rounds.factor >= 2
    }

    fn factor(hunt: &Hunt, log_time_s: u32) -> u32 {
        let rounds = Rounds::of(hunt.settings);
        let round = log_time_s.saturating_sub(hunt.opened_s) / rounds.round_s.max(1);
        let every = rounds.every.max(1);
        if round % every == every - 1 { rounds.factor } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u64 = 60 | 3 << 16 | 5 << 24;

    #[test]
    fn every_third_round_counts_five_times() {
        let mut hunt = Hunt::new(1);
        (hunt.opened_s, hunt.settings) = (1_000, SETTINGS);
        let factors: Vec<u32> =
            (0..7).map(|round| TimedRace::factor(&hunt, 1_000 + round * 60)).collect();
        assert_eq!(factors, [1, 1, 5, 1, 1, 5, 1]);
        assert_eq!(TimedRace::factor(&hunt, 1_119), 1);
        assert_eq!(TimedRace::factor(&hunt, 1_120), 5, "the third begins");
        assert_eq!(TimedRace::factor(&hunt, 1_179), 5);
        assert_eq!(TimedRace::factor(&hunt, 1_180), 1);
        assert_eq!(TimedRace::factor(&hunt, 0), 1, "log time never runs back, a test may");
    }

    #[test]
    fn a_race_has_a_length_and_rounds() {
        let good = HuntSetup { game: 2, length_s: 600, settings: SETTINGS };
        assert!(TimedRace::takes(&good));
        for settings in [0, 3 << 16 | 5 << 24, 60 | 1 << 16 | 5 << 24, 60 | 3 << 16 | 1 << 24] {
            assert!(!TimedRace::takes(&HuntSetup { settings, ..good }), "{settings:x}");
        }
        assert!(!TimedRace::takes(&HuntSetup { settings: SETTINGS | 1 << 28, ..good }));
        assert!(!TimedRace::takes(&HuntSetup { length_s: 0, ..good }));
    }
}
