//! openraft's log storage on the WAL.
//!
//! ```text
//!  openraft core --append, vote, cut, purge--> Store --jobs--> WAL writer thread
//!         ^                                      | mirror of vote, purged, last
//!         +------------- IOFlushed, oneshots ----|------------------+
//!  apply, replication --ranges--> Reader --> cache of recent entries, then disk
//! ```
//!
//! The store keeps a mirror of what it has asked for, which is what openraft
//! wants to read back; the writer thread makes it durable in the same order. A
//! write that fails fails the job, and openraft ends.
//!
//! The committed index is written along with whatever is written next, without a
//! write of its own. After a restart, what is known to be committed is replayed
//! before openraft runs, so that the log is read once; the rest follows with the
//! new leader's blank entry.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::rc::Rc;

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use super::types::{
    RaftEntry, RaftLogId, RaftTypes, RaftVote, from_raft_entry, from_raft_id, from_raft_vote,
    to_raft_entry, to_raft_id, to_raft_vote,
};
use crate::log::writer::Done;
use crate::log::{LogEntry, LogId, Vote, WalError, WalHandle};

/// Bytes of entries read at once when a long range is routed: large enough to
/// keep a disk busy, small beside the pools.
const CHUNK_BYTES: usize = 4 << 20;

/// An entry may leave the cache between a look there and one at the disk; the
/// second try finds it.
const READ_TRIES: u32 = 8;

type EntryResult = io::Result<RaftEntry>;

/// What was asked of the WAL so far.
#[derive(Debug, Default)]
struct Mirror {
    /// Where the log began when it last was empty.
    first: u64,
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
}

impl Mirror {
    /// Indexes in the log among `range`.
    fn clip(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        let after = |id: Option<LogId>| id.map_or(0, |id| id.index.saturating_add(1));
        let start = start.max(self.first).max(after(self.purged));
        start..end.min(after(self.last)).max(start)
    }
}

#[derive(Debug, Default)]
struct Shared {
    mirror: RefCell<Mirror>,
    stamped_ns: Cell<u64>,
    /// Counts cuts: what was read before one may not be what is there now.
    cuts: Cell<u64>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Store {
    wal: WalHandle,
    shared: Rc<Shared>,
}

impl Store {
    /// A store on an open WAL. `stamped_ns` is the greatest log time that the
    /// loaded snapshot knows of, 0 without one.
    ///
    /// # Errors
    ///
    /// The log's tail cannot be read.
    pub fn open(wal: WalHandle, stamped_ns: u64) -> Result<Self, WalError> {
        let state = wal.state();
        let mirror = Mirror {
            first: 0,
            vote: state.vote,
            purged: state.purged,
            last: state.last.max(state.purged),
            // An entry that was cut off since cannot have been committed.
            committed: state.committed.min(state.last),
        };
        let shared = Shared { mirror: RefCell::new(mirror), ..Shared::default() };
        let store = Self { wal, shared: Rc::new(shared) };
        store.shared.stamped_ns.set(stamped_ns.max(store.last_stamp_ns()?));
        Ok(store)
    }

    /// Log time of the last entry that has one: only batches and digests do.
    fn last_stamp_ns(&self) -> Result<u64, WalError> {
        let log = self.shared.mirror.borrow().clip(&..);
        for index in log.rev() {
            let entries = self.wal.read(index, index + 1, 0)?;
            if let Some(entry) = entries.iter().find(|e| e.log_time_ns != 0) {
                return Ok(entry.log_time_ns);
            }
        }
        Ok(0)
    }

    /// A handle on what the log has room for, and on its cache.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge { wal: self.wal.clone(), shared: Rc::clone(&self.shared) }
    }
}

/// Waits until the writer has done a job.
async fn done(answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the WAL writer has ended")))
}

fn answer() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (tx, rx) = oneshot::channel();
    // Nobody waits any more when openraft has ended.
    (Box::new(move |result| drop(tx.send(result))), rx)
}

impl RaftLogStorage<RaftTypes> for Store {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> io::Result<LogState<RaftTypes>> {
        let mirror = self.shared.mirror.borrow();
        Ok(LogState {
            last_purged_log_id: mirror.purged.map(to_raft_id),
            last_log_id: mirror.last.map(to_raft_id),
        })
    }

