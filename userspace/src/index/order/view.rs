//! Nodes and records for reading and writing, and a cursor over them.

use super::super::arena::{chunk, chunk_mut};
use super::super::records::{CELL_WORDS, Cell, OrderKey};
use super::node::{Leaf, NO_NODE, NODE_WORDS, Node};
use crate::base::table::prefetch;

/// Cells and nodes, to read.
#[derive(Clone, Copy)]
pub(in super::super) struct View<'a> {
    pub(in super::super) cells: &'a [u64],
    pub(in super::super) main: &'a [u64],
    pub(in super::super) rest: &'a [u64],
    pub(in super::super) nodes_in_main: u32,
}

impl<'a> View<'a> {
    #[inline(always)]
    pub(super) fn node<N: Node>(self, node: u32) -> &'a N {
        let words: &[u64; NODE_WORDS] = if node < self.nodes_in_main {
            chunk(self.main, node as usize * NODE_WORDS)
        } else {
            chunk(self.rest, (node - self.nodes_in_main) as usize * NODE_WORDS)
        };
        zerocopy::transmute_ref!(words)
    }

    #[inline(always)]
    pub(super) fn cell(self, slot: u32) -> &'a Cell {
        let words: &[u64; CELL_WORDS] = chunk(self.cells, slot as usize * CELL_WORDS);
        zerocopy::transmute_ref!(words)
    }

    #[inline(always)]
    pub(super) fn key(self, slot: u32) -> OrderKey {
        self.cell(slot).key()
    }

    /// Position in `leaf` of the first cell whose key is `key` or more.
    #[inline]
    pub(super) fn lower_bound(self, leaf: u32, key: OrderKey) -> usize {
        self.node::<Leaf>(leaf).slots().partition_point(|slot| self.key(*slot) < key)
    }

    #[inline(always)]
    fn prefetch(self, slot: u32) {
        let at = slot as usize * CELL_WORDS;
        prefetch(self.cells, at);
        // A record of three words that begins in the last two of a line's eight
        // goes on in the next.
        if at % 8 > 8 - CELL_WORDS {
            prefetch(self.cells, at + CELL_WORDS - 1);
        }
    }
}

/// Cells to read and nodes to write.
pub(in super::super) struct Memory<'a> {
    pub(in super::super) cells: &'a [u64],
    pub(in super::super) main: &'a mut [u64],
    pub(in super::super) rest: &'a mut [u64],
    pub(in super::super) nodes_in_main: u32,
}

impl Memory<'_> {
    pub(super) fn view(&self) -> View<'_> {
        let Self { cells, main, rest, nodes_in_main } = self;
        View { cells, main, rest, nodes_in_main: *nodes_in_main }
    }

    pub(super) fn node_mut<N: Node>(&mut self, node: u32) -> &mut N {
        let words: &mut [u64; NODE_WORDS] = if node < self.nodes_in_main {
            chunk_mut(self.main, node as usize * NODE_WORDS)
        } else {
            chunk_mut(self.rest, (node - self.nodes_in_main) as usize * NODE_WORDS)
        };
        zerocopy::transmute_mut!(words)
    }
}

/// A place between two cells of the order.
///
/// Records lie at random places, so whoever reads them one after the other
/// waits for each. A cursor asks for all records of a leaf when it gets there, so
/// that they come together: it nearly halved the median box.
pub(in super::super) struct Cursor<'a> {
    view: View<'a>,
    leaf: &'a Leaf,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Before the first cell of `leaf` whose key is `key` or more.
    pub(super) fn new(view: View<'a>, leaf: u32, key: OrderKey) -> Self {
        let mut cursor = Self { view, leaf: view.node(leaf), at: 0 };
        cursor.ask();
        cursor.at = view.lower_bound(leaf, key);
        cursor
    }

    #[inline(always)]
    fn ask(&self) {
        for slot in self.leaf.slots() {
            self.view.prefetch(*slot);
        }
    }

    /// All cells of the leaf that it is in.
    pub(in super::super) fn leaf_cells(&self) -> impl Iterator<Item = &'a Cell> + use<'a> {
        let (view, leaf) = (self.view, self.leaf);
        leaf.slots().iter().map(move |slot| view.cell(*slot))
    }

    /// The next cell, and past it.
    #[inline]
    pub(in super::super) fn next(&mut self) -> Option<&'a Cell> {
        loop {
            if let Some(slot) = self.leaf.slots().get(self.at) {
                self.at += 1;
                return Some(self.view.cell(*slot));
            }
            if self.leaf.next() == NO_NODE {
                return None;
            }
            self.leaf = self.view.node(self.leaf.next());
            self.at = 0;
            self.ask();
        }
    }

    /// Goes on to the first cell whose key is `key` or more if that lies in
    /// this leaf, or says that it does not.
    #[inline]
    pub(in super::super) fn forward_in_leaf(&mut self, key: OrderKey) -> bool {
        let slots = &self.leaf.slots()[self.at.min(self.leaf.slots().len())..];
        match slots.last() {
            Some(last) if self.view.key(*last) >= key => {
                self.at += slots.partition_point(|slot| self.view.key(*slot) < key);
                true
            }
            _ => false,
        }
    }
}
