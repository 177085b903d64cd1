//! Snapshots of real partitions, and which of them is loaded.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use veltrix_abi::kinds::{EventKind, Hotspot, HotspotKind};
use veltrix_abi::partition::partition_of;
use veltrix_abi::wire::Event;

use super::super::{
    LoadOptions, Loaded, RealDir, Recorder, SnapshotError, load_newest, newest_first,
};
use super::*;
use crate::apply::{Digest, Partition, PartitionImage, PartitionLimits};
use crate::batch::{BatchView, Pool};
use crate::dedupe::{DedupeLimits, Secret};
use crate::index::IndexLimits;

const PARTITIONS: u16 = 4;
const START_MS: u64 = 1_700_000_000_000;

const STATE: PartitionLimits = PartitionLimits {
    index: IndexLimits {
        cells_max: 500,
        players_max: 500,
        hunts_max: 20,
        definitions_max: 16,
        deeds_max: 100,
    },
    dedupe: DedupeLimits { keys_max: 2_000, window_ms: 60_000 },
};

const WHOSE: Identity = Identity {
    limits: Limits {
        cells_max: 500,
        players_max: 500,
        hunts_max: 20,
        definitions_max: 16,
        deeds_max: 100,
        dedupe_keys_max: 2_000,
        dedupe_window_ms: 60_000,
    },
    ..identity(PARTITIONS)
};

fn secret() -> Arc<Secret> {
    Arc::new(Secret::new(std::array::from_fn(|i| (i as u8).wrapping_mul(89))))
}

/// All partitions, fed with batches of made-up events.
struct World {
    partitions: Vec<Partition>,
    pool: Pool,
    epoch: u64,
}

impl World {
    fn new(partitions: Vec<Partition>, epoch: u64) -> Self {
        Self { partitions, pool: Pool::new(1, PARTITIONS), epoch }
    }

    fn empty() -> Self {
        let partition = |number| Partition::new(number, &STATE, secret()).unwrap();
        Self::new((0..PARTITIONS).map(partition).collect(), 0)
    }

    /// Applies so many batches of 100 events; the same ones for the same epochs.
    fn go_on(&mut self, batches: u64) {
        for _ in 0..batches {
            self.epoch += 1;
            let index = self.pool.take().unwrap();
            let batch = self.pool.open_buffer(index);
            for i in 0..100 {
                let (domain, body) = event(self.epoch, i);
                batch.append(partition_of(domain, PARTITIONS), domain, &body, 1).unwrap();
            }
            batch.seal(0, 1, self.epoch);
            let view = BatchView::check(batch.bytes(), PARTITIONS).unwrap();
            for range in view.ranges() {
                let time_ns = (START_MS + self.epoch * 10) * 1_000_000;
                let partition = &mut self.partitions[usize::from(range.partition)];
                partition.apply(self.epoch, time_ns, &view, &range, None);
            }
            self.partitions.iter_mut().for_each(|p| p.apply_other(self.epoch));
        }
    }

    fn digests(&self) -> Vec<Digest> {
        self.partitions.iter().map(Partition::digest).collect()
    }

    /// A snapshot whose partitions are captured at different epochs.
    fn write(&mut self, dir: &Path) -> u64 {
        let real = RealDir::open(dir).unwrap();
        let mut recorder = Recorder::new(real, dir, WHOSE, None, &[]).unwrap();
        recorder.begin(self.epoch, START_MS).unwrap();
        let least = self.epoch;
        let mut image = PartitionImage::new(&STATE).unwrap();
        for number in (0..usize::from(PARTITIONS)).rev() {
            self.partitions[number].capture_begin(image);
            while !self.partitions[number].capture_step(1 << 14) {}
            image = self.partitions[number].capture_end();
            recorder.add(&image).unwrap();
            self.go_on(1);
        }
        recorder.finish(anchor(least)).unwrap();
        least
    }
}

/// Spawns, credits and claims; every tenth key was there before.
fn event(epoch: u64, i: u64) -> (u64, Vec<u8>) {
    let tag = epoch * 1_000 + i - if i % 10 == 9 { 1 } else { 0 };
    let hotspot =
        Hotspot { kind: HotspotKind::Item, item: 1, remaining: 3, reward: 5, lifetime_s: 0 };
    let (kind, argument) = match tag % 3 {
        0 => (EventKind::HotspotSpawn, hotspot.pack().unwrap()),
        1 => (EventKind::WalletCredit, 7),
        _ => (EventKind::CollectItem, 0),
    };
    let mut key = [0; 16];
    key[..6].copy_from_slice(&(START_MS + epoch * 10).to_be_bytes()[2..]);
    key[6] = 0x70;
    key[8..].copy_from_slice(&(tag | 1 << 63).to_be_bytes());
    let (player, subject) = (tag % 50, tag % 70);
    let event =
        Event { key, player, subject, argument, kind: kind.code(), reserved: 0, payload: &[] };
    let mut body = vec![0; event.wire_bytes()];
    event.write(&mut body);
    (tag % 11, body)
}

fn options(dir: &Path, log_first: u64) -> LoadOptions {
    LoadOptions {
        dir: dir.to_owned(),
        identity: WHOSE,
        limits: STATE,
        secret: secret(),
        log_first,
        threads: 3,
    }
}

fn load(dir: &Path, log_first: u64) -> Result<Loaded, SnapshotError> {
    load_newest(&options(dir, log_first), &|_| {})
}

