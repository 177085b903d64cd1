//! Nodes of the board as they lie in memory.
//!
//! ```text
//!   inner, 8 lines   | len   15 firsts | 16 children with counts | 15 places      |
//!                     '-- 2 lines ----' '------ 2 lines -------' '-- 4 lines ---'
//!   leaf, 2 lines    | len  next  30 slots, in no order |
//! ```
//!
//! A way down reads the first half of an inner node; places only where `firsts`
//! leaves it open.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::arena::{LINE_WORDS, chunk, chunk_mut};
use super::{BoardKey, Keys, Sought};
use crate::base::table::prefetch;

/// Slots of a leaf.
pub(super) const LEAF_SLOTS: usize = 30;
/// Children of an inner node.
pub(super) const INNER_CHILDREN: usize = 16;
/// Boundaries between them.
const BOUNDS: usize = INNER_CHILDREN - 1;
/// In place of a node: none.
pub(super) const NO_NODE: u32 = u32::MAX;
/// In place of a slot: none.
pub(super) const NO_SLOT: u32 = u32::MAX;

const LEAF_WORDS: usize = size_of::<Leaf>() / 8;
const INNER_WORDS: usize = size_of::<Inner>() / 8;

/// What leaves and inner nodes have in common: items, and where they lie. The number of
/// a node is that of its first line.
pub(super) trait Node: Sized {
    type Item: Copy + Default;
    /// Shelf that its nodes are taken from.
    const SHELF: usize;
    /// Most items.
    const ITEMS: usize;
    /// Fewest, but for the root. Far from what a split leaves: at half as many
    /// nodes were split and joined again with every other move.
    const LEAST: usize = Self::ITEMS / 3;
    /// Two neighbours that hold at most so many are made one, which can grow.
    const JOINED: usize = Self::ITEMS * 3 / 4;
    /// Lines of a node.
    const LINES: u32 = (size_of::<Self>() / 8 / LINE_WORDS) as u32;

    fn at(nodes: &[u64], number: u32) -> &Self;
    fn at_mut(nodes: &mut [u64], number: u32) -> &mut Self;
    fn len(&self) -> usize;
    fn fill(&mut self, items: &[Self::Item]);
    /// Adds the items of the node to `held`. `start` is a key that none in it is below.
    fn hold(&self, keys: &impl Keys, start: BoardKey, held: &mut Held<Self>);
    /// Moves the `half` lowest items to the front.
    fn halve(items: &mut [Self::Item], half: usize);
    /// A key that none under the item is below.
    fn key(item: &Self::Item) -> BoardKey;
    /// Players under the item.
    fn count(item: &Self::Item) -> u32;
    /// Node that follows, if nodes of the kind are linked.
    fn next(&self) -> u32;
    fn set_next(&mut self, next: u32);
}

/// Items of two neighbours on their way.
pub(super) struct Held<N: Node> {
    items: [N::Item; 2 * LEAF_SLOTS],
    len: usize,
}

impl<N: Node> Default for Held<N> {
    fn default() -> Self {
        Self { items: [N::Item::default(); 2 * LEAF_SLOTS], len: 0 }
    }
}

impl<N: Node> Held<N> {
    fn push(&mut self, item: N::Item) {
        self.items[self.len] = item;
        self.len += 1;
    }

    pub(super) fn items(&mut self) -> &mut [N::Item] {
        &mut self.items[..self.len]
    }
}

/// Players between two boundaries, in no order: who goes or comes moves nobody
/// else. And the leaf that follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Leaf {
    len: u32,
    next: u32,
    /// Behind the last, [`NO_SLOT`].
    slots: [u32; LEAF_SLOTS],
}

impl Leaf {
    #[inline(always)]
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots[..self.len()]
    }

    /// Puts a player in. `false` without room for one.
    #[inline(always)]
    pub(super) fn push(&mut self, slot: u32) -> bool {
        let Some(place) = self.slots.get_mut(self.len as usize) else { return false };
        *place = slot;
        self.len += 1;
        true
    }

    /// Takes out a player, who is there. The last takes the place.
    #[inline(always)]
    pub(super) fn remove(&mut self, slot: u32) {
        let found = position_of(&self.slots, slot);
        debug_assert!(found.is_some(), "{slot} is not in its leaf");
        if let Some(found) = found
            && let Some(last) = self.len().checked_sub(1)
        {
            self.slots[found] = self.slots[last];
            self.slots[last] = NO_SLOT;
            self.len -= 1;
        }
    }
}

