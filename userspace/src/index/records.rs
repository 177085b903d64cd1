//! What an index holds: plain records without padding, so that a table of them
//! is also the bytes of a snapshot.

use std::io;

use veltrix_abi::kinds::{Hotspot, HotspotKind, REWARD_MAX, SCORE_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most cells or players of one partition. At 6 GB of cells a partition is far
/// too much for one owner, and no count of words or nodes overflows below it.
pub const RECORDS_MAX: u32 = (1 << 28) - 1;

/// Capacities of one partition; they never change after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimits {
    /// Most cells with a hotspot, at most [`RECORDS_MAX`].
    pub cells_max: u32,
    /// Most players, counted once for each hunt they play in, at most
    /// [`RECORDS_MAX`].
    pub players_max: u32,
    /// Most hunts.
    pub hunts_max: u16,
}

impl IndexLimits {
    /// # Errors
    ///
    /// `InvalidInput` for a capacity over [`RECORDS_MAX`].
    pub(super) fn check(&self) -> io::Result<()> {
        for (what, seen) in [("cells_max", self.cells_max), ("players_max", self.players_max)] {
            if seen > RECORDS_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "{what} is {seen} for one partition, over {RECORDS_MAX}: format with more partitions"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A hunt of this partition, by the order in which hunts were first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HuntId(pub(super) u16);

impl HuntId {
    /// Its number, counted from 0.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Where a cell's record lies. Good until that cell is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellSlot(pub(super) u32);

/// Where a player's record lies. Good for ever: players are not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlayerSlot(pub(super) u32);

impl PlayerSlot {
    /// What [`Cell::claimed_by`] holds for this player: never 0.
    #[must_use]
    pub const fn mark(self) -> u32 {
        self.0 + 1
    }

    /// The player that [`Cell::claimed_by`] names; `None` for nobody.
    #[must_use]
    pub const fn of_mark(mark: u32) -> Option<Self> {
        match mark.checked_sub(1) {
            Some(slot) => Some(Self(slot)),
            None => None,
        }
    }
}

/// Where a record was when it was asked for, by its hash alone: perhaps the
/// wrong one, perhaps gone by now. Whoever uses it compares keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHint(pub(super) u32);

impl SlotHint {
    /// Nothing is known. No slot has this number.
    pub const NONE: Self = Self(u32::MAX);
}

/// The capacity that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// No cell is left.
    #[error("all {0} cells of the partition are in use")]
    Cells(u32),
    /// No player is left.
    #[error("all {0} players of the partition are in use")]
    Players(u32),
    /// No hunt is left.
    #[error("all {0} hunts of the partition are in use")]
    Hunts(u16),
}

/// A cell with its hotspot, 24 bytes.
///
/// ```text
///  0       8     10          12         16           20              24
///  | id    | hunt| remaining | expiry_s | claimed_by | kind item reward |
///                                                      2 b  6 b  24 b
/// ```
///
/// All zero is the record of a slot without a cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Cell {
    pub(super) id: u64,
    pub(super) hunt: u16,
    /// Times the hotspot can still be taken.
    pub remaining: u16,
    /// Log time at which it ends, seconds since the Unix epoch; 0 = never.
    pub expiry_s: u32,
    /// [`PlayerSlot::mark`] of the player who claimed it; 0 = nobody.
    pub claimed_by: u32,
    /// Bits 0..2 kind, 2..8 item, 8..32 reward; 0 = no cell here.
    pub(super) what: u32,
}

impl Cell {
    /// The cell `id` of `hunt` with a new hotspot, claimed by nobody.
    #[must_use]
    #[inline]
    pub const fn new(hunt: HuntId, id: u64, hotspot: &Hotspot, expiry_s: u32) -> Self {
        let item = hotspot.item as u32 & 0x3f;
        let what = hotspot.kind as u32 | item << 2 | (hotspot.reward & REWARD_MAX) << 8;
        Self { id, hunt: hunt.0, remaining: hotspot.remaining, expiry_s, claimed_by: 0, what }
    }

    /// Cell id, 60 bits.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The hunt it belongs to.
    #[must_use]
    pub const fn hunt(&self) -> HuntId {
        HuntId(self.hunt)
    }

    /// What the hotspot is; `None` for a slot without a cell.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> Option<HotspotKind> {
        match self.what & 3 {
            1 => Some(HotspotKind::Item),
            2 => Some(HotspotKind::Chest),
            3 => Some(HotspotKind::Ticket),
            _ => None,
        }
    }

    /// Item type it gives or wants, below `ITEM_TYPES`.
    #[must_use]
    #[inline]
    pub const fn item(&self) -> u8 {
        (self.what >> 2 & 0x3f) as u8
    }

    /// Its reward, at most `REWARD_MAX`.
    #[must_use]
    #[inline]
    pub const fn reward(&self) -> u32 {
        self.what >> 8
    }

    /// Whether the slot holds no cell.
    #[must_use]
    #[inline]
    pub const fn is_vacant(&self) -> bool {
        self.what & 3 == 0
    }

    /// What cells are ordered by.
    #[inline(always)]
    pub(super) const fn key(&self) -> OrderKey {
        OrderKey { hunt: self.hunt, id: self.id }
    }
}

/// Order of cells: hunt by hunt, by id within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderKey {
    pub(super) hunt: u16,
    pub(super) id: u64,
}

