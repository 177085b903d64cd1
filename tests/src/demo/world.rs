//! The world of the demo: hunts in real cities, hotspots and players in
//! proportion to the people there, so that a few hunts are many times hotter
//! than the rest.
//!
//! ```text
//!   cities.csv -> a hunt each -> hotspots around its centre, players of its own
//!   event = hunt by people, then any of its players at any of its hotspots
//! ```
//!
//! Hotspots and players are numbered through; those of one hunt are
//! neighbours.

use std::collections::HashSet;

use veltrix::cli::world::cities::{CITY_REACH_DEGREES, City, cities, morton};
use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind, ITEM_TYPES};
use veltrix_client::codec::Random;

/// Cities with a hunt: the largest.
pub const HUNTS: usize = 400;

/// Hotspots over all hunts, about.
const HOTSPOTS: f64 = 60_000.0;

/// Players over all hunts, about.
const PLAYERS: f64 = 120_000.0;

/// One hunt.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Name of the city.
    pub city: &'static str,
    /// Domain key.
    pub domain: u64,
    /// First of its hotspots.
    pub cell_first: u32,
    /// Hotspots.
    pub cells: u32,
    /// First of its players.
    pub player_first: u32,
    /// Players.
    pub players: u32,
}

/// A hotspot as it is put there.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Its hunt.
    pub hunt: u16,
    /// Morton code of its position.
    pub id: u64,
    /// What stands there.
    pub hotspot: Hotspot,
}

/// An event, by the numbers of what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Idempotency key.
    pub key: [u8; 16],
    /// Who acts.
    pub player: u32,
    /// Where; of a wallet's events, anywhere.
    pub cell: u32,
    /// Of a wallet's events.
    pub amount: u32,
    /// What.
    pub kind: EventKind,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// Hunts, the largest city first.
    pub hunts: Vec<Hunt>,
    /// All hotspots.
    pub cells: Vec<Cell>,
    /// Players in all.
    pub players: u32,
    /// People of the cities up to and including each.
    people: Vec<f64>,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rows: Vec<City> = cities().take(HUNTS).collect();
        let all = rows.iter().map(|city| city.people).sum::<u64>() as f64;
        let mut world = Self { hunts: Vec::new(), cells: Vec::new(), players: 0, people: vec![] };
        let mut people = 0.0;
        for (index, city) in rows.into_iter().enumerate() {
            let here = city.people as f64;
            let share = here / all;
            let hunt = Hunt {
                city: city.name,
                domain: index as u64 + 1,
                cell_first: world.cells.len() as u32,
                cells: (HOTSPOTS * share).ceil() as u32,
                player_first: world.players,
                players: (PLAYERS * share).ceil() as u32,
            };
            world.put_cells(&hunt, index as u16, (city.lat, city.lon), &mut random);
            world.players += hunt.players;
            world.hunts.push(hunt);
            people += here;
            world.people.push(people);
        }
        world
    }

    fn put_cells(&mut self, hunt: &Hunt, number: u16, centre: (f64, f64), random: &mut Random) {
        let mut taken = HashSet::new();
        while taken.len() < hunt.cells as usize {
            // The difference of two uniform draws peaks at the centre.
            let mut near =
                |degrees: f64| degrees + (random.unit() - random.unit()) * CITY_REACH_DEGREES;
            let id = morton(near(centre.0), near(centre.1));
            if taken.insert(id) {
                let hotspot = hotspot(taken.len() as u64, random);
                self.cells.push(Cell { hunt: number, id, hotspot });
            }
        }
    }

    /// A hunt, by people.
    pub fn hunt(&self, random: &mut Random) -> &Hunt {
        let all = self.people.last().copied().unwrap_or(0.0);
        let at = random.unit() * all;
        let index = self.people.partition_point(|upto| *upto <= at);
        &self.hunts[index.min(self.hunts.len() - 1)]
    }

    /// What somebody in `hunt` does next.
    pub fn event(&self, hunt: &Hunt, key: [u8; 16], random: &mut Random) -> Event {
        let player = hunt.player_first + random.below(hunt.players.into()) as u32;
        let kind = match random.below(100) {
            0..60 => EventKind::CollectItem,
            60..72 => EventKind::UseKey,
            72..78 => EventKind::Claim,
            78..92 => EventKind::WalletCredit,
            _ => EventKind::WalletSpend,
        };
        let amount = match kind {
            EventKind::WalletCredit => 1 + random.below(100) as u32,
            EventKind::WalletSpend => 1 + random.below(150) as u32,
            _ => 0,
        };
        Event { key, player, cell: self.cell_for(hunt, kind, random), amount, kind }
    }

    /// A hotspot that `kind` makes sense at.
    fn cell_for(&self, hunt: &Hunt, kind: EventKind, random: &mut Random) -> u32 {
        let wanted = match kind {
            EventKind::UseKey => HotspotKind::Chest,
            EventKind::Claim => HotspotKind::Ticket,
            _ => HotspotKind::Item,
        };
        let drawn = random.below(hunt.cells.into()) as u32;
        // Kinds repeat within eight neighbours.
        (0..8)
            .map(|step| hunt.cell_first + (drawn + step) % hunt.cells)
            .find(|cell| self.cells[*cell as usize].hotspot.kind == wanted)
            .unwrap_or(hunt.cell_first + drawn)
    }

    /// The hunt of an event.
    #[must_use]
    pub fn hunt_of(&self, event: &Event) -> &Hunt {
        &self.hunts[usize::from(self.cells[event.cell as usize].hunt)]
    }

    /// The event that puts a hotspot there.
    #[must_use]
    pub fn spawn(&self, cell: u32, key: [u8; 16]) -> Event {
        let hunt = &self.hunts[usize::from(self.cells[cell as usize].hunt)];
        Event { key, player: hunt.player_first, cell, amount: 0, kind: EventKind::HotspotSpawn }
    }

    /// Subject and argument of an event on the wire.
    #[must_use]
    pub fn wire(&self, event: &Event) -> (u64, u64) {
        let cell = &self.cells[event.cell as usize];
        match event.kind {
            EventKind::WalletCredit | EventKind::WalletSpend => (0, event.amount.into()),
            // Every field was drawn within its range.
            EventKind::HotspotSpawn => (cell.id, cell.hotspot.pack().unwrap_or(0)),
            _ => (cell.id, 0),
        }
    }

    /// Share of all events that the hottest hunt gets.
    #[must_use]
    pub fn hottest_share(&self) -> f64 {
        match (self.people.first(), self.people.last()) {
            (Some(first), Some(all)) => first / all,
            _ => 0.0,
        }
    }
}

