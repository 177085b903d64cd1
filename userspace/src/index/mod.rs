//! What one partition holds in memory: cells with their hotspots, players of
//! hunts, hunts, what is defined in them and what players did. One owner, made as
//! large at the start as it will ever be.
//!
//! ```text
//!   key --hash.rs--> slot --> record          cell 24 B, player 64 B, hunt 320 B
//!                      ^
//!   box --morton.rs--> ranges of ids --order/--> slots in order
//!   score --board/--> rank, rank --board/--> player
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `records.rs` | the records, limits, slots, what is full |
//! | `arena.rs` | where each table lies in one run of huge pages |
//! | `hash.rs` | from key to slot |
//! | `order/` | cells by (hunt, id): ranges |
//! | `board/`, `ranks.rs` | players by (hunt, score): ranks |
//! | `boxes.rs`, `nearest.rs`, `morton.rs` | cells of a rectangle, cells around a position |
//! | `ledger.rs` | quests and treasure types, marks of players in books |
//! | `capture.rs` | a copy of the records at one moment |
//! | `load.rs` | an index from such a copy |
//!
//! **Memory.** [`Index::new`] reserves all of it; nothing is allocated, moved
//! or rehashed afterwards. A capacity that is used up is [`Full`], never a
//! larger table. At 187,500 cells a partition, a cell costs 24 bytes of record,
//! 8.0 of hash and 7.1 of order.
//!
//! **Latency.** A look-up at random is two cache misses one after the other: the
//! hash bucket, then the record. Callers with several events in hand ask for
//! the buckets of all ([`Index::prefetch_cell_hash`]), then for the records of
//! all ([`Index::prefetch_cell`]), and then look.
//!
//! **Not part of the state:** slots of cells, and where hash entries and tree
//! nodes lie. They differ between replicas, and before and after a restart.
//! Slots of players are part of it, since cells name them: players are numbered
//! in the order in which they were first seen and never removed.

mod arena;
mod board;
mod boxes;
mod capture;
mod hash;
mod ledger;
mod load;
mod morton;
mod nearest;
mod order;
mod ranks;
mod records;
#[cfg(test)]
mod tests;

use std::io;

pub use self::arena::IndexBytes;
use self::arena::{Layout, chunk, chunk_mut};
use self::board::{Board, Moves};
pub use self::capture::IndexImage;
use self::capture::{Capture, Kind, Pages};
use self::hash::Mix;
pub use self::ledger::{DeedSlot, DefinitionSlot};
pub use self::load::LoadError;
pub use self::morton::{COORDINATE_MAX, CellBox, morton_of, position_of};
use self::order::{Memory, Order, View};
pub use self::ranks::Ranked;
use self::records::{CELL_WORDS, HUNT_WORDS, OrderKey, PLAYER_WORDS};
pub use self::records::{
    Cell, CellSlot, Deed, DeedKind, Definition, DefinitionKind, Full, GUEST, Hunt, HuntId,
    IndexLimits, Player, PlayerSlot, RECORDS_MAX, SlotHint, Tally,
};
use crate::base::table::{Table, prefetch};

/// One partition's cells, players and hunts.
#[derive(Debug)]
pub struct Index {
    limits: IndexLimits,
    layout: Layout,
    mix: Mix,
    main: Table<u64>,
    rest: Table<u64>,
    order: Order,
    board: Board,
    moves: Moves,
    /// Slots of cells ever used: those from here on are vacant.
    cells_top: u32,
    /// Cells there are.
    cells_len: u32,
    /// First vacant slot below the top, chained by `claimed_by`; plus 1.
    vacant: u32,
    players_len: u32,
    hunts_len: u32,
    definitions_len: u32,
    deeds_len: u32,
    pages: Pages,
    capture: Option<Capture>,
}

impl Index {
    /// An empty index.
    ///
    /// # Errors
    ///
    /// A capacity over [`RECORDS_MAX`]; the kernel's refusal to map as much.
    pub fn new(limits: &IndexLimits) -> io::Result<Self> {
        limits.check()?;
        let layout = Layout::new(limits);
        let (mut main, mut rest) = layout.reserve()?;
        let mut memory = Memory {
            cells: &[],
            main: &mut main[layout.nodes_at..],
            rest: &mut rest,
            nodes_in_main: layout.nodes_in_main,
        };
        let order = Order::new(&mut memory, layout.nodes_max);
        let board = Board::new(&mut main[layout.board_at..], limits.players_max);
        Ok(Self {
            limits: *limits,
            layout,
            mix: Mix::random(),
            main,
            rest,
            order,
            board,
            moves: Moves::NONE,
            cells_top: 0,
            cells_len: 0,
            vacant: 0,
            players_len: 0,
            hunts_len: 0,
            definitions_len: 0,
            deeds_len: 0,
            pages: Pages::new(limits),
            capture: None,
        })
    }

