//! Keyed fingerprints of (player, key).
//!
//! The hash is multilinear: the input is three 64-bit words x1..x3 (player,
//! the key's two halves), a row of the secret is four 128-bit numbers, and
//!
//! ```text
//! row(x) = high 64 bits of (a0 + a1*x1 + a2*x2 + a3*x3 mod 2^128)
//! ```
//!
//! Two rows with independent numbers make the 128 bits. Such a row is strongly
//! universal (Lemire and Kaser, "Strongly universal string hashing is fast",
//! theorem 2.1): for two different inputs, whoever chose them without knowing
//! the numbers, both results are uniform and independent. Any k bits of two
//! fingerprints therefore agree with probability 2^-k, which is what
//! [`false_duplicate_probability`](super::false_duplicate_probability) rests
//! on. xxh3 itself promises nothing of the kind: for 24 bytes it reads 32 bytes
//! of its secret, and its last step maps the 128 bits of its state to fewer
//! than 2^128 values.
//!
//! The numbers are drawn from the 192 bytes of the secret by xxh3, once. Taken
//! as they are, bytes with a pattern would do harm: a multiplier of one byte
//! repeated leaves eight bits of its product.
//!
//! Nothing that is sent ever depends on a fingerprint but through a false
//! duplicate, so senders learn nothing about the secret.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes of a [`Secret`].
pub const SECRET_BYTES: usize = 192;

/// What keys the fingerprints of a cluster: random bytes, drawn when the data
/// directory is formatted, equal on all replicas and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    bytes: [u8; SECRET_BYTES],
    /// a0 to a3 of the upper and of the lower half.
    rows: [[u128; 4]; 2],
}

impl Secret {
    /// A secret of these bytes, which must come from a generator fit for keys.
    #[must_use]
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        let number = |row, i| xxh3_128_with_seed(&bytes, (4 * row + i) as u64);
        let row = |row| std::array::from_fn(|i| number(row, i));
        Self { rows: std::array::from_fn(row), bytes }
    }

    /// The bytes, to be kept in the superblock.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.bytes
    }

    #[inline(always)]
    fn row(&self, row: usize, words: [u64; 3]) -> u64 {
        let [mut sum, multipliers @ ..] = self.rows[row];
        for (multiplier, word) in multipliers.into_iter().zip(words) {
            sum = sum.wrapping_add(multiplier.wrapping_mul(u128::from(word)));
        }
        (sum >> 64) as u64
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// 128 bits that stand for one idempotency key of one player: the low 96 are
/// kept and compared, the high 32 choose the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) u128);

impl Fingerprint {
    /// Of nothing; for places that wait to be filled.
    pub const ZERO: Self = Self(0);

    /// Of the same key, asked from the domain `home`: never equal to the key's own, in
    /// the same bucket, and as unlikely as any other to be somebody else's. Domain keys
    /// of regions are well mixed.
    #[must_use]
    #[inline(always)]
    pub const fn asked_from(self, home: u64) -> Self {
        Self(self.0 ^ home as u128 ^ 0x9e37_79b9 << 64)
    }

    /// Bits that are kept and compared.
    pub(super) const STORED_BITS: u32 = 96;

    #[inline(always)]
    pub(super) const fn low(self) -> u64 {
        self.0 as u64
    }

    /// The upper third of the stored bits.
    #[inline(always)]
    pub(super) const fn middle(self) -> u32 {
        (self.0 >> 64) as u32
    }

    /// The first of `buckets` to look at.
    #[inline(always)]
    pub(super) const fn home(self, buckets: u32) -> usize {
        (((self.0 >> 96) * buckets as u128) >> 32) as usize
    }
}

/// Fingerprint of a player's idempotency key.
#[must_use]
#[inline(always)]
pub fn fingerprint(secret: &Secret, player: u64, key: &[u8; 16]) -> Fingerprint {
    let key = u128::from_le_bytes(*key);
    let words = [player, key as u64, (key >> 64) as u64];
    let (high, low) = (secret.row(0, words), secret.row(1, words));
    Fingerprint(u128::from(high) << 64 | u128::from(low))
}

/// The time in an idempotency key (UUIDv7): ms since the Unix epoch, 48 bits.
#[must_use]
#[inline(always)]
pub fn key_ms(key: &[u8; 16]) -> u64 {
    (u128::from_be_bytes(*key) >> 80) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        // Not random: the tests want the same bytes in every run.
        Secret::new(std::array::from_fn(|i| (i as u8).wrapping_mul(151).wrapping_add(37)))
    }

    #[test]
    fn every_bit_of_the_input_matters() {
        let secret = secret();
        let plain = fingerprint(&secret, 0, &[0; 16]);
        let mut seen = std::collections::HashSet::from([plain]);
        for bit in 0..64 {
            assert!(seen.insert(fingerprint(&secret, 1 << bit, &[0; 16])));
        }
        for bit in 0..128 {
            assert!(seen.insert(fingerprint(&secret, 0, &(1u128 << bit).to_be_bytes())));
        }
    }

    #[test]
    fn every_byte_of_the_secret_matters() {
        let key = [0xA5; 16];
        let mut seen = std::collections::HashSet::from([fingerprint(&secret(), 7, &key)]);
        for at in 0..SECRET_BYTES {
            let mut bytes = *secret().as_bytes();
            bytes[at] ^= 0x80;
            assert!(seen.insert(fingerprint(&Secret::new(bytes), 7, &key)), "byte {at}");
        }
    }

    /// Secrets that no good generator draws still tell keys apart: 64
    /// bits anywhere in the fingerprint differ among ten thousand.
    #[test]
    fn secrets_with_a_pattern_do_no_harm() {
        for byte in [0, 7, 0xFF] {
            let secret = Secret::new([byte; SECRET_BYTES]);
            let prints = |n: u64| fingerprint(&secret, n / 100, &u128::from(n).to_be_bytes()).0;
            for shift in [0, 32, 64] {
                let bits = (0..10_000).map(|n| (prints(n) >> shift) as u64);
                assert_eq!(bits.collect::<std::collections::HashSet<_>>().len(), 10_000);
            }
        }
    }

    /// Neighbouring keys of neighbouring players fill buckets as chance would.
    #[test]
    fn homes_spread() {
        let secret = secret();
        let mut counts = [0u32; 256];
        for player in 0..100u64 {
            for key in 0..256u128 {
                let print = fingerprint(&secret, player, &key.to_be_bytes());
                counts[print.home(256)] += 1;
            }
        }
        assert!(counts.iter().all(|c| (50..160).contains(c)), "{counts:?}");
    }

    /// Data directories hold these: a change of the hash would forget every key.
    #[test]
    fn the_hash_never_changes() {
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(fingerprint(&secret(), 42, &key).0, FIXED);
        assert_eq!(key_ms(&key), 0x0001_0203_0405);
    }

    const FIXED: u128 = 329_305_703_836_988_408_199_145_179_510_148_223_021;

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", secret()), "Secret(..)");
    }
}
