//! Sizes of a partition's dedupe, all derived from its limits.

use std::io;

use thiserror::Error;

use crate::base::mem::HUGE_PAGE_BYTES;

use super::bucket::{BUCKET_KEYS, Bucket, REACH};
use super::fingerprint::Fingerprint;

/// Generations. More of them drop less at a time; each is one more place where
/// a key of an uncertain time may be.
pub(super) const GENERATIONS: usize = 8;

/// A key ahead of log time by more than this is refused, ms.
pub const KEY_AHEAD_MS_MAX: u64 = 2_000;

/// Chance of a false duplicate that no configuration may exceed, an event.
pub const FALSE_DUPLICATE_MAX: f64 = 1e-15;

/// Full places of 100 in a generation that is closed, at most. More would save
/// bytes and lengthen the ways that [`REACH`] tells of: at 90 the farthest key
/// goes nearly twice as far.
const LOAD_PERCENT_MAX: u64 = 86;

/// Slices of key time, at least and at most. Finer slices let fewer look-ups
/// touch a second generation; each costs a byte.
const SLICES_MIN: u64 = 256;
const SLICES_MAX: u64 = 65_536;

/// Capacity of one partition, and how long a key is remembered. Replicas must
/// agree on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeLimits {
    /// Keys that are always held once as many have come: the newest ones.
    /// While a generation fills, up to 19 % more are.
    pub keys_max: u32,
    /// A key older than log time by this much is `too-old`, ms.
    pub window_ms: u64,
}

/// Limits that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// No keys.
    #[error("dedupe_keys_max is 0 a partition, at least 1 is wanted: raise dedupe_keys_max")]
    NoKeys,
    /// No window.
    #[error("dedupe window is 0 ms, at least 1 is wanted: every key would be too old")]
    NoWindow,
}

impl From<LimitsError> for io::Error {
    fn from(error: LimitsError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Bytes reserved for one partition, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeBytes {
    /// Fingerprints, outcomes and epochs; whole huge pages from 2 MiB on.
    pub keys: usize,
    /// Which generation holds which key times.
    pub slices: usize,
}

impl DedupeBytes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.keys + self.slices
    }
}

/// What the limits come to. Replicas derive the same from the same limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Keys after which a generation is closed.
    pub keys: u32,
    /// Keys in the active generation at which the oldest is dropped; from then
    /// on its buckets are cleared, some with each key.
    pub drop_at: u32,
    /// Buckets of a generation.
    pub buckets: u32,
    /// Slices of key time, a power of two.
    pub slices: u32,
    /// A slice is 2^shift ms wide.
    pub slice_shift: u32,
    /// [`DedupeLimits::window_ms`].
    pub window_ms: u64,
}

impl Layout {
    pub(super) fn new(limits: &DedupeLimits) -> Result<Self, LimitsError> {
        if limits.keys_max == 0 {
            return Err(LimitsError::NoKeys);
        }
        if limits.window_ms == 0 {
            return Err(LimitsError::NoWindow);
        }
        // Just after a drop there are G - 2 closed generations and three
        // quarters of the active one.
        let quarters = 4 * (GENERATIONS as u64 - 2) + 3;
        let keys = (u64::from(limits.keys_max) * 4).div_ceil(quarters);
        let places = (keys * 100).div_ceil(LOAD_PERCENT_MAX);
        let buckets = whole_pages(places.div_ceil(BUCKET_KEYS as u64));
        let slices = (8 * keys).next_power_of_two().clamp(SLICES_MIN, SLICES_MAX);
        let span_ms = limits.window_ms.saturating_add(KEY_AHEAD_MS_MAX);
        let slice_shift =
            (0..63).find(|s| (span_ms >> s).saturating_add(2) <= slices).unwrap_or(63);
        Ok(Self {
            keys: keys as u32,
            drop_at: (keys - keys / 4) as u32,
            buckets: buckets as u32,
            slices: slices as u32,
            slice_shift,
            window_ms: limits.window_ms,
        })
    }

    /// Buckets of all generations.
    pub(super) const fn buckets_total(&self) -> usize {
        self.buckets as usize * GENERATIONS
    }

    /// Buckets to clear with each key after the drop, so that all are clear
    /// when the generation is closed.
    #[inline(always)]
    pub(super) const fn clear_stride(&self) -> usize {
        let left = self.keys - self.drop_at;
        if left == 0 { self.buckets as usize } else { self.buckets.div_ceil(left) as usize }
    }

    #[inline(always)]
    pub(super) const fn slice(&self, key_ms: u64) -> usize {
        (key_ms >> self.slice_shift) as usize & (self.slices as usize - 1)
    }

