//! The running state, on the control core: proposes what lanes sealed, takes
//! snapshots, moves partitions, hears what lanes report.
//!
//! Everything here runs in one thread. Cells are borrowed for the length of a
//! call and never across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtrb::{Consumer, RingBuffer};

use tokio::io::unix::AsyncFd;

use super::Parts;
use super::anchor::{AnchorRequests, Newest, RoundsDone, decode_meta, encode_members};
use super::digests::Digests;
use super::load::Load;
use super::prepare::PROGRESS_INTERVAL;
use super::reads::Reads;
use super::room::Room;
use super::router::{Owners, Routed, Router};
use super::samples::Taps;
use super::tenants::Tenants;
use super::times::Times;
use crate::admin::log_status::RecoveryStatus;
use crate::apply::OUTCOME_SLOTS;
use crate::apply::games::ClassCounts;
use crate::base::clock::monotonic_ns;
use crate::base::cpu;
use crate::base::waker::Waker;
use crate::batch::{BatchBuf, Payload};
use crate::cli::{CliError, ExitStatus};
use crate::lane::link::{LaneCommand, LaneLink, LaneReport, LogFacts};
use crate::log::disk::BLOCK_BYTES;
use crate::log::superblock::DataDir;
use crate::log::wal::{Wal, WalError};
use crate::log::writer::WriterOptions;
use crate::log::{Body, LogId, WalHandle, WalWriter};
use crate::replicate::store::Store;
use crate::replicate::{Jump, Members, RaftLog, ReplicatedLog as _, Role, Start, Timing};
use crate::run::log::Log;
use crate::snapshot::{Anchor, Position, SnapshotWriter};

/// How long stopping waits for answers that are owed.
const SETTLE_MAX: Duration = Duration::from_millis(500);

/// A move of a partition that is not over.
#[derive(Clone, Copy, Debug)]
struct Move {
    partition: u16,
    to: u16,
}

/// See the module.
pub struct Live {
    pub(super) dir: DataDir,
    pub(super) wal: WalHandle,
    /// Dropped last of the log's parts: it writes what is queued.
    _writer: WalWriter,
    pub(super) raft: RaftLog<Router, Newest>,
    newest: Newest,
    pub(super) facts: Arc<LogFacts>,
    waker: Arc<Waker>,
    pub(super) lanes: Vec<Arc<LaneLink>>,
    submissions: RefCell<Vec<Consumer<Arc<BatchBuf>>>>,
    reports: RefCell<Vec<Consumer<LaneReport>>>,
    /// To the fallback's lane, which owns nothing and gets histograms only.
    fallback: RefCell<Option<rtrb::Producer<LaneCommand>>>,
    pub(super) owners: Rc<RefCell<Owners>>,
    pub(super) owner_of: Arc<[AtomicU16]>,
    pub(super) reads: RefCell<Reads>,
    pub(super) taps: RefCell<Taps>,
    pub(super) digests: Rc<RefCell<Digests>>,
    routed: Rc<RefCell<Routed>>,
    pub(super) times: RefCell<Times>,
    pub(super) snapshots: RefCell<SnapshotWriter>,
    anchors: AnchorRequests,
    rounds_done: RoundsDone,
    moving: Cell<Option<Move>>,
    room: Room,
    /// Bytes of the log behind the snapshot that was loaded, as they were replayed.
    bytes_replayed: Cell<u64>,
    /// [`Self::log_bytes`] when the newest snapshot was begun.
    bytes_at_snapshot: Cell<u64>,
    snapshot_begun: Cell<Option<Instant>>,
    is_replayed: Cell<bool>,
    refusal_said: Cell<bool>,
    /// By lane: events judged, by outcome code.
    pub(super) judged: RefCell<Vec<[u64; OUTCOME_SLOTS]>>,
    /// By lane: events by latency class.
    pub(super) classes: RefCell<Vec<ClassCounts>>,
    /// Where the load is.
    pub(super) load: RefCell<Load>,
    /// Whose hunts they are.
    pub(super) tenants: RefCell<Tenants>,
    /// Last index that the log need not keep; 0 for none.
    purge_upto: Cell<u64>,
    pub(super) recovery: RefCell<RecoveryStatus>,
    pub(super) memory_bytes: BTreeMap<String, u64>,
    pub(super) jumps: Rc<Cell<u64>>,
    fatal: Rc<RefCell<Option<String>>>,
    fatal_wal: Arc<Mutex<Option<String>>>,
    log: Log,
}

