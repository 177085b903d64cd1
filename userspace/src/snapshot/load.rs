//! From the newest sound snapshot to partitions, several at a time.
//!
//! A thread takes the next partition of the file, decodes it into an image of
//! its own and restores the partition from it: hash indexes and order are built
//! there. So what a snapshot needs beyond the partitions is one image a thread.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::SnapshotError;
use super::format::{Header, Limits, Manifest, PartitionEntry};
use super::names;
use super::read::{FileSource, Snapshot, Window};
use super::record::Identity;
use super::sections::{Image as _, StateHead};
use super::store::RealDir;
use super::store::SnapshotDir as _;
use crate::apply::{Partition, PartitionImage, PartitionLimits};
use crate::dedupe::Secret;
use crate::log::superblock::{self, Superblock};

impl Identity {
    /// The identity of a data directory.
    #[must_use]
    pub fn of(superblock: &Superblock) -> Self {
        let limits = partition_limits(superblock);
        Self {
            cluster_id: superblock.cluster_id,
            node: superblock.node_id,
            partitions: superblock.partitions,
            secret_digest: xxhash_rust::xxh3::xxh3_64(&superblock.dedupe_secret),
            limits: Limits {
                cells_max: limits.index.cells_max,
                players_max: limits.index.players_max,
                hunts_max: limits.index.hunts_max,
                definitions_max: limits.index.definitions_max,
                deeds_max: limits.index.deeds_max,
                dedupe_keys_max: limits.dedupe.keys_max,
                dedupe_window_ms: limits.dedupe.window_ms,
            },
        }
    }

    /// Refuses a snapshot of another identity.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check<S: super::Source>(&self, snapshot: &Snapshot<S>) -> Result<(), SnapshotError> {
        let file = || snapshot.path().to_owned();
        let (header, manifest) = (snapshot.header(), snapshot.manifest());
        if header.cluster_id != self.cluster_id {
            let (found, expected) = (header.cluster_id, self.cluster_id);
            return Err(SnapshotError::Foreign { file: file(), found, expected });
        }
        if header.secret_digest != self.secret_digest {
            return Err(SnapshotError::Limits {
                file: file(),
                what: "a dedupe secret of digest",
                found: format!("{:016x}", header.secret_digest),
                expected: format!("one of {:016x}", self.secret_digest),
            });
        }
        let (found, expected) = (&manifest.limits, &self.limits);
        let pairs: [(&'static str, u64, u64); 8] = [
            ("partitions", header.partitions.into(), self.partitions.into()),
            ("cells_max a partition", found.cells_max.into(), expected.cells_max.into()),
            ("players_max a partition", found.players_max.into(), expected.players_max.into()),
            ("hunts_max a partition", found.hunts_max.into(), expected.hunts_max.into()),
            (
                "definitions_max a partition",
                found.definitions_max.into(),
                expected.definitions_max.into(),
            ),
            ("deeds_max a partition", found.deeds_max.into(), expected.deeds_max.into()),
            (
                "dedupe_keys_max a partition",
                found.dedupe_keys_max.into(),
                expected.dedupe_keys_max.into(),
            ),
            ("dedupe_window_ms", found.dedupe_window_ms, expected.dedupe_window_ms),
        ];
        match pairs.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((what, found, expected)) => Err(SnapshotError::Limits {
                file: file(),
                what,
                found: found.to_string(),
                expected: expected.to_string(),
            }),
        }
    }
}

/// What each partition of a data directory may hold.
#[must_use]
pub fn partition_limits(superblock: &Superblock) -> PartitionLimits {
    let share = |capacity| superblock::share(capacity, superblock.partitions);
    let limits = &superblock.limits;
    PartitionLimits {
        index: crate::index::IndexLimits {
            cells_max: share(limits.cells_max),
            players_max: share(limits.players_max),
            hunts_max: limits.hunts_max,
            definitions_max: share(limits.definitions_max),
            deeds_max: share(limits.deeds_max),
        },
        dedupe: crate::dedupe::DedupeLimits {
            keys_max: share(limits.dedupe_keys_max),
            window_ms: limits.dedupe_window_ms,
        },
    }
}