    pub(super) const fn bytes(&self) -> DedupeBytes {
        let keys = self.buckets_total() * size_of::<Bucket>();
        let keys =
            if keys < HUGE_PAGE_BYTES { keys } else { keys.next_multiple_of(HUGE_PAGE_BYTES) };
        DedupeBytes { keys, slices: self.slices as usize }
    }
}

/// Bytes of keys from which on they have huge pages to themselves: below, tables
/// share them (see [`Table`](crate::base::table::Table)).
const HUGE_FROM_BYTES: u64 = HUGE_PAGE_BYTES as u64;

/// Buckets of a generation such that all of them fill whole huge pages, when
/// they have some to themselves: the space would be reserved anyway.
const fn whole_pages(buckets: u64) -> u64 {
    const SET_BYTES: u64 = (size_of::<Bucket>() * GENERATIONS) as u64;
    if buckets * SET_BYTES < HUGE_FROM_BYTES {
        buckets
    } else {
        buckets.next_multiple_of(HUGE_PAGE_BYTES as u64 / SET_BYTES)
    }
}

/// Chance that an event whose key is new is answered as a duplicate, with
/// every place taken that may be: the number of keys held, times the chance
/// that one of them agrees in the 96 bits that are compared and lies within
/// reach of the event's home. Bucket and compared bits are different bits of
/// the fingerprint, which are independent (see [`super::fingerprint()`]). Below
/// [`FALSE_DUPLICATE_MAX`] for all limits; 0 for those that cannot be.
#[must_use]
pub fn false_duplicate_probability(limits: &DedupeLimits) -> f64 {
    let Ok(layout) = Layout::new(limits) else { return 0.0 };
    let held = f64::from(layout.keys) * GENERATIONS as f64;
    let reach = f64::from(REACH.min(layout.buckets)) / f64::from(layout.buckets);
    held * reach * 2f64.powi(-(Fingerprint::STORED_BITS as i32))
}

// Held keys times reach over buckets is at most places visited in all
// generations, whatever the limits; with 2^-96 that is far below the bound.
const _: () = {
    let visited = GENERATIONS as u64 * BUCKET_KEYS as u64 * REACH as u64;
    let bits = Fingerprint::STORED_BITS - visited.ilog2() - 1;
    assert!(1.0 / (1u64 << 60) as f64 * (1.0 / (1u64 << (bits - 60)) as f64) < FALSE_DUPLICATE_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(keys_max: u32, window_ms: u64) -> Layout {
        Layout::new(&DedupeLimits { keys_max, window_ms }).unwrap()
    }

    #[test]
    fn the_promised_keys_are_held_after_a_drop() {
        for keys_max in [1, 2, 3, 4, 5, 7, 27, 100, 1_000, 453_125, 29_000_000, u32::MAX] {
            let layout = layout(keys_max, 600_000);
            let held = 6 * u64::from(layout.keys) + u64::from(layout.drop_at);
            assert!(held >= u64::from(keys_max), "{layout:?}");
            let places = u64::from(layout.buckets) * 4;
            assert!(u64::from(layout.keys) * 100 <= places * LOAD_PERCENT_MAX);
            let left = u64::from(layout.keys - layout.drop_at).max(1);
            assert!(layout.clear_stride() as u64 * left >= u64::from(layout.buckets));
        }
    }

    #[test]
    fn a_key_costs_less_than_24_bytes() {
        let bytes = layout(29_000_000 / 64, 600_000).bytes().total();
        assert!((bytes as f64) < 24.0 * 29_000_000.0 / 64.0, "{bytes}");
    }

    #[test]
    fn live_key_times_never_share_a_slice() {
        for window_ms in [1, 1_000, 600_000, 86_400_000, 1 << 47] {
            let layout = layout(1_000_000, window_ms);
            let span = window_ms + KEY_AHEAD_MS_MAX;
            for from in [0, 1, 12_345_678, 1_700_000_000_123] {
                let slices = ((from + span) >> layout.slice_shift) - (from >> layout.slice_shift);
                assert!(slices < u64::from(layout.slices), "{layout:?}");
            }
        }
        // No window is too long to compute with.
        assert!(layout(1, u64::MAX).slice(u64::MAX) < 256);
    }

    #[test]
    fn false_duplicates_are_far_rarer_than_promised() {
        for keys_max in [1, 100, 453_125, 29_000_000, u32::MAX] {
            let limits = DedupeLimits { keys_max, window_ms: 600_000 };
            let p = false_duplicate_probability(&limits);
            assert!(p > 0.0 && p < 1e-24, "{p}");
        }
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        let refused = |keys_max, window_ms| Layout::new(&DedupeLimits { keys_max, window_ms });
        assert_eq!(refused(0, 1), Err(LimitsError::NoKeys));
        assert_eq!(refused(1, 0), Err(LimitsError::NoWindow));
    }
}
