//! Cells in order of (hunt, id): a B+-tree whose leaves hold slots, four bytes
//! a cell, and read the keys in the records.
//!
//! ```text
//!                      [ k | k | k ]            inner: up to 15 children
//!                     /    |    \
//!        [ slot slot ... ]->[ ... ]->[ ... ]    leaves: up to 62 slots, linked
//! ```
//!
//! A node that is full shares with its neighbours, up to three under one
//! parent; only when those are full do three become four. A node that runs low
//! takes from them, or three become two. So nodes are at least two in three
//! full whatever comes and goes, and the arena can be made at the start for the
//! worst that can be: 6.3 bytes a cell for leaves, 0.8 for the rest.

mod node;
mod view;

use self::node::{
    Entry, INNER_CHILDREN, INNER_LEAST, Inner, LEAF_LEAST, LEAF_SLOTS, Leaf, NO_NODE, Node,
};
pub(super) use self::node::{NODE_WORDS, nodes_max};
pub(super) use self::view::{Cursor, Memory, View};
use super::records::OrderKey;

/// Levels of inner nodes that a tree of the largest index can have: children
/// grow ninefold a level.
const LEVELS_MAX: usize = 12;
/// Siblings that share.
const WINDOW: usize = 3;
/// Slots of a leaf and children of an inner node after loading: room for some
/// to come before the first has to share.
const LOADED_SLOTS: usize = 56;
const LOADED_CHILDREN: usize = 13;

/// The arena has no node left. The arena is made so that this cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoNode;

/// The tree. Its nodes lie in the arena and come with every call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    root: u32,
    /// Levels of inner nodes above the leaves.
    levels: usize,
    /// First of the nodes given back, chained by their first words.
    free: u32,
    /// Nodes ever taken.
    used: u32,
    nodes_max: u32,
}

/// A parent and which of its children.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    node: u32,
    at: usize,
}

/// From the root down to a leaf.
struct Path {
    steps: [Step; LEVELS_MAX],
    leaf: u32,
}

impl Order {
    /// An order without cells, in an arena of zeroes.
    pub(super) fn new(memory: &mut Memory<'_>, nodes_max: u32) -> Self {
        let mut order = Self { root: 0, levels: 0, free: NO_NODE, used: 1, nodes_max };
        order.clear(memory);
        order
    }

    fn clear(&mut self, memory: &mut Memory<'_>) {
        *self = Self { root: 0, levels: 0, free: NO_NODE, used: 1, ..*self };
        let leaf = memory.node_mut::<Leaf>(0);
        leaf.fill(&[]);
        leaf.set_next(NO_NODE);
    }

    fn take(&mut self, memory: &mut Memory<'_>) -> Result<u32, NoNode> {
        let node = self.free;
        if node != NO_NODE {
            self.free = memory.node_mut::<Leaf>(node).next();
            return Ok(node);
        }
        if self.used == self.nodes_max {
            return Err(NoNode);
        }
        self.used += 1;
        Ok(self.used - 1)
    }

    fn give_back(&mut self, memory: &mut Memory<'_>, node: u32) {
        memory.node_mut::<Leaf>(node).set_next(self.free);
        self.free = node;
    }

    fn path(&self, view: View<'_>, key: OrderKey) -> Path {
        let mut path = Path { steps: [Step::default(); LEVELS_MAX], leaf: self.root };
        for step in path.steps.iter_mut().take(self.levels) {
            let inner = view.node::<Inner>(path.leaf);
            let at = inner.position(key);
            *step = Step { node: path.leaf, at };
            path.leaf = inner.entries()[at].child;
        }
        path
    }

