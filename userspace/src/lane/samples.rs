//! Samples of what a lane has applied, for those who watch the stream.
//!
//! ```text
//!   batch applied, owners' slots filled -> a look at some events -> ring -> control core
//! ```
//!
//! Only while somebody watches, and after the batch is answered for: the lane
//! looks at no more than [`LOOKED_MAX`] events of a batch, from a run on that
//! differs from batch to batch, and keeps those that [`Class`] has room for. A
//! full ring loses the sample and counts it; nothing is allocated.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rtrb::Producer;
use veltrix_abi::Outcome;
use veltrix_abi::kinds::EventKind;
use veltrix_abi::outcomes::DUPLICATE_BIT;

use crate::apply::effects::RESERVED;
use crate::batch::pool::Stamp;
use crate::batch::{BatchView, Origin, OutcomeSlots, Range};

/// Events of a batch that are looked at, at the most: 3.5 us for all of them in a build
/// that is hardly optimised (opt-level 1, a busy 2-vCPU Xeon VM).
pub const LOOKED_MAX: u32 = 256;

/// Time that [`Class::samples_max`] is for, nanoseconds.
pub const WINDOW_NS: u64 = 100_000_000;

/// Samples that may wait for the control core: what two windows can have.
pub(super) const RING: usize = 2 * SAMPLES_A_WINDOW;

const SAMPLES_A_WINDOW: usize = {
    let [claimed, refused, other] = SAMPLES_MAX;
    (claimed + refused + other) as usize
};

/// See [`Class::samples_max`].
const SAMPLES_MAX: [u16; 3] = [128, 32, 32];

/// What a sample is worth to who watches; the first is the dearest. Each has its
/// own number of samples, so that no traffic takes another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Class {
    /// A claim or the use of a key that was applied, for the first time.
    Claimed = 0,
    /// One that was refused, or is a duplicate.
    Refused = 1,
    /// Every other event.
    Other = 2,
}

impl Class {
    /// Samples that a lane keeps of it in [`WINDOW_NS`].
    #[must_use]
    pub const fn samples_max(self) -> u16 {
        SAMPLES_MAX[self as usize]
    }

    #[inline]
    const fn of(kind: u16, outcome: u8) -> Self {
        match EventKind::from_code(kind) {
            Some(EventKind::Claim | EventKind::UseKey) => {
                if outcome == Outcome::Applied.code() {
                    Self::Claimed
                } else {
                    Self::Refused
                }
            }
            _ => Self::Other,
        }
    }
}

/// An event and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Epoch it was applied at.
    pub epoch: u64,
    /// Epoch of its first application; meaningful for a duplicate.
    pub first_epoch: u64,
    /// Its hunt.
    pub domain: u64,
    /// Who acted.
    pub player: u64,
    /// Cell, or the other player.
    pub subject: u64,
    /// Code of its kind, as it was sent.
    pub kind: u16,
    /// Outcome byte, as in an ack.
    pub outcome: u8,
    /// Monotonic nanoseconds: its batch was sealed.
    pub sealed_ns: u64,
    /// The log was given the batch.
    pub submitted_ns: u64,
    /// The batch was on disk.
    pub durable_ns: u64,
    /// The batch had committed and was handed out.
    pub committed_ns: u64,
    /// This lane had applied its part of it.
    pub applied_ns: u64,
}

impl Sample {
    /// What it is worth.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::of(self.kind, self.outcome)
    }
}

/// Words of sampling that a lane and the control core share.
#[derive(Debug, Default)]
pub struct Watch {
    /// Somebody watches. Said by the control core.
    pub wanted: AtomicBool,
    /// Samples that found the ring full. Counted by the lane.
    pub lost: AtomicU64,
}

/// The lane's half.
pub(super) struct Sampler {
    ring: Producer<Sample>,
    window_began_ns: u64,
    /// Samples that each class may still have in this window.
    left: [u16; SAMPLES_MAX.len()],
    /// Batches looked at.
    batches: u32,
}

impl Sampler {
    pub(super) const fn new(ring: Producer<Sample>) -> Self {
        Self { ring, window_began_ns: 0, left: SAMPLES_MAX, batches: 0 }
    }

