//! Answers that come later: datagrams of which an event waits for another region of
//! its hunt. They are answered when the last of their events is settled.
//!
//! Nothing depends on them but the sender's patience: an answer that finds no place, or
//! is not settled in time, is dropped and counted, and the sender that asks again with
//! the same key gets it from the dedupe table.

use std::collections::VecDeque;

use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::EVENTS_LIMIT;
use crate::apply::Settled;
use crate::apply::effects::RESERVED;

/// Datagrams that may wait.
const PARKED_MAX: usize = 4_096;

/// Settlements that may come before the batch they are of is answered: its other
/// owners are slower.
const EARLY_MAX: usize = 4_096;

/// Longest a datagram waits: a sender has asked again long before.
const WAIT_NS_MAX: u64 = 1_000_000_000;

/// A datagram that waits.
pub(super) struct Parked<T> {
    pub(super) path: T,
    pub(super) hash: u32,
    pub(super) session: u64,
    pub(super) sequence: u64,
    pub(super) domain: u64,
    /// When the lane took its frame, monotonic nanoseconds.
    pub(super) received_ns: u64,
    /// Number of its batch.
    pub(super) batch: u64,
    pub(super) first_slot: u32,
    pub(super) events: u16,
    /// Epoch of its last outcome.
    pub(super) epoch: u64,
    pub(super) outcomes: [u8; EVENTS_LIMIT],
    /// By event; meaningful for duplicates.
    pub(super) first_epochs: [u64; EVENTS_LIMIT],
}

impl<T> Parked<T> {
    /// Outcomes of its events.
    pub(super) fn outcomes(&self) -> &[u8] {
        &self.outcomes[..usize::from(self.events).min(EVENTS_LIMIT)]
    }

    fn waits(&self) -> bool {
        self.outcomes().contains(&RESERVED)
    }

    /// Its place among the outcomes, if the slot is one of its own and waits.
    fn place(&self, slot: u32) -> Option<usize> {
        let place = slot.checked_sub(self.first_slot)? as usize;
        (self.outcomes().get(place) == Some(&RESERVED)).then_some(place)
    }
}

/// Whether an event of these outcomes is a duplicate of one that waits: nobody will
/// say here what becomes of it.
pub(super) fn has_waiting_duplicate(outcomes: &[u8]) -> bool {
    outcomes.contains(&(RESERVED | DUPLICATE_BIT))
}

