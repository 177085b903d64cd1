//! The belt: events of a batch on their way to judgement, over all partitions
//! that are here, so that memory answers for some while others are worked on.
//!
//! ```text
//!   range ahead   the partition itself is asked for
//!   8 runs ahead  the hash line of the run's hunt
//!   4 runs ahead  the hunt
//!   step 1        fingerprint; asks for dedupe, cell and player hash lines
//!   step 2        reads the hash lines; asks for the records
//!   step 3        judges, in order, one by one
//!   at the end    moves on the leaderboards, partition by partition
//! ```
//!
//! A batch of a thousand events over sixty-four partitions has a few runs for
//! each. Taken by themselves, every partition would wait for its first lines
//! and drain at its end; on one belt, it is the batch that does.

use veltrix_abi::wire::{Event, Events};

use super::outbox::Asker;
use super::partition::Partition;
use super::rules::Action;
use crate::base::table::prefetch_whole;
use crate::batch::format::BatchHeader;
use crate::batch::{BatchView, Origin, OutcomeSlots, Range, Run};
use crate::dedupe::{self, Fingerprint};
use crate::index::{HuntId, SlotHint};

/// Events that take a step together: a step that does the same to a few events
/// keeps more requests under way than one that changes over with each, and long
/// groups judge for a while with none under way. Of 1 to 16, 3 and 4 were the
/// fastest (2-vCPU EPYC VM: 131 ns an event against 146 with 16).
const GROUP: usize = 4;

/// Events between one step and the next: a microsecond, several times what memory
/// takes. 8 to 24 measured alike; what is asked for early falls out of the cache.
const AHEAD: usize = 8;

/// Places of the belt; a power of two.
const BELT: usize = 32;

const _: () = assert!(BELT.is_power_of_two() && 2 * (GROUP + AHEAD) <= BELT);

/// Runs between one look at a hunt and the next.
const RUNS_AHEAD: usize = 4;

/// The entry that is applied.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) epoch: u64,
    pub(super) log_time_ns: u64,
    pub(super) slots: Option<&'a OutcomeSlots>,
    /// Its name, for whoever waits for an answer that comes later.
    pub(super) batch: Asker,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        epoch: u64,
        log_time_ns: u64,
        slots: Option<&'a OutcomeSlots>,
        view: &BatchView<'_>,
    ) -> Self {
        let BatchHeader { lane, life, number, .. } = *view.header();
        Self { epoch, log_time_ns, slots, batch: Asker { life, batch: number, lane, slot: 0 } }
    }
}

/// Partitions by number, as far as they are here.
pub trait Owned {
    /// Partition `number`.
    fn get(&self, number: u16) -> Option<&Partition>;
    /// Partition `number`.
    fn get_mut(&mut self, number: u16) -> Option<&mut Partition>;
}

/// All of them, each at the place of its number.
impl Owned for [Partition] {
    #[inline(always)]
    fn get(&self, number: u16) -> Option<&Partition> {
        <[_]>::get(self, usize::from(number))
    }

    #[inline(always)]
    fn get_mut(&mut self, number: u16) -> Option<&mut Partition> {
        <[_]>::get_mut(self, usize::from(number))
    }
}

impl Owned for [Option<Box<Partition>>] {
    #[inline(always)]
    fn get(&self, number: u16) -> Option<&Partition> {
        <[_]>::get(self, usize::from(number))?.as_deref()
    }

    #[inline(always)]
    fn get_mut(&mut self, number: u16) -> Option<&mut Partition> {
        <[_]>::get_mut(self, usize::from(number))?.as_deref_mut()
    }
}

/// One partition alone.
pub(super) struct One<'a>(pub(super) &'a mut Partition);

impl Owned for One<'_> {
    #[inline(always)]
    fn get(&self, number: u16) -> Option<&Partition> {
        (number == self.0.number).then_some(&*self.0)
    }

    #[inline(always)]
    fn get_mut(&mut self, number: u16) -> Option<&mut Partition> {
        (number == self.0.number).then_some(&mut *self.0)
    }
}

