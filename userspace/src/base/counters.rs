//! Counters of one lane: written by the lane alone, read by anybody.
//!
//! A single writer needs no atomic read-modify-write: each bump is a relaxed
//! load, an addition and a relaxed store, which cost what plain memory costs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use veltrix_abi::exits::LANE_SLOTS;
use veltrix_abi::{Exit, Outcome};

/// One counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning lane may call it.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value; only the owning lane may call it.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What became of the replies a lane owed: their sum is the sum of the exits
/// whose action is `reply`.
#[derive(Debug, Default)]
pub struct ReplyCounters {
    /// Datagrams handed to the kernel for sending.
    pub sent: Counter,
    /// Answers that rode in another datagram of the same sender.
    pub coalesced: Counter,
    /// Lost: the transmit ring or socket buffer was full, or the kernel refused
    /// the send.
    pub dropped_tx_full: Counter,
    /// Not sent, since they would have been larger than the request.
    pub withheld: Counter,
}

/// Answers that wait for the log, and those that never come.
#[derive(Debug, Default)]
pub struct AckCounters {
    /// Datagrams whose events are in a batch and not answered yet: a level.
    pub pending: Counter,
    /// Events in them: a level.
    pub events_pending: Counter,
    /// Datagrams without an answer: their batch will not commit. The sender
    /// tries again with the same keys.
    pub lost: Counter,
    /// Events in them.
    pub events_lost: Counter,
}

/// All counters of one lane. Aligned to two cache lines, so that no two lanes
/// share one (adjacent-line prefetch pairs them).
#[derive(Debug)]
#[repr(align(128))]
pub struct LaneCounters {
    /// Frames or datagrams taken from the ring or socket.
    pub frames: Counter,
    /// Bytes of UDP payload in them.
    pub payload_bytes: Counter,
    /// Frames by exit.
    exits: [Counter; LANE_SLOTS],
    /// Events by outcome code.
    outcomes: [Counter; OUTCOME_SLOTS],
    /// Events in datagrams that were served.
    pub events: Counter,
    /// Events that had been applied before; they are in no outcome's count.
    pub duplicates: Counter,
    /// Fates of replies.
    pub replies: ReplyCounters,
    /// Answers that are still owed, and those that are lost.
    pub acks: AckCounters,
    /// System calls made by the lane's thread for packets.
    pub syscalls: Counter,
    /// Passes of the lane's loop that took frames or answered a batch: counted
    /// before anything else of the turn.
    pub turns: Counter,
    /// Such passes that came to their end: equal to `turns`, no other counter
    /// is about to change.
    pub turns_ended: Counter,
    /// Times the lane slept in the kernel until a packet came.
    pub sleeps: Counter,
    /// Descriptors from the kernel that named no frame of ours: a kernel bug.
    pub alien_frames: Counter,
}

/// Slots of the outcome counters: code, the duplicate bit taken off.
const OUTCOME_SLOTS: usize = 32;

impl Default for LaneCounters {
    fn default() -> Self {
        Self {
            frames: Counter::default(),
            payload_bytes: Counter::default(),
            exits: std::array::from_fn(|_| Counter::default()),
            outcomes: std::array::from_fn(|_| Counter::default()),
            events: Counter::default(),
            duplicates: Counter::default(),
            replies: ReplyCounters::default(),
            acks: AckCounters::default(),
            syscalls: Counter::default(),
            turns: Counter::default(),
            turns_ended: Counter::default(),
            sleeps: Counter::default(),
            alien_frames: Counter::default(),
        }
    }
}

impl LaneCounters {
    /// A frame left by `exit`.
    #[inline(always)]
    pub fn exit(&self, exit: Exit) {
        self.exits_of(exit, 1);
    }

    /// `n` frames left by `exit`.
    #[inline(always)]
    pub fn exits_of(&self, exit: Exit, n: u64) {
        self.exits[exit.slot()].add(n);
    }

    /// `n` events ended in `outcome`.
    #[inline(always)]
    pub fn outcome(&self, outcome: Outcome, n: u64) {
        self.outcomes[usize::from(outcome.code())].add(n);
    }

    /// Frames that left by `exit`.
    #[must_use]
    pub fn exits(&self, exit: Exit) -> u64 {
        self.exits[exit.slot()].get()
    }

    /// Events that ended in `outcome`.
    #[must_use]
    pub fn outcomes(&self, outcome: Outcome) -> u64 {
        self.outcomes[usize::from(outcome.code())].get()
    }

    /// Frames that left by any exit.
    #[must_use]
    pub fn exits_sum(&self) -> u64 {
        self.exits.iter().map(Counter::get).sum()
    }
}

const _: () = {
    let mut i = 0;
    while i < Outcome::ALL.len() {
        assert!((Outcome::ALL[i].code() as usize) < OUTCOME_SLOTS);
        i += 1;
    }
};
