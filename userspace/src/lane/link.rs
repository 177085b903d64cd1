//! What a lane and the control core say to each other: rings with one writer
//! and one reader each, and a few words that either side reads at leisure.
//!
//! ```text
//!   lane     --submissions-->  control     batches it sealed
//!   control  --commands----->  lane        committed entries in epoch order, moves, captures
//!   lane     --reports------>  control     digests, histograms, what became of a move
//!   lane     --samples------>  control     events it applied, while somebody watches
//!   lanes    --settled------>  lane        answers that its senders wait for
//! ```
//!
//! Of the rings between a lane and the control core none can overflow by load: submissions and the answers to them are bound
//! by the lane's pool, and whoever writes commands waits for room.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use crossbeam_queue::ArrayQueue;
use rtrb::{Consumer, Producer, RingBuffer};

use super::samples::{RING as SAMPLES, Sample, Watch};
use super::stages::StageTimes;
use crate::apply::games::ClassCounts;
use crate::apply::{Digest, OUTCOME_SLOTS, Partition, Settled};
use crate::base::clock::monotonic_ns;
use crate::base::waker::Waker;
use crate::batch::{BatchBuf, Payload};

/// Commands that may wait for a lane. Every entry of the log is one.
const COMMANDS: usize = 1024;

/// Reports that may wait for the control core: digests of 1,024 partitions and
/// a few more. One that finds no room is counted and dropped.
const REPORTS: usize = 2048;

/// Answers that may wait for a lane.
const SETTLED: usize = 4096;

/// What a lane is told, in epoch order.
pub enum LaneCommand {
    /// An entry has committed.
    Apply {
        /// Its log index.
        epoch: u64,
        /// Its log time, nanoseconds since the Unix epoch.
        log_time_ns: u64,
        /// The batch; `None` for entries that carry no events.
        batch: Option<Payload>,
    },
    /// Give a partition up and hand it over.
    Release {
        /// Which.
        partition: u16,
        /// Where the new owner takes it from.
        to: Producer<Box<Partition>>,
    },
    /// Take a partition over; what follows waits until it is there.
    Adopt {
        /// Which.
        partition: u16,
        /// Where it comes from.
        from: Consumer<Box<Partition>>,
    },
    /// Capture every partition, one after the other, for this round of the
    /// snapshot writer.
    Capture {
        /// Its number.
        round: u64,
    },
    /// An empty set of histograms, to be filled next.
    Stages(Box<StageTimes>),
}

/// What a lane tells the control core.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation on the lane")]
pub enum LaneReport {
    /// Digest of a partition before the entry of an epoch that all nodes report.
    Digest {
        /// Whose.
        partition: u16,
        /// Multiple of [`DIGEST_EPOCHS`].
        epoch: u64,
        /// Outcomes and state.
        digest: Digest,
    },
    /// A partition has a new owner.
    Adopted {
        /// Which.
        partition: u16,
    },
    /// Once a second, when asked for.
    Measured {
        /// Histograms filled since the last ones.
        times: Box<StageTimes>,
        /// Events that the lane's partitions have judged in this life, by
        /// outcome code.
        judged: [u64; OUTCOME_SLOTS],
        /// Events that the lane has decided since the start, and how many were late.
        classes: ClassCounts,
    },
}

/// Epochs between two digests.
pub const DIGEST_EPOCHS: u64 = 1024;

/// Words shared by a lane and the control core.
#[derive(Debug)]
pub struct LaneLink {
    /// The lane sleeps on it.
    pub waker: Waker,
    /// The control core sleeps on it.
    pub control: Arc<Waker>,
    /// Last epoch whose ranges the lane has applied.
    applied_epoch: AtomicU64,
    /// Histograms are wanted.
    pub stages_wanted: AtomicBool,
    /// Batches sealed and not yet acknowledged.
    pub in_flight: AtomicU64,
    /// Reports that found their ring full.
    pub reports_lost: AtomicU64,
    /// Nanoseconds spent in applying, and events judged by each partition that the
    /// lane owns; both since the start, as of the last report of histograms.
    pub apply_ns: AtomicU64,
    /// See [`Self::apply_ns`]; by number of the partition.
    pub judged: Box<[AtomicU64]>,
    /// What its partitions owe others: requests under way, the bound of each partition
    /// in [`crate::apply::EFFECTS_MAX`].
    pub requests_owed: AtomicU64,
    /// Replies that are not delivered.
    pub replies_owed: AtomicU64,
    /// Effects that came again, or found no room, since the start.
    pub effects_repeated: AtomicU64,
    /// Who watches, and what they missed.
    pub watch: Watch,
    /// Answers that senders of this lane wait for, from whichever lane has settled
    /// them. What finds it full is asked for again by the sender.
    pub(super) settled: ArrayQueue<Settled>,
}

