//! Nodes of the order as they lie in memory: 256 bytes, four cache lines.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::records::OrderKey;

/// Words of a node.
pub(in super::super) const NODE_WORDS: usize = 32;
/// Slots of a leaf.
pub(super) const LEAF_SLOTS: usize = 62;
/// Children of an inner node.
pub(super) const INNER_CHILDREN: usize = 15;
/// Least slots of a leaf and children of an inner node, but for the few nodes
/// under a root with less than three children: two in three, less rounding.
pub(super) const LEAF_LEAST: usize = 41;
pub(super) const INNER_LEAST: usize = 9;
/// In place of a node: none.
pub(super) const NO_NODE: u32 = u32::MAX;

/// Slots of cells in order, and the leaf that follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Leaf {
    pub(super) len: u32,
    pub(super) next: u32,
    slots: [u32; LEAF_SLOTS],
}

impl Leaf {
    #[inline(always)]
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots[..(self.len as usize).min(LEAF_SLOTS)]
    }

    /// Puts `slot` at `at`, where there is room for one.
    pub(super) fn insert(&mut self, at: usize, slot: u32) {
        self.slots.copy_within(at..LEAF_SLOTS - 1, at + 1);
        self.slots[at] = slot;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.slots.copy_within(at + 1.., at);
        self.len -= 1;
    }
}

/// A child, and a key that none in it is below and all before it are. The key
/// of a node's first entry says nothing.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Entry {
    id: u64,
    hunt: u16,
    spare: u16,
    pub(super) child: u32,
}

impl Entry {
    pub(super) const fn new(key: OrderKey, child: u32) -> Self {
        Self { id: key.id, hunt: key.hunt, spare: 0, child }
    }

    #[inline(always)]
    pub(super) const fn key(&self) -> OrderKey {
        OrderKey { hunt: self.hunt, id: self.id }
    }
}

/// Children in order.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Inner {
    len: u32,
    spare: [u32; 3],
    entries: [Entry; INNER_CHILDREN],
}

impl Inner {
    #[inline(always)]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries[..(self.len as usize).min(INNER_CHILDREN)]
    }

    pub(super) fn entry_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    /// Position of the child that `key` belongs to.
    #[inline(always)]
    pub(super) fn position(&self, key: OrderKey) -> usize {
        // At most 15 entries of two cache lines: counting has no branch to
        // mispredict.
        self.entries().iter().skip(1).filter(|e| e.key() <= key).count()
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        self.entries.copy_within(at..INNER_CHILDREN - 1, at + 1);
        self.entries[at] = entry;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.entries.copy_within(at + 1.., at);
        self.len -= 1;
    }
}

/// What leaves and inner nodes have in common: items in order.
pub(super) trait Node: FromBytes + IntoBytes + Immutable + KnownLayout {
    type Item: Copy + Default;
    /// Most items.
    const ITEMS: usize;

    fn items(&self) -> &[Self::Item];
    fn fill(&mut self, items: &[Self::Item]);
    /// The least key under an item. `key_of_slot` reads a cell's.
    fn key(item: &Self::Item, key_of_slot: impl Fn(u32) -> OrderKey) -> OrderKey;
    /// Makes sure of an item's key, now that it may not be first any longer.
    fn set_key(item: &mut Self::Item, key: OrderKey);
    fn next(&self) -> u32;
    fn set_next(&mut self, next: u32);
}

impl Node for Leaf {
    type Item = u32;
    const ITEMS: usize = LEAF_SLOTS;

    fn items(&self) -> &[u32] {
        self.slots()
    }

    fn fill(&mut self, items: &[u32]) {
        self.slots[..items.len()].copy_from_slice(items);
        self.len = items.len() as u32;
    }

    fn key(item: &u32, key_of_slot: impl Fn(u32) -> OrderKey) -> OrderKey {
        key_of_slot(*item)
    }

    fn set_key(_: &mut u32, _: OrderKey) {}

    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

impl Node for Inner {
    type Item = Entry;
    const ITEMS: usize = INNER_CHILDREN;

    fn items(&self) -> &[Entry] {
        self.entries()
    }

    fn fill(&mut self, items: &[Entry]) {
        self.entries[..items.len()].copy_from_slice(items);
        self.len = items.len() as u32;
    }

    fn key(item: &Entry, _: impl Fn(u32) -> OrderKey) -> OrderKey {
        item.key()
    }

    fn set_key(item: &mut Entry, key: OrderKey) {
        *item = Entry::new(key, item.child);
    }

    fn next(&self) -> u32 {
        NO_NODE
    }

    fn set_next(&mut self, _: u32) {}
}

/// Most nodes that an order of `cells` can need.
///
/// Every level holds at most one node for each [`LEAF_LEAST`] slots or
/// [`INNER_LEAST`] children, and a few more where a root has less than three.
pub(in super::super) const fn nodes_max(cells: u32) -> u32 {
    const SPARE: u32 = 4;
    let mut level = cells / LEAF_LEAST as u32 + SPARE;
    let mut all = level;
    while level > INNER_CHILDREN as u32 {
        level = level / INNER_LEAST as u32 + SPARE;
        all += level;
    }
    all + SPARE
}

const _: () = {
    assert!(size_of::<Leaf>() == NODE_WORDS * 8);
    assert!(size_of::<Inner>() == NODE_WORDS * 8);
    assert!(LEAF_LEAST <= LEAF_SLOTS * 2 / 3 && INNER_LEAST <= INNER_CHILDREN * 2 / 3);
};
