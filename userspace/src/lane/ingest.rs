//! The receiving half of a lane with a log: events into its open batch, the
//! batch into the log, answers when all of it is applied.
//!
//! ```text
//!   datagram -> append (one copy) -> open batch -> seal -> flights, oldest first
//!                 its sender: session and way back; its pending answer: sequence, slots
//!   oldest flight done (every owner has filled its slots) -> answers -> buffer free
//! ```
//!
//! One batch is open at a time. It is sealed when it is full, when the ring has
//! run dry and nothing is in flight, and 250 us after its first event, unless a
//! quarter of the buffers is in flight: alone, an event waits for nothing; under
//! load, what arrives while the disk works shares the next write, and buffers that
//! are hardly filled do not run out. A datagram is refused only here, before
//! its events join; afterwards its sender gets the outcomes or silence.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rtrb::Producer;
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::{Header, Mode};

use super::link::LaneLink;
use super::open_acks::{Answer, OpenAcks, Sender};
use super::parked::{Parked, Waiting, has_waiting_duplicate};
use super::stages::{Stage, StageTimes};
use super::{EVENTS_LIMIT, count_outcomes};
use crate::apply::effects::{EFFECT_BYTES_MAX, RESERVED, SEND_RUNS_MAX};
use crate::base::clock::monotonic_ns;
use crate::base::counters::LaneCounters;
use crate::base::port::Port;
use crate::batch::format::BATCH_EVENTS_MAX;
use crate::batch::pool::Stamp;
use crate::batch::{BatchBuf, OutcomeSlots, Pool};
use veltrix_abi::outcomes::DUPLICATE_BIT;

/// Longest an event waits in an open batch: a quarter of the millisecond in which
/// it is to be answered. At half of the maximum, open loop, 500 us gave answers of
/// 1.4 ms (p50) and 4.4 to 5.3 ms (p99), 150 us 1.0 and 3.7 ms, and more entries of
/// the log, each with its cost on the control core (2-vCPU EPYC VM).
const SEAL_AFTER_NS: u64 = 250_000;

/// Of so many buffers one may be in flight before batches wait to be full: events in
/// a further one would wait behind all of these, and without a free buffer they are
/// refused. A lane looks every 50 us whether one is due.
const EAGER_OF: usize = 4;

/// A datagram whose answer is owed.
#[derive(Clone, Copy, Debug)]
struct Pending {
    sequence: u64,
    domain: u64,
    /// When the lane took the frame, monotonic nanoseconds.
    received_ns: u64,
    /// Slot of its first event.
    first_slot: u32,
    /// The sender's next datagram of the batch, an index into the flight's
    /// pending; [`NONE`] for its last.
    next: u32,
    events: u16,
    /// It is answered later, by [`Waiting`].
    is_parked: bool,
}

/// No index.
const NONE: u32 = u32::MAX;

/// A sender of the batch: a session and its way back.
struct Way<T> {
    path: T,
    session: u64,
    /// The flow's.
    hash: u32,
    /// Its datagrams, indexes into the flight's pending.
    first: u32,
    last: u32,
}

/// Senders of the open batch by hash: so that all answers to one are written one
/// after the other and share their datagrams, in whatever order its datagrams
/// came. A sender that finds both its places taken is a new one with each
/// datagram: it loses sharing and nothing else.
struct Senders(Box<[u32; SENDERS]>);

/// Places; a power of two. A thousand senders in one batch are no rarity.
const SENDERS: usize = 4_096;

/// Bytes a lane with a log reserves for them.
pub const BYTES_OF_SENDERS: usize = size_of::<[u32; SENDERS]>();

impl Senders {
    fn new() -> Self {
        Self(Box::new([NONE; SENDERS]))
    }

    /// Forgets the senders of a batch.
    fn clear<T>(&mut self, ways: &[Way<T>]) {
        for way in ways {
            for place in Self::places(way.hash, way.session) {
                self.0[place] = NONE;
            }
        }
    }

    /// Two places, next to each other.
    #[inline]
    fn places(hash: u32, session: u64) -> [usize; 2] {
        let first = (hash ^ session as u32) as usize % SENDERS;
        [first, first ^ 1]
    }

    /// The way for which `is_it` holds, or the place where a new one is entered.
    #[inline]
    fn find(
        &mut self,
        places: [usize; 2],
        is_it: impl Fn(u32) -> bool,
    ) -> Result<u32, Option<&mut u32>> {
        let mut free = None;
        for place in places {
            match self.0[place] {
                NONE => free = free.or(Some(place)),
                way if is_it(way) => return Ok(way),
                _ => {}
            }
        }
        Err(free.map(|place| &mut self.0[place]))
    }
}

