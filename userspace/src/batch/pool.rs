//! Buffers of batches: filled and sealed by one lane, then read by many.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::format::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_RUNS_MAX, BatchHeader, HEADER_BYTES, Origin,
    RANGE_BYTES, RUN_HEADER_BYTES, Range,
};

/// One outcome per event, filled by the lanes that own its partitions: slots
/// are disjoint, so each has one writer.
#[derive(Debug)]
pub struct OutcomeSlots {
    outcomes: Box<[AtomicU8]>,
    /// Epoch of the first application; meaningful where the outcome is marked
    /// a duplicate.
    first_epochs: Box<[AtomicU64]>,
    /// Lanes that have not finished their ranges yet, and one more until the
    /// batch is routed.
    waiting: AtomicU32,
    epoch: AtomicU64,
    /// Monotonic nanoseconds at which each stage was done with the batch.
    stamps: [AtomicU64; Stamp::COUNT],
}

/// Moments in the life of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The lane sealed it.
    Sealed,
    /// The control core handed it to the log.
    Submitted,
    /// It is on disk.
    Durable,
    /// The log said committed, and it was routed to its owners.
    Committed,
    /// The last owner has applied it.
    Applied,
}

impl Stamp {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// Epoch of a batch that will never commit: its senders get no answer.
const LOST: u64 = u64::MAX;

impl OutcomeSlots {
    fn new() -> Self {
        Self {
            outcomes: (0..BATCH_EVENTS_MAX).map(|_| AtomicU8::new(0)).collect(),
            first_epochs: (0..BATCH_EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicU32::new(0),
            epoch: AtomicU64::new(0),
            stamps: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Stores the outcome of the event in `slot`.
    #[inline(always)]
    pub fn set(&self, slot: u32, outcome: u8) {
        if let Some(cell) = self.outcomes.get(slot as usize) {
            cell.store(outcome, Relaxed);
        }
    }

    /// Stores that the event in `slot` is a duplicate of one that had
    /// `outcome` in `first_epoch`.
    #[inline]
    pub fn set_duplicate(&self, slot: u32, outcome: u8, first_epoch: u64) {
        if let Some(cell) = self.first_epochs.get(slot as usize) {
            cell.store(first_epoch, Relaxed);
        }
        self.set(slot, outcome | DUPLICATE_BIT);
    }

    /// Outcome byte of a slot.
    #[must_use]
    #[inline(always)]
    pub fn outcome(&self, slot: u32) -> u8 {
        self.outcomes.get(slot as usize).map_or(0, |o| o.load(Relaxed))
    }

    /// Epoch of the first application of a duplicate.
    #[must_use]
    pub fn first_epoch(&self, slot: u32) -> u64 {
        self.first_epochs.get(slot as usize).map_or(0, |e| e.load(Relaxed))
    }

    /// The batch committed as `epoch`; `owners` lanes have ranges in it. Called
    /// once, before any of them can be done.
    pub fn committed(&self, epoch: u64, owners: u32) {
        self.epoch.store(epoch, Relaxed);
        self.waiting.store(owners, Release);
    }

    /// The batch will not commit in this life of the leader.
    pub fn lost(&self) {
        self.epoch.store(LOST, Relaxed);
        self.waiting.store(0, Release);
    }

    /// An owner has filled its slots; true for the last one.
    pub fn owner_done(&self) -> bool {
        self.waiting.fetch_sub(1, AcqRel) == 1
    }

    /// Whether every slot is filled, or none ever will be.
    #[must_use]
    #[inline]
    pub fn is_done(&self) -> bool {
        self.waiting.load(Acquire) == 0
    }

    /// Epoch it committed at; `None` when it was lost. Meaningful once done.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Relaxed);
        (epoch != LOST).then_some(epoch)
    }

    /// Notes a moment, monotonic nanoseconds.
    #[inline]
    pub fn stamp(&self, what: Stamp, now_ns: u64) {
        self.stamps[what as usize].store(now_ns, Relaxed);
    }

    /// A moment noted before.
    #[must_use]
    pub fn stamped(&self, what: Stamp) -> u64 {
        self.stamps[what as usize].load(Relaxed)
    }

    fn open(&self) {
        self.waiting.store(u32::MAX, Relaxed);
    }
}

/// One buffer. See the module's page on who may hold it.
#[derive(Debug)]
pub struct BatchBuf {
    bytes: Box<[u8]>,
    len: usize,
    /// Partition and offset of each run, in order of arrival.
    runs: Vec<(u16, u32)>,
    events: u32,
    /// Domain and origin of the last run; consecutive datagrams of one domain share a
    /// run.
    last: (u64, Origin),
    /// Counting sort: runs and events by partition.
    tally: Box<[(u32, u32)]>,
    touched: u32,
    slots: OutcomeSlots,
}

impl BatchBuf {
    fn new(partitions: u16) -> Self {
        Self {
            bytes: vec![0; BATCH_BYTES_MAX].into(),
            len: 0,
            runs: Vec::with_capacity(BATCH_RUNS_MAX),
            events: 0,
            last: (0, Origin::Sender),
            tally: vec![(0, 0); usize::from(partitions)].into(),
            touched: 0,
            slots: OutcomeSlots::new(),
        }
    }

    /// The encoded batch; empty until sealed.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Outcomes of its events.
    #[must_use]
    #[inline]
    pub fn slots(&self) -> &OutcomeSlots {
        &self.slots
    }

    /// Events in it.
    #[must_use]
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Whether nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Makes it empty and open.
    pub fn open(&mut self) {
        self.len = HEADER_BYTES;
        self.runs.clear();
        self.events = 0;
        self.tally.fill((0, 0));
        self.touched = 0;
        self.slots.open();
    }

    /// Bytes it will have when sealed after one more run of `body_bytes` for a
    /// partition not met before.
    #[inline(always)]
    fn sealed_bytes_with(&self, body_bytes: usize) -> usize {
        self.len
            + RUN_HEADER_BYTES
            + body_bytes
            + (self.runs.len() + 1) * 4
            + (self.touched as usize + 1) * RANGE_BYTES
    }

    /// Copies the events of a checked datagram: `body` is `events` whole
    /// events of `domain`, which belongs to `partition`. Gives the slot of the
    /// first, or `None` when they do not fit: seal first.
    #[inline]
    pub fn append(&mut self, partition: u16, domain: u64, body: &[u8], events: u16) -> Option<u32> {
        self.append_run(partition, domain, Origin::Sender, body, events)
    }

    /// As [`Self::append`], for one event that partitions exchange.
    pub fn append_effect(&mut self, partition: u16, domain: u64, body: &[u8]) -> Option<u32> {
        self.append_run(partition, domain, Origin::Partition, body, 1)
    }

    /// Whether so many runs of one event each, of `body_bytes` at the most, fit.
    #[must_use]
    pub fn has_room(&self, runs: usize, body_bytes: usize) -> bool {
        let bytes = runs * (RUN_HEADER_BYTES + body_bytes + 4 + RANGE_BYTES);
        self.sealed_bytes_with(bytes) <= BATCH_BYTES_MAX && self.runs.len() + runs < BATCH_RUNS_MAX
    }

    #[inline(always)]
    fn append_run(
        &mut self,
        partition: u16,
        domain: u64,
        origin: Origin,
        body: &[u8],
        events: u16,
    ) -> Option<u32> {
        if self.sealed_bytes_with(body.len()) > BATCH_BYTES_MAX || self.runs.len() == BATCH_RUNS_MAX
        {
            return None;
        }
        let first_event = self.events;
        let tally = self.tally.get_mut(usize::from(partition))?;
        let joins = self.last == (domain, origin) && !self.runs.is_empty();
        if joins {
            let (_, offset) = *self.runs.last()?;
            let at = offset as usize + 12;
            let count = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]) + events;
            self.bytes[at..at + 2].copy_from_slice(&count.to_le_bytes());
        } else {
            self.touched += u32::from(tally.0 == 0);
            tally.0 += 1;
            self.runs.push((partition, self.len as u32));
            let header = &mut self.bytes[self.len..self.len + RUN_HEADER_BYTES];
            header[..8].copy_from_slice(&domain.to_le_bytes());
            header[8..12].copy_from_slice(&first_event.to_le_bytes());
            header[12..14].copy_from_slice(&events.to_le_bytes());
            header[14..16].copy_from_slice(&(origin as u16).to_le_bytes());
            self.len += RUN_HEADER_BYTES;
            self.last = (domain, origin);
        }
        tally.1 += u32::from(events);
        self.bytes[self.len..self.len + body.len()].copy_from_slice(body);
        self.len += body.len();
        self.events += u32::from(events);
        Some(first_event)
    }

