//! Hunts that outgrow a core: one hunt as several domains, its regions.
//!
//! ```text
//!   cell    60 bits  | skip bits | region bits | the rest |      its region holds the hotspot
//!   player  ---- mix ----------> | region bits | the rest |      its home holds wallet, items, score
//!   region r of the hunt --------> a domain key of its own, and so a partition
//! ```
//!
//! Player and cell of one event may lie in different regions. What a player does is
//! sent to the player's home, what is done to a cell to the cell's region; the server
//! carries what one owes the other.

use crate::kinds::{CELL_BITS, Quota};
use crate::partition::mix;

/// Most bits of a split: 256 regions.
pub const SPLIT_BITS_MAX: u8 = 8;

/// How a hunt is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    /// There are 2 to the power of so many regions: 1 to [`SPLIT_BITS_MAX`].
    pub bits: u8,
    /// Leading bits of a cell's id that do not count. 0 for a hunt all over the world;
    /// more for one in a town, whose cells have their first bits in common.
    pub skip: u8,
}

impl Split {
    /// The split of these bits; `None` when there are none, too many, or more than a
    /// cell's id has.
    #[must_use]
    pub const fn new(bits: u8, skip: u8) -> Option<Self> {
        let is_sound = bits >= 1 && bits <= SPLIT_BITS_MAX;
        let fits = bits as u32 + skip as u32 <= CELL_BITS;
        if is_sound && fits { Some(Self { bits, skip }) } else { None }
    }

    /// Regions there are.
    #[must_use]
    pub const fn regions(self) -> u16 {
        1 << self.bits
    }

    /// The region of a cell.
    #[must_use]
    #[inline(always)]
    pub const fn of_cell(self, cell: u64) -> u16 {
        let shift = CELL_BITS - self.skip as u32 - self.bits as u32;
        (cell >> shift) as u16 & (self.regions() - 1)
    }

    /// The home of a player.
    #[must_use]
    #[inline(always)]
    pub const fn home_of(self, player: u64) -> u16 {
        (mix(player) >> (u64::BITS - self.bits as u32)) as u16
    }

    /// Domain key of a region of the hunt `root`. Two hunts have one in common with a
    /// chance of 2 to the power of -64 a pair of regions.
    #[must_use]
    #[inline(always)]
    pub const fn domain(self, root: u64, region: u16) -> u64 {
        mix(mix(root) ^ ((self.bits as u64) << 24 | (self.skip as u64) << 16 | region as u64))
    }
}

/// A region of a hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The hunt's own key, which no event is sent to.
    pub root: u64,
    /// How it is divided.
    pub split: Split,
    /// Which region, below [`Split::regions`].
    pub number: u16,
}

impl Region {
    /// Its bytes: behind the quota in the payload of hunt-open, and in the row of a hunt.
    pub const BYTES: usize = 16;

    /// Its domain key.
    #[must_use]
    pub const fn domain(&self) -> u64 {
        self.split.domain(self.root, self.number)
    }

    /// The bytes.
    ///
    /// ```text
    ///  0      8      9      10       12     16
    ///  | root | bits | skip | number | zero |
    /// ```
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.root.to_le_bytes());
        (out[8], out[9]) = (self.split.bits, self.split.skip);
        out[10..12].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    /// The region of these bytes; `None` when they name none.
    #[must_use]
    pub fn of(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let [r0, r1, r2, r3, r4, r5, r6, r7, bits, skip, n0, n1, 0, 0, 0, 0] = *bytes else {
            return None;
        };
        let root = u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        let (split, number) = (Split::new(bits, skip)?, u16::from_le_bytes([n0, n1]));
        (number < split.regions()).then_some(Self { root, split, number })
    }
}

/// Payload of [`crate::EventKind::HuntOpen`]: nothing, a [`Quota`], or a quota and a
/// [`Region`] behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Whose the hunt is and what it, or this region of it, may use.
    pub quota: Quota,
    /// The region that is opened; `None` for a hunt in one piece.
    pub region: Option<Region>,
}

