//! Which partition a consistency domain belongs to.

/// Most partitions a cluster can be formatted with.
pub const PARTITIONS_MAX: u16 = 1024;

/// Partitions unless a cluster is formatted otherwise.
pub const PARTITIONS_DEFAULT: u16 = 64;

/// The finalizer of splitmix64.
#[inline(always)]
pub(crate) const fn mix(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Partition of a domain key among `partitions`: the key mixed, then the upper half
/// scaled to the count. Fixed for ever: state lies where it says.
#[must_use]
#[inline(always)]
pub const fn partition_of(domain: u64, partitions: u16) -> u16 {
    (((mix(domain) >> 32) * partitions as u64) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_spread_evenly() {
        let mut counts = [0u32; 64];
        for domain in 0..64_000 {
            counts[usize::from(partition_of(domain, 64))] += 1;
        }
        assert!(counts.iter().all(|c| (850..1_150).contains(c)), "{counts:?}");
        assert_eq!(partition_of(u64::MAX, 1), 0);
    }

    /// Data directories and clients rely on these.
    #[test]
    fn the_mix_never_changes() {
        let got: [u16; 6] = [0, 1, 2, 42, 1 << 40, u64::MAX].map(|d| partition_of(d, 64));
        assert_eq!(got, FIXED);
    }

    const FIXED: [u16; 6] = [56, 36, 37, 47, 7, 57];
}
