//! The thread that writes snapshots.
//!
//! ```text
//!  control core --begin--> SNAPSHOT THREAD --done--> control core
//!                            ^        |
//!            image, when whole        image, when written
//!                            |        v
//!                     LANE: capture of a partition, page by page
//! ```
//!
//! A lane owns one image at a time. It gets it from [`LaneImages::take`], lends
//! it to a partition, gives it away whole with [`LaneImages::deliver`], and
//! finds it again with `take` when it is written. Both ways are rings with
//! places for all images there are: no lane ever waits, locks or allocates for
//! a snapshot.
//!
//! What can be lost: the snapshot being written, never one before it. A failure
//! is an alarm until a later snapshot succeeds; it stops nothing.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::SnapshotError;
use super::record::{Anchor, Identity, Recorder, Written};
use super::sections::Image;
use super::store::RealDir;
use crate::base::waker::Waker;
use crate::base::{cpu, poll};
use crate::log::superblock::random_u64;

/// How long the thread sleeps when nothing wakes it.
const SLEEP: Duration = Duration::from_secs(1);

/// What a writer needs to know.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Directory of the snapshots; its parent must be there.
    pub dir: PathBuf,
    /// Written into each.
    pub identity: Identity,
    /// Bytes of state that are encoded a second at the most; `None` = as fast
    /// as core and disk allow.
    pub bytes_per_s: Option<u64>,
    /// Snapshots that were refused at the start: they count for nothing.
    pub refused: Vec<PathBuf>,
}

/// How a round ended.
#[derive(Debug)]
pub enum Done {
    /// There is a new snapshot.
    Written(Written),
    /// There is none, and why.
    Failed(SnapshotError),
}

/// What the control core answers when every partition has come: the entry at
/// that epoch, or why there is none.
pub type FindAnchor = Box<dyn FnMut(u64) -> io::Result<Anchor> + Send>;

/// Told of the end of each round, on the snapshot thread.
pub type OnDone = Box<dyn FnMut(&Done) + Send>;

/// What the writer is at, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WriterStatus {
    /// Snapshots completed in this life.
    pub written: u64,
    /// Snapshots given up in this life.
    pub failed: u64,
    /// Epochs of the snapshots on disk that are held to be sound, ascending.
    pub kept: Vec<u64>,
    /// The round under way.
    pub running: Option<Running>,
    /// The last one completed in this life.
    pub last: Option<LastSnapshot>,
    /// Why the last round failed, until one succeeds.
    pub alarm: Option<String>,
}

impl WriterStatus {
    /// Epoch of the newest snapshot; 0 without one.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.kept.last().copied().unwrap_or(0)
    }

    /// The log may be purged up to this epoch and every kept snapshot can still
    /// be continued from it, should the newest turn out to be damaged; 0 = not
    /// at all.
    #[must_use]
    pub fn purge_upto(&self) -> u64 {
        if self.kept.len() < super::KEPT { 0 } else { self.kept[0] }
    }
}

/// A round under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Its number.
    pub round: u64,
    /// Partitions written.
    pub partitions: u32,
    /// Bytes written.
    pub bytes: u64,
}

/// A snapshot of this life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Its least epoch.
    pub epoch: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of state in it.
    pub raw_bytes: u64,
    /// From begin to durable, ms.
    pub took_ms: u64,
    /// Time the thread worked or waited for the disk, ms; the rest it waited
    /// for lanes.
    pub busy_ms: u64,
}

enum Command {
    Begin { round: u64, created_ns: u64 },
    Abandon { round: u64 },
}

struct Delivery<I> {
    round: u64,
    image: I,
}

/// A lane's way to the snapshot thread and back.
pub struct LaneImages<I> {
    deliveries: rtrb::Producer<Delivery<I>>,
    free: rtrb::Consumer<I>,
    waker: Arc<Waker>,
}

impl<I> LaneImages<I> {
    /// A lane's end without a thread behind it: what it delivers, of whatever round,
    /// comes out of the ring as it is.
    #[cfg(test)]
    pub(crate) fn without_thread(
        image: I,
    ) -> std::io::Result<(Self, impl FnMut() -> Option<I> + use<I>)> {
        let (deliveries, mut arriving) = rtrb::RingBuffer::<Delivery<I>>::new(1);
        let (mut giving, free) = rtrb::RingBuffer::new(1);
        // There is a place for it.
        let _ = giving.push(image);
        let images = Self { deliveries, free, waker: Arc::new(Waker::new()?) };
        Ok((images, move || {
            // The other end of the ring stays.
            let _ = &giving;
            arriving.pop().ok().map(|delivery| delivery.image)
        }))
    }