    /// Bytes that [`Self::new`] will reserve, by part. Limits it would refuse
    /// have no meaning here.
    #[must_use]
    pub fn bytes_of(limits: &IndexLimits) -> IndexBytes {
        let capture = Pages::bytes(limits);
        IndexBytes { capture, ..Layout::new(limits).bytes(limits) }
    }

    /// Its capacities.
    #[must_use]
    pub fn limits(&self) -> &IndexLimits {
        &self.limits
    }

    /// Cells there are.
    #[must_use]
    pub fn cells_len(&self) -> u32 {
        self.cells_len
    }

    /// Players there are, once for each of their hunts.
    #[must_use]
    pub fn players_len(&self) -> u32 {
        self.players_len
    }

    /// Hunts there are.
    #[must_use]
    pub fn hunts_len(&self) -> u32 {
        self.hunts_len
    }

    /// Every cell, in no order.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        (0..self.cells_top).map(|slot| self.cell(CellSlot(slot))).filter(|cell| !cell.is_vacant())
    }

    /// Every player, in order of slots.
    pub fn players(&self) -> impl Iterator<Item = &Player> {
        (0..self.players_len).map(|slot| self.player(PlayerSlot(slot)))
    }

    /// Every hunt, in order of their numbers.
    pub fn hunts(&self) -> impl Iterator<Item = &Hunt> {
        self.hunts_from(0).map(|hunt| self.hunt_record(hunt))
    }

    /// Every hunt from a number on, in order of their numbers.
    pub fn hunts_from(&self, number: u16) -> impl Iterator<Item = HuntId> + use<> {
        (number.into()..self.hunts_len).map(|number| HuntId(number as u16))
    }
}

/// Hunts.
impl Index {
    /// The hunt of a domain key.
    #[must_use]
    #[inline]
    pub fn hunt(&self, domain: u64) -> Option<HuntId> {
        let (words, at) = (&*self.main, self.layout.hunts_at);
        let is_it = |number: u32| words.get(at + number as usize * HUNT_WORDS) == Some(&domain);
        let number = self.layout.hunt_hash.find(words, self.mix.of(0, domain), is_it)?;
        Some(HuntId(number as u16))
    }

    /// Asks for the line that says where a hunt's key lies.
    #[inline(always)]
    pub fn prefetch_hunt_hash(&self, domain: u64) {
        self.layout.hunt_hash.prefetch(&self.main, self.mix.of(0, domain));
    }

    /// Asks for the hunt's key. The hash line should have come.
    #[inline(always)]
    pub fn prefetch_hunt(&self, domain: u64) {
        let words = &*self.main;
        let hash = self.mix.of(0, domain);
        let hunts_at = self.layout.hunts_at;
        let ask = |number: u32| prefetch(words, hunts_at + number as usize * HUNT_WORDS);
        self.layout.hunt_hash.guess(words, hash, ask);
    }

    /// The hunt of a domain key, made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Full::Hunts`].
    pub fn hunt_insert(&mut self, domain: u64) -> Result<HuntId, Full> {
        if let Some(hunt) = self.hunt(domain) {
            return Ok(hunt);
        }
        if self.hunts_len == u32::from(self.limits.hunts_max) {
            return Err(Full::Hunts(self.limits.hunts_max));
        }
        let number = self.hunts_len;
        *self.hunt_mut(number as u16) = Hunt::new(domain);
        self.layout.hunt_hash.insert(&mut self.main, self.mix.of(0, domain), number);
        self.hunts_len += 1;
        Ok(HuntId(number as u16))
    }

    /// The record of a hunt.
    #[must_use]
    #[inline(always)]
    pub fn hunt_record(&self, hunt: HuntId) -> &Hunt {
        let at = self.layout.hunts_at + usize::from(hunt.0) * HUNT_WORDS;
        let words: &[u64; HUNT_WORDS] = chunk(&self.main, at);
        zerocopy::transmute_ref!(words)
    }

    /// Writes the record of a hunt. Its domain key is kept, whatever `record` says.
    pub fn hunt_write(&mut self, hunt: HuntId, record: &Hunt) {
        self.save(Kind::Hunts, hunt.0.into());
        let domain = self.hunt_record(hunt).domain;
        *self.hunt_mut(hunt.0) = Hunt { domain, ..*record };
    }

