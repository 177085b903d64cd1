//! Buckets of four keys, one to a cache line, and a generation's look-ups.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fingerprint::Fingerprint;

/// Keys in a bucket: 16 bytes each, a cache line of 64.
pub(super) const BUCKET_KEYS: usize = 4;

/// Buckets that a look-up may visit: the home and its followers. A key that
/// finds no place in them closes its generation.
///
/// Simulated with random homes at 86 % of the places, the most that the layout
/// allows: 19 % of keys leave their home, 2 % go 8 buckets on, 0.1 % go 32; the
/// farthest key of a generation goes 81 (median, 20,480 buckets) to 139
/// (655,360 buckets), 222 in the worst of 850 runs. A reach of 32 closed 81 to
/// 100 % of the generations early. From 32 to 152 buckets, each 30 more are 7
/// to 13 times rarer; if that goes on, 1,024 are out of the question. Each
/// doubling doubles the chance of a false duplicate, far below its bound.
pub(super) const REACH: u32 = 1024;

const TAIL_BITS: u32 = 32;
const EPOCH_BITS: u32 = 26;

/// Largest distance of a key's epoch from the first of its generation.
pub(super) const EPOCH_DELTA_MAX: u64 = (1 << EPOCH_BITS) - 1;

/// Largest outcome code that can be kept; zero marks a free place.
pub const OUTCOME_MAX: u8 = (1 << (TAIL_BITS - EPOCH_BITS)) - 1;

/// Four keys, filled from the front and never removed one by one.
///
/// `lows[i]` is the low 64 bits of a fingerprint; `highs[i]` is its next 32
/// bits, 6 bits of outcome, 26 bits of epoch. Outcome zero: the place is free,
/// and so are those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    lows: [u64; BUCKET_KEYS],
    highs: [u64; BUCKET_KEYS],
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub outcome: u8,
    pub epoch_delta: u64,
}

/// The outcome's bits of a `highs` entry, in place; zero when free.
#[inline(always)]
const fn occupied(high: u64) -> bool {
    high as u32 >> EPOCH_BITS != 0
}

impl Bucket {
    pub(super) const EMPTY: Self = Self { lows: [0; BUCKET_KEYS], highs: [0; BUCKET_KEYS] };

    /// Keys it holds; `None` when no sequence of insertions leaves it like
    /// this.
    pub(super) fn len(&self) -> Option<u32> {
        let held = self.highs.iter().take_while(|high| occupied(**high)).count();
        let free = self.highs[held..].iter().chain(&self.lows[held..]);
        free.copied().all(|word| word == 0).then_some(held as u32)
    }

    #[cold]
    fn find(&self, low: u64, middle: u32) -> Option<Found> {
        let highs = self.lows.iter().zip(&self.highs).filter(|(word, _)| **word == low);
        let mut highs = highs.map(|(_, high)| *high);
        let high = highs.find(|high| (high >> TAIL_BITS) as u32 == middle && occupied(*high))?;
        let outcome = (high as u32 >> EPOCH_BITS) as u8;
        Some(Found { outcome, epoch_delta: high & EPOCH_DELTA_MAX })
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        occupied(self.highs[BUCKET_KEYS - 1])
    }
}

/// Looks for a key among the buckets of a generation: what is known of it.
#[inline(always)]
pub(super) fn find(buckets: &[Bucket], print: Fingerprint) -> Option<Found> {
    locate(buckets, print).map(|(_, found)| found)
}

/// As [`find`], with the bucket that holds it.
#[inline(always)]
pub(super) fn locate(buckets: &[Bucket], print: Fingerprint) -> Option<(usize, Found)> {
    let (low, middle) = (print.low(), print.middle());
    let mut at = print.home(buckets.len() as u32);
    for _ in 0..buckets.len().min(REACH as usize) {
        let bucket = buckets.get(at)?;
        // One branch for all four, which a fresh key never takes: 64 bits agree.
        if bucket.lows.iter().fold(false, |any, word| any | (*word == low))
            && let Some(found) = bucket.find(low, middle)
        {
            return Some((at, found));
        }
        if !bucket.is_full() {
            return None;
        }
        at = following(at, buckets.len());
    }
    None
}

