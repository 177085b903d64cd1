//! The ring of segments: what is written where, and when it may be overwritten.
//!
//! ```text
//!  segment n lives in file n mod segments_max
//!
//!   purged, free      oldest in use                  active            free
//!  |.............|BASE entries ....|BASE .........|BASE ....> end|..............|
//!                 ^ everything before a segment's base is in the base: vote, purged,
//!                   committed, last. So the files before it can be written again.
//! ```
//!
//! One write is in flight at a time, so whatever a record says in `durable_upto` ends
//! where it starts. Items staged together share a record and are durable together or
//! not at all. After an error of the disk nothing more is written: what the disk
//! holds is not known then, and only the recovery of a new life may say.
//!
//! **The cap.** Entries never take the last free segment: it is left for votes and
//! cuts, and its last blocks for purges that free a segment, so that a full log can
//! always be relieved. A life that wrote nothing leaves its first record to the next
//! one, so that restarts alone never fill it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Access, BLOCK_BYTES, Disk, WriteMode};
use super::reader::{EntryIndex, Location, WalReader};
use super::record::{
    BASE_ITEM_BYTES, Base, FLAG_LIFE, FLAG_SEGMENT, HEADER_BYTES, Item, RECORD_BYTES_MAX,
    RecordBuilder, RecordHeader, SMALL_ITEM_BYTES, entry_item_bytes,
};
use super::recover::{self, RecoveryReport};
use super::ring::{Ring, check_options};
use super::{LogEntry, LogId, Vote};

pub use super::ring::{SEGMENT_SUFFIX, SEGMENTS_MIN, WalError, WalOptions, segment_name};

/// Blocks at the end of the last free segment that only a purge that frees a segment
/// and the beginning of a life may take.
const PURGE_BLOCKS: u64 = 4;

/// Where the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalState {
    /// The vote.
    pub vote: Option<Vote>,
    /// Last entry purged.
    pub purged: Option<LogId>,
    /// Last entry; the purged one where none is left.
    pub last: Option<LogId>,
    /// Last entry known to be committed.
    pub committed: Option<LogId>,
    /// Segments in use.
    pub segments_used: u32,
    /// Bytes of whole segments that entries may still begin. At 0 there is still the
    /// rest of the active one: enough for what is in flight, not to go on proposing.
    pub free_bytes: u64,
}

/// A segment in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Last index before its base that was not taken back since.
    pub(super) before: Option<u64>,
}

/// Entries behind `last` are taken back: no segment has any before its base.
pub(super) fn cut_before(segments: &mut VecDeque<Segment>, last: Option<u64>) {
    for segment in segments {
        segment.before = segment.before.min(last);
    }
}

/// What to stage.
#[derive(Clone, Copy, Debug)]
pub enum Staged<'a> {
    /// The next entry.
    Entry(&'a LogEntry),
    /// A vote.
    Vote(Vote),
    /// Take back entries behind this one, or all.
    Truncate(Option<LogId>),
    /// Give up entries up to this one.
    Purge(LogId),
}

/// What one write held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes written.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
}

/// A change of the entries' index, made once its record is durable.
#[derive(Clone, Copy, Debug)]
enum IndexChange {
    Push(u64, Location),
    Truncate(Option<u64>),
    Purge(u64),
}

/// How far into the ring's reserve something may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserve {
    Entries,
    /// And cuts, and purges that free nothing.
    Votes,
    /// A purge that frees a segment, the beginning of a life.
    Relief,
}

/// The log, for one thread. See the module's page.
#[derive(Debug)]
pub struct Wal {
    ring: Arc<Ring>,
    index: Arc<Mutex<EntryIndex>>,
    salt: u64,
    builder: RecordBuilder,
    flags: u16,
    /// Place and number of the record being filled.
    segment: u64,
    offset: u64,
    sequence: u64,
    /// Of the record before.
    chain: u32,
    durable_upto: u64,
    /// What the log says, staged items included.
    said: Base,
    committed: Option<LogId>,
    changes: Vec<IndexChange>,
    entries_staged: u64,
    segments: VecDeque<Segment>,
    closed: bool,
}

