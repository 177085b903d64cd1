//! A partition's image as sections, and back.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::format::SectionEntry;
use super::sections::{Image, Section, SectionKind, StateHead, Target};
use crate::apply::{Digest, PartitionImage};
use crate::base::table::Table;
use crate::dedupe::DedupeImage;
use crate::index::{Cell, Deed, Definition, Hunt, Player};

/// Bytes of one idempotency key.
const KEY_BYTES: u32 = 16;
/// Bytes of a record, where they are the table's own.
const CELL_BYTES: u32 = size_of::<Cell>() as u32;
const PLAYER_BYTES: u32 = size_of::<Player>() as u32;
const HUNT_BYTES: u32 = size_of::<Hunt>() as u32;
const DEFINITION_BYTES: u32 = size_of::<Definition>() as u32;
const DEED_BYTES: u32 = size_of::<Deed>() as u32;

fn live<T: IntoBytes + Immutable>(table: &[T], len: u32) -> &[u8] {
    table[..table.len().min(len as usize)].as_bytes()
}

fn part<T>(table: &mut Table<T>, offset: u64, bytes: usize) -> Option<&mut [u8]>
where
    T: IntoBytes + FromBytes + Copy,
{
    range(table.as_mut_bytes(), offset, bytes)
}

fn range(bytes: &mut [u8], offset: u64, len: usize) -> Option<&mut [u8]> {
    let from = usize::try_from(offset).ok()?;
    bytes.get_mut(from..from.checked_add(len)?)
}

impl Image for PartitionImage {
    fn head(&self) -> StateHead {
        StateHead {
            number: self.number,
            epoch: self.epoch,
            log_time_ns: self.log_time_ns,
            digest_outcomes: self.digest.outcomes,
            digest_state: self.digest.state,
            keys: self.dedupe.keys_len(),
        }
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let section = |kind, record_bytes, bytes| Section { kind, index: 0, record_bytes, bytes };
        let index = &self.index;
        let mut sections = vec![
            section(SectionKind::Hunts, HUNT_BYTES, live(&index.hunts, index.hunts_len)),
            section(SectionKind::Cells, CELL_BYTES, live(&index.cells, index.cells_len)),
            section(SectionKind::Players, PLAYER_BYTES, live(&index.players, index.players_len)),
            section(
                SectionKind::Definitions,
                DEFINITION_BYTES,
                live(&index.definitions, index.definitions_len),
            ),
            section(SectionKind::Deeds, DEED_BYTES, live(&index.deeds, index.deeds_len)),
            section(SectionKind::Outbox, 1, &self.outbox),
            section(SectionKind::DedupeState, 1, self.dedupe.state()),
            section(SectionKind::DedupeSlices, 1, self.dedupe.slices()),
        ];
        for generation in 0..DedupeImage::GENERATIONS {
            if let Some(bytes) = self.dedupe.generation(generation) {
                let index = generation as u16;
                let keys = section(SectionKind::DedupeKeys, KEY_BYTES, bytes);
                sections.push(Section { index, ..keys });
            }
        }
        sections
    }

    fn begin(&mut self, head: &StateHead, sections: &[SectionEntry]) -> Result<(), String> {
        self.number = head.number;
        self.epoch = head.epoch;
        self.log_time_ns = head.log_time_ns;
        self.digest = Digest { outcomes: head.digest_outcomes, state: head.digest_state };
        self.index.hunts_len = records(sections, SectionKind::Hunts, HUNT_BYTES)?;
        self.index.cells_len = records(sections, SectionKind::Cells, CELL_BYTES)?;
        self.index.players_len = records(sections, SectionKind::Players, PLAYER_BYTES)?;
        self.index.definitions_len = records(sections, SectionKind::Definitions, DEFINITION_BYTES)?;
        self.index.deeds_len = records(sections, SectionKind::Deeds, DEED_BYTES)?;
        let outbox_bytes = records(sections, SectionKind::Outbox, 1)? as usize;
        if outbox_bytes > self.outbox.capacity() {
            return Err(format!("outbox of {outbox_bytes} bytes"));
        }
        self.outbox.resize(outbox_bytes, 0);
        let wanted = [
            (SectionKind::DedupeState, self.dedupe.state().len()),
            (SectionKind::DedupeSlices, self.dedupe.slices().len()),
        ];
        for (kind, bytes) in wanted {
            let found = records(sections, kind, 1)?;
            if found as usize != bytes {
                return Err(format!("{} of {found} bytes, wanted {bytes}", kind.label()));
            }
        }
        Ok(())
    }
}

/// Records of the one section of a kind.
fn records(sections: &[SectionEntry], kind: SectionKind, record_bytes: u32) -> Result<u32, String> {
    let mut found = sections.iter().filter(|s| s.section == kind.label());
    match (found.next(), found.next()) {
        (Some(section), None) if section.record_bytes == record_bytes && section.index == 0 => {
            u32::try_from(section.records)
                .map_err(|_| format!("{} records of {}", section.records, kind.label()))
        }
        (None, _) => Err(format!("no section {}", kind.label())),
        _ => Err(format!("another layout of {}", kind.label())),
    }
}

impl Target for PartitionImage {
    fn place(
        &mut self,
        kind: SectionKind,
        index: u16,
        offset: u64,
        bytes: usize,
    ) -> Option<&mut [u8]> {
        match kind {
            SectionKind::Hunts => part(&mut self.index.hunts, offset, bytes),
            SectionKind::Cells => part(&mut self.index.cells, offset, bytes),
            SectionKind::Players => part(&mut self.index.players, offset, bytes),
            SectionKind::Definitions => part(&mut self.index.definitions, offset, bytes),
            SectionKind::Deeds => part(&mut self.index.deeds, offset, bytes),
            SectionKind::Outbox => range(&mut self.outbox, offset, bytes),
            SectionKind::DedupeState => range(self.dedupe.state_mut(), offset, bytes),
            SectionKind::DedupeSlices => range(self.dedupe.slices_mut(), offset, bytes),
            SectionKind::DedupeKeys => {
                range(self.dedupe.generation_mut(index.into())?, offset, bytes)
            }
        }
    }
}