/// The bucket where a new key goes; `None` when all within reach are full.
#[inline(always)]
pub(super) fn place(buckets: &[Bucket], print: Fingerprint) -> Option<usize> {
    let mut at = print.home(buckets.len() as u32);
    for _ in 0..buckets.len().min(REACH as usize) {
        if !buckets.get(at)?.is_full() {
            return Some(at);
        }
        at = following(at, buckets.len());
    }
    None
}

/// Puts a key into a bucket that [`place`] gave.
#[inline(always)]
pub(super) fn insert(bucket: &mut Bucket, print: Fingerprint, outcome: u8, epoch_delta: u64) {
    // Counting has no branch to mispredict: places fill from the front.
    let i = bucket.highs.iter().map(|high| usize::from(occupied(*high))).sum::<usize>();
    if i >= BUCKET_KEYS {
        return;
    }
    let tail = u64::from(outcome) << EPOCH_BITS | epoch_delta;
    bucket.lows[i] = print.low();
    bucket.highs[i] = u64::from(print.middle()) << TAIL_BITS | tail;
}

/// Gives a key that the bucket holds another outcome and epoch.
pub(super) fn rewrite(bucket: &mut Bucket, print: Fingerprint, outcome: u8, epoch_delta: u64) {
    let is_it = |low: u64, high: u64| {
        low == print.low() && (high >> TAIL_BITS) as u32 == print.middle() && occupied(high)
    };
    let places = bucket.lows.iter().zip(&mut bucket.highs);
    if let Some((_, high)) = { places }.find(|(low, high)| is_it(**low, **high)) {
        let tail = u64::from(outcome) << EPOCH_BITS | epoch_delta;
        *high = u64::from(print.middle()) << TAIL_BITS | tail;
    }
}

#[inline(always)]
const fn following(at: usize, buckets: usize) -> usize {
    if at + 1 == buckets { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print_at(home: u32, buckets: u32, id: u64) -> Fingerprint {
        let top = (u64::from(home) << 32).div_ceil(u64::from(buckets));
        let print = Fingerprint(u128::from(top) << 96 | u128::from(id));
        assert_eq!(print.home(buckets), home as usize);
        print
    }

    #[test]
    fn keys_overflow_to_the_next_buckets_and_wrap() {
        let count = REACH + 8;
        let home = count - 2;
        let mut buckets = vec![Bucket::EMPTY; count as usize];
        for id in 0..u64::from(REACH) * 4 {
            let print = print_at(home, count, id);
            assert_eq!(find(&buckets, print), None);
            let at = place(&buckets, print).unwrap();
            insert(&mut buckets[at], print, 1 + (id % 63) as u8, id);
        }
        // Eight buckets are free, out of reach.
        assert_eq!(place(&buckets, print_at(home, count, u64::MAX)), None);
        assert_eq!(find(&buckets, print_at(home, count, u64::MAX)), None);
        for id in 0..u64::from(REACH) * 4 {
            let found = find(&buckets, print_at(home, count, id)).unwrap();
            assert_eq!(found, Found { outcome: 1 + (id % 63) as u8, epoch_delta: id });
        }
        assert_eq!(buckets.iter().map(|b| b.len().unwrap()).sum::<u32>(), REACH * 4);
    }

    #[test]
    fn the_fingerprint_zero_is_not_found_in_free_places() {
        let mut buckets = [Bucket::EMPTY; 2];
        let zero = Fingerprint(0);
        assert_eq!(find(&buckets, zero), None);
        let at = place(&buckets, zero).unwrap();
        insert(&mut buckets[at], zero, OUTCOME_MAX, EPOCH_DELTA_MAX);
        let found = Found { outcome: OUTCOME_MAX, epoch_delta: EPOCH_DELTA_MAX };
        assert_eq!(find(&buckets, zero), Some(found));
        assert_eq!(find(&buckets, Fingerprint(1)), None);
        assert_eq!(find(&buckets, Fingerprint(1 << 64)), None);
    }

    #[test]
    fn buckets_with_holes_are_no_buckets() {
        let mut bucket = Bucket::EMPTY;
        insert(&mut bucket, Fingerprint(7), 1, 0);
        assert_eq!(bucket.len(), Some(1));
        bucket.highs[2] = bucket.highs[0];
        assert_eq!(bucket.len(), None);
        let mut bucket = Bucket::EMPTY;
        bucket.lows[3] = 1;
        assert_eq!(bucket.len(), None);
    }
}