/// What to load, and for whom.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Directory of the snapshots.
    pub dir: PathBuf,
    /// Whose snapshot is wanted.
    pub identity: Identity,
    /// What each partition may hold.
    pub limits: PartitionLimits,
    /// Secret of the fingerprints.
    pub secret: Arc<Secret>,
    /// First index that the log still holds, at least 1: a snapshot must reach
    /// to the entry before it.
    pub log_first: u64,
    /// Threads to use; at least one is.
    pub threads: usize,
}

impl LoadOptions {
    /// For a data directory whose log begins at `log_first`, with as many
    /// threads as there are cores.
    #[must_use]
    pub fn of(superblock: &Superblock, snapshots: &Path, log_first: u64) -> Self {
        Self {
            dir: snapshots.to_owned(),
            identity: Identity::of(superblock),
            limits: partition_limits(superblock),
            secret: Arc::new(Secret::new(superblock.dedupe_secret)),
            log_first,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// How far loading is.
#[derive(Clone, Debug)]
pub struct LoadProgress<'a> {
    /// The snapshot; `None` while empty partitions are made.
    pub file: Option<&'a Path>,
    /// Partitions ready.
    pub partitions: usize,
    /// Partitions in all.
    pub partitions_total: usize,
    /// Bytes of state loaded.
    pub bytes: u64,
    /// Bytes of state in all.
    pub bytes_total: u64,
}

/// What was loaded.
pub struct Loaded {
    /// The snapshot; `None` when there is none and the log has everything.
    pub snapshot: Option<LoadedSnapshot>,
    /// All partitions, by number.
    pub partitions: Vec<Partition>,
    /// Newer snapshots that were passed over, and why: to be told to the
    /// operator, and to the writer by [`super::WriterOptions::refused`].
    pub refused: Vec<(PathBuf, SnapshotError)>,
    /// Time it took.
    pub took: Duration,
}

impl Loaded {
    /// The epoch that every partition has reached: replay begins with the entry
    /// after it; 0 without a snapshot.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.manifest.last.index)
    }
}

/// The snapshot that was loaded.
#[derive(Clone, Debug)]
pub struct LoadedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its first bytes.
    pub header: Header,
    /// What it holds.
    pub manifest: Manifest,
}

