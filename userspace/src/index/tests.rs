//! The index against plain maps, whatever comes and goes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use veltrix_abi::kinds::{Hotspot, HotspotKind};

use super::*;

const ITEM: Hotspot =
    Hotspot { kind: HotspotKind::Item, item: 3, remaining: 9, reward: 700, lifetime_s: 0 };

type Cells = BTreeMap<(u16, u64), Cell>;
type Players = BTreeMap<(u16, u64), Player>;

fn limits(cells_max: u32, players_max: u32, hunts_max: u16) -> IndexLimits {
    IndexLimits { cells_max, players_max, hunts_max, definitions_max: 8, deeds_max: 8 }
}

/// An index with hunts 0..n of domain keys 100..100+n.
fn with_hunts(limits: &IndexLimits) -> Index {
    let mut index = Index::new(limits).unwrap();
    for number in 0..limits.hunts_max {
        assert_eq!(index.hunt_insert(100 + u64::from(number)), Ok(HuntId(number)));
    }
    index
}

fn cell(hunt: u16, id: u64, remaining: u16) -> Cell {
    Cell::new(HuntId(hunt), id, &Hotspot { remaining, ..ITEM }, 5)
}

fn check_cells(index: &Index, model: &Cells) {
    assert_eq!(index.cells_len() as usize, model.len());
    let mut seen: Vec<Cell> = index.cells().copied().collect();
    seen.sort_by_key(Cell::key);
    assert!(seen.iter().eq(model.values()), "records");
    for hunt in 0..index.limits().hunts_max {
        let of_hunt = model.range((hunt, 0)..=(hunt, u64::MAX)).map(|(_, cell)| cell);
        assert!(index.cells_in(HuntId(hunt), 0, u64::MAX).eq(of_hunt), "order of {hunt}");
    }
    for ((hunt, id), cell) in model {
        index.prefetch_cell_hash(HuntId(*hunt), *id);
        index.prefetch_cell(HuntId(*hunt), *id);
        let slot = index.cell_slot(HuntId(*hunt), *id).expect("a cell that is there");
        assert_eq!(index.cell(slot), cell);
    }
}

fn check_players(index: &Index, model: &Players) {
    assert_eq!(index.players_len() as usize, model.len());
    for ((hunt, player), record) in model {
        index.prefetch_player_hash(HuntId(*hunt), *player);
        index.prefetch_player(HuntId(*hunt), *player);
        let slot = index.player_slot(HuntId(*hunt), *player).expect("a player that is there");
        assert_eq!(index.player(slot), record);
    }
    for hunt in 0..index.limits().hunts_max {
        check_board(index, HuntId(hunt));
    }
}

/// Ranks against a sorted list of the records.
fn check_board(index: &Index, hunt: HuntId) {
    let mut wanted: Vec<(u32, Player)> = (0..)
        .zip(index.players().copied())
        .filter(|(_, player)| player.hunt() == hunt && player.score > 0)
        .collect();
    wanted.sort_by_key(|(slot, p)| (std::cmp::Reverse(p.score), p.score_epoch, *slot));
    assert_eq!(index.ranked_len(hunt) as usize, wanted.len());
    for (from, limit) in [(0, usize::MAX), (1, 3), (4, 9), (wanted.len() as u32 + 1, 1)] {
        let mut found = Vec::new();
        let seen = index.ranked(hunt, from, limit, |r| found.push((r.rank, *r.player)));
        assert_eq!(seen, found.len());
        let first = from.max(1);
        let wanted = wanted.iter().map(|(_, player)| *player).skip(first as usize - 1).take(limit);
        assert!(found.into_iter().eq((first..).zip(wanted)), "{limit} from {from}");
    }
    for ((slot, _), rank) in wanted.iter().zip(1..) {
        assert_eq!(index.rank(PlayerSlot(*slot)), Some(rank));
    }
    let tally = index.tally(hunt);
    let of_hunt = || index.players().filter(|player| player.hunt() == hunt);
    assert_eq!(tally.cells as usize, index.cells().filter(|c| c.hunt() == hunt).count());
    assert_eq!(tally.players as usize, of_hunt().count());
    assert!(tally.score_epoch >= of_hunt().map(|p| p.score_epoch).max().unwrap_or(0));
}

