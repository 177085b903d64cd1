//! Exact deduplication of one partition's events: nothing is applied twice,
//! however late the retry.
//!
//! ```text
//!            too-old            |        looked up        |  too-new
//!  ---------------------------- horizon ----------------- log time + 2 s ---> key time
//!
//!   generation   5    6    7    0    1    2    3     4
//!              [old][   ][   ][   ][   ][   ][   ][active..   ]   in epoch order
//!                ^ dropped when the active one is three quarters full,
//!                  and cleared while the last quarter fills
//! ```
//!
//! A key is kept as 96 bits of a keyed [`fingerprint()`], the outcome and the
//! epoch of its event: 16 bytes. Keys go to the active generation; when it is
//! full, the oldest, empty by then, becomes the active one. Eight generations
//! are one table of buckets of four keys, a cache line each; a key lies in its
//! home bucket or, where that is full, in the next that is not. For each slice of
//! key time a byte says which generations hold keys of it: a fresh key is
//! looked for in one or two generations, not in eight.
//!
//! The **horizon** is max(log time - window, largest key time of a dropped
//! generation). A key at or below it may have been forgotten, and is refused as
//! too old. Capacity is therefore never a risk of double application, only of
//! refusals: [`Dedupe::dropped_early`] counts the drops that the window alone
//! did not call for.
//!
//! Who owns what: a partition owns its `Dedupe`, one thread at a time; an
//! image is lent to it for a capture. All memory is reserved by
//! [`Dedupe::new`]. Everything is determined by the sequence of calls, so that
//! replicas and a replay from a snapshot answer alike.
//!
//! What can be lost: a fresh event may be called a duplicate with the
//! probability that [`false_duplicate_probability`] gives, below 1e-24. A
//! generation is closed before it is full when a key finds no place within
//! reach, or when its epochs span 2^26; fewer keys than `keys_max` are held
//! then, the horizon says so, and [`Dedupe::closed_early`] counts it. What is
//! left to clear is then cleared at once, a generation at most.
//!
//! What the caller promises: epochs and log time never fall; [`Dedupe::record`]
//! follows a [`Verdict::Fresh`] of the same key.

mod bucket;
mod fingerprint;
mod image;
mod layout;
mod state;
#[cfg(test)]
mod tests;

use std::io;

use veltrix_abi::outcomes::Outcome;

use crate::base::table::{Table, prefetch};

pub use bucket::OUTCOME_MAX;
use bucket::{Bucket, EPOCH_DELTA_MAX};
use image::Capture;
use layout::Layout;
use state::State;

pub use fingerprint::{Fingerprint, SECRET_BYTES, Secret, fingerprint, key_ms};
pub use image::{DedupeImage, ImageError};
pub use layout::{
    DedupeBytes, DedupeLimits, FALSE_DUPLICATE_MAX, KEY_AHEAD_MS_MAX, LimitsError,
    false_duplicate_probability,
};

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before: judge it, and record the outcome.
    Fresh,
    /// Seen before.
    Duplicate {
        /// Code of its first outcome.
        outcome: u8,
        /// Epoch of that.
        epoch: u64,
    },
    /// At or below the horizon.
    TooOld,
    /// Ahead of log time by more than [`KEY_AHEAD_MS_MAX`].
    TooNew,
}

/// The idempotency keys of one partition.
#[derive(Debug)]
pub struct Dedupe {
    keys: Table<Bucket>,
    /// Bit g of byte s: generation g holds keys of slice s of key time.
    slices: Table<u8>,
    layout: Layout,
    state: State,
    /// Buckets of the next generation that are clear already.
    cleared: usize,
    capture: Option<Capture>,
}

impl Dedupe {
    /// Reserves all memory.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to give as much; [`LimitsError`] as `InvalidInput`.
    pub fn new(limits: &DedupeLimits) -> io::Result<Self> {
        let layout = Layout::new(limits)?;
        Ok(Self {
            keys: Table::new(layout.buckets_total())?,
            slices: Table::new(layout.slices as usize)?,
            state: State::new(&layout),
            cleared: layout.buckets as usize,
            layout,
            capture: None,
        })
    }

