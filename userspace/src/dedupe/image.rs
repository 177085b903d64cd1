//! Copies of a partition's dedupe as it was at one moment, taken while it goes
//! on, and what is made of them.
//!
//! ```text
//!   capture_begin: state and slices are copied at once (some KiB)
//!   capture_step:  pages of keys not copied yet, in order
//!   any write:     the page it falls on first, unless it is copied
//!   capture_end:   what is left, and the image is the caller's again
//! ```

use std::io;

use thiserror::Error;
use zerocopy::IntoBytes;

use crate::base::table::Table;

use super::Dedupe;
use super::bucket::Bucket;
use super::layout::{DedupeLimits, GENERATIONS, Layout};
use super::state::State;

/// Buckets that are copied together: 16 KiB.
const PAGE_BUCKETS: usize = 256;

/// Reserved memory for the dedupe of one partition, and what was copied there.
///
/// A snapshot holds [`state`](Self::state), [`slices`](Self::slices) and the
/// bytes of every [`generation`](Self::generation) there is, and writes the
/// same back through the `_mut` methods, the state first. Integers are in the
/// order of the machine: little-endian ones only.
#[derive(Debug)]
pub struct DedupeImage {
    layout: Layout,
    state: State,
    slices: Table<u8>,
    keys: Table<Bucket>,
    /// Bit p % 64 of word p / 64: page p is copied, or holds nothing to copy.
    copied: Box<[u64]>,
}

/// An image that contradicts itself or the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Made under other limits.
    #[error(
        "dedupe image of {found:?} (keys, buckets, slices, slice shift, window ms), this data \
         directory has {wanted:?}: the snapshot belongs to another configuration"
    )]
    Layout {
        /// In the image.
        found: [u64; 5],
        /// From the limits.
        wanted: [u64; 5],
    },
    /// The active generation is none.
    #[error("dedupe image names generation {0} as active, there are 8: the snapshot is damaged")]
    Active(u32),
    /// Keys and their count differ.
    #[error(
        "dedupe generation {generation} holds {found} keys, its head says {wanted}: the snapshot \
         is damaged"
    )]
    Keys {
        /// Which.
        generation: usize,
        /// Keys counted.
        found: u64,
        /// Keys announced.
        wanted: u64,
    },
    /// A bucket that no sequence of keys leaves behind.
    #[error("dedupe generation {generation}, bucket {bucket} is damaged, and so is the snapshot")]
    Bucket {
        /// Which.
        generation: usize,
        /// Which of it.
        bucket: usize,
    },
}