    /// Writes what is counted of a hunt, as [`Self::hunt_write`] would.
    pub fn hunt_count(&mut self, hunt: HuntId, second: u32, events: u32) {
        self.save(Kind::Hunts, hunt.0.into());
        let record = self.hunt_mut(hunt.0);
        (record.second, record.events) = (second, events);
    }

    /// Counts one event more that was over the hunt's quota.
    pub fn hunt_count_refused(&mut self, hunt: HuntId) {
        self.save(Kind::Hunts, hunt.0.into());
        let record = self.hunt_mut(hunt.0);
        record.over_quota = record.over_quota.saturating_add(1);
    }

    fn hunt_mut(&mut self, number: u16) -> &mut Hunt {
        let at = self.layout.hunts_at + usize::from(number) * HUNT_WORDS;
        let words: &mut [u64; HUNT_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }
}

/// Cells.
impl Index {
    /// Asks for the line that says where a cell's record lies.
    #[inline(always)]
    pub fn prefetch_cell_hash(&self, hunt: HuntId, id: u64) {
        self.layout.cell_hash.prefetch(&self.main, self.mix.of(hunt.0, id));
    }

    /// Asks for the cell's record. The hash line should have come.
    #[inline(always)]
    pub fn prefetch_cell(&self, hunt: HuntId, id: u64) {
        let _ = self.locate_cell(hunt, id);
    }

    /// As [`Self::prefetch_cell`], and tells where the record probably lies.
    #[inline(always)]
    pub fn locate_cell(&self, hunt: HuntId, id: u64) -> SlotHint {
        let words = &*self.main;
        let hash = self.mix.of(hunt.0, id);
        let ask = |slot: u32| {
            let at = self.cell_at(slot);
            prefetch(words, at);
            prefetch(words, at + CELL_WORDS - 1);
        };
        self.layout.cell_hash.guess(words, hash, ask).map_or(SlotHint::NONE, SlotHint)
    }

    #[inline(always)]
    fn cell_at(&self, slot: u32) -> usize {
        self.layout.cells_at + slot as usize * CELL_WORDS
    }

    /// Where the cell `id` of `hunt` lies.
    #[must_use]
    #[inline(never)]
    pub fn cell_slot(&self, hunt: HuntId, id: u64) -> Option<CellSlot> {
        let wanted = OrderKey { hunt: hunt.0, id };
        let is_it = |slot: u32| self.cell(CellSlot(slot)).key() == wanted;
        let hash = self.mix.of(hunt.0, id);
        self.layout.cell_hash.find(&self.main, hash, is_it).map(CellSlot)
    }

    /// As [`Self::cell_slot`], looking first where `hint` says.
    #[must_use]
    #[inline(always)]
    pub fn cell_slot_near(&self, hint: SlotHint, hunt: HuntId, id: u64) -> Option<CellSlot> {
        if hint.0 < self.cells_top {
            let cell = self.cell(CellSlot(hint.0));
            if cell.id == id && cell.hunt == hunt.0 && !cell.is_vacant() {
                return Some(CellSlot(hint.0));
            }
        }
        self.cell_slot(hunt, id)
    }

    /// The record in a slot.
    #[must_use]
    #[inline(always)]
    pub fn cell(&self, slot: CellSlot) -> &Cell {
        let words: &[u64; CELL_WORDS] = chunk(&self.main, self.cell_at(slot.0));
        zerocopy::transmute_ref!(words)
    }

    /// Writes the record in a slot. It stays the cell that it is: id and hunt
    /// are kept, whatever `cell` says.
    #[inline]
    pub fn cell_write(&mut self, slot: CellSlot, cell: Cell) {
        self.save(Kind::Cells, slot.0);
        let record = self.cell_mut(slot.0);
        *record = Cell { id: record.id, hunt: record.hunt, ..cell };
    }

    /// Puts a cell in. One that is there already gets the new record.
    ///
    /// # Errors
    ///
    /// [`Full::Cells`].
    pub fn cell_insert(&mut self, cell: Cell) -> Result<CellSlot, Full> {
        if let Some(slot) = self.cell_slot(cell.hunt(), cell.id()) {
            self.cell_write(slot, cell);
            return Ok(slot);
        }
        let full = Full::Cells(self.limits.cells_max);
        let (slot, vacant, top) = match self.vacant.checked_sub(1) {
            Some(slot) => (slot, self.cell(CellSlot(slot)).claimed_by, self.cells_top),
            None if self.cells_top < self.limits.cells_max => {
                (self.cells_top, 0, self.cells_top + 1)
            }
            None => return Err(full),
        };
        let (order, mut memory) = self.order_memory();
        order.insert(&mut memory, cell.key(), slot).map_err(|_| full)?;
        self.save(Kind::Cells, slot);
        *self.cell_mut(slot) = cell;
        let hash = self.mix.of(cell.hunt, cell.id);
        self.layout.cell_hash.insert(&mut self.main, hash, slot);
        (self.vacant, self.cells_top) = (vacant, top);
        self.cells_len += 1;
        self.tally_mut(cell.hunt).cells += 1;
        Ok(CellSlot(slot))
    }

