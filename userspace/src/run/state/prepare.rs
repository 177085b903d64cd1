//! Before any packet: the data directory taken, its memory reserved, the newest
//! good snapshot loaded, the write-ahead log opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::admin::log_status::RecoveryStatus;
use crate::apply::{Partition, PartitionImage, PartitionLimits};
use crate::cli::{CliError, ExitStatus};
use crate::log::record::RECORD_BYTES_MAX;
use crate::log::superblock::{DataDir, Superblock};
use crate::log::wal::Wal;
use crate::run::log::Log;
use crate::snapshot::{
    Identity, LoadOptions, LoadProgress, Loaded, Manifest, load_newest, partition_limits,
};

/// Pause between two lines about something long.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A data directory that is ours, and the state that its newest snapshot holds.
pub struct Prepared {
    pub(super) dir: DataDir,
    pub(super) wal: Wal,
    pub(super) limits: PartitionLimits,
    /// Every partition, in order of numbers.
    pub(super) partitions: Vec<Partition>,
    /// Of the snapshot that was loaded.
    pub(super) manifest: Option<Manifest>,
    pub(super) identity: Identity,
    /// Snapshots that were refused.
    pub(super) refused: Vec<PathBuf>,
    pub(super) recovery: RecoveryStatus,
    pub(super) memory_bytes: BTreeMap<String, u64>,
}

impl Prepared {
    /// Takes the data directory, opens its log and loads its newest good
    /// snapshot. `lanes` will own state, and all lanes together reserve
    /// `lanes_bytes` for batches.
    ///
    /// # Errors
    ///
    /// What is wrong with the directory, or that the memory does not fit.
    pub fn open(data: &Path, lanes_bytes: u64, lanes: usize, log: &Log) -> Result<Self, CliError> {
        let dir = DataDir::open(data)?;
        let superblock = dir.superblock();
        let limits = partition_limits(superblock);
        let memory_bytes = memory(superblock, &limits, lanes_bytes, lanes);
        check_budget(&memory_bytes)?;
        for (part, bytes) in &memory_bytes {
            log.info(&format!("memory: {} for {part}", bytesize::ByteSize(*bytes).display().iec()));
        }
        let wal = open_wal(&dir, log)?;
        let log_first = wal.state().purged.map_or(1, |purged| purged.index.saturating_add(1));
        let loaded = load(&dir, log_first, log)?;
        let recovery = RecoveryStatus {
            snapshot_epoch: loaded.epoch(),
            refused: loaded.refused.iter().map(|(_, why)| why.to_string()).collect(),
            snapshot_ms: loaded.took.as_millis() as u64,
            ..RecoveryStatus::default()
        };
        let identity = Identity::of(superblock);
        let Loaded { snapshot, partitions, refused, .. } = loaded;
        let manifest = snapshot.map(|s| s.manifest);
        let refused = refused.into_iter().map(|(path, _)| path).collect();
        Ok(Self {
            dir,
            wal,
            limits,
            partitions,
            manifest,
            identity,
            refused,
            recovery,
            memory_bytes,
        })
    }

    /// Partitions of the cluster.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.dir.superblock().partitions
    }
}

fn open_wal(dir: &DataDir, log: &Log) -> Result<Wal, CliError> {
    let options = dir
        .superblock()
        .wal_options()
        .map_err(|e| CliError::new(ExitStatus::Error, format!("no random bytes: {e}")))?;
    let started = Instant::now();
    let (wal, report) = Wal::open(&*dir.wal_disk(), options)?;
    log.info(&format!(
        "write-ahead log: {} entries, {} in {} segments read in {} ms; writes are {}",
        report.entries,
        bytesize::ByteSize(report.bytes).display().iec(),
        report.segments,
        started.elapsed().as_millis(),
        wal.mode().name(),
    ));
    if let Some((file, offset)) = report.torn {
        log.info(&format!(
            "{file}: a record at byte {offset} was cut off by the last crash and taken away; nobody was answered for it"
        ));
    }
    Ok(wal)
}

fn load(dir: &DataDir, log_first: u64, log: &Log) -> Result<Loaded, CliError> {
    let options = LoadOptions::of(dir.superblock(), &dir.snapshots(), log_first);
    let said = Mutex::new(Instant::now());
    let loaded = load_newest(&options, &|progress: LoadProgress<'_>| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= PROGRESS_INTERVAL {
            *said = Instant::now();
            log.info(&format!(
                "loading state: {} of {} partitions, {} of {}",
                progress.partitions,
                progress.partitions_total,
                bytesize::ByteSize(progress.bytes).display().iec(),
                bytesize::ByteSize(progress.bytes_total).display().iec(),
            ));
        }
    })?;
    for (_, why) in &loaded.refused {
        log.warn(&format!("snapshot refused, the one before is used: {why}"));
    }
    if let Some(snapshot) = &loaded.snapshot {
        let manifest = &snapshot.manifest;
        log.info(&format!(
            "snapshot at epoch {}: {} cells, {} players, {} keys in {} ms",
            manifest.last.index,
            manifest.records("cells"),
            manifest.records("players"),
            manifest.keys(),
            loaded.took.as_millis(),
        ));
    }
    Ok(loaded)
}

/// Reserved memory by part, bytes.
fn memory(
    superblock: &Superblock,
    limits: &PartitionLimits,
    lanes_bytes: u64,
    lanes: usize,
) -> BTreeMap<String, u64> {
    let partitions = u64::from(superblock.partitions);
    let bytes = Partition::bytes_of(limits);
    let images = PartitionImage::bytes_of(limits) * (lanes * super::IMAGES_A_LANE) as u64;
    [
        ("cells, players and hunts", partitions * bytes.index.total()),
        ("idempotency keys", partitions * bytes.dedupe.total() as u64),
        ("snapshot images", images),
        ("batches in flight", lanes_bytes),
        ("records of the log", RECORD_BYTES_MAX as u64),
    ]
    .map(|(part, bytes)| (part.to_owned(), bytes))
    .into()
}

/// Refuses what the host cannot give.
fn check_budget(parts: &BTreeMap<String, u64>) -> Result<(), CliError> {
    let wanted: u64 = parts.values().sum();
    let Some(available) = available_bytes() else { return Ok(()) };
    if wanted <= available {
        return Ok(());
    }
    let show = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
    let list: Vec<String> =
        parts.iter().map(|(part, bytes)| format!("{} for {part}", show(*bytes))).collect();
    Err(CliError::new(
        ExitStatus::HostNotReady,
        format!(
            "the capacities of the data directory need {} of memory ({}); {} are available: give the host more, or format a directory with smaller --cells-max, --players-max or --dedupe-keys-max",
            show(wanted),
            list.join(", "),
            show(available),
        ),
    ))
}

/// What the kernel says can be had without swapping (MemAvailable).
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}
