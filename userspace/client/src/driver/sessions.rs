//! Sessions in the driver: events that keep their order.
//!
//! ```text
//!  play ──> queue ── one datagram ──> Flight ── settled ──> the next datagram
//!                        ^               │ no outcome by the deadline
//!                        └── first ── unresolved, with its keys; the queue is told `NotSent`
//! ```
//!
//! A session has one datagram on its way at a time, and a datagram joins a batch of
//! the server whole: so what is applied first was played first. A datagram whose
//! fate is not known may still be applied; nothing of the session is sent until it
//! was tried again and has its outcomes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Driver, key_of, on_wire, spare_or_new};
use crate::error::SendError;
use crate::event::Event;
use crate::flight::{Cargo, Flight, Waiter, fail};
use crate::session::Facts;
use crate::stats::add;

#[derive(Debug)]
struct Session {
    facts: Arc<Facts>,
    /// Not sent yet, in their order.
    queue: VecDeque<(Event, Waiter)>,
    ahead: Ahead,
    /// Nobody holds a handle any more.
    left: bool,
}

/// What stands before the queue.
#[derive(Debug)]
enum Ahead {
    Free,
    UnderWay,
    /// A datagram without outcomes. Its waiters have been told.
    Unresolved(Box<Flight>),
}

/// The sessions that have played. Where the queue of one is not empty, a flight
/// of it is under way whenever the driver waits.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_number: HashMap<u64, Session>,
    /// Those to look at before the driver waits; some more than once.
    ready: Vec<u64>,
}

impl Sessions {
    pub(super) fn leave(&mut self, number: u64) {
        if let Some(session) = self.by_number.get_mut(&number) {
            session.left = true;
            self.ready.push(number);
        }
    }

    /// Notes an epoch that an answer to the session named.
    pub(super) fn reached(&self, number: u64, epoch: u64) {
        if let Some(session) = self.by_number.get(&number) {
            session.facts.epoch.fetch_max(epoch, Relaxed);
        }
    }

    /// The flight of a session has ended with all its outcomes, or a refusal.
    pub(super) fn settled(&mut self, number: u64) {
        if let Some(session) = self.by_number.get_mut(&number) {
            session.ahead = Ahead::Free;
            self.ready.push(number);
        }
    }

    /// The flight of a session has ended without outcomes: what waited behind it
    /// gets this error. How many that were.
    pub(super) fn unresolved(&mut self, number: u64, flight: Flight, error: &SendError) -> usize {
        let Some(session) = self.by_number.get_mut(&number) else {
            return 0;
        };
        session.ahead = Ahead::Unresolved(Box::new(flight));
        self.ready.push(number);
        let mut queue = std::mem::take(&mut session.queue);
        fail(queue.iter_mut().map(|(_, waiter)| waiter), error)
    }
}

impl Driver {
    /// Takes an event over; [`crate::GameSession`] has checked that it fits a datagram.
    pub(super) fn play(&mut self, facts: &Arc<Facts>, event: Event, waiter: Waiter) {
        add(&self.counters.events_submitted, 1);
        let new = || Session {
            facts: facts.clone(),
            queue: VecDeque::new(),
            ahead: Ahead::Free,
            left: false,
        };
        let session = self.sessions.by_number.entry(facts.number).or_insert_with(new);
        session.queue.push_back((event, waiter));
        self.sessions.ready.push(facts.number);
    }

    /// Sends the next datagram of every session that waits for none.
    pub(super) async fn advance_sessions(&mut self) {
        while let Some(number) = self.sessions.ready.pop() {
            if let Some(mut flight) = self.next_flight(number) {
                self.try_once(&mut flight).await;
                self.flights.insert(flight);
            }
        }
    }

    fn next_flight(&mut self, number: u64) -> Option<Flight> {
        let session = self.sessions.by_number.get_mut(&number)?;
        if matches!(session.ahead, Ahead::UnderWay) {
            return None;
        }
        if session.queue.is_empty() {
            if session.left {
                self.sessions.by_number.remove(&number);
            }
            return None;
        }
        let loaded = match std::mem::replace(&mut session.ahead, Ahead::Free) {
            Ahead::Unresolved(flight) => match *flight {
                Flight { datagram, cargo: Cargo::Events(waiters), .. } => Some((datagram, waiters)),
                _ => None,
            },
            Ahead::Free | Ahead::UnderWay => self.load(number),
        };
        let (datagram, waiters) = loaded?;
        self.sessions.by_number.get_mut(&number)?.ahead = Ahead::UnderWay;
        let deadline = Instant::now() + self.settings.deadline;
        let flight =
            Flight::new(datagram, Cargo::Events(waiters), deadline, self.settings.retry_base);
        Some(Flight { session: Some(number), ..flight })
    }

    /// A datagram of as many events as fit, from the front of the queue.
    fn load(&mut self, number: u64) -> Option<(Vec<u8>, Vec<Waiter>)> {
        let session = self.sessions.by_number.get_mut(&number)?;
        let mut builder = spare_or_new(&mut self.spare, &self.settings);
        let mut waiters = Vec::new();
        while let Some((event, mut waiter)) = session.queue.pop_front() {
            let key = key_of(&event, &mut self.keys, &self.clock);
            if builder.push(&on_wire(&event, key)) {
                waiters.push(waiter);
                continue;
            }
            if !waiters.is_empty() {
                session.queue.push_front((event, waiter));
                break;
            }
            // Alone in an empty datagram: it never fits.
            add(&self.counters.events_invalid, 1);
            let datagram_bytes_max = self.settings.datagram_bytes_max;
            let payload_bytes = event.payload.len();
            waiter.answer(Err(SendError::DatagramTooSmall { payload_bytes, datagram_bytes_max }));
        }
        if waiters.is_empty() {
            self.keep(builder);
            return None;
        }
        let domain = session.facts.domain;
        Some((self.finish(builder, domain), waiters))
    }
}
