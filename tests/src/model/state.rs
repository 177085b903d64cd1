//! What a hunt holds, in the plainest shapes there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use veltrix_abi::kinds::{HotspotKind, HuntSetup, ITEM_TYPES, QuestPay, Quota, TEAMS};

use super::games::Game;
use super::graph::Graph;

/// A hunt that an open, a spawn, a credit or a reward created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunt {
    /// How it is played, and what is everybody's.
    pub state: HuntState,
    /// Hotspots by cell.
    pub cells: HashMap<u64, HotspotState>,
    /// Players by id.
    pub players: HashMap<u64, Player>,
    /// Players in the order in which they were first given something.
    pub seen: Vec<u64>,
    /// Quests by id.
    pub quests: BTreeMap<u64, Quest>,
    /// Treasure types by id.
    pub treasures: BTreeMap<u64, Treasure>,
    /// How far a player is in a quest: by player, then quest.
    pub progress: BTreeMap<(u64, u64), Progress>,
    /// Numbers of the rewards that a player has: by player.
    pub rewards: BTreeMap<u64, BTreeSet<u64>>,
}

impl Hunt {
    /// Cells of the hotspots from `from` to `to`, both included, ascending.
    #[must_use]
    pub fn cells_in(&self, from: u64, to: u64) -> Vec<u64> {
        let mut cells: Vec<u64> =
            self.cells.keys().copied().filter(|cell| (from..=to).contains(cell)).collect();
        cells.sort_unstable();
        cells
    }

    /// Everybody with a score, the best first: more points, then points for
    /// longer, then seen before.
    #[must_use]
    pub fn leaderboard(&self) -> Vec<u64> {
        let mut scored: Vec<(usize, u64)> = self.seen.iter().copied().enumerate().collect();
        scored.retain(|(_, player)| self.players[player].score > 0);
        scored.sort_by_key(|(seen, player)| {
            let player = &self.players[player];
            (std::cmp::Reverse(player.score), player.score_epoch, *seen)
        });
        scored.into_iter().map(|(_, player)| player).collect()
    }

    /// Tickets that each team holds, team 1 first.
    #[must_use]
    pub fn tiles(&self) -> [u32; TEAMS] {
        let mut tiles = [0; TEAMS];
        for team in self.cells.values().filter_map(|cell| cell.held_by) {
            tiles[usize::from(team) - 1] += 1;
        }
        tiles
    }

    /// Whether the player has a reward of the same 256 numbers as `number`: these
    /// take the place of one.
    #[must_use]
    pub fn has_reward_near(&self, player: u64, number: u64) -> bool {
        let near = |other: &u64| *other / 256 == number / 256;
        self.rewards.get(&player).is_some_and(|numbers| numbers.iter().any(near))
    }

    pub(super) fn put(&mut self, player: u64, mut state: Player, epoch: u64) {
        let before = self.players.get(&player);
        if before.is_none() {
            self.seen.push(player);
        }
        if before.map_or(0, |before| before.score) != state.score {
            state.score_epoch = epoch;
        }
        self.players.insert(player, state);
    }
}

/// How a hunt is played and stands, beside what lies on cells and what players own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HuntState {
    /// As it was opened; `None` while nobody has.
    pub setup: Option<HuntSetup>,
    /// Log time at which it was opened, seconds since the Unix epoch.
    pub opened_s: u64,
    /// Log time from which it plays no more, seconds since the Unix epoch; `None` =
    /// when it is closed.
    pub ends_s: Option<u64>,
    /// Whether somebody closed it.
    pub is_closed: bool,
    /// Currency that waits for the winner.
    pub pot: u64,
    /// Lots drawn for it.
    pub lots: u32,
    /// Who would win it now.
    pub winner: Option<u64>,
    /// Bank of each team, team 1 first.
    pub banks: [u64; TEAMS],
    /// Whose it is, and what it may use.
    pub quota: Quota,
    /// Log time of the last event that counted, seconds since the Unix epoch, and how
    /// many counted in that second.
    pub counted: (u64, u32),
    /// Events refused since it may use no more.
    pub over_quota: u64,
}

impl HuntState {
    /// Whether it may use only so much of something.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        let Quota { cells_max, players_max, events_per_s, .. } = self.quota;
        [cells_max, players_max, events_per_s].iter().any(|bound| *bound > 0)
    }

    /// Its game type; free-roam while nobody has opened it.
    #[must_use]
    pub fn game(&self) -> Game {
        self.setup.and_then(|setup| Game::of(&setup)).unwrap_or(Game::FreeRoam)
    }

    /// Whether it plays no more at this second of log time.
    #[must_use]
    pub fn is_over(&self, log_time_s: u64) -> bool {
        self.is_closed || self.ends_s.is_some_and(|ends_s| ends_s <= log_time_s)
    }
}

/// A hotspot as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotspotState {
    /// What it is.
    pub kind: HotspotKind,
    /// Item it gives, or wants as a key.
    pub item: u8,
    /// Times it can still be taken.
    pub remaining: u16,
    /// What taking it adds.
    pub reward: u32,
    /// Log time at which it is gone, seconds since the Unix epoch; 0 = never.
    pub expiry_s: u64,
    /// Who claimed the ticket.
    pub claimed_by: Option<u64>,
    /// The team that holds the ticket: that of the claimant, where the game is about
    /// ground.
    pub held_by: Option<u8>,
}

impl HotspotState {
    /// Whether its second has come.
    #[must_use]
    pub fn is_expired(&self, log_time_s: u64) -> bool {
        self.expiry_s != 0 && self.expiry_s <= log_time_s
    }
}

/// A player in one hunt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Player {
    /// Money.
    pub wallet: u64,
    /// Points.
    pub score: u64,
    /// Epoch since which the score is what it is; 0 if it never changed.
    pub score_epoch: u64,
    /// Items of each type.
    pub inventory: [u16; ITEM_TYPES as usize],
    /// Team, 1 to 16.
    pub team: Option<u8>,
    /// The last power-up, in force or over.
    pub power: Option<Power>,
    /// Cell of the last ping.
    pub place: Option<u64>,
}

/// A power-up that was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// What points are multiplied by.
    pub factor: u8,
    /// Log time at which it ends, seconds since the Unix epoch.
    pub until_s: u64,
}

/// A quest as it was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quest {
    /// What was sent.
    pub payload: Vec<u8>,
    /// What that says.
    pub graph: Graph,
    /// What passing it pays.
    pub pay: QuestPay,
}

/// A treasure type as it was last set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treasure {
    /// What was sent.
    pub payload: Vec<u8>,
    /// How often it was set.
    pub version: u32,
}

/// How far a player is in a quest. It stays when the quest is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes passed since the quest was last given up.
    pub passed: BTreeSet<u8>,
    /// Nodes that were paid.
    pub paid: BTreeSet<u8>,
    /// Whether an end was reached, and paid.
    pub is_ended: bool,
}