    async fn get_log_reader(&mut self) -> Reader {
        Reader {
            wal: self.wal.clone(),
            shared: Rc::clone(&self.shared),
            ahead: Vec::new().into_iter(),
            next: 0,
            cuts: 0,
        }
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let vote = from_raft_vote(vote);
        let (tx, rx) = answer();
        self.wal.save_vote(vote, tx).map_err(|e| e.to_io())?;
        done(rx).await?;
        self.shared.mirror.borrow_mut().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        // Goes with the next entries: told alone, it would wake the writer.
        self.shared.mirror.borrow_mut().committed = committed.as_ref().map(from_raft_id);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.shared.mirror.borrow().committed.map(to_raft_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<RaftTypes>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry>,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(from_raft_entry).collect();
        let committed = {
            let mut mirror = self.shared.mirror.borrow_mut();
            if let Some(first) = entries.first()
                && mirror.last == mirror.purged
            {
                mirror.first = first.id.index;
            }
            mirror.last = entries.last().map(|e| e.id).or(mirror.last);
            mirror.committed
        };
        let stamped_ns = entries.iter().map(|e| e.log_time_ns).max().unwrap_or(0);
        self.shared.stamped_ns.set(self.shared.stamped_ns.get().max(stamped_ns));
        if let Some(upto) = committed {
            self.wal.committed(upto).map_err(|e| e.to_io())?;
        }
        let done = Box::new(move |result| callback.io_completed(result));
        self.wal.append(entries, done).map_err(|e| e.to_io())
    }

    async fn truncate_after(&mut self, after: Option<RaftLogId>) -> io::Result<()> {
        let (tx, rx) = answer();
        self.shared.cuts.set(self.shared.cuts.get() + 1);
        let after = {
            let mut mirror = self.shared.mirror.borrow_mut();
            let after = after.as_ref().map(from_raft_id).max(mirror.purged);
            // Behind the last there is nothing to take back.
            mirror.last = after.min(mirror.last);
            mirror.last
        };
        self.wal.truncate_after(after, tx).map_err(|e| e.to_io())?;
        done(rx).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        let upto = from_raft_id(&upto);
        {
            let mut mirror = self.shared.mirror.borrow_mut();
            mirror.purged = mirror.purged.max(Some(upto));
            mirror.last = mirror.last.max(mirror.purged);
        }
        // In order with all that follows, and nothing waits for it: the core
        // would stand still for a flush.
        self.wal.purge(upto, Box::new(|_| ())).map_err(|e| e.to_io())
    }
}

/// Entries by index, from memory or disk.
#[derive(Debug)]
pub struct Reader {
    wal: WalHandle,
    shared: Rc<Shared>,
    /// Entries from `next` on. openraft replays 64 at a time; a record may hold
    /// thousands and is read whole, so what is left of it is kept.
    ahead: std::vec::IntoIter<RaftEntry>,
    next: u64,
    /// Cuts there had been when `ahead` was read.
    cuts: u64,
}

impl Reader {
    /// Entries from the start of `range` on: as many as take `bytes_max` bytes,
    /// but at least one, when `range` has one.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..READ_TRIES {
            let entries =
                self.wal.read(range.start, range.end, bytes_max).map_err(|e| e.to_io())?;
            if !entries.is_empty() {
                return entries.into_iter().map(to_raft_entry).collect();
            }
        }
        Err(io::Error::other(format!("entry {} is in the log, but cannot be read", range.start)))
    }

    /// Every entry of `range`; what is read beyond it is kept for the next
    /// call when this one goes on where the last one ended.
    fn read_all(&mut self, range: Range<u64>) -> io::Result<Vec<RaftEntry>> {
        let cuts = self.shared.cuts.get();
        let goes_on = self.next == range.start && self.cuts == cuts;
        if !goes_on {
            self.ahead = Vec::new().into_iter();
        }
        (self.next, self.cuts) = (range.start, cuts);
        let log = self.shared.mirror.borrow().clip(&(range.start..));
        let mut entries = Vec::new();
        while self.next < range.end {
            if self.ahead.len() == 0 {
                let end = if goes_on { log.end } else { range.end };
                self.ahead = self.read(self.next..end, CHUNK_BYTES)?.into_iter();
            }
            let wanted = (range.end - self.next).min(self.ahead.len() as u64);
            entries.extend(self.ahead.by_ref().take(wanted as usize));
            self.next += wanted;
        }
        Ok(entries)
    }
}

impl RaftLogReader<RaftTypes> for Reader {
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = EntryResult>
    where
        R: RangeBounds<u64> + Clone + Debug,
    {
        let range = self.shared.mirror.borrow().clip(&range);
        stream::try_unfold(
            (&*self, range, Vec::new().into_iter()),
            async |(reader, mut range, mut chunk): (&Self, Range<u64>, std::vec::IntoIter<_>)| {
                if chunk.len() == 0 && !range.is_empty() {
                    // A long replay must not keep the control loop waiting.
                    tokio::task::yield_now().await;
                    chunk = reader.read(range.clone(), CHUNK_BYTES)?.into_iter();
                    range.start += chunk.len() as u64;
                }
                Ok(chunk.next().map(|entry| (entry, (reader, range, chunk))))
            },
        )
    }

    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<RaftEntry>>
    where
        R: RangeBounds<u64> + Clone + Debug,
    {
        let range = self.shared.mirror.borrow().clip(&range);
        // A replay asks for one piece after the other: the control loop must
        // have its turn in between.
        tokio::task::yield_now().await;
        self.read_all(range)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let range = self.shared.mirror.borrow().clip(&(start..end));
        self.read(range, CHUNK_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.shared.mirror.borrow().vote.map(to_raft_vote))
    }
}

/// What the log has room for, and its cache.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    wal: WalHandle,
    shared: Rc<Shared>,
}

impl Gauge {
    /// Bytes of entries that the WAL can take without a purge.
    pub(super) fn room_bytes(&self) -> u64 {
        self.wal.state().free_bytes
    }

    /// Greatest log time in the log.
    pub(super) fn log_time_ns(&self) -> u64 {
        self.shared.stamped_ns.get()
    }

    /// Entries up to `index` were routed: memory need not hold them, and their
    /// buffers go back to the pools.
    pub(super) fn routed(&self, index: u64) {
        self.wal.forget_below(index.saturating_add(1));
    }
}
