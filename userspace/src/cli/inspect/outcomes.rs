//! `veltrix inspect log --outcomes`: the log judged again, by the same code and
//! from the same bytes as a start would.

use std::sync::Arc;

use serde_json::{Value, json};
use veltrix_abi::Outcome;
use veltrix_abi::outcomes::DUPLICATE_BIT;

use super::super::{CliError, ExitStatus};
use super::log::Survivors;
use super::{Lines, wal_options};
use crate::apply::Partition;
use crate::apply::effects::RESERVED;
use crate::batch::{BatchView, Origin, OutcomeSlots, Pool};
use crate::log::BodyKind;
use crate::log::DataDir;
use crate::log::record::Item;
use crate::log::recover::inspect;
use crate::snapshot::{LoadOptions, load_file, newest_first};

/// The state to begin with: nothing when the log is whole, else the oldest
/// snapshot that the log continues, so that as many entries as possible are
/// judged. Gives the snapshot's epoch.
fn begin(dir: &DataDir, log_first: u64) -> Result<(Vec<Partition>, u64), CliError> {
    let options = LoadOptions::of(dir.superblock(), &dir.snapshots(), log_first);
    if log_first <= 1 {
        let partitions = (0..dir.superblock().partitions)
            .map(|number| Partition::new(number, &options.limits, Arc::clone(&options.secret)))
            .collect::<std::io::Result<_>>()
            .map_err(|e| {
                CliError::new(ExitStatus::HostNotReady, format!("no memory for the state: {e}"))
            })?;
        return Ok((partitions, 0));
    }
    let mut last = None;
    for path in newest_first(&options.dir)?.iter().rev() {
        match load_file(path, &options, &|_| {}) {
            Ok((snapshot, partitions)) => return Ok((partitions, snapshot.manifest.last.index)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(
        || {
            let text = format!(
                "{}: the log begins at {log_first} and there is no snapshot to begin with",
                dir.path().display()
            );
            CliError::new(ExitStatus::Damaged, text)
        },
        CliError::from,
    ))
}

/// One line for each event that is judged.
pub(super) fn dump(
    dir: &DataDir,
    survivors: &Survivors,
    lines: &mut Lines,
) -> Result<Value, CliError> {
    let superblock = dir.superblock();
    let range = survivors.range();
    let log_first = if range.is_empty() { range.start.max(1) } else { range.start };
    let (mut partitions, from) = begin(dir, log_first)?;
    let mut pool = Pool::new(1, superblock.partitions);
    let buffer = pool.take().map(|index| pool.share(index));
    let Some(buffer) = buffer else {
        return Err(CliError::new(ExitStatus::Error, "no buffer for outcomes"));
    };
    let (mut events, mut before, mut unreadable) = (0u64, 0u64, 0u64);
    let options = wal_options(superblock)?;
    inspect(&*dir.wal_disk(), &options, &mut |_, _, record| {
        for (_, item) in record.items() {
            let Item::Entry { id, log_time_ns, kind: BodyKind::Batch, bytes } = item else {
                continue;
            };
            if !survivors.holds(id.index, record.header.sequence) {
                continue;
            }
            let Ok(batch) = BatchView::check(bytes, superblock.partitions) else {
                unreadable += 1;
                continue;
            };
            for range in batch.ranges() {
                let Some(partition) = partitions.get_mut(usize::from(range.partition)) else {
                    continue;
                };
                if partition.epoch() >= id.index {
                    before += u64::from(range.events);
                    continue;
                }
                partition.apply(id.index, log_time_ns, &batch, &range, Some(buffer.slots()));
                for run in batch.runs(&range) {
                    for (event, slot) in run.events.zip(run.first_event..) {
                        // Of what partitions owe each other, replies settle events.
                        if run.origin == Origin::Partition && buffer.slots().outcome(slot) == 0 {
                            continue;
                        }
                        events += u64::from(run.origin == Origin::Sender);
                        lines.push(&line(id.index, slot, &event.key, buffer.slots()));
                    }
                }
            }
        }
    })?;
    let digests: Vec<Value> = partitions
        .iter()
        .map(|p| json!({ "outcomes": p.digest().outcomes, "state": p.digest().state }))
        .collect();
    Ok(json!({
        "events": events,
        "from_snapshot_of_epoch": from,
        "events_in_snapshot": before,
        "batches_unreadable": unreadable,
        "digests": digests,
    }))
}

fn line(epoch: u64, slot: u32, key: &[u8; 16], slots: &OutcomeSlots) -> Value {
    let byte = slots.outcome(slot);
    let duplicate = byte & DUPLICATE_BIT != 0;
    let code = byte & !DUPLICATE_BIT;
    let outcome = Outcome::from_code(code).map(Outcome::label);
    let outcome = outcome.or((code == RESERVED).then_some("reserved"));
    json!({
        "epoch": epoch,
        "slot": slot,
        "key": uuid::Uuid::from_bytes(*key).to_string(),
        "outcome": outcome.unwrap_or("unknown"),
        "duplicate": duplicate,
        "first_epoch": duplicate.then(|| slots.first_epoch(slot)),
    })
}
