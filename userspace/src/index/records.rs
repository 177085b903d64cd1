//! What an index holds: plain records without padding, so that a table of them
//! is also the bytes of a snapshot.

use std::io;

use veltrix_abi::kinds::{
    CELL_BITS, Hotspot, HotspotKind, POWER_FACTOR_MAX, REWARD_MAX, SCORE_MAX, TEAMS,
};
use veltrix_abi::limits::EVENT_PAYLOAD_BYTES_MAX;
use veltrix_abi::split::{Region, Split};
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
    /// Most quests and treasure types, at most [`RECORDS_MAX`].
    pub definitions_max: u32,
    /// Most deeds: books of a player that a mark was made in, at most
    /// [`RECORDS_MAX`].
    pub deeds_max: u32,
}

impl IndexLimits {
    /// # Errors
    ///
    /// `InvalidInput` for a capacity over [`RECORDS_MAX`].
    pub(super) fn check(&self) -> io::Result<()> {
        for (what, seen) in [
            ("cells_max", self.cells_max),
            ("players_max", self.players_max),
            ("definitions_max", self.definitions_max),
            ("deeds_max", self.deeds_max),
        ] {
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
    /// No quest or treasure type is left.
    #[error("all {0} definitions of the partition are in use")]
    Definitions(u32),
    /// No deed is left.
    #[error("all {0} deeds of the partition are in use")]
    Deeds(u32),
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

/// Team of a guest: see [`Player::is_guest`].
pub const GUEST: u8 = u8::MAX;

/// What a player has in one hunt: 64 bytes, so that each lies on one cache line.
/// At 48 every other one lay on two, and an event that touches a player asked for
/// both.
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
    /// Team, 1 to [`TEAMS`]; 0 = none.
    pub team: u8,
    /// What points are multiplied by until [`Self::power_until_s`]; 0 = never was
    /// any power-up.
    pub power: u8,
    /// Second of log time at which the power-up ends; 0 = never was any.
    pub power_until_s: u32,
    /// Epoch at which the score came to be what it is; 0 without one.
    pub score_epoch: u64,
    /// Cell id of the last ping, plus 1; 0 = never pinged.
    pub place: u64,
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
            team: 0,
            power: 0,
            power_until_s: 0,
            score_epoch: 0,
            place: 0,
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

    /// Whether the record says only who it is: of a player who is at home in another
    /// region and has claimed a ticket in this one.
    #[must_use]
    #[inline(always)]
    pub const fn is_guest(&self) -> bool {
        self.team == GUEST
    }

    /// Whether score, team, power-up and place are such as can be.
    pub(super) const fn is_sound(&self) -> bool {
        self.score <= SCORE_MAX
            && (self.team as usize <= TEAMS || self.is_guest())
            && match self.power {
                0 => self.power_until_s == 0,
                power => power >= 2 && power <= POWER_FACTOR_MAX,
            }
            && self.place <= 1 << CELL_BITS
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
    /// Players that were given something, or joined; guests are not counted.
    pub players: u32,
    /// Epoch of the last change of a score; 0 before the first.
    pub score_epoch: u64,
    /// Events that a rule has decided, since the index was made or loaded.
    pub events: u64,
}

/// A hunt, 320 bytes: what the rules look at with every event on its first line,
/// what teams own and what it may use behind.
///
/// ```text
///  0        8          12       16     17       18         19           20     24
///  | domain | opened_s | ends_s | game | closed | is_bound | split_bits | lots | settings ...
///
///  32    40       44             48       52       56     64      192     256
///  | pot | winner | events_per_s | second | events | zero | banks | tiles ...
///
///  256      260         264           268      270          271    272          280    288    320
///  | tenant | cells_max | players_max | region | split_skip | zero | over_quota | root | zero |
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Hunt {
    pub(super) domain: u64,
    /// Second of log time at which it was opened; 0 = never.
    pub opened_s: u32,
    /// Second of log time at which it plays no more; 0 = when it is closed.
    pub ends_s: u32,
    /// Code of its game type; 0 = nobody has opened it.
    pub game: u8,
    /// Whether it is closed: 0 or 1.
    pub closed: u8,
    /// Whether it may use only so much: 0 or 1.
    pub is_bound: u8,
    /// [`Split::bits`] of the hunt that this is a region of; 0 = it is in one piece.
    pub split_bits: u8,
    /// Lots that were drawn for the pot.
    pub lots: u32,
    /// Settings of its game type.
    pub settings: u64,
    /// What waits for the winner.
    pub pot: u64,
    /// [`PlayerSlot::mark`] of whoever would win the pot now; 0 = nobody.
    pub winner: u32,
    /// Most events in a second; 0 = no bound.
    pub events_per_s: u32,
    /// The second of log time that [`Self::events`] are of.
    pub second: u32,
    /// Events in that second.
    pub events: u32,
    pub(super) room: u64,
    /// Bank of each team, team 1 first.
    pub banks: [u64; TEAMS],
    /// Tickets that each team holds, team 1 first.
    pub tiles: [u32; TEAMS],
    /// Whose it is; 0 = nobody's.
    pub tenant: u32,
    /// Most cells; 0 = no bound but the partition's.
    pub cells_max: u32,
    /// Most players; 0 = no bound but the partition's.
    pub players_max: u32,
    /// Number of the region.
    pub region: u16,
    /// [`Split::skip`].
    pub split_skip: u8,
    pub(super) spare: u8,
    /// Events refused as `over-quota`, ever.
    pub over_quota: u64,
    /// Key of the hunt that this is a region of; 0 without.
    pub root: u64,
    pub(super) more_room: [u64; 4],
}

impl Hunt {
    /// The hunt of a domain key, which nobody has opened.
    #[must_use]
    pub fn new(domain: u64) -> Self {
        Self { domain, ..Self::default() }
    }

    /// Its domain key.
    #[must_use]
    pub const fn domain(&self) -> u64 {
        self.domain
    }

    /// Whether it plays no more at this second of log time.
    #[must_use]
    #[inline(always)]
    pub const fn is_over(&self, log_time_s: u32) -> bool {
        self.closed != 0 || (self.ends_s != 0 && self.ends_s <= log_time_s)
    }

    /// The region that it is of a split hunt, if it is one.
    #[must_use]
    #[inline]
    pub fn split(&self) -> Option<Region> {
        let split = Split::new(self.split_bits, self.split_skip)?;
        Some(Region { root: self.root, split, number: self.region })
    }

    /// Whether what it says of its region goes together.
    const fn is_split_sound(&self) -> bool {
        match (self.split_bits, Split::new(self.split_bits, self.split_skip)) {
            (0, _) => self.split_skip == 0 && self.region == 0 && self.root == 0,
            (_, Some(split)) => self.region < split.regions(),
            (_, None) => false,
        }
    }

    /// Bank of a team; `None` for none.
    #[must_use]
    pub fn bank_mut(&mut self, team: u8) -> Option<&mut u64> {
        self.banks.get_mut(usize::from(team).checked_sub(1)?)
    }

    /// A team holds one ticket more. It cannot hold more than there are cells.
    pub fn gain_tile(&mut self, team: u8) {
        if let Some(tiles) = tile_of(&mut self.tiles, team) {
            *tiles = tiles.saturating_add(1);
        }
    }

    /// A team holds one ticket less.
    pub fn lose_tile(&mut self, team: u8) {
        if let Some(tiles) = tile_of(&mut self.tiles, team) {
            *tiles = tiles.saturating_sub(1);
        }
    }

    /// Whether the bytes that mean nothing are 0.
    pub(super) const fn is_sound(&self) -> bool {
        let is_bound = self.cells_max > 0 || self.players_max > 0 || self.events_per_s > 0;
        matches!((self.spare, self.room), (0, 0))
            && matches!(self.more_room, [0, 0, 0, 0])
            && self.is_split_sound()
            && self.closed <= 1
            && self.is_bound == is_bound as u8
    }
}

fn tile_of(tiles: &mut [u32; TEAMS], team: u8) -> Option<&mut u32> {
    tiles.get_mut(usize::from(team).checked_sub(1)?)
}

/// What a [`Definition`] defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DefinitionKind {
    /// A quest: its graph is the payload, what it pays the argument.
    Quest = 1,
    /// A treasure type: opaque bytes.
    Treasure = 2,
}

/// A quest or treasure type of a hunt, 544 bytes.
///
/// ```text
///  0    8      10     11     12        16      18     20        24         32
///  | id | hunt | kind | zero | version | bytes | zero | zero | argument | payload, 512 bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Definition {
    /// What it is called in its hunt.
    pub id: u64,
    pub(super) hunt: u16,
    pub(super) kind: u8,
    pub(super) spare: u8,
    /// Counted from 1.
    pub version: u32,
    bytes: u16,
    spare_more: [u16; 3],
    /// Argument of the event that defined it.
    pub argument: u64,
    payload: [u8; EVENT_PAYLOAD_BYTES_MAX],
}

impl Definition {
    /// A definition of version `version`; a payload of more than 512 bytes, which no
    /// event has, is cut.
    #[must_use]
    pub fn new(
        hunt: HuntId,
        kind: DefinitionKind,
        id: u64,
        version: u32,
        argument: u64,
        payload: &[u8],
    ) -> Self {
        let mut kept = [0; EVENT_PAYLOAD_BYTES_MAX];
        let bytes = payload.len().min(EVENT_PAYLOAD_BYTES_MAX);
        kept[..bytes].copy_from_slice(&payload[..bytes]);
        Self {
            id,
            hunt: hunt.0,
            kind: kind as u8,
            spare: 0,
            version,
            bytes: bytes as u16,
            spare_more: [0; 3],
            argument,
            payload: kept,
        }
    }

