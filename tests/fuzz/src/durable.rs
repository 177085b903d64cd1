//! What must hold of the decoders of durable bytes: batches, records of the
//! log, snapshots. Made as [`super::checks`] is.

use std::collections::BTreeSet;

use veltrix::batch::BatchView;
use veltrix::batch::format::{BATCH_EVENTS_MAX, MAGIC as BATCH_MAGIC};
use veltrix::log::record::{
    HEADER_BYTES, Item, MAGIC as RECORD_MAGIC, Record, RecordBuilder, RecordError, RecordHeader,
};
use veltrix::snapshot::{Manifest, SnapshotError, check_bytes};
use veltrix_abi::partition::partition_of;

/// Partitions of the batches.
pub const PARTITIONS: u16 = 8;

/// Key of the log whose records these are.
pub const LOG_KEY: u64 = 0x5eed;

/// Version of the snapshots that are read.
const SNAPSHOT_VERSION: u32 = 5;

/// Verdict on bytes that are not what they should be.
pub const DAMAGED: &str = "damaged";

fn crc(parts: &[&[u8]]) -> u32 {
    crc_fast::crc32_iscsi(&parts.concat())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The decoder of batches. Verdict: `batch` or [`DAMAGED`].
pub fn batch(bytes: &[u8]) -> &'static str {
    let mut mended = bytes.to_vec();
    if let Some(magic) = mended.first_chunk_mut() {
        *magic = BATCH_MAGIC;
        one_batch(&mended);
    }
    one_batch(bytes)
}

fn one_batch(bytes: &[u8]) -> &'static str {
    // Lanes read without a check what was checked or sealed before: whatever
    // the bytes, that must end.
    if let Some(view) = BatchView::of_checked(bytes) {
        for range in view.ranges().take(BATCH_EVENTS_MAX) {
            for run in view.runs(&range).take(BATCH_EVENTS_MAX) {
                assert!(run.events.count() <= usize::from(u16::MAX));
            }
        }
    }
    let Ok(view) = BatchView::check(bytes, PARTITIONS) else { return DAMAGED };
    let header = *view.header();
    let mut slots = BTreeSet::new();
    for (partition, domain, slot, _) in view.events() {
        assert_eq!(partition, partition_of(domain, PARTITIONS));
        assert!(slot < header.events && slots.insert(slot), "slot {slot} of {header:?}");
    }
    assert_eq!(slots.len(), header.events as usize, "{header:?}");
    let events: u32 = view.ranges().map(|range| range.events).sum();
    assert_eq!(events, header.events, "the table counts other events");
    assert!(BatchView::check(&bytes[..bytes.len() - 1], PARTITIONS).is_err());
    "batch"
}

/// The decoder of records. Verdict: `record` or [`DAMAGED`].
pub fn record(bytes: &[u8]) -> &'static str {
    if let Some(mended) = mended_record(bytes) {
        let verdict = Record::check(&mended, LOG_KEY);
        let broken = matches!(
            verdict,
            Err(RecordError::HeaderChecksum { .. } | RecordError::PayloadChecksum { .. })
        );
        assert!(!broken, "a mended checksum is refused");
        one_record(&mended);
    }
    one_record(bytes)
}

/// With checksums as they should be, and as long as it says.
fn mended_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = bytes.to_vec();
    out.first_chunk_mut::<HEADER_BYTES>()?;
    let payload_bytes = (out.len() - HEADER_BYTES) as u32;
    put(&mut out, 48, &payload_bytes.to_le_bytes());
    out.resize(out.len().next_multiple_of(4_096), 0);
    put(&mut out, 0, &RECORD_MAGIC);
    put(&mut out, 4, &1u16.to_le_bytes());
    let payload = crc(&[&out[HEADER_BYTES..]]);
    put(&mut out, 56, &payload.to_le_bytes());
    let header = crc(&[&LOG_KEY.to_le_bytes(), &out[..60]]);
    put(&mut out, 60, &header.to_le_bytes());
    Some(out)
}

