//! Ranks: who stands where on a hunt's board.
//!
//! Writing a player's score notes a move on the board; [`Index::settle_ranks`] makes
//! the moves that were noted. Between two entries there are none.

use super::Index;
use super::arena::{chunk, chunk_mut};
use super::board::{Board, BoardKey, Keys};
use super::records::{HuntId, PLAYER_WORDS, Player, PlayerSlot, TALLY_WORDS, Tally};
use crate::base::table::prefetch;

/// Records of players, where the board finds their keys.
pub(super) struct Records<'a> {
    words: &'a [u64],
}

impl Keys for Records<'_> {
    #[inline(always)]
    fn key(&self, slot: u32) -> BoardKey {
        let words: &[u64; PLAYER_WORDS] = chunk(self.words, slot as usize * PLAYER_WORDS);
        let player: &Player = zerocopy::transmute_ref!(words);
        BoardKey::of_ranked(player, slot)
    }

    #[inline(always)]
    fn ask(&self, slot: u32) {
        prefetch(self.words, slot as usize * PLAYER_WORDS);
    }
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
        let (records, nodes) = self.board_view();
        let first = BoardKey::first_of(hunt.0);
        match hunt.0.checked_add(1) {
            Some(next) => {
                let wanted = [first, BoardKey::first_of(next)];
                let [from, to] = self.board.ranks(nodes, &records, wanted);
                to - from
            }
            None => self.board.len() - self.board.ranks(nodes, &records, [first])[0],
        }
    }

    /// Rank of a player: 1 and one more for each of the hunt who has a higher
    /// score, or the same since an earlier epoch, or the same in the same epoch and
    /// was first seen before. `None` without a score.
    #[must_use]
    pub fn rank(&self, slot: PlayerSlot) -> Option<u32> {
        let key = BoardKey::of(self.player(slot), slot.0)?;
        let (records, nodes) = self.board_view();
        let wanted = [BoardKey::first_of(key.hunt), key];
        let [first, rank] = self.board.ranks(nodes, &records, wanted);
        Some(rank - first + 1)
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
        let (records, nodes) = self.board_view();
        let [below] = self.board.ranks(nodes, &records, [BoardKey::first_of(hunt.0)]);
        let from = from.max(1);
        let cursor = self.board.select(nodes, &records, below.saturating_add(from - 1));
        let of_hunt = cursor.take(limit).take_while(|key| key.hunt == hunt.0);
        let mut visited = 0;
        for (key, rank) in of_hunt.zip(from..) {
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
        let (old, new) = (BoardKey::of(before, slot.0), BoardKey::of(after, slot.0));
        self.moves.note(slot.0, old, new);
        let tally = self.tally_mut(after.hunt);
        tally.score_epoch = tally.score_epoch.max(after.score_epoch);
        if self.moves.is_full() {
            self.settle_ranks();
        }
    }

    /// Makes the moves on the board that are due. Whoever has written players calls
    /// it before anybody reads a rank: once an entry, since moves that are made
    /// together wait for memory together.
    pub fn settle_ranks(&mut self) {
        let (records, nodes) = self.main.split_at_mut(self.layout.board_at);
        let records = Records { words: &records[self.layout.players_at..] };
        let nodes = &mut nodes[..self.layout.board_words];
        // The arena holds every player.
        let made = self.board.settle(nodes, &records, &mut self.moves);
        debug_assert!(made.is_ok(), "the board is made for the most that can be");
    }

    fn board_view(&self) -> (Records<'_>, &[u64]) {
        debug_assert!(self.moves.is_empty(), "ranks are read when all moves are made");
        let (records, nodes) = self.main.split_at(self.layout.board_at);
        let records = Records { words: &records[self.layout.players_at..] };
        (records, &nodes[..self.layout.board_words])
    }

    /// The board, and the nodes it works on.
    pub(super) fn board_nodes(&mut self) -> (&mut Board, &mut [u64]) {
        let nodes = &mut self.main[self.layout.board_at..][..self.layout.board_words];
        (&mut self.board, nodes)
    }
}
