//! Graphs of quests, as sets of pairs.

use std::collections::BTreeSet;

/// A quest's nodes and what follows on what. Nothing follows on itself, be it over
/// others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Nodes: 0 to this.
    pub last: u8,
    /// From a node to one that can be passed after it.
    pub edges: BTreeSet<(u8, u8)>,
}

impl Graph {
    /// What a payload says: its nodes less one, a 0, then from and to of each edge.
    /// `None` when it is no graph.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let [last, 0, pairs @ ..] = payload else { return None };
        let mut edges = BTreeSet::new();
        for pair in pairs.chunks(2) {
            let [from, to] = *pair else { return None };
            let is_new = edges.insert((from, to));
            if !is_new || from > *last || to > *last {
                return None;
            }
        }
        let graph = Self { last: *last, edges };
        let follows_itself = |node| graph.after(node).contains(&node);
        (!(0..=*last).any(follows_itself)).then_some(graph)
    }

    /// All nodes that follow on a node, directly or over others.
    #[must_use]
    pub fn after(&self, node: u8) -> BTreeSet<u8> {
        let mut found = BTreeSet::new();
        loop {
            let count = found.len();
            for (from, to) in &self.edges {
                if *from == node || found.contains(from) {
                    found.insert(*to);
                }
            }
            if found.len() == count {
                return found;
            }
        }
    }

    /// The nodes right before a node.
    #[must_use]
    pub fn before(&self, node: u8) -> BTreeSet<u8> {
        self.edges.iter().filter(|(_, to)| *to == node).map(|(from, _)| *from).collect()
    }

    /// Whether nothing follows on a node.
    #[must_use]
    pub fn is_end(&self, node: u8) -> bool {
        !self.edges.iter().any(|(from, _)| *from == node)
    }
}