    /// The payload of the event that defined it.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.bytes).min(EVENT_PAYLOAD_BYTES_MAX)]
    }

    pub(super) fn is_sound(&self) -> bool {
        matches!((self.kind, self.spare, self.spare_more), (1 | 2, 0, [0, 0, 0]))
            && self.version > 0
            && usize::from(self.bytes) <= EVENT_PAYLOAD_BYTES_MAX
    }

    /// What it is found by, beside its hunt.
    pub(super) const fn key(kind: u8, id: u64) -> u64 {
        id.wrapping_add((kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What a [`Deed`] records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeedKind {
    /// Nodes of a quest: the book is its id.
    Quest = 1,
    /// Rewards that were issued: the book is their number without its last byte.
    Reward = 2,
}

/// Marks of one player in one book, 256 of them, 80 bytes.
///
/// ```text
///  0      8        12     13        14     16     48
///  | book | player | kind | is_ended | zero | done | paid
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Deed {
    pub(super) book: u64,
    pub(super) player: u32,
    pub(super) kind: u8,
    /// Whether the end of the quest was paid: 0 or 1.
    pub ended: u8,
    pub(super) spare: u16,
    /// What the player has passed, a bit each.
    pub done: [u64; 4],
    /// What was paid, a bit each; never taken back.
    pub paid: [u64; 4],
}

impl Deed {
    /// A book without marks.
    #[must_use]
    pub const fn new(player: PlayerSlot, kind: DeedKind, book: u64) -> Self {
        Self {
            book,
            player: player.0,
            kind: kind as u8,
            ended: 0,
            spare: 0,
            done: [0; 4],
            paid: [0; 4],
        }
    }

    /// The book.
    #[must_use]
    pub const fn book(&self) -> u64 {
        self.book
    }

    /// Whose marks they are.
    #[must_use]
    pub const fn player(&self) -> PlayerSlot {
        PlayerSlot(self.player)
    }

    pub(super) const fn is_sound(&self) -> bool {
        matches!((self.kind, self.ended, self.spare), (1 | 2, 0 | 1, 0))
    }
}

/// Words of a record in the arena.
pub(super) const HUNT_WORDS: usize = size_of::<Hunt>() / 8;
/// Words of a record in the arena.
pub(super) const DEFINITION_WORDS: usize = size_of::<Definition>() / 8;
/// Words of a record in the arena.
pub(super) const DEED_WORDS: usize = size_of::<Deed>() / 8;
/// Words of a record in the arena.
pub(super) const TALLY_WORDS: usize = size_of::<Tally>() / 8;
/// Words of a record in the arena.
pub(super) const CELL_WORDS: usize = size_of::<Cell>() / 8;
/// Words of a record in the arena.
pub(super) const PLAYER_WORDS: usize = size_of::<Player>() / 8;

const _: () = {
    assert!(size_of::<Cell>() == 24 && align_of::<Cell>() == 8);
    assert!(size_of::<Player>() == 64 && align_of::<Player>() == 8);
    assert!(size_of::<Hunt>() == 320 && align_of::<Hunt>() == 8);
    assert!(size_of::<Definition>() == 544 && align_of::<Definition>() == 8);
    assert!(size_of::<Deed>() == 80 && align_of::<Deed>() == 8);
    assert!(veltrix_abi::kinds::ITEM_TYPES as usize == 8);
    assert!(REWARD_MAX < 1 << 24);
};
