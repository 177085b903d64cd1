//! Snapshots whose partitions are plain bytes: the format, its faults, and the
//! order of steps. State of real partitions is in [`restoring`].

mod crashes;
mod damage;
mod files;
mod restoring;
mod thread;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::encode::Encoder;
use super::format::{BLOCK_RAW_BYTES, Header, Limits, Position, SectionEntry};
use super::read::Window;
use super::record::{Anchor, Identity};
use super::sections::{Image, Section, SectionKind, StateHead, Target};
use super::store::SnapshotFile;
use super::{Snapshot, check_bytes};

/// A partition that is some tables of bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain {
    head: StateHead,
    sections: Vec<(SectionKind, u16, Vec<u8>)>,
}

impl Plain {
    /// Partition `number` at `epoch`: a table that compresses, one that does
    /// not, one of zeros and an empty one.
    fn new(number: u16, epoch: u64, bytes: usize) -> Self {
        let head = StateHead {
            number,
            epoch,
            log_time_ns: epoch * 1_000,
            digest_outcomes: epoch ^ 0x55,
            digest_state: epoch ^ 0xaa,
            keys: epoch / 2,
        };
        let mut x = epoch + u64::from(number) + 1;
        let noise = (0..bytes).map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        });
        let sections = vec![
            (SectionKind::Hunts, 0, Vec::new()),
            (SectionKind::Cells, 0, (0..bytes).map(|i| (i / 100) as u8).collect()),
            (SectionKind::DedupeKeys, 0, noise.collect()),
            (SectionKind::DedupeKeys, 3, vec![0; bytes]),
        ];
        Self { head, sections }
    }
}

impl Image for Plain {
    fn head(&self) -> StateHead {
        self.head
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let section =
            |(kind, index, bytes): &'_ (SectionKind, u16, Vec<u8>)| (*kind, *index, bytes.len());
        self.sections
            .iter()
            .map(|s| {
                let (kind, index, _) = section(s);
                Section { kind, index, record_bytes: 1, bytes: &s.2 }
            })
            .collect()
    }

    fn begin(&mut self, head: &StateHead, sections: &[SectionEntry]) -> Result<(), String> {
        self.head = *head;
        self.sections = sections
            .iter()
            .map(|s| {
                let kind = SectionKind::from_label(&s.section).ok_or("unknown section")?;
                Ok((kind, s.index, vec![0xee; s.records as usize]))
            })
            .collect::<Result<_, String>>()?;
        Ok(())
    }
}

impl Target for Plain {
    fn place(
        &mut self,
        kind: SectionKind,
        index: u16,
        offset: u64,
        bytes: usize,
    ) -> Option<&mut [u8]> {
        let section = self.sections.iter_mut().find(|s| (s.0, s.1) == (kind, index))?;
        section.2.get_mut(offset as usize..offset as usize + bytes)
    }
}

/// A file in memory.
#[derive(Clone, Default)]
struct MemoryFile(Rc<RefCell<Vec<u8>>>);

impl SnapshotFile for MemoryFile {
    fn write_at(&mut self, blocks: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && blocks.len().is_multiple_of(4096));
        assert_eq!(blocks.as_ptr().align_offset(4096), 0, "direct I/O wants aligned memory");
        let mut bytes = self.0.borrow_mut();
        let end = offset as usize + blocks.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(blocks);
        Ok(())
    }

    fn finish(&mut self, bytes: u64) -> io::Result<()> {
        self.0.borrow_mut().truncate(bytes as usize);
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    cells_max: 10,
    players_max: 20,
    hunts_max: 30,
    definitions_max: 16,
    deeds_max: 100,
    dedupe_keys_max: 40,
    dedupe_window_ms: 50,
};

const fn identity(partitions: u16) -> Identity {
    Identity { cluster_id: 7, node: 1, partitions, secret_digest: 9, limits: LIMITS }
}

fn anchor(index: u64) -> Anchor {
    Anchor { last: Position { term: 2, node: 1, index }, membership: b"members".to_vec() }
}

/// The file of these partitions.
fn encode(images: &[Plain]) -> Vec<u8> {
    let header = Header {
        file_id: 0x1122_3344_5566_7788,
        cluster_id: 7,
        node: 1,
        secret_digest: 9,
        created_ns: 1_000,
        partitions: images.len() as u16,
    };
    let file = MemoryFile::default();
    let mut encoder = Encoder::new(file.clone(), header, None).unwrap();
    for image in images {
        encoder.partition(&image.head, &image.sections()).unwrap();
    }
    let least = images.iter().map(|i| i.head.epoch).min().unwrap_or(0);
    let (_, bytes) = encoder.finish(anchor(least), LIMITS).unwrap();
    let out = file.0.borrow().clone();
    assert_eq!(out.len() as u64, bytes);
    out
}

fn decode(bytes: &[u8]) -> Vec<Plain> {
    let snapshot = Snapshot::of(Path::new("memory"), bytes).unwrap();
    let mut window = Window::default();
    let partitions = snapshot.manifest().partitions.iter().map(|entry| {
        let mut image = Plain::default();
        image.begin(&StateHead::from(entry), &entry.sections).unwrap();
        snapshot.read_partition(entry, &mut window, &mut image).unwrap();
        image
    });
    partitions.collect()
}

/// A folder that goes away with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("veltrix-snapshot-test-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_written_is_read_in_any_order_of_partitions(
        sizes in proptest::collection::vec(
            prop_oneof![Just(0usize), 1..5_000usize, BLOCK_RAW_BYTES - 2..BLOCK_RAW_BYTES + 3], 1..5),
        turn in 0usize..5,
    ) {
        let mut images: Vec<Plain> = (0u16..)
            .zip(&sizes)
            .map(|(number, bytes)| Plain::new(number, 100 + u64::from(number % 3), *bytes))
            .collect();
        let wanted = images.clone();
        images.rotate_left(turn % sizes.len());
        let bytes = encode(&images);
        prop_assert_eq!(decode(&bytes), wanted);
        let manifest = check_bytes(&bytes).unwrap();
        prop_assert_eq!(manifest.last.index, 100);
        prop_assert_eq!(&manifest.membership[..], b"members");
        prop_assert_eq!(manifest.limits, LIMITS);
    }
}

/// What was written once must be readable for ever: a change of this number is
/// a change of the format, and wants another version.
#[test]
fn the_encoding_never_changes() {
    let bytes = encode(&[Plain::new(0, 7, 3_000), Plain::new(1, 5, 10)]);
    assert_eq!((bytes.len(), crc_fast::crc32_iscsi(&bytes)), (4_768, 1_961_319_672));
}

#[test]
fn repetition_and_zeros_cost_little_and_noise_no_more_than_itself() {
    let image = Plain::new(0, 1, 1 << 20);
    let bytes = encode(std::slice::from_ref(&image));
    let noise = 1 << 20;
    assert!((noise..noise + 40_000).contains(&bytes.len()), "{}", bytes.len());
}