    /// Bytes that [`Self::new`] reserves, by part; none for limits that cannot
    /// be.
    #[must_use]
    pub fn bytes_of(limits: &DedupeLimits) -> DedupeBytes {
        let none = DedupeBytes { keys: 0, slices: 0 };
        Layout::new(limits).map_or(none, |layout| layout.bytes())
    }

    /// Keys held.
    #[must_use]
    pub fn keys_len(&self) -> u64 {
        self.state.generations.iter().map(|generation| generation.len).sum()
    }

    /// A key at or below this time is too old, ms since the Unix epoch.
    #[must_use]
    #[inline(always)]
    pub fn horizon_ms(&self, log_time_ms: u64) -> u64 {
        log_time_ms.saturating_sub(self.layout.window_ms).max(self.state.dropped_key_ms)
    }

    /// Generations dropped while they held a key of the window, since the
    /// directory was formatted: the horizon is nearer than the window says.
    /// The window is taken to end at the largest key time so far.
    #[must_use]
    pub fn dropped_early(&self) -> u64 {
        self.state.dropped_early
    }

    /// Generations closed before they were full, since the directory was
    /// formatted.
    #[must_use]
    pub fn closed_early(&self) -> u64 {
        self.state.closed_early
    }

    /// Asks for the cache lines that [`Self::check`] and [`Self::record`] of
    /// this key will want.
    #[inline(always)]
    pub fn prefetch(&self, print: Fingerprint, key_ms: u64) {
        let home = print.home(self.layout.buckets);
        let mut asked = self.holders(key_ms) | 1 << self.state.active;
        while asked != 0 {
            let generation = asked.trailing_zeros() as usize;
            asked &= asked - 1;
            prefetch(&self.keys, self.first_bucket(generation) + home);
        }
    }

    /// What is known of a key at a log time.
    #[inline(always)]
    #[must_use]
    pub fn check(&self, print: Fingerprint, key_ms: u64, log_time_ms: u64) -> Verdict {
        if key_ms <= self.horizon_ms(log_time_ms) {
            return Verdict::TooOld;
        }
        if key_ms > log_time_ms.saturating_add(KEY_AHEAD_MS_MAX) {
            return Verdict::TooNew;
        }
        let mut holders = self.holders(key_ms);
        while holders != 0 {
            let generation = holders.trailing_zeros() as usize;
            holders &= holders - 1;
            if let Some(found) = bucket::find(self.buckets(generation), print) {
                let first = self.state.generations[generation].first_epoch;
                let epoch = first.saturating_add(found.epoch_delta);
                return Verdict::Duplicate { outcome: found.outcome, epoch };
            }
        }
        Verdict::Fresh
    }

    /// Keeps the outcome of a fresh key. May drop the oldest generation, which
    /// raises the horizon at once.
    ///
    /// # Panics
    ///
    /// On an outcome that is no wire code (0, or more than 63).
    #[inline(always)]
    pub fn record(&mut self, print: Fingerprint, key_ms: u64, outcome: u8, epoch: u64) {
        assert!(outcome != 0 && outcome <= OUTCOME_MAX, "outcome {outcome} is no wire code");
        let (place, epoch_delta) = match self.place(print, epoch) {
            Some(place) => place,
            None => self.place_in_next(print, epoch),
        };
        if let Some(capture) = &mut self.capture {
            capture.save(&self.keys, place);
        }
        bucket::insert(&mut self.keys[place], print, outcome, epoch_delta);
        self.slices[self.layout.slice(key_ms)] |= 1 << self.state.active;
        self.state.newest_key_ms = self.state.newest_key_ms.max(key_ms);
        let generation = &mut self.state.generations[self.state.active as usize];
        generation.key_ms_max = generation.key_ms_max.max(key_ms);
        generation.len += 1;
        if generation.len >= u64::from(self.layout.drop_at) {
            self.make_room(self.layout.clear_stride());
        }
    }

