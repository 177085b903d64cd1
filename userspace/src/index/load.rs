//! An index from the records of an image: hash indexes and order are built
//! anew, in bulk.

use std::io;

use zerocopy::IntoBytes;

use super::Index;
use super::board::BoardKey;
use super::capture::IndexImage;
use super::records::{
    CELL_WORDS, Cell, DEED_WORDS, DEFINITION_WORDS, Deed, Definition, Hunt, IndexLimits, OrderKey,
    PLAYER_WORDS, Player, PlayerSlot,
};

/// Why the records of an image cannot be an index. The bytes had the right
/// checksums, so they were written so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// More than the capacity, or than the image's own table.
    #[error("the image holds {seen} {what}, room is for {wanted}: it was made with other limits")]
    TooMany {
        /// Records of which kind.
        what: &'static str,
        /// How many.
        seen: u32,
        /// Most that fit.
        wanted: u32,
    },
    /// A record that no index writes.
    #[error("{what} {slot} of the image is not sound: {why}; use an older snapshot")]
    Unsound {
        /// Record of which kind.
        what: &'static str,
        /// Its slot.
        slot: u32,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl From<LoadError> for io::Error {
    fn from(error: LoadError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

const fn unsound(what: &'static str, slot: u32, why: &'static str) -> LoadError {
    LoadError::Unsound { what, slot, why }
}

/// Records ahead of the one that is entered whose line of the hash index is
/// asked for.
const AHEAD: usize = 16;

impl Index {
    /// A new index with what `image` holds.
    ///
    /// # Errors
    ///
    /// As [`Index::new`]; `InvalidData` with a [`LoadError`] for an image that
    /// does not fit or is not sound.
    pub fn restore(limits: &IndexLimits, image: &IndexImage) -> io::Result<Self> {
        let mut index = Self::new(limits)?;
        index.load(image)?;
        Ok(index)
    }

    /// Fills an index that has never been written. Allocates while it sorts.
    fn load(&mut self, image: &IndexImage) -> Result<(), LoadError> {
        let hunts_max = u32::from(self.limits.hunts_max);
        let (definitions_max, deeds_max) = (self.limits.definitions_max, self.limits.deeds_max);
        let parts = [
            ("cells", image.cells_len, self.limits.cells_max, image.cells.len()),
            ("players", image.players_len, self.limits.players_max, image.players.len()),
            ("hunts", image.hunts_len, hunts_max, image.hunts.len()),
            ("definitions", image.definitions_len, definitions_max, image.definitions.len()),
            ("deeds", image.deeds_len, deeds_max, image.deeds.len()),
        ];
        for (what, seen, most, table) in parts {
            let wanted = most.min(u32::try_from(table).unwrap_or(u32::MAX));
            if seen > wanted {
                return Err(LoadError::TooMany { what, seen, wanted });
            }
        }
        self.load_hunts(&image.hunts[..image.hunts_len as usize])?;
        self.load_players(&image.players[..image.players_len as usize])?;
        let of_hunt = |mark: u32, hunt: u16| match PlayerSlot::of_mark(mark) {
            None => true,
            Some(slot) => slot.0 < self.players_len && self.player(slot).hunt == hunt,
        };
        if let Some(number) = (0..).zip(self.hunts()).find(|(n, h)| !of_hunt(h.winner, *n)) {
            return Err(unsound("hunt", number.0.into(), "it is won by nobody of its players"));
        }
        self.load_board(&image.players[..image.players_len as usize])?;
        self.load_cells(&image.cells[..image.cells_len as usize])?;
        self.load_definitions(&image.definitions[..image.definitions_len as usize])?;
        self.load_deeds(&image.deeds[..image.deeds_len as usize])
    }

    fn load_hunts(&mut self, hunts: &[Hunt]) -> Result<(), LoadError> {
        for (record, number) in hunts.iter().zip(0..) {
            if !record.is_sound() {
                return Err(unsound("hunt", number, "bytes that must be 0"));
            }
            match self.hunt_insert(record.domain) {
                Ok(hunt) if u32::from(hunt.0) == number => self.hunt_write(hunt, record),
                _ => return Err(unsound("hunt", number, "its domain key is there twice")),
            }
        }
        Ok(())
    }

    fn load_definitions(&mut self, definitions: &[Definition]) -> Result<(), LoadError> {
        let at = self.layout.definitions_at;
        let end = at + definitions.len() * DEFINITION_WORDS;
        self.main[at..end].copy_from_slice(words(definitions));
        for (record, slot) in definitions.iter().zip(0..) {
            if u32::from(record.hunt) >= self.hunts_len || !record.is_sound() {
                let why = "unknown hunt or kind, or bytes that must be 0";
                return Err(unsound("definition", slot, why));
            }
            if self.definition_of(record.hunt, record.kind, record.id).is_some() {
                return Err(unsound("definition", slot, "it is there twice"));
            }
            self.definition_enter(record, slot);
        }
        Ok(())
    }

    fn load_deeds(&mut self, deeds: &[Deed]) -> Result<(), LoadError> {
        let at = self.layout.deeds_at;
        self.main[at..at + deeds.len() * DEED_WORDS].copy_from_slice(words(deeds));
        for (record, slot) in deeds.iter().zip(0..) {
            if record.player >= self.players_len || !record.is_sound() {
                let why = "unknown player or kind, or bytes that must be 0";
                return Err(unsound("deed", slot, why));
            }
            if self.deed_of(record.player, record.kind, record.book).is_some() {
                return Err(unsound("deed", slot, "it is there twice"));
            }
            self.deed_enter(record, slot);
        }
        Ok(())
    }

    fn load_players(&mut self, players: &[Player]) -> Result<(), LoadError> {
        let at = self.layout.players_at;
        self.main[at..at + players.len() * PLAYER_WORDS].copy_from_slice(words(players));
        let hunts_len = self.hunts_len;
        for (player, slot) in players.iter().zip(0..) {
            if let Some(ahead) = players.get(slot as usize + AHEAD) {
                self.prefetch_player_hash(ahead.hunt(), ahead.player);
            }
            if u32::from(player.hunt) >= hunts_len || !player.is_sound() {
                return Err(unsound(
                    "player",
                    slot,
                    "unknown hunt, or a score, team, power-up or place that cannot be",
                ));
            }
            if self.player_slot(player.hunt(), player.player).is_some() {
                return Err(unsound("player", slot, "it is there twice"));
            }
            let hash = self.mix.of(player.hunt, player.player);
            self.layout.player_hash.insert(&mut self.main, hash, slot);
            self.tally_mut(player.hunt).players += u32::from(!player.is_guest());
        }
        self.players_len = players.len() as u32;
        Ok(())
    }

    fn load_board(&mut self, players: &[Player]) -> Result<(), LoadError> {
        let mut keys = Vec::with_capacity(players.len());
        for (player, slot) in players.iter().zip(0..) {
            keys.extend(BoardKey::of(player, slot));
            let tally = self.tally_mut(player.hunt);
            tally.score_epoch = tally.score_epoch.max(player.score_epoch);
        }
        keys.sort_unstable();
        let (board, nodes) = self.board_nodes();
        board.load(nodes, &keys).map_err(|_| unsound("player", 0, "the board has no room"))
    }

    fn load_cells(&mut self, cells: &[Cell]) -> Result<(), LoadError> {
        let at = self.layout.cells_at;
        self.main[at..at + cells.len() * CELL_WORDS].copy_from_slice(words(cells));
        let mut keys = Vec::with_capacity(cells.len());
        // From the last to the first, so that the lowest vacant slots are used
        // again first.
        for (cell, slot) in cells.iter().zip(0..cells.len() as u32).rev() {
            if let Some(ahead) = (slot as usize).checked_sub(AHEAD).and_then(|at| cells.get(at)) {
                self.prefetch_cell_hash(ahead.hunt(), ahead.id);
            }
            if cell.is_vacant() {
                *self.cell_mut(slot) = Cell { claimed_by: self.vacant, ..Cell::default() };
                self.vacant = slot + 1;
                continue;
            }
            let is_known = u32::from(cell.hunt) < self.hunts_len;
            let claimant = PlayerSlot::of_mark(cell.claimed_by);
            let is_of_hunt = claimant.is_none_or(|player| {
                player.0 < self.players_len && self.player(player).hunt == cell.hunt
            });
            if !is_known || !is_of_hunt {
                return Err(unsound("cell", slot, "unknown hunt, or claimed by nobody in it"));
            }
            let hash = self.mix.of(cell.hunt, cell.id);
            self.layout.cell_hash.insert(&mut self.main, hash, slot);
            self.tally_mut(cell.hunt).cells += 1;
            keys.push(packed(cell.key(), slot));
        }
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] >> 32 == pair[1] >> 32) {
            return Err(unsound("cell", twice[1] as u32, "it is there twice"));
        }
        let slots: Vec<u32> = keys.iter().map(|key| *key as u32).collect();
        let (order, mut memory) = self.order_memory();
        if order.load(&mut memory, &slots).is_err() {
            return Err(unsound("cell", 0, "the order has no room"));
        }
        self.cells_top = cells.len() as u32;
        self.cells_len = slots.len() as u32;
        Ok(())
    }
}

/// What orders a cell, then its slot, as one number: sorted in half the time of
/// a pair, which is compared field by field.
const fn packed(key: OrderKey, slot: u32) -> u128 {
    (key.hunt as u128) << 96 | (key.id as u128) << 32 | slot as u128
}

/// Records as the arena holds them.
fn words<T: IntoBytes + zerocopy::Immutable>(records: &[T]) -> &[u64] {
    // Records are whole words and aligned as such, so this never fails.
    zerocopy::FromBytes::ref_from_bytes(records.as_bytes()).unwrap_or(&[])
}
