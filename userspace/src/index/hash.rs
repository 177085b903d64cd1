//! From a key to the slot of its record: open addressing in buckets of one
//! cache line, of a fixed number, never rehashed.
//!
//! ```text
//!   bucket = 64 bytes = 12 entries
//!   +----+----+- ... -+----+--------+--------+--------+- ... -+--------+
//!   | t0 | t1 |       | t11| unused | slot 0 | slot 1 |       | slot 11|
//!   +----+----+- ... -+----+--------+--------+--------+- ... -+--------+
//!    one byte of the hash each,       four bytes each
//!    0 = no entry
//! ```
//!
//! A key's entry lies in its home bucket or, where that was full, in the next
//! one that was not. So every bucket from home to where an entry lies is full,
//! and a search ends at the first bucket with a gap. Taking an entry out of a
//! full bucket pulls one back from behind, which keeps this true without
//! tombstones. The keys themselves are in the records: a tag that agrees is a
//! hint, the caller's comparison decides.
//! All tags of a bucket are compared in a few instructions.
//!
//! The mix is keyed by random numbers of this process, so that nobody outside
//! can choose ids that crowd one bucket. Where entries lie is no part of the
//! state: two replicas differ in it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::base::bytes::equal_bytes;
use crate::base::table::prefetch;

/// Entries of a bucket.
const ENTRIES: usize = 12;
/// Words of a bucket.
pub(super) const BUCKET_WORDS: usize = 8;

/// Two entries in three are in use at capacity: 8 bytes a record, and 1.6 % of the
/// searches should go past their home (random homes, reckoned), to a record that nobody asked for ahead. At three in
/// four it is 7.1 bytes and 3.1 %.
const FILL_NUMERATOR: u64 = 2;
const FILL_DENOMINATOR: u64 = 3;

/// A cache line of the index.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Bucket {
    /// A byte an entry, from the lowest on; the last four are unused.
    tags: [u64; 2],
    slots: [u32; ENTRIES],
}

const _: () = assert!(size_of::<Bucket>() == BUCKET_WORDS * 8);

impl Bucket {
    /// Entries whose tag is `tag`, a bit each.
    #[inline(always)]
    fn with_tag(&self, tag: u8) -> u32 {
        const USED: u32 = (1 << ENTRIES) - 1;
        equal_bytes(self.tags, tag) & USED
    }

    fn tag(&self, entry: usize) -> u8 {
        (self.tags[entry / 8] >> (8 * (entry % 8))) as u8
    }

    fn set_tag(&mut self, entry: usize, tag: u8) {
        let (word, at) = (&mut self.tags[entry / 8], 8 * (entry % 8));
        *word = *word & !(0xff << at) | u64::from(tag) << at;
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.with_tag(NO_ENTRY) == 0
    }

    fn put(&mut self, tag: u8, slot: u32) -> bool {
        let free = self.with_tag(NO_ENTRY);
        if free == 0 {
            return false;
        }
        let at = free.trailing_zeros() as usize;
        self.set_tag(at, tag);
        self.slots[at] = slot;
        true
    }

    fn position(&self, tag: u8, slot: u32) -> Option<usize> {
        (0..ENTRIES).find(|i| self.tag(*i) == tag && self.slots[*i] == slot)
    }
}

/// Tag of an entry that is not there.
const NO_ENTRY: u8 = 0;

#[inline(always)]
const fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == NO_ENTRY { 1 } else { tag }
}

/// Buckets for at most `records`: always one entry more than there can be.
pub(super) const fn buckets_of(records: u32) -> usize {
    let entries = records as u64 * FILL_DENOMINATOR / FILL_NUMERATOR + 1;
    entries.div_ceil(ENTRIES as u64) as usize
}

/// The process's random numbers of the mix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    id: u64,
    hunt: u64,
}

impl Mix {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self { id: random.hash_one(1), hunt: random.hash_one(2) | 1 }
    }

    /// Hash of `id` in `hunt`. Folded twice: after one product, ids that follow
    /// each other lie at multiples of a random number, which for some numbers are
    /// crowded (28 % of 120,000 searches went past their home or met another's tag).
    #[inline(always)]
    pub(super) const fn of(&self, hunt: u16, id: u64) -> u64 {
        let hunt = (hunt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.hunt;
        fold(fold(id ^ self.id, hunt), 0xd6e8_feb8_6659_fd93)
    }
}

/// Both halves of the product.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// One hash index: where its buckets lie in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotHash {
    /// First word.
    at: usize,
    buckets: usize,
}

impl SlotHash {
    /// An index of at most `records` slots, its buckets from word `at` on.
    pub(super) const fn new(at: usize, records: u32) -> Self {
        Self { at, buckets: buckets_of(records) }
    }

