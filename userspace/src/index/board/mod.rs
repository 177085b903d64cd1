//! Players in order of (hunt, score, since when): a B+-tree that counts.
//!
//! ```text
//!                  [ key child count | ... ]          inner: up to 19 children
//!                  /            \
//!   [ key key key ... ] -> [ key ... ]                leaves: up to 28 keys, linked
//! ```
//!
//! A key says everything: hunt, score, epoch of the score, slot of the player.
//! So a move on the board touches nodes only and no other player's record. An
//! inner node knows how many players each child holds; the rank of a player is
//! a sum on the way from root to leaf, and the player of a rank is found the same
//! way: five nodes for a million players.
//!
//! One pass down does it all: a full node is split, and one that runs low joined
//! with its neighbour or filled up from it, before the pass enters it. So nodes but the
//! root stay a third full, and the arena can be made at the start for the worst
//! that can be: 68 bytes a player.

mod node;

use veltrix_abi::kinds::SCORE_MAX;

pub(super) use self::node::{BOARD_NODE_WORDS, board_nodes_max};
use self::node::{
    Entry, INNER_CHILDREN, Inner, LEAF_KEYS, Leaf, NO_NODE, Node, ask, node, node_mut,
};
use super::order::shares;
use super::records::{Player, RECORDS_MAX};

/// Epochs that a key tells apart; those beyond, after 2,000 years of 4,000 a
/// second, count as one.
const EPOCH_MAX: u64 = (1 << 48) - 1;
const EPOCH_SHIFT: u32 = RECORDS_MAX.count_ones();
const SCORE_SHIFT: u32 = EPOCH_SHIFT + EPOCH_MAX.count_ones();

const _: () = assert!(SCORE_SHIFT + SCORE_MAX.count_ones() == u128::BITS);

/// Keys whose ways are asked for together: few enough that what was asked for first
/// is still there.
pub(super) const WARMED: usize = 64;

/// Keys of a leaf and children of an inner node after loading: room for some to
/// come before the first is split.
const LOADED_KEYS: usize = 24;
const LOADED_CHILDREN: usize = 16;

/// A player's place: hunt by hunt, the highest score first, whoever has had it
/// for longer before others, whoever was seen first where even that is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BoardKey {
    pub(super) hunt: u16,
    /// From the top: points that lack to [`SCORE_MAX`], epoch, slot.
    pub(super) place: u128,
}

impl BoardKey {
    /// Place of the player whose record this is; `None` without a score.
    #[inline(always)]
    pub(super) fn of(player: &Player, slot: u32) -> Option<Self> {
        if player.score == 0 {
            return None;
        }
        let lacking = SCORE_MAX - player.score.min(SCORE_MAX);
        let place = u128::from(lacking) << SCORE_SHIFT
            | u128::from(player.score_epoch.min(EPOCH_MAX)) << EPOCH_SHIFT
            | u128::from(slot);
        Some(Self { hunt: player.hunt, place })
    }

    /// The first place of a hunt.
    #[inline(always)]
    pub(super) const fn first_of(hunt: u16) -> Self {
        Self { hunt, place: 0 }
    }

    /// The player's slot.
    #[inline(always)]
    pub(super) const fn slot(self) -> u32 {
        self.place as u32 & RECORDS_MAX
    }
}

/// The arena has no node left. The arena is made so that this cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoNode;

/// The tree. Its nodes lie in the arena and come with every call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Board {
    root: u32,
    /// Levels of inner nodes above the leaves.
    levels: usize,
    /// Players on it.
    len: u32,
    /// First of the nodes given back, chained.
    free: u32,
    /// Nodes ever taken.
    used: u32,
    nodes_max: u32,
}

impl Board {
    /// A board without players, in an arena of zeroes.
    pub(super) fn new(nodes: &mut [u64], nodes_max: u32) -> Self {
        node_mut::<Leaf>(nodes, 0).set_next(NO_NODE);
        Self { root: 0, levels: 0, len: 0, free: NO_NODE, used: 1, nodes_max }
    }

