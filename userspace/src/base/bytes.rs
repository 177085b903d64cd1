//! Sixteen bytes at a time.

/// Which of sixteen bytes, from the lowest of `words[0]` on, are `byte`: a bit
/// each.
#[must_use]
#[inline(always)]
pub fn equal_bytes(words: [u64; 2], byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: SSE2 is a part of every x86-64.
        unsafe { equal_bytes_sse2(words, byte) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    equal_bytes_plain(words, byte)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn equal_bytes_sse2(words: [u64; 2], byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let bytes = _mm_set_epi64x(words[1].cast_signed(), words[0].cast_signed());
    let equal = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()));
    _mm_movemask_epi8(equal).cast_unsigned()
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn equal_bytes_plain(words: [u64; 2], byte: u8) -> u32 {
    let bytes = words.into_iter().flat_map(u64::to_le_bytes);
    (0..).zip(bytes).fold(0, |bits, (i, b)| bits | u32::from(b == byte) << i)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_agree(words: [u64; 2], byte: u8, at in 0..16u32) {
            let (word, shift) = (at as usize / 8, at % 8 * 8);
            let mut words = words;
            words[word] = words[word] & !(0xff << shift) | u64::from(byte) << shift;
            let bits = equal_bytes(words, byte);
            prop_assert_eq!(bits, equal_bytes_plain(words, byte));
            prop_assert!(bits >> at & 1 == 1 && bits >> 16 == 0);
        }
    }
}
