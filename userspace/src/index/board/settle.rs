//! Moves on the board, noted one by one and made together.

use super::node::{Inner, Leaf, NO_SLOT, Node, position_of};
use super::{Board, BoardKey, Keys, NoNode, Sought};

/// Players whose moves are noted before they must be made: few enough that what was
/// asked for first is still there.
const MOVES: usize = 32;

/// Moves that are due, one a player.
#[derive(Debug)]
pub(in super::super) struct Moves {
    /// Who moves; behind the last, [`NO_SLOT`].
    slots: [u32; MOVES],
    list: [Move; MOVES],
    len: usize,
}

/// From where a player goes, and to where: a cache line.
#[derive(Clone, Copy, Debug)]
struct Move {
    old: Way,
    new: Way,
}

/// A way down.
#[derive(Clone, Copy, Debug)]
struct Way {
    sought: Sought,
    /// The node it has come to.
    node: u32,
    /// What is added to the counts on it: 1, or -1, or nothing for a way to
    /// nowhere.
    by: u32,
}

const MINUS_ONE: u32 = u32::MAX;

impl Way {
    const NONE: Self = Self { sought: Sought { first: 0, place: [0; 2] }, node: 0, by: 0 };

    #[inline(always)]
    fn new(key: Option<BoardKey>, by: u32) -> Self {
        key.map_or(Self::NONE, |key| Self { sought: key.into(), by, ..Self::NONE })
    }

    const fn is_none(&self) -> bool {
        self.by == 0
    }
}

impl Moves {
    pub(in super::super) const NONE: Self = Self {
        slots: [NO_SLOT; MOVES],
        list: [Move { old: Way::NONE, new: Way::NONE }; MOVES],
        len: 0,
    };

    pub(in super::super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in super::super) const fn is_full(&self) -> bool {
        self.len == MOVES
    }

    /// Notes that a player moves. Of several moves the last says where to. Not for a
    /// list that is full.
    #[inline(always)]
    pub(in super::super) fn note(
        &mut self,
        slot: u32,
        old: Option<BoardKey>,
        new: Option<BoardKey>,
    ) {
        let known = position_of(&self.slots, slot);
        let at = known.unwrap_or(self.len);
        if known.is_none() {
            self.slots[at] = slot;
            self.list[at].old = Way::new(old, MINUS_ONE);
            self.len += 1;
        }
        self.list[at].new = Way::new(new, 1);
    }
}

impl Board {
    /// Makes the moves that are due. The records of all who move say where to, and
    /// nobody else's has changed.
    pub(in super::super) fn settle(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        moves: &mut Moves,
    ) -> Result<(), NoNode> {
        let len = std::mem::take(&mut moves.len);
        let slots = std::mem::replace(&mut moves.slots, [NO_SLOT; MOVES]);
        let (slots, list) = (&slots[..len], &mut moves.list[..len]);
        self.walk(nodes, list);
        let (mut low, mut unplaced) = (0u64, 0u64);
        for (at, (slot, moved)) in slots.iter().zip(&*list).enumerate() {
            let (old, new) = (&moved.old, &moved.new);
            if old.node == new.node && !old.is_none() && !new.is_none() {
                continue;
            }
            if !old.is_none() {
                let leaf = Leaf::at_mut(nodes, old.node);
                leaf.remove(*slot);
                low |= u64::from(leaf.len() < Leaf::LEAST) << at;
                self.len -= 1;
            }
            if !new.is_none() {
                let has_room = Leaf::at_mut(nodes, new.node).push(*slot);
                unplaced |= u64::from(!has_room) << at;
                self.len += u32::from(has_room);
            }
        }
        if low | unplaced != 0 {
            self.mend_and_place(nodes, keys, slots, list, low, unplaced)?;
        }
        Ok(())
    }

    /// Goes all ways down, level by level, and counts on them.
    fn walk(&self, nodes: &mut [u64], list: &mut [Move]) {
        for moved in &mut *list {
            (moved.old.node, moved.new.node) = (self.root, self.root);
        }
        for level in 1..=self.levels {
            for moved in &mut *list {
                for way in [&mut moved.old, &mut moved.new] {
                    let inner = Inner::at_mut(nodes, way.node);
                    let at = inner.position(&way.sought);
                    let count = inner.count_mut(at);
                    *count = count.wrapping_add(way.by);
                    way.node = inner.child(at);
                    self.ask(nodes, way.node, level);
                }
            }
        }
    }

    /// Mends the leaves that run low, and makes room for whom there was none: bits
    /// say whose moves led there. Every player on the board is where the record says.
    #[cold]
    fn mend_and_place(
        &mut self,
        nodes: &mut [u64],
        keys: &impl Keys,
        slots: &[u32],
        list: &[Move],
        low: u64,
        unplaced: u64,
    ) -> Result<(), NoNode> {
        let of = |bits: u64| {
            let moves = slots.iter().zip(list).enumerate();
            moves.filter(move |(at, _)| bits >> at & 1 == 1).map(|(_, of)| of)
        };
        for (_, moved) in of(unplaced) {
            let mut number = self.root;
            for _ in 0..self.levels {
                let inner = Inner::at_mut(nodes, number);
                let at = inner.position(&moved.new.sought);
                *inner.count_mut(at) -= 1;
                number = inner.child(at);
            }
        }
        of(low).for_each(|(_, moved)| self.mend_way(nodes, keys, &moved.old.sought));
        of(unplaced)
            .try_for_each(|(slot, moved)| self.insert(nodes, keys, *slot, &moved.new.sought))
    }
}

const _: () = {
    assert!(MOVES <= u64::BITS as usize);
    assert!(size_of::<Move>() == 64);
};
