//! Players in order of (hunt, score, since when): a B+-tree that counts.
//!
//! ```text
//!              [ key child count | ... ]           inner: up to 16 children
//!              /            \
//!   [ slot slot ... ] -> [ slot ... ]              leaves: up to 30 players, linked
//! ```
//!
//! A key says everything: hunt, score, epoch of the score, slot of the player. It is
//! in the player's record, so a leaf holds no more than slots, two cache lines of
//! them, in no order: who moves is crossed out in one leaf and added to another.
//! Whoever reads a rank reads the records of one leaf.
//!
//! An inner node knows how many players each child holds; the rank of a player is
//! a sum on the way from root to leaf, and the player of a rank is found the same
//! way: five inner nodes for a million players.
//!
//! Moves are made many at a time ([`Board::settle`]): all ways down are gone level by
//! level, so that the memory answers for all of them at once, and counted on the
//! way. Only when all have left their leaves is a leaf split or joined: then every
//! player on the board is where the record says.
//!
//! Nodes but the root stay a third full, and the arena can be made at the start for
//! the worst that can be: 26 bytes a player.

mod node;
mod settle;

use veltrix_abi::kinds::SCORE_MAX;

use self::node::{
    Entry, Held, INNER_CHILDREN, Inner, LEAF_SLOTS, Leaf, NO_NODE, Node, ask_inner, ask_leaf,
    halves, nodes_max,
};
pub(super) use self::settle::Moves;
use super::arena::LINE_WORDS;
use super::order::shares;
use super::records::{Player, RECORDS_MAX};

/// Epochs that a key tells apart; those beyond, after 2,000 years of 4,000 a
/// second, count as one.
const EPOCH_MAX: u64 = (1 << 48) - 1;
const EPOCH_SHIFT: u32 = RECORDS_MAX.count_ones();
const SCORE_SHIFT: u32 = EPOCH_SHIFT + EPOCH_MAX.count_ones();

const _: () = assert!(SCORE_SHIFT + SCORE_MAX.count_ones() == u128::BITS);

/// Scores that [`BoardKey::first`] tells apart.
const FIRST_SCORE_MAX: u64 = (1 << FIRST_HUNT_SHIFT) - 1;
const FIRST_HUNT_SHIFT: u32 = 48;

/// Players of a leaf and children of an inner node after loading: room for some to
/// come before the first is split.
const LOADED_SLOTS: usize = 24;
const LOADED_CHILDREN: usize = 13;

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
        (player.score > 0).then(|| Self::of_ranked(player, slot))
    }

    /// Place of a player who has a score.
    #[inline(always)]
    pub(super) fn of_ranked(player: &Player, slot: u32) -> Self {
        let lacking = SCORE_MAX - player.score.min(SCORE_MAX);
        let place = u128::from(lacking) << SCORE_SHIFT
            | u128::from(player.score_epoch.min(EPOCH_MAX)) << EPOCH_SHIFT
            | u128::from(slot);
        Self { hunt: player.hunt, place }
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

    /// Hunt and score in one word, in the same order; the highest scores are one.
    #[inline(always)]
    const fn first(self) -> u64 {
        let lacking = (self.place >> SCORE_SHIFT) as u64;
        (self.hunt as u64) << FIRST_HUNT_SHIFT | lacking.saturating_sub(SCORE_MAX - FIRST_SCORE_MAX)
    }

    /// Hunt of a first word.
    const fn hunt_of(first: u64) -> u16 {
        (first >> FIRST_HUNT_SHIFT) as u16
    }
}

/// A key on its way down. In words, which need less room than a `u128`.
#[derive(Clone, Copy, Debug, Default)]
struct Sought {
    first: u64,
    place: [u64; 2],
}

impl From<BoardKey> for Sought {
    #[inline(always)]
    fn from(key: BoardKey) -> Self {
        Self { first: key.first(), place: halves(key.place) }
    }
}

/// Where the keys of players are: in their records.
pub(super) trait Keys {
    /// Key of a player on the board.
    fn key(&self, slot: u32) -> BoardKey;
    /// Asks for it.
    fn ask(&self, slot: u32);
}

/// The arena has no node left. The arena is made so that this cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoNode;

/// Nodes of one kind.
#[derive(Clone, Copy, Debug)]
struct Shelf {
    /// First of the nodes given back, chained.
    free: u32,
    /// The first that was never taken.
    top: u32,
    end: u32,
}

impl Shelf {
    const fn new(start: u32, nodes: u32, lines: u32) -> Self {
        Self { free: NO_NODE, top: start, end: start + nodes * lines }
    }

