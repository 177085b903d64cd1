//! `cargo xtask bench wal`: the log beside raft-log and beside the least that a file
//! can do, on one disk, in one run.
//!
//! ```text
//!   subjects   what is measured: ours, raft-log 0.3, write + fdatasync
//!   measure    one by one and several in flight; rounds of all subjects in turn
//! ```
//!
//! Each has a thread of its own that writes, and tells the same channel when an
//! append is durable; the time runs from before the append to that message. Payloads
//! are made before the time runs. Every subject is durable at each message: ours by
//! `O_DIRECT | O_DSYNC`, the others by `fdatasync`.

pub mod measure;
pub mod subjects;
