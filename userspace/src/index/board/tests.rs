//! The board against a sorted set.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Keys by slot, as they are after the last move.
struct Table(Vec<Option<BoardKey>>);

impl Keys for Table {
    fn key(&self, slot: u32) -> BoardKey {
        self.0[slot as usize].expect("a player on the board has a score")
    }

    fn ask(&self, slot: u32) {
        assert!(self.0[slot as usize].is_some(), "{slot} is asked for, and not on the board");
    }
}

struct Pair {
    board: Board,
    nodes: Vec<u64>,
    moves: Moves,
    keys: Table,
    model: BTreeSet<BoardKey>,
}

fn key(slot: u32, hunt: u16, score: u64, score_epoch: u64) -> Option<BoardKey> {
    BoardKey::of(&Player { hunt, score, score_epoch, ..Player::default() }, slot)
}

impl Pair {
    fn new(players_max: u32) -> Self {
        let mut nodes = vec![0; board_words(players_max)];
        let board = Board::new(&mut nodes, players_max);
        let keys = Table(vec![None; players_max as usize]);
        Self { board, nodes, moves: Moves::NONE, keys, model: BTreeSet::new() }
    }

    /// A player moves to a place, or off the board.
    fn put(&mut self, slot: u32, new: Option<BoardKey>) {
        let old = std::mem::replace(&mut self.keys.0[slot as usize], new);
        self.moves.note(slot, old, new);
        old.inspect(|old| assert!(self.model.remove(old)));
        self.model.extend(new);
        if self.moves.is_full() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let made = self.board.settle(&mut self.nodes, &self.keys, &mut self.moves);
        made.expect("the arena is made for the most there can be");
    }

    fn check(&mut self) {
        self.settle();
        let Self { board, nodes, keys, model, .. } = self;
        assert_eq!(board.len() as usize, model.len());
        assert!(board.select(nodes, keys, 0).eq(model.iter().copied()));
        let end = key(0, u16::MAX, 1, u64::MAX).unwrap();
        for (below, at) in (0..).zip(model.iter()) {
            let ranks = board.ranks(nodes, keys, [*at, BoardKey::first_of(at.hunt), end]);
            let hunt = model.range(..BoardKey::first_of(at.hunt)).count();
            assert_eq!(ranks, [below, hunt as u32, model.len() as u32]);
            assert_eq!(board.select(nodes, keys, below).next(), Some(*at));
        }
        assert_eq!(board.select(nodes, keys, board.len()).next(), None);
        let held = self.check_node(self.board.root, 0, BoardKey::default(), None);
        assert_eq!(held, self.board.len());
    }

    /// Everything under a node lies between two keys, counts are what is there, and
    /// none but the root is too empty. How many players it holds.
    fn check_node(&self, number: u32, level: usize, from: BoardKey, to: Option<BoardKey>) -> u32 {
        let is_root = number == self.board.root && level == 0;
        if level == self.board.levels {
            let leaf = Leaf::at(&self.nodes, number);
            assert!(is_root || leaf.len() >= Leaf::LEAST, "a leaf of {}", leaf.len());
            for slot in leaf.slots() {
                let key = self.keys.key(*slot);
                assert!(from <= key && to.is_none_or(|to| key < to), "{key:?} is in a wrong leaf");
            }
            return leaf.len() as u32;
        }
        let inner = Inner::at(&self.nodes, number);
        let least = if is_root { 2 } else { Inner::LEAST };
        assert!(inner.len() >= least, "an inner node of {}", inner.len());
        let ends = (1..inner.len()).map(|at| Some(inner.bound(at))).chain([to]);
        let mut from = from;
        let mut all = 0;
        for (at, end) in ends.enumerate() {
            let held = self.check_node(inner.child(at), level + 1, from, end);
            assert_eq!(held, inner.count(at));
            from = end.unwrap_or_default();
            all += held;
        }
        all
    }
}

/// Scores of which many are the same, of which all differ, and at both ends.
fn score() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..4u64,
        4 => 0..2_000u64,
        1 => SCORE_MAX - 3..=SCORE_MAX,
        1 => (FIRST_SCORE_MAX - 3)..(FIRST_SCORE_MAX + 3),
    ]
}