/// A batch on its way, and the answers owed for it.
struct Flight<T> {
    buffer: usize,
    /// Number of the batch; 0 until it is sealed.
    number: u64,
    /// Keeps the pool from giving the buffer out again before its outcomes are read: the
    /// last owner may be another lane, which lets go of it while we take in more events.
    held: Option<Arc<BatchBuf>>,
    /// When its first event was appended, monotonic nanoseconds.
    first_ns: u64,
    /// Events in `pending`.
    events: u64,
    pending: Vec<Pending>,
    ways: Vec<Way<T>>,
}

impl<T> Flight<T> {
    fn new() -> Self {
        Self {
            buffer: 0,
            number: 0,
            held: None,
            first_ns: 0,
            events: 0,
            pending: Vec::with_capacity(BATCH_EVENTS_MAX),
            ways: Vec::with_capacity(BATCH_EVENTS_MAX),
        }
    }
}

/// Events of a datagram that was decoded.
pub(super) struct Incoming<'a> {
    pub(super) header: &'a Header,
    /// Whole events, as in the datagram.
    pub(super) body: &'a [u8],
    pub(super) events: u16,
    pub(super) mode: Mode,
}

/// See the module.
pub(super) struct Ingest<P: Port> {
    lane: u32,
    life: u64,
    partitions: u16,
    number: u64,
    pool: Pool,
    open: Option<Flight<P::Path>>,
    senders: Senders,
    flights: VecDeque<Flight<P::Path>>,
    idle: Vec<Flight<P::Path>>,
    waiting: Waiting<P::Path>,
    submissions: Producer<Arc<BatchBuf>>,
    link: Arc<LaneLink>,
    deadline_ns: u64,
    /// Something was sealed since the control core was last woken.
    submitted: bool,
}

