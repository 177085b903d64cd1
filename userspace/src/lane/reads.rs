//! Reads across lanes: whoever receives a query asks the lane that owns the
//! partition, and sends the answer when it comes back.
//!
//! ```text
//!   asker  --asks (job)-->  owner      the queries
//!   asker  <--answers (job)--  owner   the body of the answer
//! ```
//!
//! Askers are the lanes and the control core. A job is a buffer that goes round: its
//! asker has a fixed number of them and holds back what it has none for, so no ring
//! ever overflows. Whoever owns the partition itself answers at once, and has its job
//! back.

use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use rtrb::{Consumer, Producer, RingBuffer};
use veltrix_abi::limits::{HEADER_BYTES, PAYLOAD_BYTES_LIMIT};
use veltrix_abi::query::{
    CellRow, ENTRY_FIXED_BYTES, HuntRow, QUERY_BYTES, QUERY_HEAD_BYTES, Queries, ROWS_MAX, Row,
};

use super::link::LaneLink;
use super::owner::Owner;
use crate::read::{self, hunts};

/// Jobs that one asker may have under way.
pub const JOBS: usize = 128;

/// Jobs that a lane answers for one asker in a turn: few, since each may look
/// through as many cells as a datagram may.
const JOBS_A_TURN: usize = 4;

/// Bytes of the largest body: of a datagram, or of what the control core asks for, a
/// hunt and the most rows of something in it.
pub const BODY_BYTES: usize = {
    let of_datagram = PAYLOAD_BYTES_LIMIT - HEADER_BYTES;
    let of_control = QUERY_HEAD_BYTES
        + 2 * ENTRY_FIXED_BYTES
        + HuntRow::BYTES
        + ROWS_MAX as usize * CellRow::BYTES;
    if of_control > of_datagram { of_control } else { of_datagram }
};

const _: () = assert!(hunts::PIECE_BYTES <= BODY_BYTES);

/// Bytes an asker reserves for its jobs.
pub const BYTES_OF_JOBS: usize = JOBS * size_of::<ReadJob>();

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Its queries.
    Queries,
    /// Hunts from a number on.
    Hunts { from: u16, limit: u16 },
}

/// Queries on their way to a lane, and then their answer on its way back.
#[derive(Debug)]
pub struct ReadJob {
    /// The asker's mark.
    pub place: u16,
    asked: Asked,
    pub(super) partition: u16,
    pub(super) domain: u64,
    min_epoch: u64,
    queries: [u8; BODY_BYTES],
    queries_bytes: usize,
    body_bytes: usize,
    answer: [u8; BODY_BYTES],
    answer_bytes: usize,
}

impl ReadJob {
    fn new(place: u16) -> Box<Self> {
        Box::new(Self {
            place,
            asked: Asked::Queries,
            partition: 0,
            domain: 0,
            min_epoch: 0,
            queries: [0; BODY_BYTES],
            queries_bytes: 0,
            body_bytes: 0,
            answer: [0; BODY_BYTES],
            answer_bytes: 0,
        })
    }

    /// Takes queries in, about the hunt of `domain` in `partition`.
    pub fn ask(&mut self, partition: u16, domain: u64, queries: &Queries<'_>) {
        self.asked = Asked::Queries;
        (self.partition, self.domain) = (partition, domain);
        (self.min_epoch, self.body_bytes) = (queries.min_epoch, queries.body_bytes);
        self.queries_bytes = queries.as_bytes().len();
        self.queries[..self.queries_bytes].copy_from_slice(queries.as_bytes());
    }

    /// Asks for the hunts of `partition` from number `from` on, at most `limit`; the
    /// answer is a [`hunts::Piece`].
    pub fn ask_hunts(&mut self, partition: u16, from: u16, limit: u16) {
        (self.asked, self.partition) = (Asked::Hunts { from, limit }, partition);
    }

    pub(super) fn queries(&self) -> Queries<'_> {
        let queries = &self.queries[..self.queries_bytes];
        Queries::of_checked(self.min_epoch, queries, self.body_bytes)
    }

    /// Entries that the answer has: as many as queries were asked.
    #[must_use]
    pub fn count(&self) -> u16 {
        (self.queries_bytes / QUERY_BYTES) as u16
    }

    /// Body of the answer.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer[..self.answer_bytes]
    }
}

/// An asker's end: its idle jobs, and a ring each way to each lane that owns state.
#[derive(Debug)]
pub struct Asker {
    idle: Vec<Box<ReadJob>>,
    to: Vec<Producer<Box<ReadJob>>>,
    from: Vec<Consumer<Box<ReadJob>>>,
    /// Owner of each partition, as the control core knows it.
    owner_of: Arc<[AtomicU16]>,
}

impl Asker {
    /// An idle job; `None` when all are under way.
    pub fn take(&mut self) -> Option<Box<ReadJob>> {
        self.idle.pop()
    }

    /// Gives a job back.
    pub fn give_back(&mut self, job: Box<ReadJob>) {
        self.idle.push(job);
    }

