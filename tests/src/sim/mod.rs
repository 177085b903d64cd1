//! Seeded simulation of one node: batches, log, dedupe, apply and snapshots
//! over a disk and clocks that misbehave, with an oracle that misses nothing.
//!
//! ```text
//!   clients (retries, old packets, nonsense)
//!      |  datagrams                                    ^ acks
//!      v                                               |
//!   lanes: batch -> LogClock -> WAL on a faulty disk -> apply -> outcome slots      <- THE NODE, real code
//!      ^ partitions wander between lanes        snapshots, captured page by page
//!      |
//!   crash at any step; recovery = newest sound snapshot + replay; crash in that, too
//! ```
//!
//! One thread, no clock, no randomness but the seed's: a seed always does the
//! same, so what fails once fails again. `cargo xtask sim --seeds N` runs many.
//!
//! The code under test is the server's own: `batch`, `log`, `dedupe`, `index`,
//! `apply`, `snapshot` and the clock of `replicate`. What is played here is what
//! threads, rings and the network do between them. What must hold is in
//! [`oracle`], and [`Bug`] plants mistakes that it must find: an oracle that
//! never complains proves nothing.

pub mod clients;
pub mod compare;
pub mod files;
pub mod lane;
pub mod logdisk;
pub mod node;
pub mod oracle;
pub mod recovery;
pub mod rng;
pub mod world;

use std::fmt;

pub use world::Summary;

/// A mistake that is planted in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Entries are applied and acknowledged before they are on disk.
    AckBeforeDurable,
    /// The disk says that a write is durable, and keeps it in its cache.
    FlushDropped,
    /// The disk says that a write is durable while it still flushes it.
    FlushDelayed,
    /// A snapshot is written with empty dedupe tables.
    DedupeNotRestored,
    /// A snapshot says of its partitions that they are one epoch further.
    SnapshotAhead,
    /// A snapshot says of its partitions that they are one epoch behind.
    SnapshotBehind,
    /// A partition does not wait at its new owner for entries before it came.
    MoveWithoutWaiting,
    /// The log is purged to where the furthest partition is.
    PurgedTooFar,
    /// Log time begins at the wall clock, whatever the log says.
    ClockForgotten,
}

impl Bug {
    /// Every one.
    pub const ALL: &'static [Self] = &[
        Self::AckBeforeDurable,
        Self::FlushDropped,
        Self::FlushDelayed,
        Self::DedupeNotRestored,
        Self::SnapshotAhead,
        Self::SnapshotBehind,
        Self::MoveWithoutWaiting,
        Self::PurgedTooFar,
        Self::ClockForgotten,
    ];
}

/// A seed whose run broke a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Step at which it was noticed.
    pub step: u64,
    /// What was wrong.
    pub what: oracle::Violation,
    /// What happened shortly before.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.what)?;
        write!(f, "repeat it: cargo xtask sim --seed {}", self.seed)
    }
}

impl std::error::Error for Failure {}

/// Runs a seed.
///
/// # Errors
///
/// The promise that was broken, and how to see it broken again.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    simulate(seed, None)
}

/// Runs a seed with a mistake planted.
///
/// # Errors
///
/// What the oracle noticed: the wanted end.
pub fn run_with(seed: u64, bug: Bug) -> Result<Summary, Failure> {
    simulate(seed, Some(bug))
}

fn simulate(seed: u64, bug: Option<Bug>) -> Result<Summary, Failure> {
    let unborn = |what| Failure { seed, step: 0, what, story: Vec::new() };
    world::World::new(seed, bug).map_err(unborn)?.run()
}