/// Applies the batch that committed as `epoch` to all of `partitions`:
/// [`Partition::apply`] for each of its ranges whose partition is here, only
/// faster.
pub fn apply_batch(
    partitions: &mut (impl Owned + ?Sized),
    epoch: u64,
    log_time_ns: u64,
    view: &BatchView<'_>,
    slots: Option<&OutcomeSlots>,
) {
    let entry = Entry::new(epoch, log_time_ns, slots, view);
    let mut place = Place::default();
    run(partitions, &entry, view, view.ranges(), &mut place, || false);
}

/// [`apply_batch`] in slices: goes on from `place` until the batch is through, or
/// until `is_over` says so, which is asked every [`LOOK`] events. True when it is
/// through. In between, the partition that `place` names is half applied and must
/// not be looked at; of all others each is as after this entry or as before it.
pub fn apply_slice(
    partitions: &mut (impl Owned + ?Sized),
    (epoch, log_time_ns): (u64, u64),
    view: &BatchView<'_>,
    slots: Option<&OutcomeSlots>,
    place: &mut Place,
    is_over: impl FnMut() -> bool,
) -> bool {
    let entry = Entry::new(epoch, log_time_ns, slots, view);
    run(partitions, &entry, view, view.ranges(), place, is_over)
}

/// Events between two looks at whether a slice is over: 25 us where an event takes
/// 0.8 us, and a clock that is read for one nanosecond an event.
pub const LOOK: u32 = 32;

/// How far a batch has been applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Ranges that are through.
    ranges: u32,
    /// Runs of the next range that are.
    runs: u32,
    /// Events of the next run that are, and their bytes.
    events: u16,
    bytes: u32,
    /// Partition of the next range, if events of it have been applied.
    half: Option<u16>,
}

impl Place {
    /// The partition that is half applied, if there is one.
    #[must_use]
    #[inline]
    pub fn half_applied(&self) -> Option<u16> {
        self.half
    }

    /// What is left of its range.
    fn rest_of_range(&self, range: Range) -> Range {
        let (first, runs) = (range.first.saturating_add(self.runs), range.runs);
        Range { first, runs: runs.saturating_sub(self.runs), ..range }
    }

    /// What is left of its run.
    #[inline(always)]
    fn rest_of_run<'a>(&self, run: Run<'a>) -> Run<'a> {
        let body = run.events.as_bytes().get(self.bytes as usize..).unwrap_or_default();
        let left = (run.events.len() as u16).saturating_sub(self.events);
        let first_event = run.first_event.wrapping_add(self.events.into());
        Run { first_event, events: Events::of_checked(body, left), ..run }
    }

    /// Goes on to the run after the one at hand, which is of range `n`; gives the
    /// place that was.
    #[inline(always)]
    fn pass_run(&mut self, n: u32) -> Self {
        let here = if self.ranges == n { *self } else { Self { ranges: n, ..Self::default() } };
        *self = Self { ranges: n, runs: here.runs + 1, ..Self::default() };
        here
    }

    /// The place in `run`, the whole one at hand, before what is `left` of it.
    fn in_run(self, run: &Run<'_>, left: &Events<'_>, partition: u16) -> Self {
        let events = run.events.len() - left.len();
        let bytes = run.events.as_bytes().len() - left.as_bytes().len();
        Self { events: events as u16, bytes: bytes as u32, half: Some(partition), ..self }
    }
}

/// One event on the belt.
#[derive(Clone, Copy)]
pub(super) struct Pending<'a> {
    pub(super) key: [u8; 16],
    pub(super) fingerprint: Fingerprint,
    pub(super) domain: u64,
    pub(super) player: u64,
    /// Subject of the event: a cell more often than not.
    pub(super) cell: u64,
    pub(super) argument: u64,
    pub(super) payload: &'a [u8],
    kind: u16,
    partition: u16,
    is_well_formed: bool,
    origin: Origin,
    /// The hunt, where it is known. Where not, it is looked for again in its
    /// turn, since an event before it on the belt may have made it.
    pub(super) hunt: Option<HuntId>,
    /// Outcome slot of the batch.
    pub(super) slot: u32,
    pub(super) cell_hint: SlotHint,
    pub(super) player_hint: SlotHint,
}