impl<P: Port> Ingest<P> {
    pub(super) fn new(
        lane: u32,
        life: u64,
        partitions: u16,
        batches: usize,
        deadline: Duration,
        submissions: Producer<Arc<BatchBuf>>,
        link: Arc<LaneLink>,
    ) -> Self {
        Self {
            lane,
            life,
            partitions,
            number: 0,
            pool: Pool::new(batches, partitions),
            open: None,
            senders: Senders::new(),
            flights: VecDeque::with_capacity(batches),
            idle: (0..batches).map(|_| Flight::new()).collect(),
            waiting: Waiting::new(),
            submissions,
            link,
            deadline_ns: u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX),
            submitted: false,
        }
    }

    /// Bytes of one batch in flight with what is kept for its answers.
    pub(super) const fn bytes_of_batch() -> usize {
        Pool::buffer_bytes() + BATCH_EVENTS_MAX * (size_of::<Pending>() + size_of::<Way<P::Path>>())
    }

    /// Whether the log keeps up: the oldest batch in flight is not older than
    /// the deadline of a new event.
    #[inline]
    pub(super) fn keeps_up(&self, now_ns: u64) -> bool {
        self.flights.front().is_none_or(|f| now_ns.saturating_sub(f.first_ns) <= self.deadline_ns)
    }

    /// Appends the events of a datagram; false when no buffer is free: nothing
    /// was taken then. A datagram of mode `none` is owed no answer by us.
    #[inline]
    pub(super) fn append(
        &mut self,
        port: &P,
        packet: &P::Packet,
        incoming: &Incoming<'_>,
        now_ns: u64,
    ) -> bool {
        let partition = partition_of(incoming.header.domain, self.partitions);
        let Some(first_slot) = self.append_events(partition, incoming, now_ns) else {
            return false;
        };
        if incoming.mode != Mode::Durable {
            return true;
        }
        let Some(flight) = &mut self.open else { return true };
        let this = flight.pending.len() as u32;
        let session = incoming.header.session;
        let hash = port.flow_hash(packet);
        let ways = &mut flight.ways;
        let is_it = |way: u32| {
            let way: &Way<_> = &ways[way as usize];
            way.session == session && port.is_on_path(&way.path, packet)
        };
        match self.senders.find(Senders::places(hash, session), is_it) {
            Ok(way) => {
                let way = &mut ways[way as usize];
                flight.pending[way.last as usize].next = this;
                way.last = this;
            }
            Err(place) => {
                if let Some(place) = place {
                    *place = ways.len() as u32;
                }
                let path = port.path(packet);
                ways.push(Way { path, session, hash, first: this, last: this });
            }
        }
        flight.events += u64::from(incoming.events);
        flight.pending.push(Pending {
            sequence: incoming.header.sequence,
            domain: incoming.header.domain,
            received_ns: now_ns,
            first_slot,
            next: NONE,
            events: incoming.events,
            is_parked: false,
        });
        true
    }

    /// Slot of the first event.
    #[inline]
    fn append_events(
        &mut self,
        partition: u16,
        incoming: &Incoming<'_>,
        now_ns: u64,
    ) -> Option<u32> {
        for _ in 0..2 {
            if self.open.is_none() {
                self.open(now_ns)?;
            }
            let flight = self.open.as_ref()?;
            let buffer = self.pool.open_buffer(flight.buffer);
            let domain = incoming.header.domain;
            let slot = buffer.append(partition, domain, incoming.body, incoming.events);
            if slot.is_some() {
                return slot;
            }
            // Full. A datagram fits an empty batch, so the second try is the last.
            self.seal(now_ns);
        }
        None
    }

    fn open(&mut self, now_ns: u64) -> Option<()> {
        let buffer = self.pool.take()?;
        let mut flight = self.idle.pop()?;
        flight.buffer = buffer;
        flight.first_ns = now_ns;
        flight.events = 0;
        self.open = Some(flight);
        Some(())
    }

    /// Seals the open batch and hands it to the control core.
    fn seal(&mut self, now_ns: u64) {
        let Some(mut flight) = self.open.take() else { return };
        self.senders.clear(&flight.ways);
        self.number += 1;
        flight.number = self.number;
        let buffer = self.pool.open_buffer(flight.buffer);
        buffer.seal(self.lane, self.life, self.number);
        buffer.slots().stamp(Stamp::Sealed, now_ns);
        flight.held = Some(self.pool.share(flight.buffer));
        // As many places as buffers: there is always room.
        let pushed = self.submissions.push(self.pool.share(flight.buffer)).is_ok();
        debug_assert!(pushed, "a buffer without a place in the ring");
        self.flights.push_back(flight);
        self.submitted = true;
    }

    /// Called once a turn, `is_dry` when the ring gave all it had: seals what is
    /// due and wakes the control core.
    #[inline]
    pub(super) fn end_of_turn(&mut self, is_dry: bool, now_ns: u64) {
        if let Some(open) = &self.open
            && ((is_dry && self.flights.is_empty())
                || (self.is_eager() && now_ns.saturating_sub(open.first_ns) >= SEAL_AFTER_NS))
        {
            self.seal(now_ns);
        }
        if std::mem::take(&mut self.submitted) {
            let in_flight = self.flights.len() as u64;
            self.link.in_flight.store(in_flight, std::sync::atomic::Ordering::Relaxed);
            self.link.control.wake();
        }
    }

    /// Whether a batch is sealed before it is full.
    #[inline]
    fn is_eager(&self) -> bool {
        self.flights.len() <= (self.flights.len() + self.idle.len()) / EAGER_OF
    }

    /// Whether answers can be written now.
    #[inline]
    pub(super) fn has_answers(&self) -> bool {
        self.flights.front().is_some_and(|f| self.pool.get(f.buffer).slots().is_done())
    }

    /// When the open batch must be sealed, from `now_ns` on; `None` without one, and
    /// when it waits for those in flight.
    pub(super) fn seal_due_in(&self, now_ns: u64) -> Option<Duration> {
        let open = self.open.as_ref().filter(|_| self.is_eager())?;
        Some(Duration::from_nanos((open.first_ns + SEAL_AFTER_NS).saturating_sub(now_ns)))
    }

    /// Writes the answers of every batch that is done; gives how many batches.
    #[inline]
    pub(super) fn acknowledge(
        &mut self,
        port: &mut P,
        acks: &mut OpenAcks<P::Packet>,
        counters: &LaneCounters,
        times: &mut StageTimes,
    ) -> usize {
        let mut batches = 0;
        while self.has_answers() {
            let Some(mut flight) = self.flights.pop_front() else { break };
            let slots = self.pool.get(flight.buffer).slots();
            match slots.epoch() {
                Some(epoch) => {
                    let now_ns = monotonic_ns();
                    for way in &flight.ways {
                        let mut next = way.first;
                        while let Some(pending) = flight.pending.get_mut(next as usize) {
                            next = pending.next;
                            let later = answer(port, acks, counters, slots, way, pending, epoch);
                            if let Some(outcomes) = later {
                                let name = (flight.number, epoch);
                                park(&mut self.waiting, counters, way, pending, name, &outcomes);
                                pending.is_parked = true;
                            }
                        }
                    }
                    note_times(times, slots, &flight.pending, now_ns);
                }
                None => {
                    counters.acks.lost.add(flight.pending.len() as u64);
                    counters.acks.events_lost.add(flight.events);
                }
            }
            drop(flight.held.take());
            flight.pending.clear();
            flight.ways.clear();
            self.idle.push(flight);
            batches += 1;
        }
        if batches > 0 {
            let in_flight = self.flights.len() as u64;
            self.link.in_flight.store(in_flight, std::sync::atomic::Ordering::Relaxed);
        }
        batches
    }

    /// Answers and events owed.
    #[inline]
    pub(super) fn owed(&self) -> (u64, u64) {
        let all = self.flights.iter().chain(&self.open);
        let waiting = if self.waiting.is_empty() { (0, 0) } else { self.waiting.owed() };
        all.fold(waiting, |(n, events), f| (n + f.pending.len() as u64, events + f.events))
    }

    /// The open batch, with room for what a partition sends at once, and the partitions
    /// of the cluster; `None` when no buffer is free.
    pub(super) fn room_for_effects(&mut self, now_ns: u64) -> Option<(&mut BatchBuf, u16)> {
        if let Some(open) = &self.open {
            let batch = self.pool.open_buffer(open.buffer);
            if !batch.has_room(SEND_RUNS_MAX, EFFECT_BYTES_MAX) {
                self.seal(now_ns);
            }
        }
        if self.open.is_none() {
            self.open(now_ns)?;
        }
        let open = self.open.as_ref()?;
        Some((self.pool.open_buffer(open.buffer), self.partitions))
    }

    /// Whether there is a batch to append to.
    pub(super) fn has_room(&self) -> bool {
        self.open.is_some() || !self.idle.is_empty()
    }

    /// Age of the oldest batch in flight, nanoseconds; 0 without any.
    pub(super) fn oldest_ns(&self, now_ns: u64) -> u64 {
        self.flights.front().map_or(0, |flight| now_ns.saturating_sub(flight.first_ns))
    }

    /// Whether answers that were waited for have come.
    #[inline]
    pub(super) fn has_settled(&self) -> bool {
        !self.link.settled.is_empty()
    }

    /// Answers the datagrams whose last event was settled, and gives those up that
    /// have waited for too long; how many.
    #[inline]
    pub(super) fn answer_settled(
        &mut self,
        port: &mut P,
        acks: &mut OpenAcks<P::Packet>,
        counters: &LaneCounters,
        times: &mut StageTimes,
    ) -> usize {
        if !self.has_settled() && self.waiting.is_empty() {
            return 0;
        }
        let now_ns = monotonic_ns();
        let oldest = self.flights.front().map_or(u64::MAX, |flight| flight.number);
        let mut kept = self.waiting.kept_len();
        let mut done = 0;
        loop {
            let settled = match kept.checked_sub(1) {
                Some(left) => {
                    kept = left;
                    self.waiting.kept()
                }
                None => self.link.settled.pop(),
            };
            let Some(settled) = settled else { break };
            if settled.asker.life != self.life {
                continue;
            }
            if settled.asker.batch >= oldest {
                self.waiting.keep(settled);
            } else if let Some(parked) = self.waiting.settle(&settled) {
                answer_parked(port, acks, counters, &parked);
                times.record(Stage::Whole, now_ns.saturating_sub(parked.received_ns), 1);
                done += 1;
            }
        }
        while let Some(late) = self.waiting.late(now_ns) {
            lose(counters, late.events);
            done += 1;
        }
        done
    }
}

