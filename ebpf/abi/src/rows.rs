//! Rows of answers to queries: what a player, a cell, a rank, a hunt looks like on
//! the wire. `userspace/docs/WIRE.md` is the specification.

use crate::kinds::{HotspotKind, TEAMS};
use crate::split::Region;
use crate::wire::{put, u16_at, u32_at, u64_at};

/// A row of an entry: 32, 56 or 272 bytes, written and read without knowing more.
pub trait Row: Sized {
    /// Bytes of a row.
    const BYTES: usize;

    /// Writes the row at the start of `out`, which is as long as it.
    fn write(&self, out: &mut [u8]);
    /// Reads the row from the start of `bytes`.
    fn read(bytes: &[u8]) -> Self;
}

/// What a player owns: 56 bytes.
///
/// ```text
///  0        8        16      24            32              48     52     53     54     56
///  | player | wallet | score | score_epoch | 8 x item count | rank | team | power | zero |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayerRow {
    /// Player id.
    pub player: u64,
    /// Currency.
    pub wallet: u64,
    /// Points.
    pub score: u64,
    /// Epoch since which the score is what it is; 0 without one.
    pub score_epoch: u64,
    /// Items by type.
    pub inventory: [u16; 8],
    /// Rank on the leaderboard, from 1; 0 without a score.
    pub rank: u32,
    /// Team, from 1; 0 = none.
    pub team: u8,
    /// What a power-up multiplies the player's points by now; 0 = none is in force.
    pub power: u8,
}

impl Row for PlayerRow {
    const BYTES: usize = 56;

    fn write(&self, out: &mut [u8]) {
        put(out, 0, self.player.to_le_bytes());
        put(out, 8, self.wallet.to_le_bytes());
        put(out, 16, self.score.to_le_bytes());
        put(out, 24, self.score_epoch.to_le_bytes());
        for (item, count) in self.inventory.iter().enumerate() {
            put(out, 32 + 2 * item, count.to_le_bytes());
        }
        put(out, 48, self.rank.to_le_bytes());
        put(out, 52, [self.team, self.power, 0, 0]);
    }

    fn read(bytes: &[u8]) -> Self {
        let mut inventory = [0; 8];
        for (item, count) in inventory.iter_mut().enumerate() {
            *count = u16_at(bytes, 32 + 2 * item);
        }
        Self {
            player: u64_at(bytes, 0),
            wallet: u64_at(bytes, 8),
            score: u64_at(bytes, 16),
            score_epoch: u64_at(bytes, 24),
            inventory,
            rank: u32_at(bytes, 48),
            team: u16_at(bytes, 52) as u8,
            power: (u16_at(bytes, 52) >> 8) as u8,
        }
    }
}

/// A cell with its hotspot: 32 bytes.
///
/// ```text
///  0      8            16         20       24          26     27     28        32
///  | cell | claimed_by | expiry_s | reward | remaining | kind | item | claimed |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellRow {
    /// Cell id.
    pub cell: u64,
    /// Player that claimed it; 0 where nobody has.
    pub claimed_by: u64,
    /// Second of log time, since the Unix epoch, from which it is over; 0 = never.
    pub expiry_s: u32,
    /// What it pays.
    pub reward: u32,
    /// Times it can still be taken.
    pub remaining: u16,
    /// Wire code of a [`HotspotKind`].
    pub kind: u8,
    /// Item type it gives or wants.
    pub item: u8,
    /// Whether somebody has claimed it.
    pub claimed: bool,
}

impl CellRow {
    /// What it is; `None` for a code from a newer server.
    #[must_use]
    pub const fn hotspot_kind(&self) -> Option<HotspotKind> {
        match self.kind {
            1 => Some(HotspotKind::Item),
            2 => Some(HotspotKind::Chest),
            3 => Some(HotspotKind::Ticket),
            _ => None,
        }
    }
}

impl Row for CellRow {
    const BYTES: usize = 32;

    fn write(&self, out: &mut [u8]) {
        put(out, 0, self.cell.to_le_bytes());
        put(out, 8, self.claimed_by.to_le_bytes());
        put(out, 16, self.expiry_s.to_le_bytes());
        put(out, 20, self.reward.to_le_bytes());
        put(out, 24, self.remaining.to_le_bytes());
        put(out, 26, [self.kind, self.item]);
        put(out, 28, u32::from(self.claimed).to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self {
            cell: u64_at(bytes, 0),
            claimed_by: u64_at(bytes, 8),
            expiry_s: u32_at(bytes, 16),
            reward: u32_at(bytes, 20),
            remaining: u16_at(bytes, 24),
            kind: u16_at(bytes, 26) as u8,
            item: (u16_at(bytes, 26) >> 8) as u8,
            claimed: u32_at(bytes, 28) & 1 != 0,
        }
    }
}

/// A player on the leaderboard: 32 bytes.
///
/// ```text
///  0      4      8        16      24            32
///  | rank | zero | player | score | score_epoch |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankRow {
    /// Rank, from 1.
    pub rank: u32,
    /// Player id.
    pub player: u64,
    /// Points.
    pub score: u64,
    /// Epoch since which the score is what it is: of equal scores, the lower is first.
    pub score_epoch: u64,
}

impl Row for RankRow {
    const BYTES: usize = 32;