    /// Writes table and header: the batch is ready for the log.
    pub fn seal(&mut self, lane: u32, life: u64, number: u64) {
        let order_offset = self.len;
        let ranges_offset = order_offset + self.runs.len() * 4;
        let (mut first, mut ranges) = (0u32, 0u32);
        for (partition, tally) in self.tally.iter_mut().enumerate() {
            let (runs, events) = *tally;
            if runs == 0 {
                continue;
            }
            let range = Range { partition: partition as u16, first, runs, events };
            let at = ranges_offset + ranges as usize * RANGE_BYTES;
            range.write(&mut self.bytes[at..at + RANGE_BYTES]);
            // From here on: where the partition's next run goes.
            tally.0 = first;
            first += runs;
            ranges += 1;
        }
        for (partition, offset) in &self.runs {
            let place = &mut self.tally[usize::from(*partition)].0;
            let at = order_offset + *place as usize * 4;
            self.bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            *place += 1;
        }
        self.len = ranges_offset + ranges as usize * RANGE_BYTES;
        let header = BatchHeader {
            lane,
            runs: self.runs.len() as u32,
            events: self.events,
            ranges,
            order_offset: order_offset as u32,
            ranges_offset: ranges_offset as u32,
            life,
            number,
        };
        header.write(&mut self.bytes);
    }
}

/// The buffers of one lane.
#[derive(Debug)]
pub struct Pool {
    buffers: Vec<Arc<BatchBuf>>,
}

impl Pool {
    /// `batches` buffers for a cluster of `partitions`.
    #[must_use]
    pub fn new(batches: usize, partitions: u16) -> Self {
        Self { buffers: (0..batches).map(|_| Arc::new(BatchBuf::new(partitions))).collect() }
    }

