//! The replicated log behind one narrow trait: bodies go in, committed entries
//! come out, once each and in epoch order.
//!
//! ```text
//!  lanes --sealed batches--> control core
//!                              propose(body): LogClock stamps log time        (no await)
//!                                 | all bodies of a turn in one client_write_many
//!                                 v
//!                              openraft core --append--> Store --> WAL writer thread
//!                                 ^                                   | durable: IOFlushed
//!                                 +-----------------------------------+
//!                                 | committed: a majority has it on disk
//!                                 v
//!                              Machine::apply --Committed::committed(entry)--> router --> lanes
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | [`clock`] | [`LogClock`]: the one clock that apply sees |
//! | [`types`] | openraft's type configuration, and ids to and from [`crate::log`] |
//! | [`members`] | encoding of a membership |
//! | [`store`] | openraft's log storage on the WAL writer |
//! | [`machine`] | openraft's state machine, which only routes; [`SnapshotSource`] |
//! | [`network`] | the reserved place of the peers' connections |
//! | [`raft`] | [`RaftLog`]: start, propose, status, stop |
//!
//! Everything here lives on the control core, in one thread, inside a
//! `tokio::task::LocalSet` of a current-thread runtime; only the WAL writer has
//! a thread of its own. A single node is a cluster of one voter and takes the
//! same path as three.
//!
//! **Who owns what.** The router (a [`Committed`]) is moved into the state
//! machine and called there; when its future waits, later entries wait too, and
//! openraft goes on taking proposals up to its bounds. "Applied" is what the
//! lanes have applied: the router knows, this module does not.
//!
//! **What can be lost.** A proposal that was refused, or that a later leader
//! overwrote: its batch is marked with [`crate::batch::OutcomeSlots::lost`], and
//! its senders get no answer. A proposal that was routed is never lost.

pub mod clock;
pub mod machine;
pub mod members;
pub mod network;
pub mod raft;
pub mod store;
pub mod types;

#[cfg(test)]
mod tests;

use std::future::Future;

use crate::log::{Body, LogEntry};

pub use clock::{Jump, LogClock, Now};
pub use machine::{SnapshotMeta, SnapshotSource};
pub use members::Members;
pub use raft::{RaftLog, Start, StartError, Timing};
pub use store::Store;

/// A body with the log time it was given: what openraft carries as data.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Nanoseconds since the Unix epoch; strictly greater than that of every
    /// entry before it.
    pub log_time_ns: u64,
    /// A batch or digests; blanks and memberships are openraft's own.
    pub body: Body,
}

/// Where committed entries go.
pub trait Committed: 'static {
    /// Takes one committed entry. Called on the control core, in epoch order,
    /// once per entry and life of the process, replayed entries included. While
    /// the future waits nothing else is routed: wait for a full ring, never for
    /// the lanes to apply.
    ///
    /// Blank and membership entries have log time 0: apply takes the maximum.
    fn committed(&mut self, entry: LogEntry) -> impl Future<Output = ()>;
}

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Receives entries and has no vote.
    Learner,
    /// Ended, by request or by an error.
    Stopped,
}

/// Why a body was not taken. Its batch was marked lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another node leads, or none does yet.
    #[error("this node does not lead: send to the leader, or wait for an election")]
    NotLeader,
    /// The WAL has no room until a snapshot lets it be purged.
    #[error("the log has no room for {bytes} bytes: a snapshot must be finished first")]
    Full {
        /// Bytes that were proposed.
        bytes: u64,
    },
    /// The log has ended.
    #[error("the log has stopped")]
    Stopped,
}

/// A view of the log for status pages and alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// What this node is.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// Who leads, as far as is known.
    pub leader: Option<u64>,
    /// Ids of the voters.
    pub voters: Vec<u64>,
    /// Last entry in the log, durable or not.
    pub last_index: Option<u64>,
    /// Last entry that a majority has on disk.
    pub committed_index: Option<u64>,
    /// Last entry handed to the router.
    pub routed_index: Option<u64>,
    /// Last entry of the newest snapshot that the log knows of.
    pub snapshot_index: Option<u64>,
    /// Last entry that was purged.
    pub purged_index: Option<u64>,
    /// Proposals that were taken and not routed yet.
    pub in_flight: u64,
    /// Proposals that were refused or overwritten, since start.
    pub lost: u64,
}

impl LogStatus {
    /// How many voters must have an entry on disk before it commits.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

/// The replicated log, as the control loop sees it.
pub trait ReplicatedLog {
    /// Stamps a body and hands it on. Returns at once: all that is proposed
    /// before the next await goes to the log in one message, in this order.
    ///
    /// # Errors
    ///
    /// Why it was not taken; its batch was marked lost.
    fn propose(&self, body: Body) -> Result<(), Refused>;

    /// Log time now, never behind an entry's stamp: what `hello` answers.
    fn log_time_ns(&self) -> u64;

    /// What this node is. Lanes learn it from the control core and answer
    /// `not-leader` before an event joins a batch.
    fn role(&self) -> Role;

    /// The role whenever it changes.
    fn role_watch(&self) -> tokio::sync::watch::Receiver<Role>;

    /// Index of the last entry that was handed to the router, `None` before
    /// the first, whenever it changes.
    fn routed_watch(&self) -> tokio::sync::watch::Receiver<Option<u64>>;

    /// Numbers for status pages.
    fn status(&self) -> LogStatus;

    /// Waits until this node leads and every entry that its log held at start
    /// was routed.
    ///
    /// # Errors
    ///
    /// The log stopped meanwhile.
    fn ready(&self) -> impl Future<Output = Result<(), Refused>>;

    /// Id of an entry and the membership in effect at it: what a snapshot that
    /// is exact at `index` must carry. `None` when the entry was purged or was
    /// not routed yet.
    fn meta_at(&self, index: u64) -> Option<SnapshotMeta>;

    /// A snapshot is complete and on disk, and entries up to `purge_upto` are
    /// needed no more (two snapshots are kept: give the older one's last
    /// index). Returns before the purge is done.
    ///
    /// # Errors
    ///
    /// The log stopped.
    fn snapshot_taken(&self, purge_upto: Option<u64>) -> impl Future<Output = Result<(), Refused>>;

    /// Hands leadership to the best other voter. Without one it stays here.
    ///
    /// # Errors
    ///
    /// The log stopped.
    fn step_down(&self) -> impl Future<Output = Result<(), Refused>>;

    /// Ends the log: proposals in flight are awaited by nobody and marked
    /// lost, the WAL writer goes on until it is dropped.
    fn stop(&self) -> impl Future<Output = ()>;
}
