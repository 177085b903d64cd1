//! The write-ahead log: what a node promised, on its own disk.
//!
//! ```text
//!  control core: entries, votes, cuts, purges          replay, peers: ranges of entries
//!        |  WalHandle                                          ^
//!        v                                                     | recent ones from memory,
//!  queue -> WRITER THREAD: many jobs, one record --> disk      | older ones from the disk
//!                 |  durable                           |-------+
//!                 v                                    v
//!           callbacks, in order         ring of prefilled segments, recycled, never growing
//! ```
//!
//! | file | owns |
//! |---|---|
//! | [`superblock`] | the facts of a data directory; `datadir`: making one, its lock |
//! | [`disk`] | the small interface to files, and the real disk |
//! | [`record`] | the bytes of one write |
//! | [`wal`] | the ring: append, vote, truncate, purge; one thread |
//! | [`recover`] | what a start makes of what it finds: torn tail cut, rot fenced |
//! | [`reader`] | entries by index, from any thread, beside the writer |
//! | [`repair`] | giving up what rot took, only when asked to |
//! | [`writer`] | the thread that batches jobs into records, and the cache of recent entries |
//! | [`simdisk`] | a disk in memory that records, tears, delays, forgets, rots and fails |
//!
//! **What can be lost.** Nothing whose callback ran with `Ok`. What was queued or in
//! flight at a crash may be there afterwards or not, a record whole or not at all.
//! **What is refused.** Damage below what the disk has acknowledged: the node does not
//! start, and says which file, where, and what the operator can do.

mod datadir;
pub mod disk;
pub mod reader;
pub mod record;
pub mod recover;
pub mod repair;
mod ring;
pub mod simdisk;
pub mod superblock;
pub mod wal;
pub mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod datadir_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod writer_tests;

use std::fmt;

use bytes::Bytes;

use crate::batch::Payload;

/// Name and place of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub node: u64,
    /// Place in the log; the epoch once it is committed.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-N{}.{}", self.term, self.node, self.index)
    }
}

/// What an entry holds.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing: a new leader's first entry, a tick.
    Blank,
    /// A batch of events.
    Batch(Payload),
    /// Members of the cluster, in the encoding of `replicate`.
    Membership(Bytes),
    /// Digests of state and outcomes by partition, in the encoding of `apply`.
    Digests(Bytes),
}

/// Codes of the kinds of body, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyKind {
    /// [`Body::Blank`].
    Blank = 0,
    /// [`Body::Batch`].
    Batch = 1,
    /// [`Body::Membership`].
    Membership = 2,
    /// [`Body::Digests`].
    Digests = 3,
}

impl BodyKind {
    /// The kind with this code.
    #[must_use]
    pub const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Blank),
            1 => Some(Self::Batch),
            2 => Some(Self::Membership),
            3 => Some(Self::Digests),
            _ => None,
        }
    }

    /// Word used in `inspect`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Batch => "batch",
            Self::Membership => "membership",
            Self::Digests => "digests",
        }
    }

    /// The body of this kind that holds `bytes`.
    #[must_use]
    pub fn body(self, bytes: Bytes) -> Body {
        match self {
            Self::Blank => Body::Blank,
            Self::Batch => Body::Batch(Payload::Owned(bytes)),
            Self::Membership => Body::Membership(bytes),
            Self::Digests => Body::Digests(bytes),
        }
    }
}

impl Body {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> BodyKind {
        match self {
            Self::Blank => BodyKind::Blank,
            Self::Batch(_) => BodyKind::Batch,
            Self::Membership(_) => BodyKind::Membership,
            Self::Digests(_) => BodyKind::Digests,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Blank => &[],
            Self::Batch(payload) => payload.as_slice(),
            Self::Membership(bytes) | Self::Digests(bytes) => bytes,
        }
    }
}

/// Equal when kind and bytes are, wherever the bytes are held.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.as_slice() == other.as_slice()
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Its name and place.
    pub id: LogId,
    /// Log time, nanoseconds since the Unix epoch; does not fall from entry to entry.
    pub log_time_ns: u64,
    /// What it holds.
    pub body: Body,
}

/// Whom this node has promised its voice in a term. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// Term it holds for.
    pub term: u64,
    /// Candidate or leader.
    pub node: u64,
    /// Whether a majority has agreed: the leader of the term.
    pub committed: bool,
}

pub use disk::{Disk, DiskFile, RealDisk};
pub use reader::WalReader;
pub use superblock::{DataDir, Superblock};
pub use wal::{Wal, WalError, WalOptions, WalState};
pub use writer::{WalHandle, WalWriter};
