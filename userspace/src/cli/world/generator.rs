//! A world as a function: event `i` of a plan, for any `i`, without what came
//! before.
//!
//! ```text
//!   i: 0 ............ cells ............... + players ............ + items
//!      | hotspot-spawn, | wallet-credit,      | collect-item,     |
//!      | hunt by hunt   | hunt by hunt        | hunt by hunt      |
//! ```
//!
//! A hunt lies around a city and has cells, players and items in proportion to
//! the people there. Its cells are the lower bits of a permutation inside squares
//! that are drawn around the city's centre, so no two are alike. Every fourth
//! player collects one item, each from a hotspot of its own, so that there is a
//! leaderboard and nothing can run out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, ITEM_TYPES};
use veltrix_abi::partition::{PARTITIONS_MAX, partition_of};
use veltrix_client::codec::Random;

use super::cities::{CITY_REACH_DEGREES, City, cities, position};
use crate::cli::{CliError, ExitStatus};
use crate::index::morton_of;

/// Most hunts of a world.
pub const HUNTS_MAX: u64 = 1_000_000;

/// Most players of a world; their ids are 1 to this.
pub const PLAYERS_MAX: u64 = 1 << 40;

/// Largest key of a first hunt: what follows stays far from the end of `u64`.
pub const FIRST_HUNT_MAX: u64 = 1 << 62;

/// Bits by which a square of cells is wide and high: 152 m by 76 m at the equator.
const SQUARE_BITS: u32 = 12;

/// Most cells of one hunt: those of one square, 16,777,216.
pub const HUNT_CELLS_MAX: u64 = 1 << (2 * SQUARE_BITS);

/// One player of so many collects an item.
const COLLECTORS: u64 = 4;

/// Life of every fourth item hotspot, seconds: a week. All others stay.
const LIFETIME_S: u32 = 604_800;

/// What stands on each sixteen cells of a hunt: twelve items, three chests, a ticket.
const KINDS: [HotspotKind; 16] = {
    use HotspotKind::{Chest as C, Item as I, Ticket as T};
    [I, I, C, I, T, I, I, I, C, I, I, I, I, C, I, I]
};

/// Those of the sixteen that give items.
const ITEM_PLACES: [u8; 12] = {
    let (mut places, mut found, mut at) = ([0; 12], 0, 0);
    while at < KINDS.len() {
        if matches!(KINDS[at], HotspotKind::Item) {
            places[found] = at as u8;
            found += 1;
        }
        at += 1;
    }
    assert!(found == places.len());
    places
};

/// How hunts get their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HuntKeys {
    /// Such that all partitions get nearly as many cells and players.
    Even,
    /// One after the other: the fullest of 64 partitions then gets some 2.6 times
    /// its share of 1,000 hunts.
    Sequence,
}

/// What a world is made from. The same plan is the same world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Hotspots of all hunts.
    pub cells: u64,
    /// Hunts.
    pub hunts: u64,
    /// Players of all hunts, each in one.
    pub players: u64,
    /// Names one of all worlds of this size.
    pub seed: u64,
    /// Least key of a hunt.
    pub first_hunt: u64,
    /// How hunts get their keys.
    pub hunt_keys: HuntKeys,
    /// Partitions that [`HuntKeys::Even`] fills evenly.
    pub partitions: u16,
}

impl Plan {
    /// Whether there is such a world.
    ///
    /// # Errors
    ///
    /// [`ExitStatus::Usage`], naming flag, value seen and value wanted.
    pub fn check(&self) -> Result<(), CliError> {
        let cells_max = self.hunts.saturating_mul(HUNT_CELLS_MAX);
        for (flag, value, least, most) in [
            ("--hunts", self.hunts, 1, HUNTS_MAX),
            ("--cells", self.cells, self.hunts, cells_max),
            ("--players", self.players, self.hunts, PLAYERS_MAX),
            ("--first-hunt", self.first_hunt, 1, FIRST_HUNT_MAX),
            ("--partitions", self.partitions.into(), 1, PARTITIONS_MAX.into()),
        ] {
            if !(least..=most).contains(&value) {
                let why = match flag {
                    "--cells" => ": each hunt has at least one and at most 16777216 cells",
                    "--players" => ": each hunt has at least one",
                    _ => "",
                };
                return Err(usage(&format!("{flag} is {value}, wanted {least} to {most}{why}")));
            }
        }
        Ok(())
    }
}