    fn take<N: Node>(&mut self, nodes: &[u64]) -> Result<u32, NoNode> {
        let taken = self.free;
        if taken != NO_NODE {
            self.free = N::at(nodes, taken).next();
            return Ok(taken);
        }
        if self.top == self.end {
            return Err(NoNode);
        }
        self.top += N::LINES;
        Ok(self.top - N::LINES)
    }

    fn give_back<N: Node>(&mut self, nodes: &mut [u64], given: u32) {
        N::at_mut(nodes, given).set_next(self.free);
        self.free = given;
    }
}

/// The tree. Its nodes lie in the arena and come with every call, as do the
/// records with the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Board {
    root: u32,
    /// Levels of inner nodes above the leaves.
    levels: usize,
    /// Players on it.
    len: u32,
    shelves: [Shelf; 2],
}

/// Words of the arena of a board of `players`.
pub(super) const fn board_words(players: u32) -> usize {
    let [leaves, inner] = nodes_max(players);
    (leaves as usize * Leaf::LINES as usize + inner as usize * Inner::LINES as usize) * LINE_WORDS
}

impl Board {
    /// A board without players, in an arena for so many.
    pub(super) fn new(nodes: &mut [u64], players_max: u32) -> Self {
        let [leaves, inner] = nodes_max(players_max);
        let mut leaf = Shelf::new(0, leaves, Leaf::LINES);
        let inner = Shelf::new(leaf.end, inner, Inner::LINES);
        let root = leaf.top;
        leaf.top += Leaf::LINES;
        Leaf::at_mut(nodes, root).fill(&[]);
        Leaf::at_mut(nodes, root).set_next(NO_NODE);
        Self { root, levels: 0, len: 0, shelves: [leaf, inner] }
    }

