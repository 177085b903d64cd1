//! Cells of a rectangle, out of their order by Morton code.
//!
//! A rectangle is a few runs of codes with gaps between them. The walk reads
//! cells in order from the lowest corner on; at one outside it computes the
//! next code inside and goes there, within the leaf if it can, from the root
//! otherwise. So it seeks at most once for each gap that has cells in it, and
//! never works out runs that hold none.

use super::Index;
use super::morton::{CellBox, is_inside, next_inside};
use super::records::{Cell, HuntId, OrderKey};

impl Index {
    /// Calls `visit` with the cells of `hunt` inside `field` whose id is `from` or
    /// more, by ascending id, at most `limit` of them; gives the id to go on from
    /// when there are more, or may be: `steps` is how many cells may be looked at,
    /// those outside between two inside among them, and what is left of it after.
    pub fn cells_in_box<'a>(
        &'a self,
        hunt: HuntId,
        field: &CellBox,
        from: u64,
        limit: usize,
        steps: &mut usize,
        mut visit: impl FnMut(&'a Cell),
    ) -> Option<u64> {
        let (low, high) = field.codes()?;
        let key = |id: u64| OrderKey { hunt: hunt.0, id };
        let mut cursor = self.order.seek(self.view(), key(low.max(from)));
        let mut visited = 0;
        while let Some(cell) = cursor.next().filter(|cell| cell.key() <= key(high)) {
            let is_inside = is_inside(cell.id(), low, high);
            if *steps == 0 || (is_inside && visited == limit) {
                return Some(cell.id());
            }
            *steps -= 1;
            if is_inside {
                visit(cell);
                visited += 1;
                continue;
            }
            let next = next_inside(cell.id(), low, high)?;
            if !cursor.forward_in_leaf(key(next)) {
                cursor = self.order.seek(self.view(), key(next));
            }
        }
        None
    }
}
