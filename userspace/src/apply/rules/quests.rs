//! Quests: graphs of nodes, and who has passed which.
//!
//! ```text
//!   payload of quest-define   | nodes - 1 | 0 | from to | from to | ...      a byte each
//! ```
//!
//! A node is passed when one of its predecessors was, or when it has none; each
//! once. The first node without a successor ends the quest. A payload of 512 bytes
//! has room for 255 edges, as many as a chain or a tree of 256 nodes has.

use veltrix_abi::Outcome;

/// A quest's graph, as its payload holds it.
#[derive(Clone, Copy, Debug)]
pub struct Graph<'a> {
    nodes: usize,
    edges: &'a [[u8; 2]],
}

impl<'a> Graph<'a> {
    /// The graph of a payload; `None` when it is none: cut, nodes that do not exist,
    /// an edge that is there twice, a cycle.
    #[must_use]
    pub fn of(payload: &'a [u8]) -> Option<Self> {
        let graph = Self::stored(payload)?;
        let known = graph
            .edges
            .iter()
            .all(|[from, to]| usize::from(*from) < graph.nodes && usize::from(*to) < graph.nodes);
        (known && graph.is_sound()).then_some(graph)
    }

    /// The graph of a payload that was judged when the quest was defined.
    #[must_use]
    pub fn stored(payload: &'a [u8]) -> Option<Self> {
        let (head, edges) = payload.split_first_chunk::<2>()?;
        let (edges, rest) = edges.as_chunks::<2>();
        let [last, 0] = *head else { return None };
        rest.is_empty().then_some(Self { nodes: usize::from(last) + 1, edges })
    }

    /// Nodes, 1 to 256.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Whether no edge is there twice and no way leads back to where it began. Takes
    /// time in proportion to nodes and edges, since anybody may send a graph: nodes
    /// without predecessors are taken away until none is left, or all that are left
    /// have one.
    fn is_sound(&self) -> bool {
        if self.edges.is_empty() {
            return true;
        }
        // Edges by where they begin: those of node n are `to[from[n]..from[n + 1]]`.
        let mut from = [0u16; 257];
        let mut wanted = [0u16; 256];
        for [begin, end] in self.edges {
            from[usize::from(*begin) + 1] += 1;
            wanted[usize::from(*end)] += 1;
        }
        for node in 0..self.nodes {
            from[node + 1] += from[node];
        }
        let mut next = from;
        let mut to = [0u8; 256];
        for [begin, end] in self.edges {
            let place = &mut next[usize::from(*begin)];
            to[usize::from(*place)] = *end;
            *place += 1;
        }
        let mut free = [0u8; 256];
        let mut found = 0;
        for (node, wanted) in (0..=u8::MAX).zip(wanted).take(self.nodes) {
            if wanted == 0 {
                free[found] = node;
                found += 1;
            }
        }
        let mut taken = 0;
        while taken < found {
            let node = usize::from(free[taken]);
            taken += 1;
            let mut seen = [0u64; 4];
            for end in &to[usize::from(from[node])..usize::from(from[node + 1])] {
                if is_set(&seen, *end) {
                    return false;
                }
                set(&mut seen, *end);
                let wanted = &mut wanted[usize::from(*end)];
                *wanted -= 1;
                if *wanted == 0 {
                    free[found] = *end;
                    found += 1;
                }
            }
        }
        taken == self.nodes
    }

    /// Whether a node may be passed by who has passed `done`.
    fn is_reached(&self, node: u8, done: &[u64; 4]) -> bool {
        let mut before = self.edges.iter().filter(|[_, to]| *to == node).peekable();
        before.peek().is_none() || before.any(|[from, _]| is_set(done, *from))
    }

    fn is_end(&self, node: u8) -> bool {
        self.edges.iter().all(|[from, _]| *from != node)
    }
}

/// Whether bit `at` of 256 is set.
#[must_use]
pub const fn is_set(bits: &[u64; 4], at: u8) -> bool {
    bits[at as usize / 64] >> (at % 64) & 1 == 1
}

/// Sets bit `at` of 256.
pub const fn set(bits: &mut [u64; 4], at: u8) {
    bits[at as usize / 64] |= 1 << (at % 64);
}

/// What a player has passed of a quest, and what was paid for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes passed, since the quest was last given up.
    pub done: [u64; 4],
    /// Nodes paid, ever.
    pub paid: [u64; 4],
    /// Whether the end was paid, ever.
    pub ended: bool,
}

/// What passing a node pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The pay of a node.
    pub node: bool,
    /// The pay of the end.
    pub end: bool,
}

/// The node is passed, and what it pays is due, if it was not paid before.
///
/// # Errors
///
/// `not-found` for a node the quest does not have, `already-done`, `out-of-order`.
pub fn pass(graph: &Graph<'_>, progress: &Progress, node: u8) -> Result<(Progress, Due), Outcome> {
    if usize::from(node) >= graph.nodes {
        return Err(Outcome::NotFound);
    }
    if is_set(&progress.done, node) {
        return Err(Outcome::AlreadyDone);
    }
    if !graph.is_reached(node, &progress.done) {
        return Err(Outcome::OutOfOrder);
    }
    let due =
        Due { node: !is_set(&progress.paid, node), end: graph.is_end(node) && !progress.ended };
    let mut passed = *progress;
    set(&mut passed.done, node);
    set(&mut passed.paid, node);
    passed.ended |= due.end;
    Ok((passed, due))
}