impl Opening {
    /// Bytes of the longest payload.
    pub const BYTES: usize = Quota::BYTES + Region::BYTES;

    /// What a payload says; `None` when it makes no sense.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (quota, region) = payload.split_at(payload.len().min(Quota::BYTES));
        let quota = Quota::of(quota)?;
        let region = match region {
            [] => None,
            region => Some(Region::of(region.try_into().ok()?)?),
        };
        Some(Self { quota, region })
    }

    /// The payload of a region's opening.
    #[must_use]
    pub fn bytes_of_region(quota: &Quota, region: &Region) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..Quota::BYTES].copy_from_slice(&quota.bytes());
        out[Quota::BYTES..].copy_from_slice(&region.bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::partition_of;

    #[test]
    fn cells_and_players_have_one_region_each() {
        let split = Split::new(4, 0).unwrap();
        assert_eq!(split.regions(), 16);
        assert_eq!(split.of_cell(0), 0);
        assert_eq!(split.of_cell((1 << CELL_BITS) - 1), 15);
        assert_eq!(split.of_cell(1 << 56), 1);
        let in_town = Split::new(2, 58).unwrap();
        assert_eq!([0, 1, 2, 3, 4].map(|cell| in_town.of_cell(cell)), [0, 1, 2, 3, 0]);
        let mut players = [0u32; 16];
        (0..16_000).for_each(|player| players[usize::from(split.home_of(player))] += 1);
        assert!(players.iter().all(|n| (850..1_150).contains(n)), "{players:?}");
    }

    #[test]
    fn regions_spread_over_partitions() {
        let split = Split::new(8, 0).unwrap();
        let mut counts = [0u32; 16];
        for root in 0..40 {
            for region in 0..split.regions() {
                counts[usize::from(partition_of(split.domain(root, region), 16))] += 1;
            }
        }
        assert!(counts.iter().all(|n| (550..740).contains(n)), "{counts:?}");
    }

    #[test]
    fn splits_that_cannot_be_are_none() {
        for (bits, skip) in [(0, 0), (9, 0), (1, 60), (8, 53), (255, 255), (1, 255)] {
            assert_eq!(Split::new(bits, skip), None, "{bits} {skip}");
        }
        assert!(Split::new(8, 52).is_some());
    }

    #[test]
    fn openings_travel_whole() {
        let split = Split::new(3, 5).unwrap();
        let region = Region { root: 7, split, number: 6 };
        let quota = Quota { tenant: 1, ..Quota::default() };
        let bytes = Opening::bytes_of_region(&quota, &region);
        assert_eq!(Opening::of(&bytes), Some(Opening { quota, region: Some(region) }));
        assert_eq!(Opening::of(&[]), Some(Opening::default()));
        assert_eq!(Opening::of(&quota.bytes()), Some(Opening { quota, region: None }));
        for (at, byte) in [(24, 0), (24, 9), (26, 8), (27, 1), (28, 1), (31, 1)] {
            let mut nonsense = bytes;
            nonsense[at] = byte;
            assert_eq!(Opening::of(&nonsense), None, "byte {at} is {byte}");
        }
        for len in (1..16).chain(17..32) {
            assert_eq!(Opening::of(&bytes[..len]), None, "{len} bytes");
        }
    }

    /// Clients and data directories rely on these.
    #[test]
    fn regions_never_change() {
        let split = Split::new(4, 2).unwrap();
        let got = [0, 1, 15].map(|region| split.domain(42, region));
        assert_eq!(got, FIXED_DOMAINS);
        assert_eq!([0, 1, 2, u64::MAX].map(|player| split.home_of(player)), FIXED_HOMES);
    }

    const FIXED_DOMAINS: [u64; 3] =
        [0xb5f1_25eb_b875_1bdb, 0x5658_ff68_912a_a2a2, 0x7a75_838d_732c_6da5];
    const FIXED_HOMES: [u16; 4] = [14, 9, 9, 14];
}