/// Id of a player on the wire.
#[must_use]
pub const fn player_id(player: u32) -> u64 {
    player as u64 + 1
}

/// Of eight neighbours six give items, one is a chest, one a ticket. Few
/// enough items that some hotspots run dry.
fn hotspot(number: u64, random: &mut Random) -> Hotspot {
    let item = (number % u64::from(ITEM_TYPES)) as u8;
    let reward = 1 + random.below(50) as u32;
    let (kind, item, remaining) = match number % 8 {
        6 => (HotspotKind::Chest, (number / 8 % u64::from(ITEM_TYPES)) as u8, 100),
        7 => (HotspotKind::Ticket, 0, 1),
        _ => (HotspotKind::Item, item, 20 + random.below(180) as u16),
    };
    Hotspot { kind, item, remaining, reward, lifetime_s: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_of_its_hunt_and_makes_sense() {
        let world = World::new(7);
        assert_eq!((world.hunts.len(), world.hunts[0].city), (HUNTS, "Shanghai"));
        let mut random = Random::new(1);
        let mut hottest = 0;
        for _ in 0..20_000 {
            let hunt = world.hunt(&mut random);
            hottest += u32::from(hunt.domain == 1);
            let event = world.event(hunt, [0; 16], &mut random);
            assert_eq!(world.hunt_of(&event).domain, hunt.domain);
            assert!((hunt.player_first..hunt.player_first + hunt.players).contains(&event.player));
            let (subject, argument) = world.wire(&event);
            let wallet = matches!(event.kind, EventKind::WalletCredit | EventKind::WalletSpend);
            assert_eq!((subject == 0, argument != 0), (wallet, wallet), "{event:?}");
        }
        let wanted = world.hottest_share() * 20_000.0;
        assert!((f64::from(hottest) - wanted).abs() < 150.0, "{hottest} of {wanted}");
    }

    #[test]
    fn every_hotspot_can_be_put() {
        let world = World::new(8);
        for cell in 0..world.cells.len() as u32 {
            let (_, argument) = world.wire(&world.spawn(cell, [0; 16]));
            assert!(Hotspot::unpack(argument).is_some(), "{cell}");
        }
    }
}
