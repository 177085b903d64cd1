//! The thread that writes, and what stands before it.
//!
//! ```text
//!  control core                         writer thread
//!   append -> cache (readable at once)
//!          -> queue ------------------> stage jobs until the queue is empty or the
//!                                       record long enough; one durable write;
//!   callbacks <------------------------ callbacks in order
//! ```
//!
//! While a write is on its way, whatever comes queues up and shares the next record:
//! the slower the disk, the more entries a write carries. Nothing waits for company.
//!
//! **The cache** holds entries from when they are appended until
//! [`WalHandle::forget_below`] or until it is full of durable ones. It shares the
//! buffers of pooled batches: who appends those must call `forget_below` when they
//! are applied, or their lanes run out of buffers.
//!
//! **A failed write** is told to every callback waiting, then to `on_fatal`, which ends
//! the process: what the disk holds is not known, so nothing more may be promised.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hdrhistogram::Histogram;

use super::disk::WriteMode;
use super::record::RECORD_BYTES_MAX;
use super::wal::{Staged, Wal, WalError, WalState};
use super::{Body, LogEntry, LogId, Vote, WalReader};
use crate::base::clock::monotonic_ns;
use crate::base::cpu;
use crate::batch::Payload;
use crate::batch::pool::Stamp;

/// Runs on the writer thread once the job is durable, or has failed.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Runs on the writer thread when the log can no longer be written.
pub type OnFatal = Box<dyn FnOnce(&WalError) + Send>;

/// How the writer works.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// A record this long is written though more is waiting. Only what came during the
    /// last write is ever waiting, so records grow where the disk is slow and not
    /// otherwise.
    pub record_bytes: usize,
    /// Bytes of durable entries that stay in memory for readers.
    pub cache_bytes_max: usize,
    /// Core to run on.
    pub core: Option<usize>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { record_bytes: RECORD_BYTES_MAX, cache_bytes_max: 64 << 20, core: None }
    }
}

enum Job {
    Append(Vec<LogEntry>, Done),
    Vote(Vote, Done),
    Truncate(Option<LogId>, Done),
    Purge(LogId, Done),
    Committed(LogId),
    Stop,
}

/// What the writer has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Records written: flushes of the disk.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Jobs that wait or are being written.
    pub queued: u64,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    records: AtomicU64,
    entries: AtomicU64,
    submitted: AtomicU64,
    done: AtomicU64,
    segments_used: AtomicU64,
    free_bytes: AtomicU64,
    /// One more than the last durable index; 0 for none.
    durable_end: AtomicU64,
}

/// Recent entries and where the log will stand once the queue is written.
#[derive(Debug)]
struct Recent {
    state: WalState,
    /// Entries without a gap, the last of the log among them if there are any.
    entries: VecDeque<LogEntry>,
    bytes: usize,
    /// Cuts asked for so far.
    truncates: u64,
    closed: bool,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.id.index)
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }

    fn truncate(&mut self, last: Option<u64>) {
        while self.entries.back().is_some_and(|e| last.is_none_or(|last| e.id.index > last)) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
    }

    /// Drops durable entries below `index`.
    fn forget_below(&mut self, index: u64, durable_end: u64) {
        while self.first().is_some_and(|first| first < index.min(durable_end)) {
            self.pop_front();
        }
    }
}

fn entry_bytes(entry: &LogEntry) -> usize {
    size_of::<LogEntry>() + entry.body.as_slice().len()
}

#[derive(Debug)]
struct Shared {
    recent: Mutex<Recent>,
    counters: Counters,
    flush_ns: Mutex<Histogram<u64>>,
    reader: WalReader,
    mode: WriteMode,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn empty_histogram() -> Histogram<u64> {
    // 3 digits from 1 us: a flush is never shorter. Bounds that are in range.
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).unwrap_or_else(|_| {
        let mut any = Histogram::new(3).unwrap_or_else(|_| unreachable!("3 digits are allowed"));
        any.auto(true);
        any
    })
}

/// The writer's thread. Dropped, it writes what is queued and ends.
#[derive(Debug)]
pub struct WalWriter {
    handle: WalHandle,
    thread: Option<JoinHandle<()>>,
}

