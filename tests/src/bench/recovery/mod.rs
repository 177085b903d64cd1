//! `cargo xtask bench recovery`: how long the real server takes from its start
//! to ready, with a full index behind it and a full log before it.
//!
//! ```text
//!   world       every event that ever happened, by number
//!   directory   a data directory made of it by the crate's own parts: a snapshot
//!               of the first events, a write-ahead log of the next
//!   start       `veltrix run` on it, timed line by line, killed when it is ready
//! ```
//!
//! The server is killed, not stopped, before it can take a snapshot: the next
//! start finds the same snapshot and the same entries.

pub mod directory;
pub mod start;
pub mod world;
