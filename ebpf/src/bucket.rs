//! The arithmetic of one token bucket, apart from maps and clocks: the tests
//! compile this file for the host and hold it against exact arithmetic.

use veltrix_abi::maps::Bucket;

const NS_PER_S: u64 = 1_000_000_000;

/// Parts of a token that a bucket counts in.
const PARTS: u64 = 1_024;

/// What a source may send. The loader keeps both at least 1, and `burst * 1024`
/// within 32 bits, hence `burst * 1024 * 1e9` within 62.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Datagrams a second.
    pub(crate) per_s: u64,
    /// Datagrams at once.
    pub(crate) burst: u64,
}

/// Takes a token of `source` at `now_ns`; whether there was one. A bucket
/// never used, or used by another source, starts full.
#[inline(always)]
pub(crate) fn take(bucket: &mut Bucket, source: u32, now_ns: u64, limit: Limit) -> bool {
    if bucket.source != source || bucket.refilled_ns == 0 {
        bucket.source = source;
        fill(bucket, now_ns, limit);
    } else {
        refill(bucket, now_ns, limit);
    }
    let enough = u64::from(bucket.tokens_1024th) >= PARTS;
    if enough {
        bucket.tokens_1024th -= PARTS as u32;
    }
    enough
}

#[inline(always)]
fn fill(bucket: &mut Bucket, now_ns: u64, limit: Limit) {
    bucket.tokens_1024th = (limit.burst * PARTS) as u32;
    bucket.refilled_ns = now_ns;
}

/// Adds what the time since the last refill is worth.
///
/// Only whole parts are added, and the refill time advances by what those
/// parts cost and no more: at a slow rate a tick of the coarse clock is worth
/// less than a part, and would otherwise be lost each time.
#[inline(always)]
fn refill(bucket: &mut Bucket, now_ns: u64, limit: Limit) {
    // A clock that stands, or that another CPU's tick has not moved yet.
    if now_ns <= bucket.refilled_ns {
        return;
    }
    let elapsed_ns = now_ns - bucket.refilled_ns;
    let burst_ns = limit.burst * NS_PER_S;
    // Both factors have 32 bits in the first case; the division is for
    // sources that were silent for over four seconds.
    let full = if elapsed_ns <= u32::MAX as u64 {
        elapsed_ns * limit.per_s >= burst_ns
    } else {
        elapsed_ns >= burst_ns / limit.per_s
    };
    if full {
        fill(bucket, now_ns, limit);
        return;
    }
    let due = elapsed_ns * limit.per_s * PARTS / NS_PER_S;
    let tokens = u64::from(bucket.tokens_1024th) + due;
    if tokens >= limit.burst * PARTS {
        fill(bucket, now_ns, limit);
    } else if due > 0 {
        bucket.tokens_1024th = tokens as u32;
        // Rounded up: the limit errs by at most a nanosecond a refill, downwards.
        bucket.refilled_ns += (due * NS_PER_S).div_ceil(limit.per_s * PARTS);
    }
}

/// Mixes an IPv4 address, bytes in network order, into 64 bits: the low ones
/// choose the slot, the high ones name the source in it.
#[inline(always)]
pub(crate) fn hash_v4(address: [u8; 4]) -> u64 {
    mix(u64::from(u32::from_ne_bytes(address)))
}

/// As [`hash_v4`].
#[inline(always)]
pub(crate) fn hash_v6(address: [u8; 16]) -> u64 {
    let address = u128::from_ne_bytes(address);
    mix(mix(address as u64) ^ (address >> 64) as u64)
}

/// The finaliser of MurmurHash3.
#[inline(always)]
const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}
