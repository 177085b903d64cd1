//! Reads by the control core, for HTTP: asked of the lane that owns the partition,
//! told to whoever waits when the answer comes back.
//!
//! ```text
//!   read -> job -> owner's lane -> hear_answers -> oneshot
//! ```
//!
//! A job whose asker went away comes back all the same and is used again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use veltrix_abi::partition::partition_of;
use veltrix_abi::query::{QUERY_BYTES, QUERY_HEAD_BYTES, Queries, Query, Wanted};

use super::live::Live;
use crate::lane::link::LaneLink;
use crate::lane::reads::{Asker, BODY_BYTES, JOBS, ReadJob};
use crate::replicate::{ReplicatedLog as _, Role};

/// What a read is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A hunt, by its domain.
    Hunt(u64),
    /// Whatever lane owns this partition.
    Partition(u16),
}

/// Why a read was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// The server keeps no state.
    NoLog,
    /// As many as there may be are under way.
    AllUnderWay,
}

/// Gets the body of the answer, which has an entry for each thing wanted.
pub type TellAnswer = oneshot::Sender<Result<Box<[u8]>, NotAsked>>;

/// The control core's asker, and who waits for each of its jobs.
pub(super) struct Reads {
    asker: Asker,
    /// By the place of the job.
    waiting: Vec<Option<TellAnswer>>,
}

impl Reads {
    pub(super) fn new(asker: Asker) -> Self {
        Self { asker, waiting: (0..JOBS).map(|_| None).collect() }
    }

    fn ask(
        &mut self,
        (partition, domain): (u16, u64),
        min_epoch: u64,
        wanted: &[Wanted],
        lanes: &[Arc<LaneLink>],
        tell: TellAnswer,
    ) {
        let mut queries = Vec::with_capacity(wanted.len() * QUERY_BYTES);
        let mut answer_bytes = QUERY_HEAD_BYTES;
        for wanted in wanted {
            let query = Query::of(wanted);
            let mut bytes = [0; QUERY_BYTES];
            query.write(&mut bytes);
            queries.extend_from_slice(&bytes);
            answer_bytes += query.answer_bytes_max();
        }
        // Answers that do not fit say so, as they do in a datagram.
        let body_bytes = answer_bytes.max(QUERY_HEAD_BYTES + queries.len()).min(BODY_BYTES);
        let queries = Queries::of_checked(min_epoch, &queries, body_bytes);
        self.send(lanes, tell, |job| job.ask(partition, domain, &queries));
    }

    /// Sends an idle job, as `fill` makes it.
    fn send(&mut self, lanes: &[Arc<LaneLink>], tell: TellAnswer, fill: impl FnOnce(&mut ReadJob)) {
        let Some(mut job) = self.asker.take() else {
            // Whoever went away needs no answer.
            let _ = tell.send(Err(NotAsked::AllUnderWay));
            return;
        };
        fill(&mut job);
        let place = usize::from(job.place);
        match self.asker.send(job, lanes) {
            Ok(()) => {
                if let Some(waiting) = self.waiting.get_mut(place) {
                    *waiting = Some(tell);
                }
            }
            Err(job) => {
                self.asker.give_back(job);
                let _ = tell.send(Err(NotAsked::AllUnderWay));
            }
        }
    }

    /// Tells what has come; true when there was anything.
    pub(super) fn hear(&mut self) -> bool {
        let mut any = false;
        while let Some(job) = self.asker.answered() {
            any = true;
            let waiting = self.waiting.get_mut(usize::from(job.place)).and_then(Option::take);
            if let Some(tell) = waiting {
                let _ = tell.send(Ok(job.answer().into()));
            }
            self.asker.give_back(job);
        }
        any
    }
}

/// What there is to say of the log without asking lanes or histograms.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Why no events are taken; `None` while they are.
    pub unready: Option<String>,
    /// Last epoch in the log, durable or not.
    pub last_epoch: u64,
    /// Last epoch that is durable on a majority.
    pub committed_epoch: u64,
    /// Last epoch that every lane has applied.
    pub applied_epoch: u64,
    /// Log time now, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Lanes that own state, with the partitions of each.
    pub lanes: Vec<Vec<u16>>,
    /// Events judged in this life by outcome, as of the last second.
    pub judged: BTreeMap<String, u64>,
}

impl Live {
    /// Asks for what is `wanted`, all of it from one epoch; `tell` gets the answer.
    /// Together the wanted must have room in a datagram.
    pub fn read(&self, subject: Subject, min_epoch: u64, wanted: &[Wanted], tell: TellAnswer) {
        let place = match subject {
            Subject::Hunt(hunt) => (partition_of(hunt, self.owner_of.len() as u16), hunt),
            Subject::Partition(partition) => (partition, 0),
        };
        self.reads.borrow_mut().ask(place, min_epoch, wanted, &self.lanes, tell);
    }

    /// Asks for the hunts of a partition from number `from` on, at most `limit`;
    /// `tell` gets a [`crate::read::hunts::Piece`].
    pub fn read_hunts(&self, partition: u16, from: u16, limit: u16, tell: TellAnswer) {
        let fill = |job: &mut ReadJob| job.ask_hunts(partition, from, limit);
        self.reads.borrow_mut().send(&self.lanes, tell, fill);
    }

    /// For those who ask often.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let raft = self.raft.status();
        let mut lanes = vec![Vec::new(); self.owners.borrow().lanes.len()];
        for (partition, owner) in self.owner_of.iter().enumerate() {
            if let Some(lane) = lanes.get_mut(usize::from(owner.load(Relaxed))) {
                lane.push(partition as u16);
            }
        }
        Totals {
            unready: self.unready(),
            last_epoch: raft.last_index.unwrap_or(0),
            committed_epoch: raft.committed_index.unwrap_or(0),
            applied_epoch: self.owners.borrow().applied_epoch(),
            log_time_ns: self.raft.log_time_ns(),
            lanes,
            judged: self.judged_by_outcome(),
        }
    }

    /// Why no events are taken, if none are.
    fn unready(&self) -> Option<String> {
        if self.facts.ready.load(Relaxed) {
            return None;
        }
        let why = match self.raft.role() {
            _ if !self.facts.replayed.load(Relaxed) => "the log is not replayed".into(),
            Role::Leader => "the log has no room; `veltrix status` shows its segments".into(),
            _ => "this node does not lead the log".into(),
        };
        Some(self.has_ended().map_or(why, |ended| format!("the log has ended: {ended}")))
    }
}