    /// Looks at a batch that committed as `epoch` and was applied by `now_ns`, as
    /// far as its partitions are `owned` here: only their slots are filled.
    #[cold]
    pub(super) fn look(
        &mut self,
        (epoch, now_ns): (u64, u64),
        view: &BatchView<'_>,
        slots: &OutcomeSlots,
        watch: &Watch,
        owned: impl Fn(u16) -> bool,
    ) {
        if now_ns.saturating_sub(self.window_began_ns) >= WINDOW_NS {
            (self.window_began_ns, self.left) = (now_ns, SAMPLES_MAX);
        }
        if self.left == [0; SAMPLES_MAX.len()] {
            return;
        }
        let of_batch = Sample {
            epoch,
            sealed_ns: slots.stamped(Stamp::Sealed),
            submitted_ns: slots.stamped(Stamp::Submitted),
            durable_ns: slots.stamped(Stamp::Durable),
            committed_ns: slots.stamped(Stamp::Committed),
            applied_ns: now_ns,
            ..Sample::default()
        };
        let runs = view.header().runs;
        let begin = self.batches.wrapping_mul(STRIDE) % runs.max(1);
        self.batches = self.batches.wrapping_add(1);
        let mut looked = 0;
        for (from, to) in [(begin, runs), (0, begin)] {
            for range in view.ranges().filter(|range| owned(range.partition)) {
                let runs = view.runs(&part_of(&range, from, to));
                for run in runs.filter(|run| run.origin == Origin::Sender) {
                    for (event, slot) in run.events.zip(run.first_event..) {
                        if looked == LOOKED_MAX {
                            return;
                        }
                        looked += 1;
                        // Another region has its say first; nobody watches that yet.
                        if slots.outcome(slot) & !DUPLICATE_BIT == RESERVED {
                            continue;
                        }
                        self.keep(
                            Sample {
                                first_epoch: slots.first_epoch(slot),
                                domain: run.domain,
                                player: event.player,
                                subject: event.subject,
                                kind: event.kind,
                                outcome: slots.outcome(slot),
                                ..of_batch
                            },
                            watch,
                        );
                    }
                }
            }
        }
    }

