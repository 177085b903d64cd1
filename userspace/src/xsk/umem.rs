//! Packet memory, cut into frames of one size; a frame is a token.

use std::io;

use crate::base::mem::{HugePages, Pages, Region};

/// One frame of a [`Umem`]. Not `Copy`, not `Clone`: whoever holds it owns
/// the frame's bytes, and gives it up by value.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset of its first byte in the UMEM.
    base: u64,
}

impl Frame {
    /// Offset of its first byte in the UMEM.
    #[must_use]
    #[inline(always)]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Gives the frame to the kernel: the number that goes into a ring.
    #[must_use]
    #[inline(always)]
    pub fn surrender(self) -> u64 {
        self.base
    }
}

/// Packet memory of one socket.
#[derive(Debug)]
pub struct Umem {
    region: Region,
    frame_bytes: u32,
    frames: u32,
}

impl Umem {
    /// Memory for `frames` frames of `frame_bytes` (2,048 or 4,096) and a
    /// token for each.
    ///
    /// # Errors
    ///
    /// As [`Region::new`].
    pub(super) fn new(
        frames: u32,
        frame_bytes: u32,
        huge: HugePages,
    ) -> io::Result<(Self, Vec<Frame>)> {
        assert!(frame_bytes.is_power_of_two() && frames > 0);
        let region = Region::new(frames as usize * frame_bytes as usize, huge)?;
        // The last frame first: the free list is popped from its end.
        let tokens = (0..frames)
            .rev()
            .map(|i| Frame { base: u64::from(i) * u64::from(frame_bytes) })
            .collect();
        Ok((Self { region, frame_bytes, frames }, tokens))
    }

    /// Takes a frame back from the kernel, by any address inside it. `None`
    /// for an address outside the UMEM, which no sound kernel gives.
    ///
    /// The caller vouches that the address came out of a ring, that is: that
    /// the kernel has given the frame up.
    #[must_use]
    #[inline(always)]
    pub(super) fn reclaim(&self, address: u64) -> Option<Frame> {
        let base = address & !u64::from(self.frame_bytes - 1);
        (base < u64::from(self.frames) * u64::from(self.frame_bytes)).then_some(Frame { base })
    }

    /// Bytes of a frame.
    #[must_use]
    #[inline(always)]
    pub fn frame_bytes(&self) -> u32 {
        self.frame_bytes
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes mapped.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.region.bytes()
    }

    /// What backs the memory.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.region.pages()
    }

    /// First byte, for registration with the kernel.
    #[must_use]
    pub(super) fn start(&self) -> *mut u8 {
        self.region.start()
    }

    /// The bytes of a frame.
    #[must_use]
    #[inline(always)]
    pub(super) fn bytes_of<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let start = self.region.start().wrapping_add(frame.base as usize);
        // SAFETY: the token was made for this UMEM (frames of another cannot
        // reach it: each port owns one), lies inside it, and whoever holds it
        // is the only one to touch these bytes: the kernel gave them up.
        unsafe { std::slice::from_raw_parts(start, self.frame_bytes as usize) }
    }

    /// The bytes of a frame, to write.
    #[must_use]
    #[inline(always)]
    pub(super) fn bytes_of_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        let start = self.region.start().wrapping_add(frame.base as usize);
        // SAFETY: as in `bytes_of`; the exclusive borrow of the token makes it
        // the only reference.
        unsafe { std::slice::from_raw_parts_mut(start, self.frame_bytes as usize) }
    }

    /// Asks the core to fetch the line at `address` of the UMEM; an address
    /// outside it is harmless.
    #[inline(always)]
    pub(super) fn prefetch(&self, address: u64) {
        let at = self.region.start().wrapping_add(address as usize);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing the program can see and never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch(at.cast(), std::arch::x86_64::_MM_HINT_T0);
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}
