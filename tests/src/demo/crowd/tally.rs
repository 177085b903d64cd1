//! What the crowd and whoever watches it share: orders one way, counts the
//! other.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

/// Longest latency told from another, nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What the crowd is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Send nothing; listen.
    Hold,
    /// Put the hotspots.
    Found,
    /// Play.
    Play,
    /// Send nothing new until everything is answered.
    Finish,
    /// End.
    End,
}

/// From first send to ack, nanoseconds.
pub(super) enum Latency {
    /// The node's, and the link's.
    Ordinary(u64),
    /// An outage fell into it.
    Outage(u64),
    /// An ack was let fall on purpose: the crowd's own.
    Ignored,
}

/// Counts since the start.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Events sent, each once.
    pub events: u64,
    /// Datagrams they were sent in, each once.
    pub datagrams: u64,
    /// Datagrams that left twice at once.
    pub twice: u64,
    /// Datagrams sent again.
    pub retries: u64,
    /// Answers that did not reach their player.
    pub ignored: u64,
    /// `busy` answers.
    pub busy: u64,
    /// Events with an answer.
    pub acked: u64,
    /// Those of them that were applied.
    pub applied: u64,
    /// Those of them whose first answer was that of a duplicate.
    pub duplicates: u64,
    /// Acks of what was answered before.
    pub acked_again: u64,
    /// Events in them whose outcome or epoch had changed.
    pub doubled: u64,
    /// First send to ack, an event each; without those that an outage fell into,
    /// and those whose ack was let fall on purpose: it measures the node.
    pub ack_ns: Histogram<u64>,
    /// Of those an outage fell into.
    pub ack_ns_outage: Histogram<u64>,
}

struct Inner {
    totals: Totals,
    /// Latencies since they were last asked for.
    recent_ns: Histogram<u64>,
    /// First ack since it was last asked for.
    first_ack: Option<Instant>,
}

/// See the module.
pub struct Shared {
    order: AtomicU8,
    unanswered: AtomicUsize,
    inner: Mutex<Inner>,
}

fn histogram() -> Histogram<u64> {
    // Constant bounds that are sound.
    Histogram::new_with_max(LATENCY_NS_MAX, 3).unwrap_or_else(|e| panic!("{e}"))
}

impl Default for Shared {
    fn default() -> Self {
        let totals = Totals {
            events: 0,
            datagrams: 0,
            twice: 0,
            retries: 0,
            ignored: 0,
            busy: 0,
            acked: 0,
            applied: 0,
            duplicates: 0,
            acked_again: 0,
            doubled: 0,
            ack_ns: histogram(),
            ack_ns_outage: histogram(),
        };
        let inner = Inner { totals, recent_ns: histogram(), first_ack: None };
        Self {
            order: AtomicU8::new(Order::Hold as u8),
            unanswered: AtomicUsize::new(0),
            inner: Mutex::new(inner),
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Counts are sound whoever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order.
    pub fn tell(&self, order: Order) {
        self.order.store(order as u8, Ordering::Release);
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Hold,
            1 => Order::Found,
            2 => Order::Play,
            3 => Order::Finish,
            _ => Order::End,
        }
    }

    pub(super) fn add(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.inner().totals);
    }

    pub(super) fn set_unanswered(&self, datagrams: usize) {
        self.unanswered.store(datagrams, Ordering::Release);
    }

    pub(super) fn sent(&self, events: u64, copies: u64) {
        self.add(|t| {
            t.events += events;
            t.datagrams += 1;
            t.twice += copies - 1;
        });
    }

    pub(super) fn acked(&self, events: u64, applied: u64, duplicates: u64, latency: Latency) {
        let mut inner = self.inner();
        inner.totals.acked += events;
        inner.totals.applied += applied;
        inner.totals.duplicates += duplicates;
        inner.first_ack.get_or_insert_with(Instant::now);
        match latency {
            Latency::Ordinary(ns) => {
                inner.totals.ack_ns.saturating_record_n(ns, events);
                inner.recent_ns.saturating_record_n(ns, events);
            }
            Latency::Outage(ns) => inner.totals.ack_ns_outage.saturating_record_n(ns, events),
            Latency::Ignored => {}
        }
    }

    /// Datagrams without an answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Acquire)
    }

    /// All counts.
    pub fn totals(&self) -> Totals {
        self.inner().totals.clone()
    }

    /// Events acknowledged so far.
    pub fn acked_events(&self) -> u64 {
        self.inner().totals.acked
    }

    /// Latency that 99 % of the events since the last call did not exceed,
    /// nanoseconds.
    pub fn take_p99_ns(&self) -> u64 {
        let mut inner = self.inner();
        let p99 = inner.recent_ns.value_at_quantile(0.99);
        inner.recent_ns.reset();
        p99
    }

    /// Forgets the first ack.
    pub fn forget_first_ack(&self) {
        self.inner().first_ack = None;
    }

    /// When the first ack came since it was forgotten.
    pub fn first_ack(&self) -> Option<Instant> {
        self.inner().first_ack
    }
}