/// What a player has in one hunt: 64 bytes, so that each lies on one cache line.
/// At 48 every other one lay on two, and an event that touches a player asked for
/// both. The room is for what players will own besides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Player {
    pub(super) player: u64,
    /// Balance.
    pub wallet: u64,
    /// Points, at most `SCORE_MAX`.
    pub score: u64,
    /// Items by type.
    pub inventory: [u16; 8],
    pub(super) hunt: u16,
    pub(super) spare: [u16; 3],
    /// Epoch at which the score came to be what it is; 0 without one.
    pub score_epoch: u64,
    pub(super) room: u64,
}

impl Player {
    /// `player` in `hunt`, with nothing yet.
    #[must_use]
    #[inline]
    pub const fn new(hunt: HuntId, player: u64) -> Self {
        Self {
            player,
            wallet: 0,
            score: 0,
            inventory: [0; 8],
            hunt: hunt.0,
            spare: [0; 3],
            score_epoch: 0,
            room: 0,
        }
    }

    /// The player's id.
    #[must_use]
    pub const fn player(&self) -> u64 {
        self.player
    }

    /// The hunt this record belongs to.
    #[must_use]
    pub const fn hunt(&self) -> HuntId {
        HuntId(self.hunt)
    }

    /// Whether the bytes that mean nothing are 0 and the score is one that can be.
    pub(super) const fn is_sound(&self) -> bool {
        matches!((self.spare, self.room), ([0, 0, 0], 0)) && self.score <= SCORE_MAX
    }
}

/// What one hunt holds. Counted, and counted again from the records when they
/// are loaded: no part of a snapshot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tally {
    /// Cells with a hotspot, ended ones included.
    pub cells: u32,
    /// Players that were given something.
    pub players: u32,
    /// Epoch of the last change of a score; 0 before the first.
    pub score_epoch: u64,
}

/// Words of a record in the arena.
pub(super) const TALLY_WORDS: usize = size_of::<Tally>() / 8;
/// Words of a record in the arena.
pub(super) const CELL_WORDS: usize = size_of::<Cell>() / 8;
/// Words of a record in the arena.
pub(super) const PLAYER_WORDS: usize = size_of::<Player>() / 8;

const _: () = {
    assert!(size_of::<Cell>() == 24 && align_of::<Cell>() == 8);
    assert!(size_of::<Player>() == 64 && align_of::<Player>() == 8);
    assert!(veltrix_abi::kinds::ITEM_TYPES as usize == 8);
    assert!(REWARD_MAX < 1 << 24);
};