fn usage(message: &str) -> CliError {
    CliError::new(ExitStatus::Usage, message)
}

/// Which of the three runs of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A hotspot for each cell.
    Hotspots,
    /// A first credit for each player.
    Credits,
    /// An item for some.
    Items,
}

impl Phase {
    /// All of them, in the order in which they must be applied.
    pub const ALL: [Self; 3] = [Self::Hotspots, Self::Credits, Self::Items];

    /// Name in summaries.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hotspots => "hotspots",
            Self::Credits => "credits",
            Self::Items => "items",
        }
    }
}

/// A hunt of a world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hunt {
    /// Domain key.
    pub key: u64,
    /// Where it is.
    pub city: City,
}

/// An event without its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldEvent {
    /// Domain key of its hunt.
    pub hunt: u64,
    /// What happens.
    pub kind: EventKind,
    /// Who acts; nobody puts hotspots.
    pub player: u64,
    /// As the kind wants it.
    pub subject: u64,
    /// As the kind wants it.
    pub argument: u64,
}

/// What a server must be formatted with for a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Wants {
    /// Partitions it is told for.
    pub partitions: u16,
    /// `--cells-max`: its share is what the fullest partition gets.
    pub cells_max: u64,
    /// `--players-max`, as with cells.
    pub players_max: u64,
    /// `--hunts-max`: hunts of the partition with most.
    pub hunts_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    hunts: Vec<Hunt>,
    /// Of each phase: first number of each hunt, counted within the phase, and
    /// at the end how many there are.
    starts: [Vec<u64>; 3],
    key_seed: u64,
}

impl World {
    /// The world of a plan.
    ///
    /// # Errors
    ///
    /// As [`Plan::check`], and when one hunt would get too many cells.
    pub fn new(plan: Plan) -> Result<Self, CliError> {
        plan.check()?;
        let all: Vec<City> = cities().collect();
        let cities: Vec<City> = (0..plan.hunts as usize).map(|i| all[i % all.len()]).collect();
        // Hunts of one city share its people.
        let shared =
            |index: usize| plan.hunts.saturating_sub(index as u64).div_ceil(all.len() as u64);
        let people: Vec<u64> = (0..cities.len())
            .map(|index| (cities[index].people / shared(index % all.len())).max(1))
            .collect();
        let cells = apportion(plan.cells, &people);
        let players = apportion(plan.players, &people);
        let crowded = cells.windows(2).position(|pair| pair[1] - pair[0] > HUNT_CELLS_MAX);
        if let Some(index) = crowded {
            return Err(usage(&format!(
                "--cells is {}: the hunt in {} would get {} of them, a hunt has at most {HUNT_CELLS_MAX}; \
                 give fewer, or more --hunts",
                plan.cells,
                cities[index].name,
                cells[index + 1] - cells[index]
            )));
        }
        let mut items = vec![0];
        for (cells, players) in cells.windows(2).zip(players.windows(2)) {
            let collectors = (players[1] - players[0]).div_ceil(COLLECTORS);
            items.push(items[items.len() - 1] + collectors.min(item_cells(cells[1] - cells[0])));
        }
        let keys = hunt_keys(&plan, &cells, &players);
        let hunts = keys.into_iter().zip(cities).map(|(key, city)| Hunt { key, city }).collect();
        let key_seed = mix(plan.seed ^ mix(plan.first_hunt));
        Ok(Self { plan, hunts, starts: [cells, players, items], key_seed })
    }

    /// What it was made from.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its hunts, the largest city first.
    #[must_use]
    pub fn hunts(&self) -> &[Hunt] {
        &self.hunts
    }

    /// Events of a phase.
    #[must_use]
    pub fn count(&self, phase: Phase) -> u64 {
        self.starts(phase)[self.hunts.len()]
    }

    /// Events of a phase in one hunt.
    ///
    /// # Panics
    ///
    /// When there is no hunt `index`.
    #[must_use]
    pub fn count_in(&self, phase: Phase, index: usize) -> u64 {
        let starts = self.starts(phase);
        starts[index + 1] - starts[index]
    }

    /// Events in all.
    #[must_use]
    pub fn events(&self) -> u64 {
        Phase::ALL.iter().map(|phase| self.count(*phase)).sum()
    }

