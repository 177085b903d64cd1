//! What a start makes of the bytes it finds.
//!
//! 1. The first records of all files name their segments. From the newest sound one
//!    down, the last whose base says that nothing before it is left is where replay
//!    begins.
//! 2. Records follow one another by sequence, chain and salt. Where no next one is,
//!    the log ends.
//! 3. Behind the end there must be no proof that more was durable: a sound record with
//!    a later sequence and a `durable_upto` above the end. If there is one, what lies
//!    between is rot, and the node is fenced. If there is none, what is there was in
//!    flight at the crash, was never acknowledged, and is overwritten.
//!
//! Reading changes nothing, so a crash during recovery changes nothing either; the one
//! write comes at its end, see `Wal::open`.
//!
//! **What cannot be told apart.** Damage to the very last record of a log looks like a
//! write that was cut off. Every later record, and a tick is one, ends that.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::LogId;
use super::disk::{Access, AlignedBuf, BLOCK_BYTES, Disk};
use super::reader::{EntryIndex, Location};
use super::record::{
    Base, FLAG_LIFE, FLAG_SEGMENT, Item, RECORD_BYTES_MAX, Record, RecordError, RecordHeader,
    entry_item_bytes,
};
use super::ring::{Ring, WalError, WalOptions};
use super::wal::{Segment, cut_before};

/// Bytes read at once.
const WINDOW_BYTES: usize = 4 << 20;
const _: () = assert!(WINDOW_BYTES >= RECORD_BYTES_MAX);

/// What a recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments replayed.
    pub segments: u32,
    /// Sound records in them.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Entries that the log holds.
    pub entries: u64,
    /// File and offset of a record that was cut off by the crash: never acknowledged,
    /// taken away.
    pub torn: Option<(String, u64)>,
}

/// Damage below what was durable.
#[derive(Clone, Debug)]
pub(super) struct Rot {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) expected: String,
    pub(super) found: String,
}

/// Where a record stands, and what ties it to the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) sequence: u64,
    pub(super) chain: u32,
}

/// The log as found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Where the next record goes.
    pub(super) end: Place,
    /// The last record, when it only begins a life.
    pub(super) idle_life: Option<Place>,
    pub(super) said: Base,
    pub(super) index: EntryIndex,
    pub(super) segments: VecDeque<Segment>,
    pub(super) report: RecoveryReport,
}

impl Rot {
    fn error(self, ring: &Ring) -> WalError {
        WalError::Rot {
            file: ring.name(self.segment),
            offset: self.offset,
            expected: self.expected,
            found: self.found,
            repair: ring.repair_command(),
        }
    }
}

impl Recovered {
    /// A log that nothing was written to.
    pub(super) fn empty() -> Self {
        Self { end: Place { sequence: 1, ..Place::default() }, ..Self::default() }
    }
}

/// Finds the log; rot is an error.
pub(super) fn recover(ring: &Ring) -> Result<Recovered, WalError> {
    let (recovered, rot) = search(ring, u64::MAX, &mut |_, _, _| {})?;
    match rot {
        None => Ok(recovered),
        Some(rot) => Err(rot.error(ring)),
    }
}

/// What a look at a log found.
#[derive(Debug)]
pub struct Inspection {
    /// Sizes and counts.
    pub report: RecoveryReport,
    /// Where the log stands, up to the damage if there is any.
    pub base: Base,
    /// [`WalError::Rot`], if a start would be refused for it.
    pub damage: Option<WalError>,
}