    /// Players on it.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    fn take(&mut self, nodes: &[u64]) -> Result<u32, NoNode> {
        let taken = self.free;
        if taken != NO_NODE {
            self.free = node::<Leaf>(nodes, taken).next();
            return Ok(taken);
        }
        if self.used == self.nodes_max {
            return Err(NoNode);
        }
        self.used += 1;
        Ok(self.used - 1)
    }

    fn give_back(&mut self, nodes: &mut [u64], given: u32) {
        node_mut::<Leaf>(nodes, given).set_next(self.free);
        self.free = given;
    }

    /// Enters a key that is not there.
    pub(super) fn insert(&mut self, nodes: &mut [u64], key: BoardKey) -> Result<(), NoNode> {
        self.grow(nodes)?;
        self.insert_from(nodes, self.root, 0, key)?;
        self.len += 1;
        Ok(())
    }

    /// Puts a new root above one that is full, and may have to be split.
    fn grow(&mut self, nodes: &mut [u64]) -> Result<(), NoNode> {
        if self.is_full(nodes, self.root, 0) {
            let root = self.take(nodes)?;
            let entry = Entry { key: BoardKey::default(), child: self.root, count: self.len };
            node_mut::<Inner>(nodes, root).fill(&[entry]);
            (self.root, self.levels) = (root, self.levels + 1);
        }
        Ok(())
    }

    /// Enters a key below a node of a level, which has room.
    fn insert_from(
        &mut self,
        nodes: &mut [u64],
        mut parent: u32,
        level: usize,
        key: BoardKey,
    ) -> Result<(), NoNode> {
        for level in level + 1..=self.levels {
            let at = self.make_room(nodes, parent, level, key)?;
            let inner = node_mut::<Inner>(nodes, parent);
            *inner.count_mut(at) += 1;
            parent = inner.child(at);
        }
        let leaf = node_mut::<Leaf>(nodes, parent);
        let at = leaf.position(key);
        leaf.insert(at, key);
        Ok(())
    }

    /// The child of `parent` that `key` belongs to, on `level` and with room for one
    /// more.
    #[inline(always)]
    fn make_room(
        &mut self,
        nodes: &mut [u64],
        parent: u32,
        level: usize,
        key: BoardKey,
    ) -> Result<usize, NoNode> {
        let inner = node::<Inner>(nodes, parent);
        let at = inner.position(key);
        ask(nodes, inner.child(at));
        if !self.is_full(nodes, inner.child(at), level) {
            return Ok(at);
        }
        if level == self.levels {
            self.split::<Leaf>(nodes, parent, at)?;
        } else {
            self.split::<Inner>(nodes, parent, at)?;
        }
        Ok(node::<Inner>(nodes, parent).position(key))
    }

    /// Whether the node of a level, counted from the root, has no room.
    #[inline(always)]
    fn is_full(&self, nodes: &[u64], number: u32, level: usize) -> bool {
        if level == self.levels {
            node::<Leaf>(nodes, number).len() == LEAF_KEYS
        } else {
            node::<Inner>(nodes, number).len() == INNER_CHILDREN
        }
    }

    /// Takes `old` out, which is there, and enters `new`, which is not. As long as
    /// both belong to the same child nothing is counted: most moves are short.
    pub(super) fn change(
        &mut self,
        nodes: &mut [u64],
        old: BoardKey,
        new: BoardKey,
    ) -> Result<(), NoNode> {
        self.grow(nodes)?;
        let mut parent = self.root;
        for level in 1..=self.levels {
            self.make_room(nodes, parent, level, new)?;
            let at = self.make_spare(nodes, parent, level, old);
            let inner = node::<Inner>(nodes, parent);
            if inner.position(new) != at {
                self.remove_from(nodes, parent, level - 1, old);
                self.insert_from(nodes, parent, level - 1, new)?;
                self.shrink(nodes);
                return Ok(());
            }
            parent = inner.child(at);
        }
        let leaf = node_mut::<Leaf>(nodes, parent);
        let at = leaf.position(old);
        leaf.remove(at);
        let at = leaf.position(new);
        leaf.insert(at, new);
        self.shrink(nodes);
        Ok(())
    }

    /// Makes two of the full child `at` of `parent`, which has room.
    fn split<N: Node>(&mut self, nodes: &mut [u64], parent: u32, at: usize) -> Result<(), NoNode> {
        let right = self.take(nodes)?;
        let left = node::<Inner>(nodes, parent).child(at);
        let next = node::<N>(nodes, left).next();
        node_mut::<N>(nodes, right).set_next(next);
        node_mut::<N>(nodes, left).set_next(right);
        let mut held = Held::<N>::default();
        held.append(node::<N>(nodes, left));
        let entry = Entry { child: right, ..Entry::default() };
        node_mut::<Inner>(nodes, parent).insert(at + 1, entry);
        held.deal(nodes, parent, at, [left, right]);
        Ok(())
    }

    /// Takes out a key that is there.
    pub(super) fn remove(&mut self, nodes: &mut [u64], key: BoardKey) {
        self.remove_from(nodes, self.root, 0, key);
        self.len -= 1;
        self.shrink(nodes);
    }

    /// Takes out a key below a node of a level, which has one to spare.
    fn remove_from(&mut self, nodes: &mut [u64], mut parent: u32, level: usize, key: BoardKey) {
        for level in level + 1..=self.levels {
            let at = self.make_spare(nodes, parent, level, key);
            let inner = node_mut::<Inner>(nodes, parent);
            *inner.count_mut(at) -= 1;
            parent = inner.child(at);
        }
        let leaf = node_mut::<Leaf>(nodes, parent);
        let at = leaf.position(key);
        debug_assert!(at < leaf.len() && leaf.item(at) == key, "{key:?} is not on the board");
        leaf.remove(at);
    }

    /// The child of `parent` that `key` belongs to, on `level` and with one to spare.
    #[inline(always)]
    fn make_spare(&mut self, nodes: &mut [u64], parent: u32, level: usize, key: BoardKey) -> usize {
        let inner = node::<Inner>(nodes, parent);
        let at = inner.position(key);
        let child = inner.child(at);
        ask(nodes, child);
        let mended = if level == self.levels {
            node::<Leaf>(nodes, child).len() <= Leaf::LEAST && self.mend::<Leaf>(nodes, parent, at)
        } else {
            node::<Inner>(nodes, child).len() <= Inner::LEAST
                && self.mend::<Inner>(nodes, parent, at)
        };
        if mended { node::<Inner>(nodes, parent).position(key) } else { at }
    }

    /// Takes away a root with an only child.
    fn shrink(&mut self, nodes: &mut [u64]) {
        if self.levels > 0 && node::<Inner>(nodes, self.root).len() == 1 {
            let child = node::<Inner>(nodes, self.root).child(0);
            self.give_back(nodes, self.root);
            (self.root, self.levels) = (child, self.levels - 1);
        }
    }

    /// Joins the child `at` of `parent` with a neighbour if they leave room in one
    /// node, or deals out evenly what the two hold. `false` for an only child.
    fn mend<N: Node>(&mut self, nodes: &mut [u64], parent: u32, at: usize) -> bool {
        let inner = node::<Inner>(nodes, parent);
        let Some(last_pair) = inner.len().checked_sub(2) else { return false };
        let first = at.min(last_pair);
        let pair = [inner.child(first), inner.child(first + 1)];
        let mut held = Held::<N>::default();
        pair.iter().for_each(|child| held.append(node::<N>(nodes, *child)));
        if held.len > N::JOINED {
            held.deal(nodes, parent, first, pair);
            return true;
        }
        let next = node::<N>(nodes, pair[1]).next();
        node_mut::<N>(nodes, pair[0]).fill(held.items());
        node_mut::<N>(nodes, pair[0]).set_next(next);
        let inner = node_mut::<Inner>(nodes, parent);
        *inner.count_mut(first) += inner.item(first + 1).count;
        inner.remove(first + 1);
        self.give_back(nodes, pair[1]);
        true
    }

    /// Asks for all nodes on the ways to `keys`, level by level: the memory answers
    /// for all of them at once. At most [`WARMED`].
    pub(super) fn warm(&self, nodes: &[u64], keys: &[BoardKey]) {
        let mut numbers = [self.root; WARMED];
        for _ in 0..self.levels {
            for (number, key) in numbers.iter_mut().zip(keys) {
                let inner = node::<Inner>(nodes, *number);
                *number = inner.child(inner.position(*key));
                ask(nodes, *number);
            }
        }
    }

    /// Keys below `key`.
    #[inline]
    pub(super) fn rank(&self, nodes: &[u64], key: BoardKey) -> u32 {
        let mut below = 0;
        let mut number = self.root;
        for _ in 0..self.levels {
            let inner = node::<Inner>(nodes, number);
            let at = inner.position(key);
            number = inner.child(at);
            ask(nodes, number);
            below += inner.counts()[..at].iter().sum::<u32>();
        }
        below + node::<Leaf>(nodes, number).position(key) as u32
    }

    /// A cursor before the key with so many below it.
    #[inline]
    pub(super) fn select<'a>(&self, nodes: &'a [u64], below: u32) -> Cursor<'a> {
        let mut left = below;
        let mut number = self.root;
        for _ in 0..self.levels {
            let inner = node::<Inner>(nodes, number);
            let mut at = 0;
            while at + 1 < inner.len() && left >= inner.counts()[at] {
                left -= inner.counts()[at];
                at += 1;
            }
            number = inner.child(at);
            ask(nodes, number);
        }
        Cursor { nodes, leaf: node(nodes, number), at: left as usize }
    }

    /// Enters `keys`, which are in order, into a board that has never had any.
    pub(super) fn load(&mut self, nodes: &mut [u64], keys: &[BoardKey]) -> Result<(), NoNode> {
        if keys.is_empty() {
            return Ok(());
        }
        self.used = 0;
        let mut level = self.load_level::<Leaf>(nodes, keys, LOADED_KEYS)?;
        while level.len() > 1 {
            level = self.load_level::<Inner>(nodes, &level, LOADED_CHILDREN)?;
            self.levels += 1;
        }
        self.root = level[0].child;
        self.len = keys.len() as u32;
        Ok(())
    }

    /// Nodes of at most `most` items each, nearly equal; the entries for them.
    fn load_level<N: Node>(
        &mut self,
        nodes: &mut [u64],
        items: &[N::Item],
        most: usize,
    ) -> Result<Vec<Entry>, NoNode> {
        let mut above: Vec<Entry> = Vec::with_capacity(items.len().div_ceil(most));
        for share in shares(items, most) {
            let number = self.take(nodes)?;
            if let Some(before) = above.last() {
                node_mut::<N>(nodes, before.child).set_next(number);
            }
            let filled = node_mut::<N>(nodes, number);
            filled.fill(share);
            filled.set_next(NO_NODE);
            // None is below the first of all.
            let key = if above.is_empty() { BoardKey::default() } else { N::key(&share[0]) };
            above.push(Entry { key, child: number, count: share.iter().map(N::count).sum() });
        }
        Ok(above)
    }

    /// Nodes in use.
    #[cfg(test)]
    pub(super) fn nodes(&self, nodes: &[u64]) -> u32 {
        let mut free = 0;
        let mut number = self.free;
        while number != NO_NODE {
            free += 1;
            number = node::<Leaf>(nodes, number).next();
        }
        self.used - free
    }
}

