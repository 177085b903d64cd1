//! Encoding of a batch, and its one reader.
//!
//! ```text
//!  header, 64 bytes
//!   0      4         6       8      12     16       20       24            28           32     40       48 .. 64
//!   | VBAT | version | group | lane | runs | events | ranges | order_offset | ranges_offset| life | number | zero
//!  runs, in order of arrival, from 64 on
//!   | domain u64 | first_event u32 | events u16 | origin u16 | events as on the wire ... |
//!  order: u32 offset of each run, stably sorted by partition
//!  ranges, ascending by partition
//!   | partition u16 | zero u16 | first u32 (into order) | runs u32 | events u32 |
//! ```
//!
//! All integers little-endian. `group` is reserved (0): one replica set. `life` is random per
//! process, `number` counts a lane's batches: together with `lane` they name a batch.

use veltrix_abi::wire::{Event, Events};

/// First four bytes of a batch.
pub const MAGIC: [u8; 4] = *b"VBAT";
/// Version of this encoding.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes before the events of a run.
pub const RUN_HEADER_BYTES: usize = 16;
/// Bytes of one range of the table.
pub const RANGE_BYTES: usize = 16;
/// Bytes of a whole batch at the most: a lane seals before it would hold more.
/// At 5 M events/s one batch a millisecond; a disk that takes 0.2 ms a write of
/// this size (FACTS) is busy for a fifth of it.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Events a batch can hold at the most.
pub const BATCH_EVENTS_MAX: usize = BATCH_BYTES_MAX / veltrix_abi::limits::EVENT_FIXED_BYTES;
/// Runs a batch can hold at the most: one event each.
pub const BATCH_RUNS_MAX: usize =
    BATCH_BYTES_MAX / (RUN_HEADER_BYTES + 4 + veltrix_abi::limits::EVENT_FIXED_BYTES);

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch of {bytes} bytes: {what} at byte {offset}")]
pub struct BatchError {
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub offset: usize,
    /// Length of what was given.
    pub bytes: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline(always)]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Fields of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Lane that sealed it.
    pub lane: u32,
    /// Runs in it.
    pub runs: u32,
    /// Events in it.
    pub events: u32,
    /// Partitions it touches.
    pub ranges: u32,
    pub(super) order_offset: u32,
    pub(super) ranges_offset: u32,
    /// Process life that sealed it.
    pub life: u64,
    /// Number among the lane's batches of that life, from 1.
    pub number: u64,
}

impl BatchHeader {
    pub(super) fn write(&self, out: &mut [u8]) {
        out[..HEADER_BYTES].fill(0);
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        for (at, value) in [
            (8, self.lane),
            (12, self.runs),
            (16, self.events),
            (20, self.ranges),
            (24, self.order_offset),
            (28, self.ranges_offset),
        ] {
            out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        out[32..40].copy_from_slice(&self.life.to_le_bytes());
        out[40..48].copy_from_slice(&self.number.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            lane: u32_at(bytes, 8)?,
            runs: u32_at(bytes, 12)?,
            events: u32_at(bytes, 16)?,
            ranges: u32_at(bytes, 20)?,
            order_offset: u32_at(bytes, 24)?,
            ranges_offset: u32_at(bytes, 28)?,
            life: u64_at(bytes, 32)?,
            number: u64_at(bytes, 40)?,
        })
    }
}

/// The runs of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Partition they belong to.
    pub partition: u16,
    /// First run, an index into the order.
    pub first: u32,
    /// How many runs.
    pub runs: u32,
    /// How many events in them.
    pub events: u32,
}

impl Range {
    pub(super) fn write(&self, out: &mut [u8]) {
        out[..2].copy_from_slice(&self.partition.to_le_bytes());
        out[2..4].fill(0);
        out[4..8].copy_from_slice(&self.first.to_le_bytes());
        out[8..12].copy_from_slice(&self.runs.to_le_bytes());
        out[12..16].copy_from_slice(&self.events.to_le_bytes());
    }

    #[inline]
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            partition: u16_at(bytes, at)?,
            first: u32_at(bytes, at + 4)?,
            runs: u32_at(bytes, at + 8)?,
            events: u32_at(bytes, at + 12)?,
        })
    }
}

