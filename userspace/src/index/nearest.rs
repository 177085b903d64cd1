//! Cells by distance from a position.
//!
//! The walk reads the cells of a circle in order of their ids. As soon as it holds
//! as many as are wanted, the circle is no larger than the last of them is far. At a
//! cell outside, it skips the largest square of ids around that cell which lies
//! outside altogether. So most cells visited are near, unless the walk comes to a
//! crowd before it comes to what is nearer: how many it may visit is bounded.
//!
//! The circle to begin with is the one around the nearest of the leaf that the
//! position belongs to: cells next to each other in order of ids are near each
//! other, and their records come together. It holds as many as are wanted. Where the
//! leaf does not, the density next to the position suggests a circle, and a larger
//! one is tried if it holds too few.

use super::Index;
use super::morton::{COORDINATE_MAX, morton_of, position_of};
use super::records::{Cell, HuntId, OrderKey};

/// Cells behind the position in order of ids that its density is guessed from.
const SAMPLE: usize = 8;

/// Radius to begin with where nothing is known.
const RADIUS_UNKNOWN: u32 = 64;

/// Bits of an id for each level of squares.
const LEVEL_BITS: u32 = 2;

/// The nearest cells seen, at most as many as wanted.
struct Nearest<'a, 'b> {
    kept: &'a mut [Option<(u64, &'b Cell)>],
    len: usize,
}

impl<'b> Nearest<'_, 'b> {
    /// Comes behind those of the same distance: cells are offered by ascending id.
    fn offer(&mut self, distance: u64, cell: &'b Cell) {
        let is_before = |kept: &Option<(u64, &Cell)>| kept.is_some_and(|(d, _)| d <= distance);
        let at = self.kept[..self.len].partition_point(is_before);
        if at < self.kept.len() {
            self.len = self.kept.len().min(self.len + 1);
            self.kept[at..self.len].rotate_right(1);
            self.kept[at] = Some((distance, cell));
        }
    }

    /// Distance of the last one wanted, if there are so many.
    fn last(&self) -> Option<u64> {
        self.kept.last().copied().flatten().map(|(distance, _)| distance)
    }
}

impl Index {
    /// Fills `kept` with the cells of `hunt` nearest to the cell `to`, the nearest
    /// first, each with the square of its distance; how many there were. Distance
    /// is that of positions in the plane; of equal ones the lower id is first.
    /// `steps` is how many cells may be looked at, and what is left of it after;
    /// `None` when they did not suffice.
    pub fn nearest_cells<'a>(
        &'a self,
        hunt: HuntId,
        to: u64,
        kept: &mut [Option<(u64, &'a Cell)>],
        steps: &mut usize,
    ) -> Option<usize> {
        if kept.is_empty() {
            return Some(0);
        }
        if let Some(within) = self.last_in_leaf(hunt, to, kept) {
            return self.nearest_within(hunt, to, within, kept, steps);
        }
        let mut radius = self.first_radius(hunt, to, kept.len());
        loop {
            let within = u64::from(radius).pow(2);
            let len = self.nearest_within(hunt, to, within, kept, steps)?;
            // Positions are at the most the diagonal apart.
            if len == kept.len() || radius >= 2 * COORDINATE_MAX {
                return Some(len);
            }
            radius = radius.saturating_mul(2);
        }
    }

    /// Square of the distance to the last of as many cells as are wanted, out of the
    /// leaf that `to` belongs to, if there are so many in it.
    fn last_in_leaf<'a>(
        &'a self,
        hunt: HuntId,
        to: u64,
        kept: &mut [Option<(u64, &'a Cell)>],
    ) -> Option<u64> {
        let center = position_of(to);
        let cursor = self.order.seek(self.view(), OrderKey { hunt: hunt.0, id: to });
        kept.fill(None);
        let mut nearest = Nearest { kept, len: 0 };
        for cell in cursor.leaf_cells().filter(|cell| cell.key().hunt == hunt.0) {
            nearest.offer(distance(center, position_of(cell.id()), 1), cell);
        }
        nearest.last()
    }

    /// Radius of the circle that may hold `wanted` cells.
    fn first_radius(&self, hunt: HuntId, to: u64, wanted: usize) -> u32 {
        let mut cells = 0;
        let mut last = to;
        for cell in self.cells_in(hunt, to, u64::MAX).take(SAMPLE) {
            (cells, last) = (cells + 1, cell.id());
        }
        if cells == 0 {
            return RADIUS_UNKNOWN;
        }
        // Ids run through areas: so many ids, so many positions.
        let area = u128::from(last - to + 1) * wanted as u128 / cells;
        let radius = area.isqrt() / 2 + 1;
        u32::try_from(radius).map_or(COORDINATE_MAX, |radius| radius.min(COORDINATE_MAX))
    }

    /// Fills `kept` from the circle whose radius has the square `within`; how many it
    /// holds, at most as many as wanted.
    fn nearest_within<'a>(
        &'a self,
        hunt: HuntId,
        to: u64,
        within: u64,
        kept: &mut [Option<(u64, &'a Cell)>],
        steps: &mut usize,
    ) -> Option<usize> {
        let center = position_of(to);
        let (x, y) = center;
        let radius = within.isqrt() + u64::from(within.isqrt().pow(2) < within);
        let radius = u32::try_from(radius).unwrap_or(u32::MAX);
        let low = morton_of(x.saturating_sub(radius), y.saturating_sub(radius));
        let top = |coordinate: u32| coordinate.saturating_add(radius).min(COORDINATE_MAX);
        let high = OrderKey { hunt: hunt.0, id: morton_of(top(x), top(y)) };
        kept.fill(None);
        let mut nearest = Nearest { kept, len: 0 };
        // Squares of distances from here on are outside.
        let mut outside = within + 1;
        let mut cursor = self.order.seek(self.view(), OrderKey { hunt: hunt.0, id: low });
        while let Some(cell) = cursor.next().filter(|cell| cell.key() <= high) {
            *steps = steps.checked_sub(1)?;
            let distance = distance(center, position_of(cell.id()), 1);
            if distance < outside {
                nearest.offer(distance, cell);
                outside = nearest.last().unwrap_or(outside);
                continue;
            }
            let next = OrderKey { hunt: hunt.0, id: past_outside(cell.id(), center, outside) };
            if next.id > cell.id() + 1 && !cursor.forward_in_leaf(next) {
                cursor = self.order.seek(self.view(), next);
            }
        }
        Some(nearest.len)
    }
}

/// Square of the distance from a position to the nearest of the square whose
/// lowest corner is `corner` and whose sides are `side` long.
#[inline(always)]
fn distance((x, y): (u32, u32), corner: (u32, u32), side: u32) -> u64 {
    let along = |from: u32, low: u32| {
        u64::from(low.saturating_sub(from).max(from.saturating_sub(low + (side - 1))))
    };
    along(x, corner.0).pow(2) + along(y, corner.1).pow(2)
}

/// The first id behind the largest square of ids around `id` that is `outside` or
/// further away from the center; `id` is.
fn past_outside(id: u64, center: (u32, u32), outside: u64) -> u64 {
    let mut past = id + 1;
    for level in 1..=COORDINATE_MAX.count_ones() {
        let bits = LEVEL_BITS * level;
        let corner = id >> bits << bits;
        if distance(center, position_of(corner), 1 << level) < outside {
            break;
        }
        past = corner + (1 << bits);
    }
    past
}
