//! Nodes of the board as they lie in memory: 512 bytes, eight cache lines.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::arena::{LINE_WORDS, chunk, chunk_mut};
use super::BoardKey;
use crate::base::table::prefetch;

/// Words of a node.
pub(in super::super) const BOARD_NODE_WORDS: usize = 64;
/// Keys of a leaf.
pub(super) const LEAF_KEYS: usize = 28;
/// Children of an inner node.
pub(super) const INNER_CHILDREN: usize = 19;
/// In place of a node: none.
pub(super) const NO_NODE: u32 = u32::MAX;

/// What leaves and inner nodes have in common: items in order.
pub(super) trait Node: FromBytes + IntoBytes + Immutable + KnownLayout + Sized {
    type Item: Copy + Default;
    /// Most items.
    const ITEMS: usize;
    /// Fewest, but for the root. Far from what a split leaves: at half as many
    /// nodes were split and joined again with every other move.
    const LEAST: usize = Self::ITEMS / 3;
    /// Two neighbours that hold at most so many are made one, which can grow.
    const JOINED: usize = Self::ITEMS * 3 / 4;

    fn len(&self) -> usize;
    fn item(&self, at: usize) -> Self::Item;
    fn fill(&mut self, items: &[Self::Item]);
    fn next(&self) -> u32;
    fn set_next(&mut self, next: u32);
    /// A key that none under the item is below.
    fn key(item: &Self::Item) -> BoardKey;
    /// Players under the item.
    fn count(item: &Self::Item) -> u32;
}

/// Players in order, and the leaf that follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Leaf {
    len: u32,
    next: u32,
    places: [[u64; 2]; LEAF_KEYS],
    hunts: [u16; LEAF_KEYS],
}

impl Leaf {
    /// Number of keys below `key`.
    #[inline(always)]
    pub(super) fn position(&self, key: BoardKey) -> usize {
        below(self.len(), |at| self.item(at) < key)
    }

    /// Puts `key` at `at`, where there is room for one.
    pub(super) fn insert(&mut self, at: usize, key: BoardKey) {
        self.places.copy_within(at..LEAF_KEYS - 1, at + 1);
        self.hunts.copy_within(at..LEAF_KEYS - 1, at + 1);
        (self.hunts[at], self.places[at]) = (key.hunt, halves(key.place));
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.places.copy_within(at + 1.., at);
        self.hunts.copy_within(at + 1.., at);
        self.len -= 1;
    }
}

impl Node for Leaf {
    type Item = BoardKey;
    const ITEMS: usize = LEAF_KEYS;

    #[inline(always)]
    fn len(&self) -> usize {
        (self.len as usize).min(LEAF_KEYS)
    }

    #[inline(always)]
    fn item(&self, at: usize) -> BoardKey {
        BoardKey { hunt: self.hunts[at], place: whole(self.places[at]) }
    }

    fn fill(&mut self, items: &[BoardKey]) {
        for (at, key) in items.iter().enumerate() {
            (self.hunts[at], self.places[at]) = (key.hunt, halves(key.place));
        }
        self.len = items.len() as u32;
    }

    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }

    fn key(item: &BoardKey) -> BoardKey {
        *item
    }

    fn count(_: &BoardKey) -> u32 {
        1
    }
}

/// A child, a key that none in it is below, and how many players it holds.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) key: BoardKey,
    pub(super) child: u32,
    pub(super) count: u32,
}

/// Children in order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inner {
    len: u32,
    next: u32,
    places: [[u64; 2]; INNER_CHILDREN],
    children: [u32; INNER_CHILDREN],
    counts: [u32; INNER_CHILDREN],
    hunts: [u16; INNER_CHILDREN],
    spare: [u16; 5],
}

impl Inner {
    /// Position of the child that `key` belongs to. None is below the first.
    #[inline(always)]
    pub(super) fn position(&self, key: BoardKey) -> usize {
        let key_at = |at: usize| BoardKey { hunt: self.hunts[at], place: whole(self.places[at]) };
        below(self.len() - 1, |at| key_at(at + 1) <= key)
    }

    #[inline(always)]
    pub(super) fn child(&self, at: usize) -> u32 {
        self.children[at]
    }

    #[inline(always)]
    pub(super) fn counts(&self) -> &[u32] {
        &self.counts[..self.len()]
    }