/// Hands jobs to the writer and reads entries; clones are one.
#[derive(Clone, Debug)]
pub struct WalHandle {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl WalWriter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to make a thread.
    pub fn start(mut wal: Wal, options: WriterOptions, on_fatal: OnFatal) -> io::Result<Self> {
        wal.reserve();
        let state = wal.state();
        let recent =
            Recent { state, entries: VecDeque::new(), bytes: 0, truncates: 0, closed: false };
        let shared = Arc::new(Shared {
            recent: Mutex::new(recent),
            counters: Counters::default(),
            flush_ns: Mutex::new(empty_histogram()),
            reader: wal.reader(),
            mode: wal.mode(),
        });
        shared.counters.segments_used.store(u64::from(state.segments_used), Relaxed);
        shared.counters.free_bytes.store(state.free_bytes, Relaxed);
        let end = state.last.map_or(0, |last| last.index.saturating_add(1));
        shared.counters.durable_end.store(end, Relaxed);
        let (jobs, queue) = channel();
        let writer = Writer {
            wal,
            shared: Arc::clone(&shared),
            queue,
            options,
            waiting: Vec::new(),
            slots: Vec::new(),
            flush_ns: 0,
            truncates: 0,
        };
        let thread = std::thread::Builder::new().name("veltrix-wal".into()).spawn(move || {
            if let Some(core) = options.core {
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
            }
            // Refused without CAP_SYS_NICE; `veltrix run` says so for the
            // control core, which asks for the same.
            let _ = cpu::set_nice(cpu::NICE_FIRST);
            writer.run(on_fatal);
        })?;
        Ok(Self { handle: WalHandle { jobs, shared }, thread: Some(thread) })
    }

    /// For whoever appends and reads.
    #[must_use]
    pub fn handle(&self) -> WalHandle {
        self.handle.clone()
    }

    /// Writes what is queued, then ends the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for WalWriter {
    fn drop(&mut self) {
        let _ = self.handle.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl WalHandle {
    fn send(&self, job: Job) -> Result<(), WalError> {
        self.shared.counters.submitted.fetch_add(1, Relaxed);
        self.jobs.send(job).map_err(|_| WalError::Closed)
    }

    fn recent(&self) -> Result<MutexGuard<'_, Recent>, WalError> {
        let recent = locked(&self.shared.recent);
        if recent.closed { Err(WalError::Closed) } else { Ok(recent) }
    }

    /// Appends entries; `done` runs when all are durable. They can be read at once.
    ///
    /// # Errors
    ///
    /// Entries that do not follow the last; a closed log. `done` does not run then.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) -> Result<(), WalError> {
        let mut recent = self.recent()?;
        let mut last = recent.state.last;
        for entry in &entries {
            if last.is_some_and(|last| last.index.checked_add(1) != Some(entry.id.index)) {
                return Err(contradiction(format!("appending entry {}", entry.id), &recent.state));
            }
            last = Some(entry.id);
        }
        recent.state.last = last;
        for entry in &entries {
            recent.bytes += entry_bytes(entry);
            recent.entries.push_back(entry.clone());
        }
        self.send(Job::Append(entries, done))
    }

