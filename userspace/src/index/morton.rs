//! Morton codes: a position as one integer, the bits of two coordinates in
//! turn, so that near positions have near ids.
//!
//! ```text
//!   bit   59 58 57 56 ...  3  2  1  0
//!         y  x  y  x  ...  y  x  y  x        30 bits each
//! ```

pub use veltrix_abi::query::COORDINATE_MAX;

/// Bits of `x` in a code.
const X_BITS: u64 = 0x5555_5555_5555_5555;

/// The code of a position; bits of a coordinate over [`COORDINATE_MAX`] are
/// dropped.
#[must_use]
#[inline]
pub const fn morton_of(x: u32, y: u32) -> u64 {
    spread(x & COORDINATE_MAX) | spread(y & COORDINATE_MAX) << 1
}

/// The position of a code: `(x, y)`.
#[must_use]
#[inline]
pub const fn position_of(code: u64) -> (u32, u32) {
    (squeeze(code), squeeze(code >> 1))
}

const fn spread(coordinate: u32) -> u64 {
    let mut v = coordinate as u64;
    v = (v | v << 16) & 0x0000_ffff_0000_ffff;
    v = (v | v << 8) & 0x00ff_00ff_00ff_00ff;
    v = (v | v << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    v = (v | v << 2) & 0x3333_3333_3333_3333;
    (v | v << 1) & X_BITS
}

const fn squeeze(code: u64) -> u32 {
    let mut v = code & X_BITS;
    v = (v | v >> 1) & 0x3333_3333_3333_3333;
    v = (v | v >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    v = (v | v >> 4) & 0x00ff_00ff_00ff_00ff;
    v = (v | v >> 8) & 0x0000_ffff_0000_ffff;
    (v | v >> 16) as u32
}

/// A rectangle of positions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellBox {
    /// Least `x`.
    pub x_min: u32,
    /// Largest `x`; below `x_min` the box is empty.
    pub x_max: u32,
    /// Least `y`.
    pub y_min: u32,
    /// Largest `y`; below `y_min` the box is empty.
    pub y_max: u32,
}

impl CellBox {
    /// Codes of the lowest and the highest corner: every code of the box lies
    /// between them. `None` for a box that is empty.
    #[must_use]
    pub fn codes(&self) -> Option<(u64, u64)> {
        if self.x_min > self.x_max.min(COORDINATE_MAX)
            || self.y_min > self.y_max.min(COORDINATE_MAX)
        {
            return None;
        }
        let (x_max, y_max) = (self.x_max.min(COORDINATE_MAX), self.y_max.min(COORDINATE_MAX));
        Some((morton_of(self.x_min, self.y_min), morton_of(x_max, y_max)))
    }
}

/// Whether `code` lies in the box whose corners have the codes `low` and
/// `high`. Bits that belong to one coordinate compare as the coordinate does.
#[inline(always)]
pub(super) const fn is_inside(code: u64, low: u64, high: u64) -> bool {
    const Y_BITS: u64 = !X_BITS;
    let (x, y) = (code & X_BITS, code & Y_BITS);
    x >= low & X_BITS && x <= high & X_BITS && y >= low & Y_BITS && y <= high & Y_BITS
}

/// The least code above `code` that lies in the box; `None` when there is
/// none. (Tropf and Herzog, 1981: BIGMIN.)
pub(super) fn next_inside(code: u64, low: u64, high: u64) -> Option<u64> {
    let (mut low, mut high, mut best) = (low, high, None);
    // Above the highest bit in which the three differ nothing happens.
    let mut left = (code ^ low) | (code ^ high);
    while left != 0 {
        let bit = 1 << (63 - left.leading_zeros());
        // The lower bits of the same coordinate.
        let below = (bit - 1) & if bit & X_BITS != 0 { X_BITS } else { !X_BITS };
        match (code & bit != 0, low & bit != 0, high & bit != 0) {
            (false, false, true) => {
                best = Some(low & !below | bit);
                high = high & !bit | below;
            }
            (false, true, _) => return Some(low),
            (true, _, false) => return best,
            (true, false, true) => low = low & !below | bit,
            (false, false, false) | (true, true, true) => {}
        }
        left = ((code ^ low) | (code ^ high)) & (bit - 1);
    }
    best
}

#[cfg(test)]
mod tests {
    use veltrix_abi::kinds::CELL_BITS;

    use super::*;

    #[test]
    fn codes_and_positions_are_one_to_one() {
        for (x, y) in [(0, 0), (1, 0), (0, 1), (COORDINATE_MAX, 0), (0x2aaa_aaaa, 0x1555_5555)] {
            assert_eq!(position_of(morton_of(x, y)), (x, y));
        }
        assert_eq!(morton_of(1, 0), 1);
        assert_eq!(morton_of(0, 1), 2);
        assert_eq!(morton_of(COORDINATE_MAX, COORDINATE_MAX), (1 << CELL_BITS) - 1);
        assert_eq!(morton_of(u32::MAX, 0), morton_of(COORDINATE_MAX, 0));
    }

    #[test]
    fn an_empty_box_has_no_codes() {
        let one = CellBox { x_min: 3, x_max: 3, y_min: 4, y_max: 4 };
        assert_eq!(one.codes(), Some((morton_of(3, 4), morton_of(3, 4))));
        assert_eq!(CellBox { x_max: 2, ..one }.codes(), None);
        assert_eq!(CellBox { y_max: 3, ..one }.codes(), None);
        let beyond = CellBox { x_min: 1 << 30, x_max: u32::MAX, ..one };
        assert_eq!(beyond.codes(), None);
    }

    /// Every box and every code of a field of 8 by 8.
    #[test]
    fn the_next_code_inside_is_the_least() {
        let corners = || (0..8u32).flat_map(|a| (a..8).map(move |b| (a, b)));
        for (x_min, x_max) in corners() {
            for (y_min, y_max) in corners() {
                let field = CellBox { x_min, x_max, y_min, y_max };
                let (low, high) = field.codes().unwrap();
                let inside = |code: u64| {
                    let (x, y) = position_of(code);
                    (x_min..=x_max).contains(&x) && (y_min..=y_max).contains(&y)
                };
                for code in 0..64 {
                    assert_eq!(is_inside(code, low, high), inside(code));
                    let next = (code + 1..64).find(|c| inside(*c));
                    assert_eq!(next_inside(code, low, high), next, "{code} {field:?}");
                }
            }
        }
    }
}