    /// Players on it.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    fn take<N: Node>(&mut self, nodes: &[u64]) -> Result<u32, NoNode> {
        self.shelves[N::SHELF].take::<N>(nodes)
    }

    fn give_back<N: Node>(&mut self, nodes: &mut [u64], given: u32) {
        self.shelves[N::SHELF].give_back::<N>(nodes, given);
    }

    /// Enters a player who is not there.
    fn insert(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        slot: u32,
        sought: &Sought,
    ) -> Result<(), NoNode> {
        self.grow(nodes)?;
        let mut parent = self.root;
        for level in 1..=self.levels {
            let at = self.make_room(nodes, keys, parent, level, sought)?;
            let inner = Inner::at_mut(nodes, parent);
            *inner.count_mut(at) += 1;
            parent = inner.child(at);
        }
        let has_room = Leaf::at_mut(nodes, parent).push(slot);
        debug_assert!(has_room, "room was made");
        self.len += 1;
        Ok(())
    }

    /// Puts a new root above one that is full, and may have to be split.
    fn grow(&mut self, nodes: &mut [u64]) -> Result<(), NoNode> {
        if self.is_full(nodes, self.root, 0) {
            let root = self.take::<Inner>(nodes)?;
            let entry = Entry { key: BoardKey::default(), child: self.root, count: self.len };
            Inner::at_mut(nodes, root).fill(&[entry]);
            (self.root, self.levels) = (root, self.levels + 1);
        }
        Ok(())
    }

    /// The child of `parent` that the key belongs to, on `level` and with room for one
    /// more.
    fn make_room(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        parent: u32,
        level: usize,
        sought: &Sought,
    ) -> Result<usize, NoNode> {
        let inner = Inner::at(nodes, parent);
        let at = inner.position(sought);
        if !self.is_full(nodes, inner.child(at), level) {
            return Ok(at);
        }
        if level == self.levels {
            self.split::<Leaf>(nodes, keys, parent, at)?;
        } else {
            self.split::<Inner>(nodes, keys, parent, at)?;
        }
        Ok(Inner::at(nodes, parent).position(sought))
    }

    /// Whether the node of a level, counted from the root, has no room.
    fn is_full(&self, nodes: &[u64], number: u32, level: usize) -> bool {
        if level == self.levels {
            Leaf::at(nodes, number).len() == LEAF_SLOTS
        } else {
            Inner::at(nodes, number).len() == INNER_CHILDREN
        }
    }

    /// Makes two of the full child `at` of `parent`, which has room.
    fn split<N: Node>(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        parent: u32,
        at: usize,
    ) -> Result<(), NoNode> {
        let right = self.take::<N>(nodes)?;
        let left = Inner::at(nodes, parent).child(at);
        let next = N::at(nodes, left).next();
        N::at_mut(nodes, right).set_next(next);
        N::at_mut(nodes, left).set_next(right);
        let mut held = Held::<N>::default();
        N::at(nodes, left).hold(keys, BoardKey::default(), &mut held);
        let entry = Entry { child: right, ..Entry::default() };
        Inner::at_mut(nodes, parent).insert(at + 1, entry);
        deal(&mut held, nodes, parent, at);
        Ok(())
    }

    /// Joins nodes on the way to a key, or fills them up from their neighbours,
    /// until its leaf is as full as it has to be.
    fn mend_way(&mut self, nodes: &mut [u64], keys: &impl Keys, sought: &Sought) {
        while self.levels > 0 && self.mend_some(nodes, keys, sought) {
            self.shrink(nodes);
        }
    }

    /// One pass down: what runs low is mended before the pass enters it. Whether the
    /// leaf was.
    fn mend_some(&mut self, nodes: &mut [u64], keys: &impl Keys, sought: &Sought) -> bool {
        let mut parent = self.root;
        for _ in 1..self.levels {
            let inner = Inner::at(nodes, parent);
            let mut at = inner.position(sought);
            if Inner::at(nodes, inner.child(at)).len() <= Inner::LEAST
                && self.mend::<Inner>(nodes, keys, parent, at)
            {
                at = Inner::at(nodes, parent).position(sought);
            }
            parent = Inner::at(nodes, parent).child(at);
        }
        let inner = Inner::at(nodes, parent);
        let at = inner.position(sought);
        Leaf::at(nodes, inner.child(at)).len() < Leaf::LEAST
            && self.mend::<Leaf>(nodes, keys, parent, at)
    }

    /// Takes away a root with an only child.
    fn shrink(&mut self, nodes: &mut [u64]) {
        while self.levels > 0 && Inner::at(nodes, self.root).len() == 1 {
            let child = Inner::at(nodes, self.root).child(0);
            self.give_back::<Inner>(nodes, self.root);
            (self.root, self.levels) = (child, self.levels - 1);
        }
    }

    /// Joins the child `at` of `parent` with a neighbour if they leave room in one
    /// node, or deals out evenly what the two hold. `false` for an only child.
    fn mend<N: Node>(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        parent: u32,
        at: usize,
    ) -> bool {
        let inner = Inner::at(nodes, parent);
        let Some(last_pair) = inner.len().checked_sub(2) else { return false };
        let first = at.min(last_pair);
        let [left, right] = [inner.child(first), inner.child(first + 1)];
        let mut held = Held::<N>::default();
        N::at(nodes, left).hold(keys, BoardKey::default(), &mut held);
        N::at(nodes, right).hold(keys, inner.bound(first + 1), &mut held);
        if held.items().len() > N::JOINED {
            deal(&mut held, nodes, parent, first);
            return true;
        }
        let next = N::at(nodes, right).next();
        N::at_mut(nodes, left).fill(held.items());
        N::at_mut(nodes, left).set_next(next);
        let inner = Inner::at_mut(nodes, parent);
        *inner.count_mut(first) += inner.count(first + 1);
        inner.remove(first + 1);
        self.give_back::<N>(nodes, right);
        true
    }

    /// For each of `wanted` the keys below it. All ways are gone together.
    #[inline]
    pub(super) fn ranks<const N: usize>(
        &self,
        nodes: &[u64],
        keys: &impl Keys,
        wanted: [BoardKey; N],
    ) -> [u32; N] {
        let sought = wanted.map(Sought::from);
        let mut numbers = [self.root; N];
        let mut below = [0; N];
        for level in 1..=self.levels {
            for ((number, below), sought) in numbers.iter_mut().zip(&mut below).zip(&sought) {
                let inner = Inner::at(nodes, *number);
                let at = inner.position(sought);
                *number = inner.child(at);
                self.ask(nodes, *number, level);
                *below += inner.count_before(at);
            }
        }
        let leaves = numbers.map(|number| Leaf::at(nodes, number));
        leaves.iter().flat_map(|leaf| leaf.slots()).for_each(|slot| keys.ask(*slot));
        for ((leaf, below), wanted) in leaves.iter().zip(&mut below).zip(&wanted) {
            let is_below = |slot: &&u32| keys.key(**slot) < *wanted;
            *below += leaf.slots().iter().filter(is_below).count() as u32;
        }
        below
    }

    /// Asks for a node of a level.
    #[inline(always)]
    fn ask(&self, nodes: &[u64], number: u32, level: usize) {
        if level == self.levels {
            ask_leaf(nodes, number);
        } else {
            ask_inner(nodes, number);
        }
    }

    /// A cursor before the key with so many below it.
    #[inline]
    pub(super) fn select<'a, K: Keys>(
        &self,
        nodes: &'a [u64],
        keys: &'a K,
        below: u32,
    ) -> Cursor<'a, K> {
        let mut left = below;
        let mut number = self.root;
        for level in 1..=self.levels {
            let inner = Inner::at(nodes, number);
            let mut at = 0;
            while at + 1 < inner.len() && left >= inner.count(at) {
                left -= inner.count(at);
                at += 1;
            }
            number = inner.child(at);
            self.ask(nodes, number, level);
        }
        Cursor::new(nodes, keys, number, left as usize)
    }

    /// Enters `sorted` into a board that has never had any.
    pub(super) fn load(&mut self, nodes: &mut [u64], sorted: &[BoardKey]) -> Result<(), NoNode> {
        if sorted.is_empty() {
            return Ok(());
        }
        self.give_back::<Leaf>(nodes, self.root);
        let mut level = self.load_level::<Leaf>(nodes, sorted, LOADED_SLOTS)?;
        while level.len() > 1 {
            level = self.load_level::<Inner>(nodes, &level, LOADED_CHILDREN)?;
            self.levels += 1;
        }
        self.root = level[0].child;
        self.len = sorted.len() as u32;
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
            let number = self.take::<N>(nodes)?;
            if let Some(before) = above.last() {
                N::at_mut(nodes, before.child).set_next(number);
            }
            let filled = N::at_mut(nodes, number);
            filled.fill(share);
            filled.set_next(NO_NODE);
            // None is below the first of all.
            let key = if above.is_empty() { BoardKey::default() } else { N::key(&share[0]) };
            above.push(Entry { key, child: number, count: share.iter().map(N::count).sum() });
        }
        Ok(above)
    }

    /// Nodes in use: leaves, inner nodes.
    #[cfg(test)]
    fn used(&self, nodes: &[u64]) -> [u32; 2] {
        fn of<N: Node>(shelf: &Shelf, start: u32, nodes: &[u64]) -> u32 {
            let mut free = 0;
            let mut number = shelf.free;
            while number != NO_NODE {
                free += 1;
                number = N::at(nodes, number).next();
            }
            (shelf.top - start) / N::LINES - free
        }
        let [leaves, inner] = &self.shelves;
        [of::<Leaf>(leaves, 0, nodes), of::<Inner>(inner, leaves.end, nodes)]
    }
}

