//! A data directory as a busy server leaves it at a power cut: a snapshot of a
//! full index, and behind it a log as full as a server fills it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use veltrix::apply::{Partition, PartitionImage, PartitionLimits};
use veltrix::batch::{BatchView, Payload, Pool};
use veltrix::dedupe::Secret;
use veltrix::log::superblock::Limits;
use veltrix::log::superblock::{DataDir, FormatOptions};
use veltrix::log::{Body, LogEntry, LogId, Vote, Wal};
use veltrix::replicate::Members;
use veltrix::snapshot::{Anchor, Identity, Position, RealDir, Recorder, Written, partition_limits};

use super::world::{HUNTS, RUN, START_MS, Scale, domains, hunt_of, mix};

/// Batches that a server of two lanes may have in flight, by default: room for
/// them stays free in the log.
const IN_FLIGHT: u64 = 2 * 32;

/// Batches that go into the log at a time.
const APPENDED: usize = 8;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Cells of the node.
    pub cells: u64,
    /// Players of the node.
    pub players: u64,
    /// Idempotency keys of the node.
    pub keys: u64,
    /// Partitions.
    pub partitions: u16,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Segments of the log.
    pub segments: u32,
    /// How much of the log is filled behind the snapshot; at 100 as much as a
    /// server fills it before it refuses events.
    pub fill_percent: u64,
}

/// What was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// The data directory.
    pub data: PathBuf,
    /// Bytes of its log, used or not.
    pub wal_bytes: u64,
    /// Epoch of the snapshot.
    pub epoch: u64,
    /// The snapshot's file.
    pub snapshot: PathBuf,
    /// Its bytes.
    pub snapshot_bytes: u64,
    /// Cells, players and keys in it.
    pub records: [u64; 3],
    /// Bytes of state in it.
    pub state_bytes: u64,
    /// Last epoch in the log.
    pub last_epoch: u64,
    /// Events in the log.
    pub log_events: u64,
    /// Bytes of batches in the log.
    pub log_bytes: u64,
}

impl Plan {
    fn scale(&self) -> Scale {
        let of_one = |all: u64| all.div_ceil(u64::from(self.partitions));
        Scale { cells: of_one(self.cells), players: of_one(self.players), keys: of_one(self.keys) }
    }

    fn options(&self) -> FormatOptions {
        FormatOptions {
            cluster_id: Some(1),
            partitions: self.partitions,
            segment_bytes: Some(self.segment_bytes),
            segments_max: Some(self.segments),
            limits: Limits {
                cells_max: self.cells,
                players_max: self.players,
                dedupe_keys_max: self.keys,
                ..Limits::default()
            },
            ..FormatOptions::default()
        }
    }

    /// Makes the directory `data`, which must not exist.
    ///
    /// # Errors
    ///
    /// The disk's or the memory's; a world that is not what was planned.
    pub fn make(&self, data: &Path, say: impl Fn(&str)) -> Result<Made> {
        let scale = self.scale();
        let least = scale.cells.min(scale.players);
        ensure!(least >= Scale::LEAST, "at least {} cells and players a partition", Scale::LEAST);
        say("formatting");
        DataDir::format(data, &self.options(), &mut |_, _| ())?;
        let dir = DataDir::open(data)?;
        let superblock = dir.superblock();
        let limits = partition_limits(superblock);

        say(&format!("applying {} keys", self.keys));
        let domains = domains(self.partitions);
        let secret = Arc::new(Secret::new(superblock.dedupe_secret));
        let (partitions, epoch) = apply(&scale, &domains, &limits, &secret)?;
        say("writing the snapshot");
        let written = snapshot(&dir, &limits, partitions, epoch)?;
        say("filling the log");
        let mut made = Made {
            data: data.to_owned(),
            epoch,
            snapshot: written.path,
            snapshot_bytes: written.bytes,
            records: [
                written.manifest.records("cells"),
                written.manifest.records("players"),
                written.manifest.keys(),
            ],
            state_bytes: written.manifest.raw_bytes(),
            last_epoch: epoch,
            log_events: 0,
            log_bytes: 0,
            wal_bytes: superblock.wal_bytes(),
        };
        self.fill(&dir, &scale, &domains, &mut made)?;
        Ok(made)
    }

    /// Fills the log behind the snapshot.
    fn fill(
        &self,
        dir: &DataDir,
        scale: &Scale,
        domains: &[Vec<u64>],
        made: &mut Made,
    ) -> Result<()> {
        let (mut wal, _) = Wal::open(&*dir.wal_disk(), dir.superblock().wal_options()?)?;
        let id = |index| LogId { term: 1, node: 1, index };
        wal.save_vote(Vote { term: 1, node: 1, committed: true })?;
        wal.purge(id(made.epoch))?;
        let all = dir.superblock().wal_bytes();
        // As the server reckons; two segments more, so that it is ready after several starts.
        let kept = dir.superblock().room_bytes_min(IN_FLIGHT) + 2 * self.segment_bytes;
        let unused = kept.max(all - all / 100 * self.fill_percent.min(100));
        let mut pool = Pool::new(1, self.partitions);
        let mut next = scale.keys;
        while wal.state().free_bytes > unused {
            let mut entries = Vec::new();
            while entries.len() < APPENDED {
                made.last_epoch += 1;
                let key_ms = START_MS + made.last_epoch;
                let buffer = pool.take().context("the one buffer is free")?;
                let batch = pool.open_buffer(buffer);
                fill_batch(batch, scale, domains, &mut next, key_ms);
                batch.seal(0, 1, made.last_epoch);
                made.log_events += u64::from(batch.events());
                made.log_bytes += batch.bytes().len() as u64;
                entries.push(LogEntry {
                    id: id(made.last_epoch),
                    log_time_ns: key_ms * 1_000_000,
                    body: Body::Batch(Payload::Owned(Bytes::copy_from_slice(batch.bytes()))),
                });
            }
            // What a write tells of commits is what had come before it.
            if let Some(last) = wal.state().last.filter(|last| last.index > made.epoch) {
                wal.set_committed(last);
            }
            wal.append(&entries)?;
        }
        Ok(())
    }
}