impl Node for Leaf {
    type Item = BoardKey;
    const SHELF: usize = 0;
    const ITEMS: usize = LEAF_SLOTS;

    #[inline(always)]
    fn at(nodes: &[u64], number: u32) -> &Self {
        let words: &[u64; LEAF_WORDS] = chunk(nodes, number as usize * LINE_WORDS);
        zerocopy::transmute_ref!(words)
    }

    #[inline(always)]
    fn at_mut(nodes: &mut [u64], number: u32) -> &mut Self {
        let words: &mut [u64; LEAF_WORDS] = chunk_mut(nodes, number as usize * LINE_WORDS);
        zerocopy::transmute_mut!(words)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (self.len as usize).min(LEAF_SLOTS)
    }

    fn fill(&mut self, items: &[BoardKey]) {
        self.slots = [NO_SLOT; LEAF_SLOTS];
        for (slot, key) in self.slots.iter_mut().zip(items) {
            *slot = key.slot();
        }
        self.len = items.len() as u32;
    }

    fn hold(&self, keys: &impl Keys, _: BoardKey, held: &mut Held<Self>) {
        self.slots().iter().for_each(|slot| keys.ask(*slot));
        self.slots().iter().for_each(|slot| held.push(keys.key(*slot)));
    }

    fn halve(items: &mut [BoardKey], half: usize) {
        if half < items.len() {
            items.select_nth_unstable(half);
        }
    }

    fn key(item: &BoardKey) -> BoardKey {
        *item
    }

    fn count(_: &BoardKey) -> u32 {
        1
    }

    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

/// A child, a key that none in it is below, and how many players it holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) key: BoardKey,
    pub(super) child: u32,
    pub(super) count: u32,
}

/// A child and how many players it holds.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Child {
    number: u32,
    count: u32,
}

/// Children in order, and the key from which on each but the first holds
/// players.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inner {
    len: u32,
    /// In a free node: the next.
    next: u32,
    /// [`BoardKey::first`] of each boundary; behind the last, [`u64::MAX`].
    firsts: [u64; BOUNDS],
    children: [Child; INNER_CHILDREN],
    /// The rest of each boundary, upper word first.
    places: [[u64; 2]; BOUNDS],
    spare: [u64; 2],
}

impl Inner {
    /// Position of the child that the key belongs to.
    #[inline(always)]
    pub(super) fn position(&self, sought: &Sought) -> usize {
        // Halves without a branch: sixteen places in four steps.
        let mut at = 0;
        let mut half = INNER_CHILDREN / 2;
        while half > 0 {
            at += if self.firsts[at + half - 1] < sought.first { half } else { 0 };
            half /= 2;
        }
        if self.firsts.get(at) == Some(&sought.first) {
            return self.position_among_equals(sought, at);
        }
        at
    }

    /// From the first boundary on that has the same first word.
    #[inline(never)]
    fn position_among_equals(&self, sought: &Sought, from: usize) -> usize {
        let bounds = self.firsts.iter().zip(&self.places).take(self.len() - 1).skip(from);
        let is_below =
            |(first, place): &(&u64, &[u64; 2])| **first == sought.first && **place <= sought.place;
        from + bounds.take_while(is_below).count()
    }

    #[inline(always)]
    pub(super) fn child(&self, at: usize) -> u32 {
        self.children[at].number
    }

    #[inline(always)]
    pub(super) fn count(&self, at: usize) -> u32 {
        self.children[at].count
    }

    #[inline(always)]
    pub(super) fn count_mut(&mut self, at: usize) -> &mut u32 {
        &mut self.children[at].count
    }

    /// Players before the child `at`.
    #[inline(always)]
    pub(super) fn count_before(&self, at: usize) -> u32 {
        self.children[..at].iter().map(|child| child.count).sum()
    }

