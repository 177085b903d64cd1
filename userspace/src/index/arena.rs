//! The memory of one index: all its tables in one run of words, so that they
//! share huge pages. Sixty-four partitions with a mapping a table would round
//! each up to 2 MiB and waste a third of it.
//!
//! ```text
//!   main   | hashes | cells | players | hunts, tallies | definitions | deeds | board | nodes ...|
//!          '------------------ whole 2 MiB pages, unless shorter than one ------------------'
//!   rest   |... nodes |   what would have begun another huge page
//! ```

use std::io;

use super::board::board_words;
use super::hash::{BUCKET_WORDS, SlotHash, buckets_of};
use super::order::{NODE_WORDS, nodes_max};
use super::records::{
    CELL_WORDS, DEED_WORDS, DEFINITION_WORDS, HUNT_WORDS, IndexLimits, PLAYER_WORDS, TALLY_WORDS,
};
use crate::base::mem::HUGE_PAGE_BYTES;
use crate::base::table::Table;

const HUGE_PAGE_WORDS: usize = HUGE_PAGE_BYTES / 8;
/// Sections begin at a cache line.
pub(super) const LINE_WORDS: usize = 8;

/// Bytes of an index by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexBytes {
    /// Records of cells.
    pub cells: u64,
    /// From cell id to record.
    pub cell_hash: u64,
    /// Cells in order, for boxes.
    pub cell_order: u64,
    /// Records of players.
    pub players: u64,
    /// From player id to record.
    pub player_hash: u64,
    /// Players in order of their scores.
    pub board: u64,
    /// Hunts, what they hold, and from domain key to hunt.
    pub hunts: u64,
    /// Quests and treasure types.
    pub definitions: u64,
    /// How far players are in quests, and which rewards they have.
    pub deeds: u64,
    /// Which pages a capture has still to copy.
    pub capture: u64,
    /// What rounding up to huge pages adds.
    pub rounding: u64,
}

impl IndexBytes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.cells
            + self.cell_hash
            + self.cell_order
            + self.players
            + self.player_hash
            + self.board
            + self.hunts
            + self.definitions
            + self.deeds
            + self.capture
            + self.rounding
    }
}

/// Where each section lies, in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) cell_hash: SlotHash,
    pub(super) player_hash: SlotHash,
    pub(super) hunt_hash: SlotHash,
    pub(super) definition_hash: SlotHash,
    pub(super) deed_hash: SlotHash,
    pub(super) cells_at: usize,
    pub(super) players_at: usize,
    pub(super) hunts_at: usize,
    pub(super) tallies_at: usize,
    pub(super) definitions_at: usize,
    pub(super) deeds_at: usize,
    pub(super) board_at: usize,
    pub(super) board_words: usize,
    /// Nodes of the order: from here to the end of main, then in rest.
    pub(super) nodes_at: usize,
    pub(super) nodes_in_main: u32,
    pub(super) nodes_max: u32,
    main_words: usize,
    rest_words: usize,
}

impl Layout {
    pub(super) fn new(limits: &IndexLimits) -> Self {
        let mut end = 0;
        let mut section = |words: usize| {
            let at = end;
            end = (at + words).next_multiple_of(LINE_WORDS);
            at
        };
        let hash_words = |records: u32| buckets_of(records) * BUCKET_WORDS;
        let hunts_max = u32::from(limits.hunts_max);
        let cell_hash = SlotHash::new(section(hash_words(limits.cells_max)), limits.cells_max);
        let player_hash =
            SlotHash::new(section(hash_words(limits.players_max)), limits.players_max);
        let hunt_hash = SlotHash::new(section(hash_words(hunts_max)), hunts_max);
        let (definitions, deeds) = (limits.definitions_max, limits.deeds_max);
        let definition_hash = SlotHash::new(section(hash_words(definitions)), definitions);
        let deed_hash = SlotHash::new(section(hash_words(deeds)), deeds);
        let cells_at = section(limits.cells_max as usize * CELL_WORDS);
        let players_at = section(limits.players_max as usize * PLAYER_WORDS);
        let hunts_at = section(hunts_max as usize * HUNT_WORDS);
        let tallies_at = section(hunts_max as usize * TALLY_WORDS);
        let definitions_at = section(definitions as usize * DEFINITION_WORDS);
        let deeds_at = section(deeds as usize * DEED_WORDS);
        let board_words = board_words(limits.players_max);
        let board_at = section(board_words);
        let nodes_at = end;

        let nodes_max = nodes_max(limits.cells_max);
        let all_words = nodes_at + nodes_max as usize * NODE_WORDS;
        let main_words = if all_words < HUGE_PAGE_WORDS {
            all_words
        } else {
            let whole_pages = all_words - all_words % HUGE_PAGE_WORDS;
            whole_pages.max(nodes_at.next_multiple_of(HUGE_PAGE_WORDS))
        };
        let nodes_in_main = ((main_words - nodes_at) / NODE_WORDS).min(nodes_max as usize);
        let rest_words = (nodes_max as usize - nodes_in_main) * NODE_WORDS;
        Self {
            cell_hash,
            player_hash,
            hunt_hash,
            definition_hash,
            deed_hash,
            cells_at,
            players_at,
            hunts_at,
            tallies_at,
            definitions_at,
            deeds_at,
            board_at,
            board_words,
            nodes_at,
            nodes_in_main: nodes_in_main as u32,
            nodes_max,
            main_words,
            rest_words,
        }
    }

    /// Maps both tables: main, rest.
    pub(super) fn reserve(&self) -> io::Result<(Table<u64>, Table<u64>)> {
        Ok((Table::new(self.main_words)?, Table::new(self.rest_words)?))
    }

    /// Bytes by part; `capture` is added by the caller.
    pub(super) fn bytes(&self, limits: &IndexLimits) -> IndexBytes {
        let bytes = |words: usize| words as u64 * 8;
        let hash = |records: u32| bytes(buckets_of(records) * BUCKET_WORDS);
        let hunts_max = u32::from(limits.hunts_max);
        let mut out = IndexBytes {
            cells: bytes(limits.cells_max as usize * CELL_WORDS),
            cell_hash: hash(limits.cells_max),
            cell_order: bytes(self.nodes_max as usize * NODE_WORDS),
            players: bytes(limits.players_max as usize * PLAYER_WORDS),
            player_hash: hash(limits.players_max),
            board: bytes(self.board_words),
            hunts: bytes(hunts_max as usize * (HUNT_WORDS + TALLY_WORDS)) + hash(hunts_max),
            definitions: bytes(limits.definitions_max as usize * DEFINITION_WORDS)
                + hash(limits.definitions_max),
            deeds: bytes(limits.deeds_max as usize * DEED_WORDS) + hash(limits.deeds_max),
            capture: 0,
            rounding: 0,
        };
        out.rounding = bytes(self.main_words + self.rest_words) - out.total();
        out
    }
}

/// The `N` words from `at` on.
#[inline(always)]
pub(super) fn chunk<const N: usize>(words: &[u64], at: usize) -> &[u64; N] {
    match words[at..at + N].as_array() {
        Some(chunk) => chunk,
        None => &[0; N],
    }
}

/// The `N` words from `at` on.
#[inline(always)]
pub(super) fn chunk_mut<const N: usize>(words: &mut [u64], at: usize) -> &mut [u64; N] {
    words[at..].first_chunk_mut().expect("a chunk lies inside the arena")
}
