//! Durable entries by index, for threads beside the writer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::LogEntry;
use super::disk::AlignedBuf;
use super::record::{Record, entry_at};
use super::ring::{Ring, WalError};

/// Bytes that one read of the disk fetches at the most: long enough that the device's
/// speed decides and not the number of requests.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    /// Offset of its record in the segment, and the record's length.
    pub(super) offset: u32,
    pub(super) record_bytes: u32,
    /// Offset of its item in the record, and the item's length.
    pub(super) at: u32,
    pub(super) item_bytes: u32,
}

/// Where all durable entries stand: those from `first` on, without a gap.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    first: u64,
    entries: VecDeque<Location>,
}

impl EntryIndex {
    /// The entry after the last; any, when there is none.
    pub(super) fn push(&mut self, index: u64, location: Location) {
        if self.entries.is_empty() {
            self.first = index;
        }
        self.entries.push_back(location);
    }

    pub(super) fn truncate(&mut self, last: Option<u64>) {
        let kept = last.map_or(0, |last| last.saturating_add(1).saturating_sub(self.first));
        self.entries.truncate(kept as usize);
    }

    pub(super) fn purge(&mut self, upto: u64) {
        let gone = upto.saturating_add(1).saturating_sub(self.first);
        let gone = gone.min(self.entries.len() as u64);
        self.entries.drain(..gone as usize);
        self.first = self.first.max(upto.saturating_add(1));
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }
}

/// Reads durable entries; clones share one index.
#[derive(Clone, Debug)]
pub struct WalReader {
    ring: Arc<Ring>,
    index: Arc<Mutex<EntryIndex>>,
}

impl WalReader {
    pub(super) fn new(ring: Arc<Ring>, index: Arc<Mutex<EntryIndex>>) -> Self {
        Self { ring, index }
    }

    /// First entry there is, and the one after the last.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.first()..index.first() + index.len()
    }

    /// Entries from `from` up to and without `to`, as many as are durable and take
    /// `bytes_max` bytes of the log; one at least, where there is one.
    ///
    /// # Errors
    ///
    /// [`WalError::Purged`]; what the disk says; [`WalError::Rot`] where it does not
    /// give back what was written.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogEntry>, WalError> {
        let wanted = self.locate(from, to, bytes_max)?;
        let mut entries = Vec::with_capacity(wanted.len());
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            let start = u64::from(first.offset);
            let together = rest
                .iter()
                .take_while(|l| {
                    let end = u64::from(l.offset) + u64::from(l.record_bytes);
                    l.segment == first.segment
                        && l.offset >= first.offset
                        && (end - start <= READ_BYTES_MAX || l.offset == first.offset)
                })
                .count();
            let (now, later) = rest.split_at(together);
            let index = from + entries.len() as u64;
            if let Err(error) = self.fetch(now, index, &mut entries) {
                // Recycled while we read: gone, not damaged.
                self.locate(from, from + 1, 0)?;
                return Err(error);
            }
            rest = later;
        }
        Ok(entries)
    }

    fn locate(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Location>, WalError> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if from < index.first() && from < to {
            return Err(WalError::Purged { index: from, first: index.first() });
        }
        let skip = usize::try_from(from - index.first().min(from)).unwrap_or(usize::MAX);
        let take = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = 0usize;
        let fits = |location: &Location| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(location.item_bytes as usize);
            first || bytes <= bytes_max
        };
        let here = index.entries.range(skip.min(index.entries.len())..);
        Ok(here.take(take).copied().take_while(fits).collect())
    }

    /// Reads the entries at `locations`, which lie close together in one segment; the
    /// first of them is entry `index`.
    fn fetch(
        &self,
        locations: &[Location],
        mut index: u64,
        entries: &mut Vec<LogEntry>,
    ) -> Result<(), WalError> {
        let (Some(first), Some(last)) = (locations.first(), locations.last()) else {
            return Ok(());
        };
        let start = u64::from(first.offset);
        let bytes = u64::from(last.offset) + u64::from(last.record_bytes) - start;
        let mut buffer = AlignedBuf::zeroed(bytes as usize);
        self.ring
            .file(first.segment)
            .read_at(buffer.as_mut_slice(), start)
            .map_err(self.ring.io(first.segment, start, "reading entries"))?;
        let buffer = Bytes::from_owner(buffer);
        let mut checked = None;
        for location in locations {
            let from = (location.offset - first.offset) as usize;
            let record = buffer.slice(from..from + location.record_bytes as usize);
            let rot = |found: String| WalError::Rot {
                file: self.ring.name(location.segment),
                offset: u64::from(location.offset),
                expected: format!("a record with entry {index}"),
                found,
                repair: self.ring.repair_command(),
            };
            if checked != Some(location.offset) {
                let sound = Record::check(&record, self.ring.log_key);
                let header = sound.map_err(|e| rot(e.to_string()))?.header;
                if header.segment != location.segment {
                    return Err(rot(format!("a record of segment {}", header.segment)));
                }
                checked = Some(location.offset);
            }
            let entry = entry_at(&record, location.at as usize)
                .filter(|entry| entry.id.index == index)
                .ok_or_else(|| rot("a record without it".into()))?;
            entries.push(entry);
            index += 1;
        }
        Ok(())
    }
}