    /// Bytes of one buffer with its outcome slots.
    #[must_use]
    pub const fn buffer_bytes() -> usize {
        BATCH_BYTES_MAX + BATCH_EVENTS_MAX * 9 + BATCH_RUNS_MAX * 8
    }

    /// Index of a buffer that nobody else holds, emptied and open; `None` when
    /// all are in flight. Always the first: a few buffers that are used again
    /// and again stay in the cache, and the others are for a slow disk.
    pub fn take(&mut self) -> Option<usize> {
        let free = |buffer: &mut Arc<BatchBuf>| Arc::get_mut(buffer).map(BatchBuf::open).is_some();
        self.buffers.iter_mut().position(free)
    }

    /// The buffer that [`Self::take`] named, as long as no reference was shared.
    ///
    /// # Panics
    ///
    /// When it was shared: a bug of the lane.
    #[inline]
    pub fn open_buffer(&mut self, index: usize) -> &mut BatchBuf {
        Arc::get_mut(&mut self.buffers[index]).expect("the open batch is not shared")
    }

    /// A reference for whoever needs the bytes of a sealed batch.
    #[must_use]
    pub fn share(&self, index: usize) -> Arc<BatchBuf> {
        Arc::clone(&self.buffers[index])
    }

    /// The buffer, to look at.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> &BatchBuf {
        &self.buffers[index]
    }
}

#[cfg(test)]
mod tests {
    use super::super::BatchView;
    use super::*;
    use proptest::prelude::*;
    use veltrix_abi::partition::partition_of;
    use veltrix_abi::wire::Event;

