//! What is different from hunt to hunt.

use veltrix_abi::kinds::HuntSetup;

/// A game type, with what its settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Game {
    /// Everybody for themselves.
    FreeRoam,
    /// Rounds; in some of them points are multiplied.
    TimedRace {
        /// Seconds of a round.
        round_s: u64,
        /// Every which round is a bonus round.
        every: u64,
        /// What points are multiplied by in one.
        factor: u64,
    },
    /// Teams with banks that chests and tickets pay into.
    TeamHunt,
    /// Teams that hold tickets.
    Territory,
    /// Quests one after the other.
    QuestChain,
    /// A pot that chests and tickets pay into.
    RaffleDrop,
}

impl Game {
    /// The game of a setup; `None` when there is none, or it cannot be set up so.
    #[must_use]
    pub fn of(setup: &HuntSetup) -> Option<Self> {
        if setup.game == 2 {
            let HuntSetup { settings, length_s, .. } = *setup;
            let (round_s, every, factor) =
                (settings % 0x1_0000, settings >> 16 & 0xff, settings >> 24);
            let is_race = length_s > 0
                && round_s > 0
                && (2..=255).contains(&every)
                && (2..=15).contains(&factor);
            return is_race.then_some(Self::TimedRace { round_s, every, factor });
        }
        if setup.settings != 0 {
            return None;
        }
        match setup.game {
            1 => Some(Self::FreeRoam),
            3 => Some(Self::TeamHunt),
            4 => Some(Self::Territory),
            5 => Some(Self::QuestChain),
            6 => Some(Self::RaffleDrop),
            _ => None,
        }
    }

    /// Whether nothing is paid to a player without a team.
    #[must_use]
    pub fn is_in_teams(self) -> bool {
        matches!(self, Self::TeamHunt | Self::Territory)
    }

    /// What points are multiplied by so many seconds after the hunt was opened.
    #[must_use]
    pub fn factor(self, since_s: u64) -> u64 {
        match self {
            // Rounds count from 1.
            Self::TimedRace { round_s, every, factor }
                if (since_s / round_s + 1).is_multiple_of(every) =>
            {
                factor
            }
            _ => 1,
        }
    }

    /// The quest that must be ended before this one can be begun.
    #[must_use]
    pub fn quest_before(self, quest: u64) -> Option<u64> {
        (self == Self::QuestChain && quest > 1).then(|| quest - 1)
    }
}

/// The number that is drawn for a lot: from the key of its event, the epoch, the log
/// time in nanoseconds, and which lot it is.
#[must_use]
pub fn lot(key: [u8; 16], epoch: u64, log_time_ns: u64, n: u64) -> u64 {
    let words = [epoch, log_time_ns, n].map(u64::to_le_bytes).concat();
    xxhash_rust::xxh3::xxh3_64(&[&key[..], &words].concat())
}