/// Fills the places of the belt before the first event.
const NO_EVENT: Pending<'_> = Pending {
    key: [0; 16],
    fingerprint: Fingerprint::ZERO,
    domain: 0,
    player: 0,
    cell: 0,
    argument: 0,
    payload: &[],
    kind: 0,
    partition: 0,
    is_well_formed: false,
    origin: Origin::Sender,
    hunt: None,
    slot: 0,
    cell_hint: SlotHint::NONE,
    player_hint: SlotHint::NONE,
};

impl Pending<'_> {
    /// Whether another partition wrote it, and no sender.
    #[inline(always)]
    pub(super) fn is_effect(&self) -> bool {
        self.origin != Origin::Sender
    }

    /// Code of its kind.
    pub(super) const fn kind(&self) -> u16 {
        self.kind
    }

    /// What it asks for; `None` for a malformed event.
    #[inline(always)]
    pub(super) fn action(&self) -> Option<Action> {
        let Self { kind, player, cell, argument, payload, .. } = *self;
        self.is_well_formed.then(|| Action::of(kind, player, cell, argument, payload))?
    }
}

/// Takes the events of `ranges` from `place` on through all steps, until they are
/// through or `is_over`; true when they are.
pub(super) fn run<'a, P: Owned + ?Sized>(
    partitions: &mut P,
    entry: &Entry<'_>,
    view: &BatchView<'a>,
    mut ranges: impl Iterator<Item = Range> + Clone,
    place: &mut Place,
    mut is_over: impl FnMut() -> bool,
) -> bool {
    let (view, from) = (*view, *place);
    ranges.by_ref().take(from.ranges as usize).for_each(drop);
    let settled = ranges.clone();
    let mut next_range = ranges.clone().skip(1);
    let runs = (from.ranges..).zip(ranges).flat_map(move |(n, range)| {
        let range = if n == from.ranges { from.rest_of_range(range) } else { range };
        view.runs(&range).map(move |run| (n, range.partition, run))
    });
    let (mut far, mut near) = (runs.clone(), runs.clone());
    let mut far_partition = None;
    let mut look_far = |partitions: &P| {
        let Some((_, number, run)) = far.next() else { return };
        if far_partition != Some(number) {
            far_partition = Some(number);
            if let Some(next) = next_range.next().and_then(|r| partitions.get(r.partition)) {
                prefetch_whole(next);
            }
        }
        if let Some(partition) = partitions.get(number) {
            partition.index.prefetch_hunt_hash(run.domain);
        }
    };
    let mut look_near = |partitions: &P| {
        if let Some((_, number, run)) = near.next()
            && let Some(partition) = partitions.get(number)
        {
            partition.index.prefetch_hunt(run.domain);
        }
    };
    (0..2 * RUNS_AHEAD).for_each(|_| look_far(partitions));
    (0..RUNS_AHEAD).for_each(|_| look_near(partitions));

    let mut belt = Belt::new();
    let mut begun = from.half;
    let mut is_new = begun.is_some();
    let (mut next, mut until_look) = (from, LOOK);
    let mut stopped = None;
    'all: for (n, number, run) in runs {
        look_far(partitions);
        look_near(partitions);
        let here = next.pass_run(n);
        if begun != Some(number) {
            begun = Some(number);
            is_new = partitions.get_mut(number).is_some_and(|p| p.begin(entry));
        }
        if !is_new {
            continue;
        }
        let Some(partition) = partitions.get(number) else { continue };
        let hunt = partition.index.hunt(run.domain);
        let mut left = here.rest_of_run(run);
        while let Some(event) = left.events.next() {
            let Some(partition) = partitions.get(number) else { break };
            let place = belt.announced % BELT;
            let of_run = (left.domain, left.origin);
            belt.places[place] = announce(partition, &event, of_run, hunt, left.first_event);
            left.first_event = left.first_event.wrapping_add(1);
            belt.announced += 1;
            if belt.announced >= belt.located + AHEAD + GROUP {
                belt.move_on(partitions, entry);
            }
            until_look -= 1;
            if until_look == 0 {
                until_look = LOOK;
                if is_over() {
                    stopped = Some(here.in_run(&run, &left.events, number));
                    break 'all;
                }
            }
        }
    }
    belt.drain(partitions, entry);
    let through = stopped.map_or(u32::MAX, |stopped| stopped.ranges - from.ranges);
    for range in settled.take(through as usize) {
        if let Some(partition) = partitions.get_mut(range.partition) {
            partition.index.settle_ranks();
        }
    }
    *place = stopped.unwrap_or_default();
    stopped.is_none()
}

