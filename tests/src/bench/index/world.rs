//! Partitions full of cells.

use anyhow::{Context as _, Result};
use veltrix::index::{Cell, HuntId, Index, IndexLimits, Player, morton_of};
use veltrix_abi::kinds::{Hotspot, HotspotKind};

/// Hunts of a partition.
pub const HUNTS: u16 = 8;
/// Side of a hunt's field in units of the 30-bit coordinate: 39 km where a unit
/// is 3.7 cm of the equator.
pub const FIELD_SIDE: u32 = 1 << 20;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Partitions.
    pub partitions: usize,
    /// Cells of each.
    pub cells: u32,
    /// Players of each.
    pub players: u32,
}

impl Scale {
    /// What one of its partitions may hold: exactly what it is given.
    #[must_use]
    pub fn limits(&self) -> IndexLimits {
        IndexLimits {
            cells_max: self.cells,
            players_max: self.players,
            hunts_max: 4_096,
            definitions_max: 16,
            deeds_max: 100,
        }
    }
}

/// A node full of cells: 12 M cells, 10 M players.
pub const NODE: Scale = Scale { partitions: 64, cells: 187_500, players: 156_250 };

/// A cell by its place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of the partition.
    pub partition: usize,
    /// Hunt in it.
    pub hunt: HuntId,
    /// Cell id.
    pub id: u64,
}

/// Full partitions and what is in them.
pub struct World {
    /// One index a partition.
    pub partitions: Vec<Index>,
    /// Every cell, partition by partition.
    pub cells: Vec<Vec<(HuntId, u64)>>,
}

/// Splitmix64: the same world every time.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.word()) * bound as u128) >> 64) as usize
    }
}

/// Lower corner of a hunt's field: fields do not overlap within a partition.
#[must_use]
pub fn corner(partition: usize, hunt: HuntId) -> (u32, u32) {
    let (x, y) = (u32::from(hunt.number()) % 512, partition as u32 % 512);
    (x * 2 * FIELD_SIDE, y * 2 * FIELD_SIDE)
}

impl World {
    /// Fills partitions to their last cell, cells in no order.
    ///
    /// # Errors
    ///
    /// Memory that cannot be had; an index that is full before its limit.
    pub fn new(scale: Scale) -> Result<Self> {
        let mut world = Self { partitions: Vec::new(), cells: Vec::new() };
        for partition in 0..scale.partitions {
            let mut index = Index::new(&scale.limits()).context("memory for the index")?;
            let cells = fill(&mut index, partition, scale)?;
            world.partitions.push(index);
            world.cells.push(cells);
        }
        Ok(world)
    }

    /// `count` cells drawn at random, `stretch` after one another from the same
    /// partition.
    #[must_use]
    pub fn draw(&self, count: usize, stretch: usize, random: &mut Random) -> Vec<Place> {
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            let partition = random.below(self.cells.len());
            for _ in 0..stretch {
                let (hunt, id) = self.cells[partition][random.below(self.cells[partition].len())];
                places.push(Place { partition, hunt, id });
            }
        }
        places
    }
}

fn fill(index: &mut Index, partition: usize, scale: Scale) -> Result<Vec<(HuntId, u64)>> {
    let mut random = Random(partition as u64);
    let hunts: Vec<HuntId> = (0..HUNTS)
        .map(|hunt| index.hunt_insert(u64::from(hunt) << 32 | partition as u64))
        .collect::<Result<_, _>>()?;
    let item = Hotspot {
        kind: HotspotKind::Item,
        item: 1,
        remaining: u16::MAX,
        reward: 10,
        lifetime_s: 0,
    };
    let mut cells = Vec::with_capacity(scale.cells as usize);
    while index.cells_len() < scale.cells {
        let hunt = hunts[index.cells_len() as usize % hunts.len()];
        let (x, y) = corner(partition, hunt);
        let side = FIELD_SIDE as usize;
        let id = morton_of(x + random.below(side) as u32, y + random.below(side) as u32);
        if index.cell_slot(hunt, id).is_none() {
            index.cell_insert(Cell::new(hunt, id, &item, 0))?;
            cells.push((hunt, id));
        }
    }
    for i in 0..scale.players {
        let hunt = hunts[i as usize % hunts.len()];
        index.player_insert(Player::new(hunt, random.word()))?;
    }
    Ok(cells)
}
