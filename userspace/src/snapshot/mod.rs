//! Snapshots: the state of every partition, each exact at one epoch, in a file
//! from which a start needs to replay little of the log.
//!
//! ```text
//!  lane: capture, page by page --image--> SNAPSHOT THREAD --blocks--> snapshot.partial
//!        ^                                     |                            | all partitions there:
//!        +------------- image, empty again ----+                            v flush, rename, flush
//!                                                            snapshot-<epoch>.vsnap   (the newest two stay)
//!  start: newest sound one --decode, several threads--> partitions --replay from its least epoch--> ready
//! ```
//!
//! | file | owns |
//! |---|---|
//! | [`format`] | the bytes: header, blocks, manifest, trailer |
//! | `sections`, `image` | a partition as tables of bytes |
//! | `encode`, `read` | to and from blocks; everything is checked before it is believed |
//! | `store`, `names` | the directory |
//! | `record` | one snapshot after the other, safe against a crash between any two steps |
//! | `writer` | the thread, the images going round, status and alarm |
//! | `load` | which one is loaded, and how |
//!
//! Partitions are captured one after the other while traffic runs, so each is
//! of another epoch. A snapshot is named by the least of them: replay begins
//! after it, and a partition that is further skips what it has.
//!
//! **What can be lost.** Nothing: a snapshot only saves replay. **What the
//! caller promises**: the log is never purged beyond
//! [`WriterStatus::purge_upto`], so that the older of the two kept can take the
//! place of a newer one that turns out to be damaged.

mod encode;
mod error;
pub mod format;
mod image;
mod load;
mod names;
mod read;
mod record;
mod sections;
mod store;
mod writer;

pub use error::SnapshotError;
pub use format::{Header, Limits, Manifest, PartitionEntry, Position, SectionEntry};
pub use load::{
    LoadOptions, LoadProgress, Loaded, LoadedSnapshot, load_file, load_newest, newest_first,
    partition_limits,
};
pub use read::{FileSource, Snapshot, Source, check_bytes};
pub use record::{Anchor, Identity, KEPT, Recorder, Written};
pub use sections::{Image, Section, SectionKind, StateHead, Target};
pub use store::{RealDir, RealFile, SnapshotDir, SnapshotFile};
pub use writer::{
    Done, FindAnchor, LaneImages, LastSnapshot, OnDone, Running, SnapshotWriter, WriterOptions,
    WriterStatus,
};

#[cfg(test)]
mod tests;