    fn write(&self, out: &mut [u8]) {
        put(out, 0, self.rank.to_le_bytes());
        put(out, 4, [0; 4]);
        put(out, 8, self.player.to_le_bytes());
        put(out, 16, self.score.to_le_bytes());
        put(out, 24, self.score_epoch.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self {
            rank: u32_at(bytes, 0),
            player: u64_at(bytes, 8),
            score: u64_at(bytes, 16),
            score_epoch: u64_at(bytes, 24),
        }
    }
}

/// How a hunt stands, and what it holds: 272 bytes.
///
/// ```text
///  0       4         8        12     13      14     16
///  | cells | players | ranked | game | phase | zero | score_epoch ...
///
///  24         28       32     36       40    48       56           64          192          256      272
///  | opened_s | ends_s | lots | tenant | pot | winner | over_quota | 16 x bank | 16 x tiles | region |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HuntRow {
    /// Cells with a hotspot, ended ones included.
    pub cells: u32,
    /// Players that were given something, or joined.
    pub players: u32,
    /// Players with a score.
    pub ranked: u32,
    /// Code of its game type; 0 = nobody has opened it.
    pub game: u8,
    /// Whether it plays: code of a [`HuntPhase`].
    pub phase: u8,
    /// Epoch of the last change of a score; 0 before the first.
    pub score_epoch: u64,
    /// Second of log time, since the Unix epoch, at which it was opened; 0 = never.
    pub opened_s: u32,
    /// Second of log time from which it plays no more; 0 = when it is closed.
    pub ends_s: u32,
    /// Lots drawn for the pot.
    pub lots: u32,
    /// Whose it is; 0 = nobody's.
    pub tenant: u32,
    /// What waits for the winner.
    pub pot: u64,
    /// Player that wins the pot, or has won it; 0 while the hunt plays, and without
    /// lots.
    pub winner: u64,
    /// Events refused as `over-quota`, ever.
    pub over_quota: u64,
    /// Bank of each team, team 1 first.
    pub banks: [u64; TEAMS],
    /// Tickets that each team holds, team 1 first.
    pub tiles: [u32; TEAMS],
    /// Which region of a split hunt it is; `None` for a hunt in one piece.
    pub region: Option<Region>,
}

/// Whether a hunt plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HuntPhase {
    /// It does.
    Playing = 1,
    /// Its time is up; it can still be closed.
    Over = 2,
    /// It is closed.
    Closed = 3,
}

impl HuntPhase {
    /// That of a code; `None` for one from a newer server.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Playing),
            2 => Some(Self::Over),
            3 => Some(Self::Closed),
            _ => None,
        }
    }
}

impl HuntRow {
    /// Whether it plays; `None` for a code from a newer server.
    #[must_use]
    pub const fn phase(&self) -> Option<HuntPhase> {
        HuntPhase::from_code(self.phase)
    }
}

const BANKS_AT: usize = 64;
const TILES_AT: usize = BANKS_AT + 8 * TEAMS;
const REGION_AT: usize = TILES_AT + 4 * TEAMS;

impl Row for HuntRow {
    const BYTES: usize = REGION_AT + Region::BYTES;

    fn write(&self, out: &mut [u8]) {
        out[..BANKS_AT].fill(0);
        put(out, 0, self.cells.to_le_bytes());
        put(out, 4, self.players.to_le_bytes());
        put(out, 8, self.ranked.to_le_bytes());
        put(out, 12, [self.game, self.phase]);
        put(out, 16, self.score_epoch.to_le_bytes());
        put(out, 24, self.opened_s.to_le_bytes());
        put(out, 28, self.ends_s.to_le_bytes());
        put(out, 32, self.lots.to_le_bytes());
        put(out, 36, self.tenant.to_le_bytes());
        put(out, 40, self.pot.to_le_bytes());
        put(out, 48, self.winner.to_le_bytes());
        put(out, 56, self.over_quota.to_le_bytes());
        for (team, (bank, tiles)) in self.banks.iter().zip(self.tiles).enumerate() {
            put(out, BANKS_AT + 8 * team, bank.to_le_bytes());
            put(out, TILES_AT + 4 * team, tiles.to_le_bytes());
        }
        put(out, REGION_AT, self.region.map_or([0; Region::BYTES], |region| region.bytes()));
    }

    fn read(bytes: &[u8]) -> Self {
        let mut row = Self {
            cells: u32_at(bytes, 0),
            players: u32_at(bytes, 4),
            ranked: u32_at(bytes, 8),
            game: u16_at(bytes, 12) as u8,
            phase: (u16_at(bytes, 12) >> 8) as u8,
            score_epoch: u64_at(bytes, 16),
            opened_s: u32_at(bytes, 24),
            ends_s: u32_at(bytes, 28),
            lots: u32_at(bytes, 32),
            tenant: u32_at(bytes, 36),
            pot: u64_at(bytes, 40),
            winner: u64_at(bytes, 48),
            over_quota: u64_at(bytes, 56),
            banks: [0; TEAMS],
            tiles: [0; TEAMS],
            region: bytes[REGION_AT..].first_chunk().and_then(Region::of),
        };
        for (team, (bank, tiles)) in row.banks.iter_mut().zip(&mut row.tiles).enumerate() {
            *bank = u64_at(bytes, BANKS_AT + 8 * team);
            *tiles = u32_at(bytes, TILES_AT + 4 * team);
        }
        row
    }
}
