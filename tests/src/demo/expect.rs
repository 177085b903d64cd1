//! What the node must hold, by what it said: every event that a client was told
//! is applied is added up here, and nothing else is.
//!
//! Hotspots are put once and everything else adds or takes, so the sum does
//! not depend on the order in which acks came; no rule is asked whether an
//! outcome was right. An event that the node lost, or applied twice, or
//! answered otherwise than it did, leaves a difference.

use veltrix_abi::Outcome;
use veltrix_abi::kinds::{EventKind, ITEM_TYPES};

use super::world::{Event, World};

/// A hotspot that was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellSum {
    /// Times its put was applied: 1.
    pub put: u32,
    /// Times it was taken from.
    pub taken: i64,
    /// Who claimed it last.
    pub claimed_by: Option<u32>,
}

/// A player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayerSum {
    /// Whether anything of the player's was applied.
    pub known: bool,
    /// Money.
    pub wallet: i64,
    /// Points.
    pub score: i64,
    /// Items of each type.
    pub inventory: [i64; ITEM_TYPES as usize],
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Expected {
    /// By the hotspot's number.
    pub cells: Vec<CellSum>,
    /// By the player's number.
    pub players: Vec<PlayerSum>,
}

impl Expected {
    /// A world before its first event.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self {
            cells: vec![CellSum::default(); world.cells.len()],
            players: vec![PlayerSum::default(); world.players as usize],
        }
    }

    /// A client was told the outcome of an event, for the first time.
    pub fn told(&mut self, world: &World, event: &Event, outcome: Outcome) {
        if outcome != Outcome::Applied {
            return;
        }
        let hotspot = &world.cells[event.cell as usize].hotspot;
        let cell = &mut self.cells[event.cell as usize];
        if event.kind == EventKind::HotspotSpawn {
            cell.put += 1;
            return;
        }
        let player = &mut self.players[event.player as usize];
        player.known = true;
        let reward = i64::from(hotspot.reward);
        let item = usize::from(hotspot.item);
        match event.kind {
            EventKind::WalletCredit => player.wallet += i64::from(event.amount),
            EventKind::WalletSpend => player.wallet -= i64::from(event.amount),
            EventKind::CollectItem => {
                cell.taken += 1;
                player.inventory[item] += 1;
                player.score += reward;
            }
            EventKind::UseKey => {
                cell.taken += 1;
                player.inventory[item] -= 1;
                player.wallet += reward;
                player.score += reward;
            }
            EventKind::Claim => {
                cell.taken += 1;
                cell.claimed_by = Some(event.player);
                player.wallet += reward;
                player.score += reward;
            }
            // The first is counted above; the crowd asks for none of the others.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::kinds::HotspotKind;
    use veltrix_client::codec::Random;

    #[test]
    fn only_what_was_applied_counts_and_its_order_does_not() {
        let world = World::new(3);
        let mut random = Random::new(9);
        let hunt = &world.hunts[0];
        let events: Vec<Event> =
            (0..500).map(|_| world.event(hunt, [0; 16], &mut random)).collect();
        let (mut there, mut back) = (Expected::new(&world), Expected::new(&world));
        // A ticket is claimed once; of two claims the last one told would stand.
        let is_claim = |event: &&Event| event.kind == EventKind::Claim;
        for event in events.iter().filter(|event| !is_claim(event)) {
            there.told(&world, event, Outcome::Applied);
            there.told(&world, event, Outcome::AlreadyClaimed);
        }
        for event in events.iter().rev().filter(|event| !is_claim(event)) {
            back.told(&world, event, Outcome::Applied);
        }
        assert_eq!((&there.cells, &there.players), (&back.cells, &back.players));
        let claim = events.iter().find(is_claim).unwrap();
        there.told(&world, claim, Outcome::Applied);
        assert_eq!(there.cells[claim.cell as usize].claimed_by, Some(claim.player));
        assert_eq!(world.cells[claim.cell as usize].hotspot.kind, HotspotKind::Ticket);
    }
}
