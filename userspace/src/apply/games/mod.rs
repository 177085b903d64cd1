//! Game types: what is different from hunt to hunt.
//!
//! A hunt is opened as a game of some type. What all hunts share are the rules of
//! [`super::rules`]; a game type is asked at the points where they differ, and says
//! something about them: nothing it does can touch an index, a clock or a log.
//!
//! | asked | by which events | what it answers |
//! |---|---|---|
//! | [`GameType::takes`] | hunt-open | whether length and settings make sense |
//! | [`GameType::IS_IN_TEAMS`] | player-join, bank-*, what hotspots and checkpoints pay | whether players play in teams, which have a bank |
//! | [`GameType::factor`] | what pays points | what points are multiplied by now |
//! | [`GameType::PAYEE`] | use-key, claim | whose the currency is |
//! | [`GameType::HOLDS_GROUND`] | claim | whether a ticket that one team holds can be claimed by another |
//! | [`GameType::quest_before`] | checkpoint | which quest must have been ended before |
//! | [`GameType::LATENCY`] | all that a rule decides | what their answers are measured against |
//!
//! **A seventh game type** is one file here, and its row in [`GAMES`]. Say points of
//! the first minute count double:
//!
//! ```text
//! // early_bird.rs
//! pub(super) struct EarlyBird;
//!
//! impl GameType for EarlyBird {
//!     fn factor(hunt: &Hunt, log_time_s: u32) -> u32 {
//!         if log_time_s.saturating_sub(hunt.opened_s) < 60 { 2 } else { 1 }
//!     }
//! }
//!
//! // mod.rs
//! row::<early_bird::EarlyBird>(7, "early-bird"),
//! ```
//!
//! Its row in `userspace/docs/GAMES.md` is asked for by a test. A new row changes how logs are replayed:
//! raise [`crate::log::superblock::FORMAT_VERSION`].

mod free_roam;
mod latency;
mod quest_chain;
mod raffle_drop;
mod team_hunt;
mod territory;
mod timed_race;

use veltrix_abi::kinds::HuntSetup;

pub use latency::{CLASSES, ClassCounts, Latency};

use crate::index::Hunt;

/// Whose the currency is that a chest or a ticket pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payee {
    /// The player's wallet.
    Wallet,
    /// The bank of the player's team.
    Bank,
    /// The pot, which one of those who paid into it wins when the hunt is closed.
    Pot,
    /// Nobody's: points alone are paid.
    Nobody,
}

/// What a game type says of the rules; whatever it is silent about is as in a
/// free-roam hunt.
pub trait GameType {
    /// Whether players play in teams. Then neither hotspots nor checkpoints pay a
    /// player without one.
    const IS_IN_TEAMS: bool = false;

    /// Whose the currency is that a chest or a ticket pays.
    const PAYEE: Payee = Payee::Wallet;

    /// Whether teams hold the tickets they have claimed: it is counted how many, and
    /// any other team may claim them from there, for points alone.
    const HOLDS_GROUND: bool = false;

    /// How soon players want to be answered. What is judged does not depend on it.
    const LATENCY: Latency = Latency::Interactive;

    /// Whether a hunt can be set up so. Without settings, if nothing else is said.
    #[must_use]
    fn takes(setup: &HuntSetup) -> bool {
        setup.settings == 0
    }

    /// What points are multiplied by at this second of log time, 1 to 15.
    #[must_use]
    fn factor(_hunt: &Hunt, _log_time_s: u32) -> u32 {
        1
    }

    /// The quest that a player must have ended before `quest`.
    #[must_use]
    fn quest_before(_quest: u64) -> Option<u64> {
        None
    }
}

/// One game type, as apply asks it: what is the same for all hunts of the type is
/// read, the rest is called.
pub struct GameRow {
    /// What [`HuntSetup::game`] calls it.
    pub code: u8,
    /// Name in documents and answers.
    pub name: &'static str,
    /// See [`GameType::IS_IN_TEAMS`].
    pub is_in_teams: bool,
    /// See [`GameType::PAYEE`].
    pub payee: Payee,
    /// See [`GameType::HOLDS_GROUND`].
    pub holds_ground: bool,
    /// See [`GameType::LATENCY`].
    pub latency: Latency,
    /// See [`GameType::takes`].
    pub takes: fn(&HuntSetup) -> bool,
    /// See [`GameType::factor`].
    pub factor: fn(&Hunt, u32) -> u32,
    /// See [`GameType::quest_before`].
    pub quest_before: fn(u64) -> Option<u64>,
}

impl GameRow {
    /// Whether a hunt of it may be split: what is paid goes to players, and nothing is
    /// shared by those of all regions.
    #[must_use]
    pub const fn may_be_split(&self) -> bool {
        matches!(self.payee, Payee::Wallet) && !self.is_in_teams && !self.holds_ground
    }
}