fn one_record(bytes: &[u8]) -> &'static str {
    let Ok(record) = Record::check(bytes, LOG_KEY) else { return DAMAGED };
    let items: Vec<Item<'_>> = record.items().map(|(_, item)| item).collect();
    assert_eq!(items.len(), record.header.items as usize);
    let mut builder = RecordBuilder::new();
    for item in &items {
        builder.push(item);
    }
    // What decides is written again; lengths, counts and checksums follow.
    let (again, _) = builder.finish(record.header, LOG_KEY);
    let again = Record::check(again, LOG_KEY).expect("a record written again is sound");
    assert!(again.items().map(|(_, item)| item).eq(items));
    let named = |h: RecordHeader| (h.flags, h.salt, h.sequence, h.segment, h.durable_upto, h.chain);
    assert_eq!(named(again.header), named(record.header));
    assert!(Record::check(bytes, LOG_KEY ^ 1).is_err(), "sound under another key");
    "record"
}

/// The decoder of snapshots. Verdict: `snapshot` or [`DAMAGED`].
pub fn snapshot(bytes: &[u8]) -> &'static str {
    if let Some(mended) = mended_snapshot(bytes) {
        let is_old = matches!(check_bytes(&mended), Err(SnapshotError::Version { .. }));
        assert!(!is_old, "version {SNAPSHOT_VERSION} is refused: nothing behind it is looked at");
        one_snapshot(&mended);
    }
    one_snapshot(bytes)
}

fn one_snapshot(bytes: &[u8]) -> &'static str {
    match check_bytes(bytes) {
        Ok(manifest) => {
            sound_snapshot(bytes, &manifest);
            "snapshot"
        }
        Err(SnapshotError::Damaged { offset, .. }) => {
            assert!(offset <= bytes.len() as u64, "damage at {offset} of {} bytes", bytes.len());
            DAMAGED
        }
        Err(SnapshotError::Version { found, expected, .. }) => {
            assert_ne!(found, expected);
            DAMAGED
        }
        Err(error) => panic!("bytes alone cannot be {error}"),
    }
}

fn sound_snapshot(bytes: &[u8], manifest: &Manifest) {
    let least = manifest.partitions.iter().map(|p| p.epoch).min();
    assert_eq!(least, Some(manifest.last.index));
    assert!(check_bytes(&bytes[..bytes.len() - 1]).is_err(), "sound without its last byte");
    // Every byte is under a checksum: one of them, another for other bytes.
    let at = crc(&[bytes]) as usize % bytes.len();
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1;
    assert!(check_bytes(&flipped).is_err(), "a flipped bit at {at} is not noticed");
}

/// With all checksums as they should be, as far as the parts can be found.
fn mended_snapshot(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 128;
    const BLOCK: usize = 48;
    const TRAILER: usize = 48;
    let mut out = bytes.to_vec();
    let trailer = out.len().checked_sub(TRAILER).filter(|at| *at >= HEADER)?;
    put(&mut out, 0, b"VLTXSNAP");
    put(&mut out, 8, &SNAPSHOT_VERSION.to_le_bytes());
    let sum = crc(&[&out[..12], &out[16..HEADER]]);
    put(&mut out, 12, &sum.to_le_bytes());
    let file_id: [u8; 8] = *out[16..].first_chunk()?;

    let mut at = HEADER;
    while at + BLOCK <= trailer && out[at..].starts_with(b"VSBK") {
        put(&mut out, at + 40, &file_id);
        let stored = u32::from_le_bytes(*out[at + 20..].first_chunk()?) as usize;
        let end = at.checked_add(BLOCK)?.checked_add(stored)?;
        if end > trailer {
            break;
        }
        let sum = crc(&[&out[at..at + 4], &out[at + 8..end]]);
        put(&mut out, at + 4, &sum.to_le_bytes());
        at = end;
    }
    put(&mut out, trailer, b"VSNAPEND");
    let manifest = crc(&[&out[at..trailer]]);
    put(&mut out, trailer + 12, &manifest.to_le_bytes());
    put(&mut out, trailer + 16, &(at as u64).to_le_bytes());
    put(&mut out, trailer + 24, &((trailer - at) as u64).to_le_bytes());
    let file_bytes = out.len() as u64;
    put(&mut out, trailer + 32, &file_bytes.to_le_bytes());
    put(&mut out, trailer + 40, &file_id);
    let sum = crc(&[&out[trailer..trailer + 8], &out[trailer + 12..]]);
    put(&mut out, trailer + 8, &sum.to_le_bytes());
    Some(out)
}