/// A hint is where the record lies, but for a few whose tag met another's or whose
/// entry found its home full; and a hint that is wrong is found out.
#[test]
fn nearly_every_hint_is_right_and_none_is_believed() {
    let limits = limits(60_000, 60_000, 2);
    let mut index = with_hunts(&limits);
    for id in 0..60_000 {
        index.cell_insert(cell(1, id, 1)).unwrap();
        index.player_insert(Player::new(HuntId(1), id)).unwrap();
    }
    let mut wrong = 0;
    for id in 0..60_000 {
        let (cell, player) = (index.locate_cell(HuntId(1), id), index.locate_player(HuntId(1), id));
        let slot = index.cell_slot(HuntId(1), id).unwrap();
        assert_eq!(index.cell_slot_near(cell, HuntId(1), id), Some(slot));
        wrong += u32::from(cell.0 != slot.0);
        let slot = index.player_slot(HuntId(1), id).unwrap();
        assert_eq!(index.player_slot_near(player, HuntId(1), id), Some(slot));
        wrong += u32::from(player.0 != slot.0);
    }
    // Expected are 1.6 % past their home and 1.4 % behind another's tag.
    assert!((1..120_000 * 5 / 100).contains(&wrong), "{wrong} of 120,000");
    for id in 0..1_000 {
        let hint = index.locate_cell(HuntId(0), id);
        assert_eq!(index.cell_slot_near(hint, HuntId(0), id), None, "of another hunt");
    }
}

/// What happens to an index, numbers small enough to meet again.
#[derive(Clone, Debug)]
enum Step {
    Insert { hunt: u16, id: u64, remaining: u16 },
    Write { hunt: u16, id: u64, remaining: u16 },
    Remove { hunt: u16, id: u64 },
    Player { hunt: u16, player: u64, wallet: u64, score: u64, score_epoch: u64 },
    Begin,
    Copy { bytes: usize },
    End,
}

fn step() -> impl Strategy<Value = Step> {
    let hunt = 0..3u16;
    // Few ids next to each other, and some at the far end.
    let id = prop_oneof![4 => 0..400u64, 1 => (1u64 << 60) - 20..1 << 60];
    prop_oneof![
        6 => (hunt.clone(), id.clone(), 1..9u16)
            .prop_map(|(hunt, id, remaining)| Step::Insert { hunt, id, remaining }),
        3 => (hunt.clone(), id.clone(), 1..9u16)
            .prop_map(|(hunt, id, remaining)| Step::Write { hunt, id, remaining }),
        3 => (hunt.clone(), id).prop_map(|(hunt, id)| Step::Remove { hunt, id }),
        3 => (hunt, 0..80u64, 0..9u64, 0..5u64, 1..4u64).prop_map(
            |(hunt, player, wallet, score, score_epoch)| {
                Step::Player { hunt, player, wallet, score, score_epoch }
            }),
        1 => Just(Step::Begin),
        1 => (0..40_000usize).prop_map(|bytes| Step::Copy { bytes }),
        1 => Just(Step::End),
    ]
}

/// An index beside what it should hold.
struct Pair {
    index: Index,
    cells: Cells,
    players: Players,
    /// What was there when the capture under way began.
    captured: Option<(Cells, Players)>,
}

