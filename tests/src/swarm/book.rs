//! What was sent and what became of it: one slot a datagram, found by its
//! sequence; counts come from acks alone.
//!
//! ```text
//!   sequence:  ... answered | waiting | answered | waiting |  next ...
//!                             ^ oldest                        ^ next
//!   slot of a sequence = sequence & (slots - 1); answered slots stay until they are wanted again
//! ```

use hdrhistogram::Histogram;
use veltrix_abi::Outcome;
use veltrix_abi::outcomes::DUPLICATE_BIT;
use veltrix_abi::wire::AckEntry;

use super::traffic::EVENTS_MAX;

/// Longest ack latency the histogram tells apart, nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What has been counted since it was last taken.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Datagrams sent for the first time.
    pub datagrams: u64,
    /// Events in them.
    pub events: u64,
    /// Datagrams sent again.
    pub retries: u64,
    /// Datagrams acknowledged, each counted once.
    pub acked_datagrams: u64,
    /// Events acknowledged, by outcome code; a duplicate counts under its first
    /// outcome.
    pub outcomes: [u64; 128],
    /// Of those, the ones that were duplicates: a retry met what its first try did.
    pub duplicates: u64,
    /// Events that were applied, or decided, a second time: an ack of a datagram
    /// answered before that names another epoch and no duplicate.
    pub doubled: u64,
    /// Acks of datagrams answered before, nothing wrong with them.
    pub acked_again: u64,
    /// Acks that fit nothing sent: unknown sequence, another number of events.
    pub alien: u64,
    /// Datagrams answered `busy`.
    pub busy: u64,
    /// Datagrams answered `refused`, by reason code; not tried again.
    pub refused: u64,
    /// Nanoseconds from the intended send time to the ack, one value an event.
    pub ack_ns: Histogram<u64>,
}

impl Tally {
    /// Nothing counted.
    ///
    /// # Panics
    ///
    /// Never: the histogram's bounds are constants.
    #[must_use]
    pub fn new() -> Self {
        Self {
            datagrams: 0,
            events: 0,
            retries: 0,
            acked_datagrams: 0,
            outcomes: [0; 128],
            duplicates: 0,
            doubled: 0,
            acked_again: 0,
            alien: 0,
            busy: 0,
            refused: 0,
            ack_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("sound bounds"),
        }
    }

    /// Events acknowledged with `outcome`.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[usize::from(outcome.code())]
    }

    /// Events acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Adds what was counted at another time.
    ///
    /// # Errors
    ///
    /// Never: all histograms are alike.
    pub fn add(&mut self, other: &Self) -> Result<(), hdrhistogram::AdditionError> {
        self.datagrams += other.datagrams;
        self.events += other.events;
        self.retries += other.retries;
        self.acked_datagrams += other.acked_datagrams;
        for (sum, n) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *sum += n;
        }
        self.duplicates += other.duplicates;
        self.doubled += other.doubled;
        self.acked_again += other.acked_again;
        self.alien += other.alien;
        self.busy += other.busy;
        self.refused += other.refused;
        self.ack_ns.add(&other.ack_ns)
    }

    /// Outcomes met, with their counts, most frequent first.
    #[must_use]
    pub fn mix(&self) -> Vec<(&'static str, u64)> {
        let mut mix: Vec<_> =
            Outcome::ALL.iter().map(|o| (o.label(), self.of(*o))).filter(|(_, n)| *n > 0).collect();
        mix.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        mix
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// An acknowledged datagram, for judging it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Its sequence, and so its number in the traffic.
    pub sequence: u64,
    /// Stamp of its keys, milliseconds.
    pub key_ms: u64,
    /// Log index it was decided at.
    pub epoch: u64,
    /// Outcome bytes, in the order of its events.
    pub outcomes: Vec<u8>,
    /// First epochs of those that are duplicates, in their order.
    pub first_epochs: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Answered,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: u64,
    /// When it was meant to be sent, or was, nanoseconds.
    intended_ns: u64,
    /// When it is sent again.
    retry_ns: u64,
    key_ms: u64,
    epoch: u64,
    state: State,
    events: u8,
}