/// Starts the thread that writes the log. `fatal` gets what ends it.
fn start_writer(wal: Wal, fatal: &Arc<Mutex<Option<String>>>) -> Result<WalWriter, CliError> {
    let fatal = Arc::clone(fatal);
    let on_fatal = Box::new(move |error: &WalError| {
        *fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    });
    WalWriter::start(wal, WriterOptions::default(), on_fatal)
        .map_err(|e| failed(format!("the log's writer cannot be started: {e}")))
}

fn failed(message: impl Into<String>) -> CliError {
    CliError::new(ExitStatus::Error, message)
}

impl Live {
    /// Opens the log on what [`Parts`] hold, replays it and waits until the
    /// lanes have applied all of it. Must run inside a `LocalSet`.
    ///
    /// # Errors
    ///
    /// The log cannot be opened or read.
    pub async fn start(
        parts: Parts,
        snapshot_at_percent: u16,
        log: Log,
    ) -> Result<Rc<Self>, CliError> {
        // Entries known to be committed are routed inside the log's own start.
        let started = Instant::now();
        let fatal = Rc::new(RefCell::new(None));
        let fatal_wal = Arc::new(Mutex::new(None));
        let writer = start_writer(parts.wal, &fatal_wal)?;
        let wal = writer.handle();
        let meta = parts.manifest.as_ref().and_then(decode_meta);
        let stamped_ns = parts
            .manifest
            .as_ref()
            .map_or(0, |m| m.partitions.iter().map(|p| p.log_time_ns).max().unwrap_or(0));
        let store = Store::open(wal.clone(), stamped_ns)
            .map_err(|e| failed(format!("the log's end cannot be read: {e}")))?;
        let newest = Newest::default();
        newest.0.replace(meta);
        let superblock = parts.dir.superblock().clone();
        let digests = Rc::new(RefCell::new(Digests::new(superblock.partitions)));
        let routed = Rc::new(RefCell::new(Routed::default()));

        let lanes: Vec<_> = parts.ends.iter().map(|e| Arc::clone(&e.link)).collect();
        let (mut submissions, mut reports) = (Vec::new(), Vec::new());
        let (mut samples, mut commands) = (Vec::new(), Vec::new());
        for ends in parts.ends {
            submissions.push(ends.submissions);
            reports.push(ends.reports);
            samples.push(ends.samples);
            commands.push((ends.link, ends.commands));
        }
        let fallback =
            if commands.len() > parts.owning { commands.pop().map(|c| c.1) } else { None };
        let in_flight = (lanes.len() * parts.batches) as u64;
        let owners = Rc::new(RefCell::new(Owners::new(commands, in_flight)));
        let router = Router {
            owners: Rc::clone(&owners),
            digests: Rc::clone(&digests),
            routed: Rc::clone(&routed),
        };
        let jumps = Rc::new(Cell::new(0));
        let raft = RaftLog::start(Start {
            node: superblock.node_id,
            cluster: format!("{:016x}", superblock.cluster_id),
            found: Some(Members::single(superblock.node_id)),
            timing: Timing::default(),
            store,
            committed: router,
            snapshots: newest.clone(),
            on_jump: on_jump(Rc::clone(&jumps), log),
            on_fatal: {
                let fatal = Rc::clone(&fatal);
                Box::new(move |why| drop(fatal.replace(Some(why))))
            },
        })
        .await
        .map_err(|e| failed(e.to_string()))?;
        let lane_count = lanes.len();
        let live = Rc::new(Self {
            dir: parts.dir,
            wal,
            _writer: writer,
            raft,
            newest,
            facts: parts.facts,
            waker: parts.waker,
            lanes,
            submissions: RefCell::new(submissions),
            reports: RefCell::new(reports),
            fallback: RefCell::new(fallback),
            owners,
            owner_of: parts.owner_of,
            reads: RefCell::new(Reads::new(parts.asker)),
            taps: RefCell::new(Taps::new(samples)),
            digests,
            routed,
            times: RefCell::default(),
            snapshots: RefCell::new(parts.snapshots),
            anchors: parts.anchors,
            rounds_done: parts.rounds_done,
            moving: Cell::new(None),
            room: Room::new(
                superblock.wal_bytes(),
                superblock.segment_bytes,
                snapshot_at_percent,
                in_flight,
            ),
            bytes_replayed: Cell::new(0),
            bytes_at_snapshot: Cell::new(0),
            snapshot_begun: Cell::new(None),
            is_replayed: Cell::new(false),
            refusal_said: Cell::new(false),
            judged: RefCell::new(vec![[0; OUTCOME_SLOTS]; lane_count]),
            classes: RefCell::new(vec![ClassCounts::default(); lane_count]),
            load: RefCell::new(Load::new(lane_count, superblock.partitions)),
            tenants: RefCell::default(),
            purge_upto: Cell::new(0),
            recovery: RefCell::new(parts.recovery),
            memory_bytes: parts.memory_bytes,
            jumps,
            fatal,
            fatal_wal,
            log,
        });
        live.replay(started).await?;
        Ok(live)
    }

