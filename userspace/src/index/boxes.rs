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
    /// more, by ascending id, at most `limit` of them; how many there were.
    pub fn cells_in_box<'a>(
        &'a self,
        hunt: HuntId,
        field: &CellBox,
        from: u64,
        limit: usize,
        mut visit: impl FnMut(&'a Cell),
    ) -> usize {
        let Some((low, high)) = field.codes() else { return 0 };
        let key = |id: u64| OrderKey { hunt: hunt.0, id };
        let mut cursor = self.order.seek(self.view(), key(low.max(from)));
        let mut visited = 0;
        while visited < limit {
            let Some(cell) = cursor.next() else { break };
            if cell.key() > key(high) {
                break;
            }
            if is_inside(cell.id(), low, high) {
                visit(cell);
                visited += 1;
                continue;
            }
            let Some(next) = next_inside(cell.id(), low, high) else { break };
            if !cursor.forward_in_leaf(key(next)) {
                cursor = self.order.seek(self.view(), key(next));
            }
        }
        visited
    }
}