    fn starts(&self, phase: Phase) -> &[u64] {
        &self.starts[phase as usize]
    }

    /// Event `i`; `None` past the last.
    #[must_use]
    pub fn event(&self, i: u64) -> Option<WorldEvent> {
        let mut number = i;
        for phase in Phase::ALL {
            if number < self.count(phase) {
                let index = self.starts(phase).partition_point(|start| *start <= number) - 1;
                return Some(self.event_in(phase, index, number - self.starts(phase)[index]));
            }
            number -= self.count(phase);
        }
        None
    }

    /// All events, in their order.
    pub fn iter(&self) -> impl Iterator<Item = WorldEvent> {
        Phase::ALL.into_iter().flat_map(move |phase| {
            (0..self.hunts.len()).flat_map(move |index| {
                (0..self.count_in(phase, index)).map(move |n| self.event_in(phase, index, n))
            })
        })
    }

    /// Event `n` of a phase in one hunt.
    ///
    /// # Panics
    ///
    /// When there is no hunt `index`.
    #[must_use]
    pub fn event_in(&self, phase: Phase, index: usize, n: u64) -> WorldEvent {
        let hunt = self.hunts[index].key;
        let player_first = self.starts(Phase::Credits)[index] + 1;
        let (kind, player, subject, argument) = match phase {
            Phase::Hotspots => {
                let (cell, hotspot) = (self.cell(index, n), self.hotspot(index, n));
                // Every field was drawn within its range; a test packs them all.
                (EventKind::HotspotSpawn, 0, cell, hotspot.pack().unwrap_or_default())
            }
            Phase::Credits => {
                let amount = 100 + self.random(phase, index, n).below(900);
                (EventKind::WalletCredit, player_first + n, 0, amount)
            }
            Phase::Items => {
                let place = u64::from(ITEM_PLACES[(n % 12) as usize]);
                let cell = self.cell(index, n / 12 * 16 + place);
                (EventKind::CollectItem, player_first + n * COLLECTORS, cell, 0)
            }
        };
        WorldEvent { hunt, kind, player, subject, argument }
    }

    /// The cell `n` of a hunt.
    fn cell(&self, index: usize, n: u64) -> u64 {
        let city = &self.hunts[index].city;
        let mut random = self.random(Phase::Hotspots, index, n);
        // The difference of two uniform draws peaks at the centre.
        let mut near = |centre: f64| centre + (random.unit() - random.unit()) * CITY_REACH_DEGREES;
        let (x, y) = position(near(city.lat), near(city.lon));
        let within = permuted(n as u32, mix(self.plan.seed ^ mix(index as u64)));
        let low = (1 << SQUARE_BITS) - 1;
        morton_of(x & !low | within & low, y & !low | within >> SQUARE_BITS)
    }

    /// What stands on the cell `n` of a hunt.
    fn hotspot(&self, index: usize, n: u64) -> Hotspot {
        let mut random = Random::new(!self.random(Phase::Hotspots, index, n).next_u64());
        let mut from =
            |least: u32, most: u32| least + random.below(u64::from(most - least) + 1) as u32;
        let item = from(0, u32::from(ITEM_TYPES) - 1) as u8;
        let kind = KINDS[(n % 16) as usize];
        let (item, remaining, reward, lifetime_s) = match kind {
            HotspotKind::Item => {
                let lifetime_s = if from(0, 3) == 0 { LIFETIME_S } else { 0 };
                (item, from(50, 499) as u16, from(1, 20), lifetime_s)
            }
            HotspotKind::Chest => (item, from(1, 20) as u16, from(50, 499), 0),
            HotspotKind::Ticket => (0, 1, from(500, 4_999), 0),
        };
        Hotspot { kind, item, remaining, reward, lifetime_s }
    }

    /// Random numbers for event `n` of a phase in one hunt.
    fn random(&self, phase: Phase, index: usize, n: u64) -> Random {
        let hunt = mix(self.plan.seed ^ mix((index as u64) << 2 | phase as u64));
        Random::new(mix(hunt ^ n))
    }

