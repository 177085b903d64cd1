//! The state of a partition at one epoch, taken while it goes on applying.
//!
//! ```text
//!   capture_begin(image)          between two entries: the image will show the state after this epoch
//!   capture_step(bytes_max) ...   between later entries: copies some more, true when all is there;
//!                                 a write to what is not copied yet copies it first
//!   capture_end() -> image        encoded and written by somebody else, then lent again
//! ```

use std::io;
use std::sync::Arc;

use super::digest::Digest;
use super::games::CLASSES;
use super::outbox::{self, Outbox};
use super::partition::{OUTCOME_SLOTS, Partition, PartitionLimits};
use crate::dedupe::{Dedupe, DedupeImage, Secret};
use crate::index::{Index, IndexImage};

/// Everything a partition was after one epoch: tables as large as its own,
/// reserved once and used for one partition after the other.
pub struct PartitionImage {
    /// The partition's number.
    pub number: u16,
    /// The epoch whose state it shows.
    pub epoch: u64,
    /// Log time of that epoch, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Digest after that epoch.
    pub digest: Digest,
    /// Cells, players, hunts, definitions, deeds.
    pub index: IndexImage,
    /// Idempotency keys.
    pub dedupe: DedupeImage,
    /// What the partition owes others, encoded.
    pub outbox: Vec<u8>,
}

impl PartitionImage {
    /// An empty image, fit for any partition of these limits.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory.
    pub fn new(limits: &PartitionLimits) -> io::Result<Self> {
        Ok(Self {
            number: 0,
            epoch: 0,
            log_time_ns: 0,
            digest: Digest::default(),
            index: IndexImage::new(&limits.index)?,
            dedupe: DedupeImage::new(&limits.dedupe)?,
            outbox: Vec::with_capacity(outbox::IMAGE_BYTES),
        })
    }

    /// Bytes that [`Self::new`] will reserve, whole pages aside.
    #[must_use]
    pub fn bytes_of(limits: &PartitionLimits) -> u64 {
        let dedupe = DedupeImage::bytes_of(&limits.dedupe) as u64;
        IndexImage::bytes_of(&limits.index) + dedupe + outbox::IMAGE_BYTES as u64
    }
}

/// A capture under way: what its image will say, and which half is being copied.
pub(super) struct Captured {
    epoch: u64,
    log_time_ns: u64,
    digest: Digest,
    outbox: Vec<u8>,
    index_is_whole: bool,
}

impl Partition {
    /// Begins to capture the state after [`Self::epoch`] into `image`.
    ///
    /// # Panics
    ///
    /// When a capture is under way, or the image was made for other limits:
    /// bugs of the caller.
    pub fn capture_begin(&mut self, image: PartitionImage) {
        assert!(self.captured.is_none(), "partition {}: two captures", self.number);
        self.index.capture_begin(image.index);
        self.dedupe.capture_begin(image.dedupe);
        // At once: seldom more than a few, 350 KiB at the most.
        let mut outbox = image.outbox;
        self.outbox.encode(&mut outbox);
        self.captured = Some(Captured {
            epoch: self.epoch,
            log_time_ns: self.log_time_ns,
            digest: self.digest,
            outbox,
            index_is_whole: false,
        });
    }

    /// Whether a capture is under way.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.captured.is_some()
    }

    /// Copies about `bytes_max` more; true when the image is whole, and when
    /// none is under way.
    pub fn capture_step(&mut self, bytes_max: usize) -> bool {
        let Some(captured) = &mut self.captured else { return true };
        if !captured.index_is_whole {
            captured.index_is_whole = self.index.capture_step(bytes_max);
            return false;
        }
        self.dedupe.capture_step(bytes_max)
    }

    /// The image. What [`Self::capture_step`] has not copied yet is copied now,
    /// all at once.
    ///
    /// # Panics
    ///
    /// When no capture is under way: a bug of the caller.
    pub fn capture_end(&mut self) -> PartitionImage {
        let captured = self.captured.take().expect("a capture is under way");
        PartitionImage {
            number: self.number,
            epoch: captured.epoch,
            log_time_ns: captured.log_time_ns,
            digest: captured.digest,
            index: self.index.capture_end(),
            dedupe: self.dedupe.capture_end(),
            outbox: captured.outbox,
        }
    }

    /// The partition that an image shows; it goes on with the entry after
    /// [`PartitionImage::epoch`].
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory; an image that does not fit
    /// the limits or contradicts itself.
    pub fn restore(
        limits: &PartitionLimits,
        secret: Arc<Secret>,
        image: &PartitionImage,
    ) -> io::Result<Self> {
        let unsound = || {
            let why = format!("partition {}: what it owes others contradicts itself", image.number);
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let outbox = Outbox::new()?.decode(&image.outbox).ok_or_else(unsound)?;
        let restored = Self {
            number: image.number,
            limits: *limits,
            secret,
            index: Index::restore(&limits.index, &image.index)?,
            dedupe: Dedupe::restore(&limits.dedupe, &image.dedupe)?,
            epoch: image.epoch,
            log_time_ns: image.log_time_ns,
            digest: image.digest,
            outcomes: [0; OUTCOME_SLOTS],
            outbox,
            decided: [0; CLASSES],
            captured: None,
        };
        if restored.owes_soundly() { Ok(restored) } else { Err(unsound()) }
    }
}