impl From<ImageError> for io::Error {
    fn from(error: ImageError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl DedupeImage {
    /// An empty image, fit for any partition of these limits.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory; limits that cannot be.
    pub fn new(limits: &DedupeLimits) -> io::Result<Self> {
        let layout = Layout::new(limits)?;
        let pages = layout.buckets_total().div_ceil(PAGE_BUCKETS);
        Ok(Self {
            layout,
            state: State::new(&layout),
            slices: Table::new(layout.slices as usize)?,
            keys: Table::new(layout.buckets_total())?,
            copied: vec![0; pages.div_ceil(64)].into(),
        })
    }

    /// Bytes reserved for an image of these limits; 0 for limits that cannot be.
    #[must_use]
    pub fn bytes_of(limits: &DedupeLimits) -> usize {
        Dedupe::bytes_of(limits).total()
    }

    /// Generations, whether there are keys in them or not.
    pub const GENERATIONS: usize = GENERATIONS;

    /// Keys in it.
    #[must_use]
    pub fn keys_len(&self) -> u64 {
        self.state.generations.iter().map(|g| g.len).fold(0, u64::saturating_add)
    }

    /// Everything but slices and keys: a few hundred bytes.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        self.state.as_bytes()
    }

    /// The state's bytes, to be read into. All bytes are taken; those that make
    /// no sense are refused by [`Dedupe::restore`].
    pub fn state_mut(&mut self) -> &mut [u8] {
        self.state.as_mut_bytes()
    }

    /// Which generations hold which key times.
    #[must_use]
    pub fn slices(&self) -> &[u8] {
        &self.slices
    }

    /// The slices' bytes, to be read into.
    pub fn slices_mut(&mut self) -> &mut [u8] {
        &mut self.slices
    }

    /// The keys of a generation as bytes; `None` when it has none, or there is
    /// no such generation.
    #[must_use]
    pub fn generation(&self, generation: usize) -> Option<&[u8]> {
        let head = self.state.generations.get(generation)?;
        (head.len > 0).then(|| self.buckets(generation).as_bytes())
    }

    /// The bytes of a generation, to be read into; `None` when there is no such
    /// generation.
    pub fn generation_mut(&mut self, generation: usize) -> Option<&mut [u8]> {
        let buckets = self.layout.buckets as usize;
        (generation < GENERATIONS)
            .then(|| self.keys[generation * buckets..][..buckets].as_mut_bytes())
    }

    fn buckets(&self, generation: usize) -> &[Bucket] {
        let buckets = self.layout.buckets as usize;
        &self.keys[generation * buckets..][..buckets]
    }

    /// Takes over what is copied at once. Pages wholly of generations without
    /// keys are left as they are: nobody will look at them.
    fn begin(&mut self, state: &State, slices: &[u8]) {
        self.state = *state;
        self.slices.copy_from_slice(slices);
        self.copied.fill(0);
        let buckets = self.layout.buckets as usize;
        for (g, generation) in state.generations.iter().enumerate() {
            // A page that two generations share is copied.
            let first = (g * buckets).div_ceil(PAGE_BUCKETS);
            let after = (g + 1) * buckets / PAGE_BUCKETS;
            if generation.len == 0 {
                (first..after).for_each(|page| self.mark(page));
            }
        }
    }

    #[inline(always)]
    fn is_copied(&self, page: usize) -> bool {
        self.copied[page / 64] >> (page % 64) & 1 != 0
    }

    #[inline(always)]
    fn mark(&mut self, page: usize) {
        self.copied[page / 64] |= 1 << (page % 64);
    }

    fn copy(&mut self, keys: &[Bucket], page: usize) {
        let from = page * PAGE_BUCKETS;
        let to = keys.len().min(from + PAGE_BUCKETS);
        self.keys[from..to].copy_from_slice(&keys[from..to]);
        self.mark(page);
    }

    /// Whether state and keys agree with each other and with the layout.
    fn check(&self, layout: &Layout) -> Result<(), ImageError> {
        let (found, wanted) = (self.state.layout, State::signature(layout));
        if found != wanted || self.layout != *layout {
            return Err(ImageError::Layout { found, wanted });
        }
        if self.state.active as usize >= GENERATIONS {
            return Err(ImageError::Active(self.state.active));
        }
        for (generation, head) in self.state.generations.iter().enumerate() {
            let mut found = 0;
            if head.len > 0 {
                for (bucket, keys) in self.buckets(generation).iter().enumerate() {
                    let len = keys.len().ok_or(ImageError::Bucket { generation, bucket })?;
                    found += u64::from(len);
                }
            }
            if found != head.len || found > u64::from(layout.keys) {
                return Err(ImageError::Keys { generation, found, wanted: head.len });
            }
        }
        Ok(())
    }
}

/// A capture under way.
#[derive(Debug)]
pub(super) struct Capture {
    image: DedupeImage,
    /// All pages before it are copied.
    page: usize,
}

impl Capture {
    /// Copies the page of a bucket that is about to change.
    #[inline(always)]
    pub(super) fn save(&mut self, keys: &[Bucket], bucket: usize) {
        let page = bucket / PAGE_BUCKETS;
        if !self.image.is_copied(page) {
            self.image.copy(keys, page);
        }
    }
}

/// Capture.
impl Dedupe {
    /// Begins to copy everything as it is now into `image`.
    ///
    /// # Panics
    ///
    /// When a capture is under way, or the image was made for other limits:
    /// bugs of the caller.
    pub fn capture_begin(&mut self, mut image: DedupeImage) {
        assert!(self.capture.is_none(), "two captures of one partition's dedupe");
        assert_eq!(image.layout, self.layout, "an image of other limits");
        image.begin(&self.state, &self.slices);
        self.capture = Some(Capture { image, page: 0 });
    }

    /// Copies on, about `bytes_max` bytes and at least one page of 16 KiB;
    /// whether all is copied. `true` when no capture is under way.
    pub fn capture_step(&mut self, bytes_max: usize) -> bool {
        let Some(capture) = &mut self.capture else { return true };
        let pages = self.keys.len().div_ceil(PAGE_BUCKETS);
        let mut left = (bytes_max / (PAGE_BUCKETS * size_of::<Bucket>())).max(1);
        while capture.page < pages && left > 0 {
            if !capture.image.is_copied(capture.page) {
                capture.image.copy(&self.keys, capture.page);
                left -= 1;
            }
            capture.page += 1;
        }
        capture.page == pages
    }

    /// Copies what is left, all at once, and gives the image back.
    ///
    /// # Panics
    ///
    /// When no capture is under way: a bug of the caller.
    pub fn capture_end(&mut self) -> DedupeImage {
        self.capture_step(usize::MAX);
        self.capture.take().expect("a capture is under way").image
    }

    /// The dedupe that an image shows. It answers every sequence of calls as
    /// the captured one does.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much memory; limits that cannot be; an
    /// [`ImageError`] as `InvalidData`.
    pub fn restore(limits: &DedupeLimits, image: &DedupeImage) -> io::Result<Self> {
        let mut dedupe = Self::new(limits)?;
        image.check(&dedupe.layout)?;
        dedupe.state = image.state;
        let live = image.state.live();
        for (to, from) in dedupe.slices.iter_mut().zip(image.slices.iter()) {
            *to = from & live;
        }
        let buckets = dedupe.layout.buckets as usize;
        for generation in (0..GENERATIONS).filter(|g| live >> g & 1 != 0) {
            let to = &mut dedupe.keys[generation * buckets..][..buckets];
            to.copy_from_slice(image.buckets(generation));
        }
        Ok(dedupe)
    }
}
