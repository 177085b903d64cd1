//! The running digest of a partition: what replicas compare.
//!
//! Two numbers, each a chain over everything that happened: every outcome with
//! the key it was given to, and every record as it was written. Replicas that
//! applied the same entries have the same digest, wherever their records lie in
//! memory and however often they were restored from a snapshot. It finds rot
//! and bugs; it is no defence against somebody who chooses events to hide a
//! difference.

use zerocopy::IntoBytes;

use super::rules::{HotspotState, PlayerState};
use crate::index::{Deed, Definition, Hunt};

/// Digest of a partition after some epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Of every outcome given, in order.
    pub outcomes: u64,
    /// Of every record written, in order.
    pub state: u64,
}

// Digits of pi: bits well spread, and no digest of all zeros stays one.
const K: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

/// Both halves of the product, folded: every bit of the result depends on both.
#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl Digest {
    /// The event of `key` got the outcome byte `outcome`; `first_epoch` is the
    /// epoch of its first application if it is a duplicate, else 0.
    #[inline(always)]
    pub(super) fn outcome(&mut self, key: &[u8; 16], outcome: u8, first_epoch: u64) {
        let [low, high] = halves(key);
        let what = first_epoch << 8 | u64::from(outcome);
        self.outcomes = mix(self.outcomes ^ low ^ K[3], high ^ K[0] ^ what);
    }

    /// The hotspot on `cell` was written; `claimed_by` is the player that claimed it.
    #[inline(always)]
    pub(super) fn cell(
        &mut self,
        domain: u64,
        cell: u64,
        hotspot: &HotspotState,
        claimed_by: Option<u64>,
    ) {
        let what = u64::from(hotspot.expiry_s) << 32
            | u64::from(hotspot.remaining) << 16
            | u64::from(hotspot.item) << 8
            | hotspot.kind as u64;
        let whom = claimed_by.map_or(0, |player| mix(player ^ K[1], K[2]));
        let record = mix(domain ^ K[0], cell ^ K[1])
            ^ mix(what ^ K[2], u64::from(hotspot.reward) ^ whom ^ K[3]);
        self.state = mix(self.state ^ record, K[0]);
    }

    /// A player was written, whose score is what it is since `score_epoch`.
    #[inline(always)]
    pub(super) fn player(&mut self, domain: u64, id: u64, player: &PlayerState, score_epoch: u64) {
        let items = |from: usize| {
            player.inventory[from..from + 4].iter().fold(0, |word, n| word << 16 | u64::from(*n))
        };
        let team = u64::from(player.team) << 40
            | u64::from(player.power) << 32
            | u64::from(player.power_until_s);
        let record = mix(domain ^ K[1], id ^ K[2])
            ^ mix(player.wallet ^ K[3], player.score ^ K[0])
            ^ mix(items(0) ^ K[2], items(4) ^ K[1])
            ^ mix(score_epoch ^ K[1], player.place ^ K[3])
            ^ mix(team ^ K[0], K[2]);
        self.state = mix(self.state ^ record, K[1]);
    }

    /// A hunt was written; `winner` is the player that would win its pot.
    pub(super) fn hunt(&mut self, hunt: &Hunt, winner: Option<u64>) {
        // A slot says the same on every replica, since players are numbered in the
        // order in which they were first seen; who it is says it to a reader too.
        let whom = winner.map_or(0, |player| mix(player ^ K[1], K[2]));
        self.bytes(hunt.as_bytes(), whom ^ K[2]);
    }

    /// A quest or treasure type of the hunt `domain` was written.
    pub(super) fn definition(&mut self, domain: u64, definition: &Definition) {
        self.bytes(definition.as_bytes(), domain ^ K[3]);
    }

    /// Marks of `player` in the hunt `domain` were written.
    pub(super) fn deed(&mut self, domain: u64, player: u64, deed: &Deed) {
        self.bytes(deed.as_bytes(), mix(domain ^ K[0], player ^ K[3]));
    }

    /// A request or a reply was kept.
    pub(super) fn effect(&mut self, effect: &[u8]) {
        self.bytes(effect, K[1]);
    }

    fn bytes(&mut self, bytes: &[u8], what: u64) {
        let chunks = bytes.as_chunks::<16>().0;
        let record = chunks.iter().fold(what, |record, chunk| {
            let [low, high] = halves(chunk);
            mix(record ^ low ^ K[1], high ^ K[2])
        });
        self.state = mix(self.state ^ record, K[2]);
    }
}