    /// An image nobody uses, to lend to a partition; `None` while they are
    /// being written.
    #[inline]
    pub fn take(&mut self) -> Option<I> {
        self.free.pop().ok()
    }

    /// Gives a whole image of `round` to the snapshot thread.
    ///
    /// # Errors
    ///
    /// The image, when it is one more than the ring has places for: it did not
    /// come from [`Self::take`].
    pub fn deliver(&mut self, round: u64, image: I) -> Result<(), I> {
        let sent = self.deliveries.push(Delivery { round, image });
        sent.map_err(|rtrb::PushError::Full(delivery)| delivery.image)?;
        self.waker.wake();
        Ok(())
    }
}

/// The control core's handle on the thread.
pub struct SnapshotWriter {
    commands: mpsc::Sender<Command>,
    waker: Arc<Waker>,
    status: Arc<Mutex<WriterStatus>>,
    stopping: Arc<AtomicBool>,
    rounds: u64,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotWriter {
    /// Starts the thread. `images` has the images of each lane (one is enough;
    /// with two a lane captures the next partition while one is written); the
    /// lanes' ends come back in the same order.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, read or cleaned; no thread or eventfd can
    /// be had.
    pub fn start<I: Image + Send + 'static>(
        options: &WriterOptions,
        images: Vec<Vec<I>>,
        find_anchor: FindAnchor,
        on_done: OnDone,
    ) -> Result<(Self, Vec<LaneImages<I>>), SnapshotError> {
        let path = &options.dir;
        let dir = RealDir::open(path).map_err(SnapshotError::io(path, "cannot be opened"))?;
        let recorder =
            Recorder::new(dir, path, options.identity, options.bytes_per_s, &options.refused)?;
        let waker = Waker::new().map_err(SnapshotError::io(path, "no eventfd can be had"))?;
        let waker = Arc::new(waker);
        let (commands, inbox) = mpsc::channel();
        let status = WriterStatus { kept: recorder.kept().to_vec(), ..WriterStatus::default() };
        let status = Arc::new(Mutex::new(status));
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        for images in images {
            let places = images.len().max(1);
            let (deliveries, arriving) = rtrb::RingBuffer::new(places);
            let (mut giving, free) = rtrb::RingBuffer::new(places);
            for image in images {
                // There is a place for each.
                let _ = giving.push(image);
            }
            lanes.push(Lane { arriving, giving });
            ends.push(LaneImages { deliveries, free, waker: Arc::clone(&waker) });
        }
        let worker = Worker {
            recorder,
            inbox,
            lanes,
            waker: Arc::clone(&waker),
            status: Arc::clone(&status),
            stopping: Arc::clone(&stopping),
            find_anchor,
            on_done,
            round: None,
        };
        let thread = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                // Whatever started it; refused only where that had a higher level.
                let _ = cpu::set_nice(cpu::NICE_PLAIN);
                cpu::sharpen_timers();
                worker.run();
            })
            .map_err(SnapshotError::io(path, "no thread can be had"))?;
        let writer = Self { commands, waker, status, stopping, rounds: 0, thread: Some(thread) };
        Ok((writer, ends))
    }

    /// Begins a snapshot at log time `created_ns` and gives the number of the
    /// round, with which lanes deliver the image of each of their partitions
    /// once. A round under way is given up.
    pub fn begin(&mut self, created_ns: u64) -> u64 {
        self.rounds += 1;
        let round = self.rounds;
        lock(&self.status).running = Some(Running { round, partitions: 0, bytes: 0 });
        self.say(Command::Begin { round, created_ns });
        round
    }

    /// Gives up a round, if it is still under way.
    pub fn abandon(&self, round: u64) {
        self.say(Command::Abandon { round });
    }

    /// What it is at.
    #[must_use]
    pub fn status(&self) -> WriterStatus {
        lock(&self.status).clone()
    }

    /// Ends the thread; a round under way is given up.
    pub fn stop(mut self) {
        self.end();
    }

    fn say(&self, command: Command) {
        // The thread lives as long as its handle.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    fn end(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(status: &Mutex<WriterStatus>) -> MutexGuard<'_, WriterStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's end of a lane's rings.
struct Lane<I> {
    arriving: rtrb::Consumer<Delivery<I>>,
    giving: rtrb::Producer<I>,
}

struct Round {
    number: u64,
    since: Instant,
    busy: Duration,
}

struct Worker<I> {
    recorder: Recorder<RealDir>,
    inbox: mpsc::Receiver<Command>,
    lanes: Vec<Lane<I>>,
    waker: Arc<Waker>,
    status: Arc<Mutex<WriterStatus>>,
    stopping: Arc<AtomicBool>,
    find_anchor: FindAnchor,
    on_done: OnDone,
    round: Option<Round>,
}

impl<I: Image> Worker<I> {
    fn run(mut self) {
        while !self.stopping.load(Ordering::Acquire) {
            if !self.turn() {
                self.waker.about_to_sleep();
                if !self.turn() && !self.stopping.load(Ordering::Acquire) {
                    poll::readable(self.waker.fd(), None, SLEEP);
                }
                self.waker.awake();
            }
        }
        self.recorder.abandon();
    }

    /// Takes commands, then one image of each lane; true when there was any.
    fn turn(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.inbox.try_recv() {
            any = true;
            match command {
                Command::Begin { round, created_ns } => self.begin(round, created_ns),
                Command::Abandon { round } => {
                    if self.round.as_ref().is_some_and(|r| r.number == round) {
                        self.give_up("given up on request");
                    }
                }
            }
        }
        for lane in 0..self.lanes.len() {
            let Ok(Delivery { round, image }) = self.lanes[lane].arriving.pop() else { continue };
            any = true;
            if self.round.as_ref().is_some_and(|r| r.number == round) {
                self.add(&image);
            }
            // There is a place for each.
            let _ = self.lanes[lane].giving.push(image);
        }
        any
    }

    fn begin(&mut self, number: u64, created_ns: u64) {
        if self.round.is_some() {
            self.give_up("another one was begun");
        }
        self.round = Some(Round { number, since: Instant::now(), busy: Duration::ZERO });
        let begun = match random_u64() {
            Ok(file_id) => self.recorder.begin(file_id, created_ns),
            Err(e) => Err(self.recorder.failed("no random number can be had", e)),
        };
        if let Err(e) = begun {
            self.end(Done::Failed(e));
        }
    }

    fn add(&mut self, image: &I) {
        let since = Instant::now();
        let added = self.recorder.add(image);
        let whole = self.recorder.is_whole();
        if let Ok(partitions) = &added {
            let bytes = self.recorder.bytes();
            let partitions = *partitions as u32;
            if let Some(running) = &mut lock(&self.status).running {
                (running.partitions, running.bytes) = (partitions, bytes);
            }
        }
        let done = match added {
            Err(e) => Some(Done::Failed(e)),
            Ok(_) if whole => Some(match self.complete() {
                Ok(written) => Done::Written(written),
                Err(e) => Done::Failed(e),
            }),
            Ok(_) => None,
        };
        if let Some(round) = &mut self.round {
            round.busy += since.elapsed();
        }
        if let Some(done) = done {
            self.end(done);
        }
    }

    fn complete(&mut self) -> Result<Written, SnapshotError> {
        let epoch = self.recorder.epoch().unwrap_or(0);
        let anchor = (self.find_anchor)(epoch)
            .map_err(|e| self.recorder.failed("its last entry is not in the log", e))?;
        self.recorder.finish(anchor)
    }

    fn give_up(&mut self, why: &'static str) {
        let error = io::Error::new(io::ErrorKind::Interrupted, why);
        let error = self.recorder.failed("not completed", error);
        self.end(Done::Failed(error));
    }

    fn end(&mut self, done: Done) {
        let Some(round) = self.round.take() else { return };
        {
            let mut status = lock(&self.status);
            status.kept = self.recorder.kept().to_vec();
            if status.running.is_some_and(|running| running.round == round.number) {
                status.running = None;
            }
            match &done {
                Done::Written(written) => {
                    status.written += 1;
                    status.alarm = None;
                    status.last = Some(LastSnapshot {
                        path: written.path.clone(),
                        epoch: written.manifest.last.index,
                        bytes: written.bytes,
                        raw_bytes: written.manifest.raw_bytes(),
                        took_ms: round.since.elapsed().as_millis() as u64,
                        busy_ms: round.busy.as_millis() as u64,
                    });
                }
                Done::Failed(error) => {
                    status.failed += 1;
                    status.alarm = Some(error.to_string());
                }
            }
        }
        (self.on_done)(&done);
    }
}
