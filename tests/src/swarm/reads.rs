//! Queries sent and not answered. One that is lost or turned away is not asked
//! again but counted: the next one asks something else.

use hdrhistogram::Histogram;
use veltrix_abi::query::{Entries, QueryStatus};

/// Sequences of queries have this bit, those of events do not.
const READ_BIT: u64 = 1 << 63;

/// Queries that can be told apart.
const FLIGHTS: usize = 1 << 15;

/// Longest latency the histogram tells apart, nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Whether a sequence is that of a query.
#[must_use]
pub const fn is_read(sequence: u64) -> bool {
    sequence & READ_BIT != 0
}

/// What became of queries.
#[derive(Clone, Debug)]
pub struct ReadTally {
    /// Sent.
    pub sent: u64,
    /// Answered with `found` or `more`, or that there is no such thing.
    pub answered: u64,
    /// Answered in any other way: `behind`, `moving`, `too-much`, `malformed`.
    pub other: u64,
    /// Turned away by `busy` or `refused`.
    pub turned_away: u64,
    /// Given up: the answer did not come before its place was wanted.
    pub lost: u64,
    /// Nanoseconds from the intended send time to the answer.
    pub read_ns: Histogram<u64>,
    /// Of it, until the swarm came to send it: its own share.
    pub late_ns: Histogram<u64>,
    /// Of it, from then on.
    pub served_ns: Histogram<u64>,
}

impl Default for ReadTally {
    fn default() -> Self {
        let read_ns = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("sound bounds");
        let (late_ns, served_ns) = (read_ns.clone(), read_ns.clone());
        let (sent, answered, other, turned_away, lost) = (0, 0, 0, 0, 0);
        Self { sent, answered, other, turned_away, lost, read_ns, late_ns, served_ns }
    }
}

impl ReadTally {
    /// Adds what was counted at another time.
    ///
    /// # Errors
    ///
    /// Never: all histograms are alike.
    pub fn add(&mut self, other: &Self) -> Result<(), hdrhistogram::AdditionError> {
        self.sent += other.sent;
        self.answered += other.answered;
        self.other += other.other;
        self.turned_away += other.turned_away;
        self.lost += other.lost;
        self.late_ns.add(&other.late_ns)?;
        self.served_ns.add(&other.served_ns)?;
        self.read_ns.add(&other.read_ns)
    }
}

/// A query without an answer.
#[derive(Clone, Copy, Default)]
struct Flight {
    /// 0: the place is free.
    sequence: u64,
    /// When it was meant to be sent, and when it was.
    intended_ns: u64,
    sent_ns: u64,
}

/// See the module.
pub struct Reads {
    places: Vec<Flight>,
    next: u64,
    waiting: usize,
    tally: ReadTally,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            places: vec![Flight::default(); FLIGHTS],
            next: READ_BIT,
            waiting: 0,
            tally: ReadTally::default(),
        }
    }
}

impl Reads {
    /// Takes the next sequence; it was meant to go at `intended_ns`, and goes now.
    pub fn sent(&mut self, intended_ns: u64, now_ns: u64) -> u64 {
        let sequence = self.next;
        self.next += 1;
        let place = &mut self.places[sequence as usize % FLIGHTS];
        if place.sequence == 0 {
            self.waiting += 1;
        } else {
            self.tally.lost += 1;
        }
        *place = Flight { sequence, intended_ns, sent_ns: now_ns };
        self.tally.sent += 1;
        self.tally.late_ns.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        sequence
    }

    /// Queries without an answer.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    fn take(&mut self, sequence: u64) -> Option<Flight> {
        let place = &mut self.places[sequence as usize % FLIGHTS];
        if sequence == 0 || place.sequence != sequence {
            return None;
        }
        self.waiting -= 1;
        Some(std::mem::take(place))
    }

    /// An answer came.
    pub fn answered(&mut self, sequence: u64, entries: Entries<'_>, now_ns: u64) {
        let Some(flight) = self.take(sequence) else { return };
        let (mut all, mut good) = (0, 0);
        for entry in entries {
            all += 1;
            good += u64::from(matches!(
                entry.head.status,
                QueryStatus::Found | QueryStatus::More | QueryStatus::NotFound
            ));
        }
        if all == good {
            self.tally.answered += 1;
        } else {
            self.tally.other += 1;
        }
        let since = |ns: u64| now_ns.saturating_sub(ns).max(1);
        self.tally.read_ns.saturating_record(since(flight.intended_ns));
        self.tally.served_ns.saturating_record(since(flight.sent_ns));
    }

    /// The server would not answer it.
    pub fn turned_away(&mut self, sequence: u64) {
        if self.take(sequence).is_some() {
            self.tally.turned_away += 1;
        }
    }

    /// What was counted since the last call; those that still wait are lost.
    pub fn take_tally(&mut self) -> ReadTally {
        for place in &mut self.places {
            if place.sequence != 0 {
                place.sequence = 0;
                self.tally.lost += 1;
            }
        }
        self.waiting = 0;
        std::mem::take(&mut self.tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_ends_once() {
        let mut reads = Reads::default();
        let all: Vec<u64> = (0..4).map(|n| reads.sent(n, n + 7)).collect();
        assert!(all.iter().all(|sequence| is_read(*sequence)) && !is_read(7));
        reads.turned_away(all[1]);
        reads.turned_away(all[1]);
        assert_eq!(reads.waiting(), 3);
        let mut body = [0; 32];
        veltrix_abi::query::write_answer_head(&mut body, 1, 2);
        veltrix_abi::query::EntryHead {
            kind: 7,
            status: QueryStatus::NotFound,
            rows: 0,
            tag: 0,
            next: 0,
        }
        .write(&mut body[16..]);
        let entries = Entries::check(&body, 1).unwrap();
        reads.answered(all[2], entries, 102);
        reads.answered(all[2], entries, 102);
        let tally = reads.take_tally();
        assert_eq!((tally.sent, tally.answered, tally.turned_away, tally.lost), (4, 1, 1, 2));
        assert_eq!((tally.read_ns.len(), tally.read_ns.max(), reads.waiting()), (1, 100, 0));
        assert_eq!((tally.late_ns.len(), tally.late_ns.max()), (4, 7));
    }
}
