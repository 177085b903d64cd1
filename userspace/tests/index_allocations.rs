//! After it is made an index asks nothing of the allocator, whatever is put
//! in, taken out, looked for or captured: this binary counts every call.

mod support;

use support::allocator::{Counting, calls};
use veltrix::index::{Cell, CellBox, HuntId, Index, IndexImage, IndexLimits, Player, morton_of};
use veltrix_abi::kinds::{Hotspot, HotspotKind};

#[global_allocator]
static COUNTING: Counting = Counting;

const LIMITS: IndexLimits = IndexLimits {
    cells_max: 9_000,
    players_max: 3_000,
    hunts_max: 2,
    definitions_max: 16,
    deeds_max: 100,
};

const CHEST: Hotspot =
    Hotspot { kind: HotspotKind::Chest, item: 1, remaining: 9, reward: 5, lifetime_s: 0 };

/// Fills what there is room for, one cell and one player too many.
fn fill(index: &mut Index, hunt: HuntId) {
    for i in 0..LIMITS.cells_max {
        let id = morton_of(i.wrapping_mul(7_919) % 9_001, i % 97);
        index.cell_insert(Cell::new(hunt, id, &CHEST, 0)).unwrap();
    }
    assert!(index.cell_insert(Cell::new(hunt, 1 << 59, &CHEST, 0)).is_err());
    for player in 0..u64::from(LIMITS.players_max) {
        index.player_insert(Player::new(hunt, player)).unwrap();
    }
    assert!(index.player_insert(Player::new(hunt, u64::MAX)).is_err());
}

/// Writes to every cell and takes every other one out.
fn thin_out(index: &mut Index, hunt: HuntId) {
    for i in 0..LIMITS.cells_max {
        let id = morton_of(i.wrapping_mul(7_919) % 9_001, i % 97);
        index.prefetch_cell_hash(hunt, id);
        index.prefetch_cell(hunt, id);
        let slot = index.cell_slot(hunt, id).unwrap();
        let mut cell = *index.cell(slot);
        cell.remaining -= 1;
        index.cell_write(slot, cell);
        if i % 2 == 0 {
            index.cell_remove(slot);
        }
    }
    for id in 0..u64::from(LIMITS.players_max) {
        let slot = index.player_slot(hunt, id).unwrap();
        let mut player = *index.player(slot);
        player.wallet += 1;
        index.player_write(slot, player);
    }
}

#[test]
fn an_index_allocates_nothing_after_it_is_made() {
    let mut index = Index::new(&LIMITS).unwrap();
    let image = IndexImage::new(&LIMITS).unwrap();
    let before = calls();

    let hunt = index.hunt_insert(77).unwrap();
    fill(&mut index, hunt);
    index.capture_begin(image);
    thin_out(&mut index, hunt);
    while !index.capture_step(10_000) {}
    let image = index.capture_end();
    let field = CellBox { x_min: 10, x_max: 5_000, y_min: 3, y_max: 60 };
    let mut found = 0;
    index.cells_in_box(hunt, &field, 0, usize::MAX, &mut { usize::MAX }, |_| found += 1);
    let ordered = index.cells_in(hunt, 0, u64::MAX).count();

    assert_eq!(calls(), before);
    assert!(found > 0 && ordered == index.cells_len() as usize);
    assert_eq!(image.cells_len, LIMITS.cells_max);
    drop((index, image));
    assert_ne!(calls(), before, "this test would not see an allocation");
}