const fn row<G: GameType>(code: u8, name: &'static str) -> GameRow {
    GameRow {
        code,
        name,
        is_in_teams: G::IS_IN_TEAMS,
        payee: G::PAYEE,
        holds_ground: G::HOLDS_GROUND,
        latency: G::LATENCY,
        takes: G::takes,
        factor: G::factor,
        quest_before: G::quest_before,
    }
}

/// Every game type there is, in order of their codes, which count from 1. What each
/// is, and what its settings mean, is told in `userspace/docs/GAMES.md`.
pub static GAMES: [GameRow; 6] = [
    row::<free_roam::FreeRoam>(1, "free-roam"),
    row::<timed_race::TimedRace>(2, "timed-race"),
    row::<team_hunt::TeamHunt>(3, "team-hunt"),
    row::<territory::Territory>(4, "territory"),
    row::<quest_chain::QuestChain>(5, "quest-chain"),
    row::<raffle_drop::RaffleDrop>(6, "raffle-drop"),
];

/// The game type of a code; `None` for one that does not exist.
#[must_use]
pub fn known(code: u8) -> Option<&'static GameRow> {
    GAMES.get(usize::from(code).checked_sub(1)?)
}

/// What a hunt is played as.
#[inline(always)]
pub(super) fn of(hunt: &Hunt) -> &'static GameRow {
    // Nobody has opened it: free-roam.
    let at = usize::from(hunt.game).saturating_sub(1);
    GAMES.get(at).unwrap_or(&GAMES[0])
}

/// The number by which the `n`-th lot is drawn: the lot takes the pot from those before
/// it when this is a multiple of `n`, so each of them is left with the same chance.
/// XXH3-64 of key, epoch, log time in nanoseconds and `n`, little-endian, 8 bytes
/// each but the key: whoever has the log can check it, and who chooses a key does
/// not know the others.
#[must_use]
pub fn lot(key: &[u8; 16], epoch: u64, log_time_ns: u64, n: u64) -> u64 {
    let mut bytes = [0; 40];
    bytes[..16].copy_from_slice(key);
    bytes[16..24].copy_from_slice(&epoch.to_le_bytes());
    bytes[24..32].copy_from_slice(&log_time_ns.to_le_bytes());
    bytes[32..].copy_from_slice(&n.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_places_of_the_rows() {
        for (row, code) in GAMES.iter().zip(1..) {
            assert_eq!(row.code, code, "{}", row.name);
            assert_eq!(known(code).map(|row| row.name), Some(row.name));
        }
        assert!(known(0).is_none() && known(GAMES.len() as u8 + 1).is_none());
        let mut names: Vec<_> = GAMES.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), GAMES.len());
    }

    #[test]
    fn the_page_has_every_row() {
        let page = include_str!("../../../docs/GAMES.md");
        for row in &GAMES {
            let teams = if row.is_in_teams { "yes" } else { "-" };
            let latency = row.latency.name();
            let wanted = format!("| {} | {} | {teams} | {latency} | ", row.code, row.name);
            assert!(page.contains(&wanted), "GAMES.md lacks: {wanted}");
        }
        for class in Latency::ALL {
            let wanted = format!("| `{}` | {} ms | ", class.name(), class.target().as_millis());
            assert!(page.contains(&wanted), "GAMES.md lacks: {wanted}");
        }
    }

    #[test]
    fn settings_that_mean_nothing_are_not_taken() {
        for row in &GAMES {
            let setup = HuntSetup { game: row.code, length_s: 0, settings: 1 };
            assert!(!(row.takes)(&setup), "{}", row.name);
        }
    }

    #[test]
    fn every_lot_has_the_same_chance() {
        // Ten lots, drawn ten thousand times with different keys: each wins about
        // a thousand; the deviation is 30.
        let mut wins = [0u32; 10];
        for round in 0..10_000u64 {
            let mut winner = 0;
            for n in 1..=10u64 {
                let mut key = [7; 16];
                key[..8].copy_from_slice(&(round * 10 + n).to_le_bytes());
                if lot(&key, 5, 1_000_000_007, n).is_multiple_of(n) {
                    winner = n as usize - 1;
                }
            }
            wins[winner] += 1;
        }
        assert!(wins.iter().all(|won| (800..1_200).contains(won)), "{wins:?}");
    }

    #[test]
    fn a_lot_depends_on_all_it_is_drawn_from() {
        let all = [
            lot(&[1; 16], 2, 3, 4),
            lot(&[9; 16], 2, 3, 4),
            lot(&[1; 16], 9, 3, 4),
            lot(&[1; 16], 2, 9, 4),
            lot(&[1; 16], 2, 3, 9),
        ];
        assert!((1..5).all(|i| all[i] != all[0]));
    }
}