    #[inline(always)]
    const fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets as u64) >> 32) as usize
    }

    #[inline(always)]
    const fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets { 0 } else { bucket + 1 }
    }

    /// Buckets from `from` forward to `to`.
    const fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.buckets - from }
    }

    #[inline(always)]
    fn bucket<'a>(&self, words: &'a [u64], bucket: usize) -> &'a Bucket {
        let at = self.at + bucket * BUCKET_WORDS;
        let line: &[u64; BUCKET_WORDS] = super::arena::chunk(words, at);
        zerocopy::transmute_ref!(line)
    }

    fn bucket_mut<'a>(&self, words: &'a mut [u64], bucket: usize) -> &'a mut Bucket {
        let at = self.at + bucket * BUCKET_WORDS;
        let line: &mut [u64; BUCKET_WORDS] = super::arena::chunk_mut(words, at);
        zerocopy::transmute_mut!(line)
    }

    /// Asks for the home bucket of `hash`.
    #[inline(always)]
    pub(super) fn prefetch(&self, words: &[u64], hash: u64) {
        prefetch(words, self.at + self.home(hash) * BUCKET_WORDS);
    }

    /// The first slot of the home bucket that may be the one, since its tag
    /// agrees. Every such slot is shown to `candidate`; where there is none and
    /// the search would go on, the next bucket is asked for.
    #[inline(always)]
    pub(super) fn guess(&self, words: &[u64], hash: u64, candidate: impl Fn(u32)) -> Option<u32> {
        let home = self.home(hash);
        let bucket = self.bucket(words, home);
        let mut hits = bucket.with_tag(tag_of(hash));
        let Some(first) = bucket.slots.get(hits.trailing_zeros() as usize).copied() else {
            if bucket.is_full() {
                prefetch(words, self.at + self.next(home) * BUCKET_WORDS);
            }
            return None;
        };
        while let Some(slot) = bucket.slots.get(hits.trailing_zeros() as usize) {
            candidate(*slot);
            hits &= hits - 1;
        }
        Some(first)
    }

    /// The slot for which `is_it` holds.
    #[inline(always)]
    pub(super) fn find(
        &self,
        words: &[u64],
        hash: u64,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets {
            let bucket = self.bucket(words, at);
            let mut hits = bucket.with_tag(tag_of(hash));
            while let Some(slot) = bucket.slots.get(hits.trailing_zeros() as usize) {
                if is_it(*slot) {
                    return Some(*slot);
                }
                hits &= hits - 1;
            }
            if !bucket.is_full() {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Enters a slot that is not there yet.
    pub(super) fn insert(&self, words: &mut [u64], hash: u64, slot: u32) {
        let mut at = self.home(hash);
        for _ in 0..self.buckets {
            if self.bucket_mut(words, at).put(tag_of(hash), slot) {
                return;
            }
            at = self.next(at);
        }
        debug_assert!(false, "more slots than the index was made for");
    }

    /// Takes `slot` out. `hash_of` gives the hash of any slot that is in.
    pub(super) fn remove(
        &self,
        words: &mut [u64],
        hash: u64,
        slot: u32,
        hash_of: impl Fn(&[u64], u32) -> u64,
    ) {
        let mut at = self.home(hash);
        for _ in 0..self.buckets {
            let bucket = self.bucket_mut(words, at);
            let was_full = bucket.is_full();
            if let Some(i) = bucket.position(tag_of(hash), slot) {
                bucket.set_tag(i, NO_ENTRY);
                if was_full {
                    self.pull_back(words, at, hash_of);
                }
                return;
            }
            if !was_full {
                return;
            }
            at = self.next(at);
        }
    }

    /// Fills the gap in `gap`, a bucket that was full, with an entry from
    /// behind that was only passing it; then the gap that this left, and so on.
    fn pull_back(&self, words: &mut [u64], gap: usize, hash_of: impl Fn(&[u64], u32) -> u64) {
        let mut gap = gap;
        let mut at = self.next(gap);
        while at != gap {
            let bucket = self.bucket(words, at);
            let was_full = bucket.is_full();
            let passed = (0..ENTRIES).filter(|i| bucket.tag(*i) != NO_ENTRY).find(|i| {
                let home = self.home(hash_of(words, bucket.slots[*i]));
                self.distance(home, at) >= self.distance(gap, at)
            });
            if let Some(i) = passed {
                let (tag, slot) = (bucket.tag(i), bucket.slots[i]);
                self.bucket_mut(words, at).set_tag(i, NO_ENTRY);
                self.bucket_mut(words, gap).put(tag, slot);
                gap = at;
            }
            if !was_full {
                return;
            }
            at = self.next(at);
        }
    }

    /// Buckets that the longest search looks at.
    #[cfg(test)]
    pub(super) fn longest_search(&self, words: &[u64]) -> usize {
        let full: Vec<bool> = (0..self.buckets).map(|b| self.bucket(words, b).is_full()).collect();
        let mut longest = 0;
        let mut run = 0;
        for is_full in full.iter().chain(&full) {
            run = if *is_full { run + 1 } else { 0 };
            longest = longest.max(run + 1);
        }
        longest.min(self.buckets)
    }
}
