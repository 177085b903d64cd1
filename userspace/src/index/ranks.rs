//! Ranks: who stands where on a hunt's board.
//!
//! Writing a player's score notes a move on the board; [`Index::settle_ranks`] makes
//! the moves that were noted. Between two entries there are none.

use super::Index;
use super::arena::{chunk, chunk_mut};
use super::board::{Board, BoardKey, WARMED};
use super::records::{HuntId, Player, PlayerSlot, TALLY_WORDS, Tally};
use crate::base::table::prefetch;

/// Moves that are noted before they must be made.
const MOVES: usize = WARMED / 2;

/// Moves that are due, in the order in which they were noted: from where, to where.
#[derive(Debug)]
pub(super) struct Moves {
    list: [(Option<BoardKey>, Option<BoardKey>); MOVES],
    len: usize,
}

impl Moves {
    pub(super) const NONE: Self = Self { list: [(None, None); MOVES], len: 0 };
}

/// A player on the board.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    /// 1 for the first.
    pub rank: u32,
    /// The record.
    pub player: &'a Player,
}

impl Index {
    /// What a hunt holds.
    #[must_use]
    #[inline]
    pub fn tally(&self, hunt: HuntId) -> &Tally {
        let at = self.layout.tallies_at + usize::from(hunt.0) * TALLY_WORDS;
        let words: &[u64; TALLY_WORDS] = chunk(&self.main, at);
        zerocopy::transmute_ref!(words)
    }

    #[inline]
    pub(super) fn tally_mut(&mut self, hunt: u16) -> &mut Tally {
        let at = self.layout.tallies_at + usize::from(hunt) * TALLY_WORDS;
        let words: &mut [u64; TALLY_WORDS] = chunk_mut(&mut self.main, at);
        zerocopy::transmute_mut!(words)
    }

    /// Counts an event that a rule has decided.
    #[inline(always)]
    pub fn tally_event(&mut self, hunt: HuntId) {
        let events = &mut self.tally_mut(hunt.0).events;
        *events = events.wrapping_add(1);
    }

    /// Players of a hunt that have a score.
    #[must_use]
    pub fn ranked_len(&self, hunt: HuntId) -> u32 {
        let nodes = self.nodes();
        let from = self.board.rank(nodes, BoardKey::first_of(hunt.0));
        let to = match hunt.0.checked_add(1) {
            Some(next) => self.board.rank(nodes, BoardKey::first_of(next)),
            None => self.board.len(),
        };
        to - from
    }

    /// Rank of a player: 1 and one more for each of the hunt who has a higher
    /// score, or the same since an earlier epoch, or the same in the same epoch and
    /// was first seen before. `None` without a score.
    #[must_use]
    pub fn rank(&self, slot: PlayerSlot) -> Option<u32> {
        let key = BoardKey::of(self.player(slot), slot.0)?;
        let nodes = self.nodes();
        let first = self.board.rank(nodes, BoardKey::first_of(key.hunt));
        Some(self.board.rank(nodes, key) - first + 1)
    }

    /// Calls `visit` with the players of `hunt` from rank `from` on, 1 being the
    /// first, at most `limit` of them; how many there were.
    pub fn ranked(
        &self,
        hunt: HuntId,
        from: u32,
        limit: usize,
        mut visit: impl FnMut(Ranked<'_>),
    ) -> usize {
        let nodes = self.nodes();
        let below = self.board.rank(nodes, BoardKey::first_of(hunt.0));
        let from = from.max(1);
        let keys = || {
            let cursor = self.board.select(nodes, below.saturating_add(from - 1));
            cursor.take(limit).take_while(|key| key.hunt == hunt.0)
        };
        // Records lie at random places: all are asked for before one is read.
        keys().for_each(|key| prefetch(&self.main, self.player_at(key.slot())));
        let mut visited = 0;
        for (key, rank) in keys().zip(from..) {
            visit(Ranked { rank, player: self.player(PlayerSlot(key.slot())) });
            visited += 1;
        }
        visited
    }

    /// Notes that a player whose record has changed has to move.
    #[inline(always)]
    pub(super) fn rank_again(&mut self, slot: PlayerSlot, before: &Player, after: &Player) {
        if (before.score, before.score_epoch) != (after.score, after.score_epoch) {
            self.note_move(slot, before, after);
        }
    }

    fn note_move(&mut self, slot: PlayerSlot, before: &Player, after: &Player) {
        if self.moves.len == MOVES {
            self.settle_ranks();
        }
        let (old, new) = (BoardKey::of(before, slot.0), BoardKey::of(after, slot.0));
        self.moves.list[self.moves.len] = (old, new);
        self.moves.len += 1;
        let tally = self.tally_mut(after.hunt);
        tally.score_epoch = tally.score_epoch.max(after.score_epoch);
    }

    /// Makes the moves on the board that are due. Whoever has written players calls
    /// it before anybody reads a rank: once an entry, since moves that are made
    /// together wait for memory together.
    pub fn settle_ranks(&mut self) {
        let Self { board, moves, main, layout, .. } = self;
        let moves = &moves.list[..std::mem::take(&mut moves.len)];
        let nodes = &mut main[layout.board_at..][..layout.board_words()];
        if moves.len() > 1 {
            let mut keys = [BoardKey::default(); WARMED];
            let all = moves.iter().flat_map(|(old, new)| [*old, *new]).flatten();
            let filled = keys.iter_mut().zip(all).map(|(place, key)| *place = key).count();
            board.warm(nodes, &keys[..filled]);
        }
        for (old, new) in moves {
            // The arena holds every player.
            let moved = match (*old, *new) {
                (Some(old), Some(new)) => board.change(nodes, old, new),
                (None, Some(new)) => board.insert(nodes, new),
                (Some(old), None) => {
                    board.remove(nodes, old);
                    Ok(())
                }
                (None, None) => Ok(()),
            };
            debug_assert!(moved.is_ok(), "the board is made for the most that can be");
        }
    }

    fn nodes(&self) -> &[u64] {
        debug_assert_eq!(self.moves.len, 0, "ranks are read when all moves are made");
        &self.main[self.layout.board_at..][..self.layout.board_words()]
    }

    /// The board, and the nodes it works on.
    pub(super) fn board_nodes(&mut self) -> (&mut Board, &mut [u64]) {
        let words = self.layout.board_words();
        (&mut self.board, &mut self.main[self.layout.board_at..][..words])
    }
}
