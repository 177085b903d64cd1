//! `veltrix inspect log`.

use std::ops::Range;

use clap::Args;
use serde_json::{Value, json};
use veltrix_abi::kinds::EventKind;

use super::super::{CliError, ExitStatus, json_line, print};
use super::{Lines, Looked, outcomes, wal_options};
use crate::batch::BatchView;
use crate::log::DataDir;
use crate::log::record::{Item, Record};
use crate::log::recover::{Inspection, inspect};
use crate::log::{BodyKind, LogId, Vote};

/// What of the log is wanted.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    pub(super) looked: Looked,
    /// Dump every record, a JSON line each, with its items.
    #[arg(long, group = "dump")]
    records: bool,
    /// Dump every event, a JSON line each.
    #[arg(long, group = "dump")]
    events: bool,
    /// Judge every event again, from the oldest snapshot that the log continues
    /// (or from nothing, when the log is whole), and dump what became of it, a
    /// JSON line each.
    #[arg(long, group = "dump")]
    outcomes: bool,
}

/// Which record has the entry of each index that the log holds: an entry that
/// was taken back may be in an earlier one.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    first: u64,
    sequences: Vec<u64>,
}

impl Survivors {
    fn entry(&mut self, index: u64, sequence: u64) {
        match index.checked_sub(self.first) {
            Some(at) if !self.sequences.is_empty() && at <= self.sequences.len() as u64 => {
                self.sequences.truncate(at as usize);
            }
            _ => {
                self.sequences.clear();
                self.first = index;
            }
        }
        self.sequences.push(sequence);
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let kept = last.map_or(0, |last| (last.index + 1).saturating_sub(self.first));
        self.sequences.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Forgets what was purged.
    fn purge(&mut self, purged: Option<LogId>) {
        let Some(purged) = purged else { return };
        let gone = (purged.index + 1).saturating_sub(self.first);
        let gone = usize::try_from(gone).unwrap_or(usize::MAX).min(self.sequences.len());
        self.sequences.drain(..gone);
        self.first = self.first.max(purged.index + 1);
    }

    fn see(&mut self, record: &Record<'_>) {
        for (_, item) in record.items() {
            match item {
                Item::Entry { id, .. } => self.entry(id.index, record.header.sequence),
                Item::Truncate(last) => self.truncate(last),
                Item::Base(_) | Item::Vote(_) | Item::Purge(_) | Item::Committed(_) => {}
            }
        }
    }

    /// Indexes of the entries there are.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.sequences.len() as u64
    }

    /// Whether the entry `index` of the record `sequence` is the one that counts.
    pub(super) fn holds(&self, index: u64, sequence: u64) -> bool {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.sequences.get(at)) == Some(&sequence)
    }
}

pub(super) fn run(args: &LogArgs) -> Result<ExitStatus, CliError> {
    let dir = args.looked.open()?;
    let options = wal_options(dir.superblock())?;
    let disk = dir.wal_disk();
    let mut survivors = Survivors::default();
    let found = inspect(&*disk, &options, &mut |_, _, record| survivors.see(record))?;
    survivors.purge(found.base.purged);
    let mut lines = Lines::new();
    let mut more = Value::Null;
    if args.records {
        inspect(&*disk, &options, &mut |file, offset, record| {
            lines.push(&record_line(file, offset, record));
        })?;
    } else if args.events {
        more = events(&dir, &survivors, &mut lines)?;
    } else if args.outcomes {
        more = outcomes::dump(&dir, &survivors, &mut lines)?;
    }
    lines.finish()?;
    summarize(args, &found, &survivors, &more)
}

/// One line for each event of a batch that counts.
fn events(dir: &DataDir, survivors: &Survivors, lines: &mut Lines) -> Result<Value, CliError> {
    let partitions = dir.superblock().partitions;
    let options = wal_options(dir.superblock())?;
    let (mut events, mut unreadable) = (0u64, 0u64);
    inspect(&*dir.wal_disk(), &options, &mut |_, _, record| {
        for (_, item) in record.items() {
            let Item::Entry { id, log_time_ns, kind: BodyKind::Batch, bytes } = item else {
                continue;
            };
            if !survivors.holds(id.index, record.header.sequence) {
                continue;
            }
            let Ok(batch) = BatchView::check(bytes, partitions) else {
                unreadable += 1;
                continue;
            };
            for (partition, domain, slot, event) in batch.events() {
                events += 1;
                lines.push(&json!({
                    "epoch": id.index,
                    "log_time_ns": log_time_ns,
                    "partition": partition,
                    "domain": domain,
                    "slot": slot,
                    "key": uuid::Uuid::from_bytes(event.key).to_string(),
                    "player": event.player,
                    "kind": EventKind::from_code(event.kind).map_or("unknown", EventKind::label),
                    "kind_code": event.kind,
                    "subject": event.subject,
                    "argument": event.argument,
                    "payload_bytes": event.payload.len(),
                }));
            }
        }
    })?;
    Ok(json!({ "events": events, "batches_unreadable": unreadable }))
}