impl Pair {
    fn new(limits: &IndexLimits) -> Self {
        let index = with_hunts(limits);
        Self { index, cells: Cells::new(), players: Players::new(), captured: None }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Insert { hunt, id, remaining } => self.insert(cell(hunt, id, remaining)),
            Step::Write { hunt, id, remaining } => {
                let slot = self.index.cell_slot(HuntId(hunt), id);
                assert_eq!(slot.is_some(), self.cells.contains_key(&(hunt, id)));
                if let Some(slot) = slot {
                    // Id and hunt of what is written count for nothing.
                    self.index.cell_write(slot, Cell { id: 1, hunt: 2, ..cell(0, 0, remaining) });
                    self.cells.insert((hunt, id), cell(hunt, id, remaining));
                }
            }
            Step::Remove { hunt, id } => {
                let slot = self.index.cell_slot(HuntId(hunt), id);
                assert_eq!(slot.is_some(), self.cells.remove(&(hunt, id)).is_some());
                if let Some(slot) = slot {
                    self.index.cell_remove(slot);
                    self.index.cell_remove(slot);
                }
            }
            Step::Player { hunt, player, wallet, score, score_epoch } => {
                let record = Player::new(HuntId(hunt), player);
                self.player(Player { wallet, score, score_epoch, ..record });
            }
            Step::Begin => self.begin(),
            Step::Copy { bytes } => {
                let done = self.index.capture_step(bytes);
                assert!(done || self.captured.is_some());
            }
            Step::End => self.end(),
        }
    }

    fn insert(&mut self, cell: Cell) {
        let key = (cell.hunt, cell.id);
        let max = self.index.limits().cells_max;
        let full = !self.cells.contains_key(&key) && self.cells.len() == max as usize;
        match self.index.cell_insert(cell) {
            Ok(slot) => {
                assert!(!full);
                assert_eq!(self.index.cell(slot), &cell);
                self.cells.insert(key, cell);
            }
            Err(error) => assert!(full && error == Full::Cells(max), "{error}"),
        }
    }

    fn player(&mut self, record: Player) {
        let (hunt, player) = (record.hunt, record.player);
        let max = self.index.limits().players_max;
        let is_known = self.players.contains_key(&(hunt, player));
        let full = !is_known && self.players.len() == max as usize;
        let result = match self.index.player_slot(HuntId(hunt), player) {
            Some(slot) => {
                assert!(is_known);
                self.index.player_write(slot, Player { player: 7, hunt: 1, ..record });
                Ok(slot)
            }
            None => self.index.player_insert(record),
        };
        match result {
            Ok(slot) => {
                assert!(!full && slot.mark() > 0);
                self.players.insert((hunt, player), record);
            }
            Err(error) => assert!(full && error == Full::Players(max), "{error}"),
        }
    }

    fn begin(&mut self) {
        if self.captured.is_none() {
            self.index.capture_begin(IndexImage::new(self.index.limits()).unwrap());
            self.captured = Some((self.cells.clone(), self.players.clone()));
        }
    }

    /// The image holds what was there at begin, and makes an index of it.
    fn end(&mut self) {
        let Some((cells, players)) = self.captured.take() else { return };
        let image = self.index.capture_end();
        let mut restored = Index::restore(self.index.limits(), &image).unwrap();
        check_cells(&restored, &cells);
        check_players(&restored, &players);
        assert!(restored.hunts().eq(self.index.hunts()));
        // It goes on from there.
        let key = |id: u64| (0, id);
        if let Some(id) = (0..).find(|id| !cells.contains_key(&key(*id)))
            && cells.len() < self.index.limits().cells_max as usize
        {
            let slot = restored.cell_insert(cell(0, id, 4)).unwrap();
            restored.cell_remove(slot);
            check_cells(&restored, &cells);
        }
    }

    fn check(&mut self) {
        self.index.settle_ranks();
        check_cells(&self.index, &self.cells);
        check_players(&self.index, &self.players);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_index_and_its_captures_agree_with_maps(
        steps in prop::collection::vec(step(), 1..2_500),
        cells_max in prop_oneof![0..40u32, 300..1_300u32],
        players_max in 0..300u32,
    ) {
        let mut pair = Pair::new(&limits(cells_max, players_max, 3));
        for step in &steps {
            pair.take(step);
        }
        pair.check();
        pair.end();
    }

    #[test]
    fn ranges_and_boxes_hold_what_a_scan_finds(
        ids in prop::collection::btree_set(0..1u64 << 12, 0..600),
        other in prop::collection::btree_set(0..1u64 << 12, 0..100),
        [a, b, c, d] in [0..80u32, 0..80u32, 0..80u32, 0..80u32],
        (from, to) in (0..1u64 << 12, 0..1u64 << 12),
        limit in 0..50usize,
    ) {
        let mut index = with_hunts(&limits(700, 0, 3));
        for id in &ids {
            index.cell_insert(cell(1, *id, 1)).unwrap();
        }
        for (i, id) in other.iter().enumerate() {
            let _ = index.cell_insert(cell(2 * (i as u16 % 2), *id, 1)).unwrap();
        }
        let found: Vec<u64> = index.cells_in(HuntId(1), from, to).map(Cell::id).collect();
        let wanted: Vec<u64> =
            ids.iter().copied().filter(|id| (from..=to).contains(id)).collect();
        prop_assert_eq!(found, wanted);

        let field = CellBox { x_min: a.min(b), x_max: a.max(b), y_min: c.min(d), y_max: c.max(d) };
        let inside = |id: u64| {
            let (x, y) = position_of(id);
            (field.x_min..=field.x_max).contains(&x) && (field.y_min..=field.y_max).contains(&y)
        };
        let wanted: Vec<u64> = ids.iter().copied().filter(|id| inside(*id)).collect();
        for limit in [usize::MAX, limit] {
            let mut found = Vec::new();
            let mut steps = usize::MAX;
            let next = index
                .cells_in_box(HuntId(1), &field, 0, limit, &mut steps, |cell| found.push(cell.id()));
            prop_assert_eq!(next, wanted.get(limit).copied());
            prop_assert_eq!(&found[..], &wanted[..wanted.len().min(limit)]);
            let mut found = Vec::new();
            let mut steps = usize::MAX;
            index.cells_in_box(HuntId(1), &field, from, limit, &mut steps, |cell| {
                found.push(cell.id());
            });
            let behind = wanted.iter().copied().filter(|id| *id >= from).take(limit);
            prop_assert!(found.into_iter().eq(behind));
        }
        let empty = CellBox { x_min: 9, x_max: 8, ..field };
        let mut seen = 0;
        index.cells_in_box(HuntId(1), &empty, 0, 9, &mut 9, |_| seen += 1);
        prop_assert_eq!(seen, 0);
        // However few steps at a time, all come, once each.
        let (mut next, mut found) = (Some(0), Vec::new());
        while let Some(from) = next {
            let push = |cell: &Cell| found.push(cell.id());
            next = index.cells_in_box(HuntId(1), &field, from, 3, &mut (limit + 1), push);
        }
        prop_assert_eq!(found, wanted);
    }

    /// In a corner where all lie, and where they lie far and wide.
    #[test]
    fn the_nearest_are_those_that_a_sort_finds(
        near in prop::collection::btree_set(0..1u64 << 13, 0..3_000),
        far in prop::collection::btree_set(0..1u64 << 60, 0..40),
        to in prop_oneof![0..1u64 << 13, 0..1u64 << 60],
        wanted in 1..100usize,
    ) {
        let mut index = with_hunts(&limits(4_000, 0, 3));
        for id in near.union(&far) {
            index.cell_insert(cell(1, *id, 1)).unwrap();
        }
        index.cell_insert(cell(0, to, 1)).unwrap();
        let (x, y) = position_of(to);
        let distance = |id: u64| {
            let (a, b) = position_of(id);
            u64::from(a.abs_diff(x)).pow(2) + u64::from(b.abs_diff(y)).pow(2)
        };
        let mut sorted: Vec<_> = near.union(&far).map(|id| (distance(*id), *id)).collect();
        sorted.sort_unstable();
        sorted.truncate(wanted);
        let mut kept = vec![None; wanted];
        let len = index.nearest_cells(HuntId(1), to, &mut kept, &mut { usize::MAX }).unwrap();
        let found: Vec<_> = kept[..len].iter().flatten().map(|(d, cell)| (*d, cell.id())).collect();
        prop_assert_eq!(found, sorted);
    }

    /// Whatever records an image has: an index or an error.
    #[test]
    fn no_image_makes_loading_panic(
        lens in [0..9u32, 0..9u32, 0..9u32],
        cells in prop::collection::vec((0..4u64, 0..4u16, 0..4u32, 0..5u32), 8),
        players in prop::collection::vec((0..4u64, 0..4u16, 0..2u16), 8),
        hunts in prop::collection::vec((0..4u64, 0..3u32, 0..2u8), 8),
        definitions in prop::collection::vec((0..3u16, 1..3u8, 0..4u64, 0..2u8), 8),
        deeds in prop::collection::vec((0..9u32, 1..3u8, 0..4u64, 0..2u16), 8),
        more in [0..9u32, 0..9u32],
    ) {
        let limits = limits(8, 8, 8);
        let mut image = IndexImage::new(&limits).unwrap();
        [image.cells_len, image.players_len, image.hunts_len] = lens;
        for (record, (id, hunt, claimed_by, what)) in image.cells.iter_mut().zip(cells) {
            *record = Cell { id, hunt, claimed_by, what, ..Cell::default() };
        }
        for (record, (player, hunt, team)) in image.players.iter_mut().zip(players) {
            *record = Player { player, hunt, team: team as u8 * 16, ..Player::default() };
        }
        for (record, (domain, winner, spare)) in image.hunts.iter_mut().zip(hunts) {
            *record = Hunt { winner, spare, ..Hunt::new(domain) };
        }
        [image.definitions_len, image.deeds_len] = more;
        for (record, (hunt, kind, id, spare)) in image.definitions.iter_mut().zip(definitions) {
            *record = Definition::new(HuntId(hunt), DefinitionKind::Quest, id, 1, 0, &[]);
            (record.kind, record.spare) = (kind, spare);
        }
        for (record, (player, kind, book, spare)) in image.deeds.iter_mut().zip(deeds) {
            let new = Deed::new(PlayerSlot(player), DeedKind::Quest, book);
            *record = Deed { kind, spare, ..new };
        }
        if let Ok(index) = Index::restore(&limits, &image) {
            prop_assert!(index.cells().all(|c| index.cell_slot(c.hunt(), c.id()).is_some()));
            (0..8).for_each(|hunt| check_board(&index, HuntId(hunt)));
            let ordered: usize = (0..8).map(|h| index.cells_in(HuntId(h), 0, u64::MAX).count()).sum();
            prop_assert_eq!(ordered, index.cells_len() as usize);
        }
    }
}