proptest! {
    #[test]
    fn it_is_a_sorted_set(
        steps in prop::collection::vec((0..1_000u32, 0..3u16, score(), 0..3u64), 0..6_000),
        players in prop_oneof![1..60u32, 1_000..1_001u32],
        settled_every in 1..80usize,
    ) {
        let mut pair = Pair::new(players);
        for (i, (slot, hunt, score, epoch)) in steps.into_iter().enumerate() {
            let slot = slot % players;
            pair.put(slot, key(slot, hunt, score, epoch));
            if i.is_multiple_of(settled_every) {
                pair.settle();
            }
        }
        pair.check();
        (0..players).for_each(|slot| pair.put(slot, None));
        pair.check();
        prop_assert_eq!(pair.board.used(&pair.nodes), [1, 0], "an empty board is one leaf");
    }

    #[test]
    fn loaded_it_is_the_same_and_goes_on(
        players in prop::collection::vec((0..3u16, score(), 0..3u64), 1..2_000),
        steps in prop::collection::vec((0..2_000u32, score()), 0..500),
    ) {
        let mut pair = Pair::new(players.len() as u32);
        let keys = players.iter().zip(0..).map(|((hunt, score, epoch), slot)| {
            key(slot, *hunt, *score, *epoch)
        });
        pair.keys.0 = keys.collect();
        pair.model = pair.keys.0.iter().flatten().copied().collect();
        let sorted: Vec<BoardKey> = pair.model.iter().copied().collect();
        pair.board.load(&mut pair.nodes, &sorted).expect("room for all");
        pair.check();
        for (slot, score) in steps {
            let slot = slot % players.len() as u32;
            pair.put(slot, key(slot, players[slot as usize].0, score, 4));
        }
        pair.check();
    }
}

/// Orders of coming and going that leave nodes as empty as they may be: the
/// arena suffices for each, and what is given back is used again.
#[test]
fn the_arena_suffices_however_players_come_and_go() {
    const PLAYERS: u32 = 20_000;
    let mut pair = Pair::new(PLAYERS);
    for round in 0..6 {
        // Ascending, descending, and from both ends.
        let place = |i: u32| match round % 3 {
            0 => i,
            1 => PLAYERS - 1 - i,
            _ if i.is_multiple_of(2) => i / 2,
            _ => PLAYERS - 1 - i / 2,
        };
        let at = |i: u32, by: u64| key(i, 0, u64::from(i) * 2 + by, 1);
        (0..PLAYERS).map(place).for_each(|i| pair.put(i, at(i, 1)));
        pair.settle();
        assert_eq!(pair.board.len(), PLAYERS);
        // Two in three go; they come again as neighbours of the rest.
        (0..PLAYERS).filter(|i| i % 3 != round % 3).for_each(|i| pair.put(i, None));
        pair.check();
        (0..PLAYERS).filter(|i| i % 3 != round % 3).for_each(|i| pair.put(i, at(i, 2)));
        pair.settle();
        assert_eq!(pair.board.len(), PLAYERS);
        // All gather at one place, and part again.
        (0..PLAYERS).map(place).for_each(|i| pair.put(i, key(i, 0, 7, 1)));
        (0..PLAYERS).map(place).for_each(|i| pair.put(i, at(i, 3)));
        pair.check();
        (0..PLAYERS).map(place).for_each(|i| pair.put(i, None));
        pair.settle();
        assert_eq!(pair.board.used(&pair.nodes), [1, 0], "an empty board is one leaf");
    }
}

#[test]
fn the_higher_score_is_first_then_the_older_then_who_was_seen_first() {
    let place = |score, score_epoch, slot| key(slot, 3, score, score_epoch);
    let order = [
        place(SCORE_MAX, 9, 9),
        place(FIRST_SCORE_MAX + 2, 1, 1),
        place(FIRST_SCORE_MAX + 1, 1, 1),
        place(FIRST_SCORE_MAX, 0, 0),
        place(10, 5, 9),
        place(10, 6, 1),
        place(10, 6, 2),
        place(9, 1, 0),
        place(1, u64::MAX - 1, 0),
    ];
    assert!(order.is_sorted() && order.iter().all(Option::is_some));
    let firsts = order.map(|key| key.map(BoardKey::first));
    assert!(firsts.is_sorted(), "first words are in the same order");
    assert!(firsts[3] < firsts[4] && firsts[4] == firsts[5] && firsts[6] < firsts[7]);
    assert!(firsts.iter().all(|first| first.map(BoardKey::hunt_of) == Some(3)));
    assert_eq!(place(0, 5, 1), None, "no score, no place");
    assert_eq!(place(10, 6, 2).map(BoardKey::slot), Some(2));
    assert_eq!(place(1, 7, RECORDS_MAX).map(BoardKey::slot), Some(RECORDS_MAX));
}
