//! Batches that were sealed and wait for their outcomes.
//!
//! ```text
//!  sequence of any try ──> batch id ──> Flight { datagram, waiters, deadline, next wake }
//! ```
//!
//! Every try of a batch has a sequence of its own, and each of them finds the
//! batch until it is settled; then all are forgotten, and what still arrives
//! is late. Wakes are a heap whose stale entries are skipped when they surface.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::SendError;
use crate::event::Receipt;

/// Who waits for an event's outcome; the permit frees its place in flight.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<Result<Receipt, SendError>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// One sealed batch.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) datagram: Vec<u8>,
    /// In the order of the events in the datagram.
    pub(crate) waiters: Vec<Waiter>,
    /// Sequences of its tries so far.
    pub(crate) sequences: Vec<u64>,
    pub(crate) deadline: Instant,
    /// When to look at it next: a retry, or the deadline.
    pub(crate) wake: Instant,
    /// The wait chosen last; the next one grows from it.
    pub(crate) delay: Duration,
    pub(crate) tries: u32,
    pub(crate) busy: u32,
}

/// All batches in flight of one client.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_id: HashMap<u64, Flight>,
    by_sequence: HashMap<u64, u64>,
    wakes: BinaryHeap<Reverse<(Instant, u64)>>,
    next_id: u64,
}

impl Flights {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn insert(&mut self, flight: Flight) {
        let id = self.next_id;
        self.next_id += 1;
        self.put_back(id, flight);
    }

    /// Takes a batch out for a change, by the sequence of any of its tries.
    pub(crate) fn find(&self, sequence: u64) -> Option<(u64, &Flight)> {
        let id = *self.by_sequence.get(&sequence)?;
        Some((id, self.by_id.get(&id)?))
    }

    /// Puts a batch back under its id, with the wake it names now.
    pub(crate) fn put_back(&mut self, id: u64, flight: Flight) {
        for sequence in &flight.sequences {
            self.by_sequence.insert(*sequence, id);
        }
        self.wakes.push(Reverse((flight.wake, id)));
        self.by_id.insert(id, flight);
    }

    /// Forgets a batch and all its sequences.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Flight> {
        let flight = self.by_id.remove(&id)?;
        for sequence in &flight.sequences {
            self.by_sequence.remove(sequence);
        }
        Some(flight)
    }

    /// When the next batch wants attention.
    pub(crate) fn next_wake(&mut self) -> Option<Instant> {
        while let Some(Reverse((wake, id))) = self.wakes.peek() {
            if self.by_id.get(id).is_some_and(|flight| flight.wake == *wake) {
                return Some(*wake);
            }
            self.wakes.pop();
        }
        None
    }

    /// Takes out the id of a batch whose wake has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.next_wake()? > now {
            return None;
        }
        self.wakes.pop().map(|Reverse((_, id))| id)
    }
}