    /// Takes a cell out; a slot that holds none is left alone.
    pub fn cell_remove(&mut self, slot: CellSlot) {
        let cell = *self.cell(slot);
        if cell.is_vacant() {
            return;
        }
        let (order, mut memory) = self.order_memory();
        order.remove(&mut memory, cell.key(), slot.0);
        let (mix, layout) = (self.mix, self.layout);
        let hash_of = |words: &[u64], slot: u32| {
            let words: &[u64; CELL_WORDS] =
                chunk(words, layout.cells_at + slot as usize * CELL_WORDS);
            let cell: &Cell = zerocopy::transmute_ref!(words);
            mix.of(cell.hunt, cell.id)
        };
        let hash = mix.of(cell.hunt, cell.id);
        layout.cell_hash.remove(&mut self.main, hash, slot.0, hash_of);
        self.save(Kind::Cells, slot.0);
        let vacant = self.vacant;
        *self.cell_mut(slot.0) = Cell { claimed_by: vacant, ..Cell::default() };
        self.vacant = slot.0 + 1;
        self.cells_len -= 1;
        self.tally_mut(cell.hunt).cells -= 1;
    }

    /// Cells of `hunt` with ids from `from` to `to_inclusive`, ascending.
    pub fn cells_in(
        &self,
        hunt: HuntId,
        from: u64,
        to_inclusive: u64,
    ) -> impl Iterator<Item = &Cell> {
        let last = OrderKey { hunt: hunt.0, id: to_inclusive };
        let mut cursor = self.order.seek(self.view(), OrderKey { hunt: hunt.0, id: from });
        std::iter::from_fn(move || cursor.next().filter(|cell| cell.key() <= last)).fuse()
    }

    fn cell_mut(&mut self, slot: u32) -> &mut Cell {
        let at = self.cell_at(slot);
        let words: &mut [u64; CELL_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }

    fn view(&self) -> View<'_> {
        let (records, nodes) = self.main.split_at(self.layout.nodes_at);
        View {
            cells: &records[self.layout.cells_at..],
            main: nodes,
            rest: &self.rest,
            nodes_in_main: self.layout.nodes_in_main,
        }
    }

    /// The order, and the memory it works on.
    fn order_memory(&mut self) -> (&mut Order, Memory<'_>) {
        let (records, nodes) = self.main.split_at_mut(self.layout.nodes_at);
        let memory = Memory {
            cells: &records[self.layout.cells_at..],
            main: nodes,
            rest: &mut self.rest,
            nodes_in_main: self.layout.nodes_in_main,
        };
        (&mut self.order, memory)
    }
}

/// Players.
impl Index {
    /// Asks for the line that says where a player's record lies.
    #[inline(always)]
    pub fn prefetch_player_hash(&self, hunt: HuntId, player: u64) {
        self.layout.player_hash.prefetch(&self.main, self.mix.of(hunt.0, player));
    }

    /// Asks for the player's record. The hash line should have come.
    #[inline(always)]
    pub fn prefetch_player(&self, hunt: HuntId, player: u64) {
        let _ = self.locate_player(hunt, player);
    }

    /// As [`Self::prefetch_player`], and tells where the record probably lies.
    #[inline(always)]
    pub fn locate_player(&self, hunt: HuntId, player: u64) -> SlotHint {
        let words = &*self.main;
        let hash = self.mix.of(hunt.0, player);
        let ask = |slot: u32| prefetch(words, self.player_at(slot));
        self.layout.player_hash.guess(words, hash, ask).map_or(SlotHint::NONE, SlotHint)
    }

    #[inline(always)]
    fn player_at(&self, slot: u32) -> usize {
        self.layout.players_at + slot as usize * PLAYER_WORDS
    }

    /// Where the record of `player` in `hunt` lies.
    #[must_use]
    #[inline(never)]
    pub fn player_slot(&self, hunt: HuntId, player: u64) -> Option<PlayerSlot> {
        let is_it = |slot: u32| {
            let record = self.player(PlayerSlot(slot));
            record.player == player && record.hunt == hunt.0
        };
        let hash = self.mix.of(hunt.0, player);
        self.layout.player_hash.find(&self.main, hash, is_it).map(PlayerSlot)
    }

