//! Giving up what rot took: the log is cut at the first damage, and every later
//! record is taken away. Only ever done when an operator asks for it by name.
//!
//! Damaged files are copied first (`segment-00003.vwal.saved-1`). Later records lose
//! their first block, last one first: interrupted anywhere, what is left is still
//! fenced, and the repair can be run again.

use super::disk::{Access, AlignedBuf, BLOCK_BYTES, Disk};
use super::record::Base;
use super::recover::{Cursor, Recovered, search};
use super::ring::{Ring, WalError, WalOptions, segment_name};

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// File and offset where the log ends now; `None` when nothing was damaged.
    pub cut: Option<(String, u64)>,
    /// Sound records that were given up.
    pub records_lost: u64,
    /// Names of the copies made before.
    pub saved: Vec<String>,
    /// What the log says now. An empty base means that the vote is lost too: the node
    /// must not vote before its cluster has gone on to a later term.
    pub base: Base,
}

/// Cuts a damaged log at its first damage. A sound log stays as it is.
///
/// # Errors
///
/// Files that are not this log's; what the disk says.
pub fn repair(disk: &dyn Disk, options: &WalOptions) -> Result<RepairReport, WalError> {
    let ring = Ring::open(disk, options, Access::Write)?;
    let Some(kept) = cut_at(&ring)? else { return Ok(RepairReport::default()) };
    let mut lost = later_records(&ring, kept.end.sequence)?;
    lost.sort_unstable_by_key(|(sequence, ..)| std::cmp::Reverse(*sequence));
    let mut slots: Vec<u64> = lost.iter().map(|(_, slot, _)| *slot).collect();
    slots.push(kept.end.segment % ring.slots());
    slots.sort_unstable();
    slots.dedup();
    let mut saved = Vec::new();
    for slot in slots {
        saved.push(save(disk, &ring, slot)?);
    }
    disk.sync_dir().map_err(ring.io(kept.end.segment, 0, "making the copies' names durable"))?;
    let zeroes = AlignedBuf::zeroed(BLOCK_BYTES);
    for (_, slot, offset) in &lost {
        ring.file(*slot).write_durable_at(zeroes.as_slice(), *offset).map_err(ring.io(
            *slot,
            *offset,
            "taking a record away",
        ))?;
    }
    Ok(RepairReport {
        cut: Some((ring.name(kept.end.segment), kept.end.offset)),
        records_lost: lost.len() as u64,
        saved,
        base: kept.said,
    })
}

/// The log up to its first damage; `None` when it has none.
fn cut_at(ring: &Ring) -> Result<Option<Recovered>, WalError> {
    let mut ceiling = u64::MAX;
    let mut damaged = false;
    loop {
        let (found, rot) = search(ring, ceiling, &mut |_, _, _| {})?;
        let Some(rot) = rot else { return Ok(damaged.then_some(found)) };
        damaged = true;
        let first = found.segments.front().map_or(0, |s| s.number);
        if rot.segment >= first && rot.segment <= found.end.segment + 1 {
            return Ok(Some(found));
        }
        // A segment before the first is gone: the log ends before that one, if there
        // is anything before it.
        match rot.segment.checked_sub(1).filter(|_| rot.segment != u64::MAX) {
            Some(below) => ceiling = below,
            None => return Ok(Some(Recovered::empty())),
        }
    }
}

/// Sequence, slot and offset of every sound record from `sequence` on.
fn later_records(ring: &Ring, sequence: u64) -> Result<Vec<(u64, u64, u64)>, WalError> {
    let mut cursor = Cursor::new(ring);
    let mut records = Vec::new();
    for slot in 0..ring.slots() {
        let mut from = 0;
        while let Some((offset, header)) =
            cursor.find(slot, from, &|header| header.sequence >= sequence)?
        {
            records.push((header.sequence, slot, offset));
            from = offset + BLOCK_BYTES as u64;
        }
    }
    Ok(records)
}

/// Copies a segment under a name that is not taken; gives the name.
fn save(disk: &dyn Disk, ring: &Ring, slot: u64) -> Result<String, WalError> {
    let failed = |e| ring.io(slot, 0, "copying the damaged segment")(e);
    let taken = disk.list().map_err(failed)?;
    let name = (1u32..)
        .map(|n| format!("{}.saved-{n}", segment_name(slot)))
        .find(|name| !taken.contains(name))
        .unwrap_or_default();
    disk.create(&name, ring.segment_bytes, &mut |_| {}).map_err(failed)?;
    let copy = disk.open(&name, Access::Write).map_err(failed)?;
    let mut buffer = AlignedBuf::zeroed(BLOCK_BYTES.max(1 << 20));
    let mut offset = 0;
    while offset < ring.segment_bytes {
        let bytes = (ring.segment_bytes - offset).min(1 << 20);
        let part = &mut buffer.as_mut_slice()[..bytes as usize];
        ring.file(slot).read_at(part, offset).map_err(failed)?;
        copy.write_durable_at(part, offset).map_err(failed)?;
        offset += bytes;
    }
    Ok(name)
}
