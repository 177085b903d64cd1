//! A copy of the records as they were at one moment, made while they go on
//! changing.
//!
//! ```text
//!   begin     every page of records is marked as not copied
//!   step      copies the next pages, so many bytes a turn
//!   a write   to a page not copied yet copies it first
//!   end       the image holds what was at begin
//! ```
//!
//! Hash indexes and the order are not copied: loading builds them from the
//! records. An image is made before the start and lent; capturing allocates
//! nothing. Only records that existed at begin are in it: what is appended
//! later lies beyond its length.

use std::io;

use zerocopy::IntoBytes;

use super::arena::Layout;
use super::records::{CELL_WORDS, Cell, IndexLimits, PLAYER_WORDS, Player};
use crate::base::table::Table;

/// Records of a page: 12 KiB of either, copied in a microsecond.
const PAGE_CELLS: u32 = 512;
const PAGE_PLAYERS: u32 = 192;
const PAGE_HUNTS: u32 = 1024;

/// The records of an index at one moment.
#[derive(Debug)]
pub struct IndexImage {
    /// Cells by slot; among the first `cells_len` there may be vacant ones.
    pub cells: Table<Cell>,
    /// Slots that count.
    pub cells_len: u32,
    /// Players by slot.
    pub players: Table<Player>,
    /// Slots that count.
    pub players_len: u32,
    /// Domain keys of hunts by their number.
    pub hunts: Table<u64>,
    /// Hunts that count, at most 65,535.
    pub hunts_len: u32,
}

impl IndexImage {
    /// Room for everything that an index of `limits` can hold.
    ///
    /// # Errors
    ///
    /// A capacity out of range; the kernel's refusal to map as much.
    pub fn new(limits: &IndexLimits) -> io::Result<Self> {
        limits.check()?;
        Ok(Self {
            cells: Table::new(limits.cells_max as usize)?,
            cells_len: 0,
            players: Table::new(limits.players_max as usize)?,
            players_len: 0,
            hunts: Table::new(usize::from(limits.hunts_max))?,
            hunts_len: 0,
        })
    }

    /// Bytes reserved for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cells.bytes() + self.players.bytes() + self.hunts.bytes()
    }
}

/// Pages that have still to be copied: cells first, then players, then hunts.
#[derive(Debug)]
pub(super) struct Pages {
    /// One bit a page, set while it is not copied.
    marks: Box<[u64]>,
    players_from: u32,
    hunts_from: u32,
    /// No page below it is marked.
    next: u32,
    /// No page from here on is marked.
    end: u32,
}

impl Pages {
    pub(super) fn new(limits: &IndexLimits) -> Self {
        let players_from = limits.cells_max.div_ceil(PAGE_CELLS);
        let hunts_from = players_from + limits.players_max.div_ceil(PAGE_PLAYERS);
        let pages = hunts_from + u32::from(limits.hunts_max).div_ceil(PAGE_HUNTS);
        let marks = vec![0; (pages as usize).div_ceil(64)].into();
        Self { marks, players_from, hunts_from, next: 0, end: 0 }
    }

    pub(super) fn bytes(limits: &IndexLimits) -> u64 {
        let pages = u64::from(limits.cells_max.div_ceil(PAGE_CELLS))
            + u64::from(limits.players_max.div_ceil(PAGE_PLAYERS))
            + u64::from(u32::from(limits.hunts_max).div_ceil(PAGE_HUNTS));
        pages.div_ceil(64) * 8
    }

    fn mark(&mut self, from: u32, pages: u32) {
        for page in from..from + pages {
            self.marks[page as usize / 64] |= 1 << (page % 64);
        }
        if pages > 0 {
            self.end = from + pages;
        }
    }

    /// Takes the mark off `page`; whether there was one.
    fn unmark(&mut self, page: u32) -> bool {
        let (word, bit) = (&mut self.marks[page as usize / 64], 1 << (page % 64));
        let was_marked = *word & bit != 0;
        *word &= !bit;
        was_marked
    }

    /// The lowest page with a mark.
    fn lowest(&mut self) -> Option<u32> {
        while self.next < self.end {
            let word = self.marks[self.next as usize / 64] >> (self.next % 64);
            if word != 0 {
                self.next += word.trailing_zeros();
                return Some(self.next);
            }
            self.next = (self.next / 64 + 1) * 64;
        }
        None
    }
}

/// A capture under way: the image it fills.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) image: IndexImage,
}

impl Capture {
    /// Begins with an image that has room; marks the pages of what exists.
    pub(super) fn begin(
        mut image: IndexImage,
        pages: &mut Pages,
        [cells, players, hunts]: [u32; 3],
    ) -> Self {
        (image.cells_len, image.players_len, image.hunts_len) = (cells, players, hunts);
        (pages.next, pages.end) = (0, 0);
        pages.mark(0, cells.div_ceil(PAGE_CELLS));
        pages.mark(pages.players_from, players.div_ceil(PAGE_PLAYERS));
        pages.mark(pages.hunts_from, hunts.div_ceil(PAGE_HUNTS));
        Self { image }
    }

    /// Before a cell is written.
    pub(super) fn save_cell(
        &mut self,
        pages: &mut Pages,
        words: &[u64],
        layout: &Layout,
        slot: u32,
    ) {
        let page = slot / PAGE_CELLS;
        if pages.unmark(page) {
            self.copy(pages, words, layout, page);
        }
    }

    /// Before a player is written.
    pub(super) fn save_player(
        &mut self,
        pages: &mut Pages,
        words: &[u64],
        layout: &Layout,
        slot: u32,
    ) {
        let page = pages.players_from + slot / PAGE_PLAYERS;
        if pages.unmark(page) {
            self.copy(pages, words, layout, page);
        }
    }

    /// Copies pages until `bytes_max` are copied, at least one; whether all
    /// are.
    pub(super) fn step(
        &mut self,
        pages: &mut Pages,
        words: &[u64],
        layout: &Layout,
        bytes_max: usize,
    ) -> bool {
        let mut bytes = 0;
        while let Some(page) = pages.lowest() {
            if bytes >= bytes_max.max(1) {
                return false;
            }
            pages.unmark(page);
            bytes += self.copy(pages, words, layout, page);
        }
        true
    }

    /// Copies one page; bytes of it.
    fn copy(&mut self, pages: &Pages, words: &[u64], layout: &Layout, page: u32) -> usize {
        let image = &mut self.image;
        let (to, from) = if page < pages.players_from {
            let slots = span(page, PAGE_CELLS, image.cells_len);
            let from = layout.cells_at + slots.start * CELL_WORDS;
            (image.cells[slots].as_mut_bytes(), from)
        } else if page < pages.hunts_from {
            let slots = span(page - pages.players_from, PAGE_PLAYERS, image.players_len);
            let from = layout.players_at + slots.start * PLAYER_WORDS;
            (image.players[slots].as_mut_bytes(), from)
        } else {
            let slots = span(page - pages.hunts_from, PAGE_HUNTS, image.hunts_len);
            let from = layout.hunts_at + slots.start;
            (image.hunts[slots].as_mut_bytes(), from)
        };
        to.copy_from_slice(words[from..from + to.len() / 8].as_bytes());
        to.len()
    }
}

/// Slots of a page, up to `len`.
fn span(page: u32, records: u32, len: u32) -> std::ops::Range<usize> {
    let from = (page * records).min(len);
    let to = (from + records).min(len);
    from as usize..to as usize
}