    /// The key that parts the child `at` from the one before.
    pub(super) fn bound(&self, at: usize) -> BoardKey {
        match at.checked_sub(1) {
            Some(bound) => {
                let hunt = BoardKey::hunt_of(self.firsts[bound]);
                BoardKey { hunt, place: whole(self.places[bound]) }
            }
            None => BoardKey::default(),
        }
    }

    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        self.children[at] = Child { number: entry.child, count: entry.count };
        if let Some(bound) = at.checked_sub(1) {
            self.firsts[bound] = entry.key.first();
            self.places[bound] = halves(entry.key.place);
        }
    }

    /// Puts an entry at `at`, which is not the first, where there is room for one.
    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        self.children.copy_within(at..INNER_CHILDREN - 1, at + 1);
        self.firsts.copy_within(at - 1..BOUNDS - 1, at);
        self.places.copy_within(at - 1..BOUNDS - 1, at);
        self.len += 1;
        self.set(at, entry);
    }

    /// Takes out the entry `at`, which is not the first.
    pub(super) fn remove(&mut self, at: usize) {
        self.children.copy_within(at + 1.., at);
        self.firsts.copy_within(at.., at - 1);
        self.places.copy_within(at.., at - 1);
        self.firsts[BOUNDS - 1] = u64::MAX;
        self.len -= 1;
    }
}

impl Node for Inner {
    type Item = Entry;
    const SHELF: usize = 1;
    const ITEMS: usize = INNER_CHILDREN;

    #[inline(always)]
    fn at(nodes: &[u64], number: u32) -> &Self {
        let words: &[u64; INNER_WORDS] = chunk(nodes, number as usize * LINE_WORDS);
        zerocopy::transmute_ref!(words)
    }

    #[inline(always)]
    fn at_mut(nodes: &mut [u64], number: u32) -> &mut Self {
        let words: &mut [u64; INNER_WORDS] = chunk_mut(nodes, number as usize * LINE_WORDS);
        zerocopy::transmute_mut!(words)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (self.len as usize).min(INNER_CHILDREN)
    }

    fn fill(&mut self, items: &[Entry]) {
        self.firsts = [u64::MAX; BOUNDS];
        self.len = items.len() as u32;
        for (at, entry) in items.iter().enumerate() {
            self.set(at, *entry);
        }
    }

    fn hold(&self, _: &impl Keys, start: BoardKey, held: &mut Held<Self>) {
        for at in 0..self.len() {
            let key = if at == 0 { start } else { self.bound(at) };
            held.push(Entry { key, child: self.child(at), count: self.count(at) });
        }
    }

    fn halve(_: &mut [Entry], _: usize) {}

    fn key(item: &Entry) -> BoardKey {
        item.key
    }

    fn count(item: &Entry) -> u32 {
        item.count
    }

    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

/// Where `slot` is, which is there once at most. All places are looked at: in which it
/// is could not be predicted.
#[inline(always)]
pub(super) fn position_of<const N: usize>(slots: &[u32; N], slot: u32) -> Option<usize> {
    let mut found = 0u32;
    for (at, other) in (1..).zip(slots) {
        found |= if *other == slot { at } else { 0 };
    }
    (found as usize).checked_sub(1)
}

/// A place as nodes hold it: words of eight bytes, the upper one first.
#[inline(always)]
pub(super) const fn halves(place: u128) -> [u64; 2] {
    [(place >> 64) as u64, place as u64]
}

#[inline(always)]
const fn whole([upper, lower]: [u64; 2]) -> u128 {
    (upper as u128) << 64 | lower as u128
}

/// Asks for the lines of an inner node that a way down reads.
#[inline(always)]
pub(super) fn ask_inner(nodes: &[u64], number: u32) {
    (0..4).for_each(|line| prefetch(nodes, (number as usize + line) * LINE_WORDS));
}

/// Asks for a leaf.
#[inline(always)]
pub(super) fn ask_leaf(nodes: &[u64], number: u32) {
    (0..Leaf::LINES as usize)
        .for_each(|line| prefetch(nodes, (number as usize + line) * LINE_WORDS));
}

/// Most leaves, and most inner nodes, that a board of `players` can need: every level
/// has one node for each [`Node::LEAST`] of the level below, and a root; inserting
/// takes one more a level.
pub(super) const fn nodes_max(players: u32) -> [u32; 2] {
    const SPARE: u32 = 2;
    let leaves = players / <Leaf as Node>::LEAST as u32 + SPARE;
    let mut inner = SPARE;
    let mut level = leaves;
    while level > SPARE {
        level = level / <Inner as Node>::LEAST as u32 + SPARE;
        inner += level;
    }
    [leaves, inner]
}

const _: () = {
    assert!(size_of::<Leaf>() == 128);
    assert!(size_of::<Inner>() == 512);
    assert!(INNER_CHILDREN.is_power_of_two());
};