/// Items of two neighbours on their way.
struct Held<N: Node> {
    items: [N::Item; 2 * LEAF_KEYS],
    len: usize,
}

impl<N: Node> Default for Held<N> {
    fn default() -> Self {
        Self { items: [N::Item::default(); 2 * LEAF_KEYS], len: 0 }
    }
}

impl<N: Node> Held<N> {
    fn append(&mut self, node: &N) {
        for at in 0..node.len() {
            self.items[self.len] = node.item(at);
            self.len += 1;
        }
    }

    fn items(&self) -> &[N::Item] {
        &self.items[..self.len]
    }

    /// Half of them into each of the two, which are children `at` and the next
    /// of `parent`.
    fn deal(&self, nodes: &mut [u64], parent: u32, at: usize, pair: [u32; 2]) {
        let (left, right) = self.items().split_at(self.len / 2);
        node_mut::<N>(nodes, pair[0]).fill(left);
        node_mut::<N>(nodes, pair[1]).fill(right);
        let count = |items: &[N::Item]| items.iter().map(N::count).sum();
        let inner = node_mut::<Inner>(nodes, parent);
        *inner.count_mut(at) = count(left);
        let key = right.first().map(N::key).unwrap_or_default();
        inner.set(at + 1, Entry { key, child: pair[1], count: count(right) });
    }
}

/// A place between two players of the board.
pub(super) struct Cursor<'a> {
    nodes: &'a [u64],
    leaf: &'a Leaf,
    at: usize,
}

impl Iterator for Cursor<'_> {
    type Item = BoardKey;

    #[inline]
    fn next(&mut self) -> Option<BoardKey> {
        while self.at >= self.leaf.len() {
            if self.leaf.next() == NO_NODE {
                return None;
            }
            self.leaf = node(self.nodes, self.leaf.next());
            self.at = 0;
        }
        self.at += 1;
        Some(self.leaf.item(self.at - 1))
    }
}

#[cfg(test)]
mod tests;
