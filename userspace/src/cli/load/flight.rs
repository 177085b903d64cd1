//! Datagrams sent and not yet answered, of one connection.
//!
//! ```text
//!  sender:   send ──> slot[sequence % capacity] = {sequence, intended, sent} ── expire after 1 s
//!  receiver: reply ──> claim(sequence) ── once ──> intended, sent
//! ```
//!
//! The sender writes a slot and the receiver claims it; a slot is free when its
//! sequence is 0. Whoever swaps the sequence for 0 has the datagram, so each is
//! counted once: answered or lost.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Flights {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: AtomicU64,
    intended_ns: AtomicU64,
    sent_ns: AtomicU64,
}

/// Times of a datagram, nanoseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the schedule wanted it sent.
    pub intended_ns: u64,
    /// When it was handed to the kernel.
    pub sent_ns: u64,
}

impl Flights {
    /// Room for `capacity` datagrams, rounded up to a power of two.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_power_of_two();
        Self { slots: (0..capacity).map(|_| Slot::default()).collect() }
    }

    /// Datagrams it holds at most.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, sequence: u64) -> &Slot {
        &self.slots[sequence as usize & (self.slots.len() - 1)]
    }

    /// Notes a datagram about to be sent. Its slot must be free: the caller
    /// sends no further than `capacity` past the oldest unanswered one.
    pub fn put(&self, sequence: u64, times: Times) {
        let slot = self.slot(sequence);
        slot.intended_ns.store(times.intended_ns, Ordering::Relaxed);
        slot.sent_ns.store(times.sent_ns, Ordering::Relaxed);
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// Takes a datagram out; `None` when it was answered, given up, or never
    /// sent.
    pub fn claim(&self, sequence: u64) -> Option<Times> {
        let slot = self.slot(sequence);
        if sequence == 0 || slot.sequence.load(Ordering::Acquire) != sequence {
            return None;
        }
        let times = Times {
            intended_ns: slot.intended_ns.load(Ordering::Relaxed),
            sent_ns: slot.sent_ns.load(Ordering::Relaxed),
        };
        // The times are this sequence's only if the slot still is when swapped.
        slot.sequence
            .compare_exchange(sequence, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(times)
    }

    /// Whether a datagram waits for its answer, and since when.
    #[must_use]
    pub fn sent_ns(&self, sequence: u64) -> Option<u64> {
        let slot = self.slot(sequence);
        (slot.sequence.load(Ordering::Acquire) == sequence)
            .then(|| slot.sent_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_claimed_once_and_only_by_its_sequence() {
        let flights = Flights::new(3);
        assert_eq!(flights.capacity(), 4);
        let times = Times { intended_ns: 5, sent_ns: 6 };
        flights.put(9, times);
        assert_eq!(flights.sent_ns(9), Some(6));
        assert_eq!(flights.claim(5), None, "same slot, other sequence");
        assert_eq!(flights.claim(0), None);
        assert_eq!(flights.claim(9), Some(times));
        assert_eq!(flights.claim(9), None);
        assert_eq!(flights.sent_ns(9), None);
    }

    #[test]
    fn two_claimants_never_both_win() {
        let flights = Flights::new(64);
        let wins = std::thread::scope(|scope| {
            for sequence in 1..=64 {
                flights.put(sequence, Times { intended_ns: 0, sent_ns: 0 });
            }
            let claim_all = || (1..=64).filter(|s| flights.claim(*s).is_some()).count();
            let one = scope.spawn(claim_all);
            claim_all() + one.join().expect("no panic")
        });
        assert_eq!(wins, 64);
    }
}