/// A reproducible shuffle.
fn shuffled(len: u64) -> Vec<u64> {
    let mut ids: Vec<u64> = (0..len).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..ids.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ids.swap(i, (state >> 33) as usize % (i + 1));
    }
    ids
}

/// The arena of nodes is made for the worst order of coming and going; every
/// one here fills the index to its last cell, twice.
#[test]
fn every_order_of_insertion_fits() {
    const CELLS: u64 = 20_000;
    let ascending: Vec<u64> = (0..CELLS).collect();
    let descending: Vec<u64> = (0..CELLS).rev().collect();
    let from_both_ends: Vec<u64> = (0..CELLS / 2).flat_map(|i| [i, CELLS - 1 - i]).collect();
    for ids in [ascending, descending, from_both_ends, shuffled(CELLS)] {
        let mut index = with_hunts(&limits(CELLS as u32, 0, 1));
        for id in &ids {
            index.cell_insert(cell(0, *id << 20, 1)).unwrap();
        }
        assert_eq!(index.cell_insert(cell(0, 1, 1)), Err(Full::Cells(CELLS as u32)));
        assert!(index.order.nodes(index.view()) <= index.layout.nodes_max);
        let words = &*index.main;
        assert!(index.layout.cell_hash.longest_search(words) <= 40, "hash");
        // Three in four go, in another order, then as many come between.
        for id in shuffled(CELLS).iter().filter(|id| *id % 4 != 0) {
            let slot = index.cell_slot(HuntId(0), id << 20).unwrap();
            index.cell_remove(slot);
        }
        assert!(
            index
                .cells_in(HuntId(0), 0, u64::MAX)
                .map(|c| c.id() >> 20)
                .eq((0..CELLS / 4).map(|i| i * 4))
        );
        for id in ids.iter().filter(|id| *id % 4 != 0) {
            index.cell_insert(cell(0, (id << 20) + 1, 1)).unwrap();
        }
        assert_eq!(index.cells_in(HuntId(0), 0, u64::MAX).count(), CELLS as usize);
        for id in &ids {
            let slot = index.cell_slot(HuntId(0), (id << 20) + u64::from(id % 4 != 0)).unwrap();
            index.cell_remove(slot);
        }
        assert_eq!(index.cells_len(), 0);
        assert_eq!(index.order.nodes(index.view()), 1, "an empty order is one leaf");
    }
}