/// Reads a log as a start would, and changes nothing. `visit` sees each sound record in
/// order with its file and offset. Beside a running writer the end may be one that was
/// just passed.
///
/// # Errors
///
/// Files that are not this log's; what the disk says.
pub fn inspect(
    disk: &dyn Disk,
    options: &WalOptions,
    visit: &mut dyn FnMut(&str, u64, &Record<'_>),
) -> Result<Inspection, WalError> {
    let ring = Ring::open(disk, options, Access::Read)?;
    let (found, rot) = search(&ring, u64::MAX, &mut |segment, offset, record| {
        visit(&ring.name(segment), offset, record);
    })?;
    let damage = rot.map(|rot| rot.error(&ring));
    Ok(Inspection { report: found.report, base: found.said, damage })
}

/// Sees each record in turn: its segment, its offset and itself.
pub(super) type Visit<'v> = &'v mut dyn FnMut(u64, u64, &Record<'_>);

/// Finds the log among segments up to `ceiling`, and the first rot in it.
pub(super) fn search(
    ring: &Ring,
    ceiling: u64,
    visit: Visit<'_>,
) -> Result<(Recovered, Option<Rot>), WalError> {
    let mut cursor = Cursor::new(ring);
    let heads = heads(&mut cursor, ceiling)?;
    let mut replay = Replay::new(&heads);
    let mut rot = None;
    for segment in replay.span.clone() {
        if let Some(found) = replay.segment(&mut cursor, segment, visit)? {
            rot = Some(found);
            break;
        }
        if replay.ended {
            break;
        }
    }
    if rot.is_none() {
        rot = replay.missing();
    }
    if rot.is_none() && ceiling == u64::MAX {
        rot = replay.proof(&mut cursor, &heads)?;
    }
    let recovered = replay.finish(&mut cursor)?;
    Ok((recovered, rot))
}

/// The sound first record of a segment.
#[derive(Clone, Copy, Debug)]
struct Head {
    header: RecordHeader,
    base: Base,
}

/// Sound first records, newest segment first.
fn heads(cursor: &mut Cursor<'_>, ceiling: u64) -> Result<Vec<Head>, WalError> {
    let mut heads = Vec::new();
    for slot in 0..cursor.ring.slots() {
        let Ok(record) = cursor.record(slot, 0)? else { continue };
        let header = record.header;
        let base = record.items().find_map(|(_, item)| match item {
            Item::Base(base) => Some(base),
            _ => None,
        });
        if let Some(base) = base
            && header.flags & FLAG_SEGMENT != 0
            && header.segment % cursor.ring.slots() == slot
            && header.segment <= ceiling
        {
            heads.push(Head { header, base });
        }
    }
    heads.sort_by_key(|head| std::cmp::Reverse(head.header.segment));
    Ok(heads)
}

/// Replays records in order.
struct Replay {
    span: RangeInclusive<u64>,
    /// The first segment's base is taken as it is.
    begun: bool,
    /// A segment of an earlier time came next: the log ended before it.
    ended: bool,
    salt: u64,
    found: Recovered,
    first: Option<Base>,
}

impl Replay {
    fn new(heads: &[Head]) -> Self {
        let mut found = Recovered::empty();
        let mut span = 0..=0;
        if let Some(newest) = heads.first() {
            let number = |head: &Head| head.header.segment;
            let (mut first, mut expected) = (number(newest), number(newest));
            let purged = newest.base.purged.map(|id| id.index);
            for head in heads.iter().take_while(|head| {
                let is_next = number(head) == expected;
                expected = expected.wrapping_sub(1);
                is_next
            }) {
                first = number(head);
                if head.base.last.map(|id| id.index) <= purged {
                    break;
                }
            }
            span = first..=number(newest);
            found.end.segment = first;
        } else {
            found.segments.push_back(Segment { number: 0, before: None });
        }
        Self { span, begun: false, ended: false, salt: 0, found, first: None }
    }

    /// Replays one segment up to where no next record is.
    fn segment(
        &mut self,
        cursor: &mut Cursor<'_>,
        segment: u64,
        visit: Visit<'_>,
    ) -> Result<Option<Rot>, WalError> {
        let ring = cursor.ring;
        let mut offset = 0;
        while offset < ring.segment_bytes {
            let record = match cursor.record(segment, offset)? {
                Ok(record) if self.is_next(&record.header, segment, offset) => record,
                Ok(record) if offset == 0 => return Ok(self.not_next(&record.header, segment)),
                // Only a chosen segment's first record can fail now: it changed
                // between two reads.
                Err(error) if offset == 0 && self.begun => {
                    return Ok(self.rot_at_end(ring, error.to_string()));
                }
                _ => break,
            };
            if let Err(what) = self.apply(&record, segment, offset) {
                let expected =
                    format!("record {} to agree with those before", self.found.end.sequence);
                let found = format!("a sound record in which {what}");
                return Ok(Some(Rot { segment, offset, expected, found }));
            }
            visit(segment, offset, &record);
            let only_begins = record.header.flags & FLAG_LIFE != 0 && record.header.items == 1;
            let place = Place { segment, offset, ..self.found.end };
            let sequence = record.header.sequence;
            self.found.idle_life = only_begins.then_some(Place { sequence, ..place });
            let bytes = record.header.record_bytes() as u64;
            self.found.end.chain = record.header.header_crc;
            self.found.end.sequence = record.header.sequence + 1;
            self.found.report.records += 1;
            self.found.report.bytes += bytes;
            offset += bytes;
            (self.found.end.segment, self.found.end.offset) = (segment, offset);
        }
        Ok(None)
    }

    /// Whether it is the record that comes next.
    fn is_next(&self, header: &RecordHeader, segment: u64, offset: u64) -> bool {
        if header.segment != segment || (offset == 0) != (header.flags & FLAG_SEGMENT != 0) {
            return false;
        }
        let salted = header.salt == self.salt || header.flags & FLAG_LIFE != 0;
        !self.begun
            || (header.sequence == self.found.end.sequence
                && header.chain == self.found.end.chain
                && salted)
    }

    /// A segment's first record is sound and does not come next: left by an earlier
    /// time that was cut here, or proof that something between is gone.
    fn not_next(&mut self, header: &RecordHeader, segment: u64) -> Option<Rot> {
        if header.sequence < self.found.end.sequence {
            self.ended = true;
            return None;
        }
        Some(Rot {
            segment: self.found.end.segment,
            offset: self.found.end.offset,
            expected: format!("record {}", self.found.end.sequence),
            found: format!("none, while segment {segment} goes on with record {}", header.sequence),
        })
    }

    fn rot_at_end(&self, ring: &Ring, found: String) -> Option<Rot> {
        let (mut segment, mut offset) = (self.found.end.segment, self.found.end.offset);
        if offset >= ring.segment_bytes {
            (segment, offset) = (segment + 1, 0);
        }
        let expected = format!("record {}", self.found.end.sequence);
        Some(Rot { segment, offset, expected, found })
    }

    /// Takes over what a record says; what it says wrongly is an error.
    fn apply(
        &mut self,
        record: &Record<'_>,
        segment: u64,
        offset: u64,
    ) -> Result<(), &'static str> {
        let header = &record.header;
        let first = !self.begun;
        self.begun = true;
        self.salt = header.salt;
        if header.flags & FLAG_SEGMENT != 0 {
            let base = record.items().next().map(|(_, item)| item);
            let Some(Item::Base(base)) = base else { return Err("a segment has no base") };
            if first {
                self.first = Some(base);
                self.found.said = base;
            }
            let before = base.last.map(|id| id.index);
            self.found.segments.push_back(Segment { number: segment, before });
        }
        for (at, item) in record.items() {
            let place = Location {
                segment,
                offset: offset as u32,
                record_bytes: header.record_bytes() as u32,
                at: at as u32,
                item_bytes: 0,
            };
            self.item(&item, place)?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item<'_>, place: Location) -> Result<(), &'static str> {
        let said = &mut self.found.said;
        let last = said.last.map(|id| id.index);
        match item {
            Item::Base(base) if base == said => {}
            Item::Base(_) => return Err("the base disagrees with the records before"),
            Item::Vote(vote) if said.vote.is_some_and(|given| given.term > vote.term) => {
                return Err("a vote goes back");
            }
            Item::Vote(vote) => said.vote = Some(*vote),
            Item::Entry { id, bytes, .. } => {
                if last.is_some_and(|last| last.checked_add(1) != Some(id.index)) {
                    return Err("an entry does not follow the one before");
                }
                let item_bytes = entry_item_bytes(bytes.len()) as u32;
                self.found.index.push(id.index, Location { item_bytes, ..place });
                said.last = Some(*id);
            }
            Item::Truncate(to) => {
                let index = to.map(|id| id.index);
                if index > last || index < said.purged.map(|id| id.index) {
                    return Err("entries are taken back that are not there");
                }
                self.found.index.truncate(index);
                cut_before(&mut self.found.segments, index);
                said.last = *to;
            }
            Item::Purge(upto) => {
                self.found.index.purge(upto.index);
                said.purged = Some(*upto);
                if last.is_none_or(|last| last < upto.index) {
                    said.last = Some(*upto);
                }
            }
            Item::Committed(upto) => said.committed = Some(*upto),
        }
        Ok(())
    }

    /// Entries that the log should hold and that stood before its first segment.
    fn missing(&self) -> Option<Rot> {
        let said = &self.found.said;
        let index = &self.found.index;
        let wanted = |id: Option<LogId>| id.map(|id| id.index);
        let (purged, last) = (wanted(said.purged), wanted(said.last));
        if last == purged {
            return None;
        }
        let last = last?;
        let from = purged.map(|purged| purged + 1);
        let held = index.len() > 0
            && index.first() + index.len() == last + 1
            && match from {
                Some(from) => index.first() <= from,
                None => self.first.is_none_or(|base| base.last.is_none()),
            };
        if held {
            return None;
        }
        let segment = self.span.start().wrapping_sub(1);
        Some(Rot {
            segment,
            offset: 0,
            expected: format!(
                "segment {segment} with entries from {} on, which were not purged",
                from.unwrap_or(0)
            ),
            found: "no sound first record of that segment".into(),
        })
    }

    /// A sound record behind the end that proves that more was durable.
    fn proof(&self, cursor: &mut Cursor<'_>, heads: &[Head]) -> Result<Option<Rot>, WalError> {
        let ring = cursor.ring;
        let (segment, offset) = (self.found.end.segment, self.found.end.offset);
        let end = ring.position(segment, offset);
        let proves = |header: &RecordHeader| {
            header.sequence >= self.found.end.sequence && header.durable_upto > end
        };
        let mut later = heads.iter().map(|head| head.header).find(proves);
        for (segment, from) in [(segment, offset), (segment + 1, 0)] {
            if later.is_none() {
                later = cursor.find(segment, from, &proves)?.map(|(_, header)| header);
            }
        }
        let Some(later) = later else { return Ok(None) };
        let why = if offset < ring.segment_bytes {
            cursor.record(segment, offset)?.err()
        } else {
            cursor.record(segment + 1, 0)?.err()
        };
        let why = why.map_or_else(|| "a record of another time".into(), |e| e.to_string());
        let found = format!(
            "{why}, while record {} says that the log was durable up to position {}",
            later.sequence, later.durable_upto
        );
        Ok(self.rot_at_end(ring, found))
    }

    fn finish(mut self, cursor: &mut Cursor<'_>) -> Result<Recovered, WalError> {
        let ring = cursor.ring;
        let found = &mut self.found;
        let report = &mut found.report;
        report.segments = found.segments.len() as u32;
        report.entries = found.index.len();
        let ends = [(found.end.segment, found.end.offset), (found.end.segment + 1, 0)];
        for (segment, offset) in ends.into_iter().filter(|end| end.1 < ring.segment_bytes) {
            let header = cursor.header(segment, offset)?;
            if header.is_ok_and(|h| h.segment == segment && h.sequence >= found.end.sequence) {
                report.torn = Some((ring.name(segment), offset));
                break;
            }
        }
        Ok(self.found)
    }
}

/// Reads records out of a window of one segment.
pub(super) struct Cursor<'r> {
    pub(super) ring: &'r Ring,
    buffer: AlignedBuf,
    segment: u64,
    start: u64,
    len: u64,
}

impl<'r> Cursor<'r> {
    pub(super) fn new(ring: &'r Ring) -> Self {
        let bytes = WINDOW_BYTES.min(ring.segment_bytes as usize);
        Self { ring, buffer: AlignedBuf::zeroed(bytes), segment: 0, start: 0, len: 0 }
    }

    /// `bytes` from `offset` on, or as many as the segment still has.
    fn window(&mut self, segment: u64, offset: u64, bytes: u64) -> Result<&[u8], WalError> {
        let end = (offset + bytes).min(self.ring.segment_bytes);
        let here = self.segment == segment && self.start <= offset;
        if !here || end > self.start + self.len {
            let len = (self.ring.segment_bytes - offset).min(WINDOW_BYTES as u64);
            // Nothing is held while a read may fail.
            self.len = 0;
            self.ring
                .file(segment)
                .read_at(&mut self.buffer.as_mut_slice()[..len as usize], offset)
                .map_err(self.ring.io(segment, offset, "reading"))?;
            (self.segment, self.start, self.len) = (segment, offset, len);
        }
        let from = (offset - self.start) as usize;
        let to = (end - self.start) as usize;
        Ok(&self.buffer.as_slice()[from..to])
    }

    fn header(
        &mut self,
        segment: u64,
        offset: u64,
    ) -> Result<Result<RecordHeader, RecordError>, WalError> {
        let log_key = self.ring.log_key;
        Ok(RecordHeader::decode(self.window(segment, offset, BLOCK_BYTES as u64)?, log_key))
    }

    /// The record at a block of a segment, if a sound one is there.
    pub(super) fn record(
        &mut self,
        segment: u64,
        offset: u64,
    ) -> Result<Result<Record<'_>, RecordError>, WalError> {
        let log_key = self.ring.log_key;
        match self.header(segment, offset)? {
            Err(error) => Ok(Err(error)),
            Ok(header) => {
                let bytes = self.window(segment, offset, header.record_bytes() as u64)?;
                Ok(Record::check(bytes, log_key))
            }
        }
    }

    /// The first sound record from `from` on, at any block, whose header is wanted.
    pub(super) fn find(
        &mut self,
        segment: u64,
        from: u64,
        wanted: &dyn Fn(&RecordHeader) -> bool,
    ) -> Result<Option<(u64, RecordHeader)>, WalError> {
        let mut offset = from;
        while offset < self.ring.segment_bytes {
            if self.header(segment, offset)?.is_ok_and(|header| wanted(&header))
                && let Ok(record) = self.record(segment, offset)?
            {
                return Ok(Some((offset, record.header)));
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(None)
    }
}