    /// Gives a vote; `done` runs when it is durable.
    ///
    /// # Errors
    ///
    /// A vote of an earlier term; a closed log.
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), WalError> {
        let mut recent = self.recent()?;
        if recent.state.vote.is_some_and(|given| given.term > vote.term) {
            return Err(contradiction(format!("voting {vote:?}"), &recent.state));
        }
        recent.state.vote = Some(vote);
        self.send(Job::Vote(vote, done))
    }

    /// Takes back every entry behind `last`; `done` runs when that is durable.
    ///
    /// # Errors
    ///
    /// An entry that is not there; a closed log.
    pub fn truncate_after(&self, last: Option<LogId>, done: Done) -> Result<(), WalError> {
        let mut recent = self.recent()?;
        let to = last.map(|id| id.index);
        let index = |id: Option<LogId>| id.map(|id| id.index);
        if to > index(recent.state.last) || to < index(recent.state.purged) {
            return Err(contradiction(format!("taking back all behind {to:?}"), &recent.state));
        }
        if to < index(recent.state.last) {
            recent.truncate(to);
            recent.state.last = last;
            recent.truncates += 1;
            let end = to.map_or(0, |to| to.saturating_add(1));
            self.shared.counters.durable_end.fetch_min(end, Relaxed);
            return self.send(Job::Truncate(last, done));
        }
        // Nothing to take back: a place in the order of callbacks.
        self.send(Job::Append(Vec::new(), done))
    }

    /// Gives up entries up to `upto`; `done` runs when that is durable.
    ///
    /// # Errors
    ///
    /// A closed log.
    pub fn purge(&self, upto: LogId, done: Done) -> Result<(), WalError> {
        let mut recent = self.recent()?;
        if recent.state.purged.is_none_or(|purged| purged.index < upto.index) {
            recent.state.purged = Some(upto);
            if recent.state.last.is_none_or(|last| last.index < upto.index) {
                recent.state.last = Some(upto);
            }
            while recent.first().is_some_and(|first| first <= upto.index) {
                recent.pop_front();
            }
        }
        self.send(Job::Purge(upto, done))
    }

    /// Entries up to `upto` are committed: written along with whatever comes next.
    ///
    /// # Errors
    ///
    /// A closed log.
    pub fn committed(&self, upto: LogId) -> Result<(), WalError> {
        let mut recent = self.recent()?;
        if recent.state.committed.is_none_or(|committed| committed.index < upto.index) {
            recent.state.committed = Some(upto);
            return self.send(Job::Committed(upto));
        }
        Ok(())
    }

    /// Entries from `from` up to and without `to`, as many as take about `bytes_max` bytes;
    /// one at least, where there is one. Those appended and not yet durable are among
    /// them.
    ///
    /// # Errors
    ///
    /// [`WalError::Purged`]; what the disk says of older ones.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogEntry>, WalError> {
        let mut entries = self.read_part(from, to, bytes_max)?;
        loop {
            let bytes: usize = entries.iter().map(entry_bytes).sum();
            let next = from.saturating_add(entries.len() as u64);
            if entries.is_empty() || bytes >= bytes_max || next >= to {
                return Ok(entries);
            }
            let more = self.read_part(next, to, bytes_max - bytes)?;
            if more.is_empty() {
                return Ok(entries);
            }
            entries.extend(more);
        }
    }

    /// Those in memory from `from` on, or those on disk up to the first in memory.
    fn read_part(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogEntry>, WalError> {
        let to = {
            let recent = locked(&self.shared.recent);
            let state = &recent.state;
            let end = state.last.map_or(0, |last| last.index.saturating_add(1));
            let first = state.purged.map_or(0, |purged| purged.index.saturating_add(1));
            if from < first && from < to {
                return Err(WalError::Purged { index: from, first });
            }
            let to = to.min(end);
            if let Some(skip) = recent.first().and_then(|first| from.checked_sub(first)) {
                return Ok(recent.copy(skip, to.saturating_sub(from), bytes_max));
            }
            to.min(recent.first().unwrap_or(to))
        };
        self.shared.reader.read(from, to, bytes_max)
    }

    /// Where the log will stand once what is queued is written; sizes as of the last
    /// write.
    #[must_use]
    pub fn state(&self) -> WalState {
        let mut state = locked(&self.shared.recent).state;
        state.segments_used = self.shared.counters.segments_used.load(Relaxed) as u32;
        state.free_bytes = self.shared.counters.free_bytes.load(Relaxed);
        state
    }

    /// Last durable entry's index.
    #[must_use]
    pub fn durable_index(&self) -> Option<u64> {
        self.shared.counters.durable_end.load(Relaxed).checked_sub(1)
    }

    /// Entries below `index` need not stay in memory; those not yet durable do.
    pub fn forget_below(&self, index: u64) {
        let mut recent = locked(&self.shared.recent);
        recent.forget_below(index, self.shared.counters.durable_end.load(Relaxed));
    }

    /// Times from a write's start until it was durable, ns, since the last call.
    #[must_use]
    pub fn take_flush_ns(&self) -> Histogram<u64> {
        std::mem::replace(&mut *locked(&self.shared.flush_ns), empty_histogram())
    }

    /// What the writer has done since its start.
    #[must_use]
    pub fn counters(&self) -> WriterCounters {
        let counters = &self.shared.counters;
        let done = counters.done.load(Relaxed);
        WriterCounters {
            bytes: counters.bytes.load(Relaxed),
            records: counters.records.load(Relaxed),
            entries: counters.entries.load(Relaxed),
            queued: counters.submitted.load(Relaxed).saturating_sub(done),
        }
    }

    /// How writes become durable.
    #[must_use]
    pub fn mode(&self) -> WriteMode {
        self.shared.mode
    }
}

impl Recent {
    fn copy(&self, skip: u64, count: u64, bytes_max: usize) -> Vec<LogEntry> {
        let mut bytes = 0usize;
        let fits = |entry: &&LogEntry| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(entry_bytes(entry));
            first || bytes <= bytes_max
        };
        let skip = (skip as usize).min(self.entries.len());
        self.entries.range(skip..).take(count as usize).take_while(fits).cloned().collect()
    }
}

fn contradiction(asked: String, state: &WalState) -> WalError {
    WalError::Contradiction { asked, stands: format!("{state:?}") }
}