/// Nobody will be told what became of so many events of a datagram.
fn lose(counters: &LaneCounters, events: u16) {
    counters.acks.lost.add(1);
    counters.acks.events_lost.add(events.into());
}

/// Outcomes of a datagram's events, and first epochs by event.
type Outcomes = ([u8; EVENTS_LIMIT], [u64; EVENTS_LIMIT]);

/// Keeps a datagram whose events are not all settled, as of batch and epoch `name`.
#[cold]
fn park<T: Clone>(
    waiting: &mut Waiting<T>,
    counters: &LaneCounters,
    way: &Way<T>,
    pending: &Pending,
    (batch, epoch): (u64, u64),
    (outcomes, first_epochs): &Outcomes,
) {
    let parked = Parked {
        path: way.path.clone(),
        hash: way.hash,
        session: way.session,
        sequence: pending.sequence,
        domain: pending.domain,
        received_ns: pending.received_ns,
        batch,
        first_slot: pending.first_slot,
        events: pending.events,
        epoch,
        outcomes: *outcomes,
        first_epochs: *first_epochs,
    };
    if has_waiting_duplicate(parked.outcomes()) || waiting.park(parked).is_err() {
        lose(counters, pending.events);
    }
}

/// Writes the answer to a datagram whose last event is settled.
fn answer_parked<P: Port>(
    port: &mut P,
    acks: &mut OpenAcks<P::Packet>,
    counters: &LaneCounters,
    parked: &Parked<P::Path>,
) {
    let outcomes = parked.outcomes();
    let mut first_epochs = [0u64; EVENTS_LIMIT];
    let mut duplicates = 0;
    for (outcome, epoch) in outcomes.iter().zip(&parked.first_epochs) {
        if outcome & DUPLICATE_BIT != 0 {
            first_epochs[duplicates] = *epoch;
            duplicates += 1;
        }
    }
    count_outcomes(counters, outcomes);
    let answer = Answer {
        session: parked.session,
        sequence: parked.sequence,
        domain: parked.domain,
        epoch: parked.epoch,
        mode: Mode::Durable,
        outcomes,
        first_epochs: &first_epochs[..duplicates],
    };
    acks.add(port, counters, Sender::Path(&parked.path, parked.hash), &answer);
}