    fn keep(&mut self, sample: Sample, watch: &Watch) {
        let left = &mut self.left[sample.class() as usize];
        if *left == 0 {
            return;
        }
        *left -= 1;
        if self.ring.push(sample).is_err() {
            watch.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Steps through the runs of a batch without a pattern (2^32 by the golden ratio).
const STRIDE: u32 = 0x9e37_79b1;

/// What of a range lies among the runs from `from` up to `to`.
fn part_of(range: &Range, from: u32, to: u32) -> Range {
    let first = range.first.max(from);
    let end = range.first.saturating_add(range.runs).min(to);
    Range { first, runs: end.saturating_sub(first), ..*range }
}

#[cfg(test)]
mod tests {
    use rtrb::{Consumer, RingBuffer};
    use veltrix_abi::outcomes::DUPLICATE_BIT;
    use veltrix_abi::partition::partition_of;
    use veltrix_abi::wire::Event;

    use super::*;
    use crate::batch::Pool;

    const PARTITIONS: u16 = 8;

    fn event(kind: EventKind, player: u64) -> Vec<u8> {
        let event = Event {
            key: [7; 16],
            player,
            subject: 1000 + player,
            argument: 0,
            kind: kind.code(),
            reserved: 0,
            payload: &[],
        };
        let mut bytes = vec![0; event.wire_bytes()];
        event.write(&mut bytes);
        bytes
    }

    /// Hands a batch of `(domain, kind, outcome)` to a sampler: player `n` acts in
    /// event `n`.
    fn look(
        sampler: &mut Sampler,
        watch: &Watch,
        now_ns: u64,
        events: &[(u64, EventKind, u8)],
        owned: impl Fn(u16) -> bool,
    ) {
        let mut pool = Pool::new(1, PARTITIONS);
        let index = pool.take().unwrap();
        let batch = pool.open_buffer(index);
        for (n, (domain, kind, _)) in events.iter().enumerate() {
            let partition = partition_of(*domain, PARTITIONS);
            batch.append(partition, *domain, &event(*kind, n as u64), 1).unwrap();
        }
        batch.seal(0, 1, 1);
        for (n, (_, _, outcome)) in events.iter().enumerate() {
            batch.slots().set(n as u32, *outcome);
        }
        batch.slots().stamp(Stamp::Sealed, now_ns - 1);
        let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
        sampler.look((9, now_ns), &view, batch.slots(), watch, owned);
    }

    fn sampler(places: usize) -> (Sampler, Consumer<Sample>, Watch) {
        let (producer, samples) = RingBuffer::new(places);
        (Sampler::new(producer), samples, Watch::default())
    }

    fn drain(samples: &mut Consumer<Sample>) -> Vec<Sample> {
        std::iter::from_fn(|| samples.pop().ok()).collect()
    }

    const APPLIED: u8 = Outcome::Applied.code();

    #[test]
    fn a_sample_says_what_was_applied() {
        let (mut sampler, mut samples, watch) = sampler(RING);
        let refused = Outcome::AlreadyClaimed.code();
        let events = [(42, EventKind::Claim, APPLIED), (42, EventKind::UseKey, refused)];
        look(&mut sampler, &watch, WINDOW_NS, &events, |_| true);
        let found = drain(&mut samples);
        let wanted = Sample {
            epoch: 9,
            domain: 42,
            player: 0,
            subject: 1000,
            kind: EventKind::Claim.code(),
            outcome: APPLIED,
            sealed_ns: WINDOW_NS - 1,
            applied_ns: WINDOW_NS,
            ..Sample::default()
        };
        assert_eq!(found[0], wanted);
        assert_eq!((found[1].player, found[1].outcome), (1, refused));
        assert_eq!((found[0].class(), found[1].class()), (Class::Claimed, Class::Refused));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_crowd_takes_no_place_of_claims_and_time_gives_places_anew() {
        let (mut sampler, mut samples, watch) = sampler(RING);
        let crowd = [(1, EventKind::CollectItem, APPLIED); 200];
        let claim = [(2, EventKind::Claim, APPLIED)];
        let duplicate = [(2, EventKind::Claim, APPLIED | DUPLICATE_BIT); 50];
        for now_ns in [WINDOW_NS, 2 * WINDOW_NS - 1] {
            look(&mut sampler, &watch, now_ns, &crowd, |_| true);
            look(&mut sampler, &watch, now_ns, &duplicate, |_| true);
            look(&mut sampler, &watch, now_ns, &claim, |_| true);
        }
        let count = |found: &[Sample], class| found.iter().filter(|s| s.class() == class).count();
        let found = drain(&mut samples);
        assert_eq!(count(&found, Class::Other), usize::from(Class::Other.samples_max()));
        assert_eq!(count(&found, Class::Refused), usize::from(Class::Refused.samples_max()));
        assert_eq!(count(&found, Class::Claimed), 2);
        look(&mut sampler, &watch, 2 * WINDOW_NS, &crowd, |_| true);
        assert_eq!(drain(&mut samples).len(), usize::from(Class::Other.samples_max()));
        assert_eq!(watch.lost.load(Relaxed), 0);
    }

    #[test]
    fn no_batch_is_looked_through_whole_and_every_run_has_its_turn() {
        let (mut sampler, mut samples, watch) = sampler(RING);
        // A run each, and one claim that only some looks reach.
        let mut events: Vec<_> =
            (0..4 * u64::from(LOOKED_MAX)).map(|n| (n, EventKind::WalletSpend, APPLIED)).collect();
        events[700].1 = EventKind::Claim;
        let mut claims = 0;
        for turn in 1..=32 {
            look(&mut sampler, &watch, turn * WINDOW_NS, &events, |_| true);
            claims += drain(&mut samples).iter().filter(|s| s.class() == Class::Claimed).count();
        }
        assert!((4..=12).contains(&claims), "a quarter of 32 looks, found {claims}");
    }

    #[test]
    fn what_another_lane_owns_is_not_looked_at() {
        let (mut sampler, mut samples, watch) = sampler(RING);
        let events: Vec<_> = (0..64).map(|n| (n, EventKind::Claim, APPLIED)).collect();
        look(&mut sampler, &watch, WINDOW_NS, &events, |partition| partition == 3);
        let found = drain(&mut samples);
        assert!(!found.is_empty());
        assert!(found.iter().all(|s| partition_of(s.domain, PARTITIONS) == 3), "{found:?}");
    }

    #[test]
    fn a_full_ring_loses_samples_and_counts_them() {
        let (mut sampler, mut samples, watch) = sampler(4);
        look(&mut sampler, &watch, WINDOW_NS, &[(1, EventKind::Claim, APPLIED); 6], |_| true);
        assert_eq!((drain(&mut samples).len(), watch.lost.load(Relaxed)), (4, 2));
    }
}