/// What was passed is given up; what was paid stays paid.
///
/// # Errors
///
/// `not-found` when nothing was passed.
pub fn abandon(progress: &Progress) -> Result<Progress, Outcome> {
    if progress.done == [0; 4] {
        return Err(Outcome::NotFound);
    }
    Ok(Progress { done: [0; 4], ..*progress })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 0 -> 1 -> 3, 0 -> 2 -> 3, 2 -> 4
    const DIAMOND: &[u8] = &[4, 0, 0, 1, 0, 2, 1, 3, 2, 3, 2, 4];

    fn passed(graph: &Graph<'_>, nodes: &[u8]) -> Progress {
        nodes.iter().fold(Progress::default(), |progress, node| {
            pass(graph, &progress, *node).unwrap_or_else(|e| panic!("{node}: {e:?}")).0
        })
    }

    #[test]
    fn a_node_wants_one_of_its_predecessors() {
        let graph = Graph::of(DIAMOND).unwrap();
        let none = Progress::default();
        for node in 1..5 {
            assert_eq!(pass(&graph, &none, node), Err(Outcome::OutOfOrder), "{node}");
        }
        assert_eq!(pass(&graph, &none, 5), Err(Outcome::NotFound));
        let begun = passed(&graph, &[0]);
        assert_eq!(pass(&graph, &begun, 3), Err(Outcome::OutOfOrder));
        assert_eq!(pass(&graph, &begun, 0), Err(Outcome::AlreadyDone));
        // Either way is one.
        for way in [[0, 1, 3], [0, 2, 3]] {
            assert!(passed(&graph, &way).ended);
        }
    }

    #[test]
    fn every_node_and_one_end_are_paid_once() {
        let graph = Graph::of(DIAMOND).unwrap();
        let (_, due) = pass(&graph, &passed(&graph, &[0]), 1).unwrap();
        assert_eq!(due, Due { node: true, end: false });
        let at_end = passed(&graph, &[0, 1, 2]);
        let (ended, due) = pass(&graph, &at_end, 3).unwrap();
        assert_eq!(due, Due { node: true, end: true });
        let (_, due) = pass(&graph, &ended, 4).unwrap();
        assert_eq!(due, Due { node: true, end: false }, "a second end");

        let given_up = abandon(&ended).unwrap();
        assert_eq!(given_up.done, [0; 4]);
        assert_eq!(abandon(&given_up), Err(Outcome::NotFound));
        assert_eq!(pass(&graph, &given_up, 3), Err(Outcome::OutOfOrder));
        let mut again = given_up;
        for node in [0, 1, 3] {
            let (progress, due) = pass(&graph, &again, node).unwrap();
            assert_eq!(due, Due { node: false, end: false }, "{node} a second time");
            again = progress;
        }
    }

    #[test]
    fn a_payload_that_is_no_graph_is_told() {
        for (what, payload) in [
            ("nothing", &[][..]),
            ("half a head", &[3]),
            ("a reserved byte", &[3, 1]),
            ("half an edge", &[3, 0, 1]),
            ("a node too far", &[1, 0, 0, 2]),
            ("from nowhere", &[1, 0, 2, 0]),
            ("to itself", &[1, 0, 1, 1]),
            ("there and back", &[1, 0, 0, 1, 1, 0]),
            ("a cycle behind a root", &[3, 0, 0, 1, 1, 2, 2, 3, 3, 1]),
            ("twice the same", &[1, 0, 0, 1, 0, 1]),
        ] {
            assert!(Graph::of(payload).is_none(), "{what}");
        }
        assert_eq!(Graph::of(&[0, 0]).map(|g| g.nodes()), Some(1));
    }

    proptest! {
        /// Against what is said of it: no edge twice, and an order in which every
        /// edge leads on.
        #[test]
        fn a_graph_is_one_that_can_be_put_in_order(
            last in 0u8..6,
            edges in proptest::collection::vec([0u8..7, 0u8..7], 0..9),
        ) {
            let mut payload = vec![last, 0];
            payload.extend(edges.iter().flatten());
            let known = edges.iter().flatten().all(|node| *node <= last);
            let twice = (1..edges.len()).any(|at| edges[..at].contains(&edges[at]));
            // Longest ways, grown as often as there are nodes: a cycle grows for ever.
            let mut depth = [0; 7];
            for _ in 0..=7 {
                for [from, to] in &edges {
                    let (from, to) = (usize::from(*from), usize::from(*to));
                    depth[to] = depth[to].max(depth[from] + 1);
                }
            }
            let cycle = depth.iter().any(|depth| *depth > 6);
            prop_assert_eq!(Graph::of(&payload).is_some(), known && !twice && !cycle);
        }
    }

    #[test]
    fn the_largest_chain_fits_a_payload() {
        let mut payload = vec![255, 0];
        payload.extend((0..255u8).flat_map(|node| [node, node + 1]));
        assert_eq!(payload.len(), 512);
        let graph = Graph::of(&payload).unwrap();
        assert_eq!(graph.nodes(), 256);
        let all: Vec<u8> = (0..=255).collect();
        let progress = passed(&graph, &all);
        assert_eq!((progress.done, progress.ended), ([u64::MAX; 4], true));
        payload[511] = 0;
        assert!(Graph::of(&payload).is_none(), "the last edge goes back to the first node");
    }
}