/// Writes the answer to one datagram; gives its outcomes instead when an event of it
/// waits for another region.
#[inline]
fn answer<P: Port>(
    port: &mut P,
    acks: &mut OpenAcks<P::Packet>,
    counters: &LaneCounters,
    slots: &OutcomeSlots,
    way: &Way<P::Path>,
    pending: &Pending,
    epoch: u64,
) -> Option<Outcomes> {
    let mut outcomes = [0u8; EVENTS_LIMIT];
    let outcomes = &mut outcomes[..usize::from(pending.events).min(EVENTS_LIMIT)];
    let mut first_epochs = [0u64; EVENTS_LIMIT];
    let mut duplicates = 0;
    let mut waits = false;
    for (slot, outcome) in (pending.first_slot..).zip(outcomes.iter_mut()) {
        *outcome = slots.outcome(slot);
        waits |= *outcome & !DUPLICATE_BIT == RESERVED;
        if *outcome & DUPLICATE_BIT != 0 {
            first_epochs[duplicates] = slots.first_epoch(slot);
            duplicates += 1;
        }
    }
    if waits {
        return Some(unsettled(slots, pending));
    }
    count_outcomes(counters, outcomes);
    let answer = Answer {
        session: way.session,
        sequence: pending.sequence,
        domain: pending.domain,
        epoch,
        mode: Mode::Durable,
        outcomes,
        first_epochs: &first_epochs[..duplicates],
    };
    acks.add(port, counters, Sender::Path(&way.path, way.hash), &answer);
    None
}

#[cold]
fn unsettled(slots: &OutcomeSlots, pending: &Pending) -> Outcomes {
    let mut all = ([0; EVENTS_LIMIT], [0; EVENTS_LIMIT]);
    let places = all.0.iter_mut().zip(&mut all.1).take(pending.events.into());
    for (slot, (outcome, first_epoch)) in (pending.first_slot..).zip(places) {
        (*outcome, *first_epoch) = (slots.outcome(slot), slots.first_epoch(slot));
    }
    all
}

fn note_times(times: &mut StageTimes, slots: &OutcomeSlots, pending: &[Pending], acked_ns: u64) {
    let datagrams = pending.len() as u64;
    let stamps =
        [Stamp::Sealed, Stamp::Submitted, Stamp::Durable, Stamp::Committed, Stamp::Applied]
            .map(|stamp| slots.stamped(stamp));
    let stages = [Stage::Submitted, Stage::Durable, Stage::Committed, Stage::Applied];
    for (stage, pair) in stages.into_iter().zip(stamps.windows(2)) {
        times.record(stage, pair[1].saturating_sub(pair[0]), datagrams);
    }
    times.record(Stage::Acked, acked_ns.saturating_sub(stamps[4]), datagrams);
    for pending in pending {
        times.record(Stage::Sealed, stamps[0].saturating_sub(pending.received_ns), 1);
        if !pending.is_parked {
            times.record(Stage::Whole, acked_ns.saturating_sub(pending.received_ns), 1);
        }
    }
}
