//! How the node starts: newest sound snapshot, replay of the log behind it, a
//! vote, and on. The order of steps is that of the server.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use veltrix::apply::{Partition, PartitionLimits};
use veltrix::batch::{BatchView, Pool};
use veltrix::log::disk::Disk;
use veltrix::log::wal::{Wal, WalError, WalOptions};
use veltrix::log::{Body, LogId, Vote};
use veltrix::replicate::clock::{LogClock, Now};
use veltrix::snapshot::{self, LoadOptions, Loaded, Recorder, SnapshotDir as _};

use super::Bug;
use super::files::SimDir;
use super::lane::{self, Lane};
use super::node::{Fixed, Node, Stop};
use super::oracle::Oracle;

/// Bytes of the log that one read asks for.
const READ_BYTES: usize = 16 << 10;

/// How a start ended.
pub enum Start {
    /// The node serves.
    Lives {
        /// It.
        node: Box<Node>,
        /// Epoch of the snapshot it began with.
        restored: Option<u64>,
        /// Names of the snapshots it would not take.
        refused: Vec<String>,
    },
    /// The log is damaged where it was durable.
    Fenced(String),
}

/// What differs from start to start.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its number, from 1.
    pub number: u64,
    /// Random, for the log.
    pub salt: u64,
    /// Both clocks.
    pub now: Now,
}

/// The limits as a snapshot states them.
#[must_use]
pub fn snapshot_limits(limits: &PartitionLimits) -> snapshot::Limits {
    snapshot::Limits {
        cells_max: limits.index.cells_max,
        players_max: limits.index.players_max,
        hunts_max: limits.index.hunts_max,
        definitions_max: limits.index.definitions_max,
        deeds_max: limits.index.deeds_max,
        dedupe_keys_max: limits.dedupe.keys_max,
        dedupe_window_ms: limits.dedupe.window_ms,
    }
}

/// Starts the node on what the disk holds.
///
/// # Errors
///
/// A broken promise, or a disk that fails once more.
pub fn start(
    fixed: &Fixed,
    disk: &dyn Disk,
    folder: &SimDir,
    life: Life,
    oracle: &mut Oracle,
) -> Result<Start, Stop> {
    let options = WalOptions { salt: life.salt, ..fixed.wal };
    let (mut wal, report) = match Wal::open(disk, options) {
        Ok(opened) => opened,
        Err(error @ WalError::Rot { .. }) => return Ok(Start::Fenced(error.to_string())),
        Err(error) => return Err(refused("opening the log", &error)),
    };
    let state = wal.state();
    let last = state.last.unwrap_or_default();
    oracle
        .found(state.vote, last.index)
        .map_err(|what| format!("{what}; the log was recovered as {report:?}"))?;

    let purged = state.purged.map_or(0, |id| id.index);
    let Loaded { snapshot, partitions, refused: passed_over, .. } =
        load(fixed, folder, purged + 1)?;
    let restored = snapshot.as_ref().map(|s| s.manifest.last.index);
    let mut stamped = snapshot.as_ref().map_or(0, |s| s.header.created_ns);
    stamped = partitions.iter().map(Partition::log_time_ns).fold(stamped, u64::max);
    let mut partitions: BTreeMap<u16, Partition> =
        partitions.into_iter().map(|p| (p.number(), p)).collect();

    let replayed = replay(&wal, last, fixed, &mut partitions, oracle)?;
    stamped = stamped.max(replayed.stamped);
    oracle.at_rest(last.index, partitions.values())?;

    let term = state.vote.map_or(0, |vote| vote.term) + 1;
    let vote = Vote { term, node: 1, committed: true };
    match wal.save_vote(vote) {
        Ok(()) => oracle.voted(vote),
        Err(error) => return Err(refused("voting", &error)),
    }
    let mut clock = LogClock::new();
    let forgotten = fixed.bug == Some(Bug::ClockForgotten);
    clock.elected(life.now, if forgotten { 0 } else { stamped });

    let names: Vec<String> = passed_over
        .iter()
        .filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    let place = Path::new("snapshots");
    let not_counted: Vec<PathBuf> = names.iter().map(|name| place.join(name)).collect();
    let recorder = Recorder::new(folder.clone(), place, fixed.identity, None, &not_counted)
        .map_err(|error| Stop::Died(format!("opening the snapshots: {error}")))?;
    let mut ids = replayed.ids;
    ids.extend(state.purged.map(|id| (id.index, id)));
    let mut node = Node {
        life: life.number,
        term,
        lanes: Vec::new(),
        owners: (0..fixed.limits.partitions).map(|p| usize::from(p) % fixed.lanes).collect(),
        mail: BTreeMap::new(),
        wal,
        queue: VecDeque::new(),
        last,
        ids,
        clock,
        recorder,
        recording: false,
        log_is_full: false,
        purged,
        fixed: fixed.clone(),
    };
    node.distribute(partitions);
    // A leader's first entry, in its own term.
    node.tick(life.now, oracle)?;
    Ok(Start::Lives { node: Box::new(node), restored, refused: names })
}