fn id(id: LogId) -> Value {
    json!({ "term": id.term, "node": id.node, "index": id.index })
}

fn vote(vote: Vote) -> Value {
    json!({ "term": vote.term, "node": vote.node, "committed": vote.committed })
}

fn record_line(file: &str, offset: u64, record: &Record<'_>) -> Value {
    let item = |item: Item<'_>| match item {
        Item::Base(base) => json!({ "item": "base", "vote": base.vote.map(vote),
            "purged": base.purged.map(id), "committed": base.committed.map(id), "last": base.last.map(id) }),
        Item::Vote(given) => json!({ "item": "vote", "vote": vote(given) }),
        Item::Entry { id: at, log_time_ns, kind, bytes } => json!({ "item": "entry", "id": id(at),
            "log_time_ns": log_time_ns, "kind": kind.name(), "bytes": bytes.len() }),
        Item::Truncate(last) => json!({ "item": "truncate", "last": last.map(id) }),
        Item::Purge(upto) => json!({ "item": "purge", "upto": id(upto) }),
        Item::Committed(upto) => json!({ "item": "committed", "upto": id(upto) }),
    };
    let header = &record.header;
    json!({
        "file": file,
        "offset": offset,
        "sequence": header.sequence,
        "segment": header.segment,
        "durable_upto": header.durable_upto,
        "payload_bytes": header.payload_bytes,
        "items": record.items().map(|(_, found)| item(found)).collect::<Vec<_>>(),
    })
}

/// The verdict: after a dump on standard error, unless JSON is wanted.
fn summarize(
    args: &LogArgs,
    found: &Inspection,
    survivors: &Survivors,
    more: &Value,
) -> Result<ExitStatus, CliError> {
    let (report, base, range) = (&found.report, &found.base, survivors.range());
    let damage = found.damage.as_ref().map(ToString::to_string);
    let entries = range.end - range.start;
    let text = if args.looked.json {
        let torn =
            report.torn.as_ref().map(|(file, offset)| json!({ "file": file, "offset": offset }));
        json_line(&json!({
            "verdict": if damage.is_none() { "sound" } else { "damaged" },
            "damage": damage,
            "first": if entries > 0 { json!(range.start) } else { Value::Null },
            "last": base.last.map(id),
            "purged": base.purged.map(id),
            "committed": base.committed.map(id),
            "vote": base.vote.map(vote),
            "entries": entries,
            "segments": report.segments,
            "records": report.records,
            "bytes": report.bytes,
            "torn": torn,
            "in_use_by": args.looked.user(),
            "dump": more,
        }))?
    } else {
        let mut out = args.looked.user_line();
        let show = |at: Option<LogId>| at.map_or("none".to_owned(), |at| at.to_string());
        out.push_str(&format!(
            "entries   {entries}: {} to {}\ncommitted {} (at least), purged {}\nsize      {} records in {} segments, {}\n",
            range.start,
            show(base.last),
            show(base.committed),
            show(base.purged),
            report.records,
            report.segments,
            bytesize::ByteSize(report.bytes).display().iec(),
        ));
        if let Some((file, offset)) = &report.torn {
            out.push_str(&format!("torn end  {file} at byte {offset}: never acknowledged, the next start takes it away\n"));
        }
        if !more.is_null() {
            out.push_str(&format!("dumped    {more}\n"));
        }
        out.push_str(&match &damage {
            None => "sound\n".to_owned(),
            Some(damage) => format!("DAMAGED   {damage}\n"),
        });
        out
    };
    if args.looked.json || !(args.records || args.events || args.outcomes) {
        print(&text)?;
    } else {
        eprint!("{text}");
    }
    Ok(if damage.is_none() { ExitStatus::Ok } else { ExitStatus::Damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_does_not_count() {
        let last = |index| Some(LogId { term: 1, node: 1, index });
        let mut survivors = Survivors::default();
        for (index, sequence) in [(5, 1), (6, 1), (7, 2), (8, 3)] {
            survivors.entry(index, sequence);
        }
        survivors.truncate(last(6));
        assert_eq!(survivors.range(), 5..7);
        survivors.entry(7, 9);
        assert!(survivors.holds(7, 9) && !survivors.holds(7, 2) && survivors.holds(5, 1));
        // A leader's entry in place of another without a truncate between.
        survivors.entry(6, 10);
        assert_eq!(survivors.range(), 5..7);
        survivors.purge(last(5));
        assert!(!survivors.holds(5, 1) && survivors.holds(6, 10));
        // After a gap only what follows it counts.
        survivors.entry(20, 11);
        assert_eq!(survivors.range(), 20..21);
        survivors.truncate(None);
        assert!(survivors.range().is_empty());
    }
}
