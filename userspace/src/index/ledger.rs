//! What is defined in hunts, and what players did that is done once only: tables
//! that only grow.

use super::Index;
use super::arena::{chunk, chunk_mut};
use super::capture::Kind;
use super::records::{
    DEED_WORDS, DEFINITION_WORDS, Deed, DeedKind, Definition, DefinitionKind, Full, HuntId,
    PlayerSlot,
};

/// Where a definition lies. Good for ever: definitions are not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DefinitionSlot(pub(super) u32);

/// Where a deed lies. Good for ever: deeds are not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeedSlot(pub(super) u32);

/// Definitions.
impl Index {
    /// Definitions there are.
    #[must_use]
    pub fn definitions_len(&self) -> u32 {
        self.definitions_len
    }

    /// Where the quest or treasure type `id` of `hunt` lies.
    #[must_use]
    pub fn definition_slot(
        &self,
        hunt: HuntId,
        kind: DefinitionKind,
        id: u64,
    ) -> Option<DefinitionSlot> {
        self.definition_of(hunt.0, kind as u8, id)
    }

    pub(super) fn definition_of(&self, hunt: u16, kind: u8, id: u64) -> Option<DefinitionSlot> {
        let is_it = |slot: u32| {
            let record = self.definition(DefinitionSlot(slot));
            (record.hunt, record.kind, record.id) == (hunt, kind, id)
        };
        let hash = self.mix.of(hunt, Definition::key(kind, id));
        self.layout.definition_hash.find(&self.main, hash, is_it).map(DefinitionSlot)
    }

    /// The record in a slot.
    #[must_use]
    pub fn definition(&self, slot: DefinitionSlot) -> &Definition {
        let at = self.layout.definitions_at + slot.0 as usize * DEFINITION_WORDS;
        let words: &[u64; DEFINITION_WORDS] = chunk(&self.main, at);
        zerocopy::transmute_ref!(words)
    }

    /// Puts a definition in, or in the place of the one that is called so.
    ///
    /// # Errors
    ///
    /// [`Full::Definitions`].
    pub fn definition_put(&mut self, record: &Definition) -> Result<DefinitionSlot, Full> {
        if let Some(slot) = self.definition_of(record.hunt, record.kind, record.id) {
            self.save(Kind::Definitions, slot.0);
            *self.definition_mut(slot.0) = *record;
            return Ok(slot);
        }
        let slot = self.definitions_len;
        if slot == self.limits.definitions_max {
            return Err(Full::Definitions(self.limits.definitions_max));
        }
        *self.definition_mut(slot) = *record;
        self.definition_enter(record, slot);
        Ok(DefinitionSlot(slot))
    }

    /// Makes the record in `slot`, which is the next, be found.
    pub(super) fn definition_enter(&mut self, record: &Definition, slot: u32) {
        let hash = self.mix.of(record.hunt, Definition::key(record.kind, record.id));
        self.layout.definition_hash.insert(&mut self.main, hash, slot);
        self.definitions_len = slot + 1;
    }

    fn definition_mut(&mut self, slot: u32) -> &mut Definition {
        let at = self.layout.definitions_at + slot as usize * DEFINITION_WORDS;
        let words: &mut [u64; DEFINITION_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }
}

/// Deeds.
impl Index {
    /// Deeds there are.
    #[must_use]
    pub fn deeds_len(&self) -> u32 {
        self.deeds_len
    }

    /// Where the marks of `player` in `book` lie.
    #[must_use]
    pub fn deed_slot(&self, player: PlayerSlot, kind: DeedKind, book: u64) -> Option<DeedSlot> {
        self.deed_of(player.0, kind as u8, book)
    }

    pub(super) fn deed_of(&self, player: u32, kind: u8, book: u64) -> Option<DeedSlot> {
        let is_it = |slot: u32| {
            let record = self.deed(DeedSlot(slot));
            (record.player, record.kind, record.book) == (player, kind, book)
        };
        let hash = self.deed_hash(player, kind, book);
        self.layout.deed_hash.find(&self.main, hash, is_it).map(DeedSlot)
    }

    /// The record in a slot.
    #[must_use]
    pub fn deed(&self, slot: DeedSlot) -> &Deed {
        let at = self.layout.deeds_at + slot.0 as usize * DEED_WORDS;
        let words: &[u64; DEED_WORDS] = chunk(&self.main, at);
        zerocopy::transmute_ref!(words)
    }

    /// Puts a deed in, or in the place of the one of the same player and book.
    ///
    /// # Errors
    ///
    /// [`Full::Deeds`].
    pub fn deed_put(&mut self, record: &Deed) -> Result<DeedSlot, Full> {
        if let Some(slot) = self.deed_of(record.player, record.kind, record.book) {
            self.save(Kind::Deeds, slot.0);
            *self.deed_mut(slot.0) = *record;
            return Ok(slot);
        }
        let slot = self.deeds_len;
        if slot == self.limits.deeds_max {
            return Err(Full::Deeds(self.limits.deeds_max));
        }
        *self.deed_mut(slot) = *record;
        self.deed_enter(record, slot);
        Ok(DeedSlot(slot))
    }

    /// Twice through the random mix: nobody can choose books of many players that meet
    /// in one bucket.
    fn deed_hash(&self, player: u32, kind: u8, book: u64) -> u64 {
        self.mix.of(kind.into(), book ^ self.mix.of(0, player.into()))
    }

    /// Makes the record in `slot`, which is the next, be found.
    pub(super) fn deed_enter(&mut self, record: &Deed, slot: u32) {
        let hash = self.deed_hash(record.player, record.kind, record.book);
        self.layout.deed_hash.insert(&mut self.main, hash, slot);
        self.deeds_len = slot + 1;
    }

    fn deed_mut(&mut self, slot: u32) -> &mut Deed {
        let at = self.layout.deeds_at + slot as usize * DEED_WORDS;
        let words: &mut [u64; DEED_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }
}