/// A fault of the disk ends the process; anything else is a fault of the log.
fn refused(doing: &str, error: &WalError) -> Stop {
    match error {
        WalError::Io { .. } => Stop::Died(format!("{doing}: {error}")),
        other => Stop::Broken(format!("{doing}: {other}")),
    }
}

/// The newest sound snapshot, by the server's own loader: it reads real files,
/// so the folder is laid out for it.
fn load(fixed: &Fixed, folder: &SimDir, log_first: u64) -> Result<Loaded, Stop> {
    let temporary = TemporaryFolder::new().map_err(|e| Stop::Broken(format!("no folder: {e}")))?;
    for name in folder.list().map_err(|e| Stop::Died(format!("listing snapshots: {e}")))? {
        let bytes = folder.read(&name).map_err(|e| Stop::Died(format!("{name}: {e}")))?;
        fs::write(temporary.0.join(&name), bytes)
            .map_err(|e| Stop::Broken(format!("{}: {e}", temporary.0.display())))?;
    }
    let options = LoadOptions {
        dir: temporary.0.clone(),
        identity: fixed.identity,
        limits: fixed.partition_limits,
        secret: Arc::clone(&fixed.secret),
        log_first,
        threads: 1,
    };
    snapshot::load_newest(&options, &|_| {})
        .map_err(|error| Stop::Broken(format!("loading a snapshot: {error}")))
}

/// What was learnt from the log.
struct Replayed {
    ids: BTreeMap<u64, LogId>,
    stamped: u64,
}

/// Every entry that the log still holds, to every partition; these skip what
/// they have.
fn replay(
    wal: &Wal,
    last: LogId,
    fixed: &Fixed,
    partitions: &mut BTreeMap<u16, Partition>,
    oracle: &mut Oracle,
) -> Result<Replayed, Stop> {
    let mut replayed = Replayed { ids: BTreeMap::new(), stamped: 0 };
    let reader = wal.reader();
    let range = reader.range();
    let mut next = range.start.max(1);
    // Only its slots are used: what comes from the disk has none.
    let mut scratch = Pool::new(1, fixed.limits.partitions);
    let buffer = scratch.take().unwrap_or(0);
    while next <= last.index {
        let entries = reader
            .read(next, last.index + 1, READ_BYTES)
            .map_err(|error| refused("reading the log", &error))?;
        if entries.is_empty() {
            let what = format!("the log ends before {next}, and says that it ends at {last}");
            return Err(Stop::Broken(what));
        }
        for entry in entries {
            if entry.id.index != next {
                return Err(Stop::Broken(format!("entry {} was read as {next}", entry.id)));
            }
            oracle.read_back(&entry)?;
            if let Body::Batch(payload) = &entry.body {
                let view = BatchView::check(payload.as_slice(), fixed.limits.partitions)
                    .map_err(|error| Stop::Broken(format!("entry {}: {error}", entry.id)))?;
                let slots = scratch.get(buffer).slots();
                let (epoch, log_time_ns) = (entry.id.index, entry.log_time_ns);
                lane::apply_with(partitions, epoch, log_time_ns, &view, slots, oracle)?;
            }
            replayed.ids.insert(entry.id.index, entry.id);
            replayed.stamped = replayed.stamped.max(entry.log_time_ns);
            next += 1;
        }
    }
    for partition in partitions.values_mut() {
        partition.apply_other(last.index);
    }
    Ok(replayed)
}

impl Node {
    /// Gives each partition to the lane that owns it.
    fn distribute(&mut self, partitions: BTreeMap<u16, Partition>) {
        let mut owned: Vec<BTreeMap<u16, Partition>> =
            (0..self.fixed.lanes).map(|_| BTreeMap::new()).collect();
        for (number, partition) in partitions {
            owned[self.owners[usize::from(number)]].insert(number, partition);
        }
        let (life, count, epoch) = (self.life, self.fixed.limits.partitions, self.last.index);
        self.lanes = owned
            .into_iter()
            .zip(0..)
            .map(|(owned, number)| Lane::new(number, life, count, owned, epoch))
            .collect();
    }
}

/// A folder that is gone when dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("veltrix-sim-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