/// Long enough for the arena to be in two parts and for a tree of four levels.
#[test]
fn a_large_index_restores_and_goes_on() {
    const CELLS: u32 = 130_000;
    let limits = limits(CELLS, 10, 1);
    let mut index = with_hunts(&limits);
    for id in shuffled(u64::from(CELLS)) {
        index.cell_insert(cell(0, id << 30, 1)).unwrap();
    }
    assert!(!index.rest.is_empty() && index.layout.nodes_in_main > 0);
    index.capture_begin(IndexImage::new(&limits).unwrap());
    while !index.capture_step(100_000) {}
    let restored = Index::restore(&limits, &index.capture_end()).unwrap();
    assert!(restored.cells_in(HuntId(0), 0, u64::MAX).eq(index.cells_in(HuntId(0), 0, u64::MAX)));
    assert!(restored.cells_in(HuntId(0), 0, u64::MAX).map(|c| c.id() >> 30).eq(0..CELLS.into()));
    let some = restored.cells_in(HuntId(0), 77 << 30, 99 << 30).map(|c| c.id() >> 30);
    assert!(some.eq(77..=99));
}

#[test]
fn hunts_end_at_their_limit() {
    let mut index = Index::new(&limits(0, 0, 3)).unwrap();
    for _ in 0..2 {
        for domain in [7, 0, u64::MAX] {
            assert!(index.hunt_insert(domain).is_ok());
        }
    }
    assert!(index.hunts().map(Hunt::domain).eq([7, 0, u64::MAX]));
    assert_eq!(index.hunt_insert(8), Err(Full::Hunts(3)));
    assert_eq!(index.hunt(8), None);
    let hunt = index.hunt(0).unwrap();
    assert_eq!((hunt.number(), index.hunt_record(hunt).domain()), (1, 0));
    assert_eq!(index.cell_insert(cell(0, 1, 1)), Err(Full::Cells(0)));
    assert_eq!(index.player_insert(Player::new(hunt, 1)), Err(Full::Players(0)));
}