/// Loads the newest snapshot that is sound. A damaged one is passed over for
/// the one before, and named in [`Loaded::refused`]. Without any, and when the
/// log begins with its first entry, the partitions are empty.
///
/// # Errors
///
/// A snapshot of another cluster, version or configuration: it is there by
/// mistake, and somebody must take it away. No sound one that the log
/// continues. No memory.
pub fn load_newest(
    options: &LoadOptions,
    progress: &(dyn Fn(LoadProgress<'_>) + Sync),
) -> Result<Loaded, SnapshotError> {
    let since = Instant::now();
    let mut refused = Vec::new();
    for path in newest_first(&options.dir)? {
        match load_file(&path, options, progress) {
            Ok((snapshot, partitions)) => {
                let snapshot = Some(snapshot);
                return Ok(Loaded { snapshot, partitions, refused, took: since.elapsed() });
            }
            Err(error) if error.is_damage() => refused.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    if options.log_first > 1 {
        // A damaged one says more than that there is none.
        let first = refused.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or_else(|| gap(&options.dir, 0, options.log_first)));
    }
    let numbers: Vec<u16> = (0..options.identity.partitions).collect();
    let partitions = in_parallel(
        &numbers,
        options.threads,
        || (),
        |(), number| {
            Partition::new(*number, &options.limits, Arc::clone(&options.secret))
                .map_err(SnapshotError::io(&options.dir, "memory for a partition cannot be had"))
        },
        &|done| {
            progress(LoadProgress {
                file: None,
                partitions: done,
                partitions_total: numbers.len(),
                bytes: 0,
                bytes_total: 0,
            });
        },
    )?;
    Ok(Loaded { snapshot: None, partitions, refused, took: since.elapsed() })
}

/// Loads this snapshot.
///
/// # Errors
///
/// It is damaged, of another identity, or the log does not continue it; no
/// memory.
pub fn load_file(
    path: &Path,
    options: &LoadOptions,
    progress: &(dyn Fn(LoadProgress<'_>) + Sync),
) -> Result<(LoadedSnapshot, Vec<Partition>), SnapshotError> {
    let snapshot = Snapshot::open(path)?;
    options.identity.check(&snapshot)?;
    let epoch = snapshot.manifest().last.index;
    if epoch.saturating_add(1) < options.log_first {
        return Err(gap(path, epoch, options.log_first));
    }
    let partitions = load(&snapshot, options, progress)?;
    let loaded = LoadedSnapshot {
        path: path.to_owned(),
        bytes: snapshot.bytes(),
        header: *snapshot.header(),
        manifest: snapshot.manifest().clone(),
    };
    Ok((loaded, partitions))
}

fn gap(file: &Path, epoch: u64, log_first: u64) -> SnapshotError {
    SnapshotError::Gap { file: file.to_owned(), epoch, log_first }
}

/// The snapshots of a directory, newest first; none when it is not there.
///
/// # Errors
///
/// It cannot be listed.
pub fn newest_first(dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let epochs = RealDir::at(dir)
        .list()
        .map(|names| names.iter().filter_map(|name| names::epoch_in(name)).collect::<Vec<u64>>());
    let mut epochs = epochs.map_err(SnapshotError::io(dir, "cannot be listed"))?;
    epochs.sort_unstable();
    Ok(epochs.into_iter().rev().map(|epoch| dir.join(names::of(epoch))).collect())
}

/// Every partition of a snapshot whose identity was checked, by number.
///
/// # Errors
///
/// A damaged block, state that contradicts itself, no memory.
fn load(
    snapshot: &Snapshot<FileSource>,
    options: &LoadOptions,
    progress: &(dyn Fn(LoadProgress<'_>) + Sync),
) -> Result<Vec<Partition>, SnapshotError> {
    let manifest = snapshot.manifest();
    let entries = &manifest.partitions;
    let bytes_done = AtomicU64::new(0);
    let bytes_total = manifest.raw_bytes();
    let scratch = || Scratch { image: None, window: Window::default() };
    let one = |scratch: &mut Scratch, entry: &PartitionEntry| {
        let partition = restore(snapshot, options, scratch, entry)?;
        bytes_done.fetch_add(entry.raw_bytes, Relaxed);
        Ok(partition)
    };
    in_parallel(entries, options.threads, scratch, one, &|done| {
        progress(LoadProgress {
            file: Some(snapshot.path()),
            partitions: done,
            partitions_total: entries.len(),
            bytes: bytes_done.load(Relaxed),
            bytes_total,
        });
    })
}

/// What a thread keeps from partition to partition.
struct Scratch {
    image: Option<PartitionImage>,
    window: Window,
}

fn restore(
    snapshot: &Snapshot<FileSource>,
    options: &LoadOptions,
    scratch: &mut Scratch,
    entry: &PartitionEntry,
) -> Result<Partition, SnapshotError> {
    let path = snapshot.path();
    let image = match scratch.image.take() {
        Some(image) => image,
        None => PartitionImage::new(&options.limits)
            .map_err(SnapshotError::io(path, "memory for an image cannot be had"))?,
    };
    let image = scratch.image.insert(image);
    image.begin(&StateHead::from(entry), &entry.sections).map_err(|found| {
        let wanted = format!("partition {} within the limits", entry.number);
        SnapshotError::damaged(path, entry.offset, wanted, found)
    })?;
    snapshot.read_partition(entry, &mut scratch.window, image)?;
    Partition::restore(&options.limits, Arc::clone(&options.secret), image).map_err(|e| {
        if e.kind() == std::io::ErrorKind::InvalidData {
            let wanted = format!("sound state of partition {}", entry.number);
            return SnapshotError::damaged(path, entry.offset, wanted, e.to_string());
        }
        SnapshotError::io(path, "memory for a partition cannot be had")(e)
    })
}

/// Does `one` for each item, on several threads; the results are in the items'
/// order. The first error ends all threads and is the result.
fn in_parallel<T: Sync, S, R: Send>(
    items: &[T],
    threads: usize,
    scratch: impl Fn() -> S + Sync,
    one: impl Fn(&mut S, &T) -> Result<R, SnapshotError> + Sync,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<R>, SnapshotError> {
    let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<(usize, Result<R, SnapshotError>)>> = Mutex::new(Vec::new());
    let work = || {
        let mut scratch = scratch();
        while !failed.load(Relaxed) {
            let at = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = one(&mut scratch, item);
            failed.fetch_or(result.is_err(), Relaxed);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
            progress(done.fetch_add(1, Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
