//! Datagrams that wait for their answers: sealed batches of events, and queries.
//!
//! ```text
//!  sequence of any try ──> flight id ──> Flight { datagram, who waits, deadline, next wake }
//! ```
//!
//! Every try of a datagram has a sequence of its own, and each of them finds the
//! flight until it is settled; then all are forgotten, and what still arrives
//! is late. Wakes are a heap whose stale entries are skipped when they surface.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use veltrix_abi::query::Wanted;

use crate::error::{QueryError, SendError};
use crate::event::Receipt;
use crate::query::{PutOff, Read, Rows};

/// Who waits for an event's outcome. It is owed one answer; with it goes the
/// permit, which frees the event's place in flight.
#[derive(Debug)]
pub(crate) struct Waiter(
    Option<(oneshot::Sender<Result<Receipt, SendError>>, OwnedSemaphorePermit)>,
);

impl Waiter {
    pub(crate) const fn new(
        reply: oneshot::Sender<Result<Receipt, SendError>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self(Some((reply, permit)))
    }

    /// Gives the answer, once; whether it was still owed.
    pub(crate) fn answer(&mut self, result: Result<Receipt, SendError>) -> bool {
        let Some((reply, _permit)) = self.0.take() else {
            return false;
        };
        // A caller that gave up waiting does not get the receipt.
        let _ = reply.send(result);
        true
    }
}

/// Gives all of them the same bad news; to how many it was still owed.
pub(crate) fn fail<'a>(
    waiters: impl IntoIterator<Item = &'a mut Waiter>,
    error: &SendError,
) -> usize {
    waiters.into_iter().map(|waiter| usize::from(waiter.answer(Err(error.clone())))).sum()
}

/// Who waits for the answer to queries that share a datagram. The permit frees
/// its place in flight.
#[derive(Debug)]
pub(crate) struct Asker {
    /// In the order of the queries in the datagram.
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) min_epoch: u64,
    /// What the last answer said that was none yet.
    pub(crate) put_off: Option<PutOff>,
    pub(crate) reply: oneshot::Sender<Result<Read<Vec<Rows>>, QueryError>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What a datagram carries, by who waits for it.
#[derive(Debug)]
pub(crate) enum Cargo {
    /// In the order of the events in the datagram.
    Events(Vec<Waiter>),
    Queries(Asker),
}

/// One datagram on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) datagram: Vec<u8>,
    pub(crate) cargo: Cargo,
    /// Whose next datagram waits for the end of this one.
    pub(crate) session: Option<u64>,
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

impl Flight {
    /// One that was not tried yet.
    pub(crate) fn new(datagram: Vec<u8>, cargo: Cargo, deadline: Instant, delay: Duration) -> Self {
        let (sequences, wake) = (Vec::new(), deadline);
        let session = None;
        Self { datagram, cargo, session, sequences, deadline, wake, delay, tries: 0, busy: 0 }
    }
}

/// All datagrams in flight of one client.
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

    /// Finds a flight and its id, by the sequence of any of its tries. Its wake
    /// is to be changed by taking it out and putting it back only.
    pub(crate) fn find(&mut self, sequence: u64) -> Option<(u64, &mut Flight)> {
        let id = *self.by_sequence.get(&sequence)?;
        Some((id, self.by_id.get_mut(&id)?))
    }

    /// Puts a flight back under its id, with the wake it names now.
    pub(crate) fn put_back(&mut self, id: u64, flight: Flight) {
        for sequence in &flight.sequences {
            self.by_sequence.insert(*sequence, id);
        }
        self.wakes.push(Reverse((flight.wake, id)));
        self.by_id.insert(id, flight);
    }

    /// Forgets a flight and all its sequences.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Flight> {
        let flight = self.by_id.remove(&id)?;
        for sequence in &flight.sequences {
            self.by_sequence.remove(sequence);
        }
        Some(flight)
    }

    /// When the next flight wants attention.
    pub(crate) fn next_wake(&mut self) -> Option<Instant> {
        while let Some(Reverse((wake, id))) = self.wakes.peek() {
            if self.by_id.get(id).is_some_and(|flight| flight.wake == *wake) {
                return Some(*wake);
            }
            self.wakes.pop();
        }
        None
    }

    /// Takes out the id of a flight whose wake has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.next_wake()? > now {
            return None;
        }
        self.wakes.pop().map(|Reverse((_, id))| id)
    }
}