    /// Idempotency key of event `n` of a phase in one hunt, stamped with `ms`
    /// since the Unix epoch: all other bits follow from the plan.
    ///
    /// # Panics
    ///
    /// When there is no hunt `index`.
    #[must_use]
    pub fn key(&self, phase: Phase, index: usize, n: u64, ms: u64) -> [u8; 16] {
        let before: u64 = Phase::ALL[..phase as usize].iter().map(|phase| self.count(*phase)).sum();
        let i = before + self.starts(phase)[index] + n;
        // A permutation of the event's number: no two of a world are alike.
        let bits = mix(i ^ self.key_seed);
        let source = mix(!self.key_seed) & 0x3ff;
        // A UUIDv7: 48 bits of time, version, then 12 and 62 bits. The two of
        // `bits` that the last part has no room for go to the one before.
        let high = ms << 16 | 0x7000 | source << 2 | bits >> 62;
        let low = 1 << 63 | bits & (u64::MAX >> 2);
        let mut key = [0; 16];
        key[..8].copy_from_slice(&high.to_be_bytes());
        key[8..].copy_from_slice(&low.to_be_bytes());
        key
    }

    /// What a server of so many partitions must be formatted with; at least 1.
    #[must_use]
    pub fn wants(&self, partitions: u16) -> Wants {
        let partitions = partitions.max(1);
        let mut of = vec![[0_u64; 3]; partitions.into()];
        for (index, hunt) in self.hunts.iter().enumerate() {
            let sums = &mut of[usize::from(partition_of(hunt.key, partitions))];
            sums[0] += self.count_in(Phase::Hotspots, index);
            sums[1] += self.count_in(Phase::Credits, index);
            sums[2] += 1;
        }
        let fullest = |what: usize| of.iter().map(|sums| sums[what]).max().unwrap_or(0);
        Wants {
            partitions,
            cells_max: fullest(0) * u64::from(partitions),
            players_max: fullest(1) * u64::from(partitions),
            hunts_max: fullest(2),
        }
    }
}

/// Where each one's share of `total` begins, and `total`: one for each, the rest
/// by weight. `total` is at least their number.
fn apportion(total: u64, weights: &[u64]) -> Vec<u64> {
    let all: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let rest = u128::from(total - weights.len() as u64);
    let mut upto = 0;
    let mut starts = vec![0];
    for (index, weight) in weights.iter().enumerate() {
        upto += u128::from(*weight);
        starts.push(index as u64 + 1 + (rest * upto / all) as u64);
    }
    starts
}

/// Keys of the hunts, in their order.
fn hunt_keys(plan: &Plan, cells: &[u64], players: &[u64]) -> Vec<u64> {
    if plan.hunt_keys == HuntKeys::Sequence {
        return (plan.first_hunt..plan.first_hunt + plan.hunts).collect();
    }
    // Each hunt in turn, the largest first, to the partition that has least.
    let mut least: BinaryHeap<Reverse<(u64, u16)>> =
        (0..plan.partitions).map(|partition| Reverse((0, partition))).collect();
    let mut next = vec![plan.first_hunt; plan.partitions.into()];
    let mut keys = Vec::with_capacity(plan.hunts as usize);
    for (cells, players) in cells.windows(2).zip(players.windows(2)) {
        let Some(Reverse((load, partition))) = least.pop() else { break };
        let cursor = &mut next[usize::from(partition)];
        while partition_of(*cursor, plan.partitions) != partition {
            *cursor += 1;
        }
        keys.push(*cursor);
        *cursor += 1;
        least.push(Reverse((load + cells[1] - cells[0] + players[1] - players[0], partition)));
    }
    keys
}

/// Cells with items among the first `cells` of a hunt.
fn item_cells(cells: u64) -> u64 {
    let rest = ITEM_PLACES.iter().filter(|place| u64::from(**place) < cells % 16).count();
    cells / 16 * 12 + rest as u64
}

/// A permutation of the numbers below [`HUNT_CELLS_MAX`] that `key` names.
fn permuted(n: u32, key: u64) -> u32 {
    let low = (1 << SQUARE_BITS) - 1;
    // A Feistel network: each round can be undone, whatever its function.
    (0..4_u64).fold(n & ((1 << (2 * SQUARE_BITS)) - 1), |n, round| {
        let (left, right) = (n >> SQUARE_BITS, n & low);
        right << SQUARE_BITS | left ^ mix(key ^ round << 32 ^ u64::from(right)) as u32 & low
    })
}

/// The finalizer of splitmix64: a permutation.
const fn mix(x: u64) -> u64 {
    Random::new(x).next_u64()
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