    /// Gives a key that was recorded its last outcome, as of a later epoch; a key that
    /// is forgotten stays so.
    ///
    /// # Panics
    ///
    /// As [`Self::record`].
    pub fn settle(&mut self, print: Fingerprint, key_ms: u64, outcome: u8, epoch: u64) {
        assert!(outcome != 0 && outcome <= OUTCOME_MAX, "outcome {outcome} is no wire code");
        let mut holders = self.holders(key_ms);
        while holders != 0 {
            let generation = holders.trailing_zeros() as usize;
            holders &= holders - 1;
            let Some((bucket, found)) = bucket::locate(self.buckets(generation), print) else {
                continue;
            };
            let first = self.state.generations[generation].first_epoch;
            let delta = epoch.saturating_sub(first);
            // A generation that is closed for long has no bits for it: the first epoch
            // is as good a name.
            let delta = if delta > EPOCH_DELTA_MAX { found.epoch_delta } else { delta };
            let place = self.first_bucket(generation) + bucket;
            if let Some(capture) = &mut self.capture {
                capture.save(&self.keys, place);
            }
            bucket::rewrite(&mut self.keys[place], print, outcome, delta);
            return;
        }
    }

    /// Bits of the generations that may hold keys of this time.
    #[inline(always)]
    fn holders(&self, key_ms: u64) -> u8 {
        self.slices[self.layout.slice(key_ms)]
    }

    #[inline(always)]
    const fn first_bucket(&self, generation: usize) -> usize {
        generation * self.layout.buckets as usize
    }

    #[inline(always)]
    fn buckets(&self, generation: usize) -> &[Bucket] {
        &self.keys[self.first_bucket(generation)..][..self.layout.buckets as usize]
    }

    /// Bucket and epoch distance of a new key in the active generation; `None`
    /// when that must be closed.
    #[inline(always)]
    fn place(&mut self, print: Fingerprint, epoch: u64) -> Option<(usize, u64)> {
        let active = self.state.active as usize;
        let head = &mut self.state.generations[active];
        if head.len == 0 {
            head.first_epoch = epoch;
        }
        let delta = epoch.checked_sub(head.first_epoch)?;
        if head.len >= u64::from(self.layout.keys) || delta > EPOCH_DELTA_MAX {
            return None;
        }
        let bucket = bucket::place(self.buckets(active), print)?;
        Some((self.first_bucket(active) + bucket, delta))
    }

    /// Closes the active generation; the same as [`Self::place`] in the next,
    /// which is empty and takes any key.
    #[cold]
    fn place_in_next(&mut self, print: Fingerprint, epoch: u64) -> (usize, u64) {
        let closed = &self.state.generations[self.state.active as usize];
        if closed.len < u64::from(self.layout.keys) {
            self.state.closed_early = self.state.closed_early.saturating_add(1);
        }
        self.make_room(usize::MAX);
        self.state.active = self.state.next() as u32;
        self.cleared = self.layout.buckets as usize;
        let active = self.state.active as usize;
        self.state.generations[active].first_epoch = epoch;
        (self.first_bucket(active) + print.home(self.layout.buckets), 0)
    }

    /// Drops the next generation unless that is done, and clears up to
    /// `buckets` of it.
    #[inline(never)]
    fn make_room(&mut self, buckets: usize) {
        let next = self.state.next();
        if self.state.generations[next].len > 0 {
            self.drop_generation(next);
        }
        let all = self.layout.buckets as usize;
        let to = self.cleared.saturating_add(buckets).min(all);
        let first = self.first_bucket(next);
        for bucket in first + self.cleared..first + to {
            if let Some(capture) = &mut self.capture {
                capture.save(&self.keys, bucket);
            }
            self.keys[bucket] = Bucket::EMPTY;
        }
        self.cleared = to;
    }

    /// Forgets a generation and raises the horizon to its largest key time.
    fn drop_generation(&mut self, generation: usize) {
        let head = std::mem::take(&mut self.state.generations[generation]);
        let window_from = self.state.newest_key_ms.saturating_sub(self.layout.window_ms);
        if head.key_ms_max > window_from {
            self.state.dropped_early = self.state.dropped_early.saturating_add(1);
        }
        self.state.dropped_key_ms = self.state.dropped_key_ms.max(head.key_ms_max);
        self.slices.iter_mut().for_each(|slice| *slice &= !(1 << generation));
        self.cleared = 0;
    }
}

// Every outcome fits the bits that are kept for it.
const _: () = {
    let mut i = 0;
    while i < Outcome::ALL.len() {
        assert!(Outcome::ALL[i].code() != 0 && Outcome::ALL[i].code() <= OUTCOME_MAX);
        i += 1;
    }
};