impl Wal {
    /// Makes all segments, zeroed. `progress` is told of each part written.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn format(
        disk: &dyn Disk,
        options: &WalOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), WalError> {
        let place = disk.place();
        check_options(options).map_err(|what| WalError::Layout { file: place.clone(), what })?;
        for slot in 0..u64::from(options.segments_max) {
            let name = segment_name(slot);
            disk.create(&name, options.segment_bytes, progress).map_err(|source| {
                let file = format!("{place}/{name}");
                WalError::Io { file, offset: 0, doing: "filling it with zeroes", source }
            })?;
        }
        disk.sync_dir().map_err(|source| {
            let doing = "making its names durable";
            WalError::Io { file: place, offset: 0, doing, source }
        })
    }

    /// Opens the log and recovers what is in it; a new life of it begins.
    ///
    /// # Errors
    ///
    /// [`WalError::Rot`] where durable bytes are damaged; files that are not this
    /// log's; what the disk says.
    pub fn open(disk: &dyn Disk, options: WalOptions) -> Result<(Self, RecoveryReport), WalError> {
        let ring = Ring::open(disk, &options, Access::Write)?;
        ring.sync()?;
        let found = recover::recover(&ring)?;
        let place = found.idle_life.unwrap_or(found.end);
        let mut wal = Self {
            durable_upto: ring.position(place.segment, place.offset),
            ring: Arc::new(ring),
            index: Arc::new(Mutex::new(found.index)),
            salt: options.salt,
            builder: RecordBuilder::new(),
            flags: 0,
            segment: place.segment,
            offset: place.offset,
            sequence: place.sequence,
            chain: place.chain,
            committed: found.said.committed,
            said: found.said,
            changes: Vec::new(),
            entries_staged: 0,
            segments: found.segments,
            closed: false,
        };
        wal.recycle();
        wal.begin_life()?;
        Ok((wal, found.report))
    }

    /// Takes all the memory that records will ever need: for a log that is written
    /// for long.
    pub(super) fn reserve(&mut self) {
        debug_assert!(self.builder.is_empty(), "a record is being filled");
        self.builder = RecordBuilder::huge();
    }

    /// The first record of this life, over whatever was torn at the end. Over the first
    /// record of a life that wrote nothing else, too: torn then, it takes nothing with
    /// it, since it says only what those before it say.
    fn begin_life(&mut self) -> Result<(), WalError> {
        let bytes = (HEADER_BYTES + BASE_ITEM_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
        if self.offset + bytes > self.ring.segment_bytes {
            self.advance(Reserve::Relief)?;
        }
        self.flags = FLAG_LIFE | if self.offset == 0 { FLAG_SEGMENT } else { 0 };
        self.builder.push(&Item::Base(self.said));
        self.flush().map(|_| ())
    }

    /// Appends entries, in as many records as it takes; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`WalError::Full`], [`WalError::TooLarge`] and [`WalError::Contradiction`] of
    /// the first entry that cannot be appended: those before it are. What the disk
    /// says: the log is closed then.
    pub fn append(&mut self, entries: &[LogEntry]) -> Result<(), WalError> {
        for entry in entries {
            if let Err(error) = self.stage_or_flush(Staged::Entry(entry)) {
                // After an error of the disk its own words are what counts.
                if !self.closed {
                    self.flush()?;
                }
                return Err(error);
            }
        }
        self.flush().map(|_| ())
    }

    /// Gives a vote; durable when it returns.
    ///
    /// # Errors
    ///
    /// A vote of an earlier term; a full log; what the disk says.
    pub fn save_vote(&mut self, vote: Vote) -> Result<(), WalError> {
        self.stage_or_flush(Staged::Vote(vote))?;
        self.flush().map(|_| ())
    }

    /// Takes back every entry behind `last`; durable when it returns.
    ///
    /// # Errors
    ///
    /// An entry that is not there; a full log; what the disk says.
    pub fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), WalError> {
        self.stage_or_flush(Staged::Truncate(last))?;
        self.flush().map(|_| ())
    }

    /// Gives up entries up to `upto`, which may lie beyond the last; durable when it
    /// returns, and segments that hold nothing else are free.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn purge(&mut self, upto: LogId) -> Result<(), WalError> {
        self.stage_or_flush(Staged::Purge(upto))?;
        self.flush().map(|_| ())
    }

    /// Entries up to `upto` are committed: written along with whatever is written next.
    pub fn set_committed(&mut self, upto: LogId) {
        if self.committed.is_none_or(|c| c.index < upto.index) {
            self.committed = Some(upto);
        }
    }

    fn stage_or_flush(&mut self, what: Staged<'_>) -> Result<(), WalError> {
        if !self.stage(what)? {
            self.flush()?;
            self.stage(what)?;
        }
        Ok(())
    }

    /// Puts something into the record being filled; false when it does not fit there:
    /// flush and stage it again.
    ///
    /// # Errors
    ///
    /// As the operations; nothing has changed then.
    pub fn stage(&mut self, what: Staged<'_>) -> Result<bool, WalError> {
        if self.closed {
            return Err(WalError::Closed);
        }
        if !self.check(&what)? {
            return Ok(true);
        }
        let (bytes, reserve) = match &what {
            Staged::Entry(entry) => {
                (entry_item_bytes(entry.body.as_slice().len()), Reserve::Entries)
            }
            Staged::Vote(_) | Staged::Truncate(_) => (SMALL_ITEM_BYTES, Reserve::Votes),
            Staged::Purge(upto) => {
                let next = self.segments.get(1);
                let frees = next.is_some_and(|next| next.before <= Some(upto.index));
                (SMALL_ITEM_BYTES, if frees { Reserve::Relief } else { Reserve::Votes })
            }
        };
        if !self.make_room(bytes, reserve)? {
            return Ok(false);
        }
        self.put(&what);
        Ok(true)
    }

    /// Whether it agrees with what the log says; false when it says nothing new.
    fn check(&self, what: &Staged<'_>) -> Result<bool, WalError> {
        let said = &self.said;
        let contradicts = |asked: String| {
            let stands = format!("{said:?}");
            Err(WalError::Contradiction { asked, stands })
        };
        let last = said.last.map(|id| id.index);
        let purged = said.purged.map(|id| id.index);
        match what {
            Staged::Entry(entry) => match last {
                Some(last) if last.checked_add(1) != Some(entry.id.index) => {
                    contradicts(format!("appending entry {}", entry.id))
                }
                _ => Ok(true),
            },
            Staged::Vote(vote) => match said.vote {
                Some(given) if given.term > vote.term => contradicts(format!("voting {vote:?}")),
                given => Ok(given != Some(*vote)),
            },
            Staged::Truncate(to) => {
                let to = to.map(|id| id.index);
                if to < purged || to > last {
                    return contradicts(format!("taking back all behind {to:?}"));
                }
                Ok(to < last)
            }
            Staged::Purge(upto) => Ok(purged.is_none_or(|p| p < upto.index)),
        }
    }

    /// Whether `bytes` of an item fit the record being filled; begins a segment where
    /// the record is still empty and the active segment too short.
    fn make_room(&mut self, bytes: usize, reserve: Reserve) -> Result<bool, WalError> {
        // The note of what is committed always fits.
        let bytes_with_note = bytes + SMALL_ITEM_BYTES;
        let rest = (self.ring.segment_bytes - self.offset) as usize;
        let most = RECORD_BYTES_MAX.min(self.ring.segment_bytes as usize);
        // As if it began a segment: what fits does not depend on where the log stands.
        if HEADER_BYTES + BASE_ITEM_BYTES + bytes_with_note > most {
            return Err(WalError::TooLarge { bytes, max: most });
        }
        if !self.builder.is_empty() {
            let wanted = self.builder.record_bytes_with(bytes_with_note);
            return Ok(wanted <= most.min(rest) && self.may_use(wanted as u64, reserve));
        }
        let base = if self.offset == 0 { BASE_ITEM_BYTES } else { 0 };
        let mut wanted = self.builder.record_bytes_with(base + bytes_with_note);
        if wanted > rest.min(most) {
            wanted = self.builder.record_bytes_with(BASE_ITEM_BYTES + bytes_with_note);
            self.advance(reserve)?;
        }
        if !self.may_use(wanted as u64, reserve) {
            return Err(self.full());
        }
        self.flags = 0;
        if self.offset == 0 {
            self.flags = FLAG_SEGMENT;
            self.builder.push(&Item::Base(self.said));
        }
        Ok(true)
    }

    /// Whether the active segment is open to this reserve for so many bytes.
    fn may_use(&self, bytes: u64, reserve: Reserve) -> bool {
        let is_last_free = self.segments.len() as u64 == self.ring.slots();
        match reserve {
            Reserve::Relief => true,
            Reserve::Entries => !is_last_free,
            Reserve::Votes => {
                let kept = if is_last_free { PURGE_BLOCKS * BLOCK_BYTES as u64 } else { 0 };
                self.offset + bytes + kept <= self.ring.segment_bytes
            }
        }
    }

    fn advance(&mut self, reserve: Reserve) -> Result<(), WalError> {
        let kept = u64::from(reserve == Reserve::Entries);
        if self.segments.len() as u64 + 1 + kept > self.ring.slots() {
            return Err(self.full());
        }
        self.segment += 1;
        self.offset = 0;
        let before = self.said.last.map(|id| id.index);
        self.segments.push_back(Segment { number: self.segment, before });
        Ok(())
    }

    fn full(&self) -> WalError {
        WalError::Full {
            segments_used: self.segments.len() as u32,
            segments_max: self.ring.slots() as u32,
        }
    }

    fn put(&mut self, what: &Staged<'_>) {
        match what {
            Staged::Entry(entry) => {
                let item = Item::Entry {
                    id: entry.id,
                    log_time_ns: entry.log_time_ns,
                    kind: entry.body.kind(),
                    bytes: entry.body.as_slice(),
                };
                let at = self.builder.push(&item) as u32;
                let location = Location {
                    segment: self.segment,
                    offset: self.offset as u32,
                    record_bytes: 0,
                    at,
                    item_bytes: entry_item_bytes(entry.body.as_slice().len()) as u32,
                };
                self.changes.push(IndexChange::Push(entry.id.index, location));
                self.entries_staged += 1;
                self.said.last = Some(entry.id);
            }
            Staged::Vote(vote) => {
                self.builder.push(&Item::Vote(*vote));
                self.said.vote = Some(*vote);
            }
            Staged::Truncate(to) => {
                self.builder.push(&Item::Truncate(*to));
                self.changes.push(IndexChange::Truncate(to.map(|id| id.index)));
                cut_before(&mut self.segments, to.map(|id| id.index));
                self.said.last = *to;
            }
            Staged::Purge(upto) => {
                self.builder.push(&Item::Purge(*upto));
                self.changes.push(IndexChange::Purge(upto.index));
                self.said.purged = Some(*upto);
                if self.said.last.is_none_or(|last| last.index < upto.index) {
                    self.said.last = Some(*upto);
                }
            }
        }
    }

    /// Bytes that the record being filled would have on disk; 0 when it is empty.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        if self.builder.is_empty() { 0 } else { self.builder.record_bytes_with(0) }
    }

    /// Writes what is staged; durable when it returns.
    ///
    /// # Errors
    ///
    /// What the disk says: the log is closed then, since nobody knows what it holds.
    pub fn flush(&mut self) -> Result<Flushed, WalError> {
        if self.closed {
            return Err(WalError::Closed);
        }
        if self.builder.is_empty() {
            return Ok(Flushed::default());
        }
        if self.committed != self.said.committed
            && let Some(upto) = self.committed
        {
            self.builder.push(&Item::Committed(upto));
            self.said.committed = Some(upto);
        }
        let header = RecordHeader {
            flags: self.flags,
            salt: self.salt,
            sequence: self.sequence,
            segment: self.segment,
            durable_upto: self.durable_upto,
            chain: self.chain,
            ..RecordHeader::default()
        };
        let (bytes, crc) = self.builder.finish(header, self.ring.log_key);
        let written = bytes.len() as u64;
        if let Err(source) = self.ring.file(self.segment).write_durable_at(bytes, self.offset) {
            self.closed = true;
            return Err(self.ring.io(self.segment, self.offset, "writing a record")(source));
        }
        self.builder.clear();
        self.offset += written;
        self.sequence += 1;
        self.chain = crc;
        self.durable_upto = self.ring.position(self.segment, self.offset);
        self.publish(written as u32);
        self.recycle();
        let entries = std::mem::take(&mut self.entries_staged);
        Ok(Flushed { bytes: written, entries })
    }

    /// Readers see what has become durable.
    fn publish(&mut self, record_bytes: u32) {
        if self.changes.is_empty() {
            return;
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for change in self.changes.drain(..) {
            match change {
                IndexChange::Push(at, location) => {
                    index.push(at, Location { record_bytes, ..location });
                }
                IndexChange::Truncate(last) => index.truncate(last),
                IndexChange::Purge(upto) => index.purge(upto),
            }
        }
    }

    /// Frees the oldest segments whose entries are all purged. What else they said
    /// stands in the base of the next.
    fn recycle(&mut self) {
        let purged = self.said.purged.map(|id| id.index);
        while self.segments.get(1).is_some_and(|next| next.before <= purged) {
            self.segments.pop_front();
        }
    }

    /// Where the log stands, staged items included.
    #[must_use]
    pub fn state(&self) -> WalState {
        let used = self.segments.len() as u64;
        WalState {
            vote: self.said.vote,
            purged: self.said.purged,
            last: self.said.last,
            committed: self.committed,
            segments_used: used as u32,
            free_bytes: self.ring.slots().saturating_sub(used + 1) * self.ring.segment_bytes,
        }
    }

    /// Number of the oldest segment in use.
    #[must_use]
    pub fn oldest_segment(&self) -> u64 {
        self.segments.front().map_or(0, |segment| segment.number)
    }

    /// Reads durable entries, from any thread.
    #[must_use]
    pub fn reader(&self) -> WalReader {
        WalReader::new(Arc::clone(&self.ring), Arc::clone(&self.index))
    }

    /// How writes become durable.
    #[must_use]
    pub fn mode(&self) -> WriteMode {
        self.ring.file(self.segment).mode()
    }

    /// Bytes of the largest body that an entry may have.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        let most = RECORD_BYTES_MAX.min(self.ring.segment_bytes as usize);
        most - HEADER_BYTES - BASE_ITEM_BYTES - SMALL_ITEM_BYTES - entry_item_bytes(0)
    }
}
