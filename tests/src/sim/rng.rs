//! Randomness that a seed repeats, on every machine and for ever: no crate's
//! version decides what seed 17 does.

/// splitmix64: any seed is as good as another.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Begins the sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any().checked_rem(end).unwrap_or(0)
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below((to - from).saturating_add(1))
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, chance: u64) -> bool {
        self.below(1_000) < chance
    }

    /// An index of something with `len` places; 0 when it has none.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A sequence of its own, that goes on however much of this one is used.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds stand in commands that people keep.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut rng = Rng::new(17);
        let got = [rng.any(), rng.below(1_000), rng.between(5, 9), u64::from(rng.percent(50))];
        assert_eq!(got, FIXED);
        assert_eq!(rng.below(0), 0);
        assert!((0..100).all(|_| (3..=4).contains(&rng.between(3, 4))));
    }

    const FIXED: [u64; 4] = [9_260_656_408_219_841_379, 713, 6, 1];
}