/// Half of what is held into each of the children `at` and the next of `parent`.
fn deal<N: Node>(held: &mut Held<N>, nodes: &mut [u64], parent: u32, at: usize) {
    let items = held.items();
    let half = items.len() / 2;
    N::halve(items, half);
    let (lower, upper) = items.split_at(half);
    let inner = Inner::at(nodes, parent);
    let [left, right] = [inner.child(at), inner.child(at + 1)];
    N::at_mut(nodes, left).fill(lower);
    N::at_mut(nodes, right).fill(upper);
    let count = |items: &[N::Item]| items.iter().map(N::count).sum();
    let inner = Inner::at_mut(nodes, parent);
    *inner.count_mut(at) = count(lower);
    let key = upper.first().map(N::key).unwrap_or_default();
    inner.set(at + 1, Entry { key, child: right, count: count(upper) });
}

/// A place between two players of the board. Those of a leaf are sorted when it is
/// come to.
pub(super) struct Cursor<'a, K> {
    nodes: &'a [u64],
    keys: &'a K,
    leaf: [BoardKey; LEAF_SLOTS],
    len: usize,
    at: usize,
    next: u32,
}

impl<'a, K: Keys> Cursor<'a, K> {
    fn new(nodes: &'a [u64], keys: &'a K, leaf: u32, at: usize) -> Self {
        let leaf_keys = [BoardKey::default(); LEAF_SLOTS];
        let mut new = Self { nodes, keys, leaf: leaf_keys, len: 0, at, next: leaf };
        Leaf::at(nodes, leaf).slots().iter().for_each(|slot| keys.ask(*slot));
        new.turn();
        new
    }

    /// To the next leaf. What the one behind it holds is asked for.
    fn turn(&mut self) {
        let leaf = Leaf::at(self.nodes, self.next);
        self.next = leaf.next();
        if self.next != NO_NODE {
            let slots = Leaf::at(self.nodes, self.next).slots();
            slots.iter().for_each(|slot| self.keys.ask(*slot));
        }
        self.len = leaf.len();
        for (key, slot) in self.leaf.iter_mut().zip(leaf.slots()) {
            *key = self.keys.key(*slot);
        }
        self.leaf[..self.len].sort_unstable();
    }
}

impl<K: Keys> Iterator for Cursor<'_, K> {
    type Item = BoardKey;

    #[inline]
    fn next(&mut self) -> Option<BoardKey> {
        while self.at >= self.len {
            if self.next == NO_NODE {
                return None;
            }
            self.at -= self.len;
            self.turn();
        }
        self.at += 1;
        Some(self.leaf[self.at - 1])
    }
}

#[cfg(test)]
mod tests;