    /// As [`Self::player_slot`], looking first where `hint` says.
    #[must_use]
    #[inline(always)]
    pub fn player_slot_near(
        &self,
        hint: SlotHint,
        hunt: HuntId,
        player: u64,
    ) -> Option<PlayerSlot> {
        if hint.0 < self.players_len {
            let record = self.player(PlayerSlot(hint.0));
            if record.player == player && record.hunt == hunt.0 {
                return Some(PlayerSlot(hint.0));
            }
        }
        self.player_slot(hunt, player)
    }

    /// The record in a slot.
    #[must_use]
    #[inline(always)]
    pub fn player(&self, slot: PlayerSlot) -> &Player {
        let words: &[u64; PLAYER_WORDS] = chunk(&self.main, self.player_at(slot.0));
        zerocopy::transmute_ref!(words)
    }

    /// Writes the record in a slot. Player and hunt are kept, whatever `player`
    /// says.
    #[inline]
    pub fn player_write(&mut self, slot: PlayerSlot, player: Player) {
        self.save(Kind::Players, slot.0);
        let before = *self.player(slot);
        let after = Player { player: before.player, hunt: before.hunt, ..player };
        *self.player_mut(slot.0) = after;
        self.rank_again(slot, &before, &after);
    }

    /// Puts a player in. One that is there already gets the new record.
    ///
    /// # Errors
    ///
    /// [`Full::Players`].
    pub fn player_insert(&mut self, player: Player) -> Result<PlayerSlot, Full> {
        if let Some(slot) = self.player_slot(player.hunt(), player.player()) {
            self.player_write(slot, player);
            return Ok(slot);
        }
        let slot = self.players_len;
        if slot == self.limits.players_max {
            return Err(Full::Players(self.limits.players_max));
        }
        // A slot that no capture has counted: nothing to save.
        *self.player_mut(slot) = player;
        let hash = self.mix.of(player.hunt, player.player);
        self.layout.player_hash.insert(&mut self.main, hash, slot);
        self.players_len += 1;
        self.tally_mut(player.hunt).players += u32::from(!player.is_guest());
        let nothing = Player::new(player.hunt(), player.player);
        self.rank_again(PlayerSlot(slot), &nothing, &player);
        Ok(PlayerSlot(slot))
    }

    fn player_mut(&mut self, slot: u32) -> &mut Player {
        let at = self.player_at(slot);
        let words: &mut [u64; PLAYER_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }
}

/// Capture.
impl Index {
    /// Begins to copy everything as it is now into `image`.
    ///
    /// # Panics
    ///
    /// When a capture is under way already, or `image` was made for less than
    /// this index holds.
    pub fn capture_begin(&mut self, image: IndexImage) {
        assert!(self.capture.is_none(), "an index is captured once at a time");
        let lens = [
            self.cells_top,
            self.players_len,
            self.hunts_len,
            self.definitions_len,
            self.deeds_len,
        ];
        let rooms = image.rooms();
        let fits = lens.iter().zip(rooms).all(|(len, room)| *len as usize <= room);
        assert!(fits, "an image has the limits of the index it is for: {lens:?} in {rooms:?}");
        self.capture = Some(Capture::begin(image, &mut self.pages, lens));
    }

    /// Copies on, about `bytes_max` bytes and at least one page of 12 KiB;
    /// whether all is copied. `true` when no capture is under way.
    pub fn capture_step(&mut self, bytes_max: usize) -> bool {
        match &mut self.capture {
            Some(capture) => capture.step(&mut self.pages, &self.main, &self.layout, bytes_max),
            None => true,
        }
    }

    /// Ends a capture and gives the image back. What is not copied yet is
    /// copied now, all at once: a caller who must not stall steps until
    /// [`Self::capture_step`] says `true`.
    ///
    /// # Panics
    ///
    /// When no capture is under way.
    pub fn capture_end(&mut self) -> IndexImage {
        self.capture_step(usize::MAX);
        self.capture.take().expect("a capture that ends was begun").image
    }

    /// Before the record in `slot` is written.
    #[inline(always)]
    fn save(&mut self, kind: Kind, slot: u32) {
        if self.capture.is_some() {
            self.save_page(kind, slot);
        }
    }

    #[cold]
    fn save_page(&mut self, kind: Kind, slot: u32) {
        if let Some(capture) = &mut self.capture {
            capture.save(kind, &mut self.pages, &self.main, &self.layout, slot);
        }
    }
}