/// Datagrams of random hunts, until the batch is full.
fn fill_batch(
    batch: &mut veltrix::batch::BatchBuf,
    scale: &Scale,
    domains: &[Vec<u64>],
    next: &mut u64,
    key_ms: u64,
) {
    let mut body = [0; RUN as usize * 64];
    loop {
        let random = mix(!*next);
        let partition = (random >> 32) % domains.len() as u64;
        let hunt = random % HUNTS;
        let domain = domains[partition as usize][hunt as usize];
        let bytes = (*next..*next + RUN)
            .fold(0, |at, i| at + scale.event(i, hunt, key_ms).write(&mut body[at..]));
        if batch.append(partition as u16, domain, &body[..bytes], RUN as u16).is_none() {
            return;
        }
        *next += RUN;
    }
}

/// All events before the snapshot, a share of the partitions on each core;
/// gives the partitions by number, and the last epoch.
fn apply(
    scale: &Scale,
    domains: &[Vec<u64>],
    limits: &PartitionLimits,
    secret: &Arc<Secret>,
) -> Result<(Vec<Partition>, u64)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = domains.len().div_ceil(threads);
    let parts: Vec<Result<(Vec<Partition>, u64)>> = std::thread::scope(|scope| {
        let started: Vec<_> = domains
            .chunks(share)
            .enumerate()
            .map(|(part, domains)| {
                scope.spawn(move || apply_part(scale, part * share, domains, limits, secret))
            })
            .collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
        started.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let (mut partitions, mut epoch) = (Vec::new(), 0);
    for part in parts {
        let (some, last) = part?;
        partitions.extend(some);
        epoch = epoch.max(last);
    }
    Ok((partitions, epoch))
}

fn apply_part(
    scale: &Scale,
    first: usize,
    domains: &[Vec<u64>],
    limits: &PartitionLimits,
    secret: &Arc<Secret>,
) -> Result<(Vec<Partition>, u64)> {
    let mut partitions = (first..first + domains.len())
        .map(|number| Partition::new(number as u16, limits, Arc::clone(secret)))
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut pool = Pool::new(1, (first + domains.len()) as u16);
    let rounds = (4_000 / (RUN * domains.len() as u64)).max(1);
    let (mut epoch, mut next) = (0, 0);
    let mut body = [0; RUN as usize * 64];
    while next < scale.keys {
        epoch += 1;
        let key_ms = START_MS + epoch;
        let buffer = pool.take().context("the one buffer is free")?;
        let batch = pool.open_buffer(buffer);
        for _ in 0..rounds {
            let hunt = hunt_of(next);
            let run = next..scale.keys.min(next + RUN);
            let events = (run.end - run.start) as u16;
            let bytes =
                run.fold(0, |at, i| at + scale.event(i, hunt, key_ms).write(&mut body[at..]));
            for (number, domains) in (first..).zip(domains) {
                let domain = domains[hunt as usize];
                let slot = batch.append(number as u16, domain, &body[..bytes], events);
                ensure!(events == 0 || slot.is_some(), "a batch is too small");
            }
            next += u64::from(events);
            if events == 0 {
                break;
            }
        }
        batch.seal(0, 1, epoch);
        let view = BatchView::of_checked(batch.bytes()).context("a batch")?;
        for range in view.ranges() {
            let partition = &mut partitions[usize::from(range.partition) - first];
            partition.apply(epoch, key_ms * 1_000_000, &view, &range, None);
        }
    }
    Ok((partitions, epoch))
}

/// Writes a snapshot of all partitions, and forgets them.
fn snapshot(
    dir: &DataDir,
    limits: &PartitionLimits,
    partitions: Vec<Partition>,
    epoch: u64,
) -> Result<Written> {
    let path = dir.snapshots();
    let identity = Identity::of(dir.superblock());
    let mut recorder = Recorder::new(RealDir::open(&path)?, &path, identity, None, &[])?;
    recorder.begin(1, START_MS * 1_000_000)?;
    let mut image = PartitionImage::new(limits)?;
    for mut partition in partitions {
        partition.apply_other(epoch);
        partition.capture_begin(image);
        image = partition.capture_end();
        recorder.add(&image)?;
    }
    let last = Position { term: 1, node: 1, index: epoch };
    // The entry that brought the membership, then the membership.
    let mut membership: Vec<u8> = [1u64, 1, 1].into_iter().flat_map(u64::to_le_bytes).collect();
    membership.extend(Members::single(1).encode());
    Ok(recorder.finish(Anchor { last, membership })?)
}