/// Events that have taken step 1, step 2, step 3, and the places of those that
/// are not through.
struct Belt<'a> {
    announced: usize,
    located: usize,
    judged: usize,
    places: [Pending<'a>; BELT],
}

impl Belt<'_> {
    fn new() -> Self {
        Self { announced: 0, located: 0, judged: 0, places: [NO_EVENT; BELT] }
    }

    /// One group takes step 2, what is far enough behind it step 3.
    #[inline(always)]
    fn move_on<P: Owned + ?Sized>(&mut self, partitions: &mut P, entry: &Entry<'_>) {
        let group_end = self.announced.min(self.located + GROUP);
        self.locate(partitions, group_end);
        self.located = group_end;
        self.judge(partitions, entry, group_end.saturating_sub(AHEAD));
    }

    fn drain<P: Owned + ?Sized>(&mut self, partitions: &mut P, entry: &Entry<'_>) {
        while self.located < self.announced {
            self.move_on(partitions, entry);
        }
        self.judge(partitions, entry, self.located);
    }

    /// Step 2 for the events up to `end`: the hash lines have come and say where
    /// the records lie.
    #[inline(never)]
    fn locate<P: Owned + ?Sized>(&mut self, partitions: &P, end: usize) {
        for event in self.located..end {
            let pending = &mut self.places[event % BELT];
            if let Some(hunt) = pending.hunt
                && let Some(partition) = partitions.get(pending.partition)
            {
                pending.cell_hint = partition.index.locate_cell(hunt, pending.cell);
                pending.player_hint = partition.index.locate_player(hunt, pending.player);
            }
        }
    }

    /// Step 3 for the events up to `end`.
    #[inline(never)]
    fn judge<P: Owned + ?Sized>(&mut self, partitions: &mut P, entry: &Entry<'_>, end: usize) {
        while self.judged < end {
            let number = self.places[self.judged % BELT].partition;
            let Some(partition) = partitions.get_mut(number) else { return };
            let now = partition.now(entry);
            while self.judged < end {
                let pending = &self.places[self.judged % BELT];
                if pending.partition != number {
                    break;
                }
                partition.judge(&now, pending);
                self.judged += 1;
            }
        }
    }
}

/// Step 1: what can be known of an event without waiting for memory.
#[inline(always)]
fn announce<'a>(
    partition: &Partition,
    event: &Event<'a>,
    (domain, origin): (u64, Origin),
    hunt: Option<HuntId>,
    slot: u32,
) -> Pending<'a> {
    let fingerprint = dedupe::fingerprint(&partition.secret, event.player, &event.key);
    partition.dedupe.prefetch(fingerprint, dedupe::key_ms(&event.key));
    if let Some(hunt) = hunt {
        partition.index.prefetch_cell_hash(hunt, event.subject);
        partition.index.prefetch_player_hash(hunt, event.player);
    }
    Pending {
        key: event.key,
        fingerprint,
        domain,
        player: event.player,
        cell: event.subject,
        argument: event.argument,
        payload: event.payload,
        kind: event.kind,
        partition: partition.number,
        is_well_formed: event.is_well_formed(),
        origin,
        hunt,
        slot,
        cell_hint: SlotHint::NONE,
        player_hint: SlotHint::NONE,
    }
}

#[cfg(test)]
mod tests {
    use veltrix_abi::kinds::EventKind;

    use super::*;

    #[test]
    fn an_event_that_is_not_well_formed_asks_for_nothing() {
        let claim = Pending { kind: EventKind::Claim.code(), is_well_formed: true, ..NO_EVENT };
        assert_eq!(claim.action(), Some(Action::Claim));
        assert_eq!(Pending { is_well_formed: false, ..claim }.action(), None);
    }
}