impl LaneLink {
    /// Last epoch that the lane has applied.
    #[must_use]
    pub fn applied_epoch(&self) -> u64 {
        self.applied_epoch.load(Acquire)
    }

    /// Hands over an answer that a sender of this lane waits for.
    pub(super) fn settle(&self, settled: Settled) {
        if self.settled.push(settled).is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn set_applied_epoch(&self, epoch: u64) {
        self.applied_epoch.store(epoch, Release);
    }
}

/// Facts of the log that lanes answer with.
#[derive(Debug, Default)]
pub struct LogFacts {
    /// Events may join batches: the log is replayed and this node leads it.
    pub ready: AtomicBool,
    /// Log time minus monotonic time, nanoseconds.
    offset_ns: AtomicI64,
    /// The log is replayed: what lanes hold may be read.
    pub replayed: AtomicBool,
    /// Names the cluster.
    pub cluster_id: AtomicU64,
    /// Last epoch that every lane has applied.
    pub applied_epoch: AtomicU64,
}

impl LogFacts {
    /// Log time now: the last stamp, carried on by the monotonic clock.
    #[must_use]
    pub fn log_time_ns(&self) -> u64 {
        monotonic_ns().saturating_add_signed(self.offset_ns.load(Relaxed))
    }

    /// Said by the control core: log time and monotonic time belong together.
    pub fn set_log_time(&self, log_time_ns: u64, monotonic_ns: u64) {
        let offset = i128::from(log_time_ns) - i128::from(monotonic_ns);
        self.offset_ns.store(i64::try_from(offset).unwrap_or(i64::MAX), Relaxed);
    }
}

/// A lane's ends.
pub struct LaneEnds {
    pub(super) link: Arc<LaneLink>,
    pub(super) submissions: Producer<Arc<BatchBuf>>,
    pub(super) commands: Consumer<LaneCommand>,
    pub(super) reports: Producer<LaneReport>,
    pub(super) samples: Producer<Sample>,
}

/// The control core's ends.
pub struct ControlEnds {
    /// Shared words.
    pub link: Arc<LaneLink>,
    /// Batches to propose, in the order they were sealed.
    pub submissions: Consumer<Arc<BatchBuf>>,
    /// What the lane is to do.
    pub commands: Producer<LaneCommand>,
    /// What it has to say.
    pub reports: Consumer<LaneReport>,
    /// Events it has applied, while somebody watches.
    pub samples: Consumer<Sample>,
}

/// Makes the rings between a lane with `batches` buffers and the control core,
/// which sleeps on `control`; the node has `partitions`.
///
/// # Errors
///
/// The kernel's refusal to make an eventfd.
pub fn link(
    batches: usize,
    partitions: u16,
    control: Arc<Waker>,
) -> io::Result<(LaneEnds, ControlEnds)> {
    let link = Arc::new(LaneLink {
        waker: Waker::new()?,
        control,
        applied_epoch: AtomicU64::new(0),
        stages_wanted: AtomicBool::new(false),
        in_flight: AtomicU64::new(0),
        reports_lost: AtomicU64::new(0),
        apply_ns: AtomicU64::new(0),
        judged: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
        requests_owed: AtomicU64::new(0),
        replies_owed: AtomicU64::new(0),
        effects_repeated: AtomicU64::new(0),
        watch: Watch::default(),
        settled: ArrayQueue::new(SETTLED),
    });
    let (submit, submissions) = RingBuffer::new(batches);
    let (command, commands) = RingBuffer::new(COMMANDS);
    let (report, reports) = RingBuffer::new(REPORTS);
    let (sample, samples) = RingBuffer::new(SAMPLES);
    let lane = LaneEnds {
        link: Arc::clone(&link),
        submissions: submit,
        commands,
        reports: report,
        samples: sample,
    };
    Ok((lane, ControlEnds { link, submissions, commands: command, reports, samples }))
}