    /// Waits until everything that the log held is applied.
    async fn replay(&self, started: Instant) -> Result<(), CliError> {
        let mut said = Instant::now();
        let mut ready = std::pin::pin!(self.raft.ready());
        let mut is_routed = false;
        loop {
            tokio::select! {
                done = &mut ready, if !is_routed => {
                    done.map_err(|e| failed(self.fatal_or(&e.to_string())))?;
                    is_routed = true;
                }
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            self.hear();
            let routed = *self.routed.borrow();
            let applied = self.owners.borrow().applied_epoch();
            if is_routed && applied >= routed.epoch {
                break;
            }
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                let last = self.raft.status().last_index.unwrap_or(0);
                self.log.info(&format!(
                    "replaying the log: epoch {applied} of {last}, {} MB/s",
                    (routed.bytes as f64 / 1e6 / started.elapsed().as_secs_f64()).round(),
                ));
            }
        }
        let routed = *self.routed.borrow();
        let mut recovery = self.recovery.borrow_mut();
        recovery.entries = routed.entries;
        recovery.bytes = routed.bytes;
        recovery.replay_ms = started.elapsed().as_millis() as u64;
        self.log.info(&format!(
            "log replayed: {} entries, {} in {} ms; epoch {}",
            routed.entries,
            bytesize::ByteSize(routed.bytes).display().iec(),
            recovery.replay_ms,
            routed.epoch,
        ));
        // Each entry in a record of its own, at the worst.
        let padding = routed.entries.saturating_mul(BLOCK_BYTES as u64);
        self.bytes_replayed.set(routed.bytes.saturating_add(padding));
        self.is_replayed.set(true);
        self.publish();
        Ok(())
    }

    fn fatal_or(&self, other: &str) -> String {
        self.ended_by().unwrap_or_else(|| other.to_owned())
    }

    /// What ended the log; the disk's own words before those of who heard them.
    fn ended_by(&self) -> Option<String> {
        let disk = self.fatal_wal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        disk.or_else(|| self.fatal.borrow().clone())
    }

    /// Why the log ended, if it has.
    #[must_use]
    pub fn has_ended(&self) -> Option<String> {
        if let Some(why) = self.ended_by() {
            return Some(why);
        }
        (self.raft.role() == Role::Stopped).then(|| "the log has stopped".to_owned())
    }