/// Flips a byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A directory with snapshots at the two epochs, and the world after them.
fn two_snapshots() -> (Folder, PathBuf, World, [u64; 2]) {
    let folder = Folder::new();
    let dir = folder.0.join("snapshots");
    let mut world = World::empty();
    world.go_on(20);
    let first = world.write(&dir);
    world.go_on(20);
    let second = world.write(&dir);
    world.go_on(20);
    (folder, dir, world, [first, second])
}

#[test]
fn what_is_loaded_and_replayed_is_what_never_stopped() {
    let (_folder, dir, world, [_, second]) = two_snapshots();
    let told = AtomicUsize::new(0);
    let loaded = load_newest(&options(&dir, second), &|progress| {
        told.fetch_max(progress.partitions, Ordering::Relaxed);
        assert_eq!(progress.partitions_total, 4);
    })
    .unwrap();
    assert_eq!((loaded.epoch(), loaded.refused.len(), told.into_inner()), (second, 0, 4));
    let epochs: Vec<u64> = loaded.partitions.iter().map(Partition::epoch).collect();
    assert_eq!(epochs, [second + 3, second + 2, second + 1, second]);
    let mut again = World::new(loaded.partitions, second);
    again.go_on(world.epoch - second);
    assert_eq!(again.digests(), world.digests());
}

#[test]
fn a_damaged_one_is_named_and_the_one_before_is_used() {
    let (_folder, dir, world, [first, second]) = two_snapshots();
    let files = newest_first(&dir).unwrap();
    damage(&files[0]);
    let loaded = load(&dir, first + 1).unwrap();
    assert_eq!((loaded.epoch(), loaded.refused.len()), (first, 1));
    assert_eq!(loaded.refused[0].0, files[0]);
    let text = loaded.refused[0].1.to_string();
    assert!(text.contains(files[0].to_str().unwrap()) && text.contains("at byte"), "{text}");
    let mut again = World::new(loaded.partitions, first);
    again.go_on(world.epoch - first);
    assert_eq!(again.digests(), world.digests());
    // The log was purged behind the damaged one: the older is no use.
    let error = load(&dir, second).err().unwrap();
    assert!(matches!(error, SnapshotError::Gap { epoch, .. } if epoch == first), "{error}");
}

#[test]
fn with_none_left_only_a_whole_log_will_do() {
    let (_folder, dir, world, _) = two_snapshots();
    newest_first(&dir).unwrap().iter().for_each(|file| damage(file));
    let loaded = load(&dir, 1).unwrap();
    assert_eq!((loaded.epoch(), loaded.refused.len(), loaded.snapshot.is_none()), (0, 2, true));
    let mut again = World::new(loaded.partitions, 0);
    again.go_on(world.epoch);
    assert_eq!(again.digests(), world.digests());
    let error = load(&dir, 2).err().unwrap();
    assert!(error.is_damage(), "{error}");
    let empty = Folder::new();
    let error = load(&empty.0.join("none"), 2).err().unwrap();
    assert!(matches!(error, SnapshotError::Gap { epoch: 0, log_first: 2, .. }), "{error}");
    assert_eq!(load(&empty.0.join("none"), 1).unwrap().partitions.len(), 4);
}

#[test]
fn what_is_there_by_mistake_is_refused_not_passed_over() {
    let (_folder, dir, _, [first, _]) = two_snapshots();
    let right = options(&dir, first);
    let with = |identity| load_newest(&LoadOptions { identity, ..right.clone() }, &|_| {});
    let refused = |identity, word: &str| {
        let error = with(identity).err().unwrap();
        assert!(!error.is_damage() && error.to_string().contains(word), "{error}");
    };
    refused(Identity { cluster_id: 8, ..WHOSE }, "cluster 0000000000000007");
    refused(Identity { secret_digest: 8, ..WHOSE }, "secret");
    refused(Identity { partitions: 8, ..WHOSE }, "partitions 4");
    let limits = Limits { dedupe_window_ms: 1, ..WHOSE.limits };
    refused(Identity { limits, ..WHOSE }, "dedupe_window_ms 60000");
    assert!(with(Identity { node: 2, ..WHOSE }).is_ok(), "another node of the cluster");
}

/// Checksums say that bytes are as they were written, not that they make sense.
#[test]
fn state_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let dir = folder.0.join("snapshots");
    let mut world = World::empty();
    world.go_on(5);
    let real = RealDir::open(&dir).unwrap();
    let mut recorder = Recorder::new(real, &dir, WHOSE, None, &[]).unwrap();
    recorder.begin(1, 1).unwrap();
    let mut image = PartitionImage::new(&STATE).unwrap();
    for number in 0..usize::from(PARTITIONS) {
        world.partitions[number].capture_begin(image);
        while !world.partitions[number].capture_step(usize::MAX) {}
        image = world.partitions[number].capture_end();
        if number == 2 && image.index.cells_len > 1 {
            image.index.cells[1] = image.index.cells[0];
        }
        recorder.add(&image).unwrap();
    }
    recorder.finish(anchor(5)).unwrap();
    let loaded = load(&dir, 1).unwrap();
    assert_eq!(loaded.refused.len(), 1);
    assert!(loaded.refused[0].1.to_string().contains("partition 2"), "{}", loaded.refused[0].1);
}
