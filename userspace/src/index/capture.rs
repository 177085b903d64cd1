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
use super::records::{
    CELL_WORDS, Cell, DEED_WORDS, DEFINITION_WORDS, Deed, Definition, HUNT_WORDS, Hunt,
    IndexLimits, PLAYER_WORDS, Player,
};
use crate::base::table::Table;

/// The tables, in the order in which they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Cells = 0,
    Players = 1,
    Hunts = 2,
    Definitions = 3,
    Deeds = 4,
}

const KINDS: [Kind; 5] = [Kind::Cells, Kind::Players, Kind::Hunts, Kind::Definitions, Kind::Deeds];

impl Kind {
    /// Records of a page: about 12 KiB of any, copied in a microsecond.
    const fn page(self) -> u32 {
        match self {
            Self::Cells => 512,
            Self::Players => 192,
            Self::Hunts => 38,
            Self::Definitions => 22,
            Self::Deeds => 153,
        }
    }

    /// Words of a record.
    const fn words(self) -> usize {
        match self {
            Self::Cells => CELL_WORDS,
            Self::Players => PLAYER_WORDS,
            Self::Hunts => HUNT_WORDS,
            Self::Definitions => DEFINITION_WORDS,
            Self::Deeds => DEED_WORDS,
        }
    }

    /// First word of the table.
    const fn at(self, layout: &Layout) -> usize {
        match self {
            Self::Cells => layout.cells_at,
            Self::Players => layout.players_at,
            Self::Hunts => layout.hunts_at,
            Self::Definitions => layout.definitions_at,
            Self::Deeds => layout.deeds_at,
        }
    }

    /// Most records.
    const fn capacity(self, limits: &IndexLimits) -> u32 {
        match self {
            Self::Cells => limits.cells_max,
            Self::Players => limits.players_max,
            Self::Hunts => limits.hunts_max as u32,
            Self::Definitions => limits.definitions_max,
            Self::Deeds => limits.deeds_max,
        }
    }
}

/// Records of each kind, in the order of [`KINDS`].
pub(super) type Lens = [u32; KINDS.len()];

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
    /// Hunts by their number.
    pub hunts: Table<Hunt>,
    /// Hunts that count, at most 65,535.
    pub hunts_len: u32,
    /// Quests and treasure types by slot.
    pub definitions: Table<Definition>,
    /// Slots that count.
    pub definitions_len: u32,
    /// Deeds by slot.
    pub deeds: Table<Deed>,
    /// Slots that count.
    pub deeds_len: u32,
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
            definitions: Table::new(limits.definitions_max as usize)?,
            definitions_len: 0,
            deeds: Table::new(limits.deeds_max as usize)?,
            deeds_len: 0,
        })
    }

    /// Bytes that [`Self::new`] will reserve, whole pages aside.
    #[must_use]
    pub fn bytes_of(limits: &IndexLimits) -> u64 {
        let of = |kind: &Kind| u64::from(kind.capacity(limits)) * kind.words() as u64 * 8;
        KINDS.iter().map(of).sum()
    }

    /// Bytes reserved for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cells.bytes()
            + self.players.bytes()
            + self.hunts.bytes()
            + self.definitions.bytes()
            + self.deeds.bytes()
    }

    /// Records of each kind that there is room for.
    pub(super) fn rooms(&self) -> [usize; KINDS.len()] {
        [
            self.cells.len(),
            self.players.len(),
            self.hunts.len(),
            self.definitions.len(),
            self.deeds.len(),
        ]
    }

    /// Records of each kind that count.
    pub(super) fn lens(&self) -> Lens {
        [self.cells_len, self.players_len, self.hunts_len, self.definitions_len, self.deeds_len]
    }
}

/// Pages that have still to be copied, kind by kind.
#[derive(Debug)]
pub(super) struct Pages {
    /// One bit a page, set while it is not copied.
    marks: Box<[u64]>,
    /// First page of each kind.
    from: Lens,
    /// No page below it is marked.
    next: u32,
    /// No page from here on is marked.
    end: u32,
}

impl Pages {
    pub(super) fn new(limits: &IndexLimits) -> Self {
        let mut pages = 0;
        let from = KINDS.map(|kind| {
            let from = pages;
            pages += kind.capacity(limits).div_ceil(kind.page());
            from
        });
        let marks = vec![0; (pages as usize).div_ceil(64)].into();
        Self { marks, from, next: 0, end: 0 }
    }

    pub(super) fn bytes(limits: &IndexLimits) -> u64 {
        let pages: u32 = KINDS.iter().map(|k| k.capacity(limits).div_ceil(k.page())).sum();
        u64::from(pages).div_ceil(64) * 8
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
    pub(super) fn begin(mut image: IndexImage, pages: &mut Pages, lens: Lens) -> Self {
        let [cells, players, hunts, definitions, deeds] = lens;
        (image.cells_len, image.players_len, image.hunts_len) = (cells, players, hunts);
        (image.definitions_len, image.deeds_len) = (definitions, deeds);
        (pages.next, pages.end) = (0, 0);
        for (kind, len) in KINDS.into_iter().zip(lens) {
            pages.mark(pages.from[kind as usize], len.div_ceil(kind.page()));
        }
        Self { image }
    }

    /// Before a record is written.
    pub(super) fn save(
        &mut self,
        kind: Kind,
        pages: &mut Pages,
        words: &[u64],
        layout: &Layout,
        slot: u32,
    ) {
        let page = pages.from[kind as usize] + slot / kind.page();
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
        let kind = KINDS.into_iter().rfind(|kind| pages.from[*kind as usize] <= page);
        let kind = kind.unwrap_or(Kind::Cells);
        let len = self.image.lens()[kind as usize];
        let slots = span(page - pages.from[kind as usize], kind.page(), len);
        let from = kind.at(layout) + slots.start * kind.words();
        let to = match kind {
            Kind::Cells => self.image.cells[slots].as_mut_bytes(),
            Kind::Players => self.image.players[slots].as_mut_bytes(),
            Kind::Hunts => self.image.hunts[slots].as_mut_bytes(),
            Kind::Definitions => self.image.definitions[slots].as_mut_bytes(),
            Kind::Deeds => self.image.deeds[slots].as_mut_bytes(),
        };
        to.copy_from_slice(words[from..from + to.len() / 8].as_bytes());
        to.len()
    }
}

/// Slots of a page, up to `len`.
fn span(page: u32, records: u32, len: u32) -> std::ops::Range<usize> {
    let from = page.saturating_mul(records).min(len);
    let to = from.saturating_add(records).min(len);
    from as usize..to as usize
}
