//! What a snapshot holds of a partition: a few facts and some tables of plain
//! records, seen as bytes.

use super::format::{PartitionEntry, SectionEntry};

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SectionKind {
    /// Hunts, by number.
    Hunts = 1,
    /// Cells, by slot.
    Cells = 2,
    /// Players, by slot.
    Players = 3,
    /// What the dedupe table knows of its generations.
    DedupeState = 4,
    /// Which generations of idempotency keys hold which key times.
    DedupeSlices = 5,
    /// Idempotency keys: one section a generation that has any.
    DedupeKeys = 6,
    /// Quests and treasure types, by slot.
    Definitions = 7,
    /// Deeds of players, by slot.
    Deeds = 8,
    /// What the partition owes others.
    Outbox = 9,
}

impl SectionKind {
    /// Every kind, in code order.
    pub const ALL: &'static [Self] = &[
        Self::Hunts,
        Self::Cells,
        Self::Players,
        Self::DedupeState,
        Self::DedupeSlices,
        Self::DedupeKeys,
        Self::Definitions,
        Self::Deeds,
        Self::Outbox,
    ];

    /// Code in a block.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Name in the manifest.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hunts => "hunts",
            Self::Cells => "cells",
            Self::Players => "players",
            Self::DedupeState => "dedupe-state",
            Self::DedupeSlices => "dedupe-slices",
            Self::DedupeKeys => "dedupe-keys",
            Self::Definitions => "definitions",
            Self::Deeds => "deeds",
            Self::Outbox => "outbox",
        }
    }

    /// The kind of a label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.label() == label)
    }
}

/// The facts beside the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHead {
    /// Number of the partition.
    pub number: u16,
    /// Epoch the tables are exact at.
    pub epoch: u64,
    /// Log time of that epoch, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Running digest of outcomes.
    pub digest_outcomes: u64,
    /// Running digest of state.
    pub digest_state: u64,
    /// Idempotency keys in it; a section of keys holds empty places too.
    pub keys: u64,
}

impl From<&PartitionEntry> for StateHead {
    fn from(entry: &PartitionEntry) -> Self {
        Self {
            number: entry.number,
            epoch: entry.epoch,
            log_time_ns: entry.log_time_ns,
            digest_outcomes: entry.digest_outcomes,
            digest_state: entry.digest_state,
            keys: entry.keys,
        }
    }
}

/// One table, its live records only.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// Which of several of that kind.
    pub index: u16,
    /// Bytes of one record.
    pub record_bytes: u32,
    /// The records.
    pub bytes: &'a [u8],
}

/// The state of a partition, to be written or to be read into.
pub trait Image: Target {
    /// The facts beside its tables.
    fn head(&self) -> StateHead;

    /// Its tables.
    fn sections(&self) -> Vec<Section<'_>>;

    /// Gets ready to be filled with these sections.
    ///
    /// # Errors
    ///
    /// What does not fit, in words.
    fn begin(&mut self, head: &StateHead, sections: &[SectionEntry]) -> Result<(), String>;
}

/// Where the bytes of a partition go when it is read.
pub trait Target {
    /// Memory for `bytes` bytes at `offset` of a section; `None` when it has no
    /// room for them.
    fn place(
        &mut self,
        kind: SectionKind,
        index: u16,
        offset: u64,
        bytes: usize,
    ) -> Option<&mut [u8]>;
}

/// For checking: every block is decoded, and the next one over it.
pub(super) struct Discard(pub Vec<u8>);

impl Target for Discard {
    fn place(&mut self, _: SectionKind, _: u16, _: u64, bytes: usize) -> Option<&mut [u8]> {
        if self.0.len() < bytes {
            self.0.resize(bytes, 0);
        }
        self.0.get_mut(..bytes)
    }
}