    /// Serves lanes and snapshot thread until dropped.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the eventfd.
    pub async fn serve(&self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "unsound only for types that may exchange their descriptor; an OwnedFd never does"
        )]
        let event = AsyncFd::new(self.waker.fd().try_clone_to_owned()?)?;
        if !cpu::set_nice(cpu::NICE_FIRST) {
            self.log.info(&format!(
                "the kernel refused nice level {} (CAP_SYS_NICE): where other work shares the cores of lanes, control and log, answers wait for its time slices",
                cpu::NICE_FIRST
            ));
        }
        loop {
            while self.hear() {
                tokio::task::yield_now().await;
            }
            self.waker.about_to_sleep();
            if self.hear() {
                self.waker.awake();
                continue;
            }
            let mut guard = event.readable().await?;
            self.waker.clear();
            guard.clear_ready();
            self.waker.awake();
        }
    }

    /// Takes what waits in the rings; true when there was anything.
    fn hear(&self) -> bool {
        let mut any = self.propose_submissions();
        if any {
            self.judge_readiness();
        }
        any |= self.hear_reports();
        any |= self.reads.borrow_mut().hear();
        while let Ok((epoch, tell)) = self.anchors.try_recv() {
            any = true;
            let meta = self.raft.meta_at(epoch);
            let anchor = meta.and_then(|meta| {
                let LogId { term, node, index } = meta.last?;
                let last = Position { term, node, index };
                Some(Anchor { last, membership: encode_members(&meta) })
            });
            // The snapshot thread gave up waiting.
            let _ = tell.send(anchor);
        }
        any
    }

    fn propose_submissions(&self) -> bool {
        let mut any = false;
        for submissions in self.submissions.borrow_mut().iter_mut() {
            while let Ok(batch) = submissions.pop() {
                any = true;
                if let Err(refused) = self.raft.propose(Body::Batch(Payload::Pooled(batch))) {
                    // Once a second: a log without room refuses a thousand.
                    if !self.refusal_said.replace(true) {
                        self.log.warn(&format!("batches are not taken: {refused}"));
                    }
                    self.lanes.iter().for_each(|lane| {
                        lane.waker.wake();
                    });
                }
            }
        }
        any
    }

    fn hear_reports(&self) -> bool {
        let mut any = false;
        let mut records: Vec<Bytes> = Vec::new();
        let fallback_lane = self.owners.borrow().lanes.len();
        for (lane, reports) in self.reports.borrow_mut().iter_mut().enumerate() {
            while let Ok(report) = reports.pop() {
                any = true;
                match report {
                    LaneReport::Digest { partition, epoch, digest } => {
                        records
                            .extend(self.digests.borrow_mut().computed(epoch, partition, digest));
                    }
                    LaneReport::Adopted { partition } => self.moved(partition),
                    LaneReport::Measured { mut times, judged, classes } => {
                        if let Some(place) = self.judged.borrow_mut().get_mut(lane) {
                            *place = judged;
                        }
                        if let Some(place) = self.classes.borrow_mut().get_mut(lane) {
                            *place = classes;
                        }
                        if let Some(link) = self.lanes.get(lane) {
                            let owned =
                                |p: usize| usize::from(self.owner_of[p].load(Relaxed)) == lane;
                            self.load.borrow_mut().measured(lane, link, owned, monotonic_ns());
                        }
                        self.times.borrow_mut().add(&times);
                        times.clear();
                        let command = LaneCommand::Stages(times);
                        if lane < fallback_lane {
                            self.owners.borrow_mut().tell(lane, command);
                        } else if let Some(fallback) = &mut *self.fallback.borrow_mut() {
                            // Two sets go round: there is room.
                            let _ = fallback.push(command);
                        }
                    }
                }
            }
        }
        if self.facts.ready.load(Relaxed) {
            for record in records {
                // Refused: the next boundary is recorded again.
                let _ = self.raft.propose(Body::Digests(record));
            }
        }
        any
    }

    fn moved(&self, partition: u16) {
        if let Some(moving) = self.moving.take()
            && moving.partition == partition
        {
            if let Some(owner) = self.owner_of.get(usize::from(partition)) {
                owner.store(moving.to, Relaxed);
            }
            self.log.info(&format!("partition {partition} is with lane {} now", moving.to));
        }
    }

    /// Looks after what changes by itself; called about ten times a second.
    pub async fn tend(&self) {
        self.publish();
        if let Ok(()) = self.rounds_done.try_recv() {
            self.round_ended().await;
        } else {
            if self.room.is_short(self.free_bytes()) {
                self.purge_upto.set(self.snapshots.borrow().status().newest());
            }
            self.purge().await;
        }
        let is_behind =
            self.snapshots.borrow().status().newest() < self.owners.borrow().applied_epoch();
        let is_due = self.room.is_snapshot_due(
            self.free_bytes(),
            self.log_bytes().saturating_sub(self.bytes_at_snapshot.get()),
            self.snapshot_begun.get().map_or(Duration::MAX, |begun| begun.elapsed()),
            is_behind,
        );
        if is_due
            && self.snapshots.borrow().status().running.is_none()
            && self.moving.get().is_none()
        {
            self.begin_snapshot();
        }
    }

    /// Once a second: histograms.
    pub fn next_second(&self) {
        self.refusal_said.set(false);
        let mut times = self.times.borrow_mut();
        times.next_second();
        times.add_flushes(self.wal.take_flush_ns());
        for lane in &self.lanes {
            lane.stages_wanted.store(true, Relaxed);
        }
    }

    /// Lets lanes take events, or has them refuse: the log must be replayed, led
    /// by this node, and have room for all that may join meanwhile.
    fn judge_readiness(&self) {
        let ready = self.is_replayed.get()
            && self.raft.role() == Role::Leader
            && !self.room.is_lacking(self.free_bytes());
        self.facts.ready.store(ready, Relaxed);
        self.facts.replayed.store(self.is_replayed.get(), Relaxed);
    }

    fn publish(&self) {
        self.judge_readiness();
        self.facts.set_log_time(self.raft.log_time_ns(), monotonic_ns());
        self.facts.applied_epoch.store(self.owners.borrow().applied_epoch(), Relaxed);
    }

    fn begin_snapshot(&self) {
        let round = self.snapshots.borrow_mut().begin(self.raft.log_time_ns());
        self.bytes_at_snapshot.set(self.log_bytes());
        self.snapshot_begun.set(Some(Instant::now()));
        let mut owners = self.owners.borrow_mut();
        let told =
            (0..owners.lanes.len()).all(|lane| owners.tell(lane, LaneCommand::Capture { round }));
        if !told {
            self.snapshots.borrow().abandon(round);
        }
    }

    async fn round_ended(&self) {
        let status = self.snapshots.borrow().status();
        if let Some(why) = &status.alarm {
            self.log.warn(&format!("snapshot failed, the one before stays: {why}"));
            return;
        }
        let Some(last) = &status.last else { return };
        self.log.info(&format!(
            "snapshot at epoch {}: {} in {} ms",
            last.epoch,
            bytesize::ByteSize(last.bytes).display().iec(),
            last.took_ms,
        ));
        if let Some(meta) = self.raft.meta_at(last.epoch) {
            self.newest.0.replace(Some(meta));
            let upto = if self.room.is_short(self.free_bytes()) {
                status.newest()
            } else {
                status.purge_upto()
            };
            self.purge_upto.set(upto);
            self.purge().await;
        }
    }

    /// Has the log purged as far as is wanted; the log itself goes no further
    /// than the snapshots it has heard of, so this is asked again until it has.
    async fn purge(&self) {
        let upto = self.purge_upto.get();
        if upto > 0
            && self.raft.status().purged_index.is_none_or(|purged| purged < upto)
            && let Err(e) = self.raft.snapshot_taken(Some(upto)).await
        {
            self.log.warn(&format!("the log was not purged: {e}"));
        }
    }

    /// Bytes of the log written behind the snapshot that was loaded. Not bytes of
    /// entries: a small batch is padded to a block of the disk.
    fn log_bytes(&self) -> u64 {
        self.bytes_replayed.get() + self.wal.counters().bytes
    }

    fn free_bytes(&self) -> u64 {
        self.wal.state().free_bytes
    }

    /// Begins a snapshot now.
    ///
    /// # Errors
    ///
    /// One is under way, or a partition moves.
    pub fn snapshot_now(&self) -> Result<String, String> {
        if self.snapshots.borrow().status().running.is_some() {
            return Err("a snapshot is under way; `veltrix status` shows when it is done".into());
        }
        if let Some(moving) = self.moving.get() {
            return Err(format!("partition {} is being moved; try again", moving.partition));
        }
        self.begin_snapshot();
        Ok(format!(
            "snapshot begun at epoch {}; `veltrix status` shows when it is done",
            self.owners.borrow().applied_epoch()
        ))
    }

    /// Begins to give a partition to a lane.
    ///
    /// # Errors
    ///
    /// No such partition or lane; a move or a snapshot is under way.
    pub fn move_partition(&self, partition: u16, to: u16) -> Result<String, String> {
        let lanes = self.owners.borrow().lanes.len();
        let owner = self.owner_of.get(usize::from(partition));
        let Some(from) = owner.map(|lane| lane.load(Relaxed)) else {
            return Err(format!(
                "there is no partition {partition}; this cluster has 0 to {}",
                self.owner_of.len().saturating_sub(1)
            ));
        };
        if usize::from(to) >= lanes {
            return Err(format!(
                "there is no lane {to} that owns state; there are 0 to {}",
                lanes - 1
            ));
        }
        if from == to {
            return Ok(format!("partition {partition} is with lane {to} already"));
        }
        if let Some(moving) = self.moving.get() {
            return Err(format!("partition {} is being moved; try again", moving.partition));
        }
        if self.snapshots.borrow().status().running.is_some() {
            return Err(
                "a snapshot is under way; try again when it is done (`veltrix status`)".into()
            );
        }
        let mut owners = self.owners.borrow_mut();
        if owners.lanes.iter().any(|(_, commands)| commands.is_full()) {
            return Err("a lane is far behind; try again".into());
        }
        let (give, take) = RingBuffer::new(1);
        owners.tell(from.into(), LaneCommand::Release { partition, to: give });
        owners.tell(to.into(), LaneCommand::Adopt { partition, from: take });
        self.moving.set(Some(Move { partition, to }));
        Ok(format!(
            "partition {partition} goes from lane {from} to lane {to} after epoch {}",
            self.routed.borrow().epoch
        ))
    }

    /// No more events are taken; waits for what is owed, then ends the log.
    pub async fn stop(&self) {
        self.is_replayed.set(false);
        self.judge_readiness();
        let asked = Instant::now();
        while self.lanes.iter().any(|l| l.in_flight.load(Relaxed) > 0)
            && asked.elapsed() < SETTLE_MAX
        {
            self.hear();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.raft.stop().await;
    }
}

fn on_jump(jumps: Rc<Cell<u64>>, log: Log) -> Box<dyn Fn(Jump)> {
    Box::new(move |jump| {
        jumps.set(jumps.get() + 1);
        log.warn(&format!(
            "the wall clock jumped: {} ms off what the monotonic clock gives; log time goes on without a jump and follows by 1 % (is NTP stepping? `timedatectl timesync-status`)",
            (i128::from(jump.wall_ns) - i128::from(jump.expected_ns)) / 1_000_000,
        ));
    })
}