    /// A cursor before the first cell whose key is `key` or more.
    #[inline]
    pub(super) fn seek<'a>(&self, view: View<'a>, key: OrderKey) -> Cursor<'a> {
        let mut node = self.root;
        for _ in 0..self.levels {
            let inner = view.node::<Inner>(node);
            node = inner.entries()[inner.position(key)].child;
        }
        Cursor::new(view, node, key)
    }

    /// Enters `slot`, whose record lies in the cells with `key`; no other has
    /// that key.
    pub(super) fn insert(
        &mut self,
        memory: &mut Memory<'_>,
        key: OrderKey,
        slot: u32,
    ) -> Result<(), NoNode> {
        loop {
            let path = self.path(memory.view(), key);
            let at = memory.view().lower_bound(path.leaf, key);
            let leaf = memory.node_mut::<Leaf>(path.leaf);
            if leaf.slots().len() < LEAF_SLOTS {
                leaf.insert(at, slot);
                return Ok(());
            }
            self.make_room(memory, &path)?;
        }
    }

    /// Mends the lowest level above a full leaf at which there is room, or
    /// grows the tree. Each call brings the leaf a level nearer to room.
    fn make_room(&mut self, memory: &mut Memory<'_>, path: &Path) -> Result<(), NoNode> {
        for level in (0..self.levels).rev() {
            let step = path.steps[level];
            let done = if level + 1 == self.levels {
                self.share::<Leaf>(memory, step)?
            } else {
                self.share::<Inner>(memory, step)?
            };
            if done {
                return Ok(());
            }
        }
        let root = self.take(memory)?;
        let inner = memory.node_mut::<Inner>(root);
        inner.fill(&[Entry::new(OrderKey::default(), self.root)]);
        self.root = root;
        self.levels += 1;
        Ok(())
    }

    /// Gives every node around a full one room for one item more; `false` when
    /// that takes a new node and the parent has no room for it.
    fn share<N: Node>(&mut self, memory: &mut Memory<'_>, step: Step) -> Result<bool, NoNode> {
        let window = Window::around(memory.view(), step);
        let items = window.items::<N>(memory.view());
        if items <= window.nodes * (N::ITEMS - 1) {
            self.spread::<N>(memory, window, window.nodes)?;
            return Ok(true);
        }
        if memory.view().node::<Inner>(step.node).entries().len() == INNER_CHILDREN {
            return Ok(false);
        }
        self.spread::<N>(memory, window, window.nodes + 1)?;
        Ok(true)
    }

    /// Takes out `slot` with `key`; nothing happens when it is not there.
    pub(super) fn remove(&mut self, memory: &mut Memory<'_>, key: OrderKey, slot: u32) {
        let path = self.path(memory.view(), key);
        let at = memory.view().lower_bound(path.leaf, key);
        let leaf = memory.node_mut::<Leaf>(path.leaf);
        if leaf.slots().get(at) != Some(&slot) {
            return;
        }
        leaf.remove(at);
        let mut is_low = leaf.slots().len() < LEAF_LEAST;
        for level in (0..self.levels).rev() {
            if !is_low {
                return;
            }
            let step = path.steps[level];
            // Sharing among as many or fewer takes no node.
            let _ = if level + 1 == self.levels {
                self.gather::<Leaf>(memory, step)
            } else {
                self.gather::<Inner>(memory, step)
            };
            let entries = memory.view().node::<Inner>(step.node).entries();
            is_low = entries.len() < INNER_LEAST;
            if level == 0 && entries.len() == 1 {
                let child = entries[0].child;
                self.give_back(memory, self.root);
                self.root = child;
                self.levels -= 1;
                return;
            }
        }
    }

    /// Evens out the nodes around one that runs low, one fewer if they fit.
    fn gather<N: Node>(&mut self, memory: &mut Memory<'_>, step: Step) -> Result<(), NoNode> {
        let window = Window::around(memory.view(), step);
        let items = window.items::<N>(memory.view());
        let fits = window.nodes > 1 && items <= (window.nodes - 1) * N::ITEMS;
        self.spread::<N>(memory, window, window.nodes - usize::from(fits))
    }

    /// Distributes what the nodes of `window` hold evenly over `to` nodes: as
    /// many, one more or one fewer.
    fn spread<N: Node>(
        &mut self,
        memory: &mut Memory<'_>,
        window: Window,
        to: usize,
    ) -> Result<(), NoNode> {
        let mut nodes = [NO_NODE; WINDOW + 1];
        if to > window.nodes {
            nodes[window.nodes] = self.take(memory)?;
        }
        let mut held = [N::Item::default(); WINDOW * LEAF_SLOTS];
        let mut len = 0;
        let mut next = NO_NODE;
        for (i, node) in nodes.iter_mut().enumerate().take(window.nodes) {
            let entry = memory.view().node::<Inner>(window.parent).entries()[window.first + i];
            *node = entry.child;
            let source = memory.view().node::<N>(entry.child);
            let items = source.items();
            held[len..len + items.len()].copy_from_slice(items);
            if i > 0 && !items.is_empty() {
                N::set_key(&mut held[len], entry.key());
            }
            len += items.len();
            next = source.next();
        }
        let mut from = 0;
        for i in 0..to {
            let share = len / to + usize::from(i < len % to);
            let items = &held[from..from + share];
            from += share;
            let following = if i + 1 == to { next } else { nodes[i + 1] };
            let node = memory.node_mut::<N>(nodes[i]);
            node.fill(items);
            node.set_next(following);
            if i == 0 {
                continue;
            }
            let Some(first) = items.first() else { continue };
            let key = N::key(first, |slot| memory.view().key(slot));
            let parent = memory.node_mut::<Inner>(window.parent);
            if i < window.nodes {
                *parent.entry_mut(window.first + i) = Entry::new(key, nodes[i]);
            } else {
                parent.insert(window.first + i, Entry::new(key, nodes[i]));
            }
        }
        if to < window.nodes {
            memory.node_mut::<Inner>(window.parent).remove(window.first + to);
            self.give_back(memory, nodes[to]);
        }
        Ok(())
    }

    /// Builds the order of `slots`, which are in order of their keys, in place
    /// of what it was.
    pub(super) fn load(&mut self, memory: &mut Memory<'_>, slots: &[u32]) -> Result<(), NoNode> {
        self.clear(memory);
        if slots.is_empty() {
            return Ok(());
        }
        self.used = 0;
        let mut level: Vec<Entry> = Vec::new();
        for share in shares(slots, LOADED_SLOTS) {
            let node = self.take(memory)?;
            if let Some(last) = level.last() {
                memory.node_mut::<Leaf>(last.child).set_next(node);
            }
            let leaf = memory.node_mut::<Leaf>(node);
            leaf.fill(share);
            leaf.set_next(NO_NODE);
            level.push(Entry::new(memory.view().key(share[0]), node));
        }
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / LOADED_CHILDREN + 1);
            for share in shares(&level, LOADED_CHILDREN) {
                let node = self.take(memory)?;
                memory.node_mut::<Inner>(node).fill(share);
                above.push(Entry::new(share[0].key(), node));
            }
            level = above;
            self.levels += 1;
        }
        self.root = level[0].child;
        Ok(())
    }

    /// Nodes in use.
    #[cfg(test)]
    pub(super) fn nodes(&self, view: View<'_>) -> u32 {
        let mut free = 0;
        let mut node = self.free;
        while node != NO_NODE {
            free += 1;
            node = view.node::<Leaf>(node).next();
        }
        self.used - free
    }
}

/// `items` in parts of nearly the same length, at most `most` each.
pub(super) fn shares<T>(items: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    let parts = items.len().div_ceil(most);
    let mut rest = items;
    (0..parts).map(move |i| {
        let (share, behind) = rest.split_at(rest.len() / (parts - i));
        rest = behind;
        share
    })
}

/// Up to [`WINDOW`] neighbours under one parent.
#[derive(Clone, Copy, Debug)]
struct Window {
    parent: u32,
    first: usize,
    nodes: usize,
}

impl Window {
    fn around(view: View<'_>, step: Step) -> Self {
        let children = view.node::<Inner>(step.node).entries().len();
        let nodes = children.min(WINDOW);
        let first = step.at.saturating_sub(1).min(children - nodes);
        Self { parent: step.node, first, nodes }
    }

    fn items<N: Node>(&self, view: View<'_>) -> usize {
        let entries = view.node::<Inner>(self.parent).entries();
        entries
            .iter()
            .skip(self.first)
            .take(self.nodes)
            .map(|e| view.node::<N>(e.child).items().len())
            .sum()
    }
}