#[test]
fn a_step_copies_about_what_it_may() {
    let limits = limits(50_000, 50_000, 5);
    let mut index = with_hunts(&limits);
    for id in 0..50_000 {
        index.cell_insert(cell(0, id, 1)).unwrap();
        index.player_insert(Player::new(HuntId(0), id)).unwrap();
    }
    index.capture_begin(IndexImage::new(&limits).unwrap());
    let mut steps = 0;
    while !index.capture_step(120_000) {
        steps += 1;
    }
    // 4.4 MB in steps of ten pages of 12 KiB.
    assert!((33..=38).contains(&steps), "{steps}");
    assert!(index.capture_step(1), "and is done");
    let image = index.capture_end();
    assert_eq!((image.cells_len, image.players_len, image.hunts_len), (50_000, 50_000, 5));
}

#[test]
fn bytes_are_said_before_they_are_reserved() {
    for limits in [limits(0, 0, 0), limits(100, 9, 1), limits(187_500, 156_250, 4_096)] {
        let bytes = Index::bytes_of(&limits);
        let index = Index::new(&limits).unwrap();
        let reserved = index.main.bytes() + index.rest.bytes();
        assert_eq!(bytes.total() - bytes.capture, reserved as u64, "{bytes:?}");
    }
}

/// Ordered access included. In small partitions rounding to huge pages, at most
/// one a partition, can add more; it is said apart.
#[test]
fn a_cell_costs_at_most_40_bytes() {
    for cells_max in [31_250, 187_500, 1_000_000] {
        let bytes = Index::bytes_of(&limits(cells_max, cells_max, 4_096));
        assert!(bytes.rounding < 2 << 20);
        let cells = bytes.cells + bytes.cell_hash + bytes.cell_order;
        assert!(cells <= 40 * u64::from(cells_max), "{cells_max}: {bytes:?}");
    }
}