/// See the module.
pub(super) struct Waiting<T> {
    /// Oldest batch first.
    parked: VecDeque<Parked<T>>,
    /// Events in them.
    events: u64,
    early: VecDeque<Settled>,
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        Self {
            parked: VecDeque::with_capacity(PARKED_MAX),
            events: 0,
            early: VecDeque::with_capacity(EARLY_MAX),
        }
    }

    /// Bytes it reserves.
    pub(super) const fn bytes() -> usize {
        PARKED_MAX * size_of::<Parked<T>>() + EARLY_MAX * size_of::<Settled>()
    }

    /// Keeps a datagram, of no older batch than those before.
    ///
    /// # Errors
    ///
    /// The datagram, when there is no place.
    #[expect(clippy::result_large_err, reason = "a box would be an allocation on the lane")]
    pub(super) fn park(&mut self, parked: Parked<T>) -> Result<(), Parked<T>> {
        if self.parked.len() == PARKED_MAX {
            return Err(parked);
        }
        self.events += u64::from(parked.events);
        self.parked.push_back(parked);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty() && self.early.is_empty()
    }

    /// Datagrams and events that wait.
    pub(super) fn owed(&self) -> (u64, u64) {
        (self.parked.len() as u64, self.events)
    }

    /// Keeps a settlement whose batch is not answered yet.
    pub(super) fn keep(&mut self, settled: Settled) {
        if self.early.len() < EARLY_MAX {
            self.early.push_back(settled);
        }
    }

    /// Settlements that are kept.
    pub(super) fn kept_len(&self) -> usize {
        self.early.len()
    }

    /// The one that was kept for longest.
    pub(super) fn kept(&mut self) -> Option<Settled> {
        self.early.pop_front()
    }

    /// Notes an outcome; the datagram if it was the last it waited for.
    pub(super) fn settle(&mut self, settled: &Settled) -> Option<Parked<T>> {
        let asker = settled.asker;
        let from = self.parked.partition_point(|parked| parked.batch < asker.batch);
        let of_batch = self.parked.range(from..).take_while(|p| p.batch == asker.batch);
        let (at, place) = (from..)
            .zip(of_batch)
            .find_map(|(at, parked)| parked.place(asker.slot).map(|place| (at, place)))?;
        let parked = self.parked.get_mut(at)?;
        parked.outcomes[place] = settled.outcome;
        parked.epoch = parked.epoch.max(settled.epoch);
        if parked.waits() {
            return None;
        }
        let whole = self.parked.remove(at)?;
        self.events -= u64::from(whole.events);
        Some(whole)
    }

    /// A datagram that has waited for too long.
    pub(super) fn late(&mut self, now_ns: u64) -> Option<Parked<T>> {
        let oldest = self.parked.front()?;
        let is_late = now_ns.saturating_sub(oldest.received_ns) > WAIT_NS_MAX;
        if !is_late {
            return None;
        }
        let late = self.parked.pop_front()?;
        self.events -= u64::from(late.events);
        Some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Asker;

    fn parked(batch: u64, first_slot: u32, outcomes: &[u8]) -> Parked<u8> {
        let mut all = [0; EVENTS_LIMIT];
        all[..outcomes.len()].copy_from_slice(outcomes);
        Parked {
            path: 0,
            hash: 0,
            session: 0,
            sequence: batch * 100 + u64::from(first_slot),
            domain: 0,
            received_ns: batch,
            batch,
            first_slot,
            events: outcomes.len() as u16,
            epoch: 1,
            outcomes: all,
            first_epochs: [0; EVENTS_LIMIT],
        }
    }

    fn settled(batch: u64, slot: u32, epoch: u64) -> Settled {
        Settled { asker: Asker { life: 1, batch, lane: 0, slot }, outcome: 2, epoch }
    }

    #[test]
    fn a_datagram_is_answered_when_the_last_of_its_events_is_settled() {
        let mut waiting = Waiting::new();
        for one in [
            parked(3, 0, &[2, RESERVED]),
            parked(3, 2, &[RESERVED, 2, RESERVED]),
            parked(4, 0, &[RESERVED]),
        ] {
            assert!(waiting.park(one).is_ok());
        }
        assert_eq!(waiting.owed(), (3, 6));
        for nothing in [settled(3, 0, 9), settled(3, 3, 9), settled(2, 1, 9), settled(5, 0, 9)] {
            assert!(waiting.settle(&nothing).is_none(), "{nothing:?}");
        }
        assert!(waiting.settle(&settled(3, 4, 9)).is_none(), "one is left");
        let whole = waiting.settle(&settled(3, 2, 8)).unwrap();
        assert_eq!((whole.sequence, whole.epoch, whole.outcomes()), (302, 9, &[2, 2, 2][..]));
        assert!(waiting.settle(&settled(3, 2, 8)).is_none(), "once");
        assert_eq!(waiting.settle(&settled(4, 0, 9)).unwrap().sequence, 400);
        assert_eq!(waiting.owed(), (1, 2));
        assert!(waiting.late(WAIT_NS_MAX + 3).is_none());
        assert_eq!(waiting.late(WAIT_NS_MAX + 4).unwrap().sequence, 300);
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_is_settled_early_waits_for_its_batch() {
        let mut waiting = Waiting::<u8>::new();
        waiting.keep(settled(7, 0, 1));
        waiting.keep(settled(6, 0, 1));
        assert!(!waiting.is_empty());
        assert_eq!(waiting.kept_len(), 2);
        assert_eq!(waiting.kept(), Some(settled(7, 0, 1)));
        assert_eq!(waiting.kept(), Some(settled(6, 0, 1)));
        assert!(waiting.is_empty());
    }
}
