//! Every event of the world, by number.
//!
//! Each partition sees the same numbers in its own hunts. First come all cells,
//! then all players, [`RUN`] in one hunt and the next in another; then ordinary
//! traffic of the cells and players of a hunt, each drawn anew.

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind};
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::Event;

/// Hunts of a partition.
pub const HUNTS: u64 = 16;

/// Events of a datagram, all of one hunt.
pub const RUN: u64 = 24;

/// Key time of the first event, ms since the Unix epoch.
pub const START_MS: u64 = 1_700_000_000_000;

/// How much there is in one partition.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Cells.
    pub cells: u64,
    /// Players.
    pub players: u64,
    /// Idempotency keys: events before the snapshot.
    pub keys: u64,
}

impl Scale {
    /// Least cells and players of a partition: a few of each hunt.
    pub const LEAST: u64 = 2 * RUN * HUNTS;

    /// A cell of a hunt, drawn by `random`.
    fn cell(&self, hunt: u64, random: u64) -> u64 {
        drawn(0, self.cells, hunt, random)
    }

    /// A player of a hunt, drawn by `random`.
    fn player(&self, hunt: u64, random: u64) -> u64 {
        drawn(self.cells, self.players, hunt, random)
    }

    /// Event `i`, which happens in [`hunt_of`] it if it makes a cell or a
    /// player, in any hunt otherwise.
    #[must_use]
    pub fn event<'a>(&self, i: u64, hunt: u64, key_ms: u64) -> Event<'a> {
        let random = mix(i);
        let (mut player, mut subject) = (self.player(hunt, mix(random)), 0);
        let (kind, argument) = if i < self.cells {
            subject = scatter(i);
            let hotspot = Hotspot {
                kind: HotspotKind::Item,
                item: (i % 8) as u8,
                remaining: 1_000 + (i % 1_000) as u16,
                reward: 1 + (i % 50) as u32,
                lifetime_s: 86_400,
            };
            (EventKind::HotspotSpawn, hotspot.pack().unwrap_or(0))
        } else if i < self.cells + self.players {
            player = i;
            (EventKind::WalletCredit, 1_000 + i % 1_000)
        } else {
            match random % 8 {
                0 => (EventKind::WalletCredit, 1 + random % 50),
                1 => (EventKind::WalletSpend, 1 + random % 50),
                _ => {
                    subject = scatter(self.cell(hunt, random));
                    (EventKind::CollectItem, 0)
                }
            }
        };
        let mut key = [0; 16];
        key[..6].copy_from_slice(&key_ms.to_be_bytes()[2..]);
        key[6] = 0x70;
        key[8..].copy_from_slice(&(scatter(i) | 1 << 63).to_be_bytes());
        let player = scatter(player) | 1 << 60;
        Event { key, player, subject, argument, kind: kind.code(), reserved: 0, payload: &[] }
    }
}

/// Number of the hunt in which event `i` makes its cell or player.
#[must_use]
pub const fn hunt_of(i: u64) -> u64 {
    i / RUN % HUNTS
}

/// One of the numbers `first..first + count` that were made in `hunt`.
fn drawn(first: u64, count: u64, hunt: u64, random: u64) -> u64 {
    let from = first.div_ceil(RUN);
    let rounds = (((first + count) / RUN).saturating_sub(from) / HUNTS).max(1);
    let ahead = (hunt + HUNTS - from % HUNTS) % HUNTS;
    let run = from + (random >> 8) % rounds * HUNTS + ahead;
    run * RUN + (random >> 48) % RUN
}

/// A bijection of 60 bits, so that ids come in no order.
fn scatter(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << 60) - 1);
    x ^= x >> 29;
    x.wrapping_mul(0xbf58_476d_1ce4_e5b9) & ((1 << 60) - 1)
}

/// Random bits of a number (splitmix64).
#[must_use]
pub const fn mix(i: u64) -> u64 {
    let x = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Domain keys of each partition's hunts.
#[must_use]
pub fn domains(partitions: u16) -> Vec<Vec<u64>> {
    let mut domains: Vec<Vec<u64>> = vec![Vec::new(); usize::from(partitions)];
    let mut lacking = domains.len();
    for domain in 0.. {
        let of = &mut domains[usize::from(partition_of(domain, partitions))];
        if of.len() < HUNTS as usize {
            of.push(domain);
            lacking -= usize::from(of.len() == HUNTS as usize);
        }
        if lacking == 0 {
            break;
        }
    }
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_of_cells_and_players_of_its_hunt() {
        let scale = Scale { cells: 2_000, players: 1_601, keys: 0 };
        for hunt in 0..HUNTS {
            for random in (0..1_000).map(mix) {
                let cell = scale.cell(hunt, random);
                assert!(cell < scale.cells && hunt_of(cell) == hunt, "{cell}");
                let player = scale.player(hunt, random);
                assert!((2_000..3_601).contains(&player) && hunt_of(player) == hunt, "{player}");
            }
        }
    }
}
