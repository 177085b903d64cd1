//! What a partition's dedupe knows of its generations, as plain records.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::{GENERATIONS, Layout};

/// One generation. Without keys it has no first epoch and no key time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Generation {
    /// Epoch of its first key; those of the others are kept as distances.
    pub first_epoch: u64,
    /// Largest key time in it, ms.
    pub key_ms_max: u64,
    /// Keys in it.
    pub len: u64,
}

/// Everything but the keys and their slices. Generations are used in the order
/// of their numbers, around: after the active one comes the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct State {
    pub generations: [Generation; GENERATIONS],
    /// Largest key time of a dropped generation, ms; 0 before the first drop.
    pub dropped_key_ms: u64,
    /// Largest key time of all, ms.
    pub newest_key_ms: u64,
    /// Generations dropped while they held keys of the window.
    pub dropped_early: u64,
    /// Generations closed before they held as many keys as they may.
    pub closed_early: u64,
    /// Number of the generation that takes new keys.
    pub active: u32,
    pub reserved: u32,
    /// The layout it was made for: [`Layout::keys`], `buckets`, `slices`,
    /// `slice_shift`, `window_ms`.
    pub layout: [u64; 5],
}

impl State {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            generations: [Generation::default(); GENERATIONS],
            dropped_key_ms: 0,
            newest_key_ms: 0,
            dropped_early: 0,
            closed_early: 0,
            active: 0,
            reserved: 0,
            layout: Self::signature(layout),
        }
    }

    pub(super) fn signature(layout: &Layout) -> [u64; 5] {
        let Layout { keys, buckets, slices, slice_shift, window_ms, drop_at: _ } = *layout;
        [keys.into(), buckets.into(), slices.into(), slice_shift.into(), window_ms]
    }

    /// The generation after the active one: the next, and the oldest.
    #[inline(always)]
    pub(super) const fn next(&self) -> usize {
        (self.active as usize + 1) % GENERATIONS
    }

    /// Bit g: generation g holds keys.
    pub(super) fn live(&self) -> u8 {
        let bits = self.generations.iter().enumerate();
        bits.fold(0, |live, (g, generation)| live | u8::from(generation.len > 0) << g)
    }
}