/// See the module.
pub struct Book {
    slots: Vec<Slot>,
    oldest: u64,
    next: u64,
    waiting: usize,
    retry_after_ns: u64,
    tally: Tally,
    record: Option<Vec<Acked>>,
}

impl Book {
    /// Room for `slots` datagrams between the oldest unanswered one and the
    /// newest; rounded up to a power of two. One unanswered is due again after
    /// `retry_after_ns`.
    #[must_use]
    pub fn new(slots: usize, retry_after_ns: u64) -> Self {
        let free = Slot {
            sequence: u64::MAX,
            intended_ns: 0,
            retry_ns: 0,
            key_ms: 0,
            epoch: 0,
            state: State::Free,
            events: 0,
        };
        Self {
            slots: vec![free; slots.next_power_of_two()],
            oldest: 0,
            next: 0,
            waiting: 0,
            retry_after_ns,
            tally: Tally::new(),
            record: None,
        }
    }

    /// Keeps every ack from now on.
    pub fn record(&mut self) {
        self.record.get_or_insert_default();
    }

    /// Acks kept since the last call.
    pub fn recorded(&mut self) -> Vec<Acked> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Datagrams sent and not answered.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sequences and key stamps of the datagrams sent and not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.oldest..self.next).filter_map(|sequence| {
            let slot = &self.slots[self.index(sequence)];
            (slot.state == State::Waiting && slot.sequence == sequence)
                .then_some((sequence, slot.key_ms))
        })
    }

    /// Datagrams that may be sent before the oldest is answered.
    #[must_use]
    pub fn room(&self) -> usize {
        self.slots.len() - (self.next - self.oldest) as usize
    }

    /// Key stamp of a datagram that was answered, as long as it is remembered.
    #[must_use]
    pub fn answered_key(&self, sequence: u64) -> Option<u64> {
        let slot = &self.slots[self.index(sequence)];
        (slot.state == State::Answered && slot.sequence == sequence).then_some(slot.key_ms)
    }

    /// Sequence of the next new datagram.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Goes on after another swarm: sequences name keys, and keys must differ.
    ///
    /// # Panics
    ///
    /// When something was sent, or the sequence is taken already.
    pub fn start_at(&mut self, sequence: u64) {
        assert!(self.waiting == 0 && self.next <= sequence, "only forwards, and with nothing sent");
        self.oldest = sequence;
        self.next = sequence;
    }

    /// What was counted since the last call; the counts begin anew.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    #[inline(always)]
    fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.slots.len() - 1)
    }

    /// Takes the next sequence for a datagram of `events` events.
    ///
    /// # Panics
    ///
    /// Without [`Self::room`].
    #[inline]
    pub fn sent(&mut self, events: usize, key_ms: u64, intended_ns: u64, now_ns: u64) -> u64 {
        assert!(self.room() > 0, "the oldest datagram is not answered");
        let sequence = self.next;
        self.next += 1;
        let index = self.index(sequence);
        self.slots[index] = Slot {
            sequence,
            intended_ns,
            retry_ns: now_ns + self.retry_after_ns,
            key_ms,
            epoch: 0,
            state: State::Waiting,
            events: events as u8,
        };
        self.waiting += 1;
        self.tally.datagrams += 1;
        self.tally.events += events as u64;
        sequence
    }

    /// Datagrams due to be sent again at `now_ns`, at most `most`, into `due` as
    /// sequence and key stamp.
    pub fn take_due(&mut self, now_ns: u64, most: usize, due: &mut Vec<(u64, u64)>) {
        due.clear();
        for sequence in self.oldest..self.next {
            let index = self.index(sequence);
            let slot = &mut self.slots[index];
            if slot.state == State::Waiting && slot.retry_ns <= now_ns {
                slot.retry_ns = now_ns + self.retry_after_ns;
                self.tally.retries += 1;
                due.push((sequence, slot.key_ms));
                if due.len() == most {
                    return;
                }
            }
        }
    }

    /// The slot of a sequence sent and not overwritten since.
    #[inline(always)]
    fn find(&mut self, sequence: u64) -> Option<&mut Slot> {
        let index = self.index(sequence);
        let slot = &mut self.slots[index];
        (slot.sequence == sequence && slot.state != State::Free).then_some(slot)
    }

    /// A datagram was answered for the first time.
    #[inline]
    fn answered(&mut self) {
        self.waiting -= 1;
        while self.oldest < self.next && self.slots[self.index(self.oldest)].state != State::Waiting
        {
            self.oldest += 1;
        }
    }

    /// An ack entry arrived.
    #[inline]
    pub fn ack(&mut self, entry: &AckEntry<'_>, now_ns: u64) {
        let Some(slot) = self.find(entry.sequence) else {
            self.tally.alien += 1;
            return;
        };
        if usize::from(slot.events) != entry.outcomes.len() {
            self.tally.alien += 1;
            return;
        }
        if slot.state == State::Answered {
            let first_epoch = slot.epoch;
            self.again(entry, first_epoch);
            return;
        }
        slot.state = State::Answered;
        slot.epoch = entry.epoch;
        let (intended_ns, key_ms) = (slot.intended_ns, slot.key_ms);
        self.answered();
        let tally = &mut self.tally;
        tally.acked_datagrams += 1;
        let latency_ns = now_ns.saturating_sub(intended_ns).min(LATENCY_NS_MAX);
        tally.ack_ns.saturating_record_n(latency_ns, entry.outcomes.len() as u64);
        // Nearly always all of them are alike.
        let first = entry.outcomes.first().copied().unwrap_or(0);
        const ALIKE: [[u8; EVENTS_MAX]; 3] = [
            [0; EVENTS_MAX],
            [Outcome::Accepted.code(); EVENTS_MAX],
            [Outcome::Applied.code(); EVENTS_MAX],
        ];
        let alike = ALIKE
            .get(usize::from(first))
            .and_then(|alike| alike.get(..entry.outcomes.len()))
            .is_some_and(|alike| alike == entry.outcomes);
        if alike {
            tally.outcomes[usize::from(first)] += entry.outcomes.len() as u64;
        } else {
            for outcome in entry.outcomes {
                tally.outcomes[usize::from(outcome & !DUPLICATE_BIT)] += 1;
                tally.duplicates += u64::from(outcome & DUPLICATE_BIT != 0);
            }
        }
        if let Some(record) = &mut self.record {
            record.push(Acked {
                sequence: entry.sequence,
                key_ms,
                epoch: entry.epoch,
                outcomes: entry.outcomes.to_vec(),
                first_epochs: entry.duplicate_epochs().collect(),
            });
        }
    }

    /// An ack of a datagram that was answered before: every outcome of it must
    /// be a duplicate, or the same ack once more.
    #[cold]
    fn again(&mut self, entry: &AckEntry<'_>, first_epoch: u64) {
        // Refusals that leave no trace may be said as often as is asked.
        let decided = |o: &&u8| {
            let refusals = [
                Outcome::Accepted,
                Outcome::TooOld,
                Outcome::TooNew,
                Outcome::Malformed,
                Outcome::OverQuota,
                Outcome::WrongRegion,
                Outcome::Overloaded,
                Outcome::NotLeader,
            ];
            **o & DUPLICATE_BIT == 0 && refusals.iter().all(|refusal| refusal.code() != **o)
        };
        let fresh = entry.outcomes.iter().filter(decided).count() as u64;
        if entry.epoch != first_epoch && fresh > 0 {
            self.tally.doubled += fresh;
        } else {
            self.tally.acked_again += 1;
        }
    }

    /// A datagram was answered `busy`: it is sent again after the wait asked for.
    pub fn busy(&mut self, sequence: u64, now_ns: u64, retry_after_us: u32) {
        self.tally.busy += 1;
        if let Some(slot) = self.find(sequence) {
            slot.retry_ns = now_ns + u64::from(retry_after_us) * 1_000;
        }
    }

    /// A datagram was answered `refused`: it is over.
    pub fn refused(&mut self, sequence: u64) {
        self.tally.refused += 1;
        if let Some(slot) = self.find(sequence)
            && slot.state == State::Waiting
        {
            slot.state = State::Answered;
            self.answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veltrix_abi::wire::{Acks, Header, Kind, Mode, Reply, decode_reply, finish};

    /// Gives `book` an ack as it comes off the wire.
    fn ack(book: &mut Book, sequence: u64, epoch: u64, outcomes: &[u8], first: &[u64], now: u64) {
        let fixed = AckEntry::wire_bytes(outcomes.len(), 0);
        let bytes = 48 + AckEntry::wire_bytes(outcomes.len(), first.len());
        let mut out = vec![0; bytes];
        Header { count: 1, ..Header::new(Kind::Ack) }.write(&mut out);
        AckEntry::write(
            &mut out[48..],
            sequence,
            epoch,
            Mode::Durable,
            outcomes,
            first.len() as u16,
        );
        for (i, epoch) in first.iter().enumerate() {
            out[48 + fixed + 8 * i..][..8].copy_from_slice(&epoch.to_le_bytes());
        }
        finish(&mut out, crc_fast::crc32_iscsi);
        let (_, Reply::Ack(acks)) = decode_reply(&out, crc_fast::crc32_iscsi).unwrap() else {
            panic!("not an ack")
        };
        let acks: Acks<'_> = acks;
        acks.for_each(|entry| book.ack(&entry, now));
    }

    #[test]
    fn counts_only_what_is_acked_and_once() {
        let mut book = Book::new(8, 100);
        for at in 0..3 {
            book.sent(2, 7, at * 10, at * 10);
        }
        ack(&mut book, 1, 5, &[2, 2], &[], 60);
        assert_eq!((book.waiting(), book.room()), (2, 5), "0 is the oldest still");
        ack(&mut book, 0, 6, &[2, 3], &[], 60);
        assert_eq!((book.waiting(), book.room()), (1, 7));
        ack(&mut book, 0, 6, &[2, 3], &[], 70);
        ack(&mut book, 9, 6, &[2, 2], &[], 70);
        ack(&mut book, 2, 6, &[2], &[], 70);
        let tally = book.take_tally();
        assert_eq!(tally.of(Outcome::Applied), 3);
        assert_eq!(tally.of(Outcome::AlreadyClaimed), 1);
        assert_eq!((tally.acked_again, tally.alien, tally.doubled), (1, 2, 0));
        assert_eq!(tally.ack_ns.len(), 4);
        assert_eq!((tally.ack_ns.min(), tally.ack_ns.max()), (50, 60));
    }

    #[test]
    fn a_second_application_is_found() {
        let mut book = Book::new(8, 100);
        book.sent(3, 7, 0, 0);
        ack(&mut book, 0, 5, &[2, 2, 10], &[], 1);
        ack(&mut book, 0, 9, &[0x82, 0x82, 10], &[5, 5], 2);
        assert_eq!(book.take_tally().doubled, 0);
        ack(&mut book, 0, 9, &[0x82, 2, 10], &[5], 2);
        assert_eq!(book.take_tally().doubled, 1);
    }

    #[test]
    fn unanswered_datagrams_come_due_again_and_again() {
        let mut book = Book::new(8, 100);
        let mut due = Vec::new();
        book.sent(1, 7, 0, 0);
        book.sent(1, 8, 0, 50);
        book.take_due(99, 10, &mut due);
        assert!(due.is_empty());
        book.take_due(100, 10, &mut due);
        assert_eq!(due, [(0, 7)]);
        book.busy(1, 100, 1);
        ack(&mut book, 0, 1, &[0x82], &[1], 110);
        book.take_due(1_099, 10, &mut due);
        assert!(due.is_empty());
        book.take_due(1_100, 10, &mut due);
        assert_eq!(due, [(1, 8)]);
        assert_eq!(book.unanswered().collect::<Vec<_>>(), [(1, 8)]);
        let tally = book.take_tally();
        assert_eq!((tally.retries, tally.duplicates, tally.busy), (2, 1, 1));
        book.refused(1);
        assert_eq!((book.waiting(), book.room()), (0, 8));
    }

    #[test]
    fn acks_are_kept_when_asked_for() {
        let mut book = Book::new(4, 100);
        book.record();
        book.sent(2, 7, 0, 0);
        ack(&mut book, 0, 5, &[2, 0x83], &[4], 1);
        let kept = Acked {
            sequence: 0,
            key_ms: 7,
            epoch: 5,
            outcomes: vec![2, 0x83],
            first_epochs: vec![4],
        };
        assert_eq!(book.recorded(), [kept]);
        assert!(book.recorded().is_empty());
    }
}