    #[inline(always)]
    pub(super) fn count_mut(&mut self, at: usize) -> &mut u32 {
        &mut self.counts[at]
    }

    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        (self.hunts[at], self.places[at]) = (entry.key.hunt, halves(entry.key.place));
        (self.children[at], self.counts[at]) = (entry.child, entry.count);
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        let last = INNER_CHILDREN - 1;
        self.places.copy_within(at..last, at + 1);
        self.hunts.copy_within(at..last, at + 1);
        self.children.copy_within(at..last, at + 1);
        self.counts.copy_within(at..last, at + 1);
        self.len += 1;
        self.set(at, entry);
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.places.copy_within(at + 1.., at);
        self.hunts.copy_within(at + 1.., at);
        self.children.copy_within(at + 1.., at);
        self.counts.copy_within(at + 1.., at);
        self.len -= 1;
    }
}

impl Node for Inner {
    type Item = Entry;
    const ITEMS: usize = INNER_CHILDREN;

    #[inline(always)]
    fn len(&self) -> usize {
        (self.len as usize).min(INNER_CHILDREN)
    }

    #[inline(always)]
    fn item(&self, at: usize) -> Entry {
        let key = BoardKey { hunt: self.hunts[at], place: whole(self.places[at]) };
        Entry { key, child: self.children[at], count: self.counts[at] }
    }

    fn fill(&mut self, items: &[Entry]) {
        self.len = items.len() as u32;
        for (at, entry) in items.iter().enumerate() {
            self.set(at, *entry);
        }
    }

    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }

    fn key(item: &Entry) -> BoardKey {
        item.key
    }

    fn count(item: &Entry) -> u32 {
        item.count
    }
}

/// How many of the first `len`, for which `is_below` holds up to some and for none
/// behind, it holds for. Halves without a branch that could be mispredicted.
#[inline(always)]
fn below(len: usize, is_below: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut left) = (0, len);
    while left > 1 {
        let half = left / 2;
        from += if is_below(from + half - 1) { half } else { 0 };
        left -= half;
    }
    from + usize::from(left == 1 && is_below(from))
}

/// A place as nodes hold it: words of eight bytes, the upper one first.
#[inline(always)]
const fn halves(place: u128) -> [u64; 2] {
    [(place >> 64) as u64, place as u64]
}

#[inline(always)]
const fn whole([upper, lower]: [u64; 2]) -> u128 {
    (upper as u128) << 64 | lower as u128
}

#[inline(always)]
pub(super) fn node<N: Node>(nodes: &[u64], node: u32) -> &N {
    let words: &[u64; BOARD_NODE_WORDS] = chunk(nodes, node as usize * BOARD_NODE_WORDS);
    zerocopy::transmute_ref!(words)
}

/// Asks for all lines of a node at once. A search reads four or five of them, each
/// place known only from the one before: they would come one after the other.
#[inline(always)]
pub(super) fn ask(nodes: &[u64], node: u32) {
    let at = node as usize * BOARD_NODE_WORDS;
    (0..BOARD_NODE_WORDS).step_by(LINE_WORDS).for_each(|line| prefetch(nodes, at + line));
}

#[inline(always)]
pub(super) fn node_mut<N: Node>(nodes: &mut [u64], node: u32) -> &mut N {
    let words: &mut [u64; BOARD_NODE_WORDS] = chunk_mut(nodes, node as usize * BOARD_NODE_WORDS);
    zerocopy::transmute_mut!(words)
}

/// Most nodes that a board of `players` can need: every level has one node for
/// each [`Node::LEAST`] of the level below, and a root; inserting takes one more
/// a level.
pub(in super::super) const fn board_nodes_max(players: u32) -> u32 {
    const SPARE: u32 = 2;
    let mut level = players / <Leaf as Node>::LEAST as u32 + SPARE;
    let mut all = level;
    while level > SPARE {
        level = level / <Inner as Node>::LEAST as u32 + SPARE;
        if level == SPARE {
            break;
        }
        all += level;
    }
    all + SPARE
}

const _: () = {
    assert!(size_of::<Leaf>() == BOARD_NODE_WORDS * 8);
    assert!(size_of::<Inner>() == BOARD_NODE_WORDS * 8);
};