#[inline(always)]
const fn halves(key: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*key);
    [both as u64, (both >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::kinds::HotspotKind;

    const HOTSPOT: HotspotState = HotspotState {
        kind: HotspotKind::Item,
        item: 1,
        remaining: 2,
        reward: 3,
        expiry_s: 4,
        claimed: false,
    };
    const PLAYER: PlayerState = PlayerState {
        wallet: 5,
        score: 6,
        inventory: [1, 2, 3, 4, 5, 6, 7, 8],
        team: 9,
        power: 10,
        power_until_s: 11,
        place: 12,
    };

    fn cell(domain: u64, cell: u64, hotspot: HotspotState, by: Option<u64>) -> u64 {
        let mut digest = Digest::default();
        digest.cell(domain, cell, &hotspot, by);
        digest.state
    }

    fn player(domain: u64, id: u64, player: PlayerState) -> u64 {
        player_since(domain, id, player, 7)
    }

    fn player_since(domain: u64, id: u64, player: PlayerState, score_epoch: u64) -> u64 {
        let mut digest = Digest::default();
        digest.player(domain, id, &player, score_epoch);
        digest.state
    }

    #[test]
    fn every_field_counts() {
        let mut seen = vec![
            cell(1, 2, HOTSPOT, None),
            cell(9, 2, HOTSPOT, None),
            cell(1, 9, HOTSPOT, None),
            cell(1, 2, HotspotState { kind: HotspotKind::Chest, ..HOTSPOT }, None),
            cell(1, 2, HotspotState { item: 9, ..HOTSPOT }, None),
            cell(1, 2, HotspotState { remaining: 9, ..HOTSPOT }, None),
            cell(1, 2, HotspotState { reward: 9, ..HOTSPOT }, None),
            cell(1, 2, HotspotState { expiry_s: 9, ..HOTSPOT }, None),
            cell(1, 2, HOTSPOT, Some(0)),
            cell(1, 2, HOTSPOT, Some(1)),
            player(1, 2, PLAYER),
            player(9, 2, PLAYER),
            player(1, 9, PLAYER),
            player(1, 2, PlayerState { wallet: 9, ..PLAYER }),
            player(1, 2, PlayerState { score: 9, ..PLAYER }),
            player_since(1, 2, PLAYER, 9),
            player(1, 2, PlayerState { team: 8, ..PLAYER }),
            player(1, 2, PlayerState { power: 9, ..PLAYER }),
            player(1, 2, PlayerState { power_until_s: 9, ..PLAYER }),
            player(1, 2, PlayerState { place: 9, ..PLAYER }),
        ];
        for item in 0..8 {
            let mut other = PLAYER;
            other.inventory[item] = 9;
            seen.push(player(1, 2, other));
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn order_counts() {
        let (a, b) = ([1; 16], [2; 16]);
        let chain = |events: &[([u8; 16], u8, u64)]| {
            let mut digest = Digest::default();
            for (key, outcome, first_epoch) in events {
                digest.outcome(key, *outcome, *first_epoch);
            }
            digest.outcomes
        };
        let first = chain(&[(a, 2, 0), (b, 2, 0)]);
        for other in [
            &[(b, 2, 0), (a, 2, 0)][..],
            &[(a, 2, 0), (b, 3, 0)],
            &[(a, 3, 0), (b, 2, 0)],
            &[(a, 2, 0), (b, 2, 1)],
            &[(a, 2, 0)],
            &[(a, 2, 0), (b, 2, 0), (b, 2, 0)],
        ] {
            assert_ne!(chain(other), first, "{other:?}");
        }
    }
}
