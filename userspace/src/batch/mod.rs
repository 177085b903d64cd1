//! Batches: the events a lane sealed together, one entry of the log.
//!
//! ```text
//!   frame --one copy--> open batch (BatchBuf, a buffer of the lane's pool)
//!      seal: stable sort by partition -> table      submit -> control core -> log
//!      commit: owners fill outcome slots            last one done -> the lane acknowledges
//! ```
//!
//! A [`BatchBuf`] is made once and used for ever: the pool keeps one reference,
//! whoever needs bytes or outcomes takes another, and a buffer is free again when
//! only the pool's is left. So nothing is allocated or freed after the start, and a
//! buffer that is still being written to disk, or whose outcomes the lane that owes
//! the answers has not read, can never be overwritten.

pub mod format;
pub mod pool;

use std::sync::Arc;

use bytes::Bytes;

pub use format::{BatchError, BatchView, Origin, Range, Run};
pub use pool::{BatchBuf, OutcomeSlots, Pool};

/// The bytes of a batch, wherever they are held.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Sealed by a lane of this process.
    Pooled(Arc<BatchBuf>),
    /// Read from the log, or received from a peer.
    Owned(Bytes),
}

impl Payload {
    /// The encoded batch.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Pooled(batch) => batch.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }

    /// Where outcomes are wanted: only for a batch that a lane of this process
    /// sealed in this life.
    #[must_use]
    #[inline]
    pub fn slots(&self) -> Option<&OutcomeSlots> {
        match self {
            Self::Pooled(batch) => Some(batch.slots()),
            Self::Owned(_) => None,
        }
    }
}
