//! A log of four segments of 32 KiB in memory, and what it should hold.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::simdisk::SimDisk;
use super::wal::Staged;
use super::*;

pub(super) fn options(salt: u64) -> WalOptions {
    WalOptions { segment_bytes: 32 << 10, segments_max: 4, log_key: 77, salt }
}

pub(super) fn formatted() -> SimDisk {
    let disk = SimDisk::new();
    Wal::format(&disk, &options(0), &mut |_| {}).unwrap();
    disk
}

pub(super) fn entry(index: u64, term: u64, bytes: usize) -> LogEntry {
    let fill = (index * 31 + term) as u8 | 1;
    LogEntry {
        id: LogId { term, node: 1, index },
        log_time_ns: index * 1_000 + term,
        body: Body::Batch(Payload::Owned(Bytes::from(vec![fill; bytes]))),
    }
}

/// One thing to do to a log.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Index, term, bytes.
    Append(u64, u64, usize),
    /// Term.
    Vote(u64),
    /// Last index that stays.
    Truncate(u64),
    /// Last index that goes.
    Purge(u64),
    /// Index.
    Committed(u64),
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) entries: BTreeMap<u64, LogEntry>,
}

pub(super) fn vote(term: u64) -> Vote {
    Vote { term, node: 2, committed: term.is_multiple_of(2) }
}

impl Model {
    /// What a log does hold.
    pub(super) fn of(wal: &Wal) -> Self {
        let state = wal.state();
        let reader = wal.reader();
        let range = reader.range();
        let mut entries = BTreeMap::new();
        let mut from = range.start;
        while from < range.end {
            let read = reader.read(from, range.end, 10_000).unwrap();
            from += read.len() as u64;
            entries.extend(read.into_iter().map(|entry| (entry.id.index, entry)));
        }
        let WalState { vote, purged, last, committed, .. } = state;
        Self { vote, purged, last, committed, entries }
    }

    fn id(&self, index: u64) -> LogId {
        match (self.entries.get(&index), self.purged) {
            (Some(entry), _) => entry.id,
            (None, Some(purged)) if purged.index == index => purged,
            _ => LogId { term: 1, node: 1, index },
        }
    }

    pub(super) fn apply(&mut self, action: &Action) {
        match action {
            Action::Append(index, term, bytes) => {
                let entry = entry(*index, *term, *bytes);
                self.last = Some(entry.id);
                self.entries.insert(*index, entry);
            }
            Action::Vote(term) => self.vote = Some(vote(*term)),
            Action::Truncate(to) => {
                self.last = Some(self.id(*to));
                self.entries.retain(|index, _| index <= to);
            }
            Action::Purge(upto) => {
                let id = self.id(*upto);
                self.purged = Some(id);
                self.last = self.last.max(Some(id)).filter(|l| l.index >= *upto).or(Some(id));
                self.entries.retain(|index, _| index > upto);
            }
            Action::Committed(index) => self.committed = Some(self.id(*index)),
        }
    }
}

/// Stages an action; it fits.
pub(super) fn stage(wal: &mut Wal, action: &Action) {
    let reader = wal.reader();
    let id = |wal: &Wal, index: u64| match reader.read(index, index + 1, 0) {
        Ok(entries) if !entries.is_empty() => entries[0].id,
        _ => match wal.state().last {
            Some(last) if last.index == index => last,
            _ => LogId { term: 1, node: 1, index },
        },
    };
    let staged = match action {
        Action::Append(index, term, bytes) => {
            let entry = entry(*index, *term, *bytes);
            return assert!(wal.stage(Staged::Entry(&entry)).unwrap());
        }
        Action::Vote(term) => Staged::Vote(vote(*term)),
        Action::Truncate(to) => Staged::Truncate(Some(id(wal, *to))),
        Action::Purge(upto) => Staged::Purge(id(wal, *upto)),
        Action::Committed(index) => return wal.set_committed(id(wal, *index)),
    };
    assert!(wal.stage(staged).unwrap());
}