/// The thread's own state.
struct Writer {
    wal: Wal,
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    options: WriterOptions,
    /// Callbacks of jobs that are wholly staged.
    waiting: Vec<Done>,
    /// Batches that are staged and want a stamp.
    slots: Vec<Payload>,
    /// When the last write was durable.
    flush_ns: u64,
    /// Cuts staged so far.
    truncates: u64,
}

impl Writer {
    fn run(mut self, on_fatal: OnFatal) {
        if let Err(error) = self.serve() {
            locked(&self.shared.recent).closed = true;
            let failed = || Err(error.to_io());
            for done in self.waiting.drain(..) {
                done(failed());
            }
            on_fatal(&error);
            while let Ok(job) = self.queue.recv() {
                match job {
                    Job::Append(_, done)
                    | Job::Vote(_, done)
                    | Job::Truncate(_, done)
                    | Job::Purge(_, done) => done(failed()),
                    Job::Committed(_) => {}
                    Job::Stop => break,
                }
            }
        }
        locked(&self.shared.recent).closed = true;
    }

    /// Until it is told to stop, or the log cannot be written.
    fn serve(&mut self) -> Result<(), WalError> {
        loop {
            let job = match self.queue.try_recv() {
                Ok(job) => job,
                Err(_) => {
                    self.flush()?;
                    match self.queue.recv() {
                        Ok(job) => job,
                        Err(_) => return Ok(()),
                    }
                }
            };
            if !self.take(job)? {
                return self.flush();
            }
            if self.wal.staged_bytes() >= self.options.record_bytes {
                self.flush()?;
            }
        }
    }

    /// Stages a job; false when it says to stop.
    fn take(&mut self, job: Job) -> Result<bool, WalError> {
        let (staged, done) = match job {
            Job::Append(entries, done) => (self.take_entries(entries), done),
            Job::Vote(vote, done) => (self.stage(Staged::Vote(vote)), done),
            Job::Truncate(last, done) => {
                self.truncates += 1;
                (self.stage(Staged::Truncate(last)), done)
            }
            Job::Purge(upto, done) => (self.stage(Staged::Purge(upto)), done),
            Job::Committed(upto) => {
                self.wal.set_committed(upto);
                self.shared.counters.done.fetch_add(1, Relaxed);
                return Ok(true);
            }
            Job::Stop => return Ok(false),
        };
        self.waiting.push(done);
        staged.map(|()| true)
    }

    fn take_entries(&mut self, entries: Vec<LogEntry>) -> Result<(), WalError> {
        for entry in entries {
            self.stage(Staged::Entry(&entry))?;
            if let Body::Batch(payload @ Payload::Pooled(_)) = entry.body {
                self.slots.push(payload);
            }
            if self.wal.staged_bytes() >= self.options.record_bytes {
                // The job's callback is not among those waiting yet.
                self.flush()?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, what: Staged<'_>) -> Result<(), WalError> {
        if !self.wal.stage(what)? {
            self.flush()?;
            self.wal.stage(what)?;
        }
        Ok(())
    }

    /// Writes what is staged, then tells everybody.
    fn flush(&mut self) -> Result<(), WalError> {
        let start_ns = monotonic_ns();
        let flushed = self.wal.flush()?;
        if flushed.bytes > 0 {
            self.flush_ns = monotonic_ns();
            let took_ns = self.flush_ns.saturating_sub(start_ns);
            locked(&self.shared.flush_ns).saturating_record(took_ns);
            self.note(flushed.bytes, flushed.entries);
        }
        for payload in self.slots.drain(..) {
            if let Some(slots) = payload.slots() {
                slots.stamp(Stamp::Durable, self.flush_ns);
            }
        }
        self.shared.counters.done.fetch_add(self.waiting.len() as u64, Relaxed);
        for done in self.waiting.drain(..) {
            done(Ok(()));
        }
        Ok(())
    }

    fn note(&self, bytes: u64, entries: u64) {
        let counters = &self.shared.counters;
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.records.fetch_add(1, Relaxed);
        counters.entries.fetch_add(entries, Relaxed);
        let state = self.wal.state();
        let mut recent = locked(&self.shared.recent);
        counters.segments_used.store(u64::from(state.segments_used), Relaxed);
        counters.free_bytes.store(state.free_bytes, Relaxed);
        // With a cut still queued, what is durable behind it is no longer of the log.
        if recent.truncates == self.truncates {
            let end = state.last.map_or(0, |last| last.index.saturating_add(1));
            counters.durable_end.store(end, Relaxed);
        }
        let durable = counters.durable_end.load(Relaxed);
        while recent.bytes > self.options.cache_bytes_max
            && recent.first().is_some_and(|first| first < durable)
        {
            recent.pop_front();
        }
    }
}