    /// Sends a job to the lane that owns its partition and wakes it; the job
    /// comes back when there is no such lane.
    ///
    /// # Errors
    ///
    /// The job.
    pub fn send(&mut self, job: Box<ReadJob>, lanes: &[Arc<LaneLink>]) -> Result<(), Box<ReadJob>> {
        let owner = self.owner_of.get(usize::from(job.partition));
        let owner = owner.map_or(usize::MAX, |lane| usize::from(lane.load(Relaxed)));
        let (Some(ring), Some(lane)) = (self.to.get_mut(owner), lanes.get(owner)) else {
            return Err(job);
        };
        ring.push(job).map_err(|rtrb::PushError::Full(job)| job)?;
        lane.waker.wake();
        Ok(())
    }

    /// A job whose answer has come.
    pub fn answered(&mut self) -> Option<Box<ReadJob>> {
        self.from.iter_mut().find_map(|ring| ring.pop().ok())
    }

    fn has_answers(&self) -> bool {
        self.from.iter().any(|ring| !ring.is_empty())
    }

    /// Jobs under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        JOBS - self.idle.len()
    }
}

/// What one asker asks, and where its answers go.
type AskerRings = (Consumer<Box<ReadJob>>, Producer<Box<ReadJob>>);

/// An owner's end: a ring each way to each asker.
#[derive(Debug, Default)]
pub struct Answerer {
    /// Lanes by number, then the control core.
    askers: Vec<AskerRings>,
}

impl Answerer {
    fn has_asks(&self) -> bool {
        self.askers.iter().any(|(asks, _)| !asks.is_empty())
    }

    /// Answers what was asked; gives how many jobs.
    fn turn(&mut self, owner: &Owner, link: &LaneLink, lanes: &[Arc<LaneLink>]) -> usize {
        let mut done = 0;
        for (number, (asks, answers)) in self.askers.iter_mut().enumerate() {
            let before = done;
            let is_whole = |job: &ReadJob| !owner.is_half_applied(job.partition);
            while done < before + JOBS_A_TURN
                && asks.peek().is_ok_and(|job| is_whole(job))
                && let Ok(mut job) = asks.pop()
            {
                owner.answer(&mut job);
                // As many places as jobs: there is room.
                let _ = answers.push(job);
                done += 1;
            }
            if done > before {
                match lanes.get(number) {
                    Some(lane) => lane.waker.wake(),
                    None => link.control.wake(),
                };
            }
        }
        done
    }
}

impl Owner {
    /// Answers a job whose partition should be here, and not half applied.
    pub(super) fn answer(&self, job: &mut ReadJob) {
        let partition = self.partition(job.partition);
        if let Asked::Hunts { from, limit } = job.asked {
            job.answer_bytes =
                hunts::write(partition, from, limit, self.shown(partition), &mut job.answer);
            return;
        }
        // Not by `queries`: the answer of the same job is written meanwhile.
        let queries = &job.queries[..job.queries_bytes];
        let queries = Queries::of_checked(job.min_epoch, queries, job.body_bytes);
        let shown = self.shown(partition);
        job.answer_bytes = read::answer(partition, job.domain, &queries, shown, &mut job.answer);
    }
}

/// A lane's part in reads.
#[derive(Debug)]
pub struct LaneReads {
    pub(super) asker: Asker,
    answerer: Answerer,
}

impl LaneReads {
    /// Whether a turn would find something to do.
    pub(super) fn has_work(&self) -> bool {
        self.answerer.has_asks() || self.asker.has_answers()
    }

    /// Answers what other lanes ask.
    pub(super) fn serve(
        &mut self,
        owner: &Owner,
        link: &LaneLink,
        lanes: &[Arc<LaneLink>],
    ) -> usize {
        self.answerer.turn(owner, link, lanes)
    }
}

/// Rings between `askers` lanes and the control core on one side, and the first
/// `owners` lanes on the other. `owner_of` is kept true by the control core.
#[must_use]
pub fn mesh(askers: usize, owners: usize, owner_of: &Arc<[AtomicU16]>) -> (Vec<LaneReads>, Asker) {
    let mut answerers: Vec<Answerer> = (0..askers).map(|_| Answerer::default()).collect();
    let mut asker = || {
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for answerer in answerers.iter_mut().take(owners) {
            let (ask, asks) = RingBuffer::new(JOBS);
            let (answer, answers) = RingBuffer::new(JOBS);
            to.push(ask);
            from.push(answers);
            answerer.askers.push((asks, answer));
        }
        let idle = (0..JOBS as u16).map(ReadJob::new).collect();
        Asker { idle, to, from, owner_of: Arc::clone(owner_of) }
    };
    let lanes: Vec<Asker> = (0..askers).map(|_| asker()).collect();
    let control = asker();
    let lanes = lanes
        .into_iter()
        .zip(answerers)
        .map(|(asker, answerer)| LaneReads { asker, answerer })
        .collect();
    (lanes, control)
}