/// Who wrote the events of a run: its `origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Origin {
    /// Whoever sent a datagram.
    Sender = 0,
    /// A lane, for a partition that owes something to another (`apply/effects.rs`).
    /// Nothing that a sender writes makes such a run.
    Partition = 1,
}

impl Origin {
    const fn of(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::Sender),
            1 => Some(Self::Partition),
            _ => None,
        }
    }
}

/// Events of one domain that arrived one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Domain key.
    pub domain: u64,
    /// Outcome slot of its first event; the others follow.
    pub first_event: u32,
    /// Who wrote it.
    pub origin: Origin,
    /// Its events.
    pub events: Events<'a>,
}

/// A batch to read from.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
}

impl<'a> BatchView<'a> {
    /// A batch that this process sealed, or that [`Self::check`] passed before.
    /// On other bytes its iterators end early, and no more.
    #[must_use]
    #[inline]
    pub fn of_checked(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { bytes, header: BatchHeader::read(bytes)? })
    }

    /// Checks every offset, count, order and event of `bytes`, and that every
    /// run stands in the range of its partition among `partitions`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn check(bytes: &'a [u8], partitions: u16) -> Result<Self, BatchError> {
        let wrong = |what, offset| BatchError { what, offset, bytes: bytes.len() };
        if bytes.len() < HEADER_BYTES || bytes.len() > BATCH_BYTES_MAX {
            return Err(wrong("length is not that of a batch", 0));
        }
        if bytes[..4] != MAGIC {
            return Err(wrong("no magic", 0));
        }
        if u16_at(bytes, 4) != Some(VERSION) {
            return Err(wrong("unknown version", 4));
        }
        if u16_at(bytes, 6) != Some(0) {
            return Err(wrong("group is not 0", 6));
        }
        if bytes[48..HEADER_BYTES].iter().any(|b| *b != 0) {
            return Err(wrong("reserved bytes are set", 48));
        }
        let view = Self::of_checked(bytes).ok_or_else(|| wrong("no header", 0))?;
        view.check_layout().map_err(|(what, offset)| wrong(what, offset))?;
        view.check_table(partitions).map_err(|(what, offset)| wrong(what, offset))?;
        Ok(view)
    }

    /// Runs follow one another from the header to the order, counts agree.
    fn check_layout(&self) -> Result<(), (&'static str, usize)> {
        let h = &self.header;
        let order = h.order_offset as usize;
        let ranges = h.ranges_offset as usize;
        let runs = h.runs as usize;
        if runs > BATCH_RUNS_MAX
            || ranges != order + runs * 4
            || self.bytes.len() != ranges + h.ranges as usize * RANGE_BYTES
            || order < HEADER_BYTES
        {
            return Err(("offsets and counts do not fit the length", 12));
        }
        let (mut at, mut events, mut found) = (HEADER_BYTES, 0u32, 0usize);
        while at < order {
            let run = self.run_at(at).ok_or(("a run is cut off, or of unknown origin", at))?;
            let count = run.events.len();
            let body = &self.bytes[at + RUN_HEADER_BYTES..order];
            if run.first_event != events || count == 0 {
                return Err(("a run's header disagrees", at));
            }
            let mut bytes = 0;
            let mut seen = 0;
            for event in Events::of_checked(body, count as u16) {
                bytes += event.wire_bytes();
                seen += 1;
            }
            if seen != count {
                return Err(("an event is not well formed", at + RUN_HEADER_BYTES + bytes));
            }
            events += count as u32;
            found += 1;
            at += RUN_HEADER_BYTES + bytes;
        }
        if at != order || found != runs || events != h.events {
            return Err(("runs disagree with the header's counts", at));
        }
        Ok(())
    }

    /// Every run stands once, in the range of its partition, in order of arrival.
    fn check_table(&self, partitions: u16) -> Result<(), (&'static str, usize)> {
        let h = &self.header;
        let (mut next, mut last_partition) = (0u32, None);
        for (i, range) in self.ranges().enumerate() {
            let at = h.ranges_offset as usize + i * RANGE_BYTES;
            if range.first != next
                || range.runs == 0
                || range.partition >= partitions
                || last_partition.is_some_and(|last| last >= range.partition)
                || u16_at(self.bytes, at + 2) != Some(0)
                || next.checked_add(range.runs).is_none_or(|end| end > h.runs)
            {
                return Err(("a range disagrees with its neighbours", at));
            }
            let (mut events, mut last_event) = (0u32, None);
            for run in self.runs(&range) {
                let partition = veltrix_abi::partition::partition_of(run.domain, partitions);
                // Ascending slots: stable, and no run twice.
                if partition != range.partition || last_event.is_some_and(|e| e >= run.first_event)
                {
                    return Err(("a run stands in the wrong place of the table", at));
                }
                last_event = Some(run.first_event);
                events += run.events.len() as u32;
            }
            if events != range.events {
                return Err(("a range disagrees with its runs", at));
            }
            next += range.runs;
            last_partition = Some(range.partition);
        }
        if next != h.runs {
            return Err(("a run stands in no range", h.ranges_offset as usize));
        }
        // Offsets must be run starts: slots ascend within ranges and sum to all
        // events, but an offset could still point into a run.
        let mut seen = 0u64;
        for range in self.ranges() {
            seen += self.runs(&range).count() as u64;
        }
        if seen != u64::from(h.runs) || !self.offsets_are_starts() {
            return Err(("an offset of the order is no run's", h.order_offset as usize));
        }
        Ok(())
    }

    fn offsets_are_starts(&self) -> bool {
        let h = &self.header;
        let order = &self.bytes[h.order_offset as usize..h.ranges_offset as usize];
        let mut offsets: Vec<u32> = order.chunks_exact(4).filter_map(|c| u32_at(c, 0)).collect();
        offsets.sort_unstable();
        let mut at = HEADER_BYTES;
        for offset in offsets {
            if offset as usize != at {
                return false;
            }
            let Some(run) = self.run_at(at) else { return false };
            let bytes: usize = run.events.map(|e| e.wire_bytes()).sum();
            at += RUN_HEADER_BYTES + bytes;
        }
        at == h.order_offset as usize
    }

    /// Counts and name.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// What it holds for each partition, ascending by partition.
    #[inline]
    pub fn ranges(&self) -> impl Iterator<Item = Range> + Clone + use<'a> {
        let (bytes, at) = (self.bytes, self.header.ranges_offset as usize);
        let ranges = self.header.ranges as usize;
        (0..ranges).map_while(move |i| Range::read(bytes, at + i * RANGE_BYTES))
    }

    /// The runs of a range, in order of arrival.
    #[inline]
    pub fn runs(&self, range: &Range) -> impl Iterator<Item = Run<'a>> + Clone + use<'a> {
        let view = *self;
        let order = self.header.order_offset as usize;
        (range.first..range.first.saturating_add(range.runs)).map_while(move |i| {
            let offset = u32_at(view.bytes, order + i as usize * 4)?;
            view.run_at(offset as usize)
        })
    }

    #[inline(always)]
    fn run_at(&self, at: usize) -> Option<Run<'a>> {
        let header = self.bytes.get(at..)?.first_chunk::<RUN_HEADER_BYTES>()?;
        let count = u16_at(header, 12)?;
        let end = (self.header.order_offset as usize).min(self.bytes.len());
        let body = self.bytes.get(at + RUN_HEADER_BYTES..end)?;
        Some(Run {
            domain: u64_at(header, 0)?,
            first_event: u32_at(header, 8)?,
            origin: Origin::of(u16_at(header, 14)?)?,
            events: Events::of_checked(body, count),
        })
    }

    /// Every event with its slot and domain, by partition; for tools and tests.
    pub fn events(&self) -> impl Iterator<Item = (u16, u64, u32, Event<'a>)> + use<'a> {
        let view = *self;
        self.ranges().flat_map(move |range| {
            view.runs(&range).flat_map(move |run| {
                run.events
                    .zip(run.first_event..)
                    .map(move |(event, slot)| (range.partition, run.domain, slot, event))
            })
        })
    }
}