#[test]
fn a_capacity_out_of_range_is_refused() {
    let error = Index::new(&limits(1 << 28, 0, 0)).unwrap_err();
    assert!(error.to_string().contains("cells_max is 268435456"), "{error}");
    assert!(IndexImage::new(&limits(0, u32::MAX, 0)).is_err());
}

#[test]
fn an_image_of_larger_limits_is_refused() {
    let mut image = IndexImage::new(&limits(9, 0, 0)).unwrap();
    image.cells_len = 9;
    let error = Index::restore(&limits(8, 0, 0), &image).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("9 cells, room is for 8"), "{error}");
}

#[test]
fn records_keep_what_they_are_given() {
    for kind in [HotspotKind::Item, HotspotKind::Chest, HotspotKind::Ticket] {
        let hotspot = Hotspot { kind, item: 7, reward: (1 << 20) - 1, ..ITEM };
        let cell = Cell::new(HuntId(9), (1 << 60) - 1, &hotspot, 77);
        assert_eq!((cell.id(), cell.hunt()), ((1 << 60) - 1, HuntId(9)));
        assert_eq!((cell.kind(), cell.item(), cell.reward()), (Some(kind), 7, (1 << 20) - 1));
        assert_eq!((cell.remaining, cell.expiry_s, cell.claimed_by), (9, 77, 0));
        assert!(!cell.is_vacant());
    }
    assert!(Cell::default().is_vacant() && Cell::default().kind().is_none());
}

/// Hunts, definitions and deeds that are written while an image is made show in it as
/// they were when it began.
#[test]
fn what_is_rewritten_meanwhile_is_captured_as_it_was() {
    let mut index = with_hunts(&limits(1, 1, 2));
    let hunt = HuntId(0);
    let player = index.player_insert(Player::new(hunt, 7)).unwrap();
    let treasure =
        |version| Definition::new(hunt, DefinitionKind::Treasure, 5, version, 0, &[version as u8]);
    let deed = |done| Deed { done: [done; 4], ..Deed::new(player, DeedKind::Quest, 9) };
    let closed = |closed| Hunt { closed, pot: 40, ..Hunt::new(100) };
    index.definition_put(&treasure(1)).unwrap();
    index.deed_put(&deed(1)).unwrap();
    index.hunt_write(hunt, &closed(0));

    index.capture_begin(IndexImage::new(index.limits()).unwrap());
    index.definition_put(&treasure(2)).unwrap();
    index.deed_put(&deed(2)).unwrap();
    index.hunt_write(hunt, &closed(1));
    index.hunt_count(HuntId(1), 3, 4);
    let image = index.capture_end();

    for (of, version, is_closed) in
        [(&Index::restore(index.limits(), &image).unwrap(), 1, 0), (&index, 2, 1)]
    {
        let slot = of.definition_slot(hunt, DefinitionKind::Treasure, 5).unwrap();
        assert_eq!(*of.definition(slot), treasure(version));
        let slot = of.deed_slot(player, DeedKind::Quest, 9).unwrap();
        assert_eq!(*of.deed(slot), deed(u64::from(version)));
        assert_eq!(*of.hunt_record(hunt), closed(is_closed));
        assert_eq!(of.hunt_record(HuntId(1)).events, u32::from(is_closed) * 4);
    }
}
