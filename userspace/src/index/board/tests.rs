//! The board against a sorted set.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn key(hunt: u16, place: u128) -> BoardKey {
    BoardKey { hunt, place }
}

struct Pair {
    board: Board,
    nodes: Vec<u64>,
    model: BTreeSet<BoardKey>,
    players_max: u32,
}

impl Pair {
    fn new(players_max: u32) -> Self {
        let nodes_max = board_nodes_max(players_max);
        let mut nodes = vec![0; nodes_max as usize * BOARD_NODE_WORDS];
        let board = Board::new(&mut nodes, nodes_max);
        Self { board, nodes, model: BTreeSet::new(), players_max }
    }

    /// Enters the key, or takes it out if it is there.
    fn toggle(&mut self, key: BoardKey) {
        if self.model.remove(&key) {
            self.board.remove(&mut self.nodes, key);
        } else if self.model.len() < self.players_max as usize {
            self.model.insert(key);
            self.board.insert(&mut self.nodes, key).expect("made for the most there can be");
        }
    }

    /// Moves the key that is next to `old`, if `new` is free.
    fn change(&mut self, old: BoardKey, new: BoardKey) {
        let old = self.model.range(old..).next().copied();
        if let Some(old) = old.filter(|_| !self.model.contains(&new)) {
            self.model.remove(&old);
            self.model.insert(new);
            self.board.change(&mut self.nodes, old, new).expect("made for the most there can be");
        }
    }

    fn check(&self) {
        assert_eq!(self.board.len() as usize, self.model.len());
        assert!(self.board.select(&self.nodes, 0).eq(self.model.iter().copied()));
        for (below, key) in self.model.iter().enumerate() {
            assert_eq!(self.board.rank(&self.nodes, *key) as usize, below);
            assert_eq!(self.board.select(&self.nodes, below as u32).next(), Some(*key));
        }
        let past = self.model.len() as u32;
        assert_eq!(self.board.select(&self.nodes, past).next(), None);
        assert_eq!(self.board.rank(&self.nodes, key(u16::MAX, u128::MAX)), past);
    }
}

proptest! {
    #[test]
    fn it_is_a_sorted_set(
        toggles in prop::collection::vec((0..3u16, 0..600u128), 0..3_000),
        changes in prop::collection::vec((0..3u16, 0..600u128, 0..3u16, 0..600u128), 0..3_000),
    ) {
        let mut pair = Pair::new(1_000);
        for (hunt, place) in toggles {
            pair.toggle(key(hunt, place));
        }
        pair.check();
        for (hunt, place, to_hunt, to_place) in changes {
            pair.change(key(hunt, place), key(to_hunt, to_place));
        }
        pair.check();
    }

    #[test]
    fn loaded_it_is_the_same_and_goes_on(
        keys in prop::collection::btree_set((0..3u16, 0..100_000u128), 0..2_000),
        toggles in prop::collection::vec((0..3u16, 0..100_000u128), 0..500),
    ) {
        let mut pair = Pair::new(3_000);
        let keys: Vec<_> = keys.into_iter().map(|(hunt, place)| key(hunt, place)).collect();
        pair.board.load(&mut pair.nodes, &keys).expect("room for all");
        pair.model = keys.into_iter().collect();
        pair.check();
        for (hunt, place) in toggles {
            pair.toggle(key(hunt, place));
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
    let all = u128::from(PLAYERS);
    for round in 0..6 {
        // Ascending, descending, and from both ends.
        let place = |i: u128| match round % 3 {
            0 => i,
            1 => all - 1 - i,
            _ if i.is_multiple_of(2) => i / 2,
            _ => all - 1 - i / 2,
        };
        (0..all).for_each(|i| pair.toggle(key(0, place(i) * 2)));
        assert_eq!(pair.model.len(), PLAYERS as usize);
        // Two in three go; the rest come again as their neighbours.
        (0..all).filter(|i| i % 3 != round % 3).for_each(|i| pair.toggle(key(0, i * 2)));
        let gone = PLAYERS as usize - pair.model.len();
        (0..all).filter(|i| i % 3 != round % 3).for_each(|i| pair.toggle(key(0, i * 2 + 1)));
        assert_eq!(pair.model.len(), PLAYERS as usize, "{gone} came back");
        let left: Vec<_> = pair.model.iter().copied().collect();
        left.into_iter().for_each(|key| pair.toggle(key));
        assert_eq!(pair.board.nodes(&pair.nodes), 1, "an empty board is one leaf");
    }
}

#[test]
fn the_higher_score_is_first_then_the_older_then_who_was_seen_first() {
    let place = |score, score_epoch, slot| {
        let player = Player { score, score_epoch, ..Player::default() };
        BoardKey::of(&player, slot)
    };
    let order = [
        place(SCORE_MAX, 9, 9),
        place(10, 5, 9),
        place(10, 6, 1),
        place(10, 6, 2),
        place(9, 1, 0),
        place(1, u64::MAX - 1, 0),
    ];
    assert!(order.is_sorted() && order.iter().all(Option::is_some));
    assert_eq!(place(0, 5, 1), None, "no score, no place");
    assert_eq!(place(10, 6, 2).map(BoardKey::slot), Some(2));
    assert_eq!(place(1, 7, RECORDS_MAX).map(BoardKey::slot), Some(RECORDS_MAX));
}