    fn body(tag: u64, events: u16, payload: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for i in 0..events {
            let event = Event {
                key: [7; 16],
                player: tag,
                subject: u64::from(i),
                argument: 3,
                kind: 1,
                reserved: 0,
                payload: &vec![9; payload],
            };
            let at = out.len();
            out.resize(at + event.wire_bytes(), 0);
            event.write(&mut out[at..]);
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_appended_is_found_once_in_order(
            datagrams in proptest::collection::vec((0u64..20, 1u16..25, 0usize..20), 1..400),
            partitions in 1u16..70,
        ) {
            let mut pool = Pool::new(1, partitions);
            let index = pool.take().unwrap();
            let buffer = pool.open_buffer(index);
            let mut wanted: Vec<(u16, u64, u32, u64)> = Vec::new();
            for (tag, (domain, events, payload)) in datagrams.iter().enumerate() {
                let p = partition_of(*domain, partitions);
                let Some(first) = buffer.append(p, *domain, &body(tag as u64, *events, *payload), *events) else { break };
                wanted.extend((0..u32::from(*events)).map(|i| (p, *domain, first + i, tag as u64)));
            }
            buffer.seal(3, 5, 7);
            prop_assert!(buffer.bytes().len() <= BATCH_BYTES_MAX);
            let view = BatchView::check(buffer.bytes(), partitions).unwrap();
            prop_assert_eq!(view.header().events as usize, wanted.len());
            // Slots are numbered in order of arrival; the table is a stable sort.
            wanted.sort_by_key(|w| w.0);
            let found: Vec<_> = view.events().map(|(p, d, slot, e)| (p, d, slot, e.player)).collect();
            prop_assert_eq!(found, wanted);
            prop_assert!(pool.take().is_some(), "nobody else holds it");
        }

        #[test]
        fn damaged_bytes_never_pass_with_another_meaning(at in 0usize..2_000, bit in 0u8..8) {
            let mut pool = Pool::new(1, 8);
            let index = pool.take().unwrap();
            let buffer = pool.open_buffer(index);
            for domain in 0..6 {
                buffer.append(partition_of(domain, 8), domain, &body(domain, 4, 0), 4).unwrap();
            }
            buffer.seal(0, 1, 1);
            let mut bytes = buffer.bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // No panic, whatever it says; if it passes, every iterator ends.
            if let Ok(view) = BatchView::check(&bytes, 8) {
                prop_assert_eq!(view.events().count(), 24);
            }
            if let Some(view) = BatchView::of_checked(&bytes) {
                prop_assert!(view.ranges().take(10_000).count() <= 10_000);
            }
        }
    }

    #[test]
    fn a_full_batch_holds_what_it_promises() {
        let mut pool = Pool::new(1, 64);
        let index = pool.take().unwrap();
        let buffer = pool.open_buffer(index);
        let one = body(1, 1, 0);
        let mut domain = 0;
        while buffer.append(partition_of(domain, 64), domain, &one, 1).is_some() {
            domain += 1;
        }
        assert!(domain as usize > BATCH_RUNS_MAX - 30, "{domain}");
        buffer.seal(0, 1, 1);
        assert!(BatchView::check(buffer.bytes(), 64).is_ok());
    }

    #[test]
    fn a_shared_buffer_is_not_given_out() {
        let mut pool = Pool::new(2, 8);
        let a = pool.take().unwrap();
        let held = pool.share(a);
        let b = pool.take().unwrap();
        assert_eq!((a, b), (0, 1));
        let other = pool.share(b);
        assert_eq!(pool.take(), None);
        drop(held);
        assert_eq!(pool.take(), Some(a));
        drop(other);
        assert!(pool.take().is_some());
    }

    #[test]
    fn the_last_owner_knows() {
        let slots = OutcomeSlots::new();
        slots.open();
        assert!(!slots.is_done());
        slots.committed(9, 2);
        assert!(!slots.owner_done());
        slots.set_duplicate(4, 2, 7);
        assert!(slots.owner_done() && slots.is_done());
        assert_eq!((slots.outcome(4), slots.first_epoch(4), slots.epoch()), (0x82, 7, Some(9)));
        slots.open();
        slots.lost();
        assert!(slots.is_done() && slots.epoch().is_none());
    }
}
