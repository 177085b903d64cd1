//! Digests of all partitions at every epoch that is a multiple of 1,024: put
//! together from the lanes' reports, recorded in the log, and compared with
//! what was recorded before when a start replays it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::apply::Digest;

/// Boundaries kept: enough for lanes that are a few thousand epochs apart.
const KEPT: usize = 16;

/// Differences kept: the first ones tell, and each later boundary repeats them.
const DIFFERENCES_MAX: usize = 16;

/// One boundary.
#[derive(Debug, Default)]
struct Boundary {
    /// By partition, as the lanes computed them in this life.
    computed: BTreeMap<u16, Digest>,
    /// As the log has them.
    recorded: Option<Vec<Digest>>,
    compared: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Digests {
    partitions: u16,
    boundaries: BTreeMap<u64, Boundary>,
    /// Newest boundary that is complete, and all partitions' digests folded.
    newest: Option<(u64, Digest)>,
    /// Differences found: epoch and partition.
    differences: Vec<(u64, u16)>,
}

impl Digests {
    pub(super) fn new(partitions: u16) -> Self {
        Self { partitions, boundaries: BTreeMap::new(), newest: None, differences: Vec::new() }
    }

    /// A lane's report. Gives the record to propose once every partition has
    /// reported a boundary that the log does not have.
    pub(super) fn computed(&mut self, epoch: u64, partition: u16, digest: Digest) -> Option<Bytes> {
        let boundary = self.boundaries.entry(epoch).or_default();
        boundary.computed.insert(partition, digest);
        if boundary.computed.len() < usize::from(self.partitions) {
            return None;
        }
        let all: Vec<Digest> = boundary.computed.values().copied().collect();
        let is_recorded = boundary.recorded.is_some();
        if self.newest.is_none_or(|(newest, _)| newest < epoch) {
            self.newest = Some((epoch, fold(&all)));
        }
        self.compare(epoch);
        self.forget();
        (!is_recorded).then(|| encode(epoch, &all))
    }

    /// A record of the log.
    pub(super) fn recorded(&mut self, bytes: &[u8]) {
        let Some((epoch, digests)) = decode(bytes) else { return };
        self.boundaries.entry(epoch).or_default().recorded = Some(digests);
        self.compare(epoch);
        self.forget();
    }

    fn compare(&mut self, epoch: u64) {
        let Some(boundary) = self.boundaries.get_mut(&epoch) else { return };
        let Some(recorded) = &boundary.recorded else { return };
        if boundary.compared || boundary.computed.len() < usize::from(self.partitions) {
            return;
        }
        boundary.compared = true;
        for (partition, digest) in &boundary.computed {
            if recorded.get(usize::from(*partition)) != Some(digest)
                && self.differences.len() < DIFFERENCES_MAX
            {
                self.differences.push((epoch, *partition));
            }
        }
    }

    fn forget(&mut self) {
        while self.boundaries.len() > KEPT {
            self.boundaries.pop_first();
        }
    }

    /// Newest complete boundary.
    pub(super) fn newest(&self) -> Option<(u64, Digest)> {
        self.newest
    }

    /// Where this node's state differs from what the log says it was.
    pub(super) fn differences(&self) -> &[(u64, u16)] {
        &self.differences
    }
}

/// One digest for all partitions, in their order.
fn fold(all: &[Digest]) -> Digest {
    let mix =
        |sum: u64, value: u64| (sum ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    Digest {
        outcomes: all.iter().fold(0, |sum, d| mix(sum, d.outcomes)),
        state: all.iter().fold(0, |sum, d| mix(sum, d.state)),
    }
}

/// Epoch, then outcomes and state of each partition: u64, little-endian.
fn encode(epoch: u64, all: &[Digest]) -> Bytes {
    let words = std::iter::once(epoch).chain(all.iter().flat_map(|d| [d.outcomes, d.state]));
    words.flat_map(u64::to_le_bytes).collect()
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<Digest>)> {
    let word = |chunk: &[u8]| chunk.first_chunk().map(|c| u64::from_le_bytes(*c));
    let (epoch, rest) = bytes.split_at_checked(8)?;
    let digests: Option<Vec<Digest>> = rest
        .chunks(16)
        .map(|pair| Some(Digest { outcomes: word(pair)?, state: word(pair.get(8..)?)? }))
        .collect();
    Some((word(epoch)?, digests?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        Digest { outcomes: n, state: n + 1 }
    }

    #[test]
    fn a_boundary_is_recorded_once_all_have_reported() {
        let mut digests = Digests::new(2);
        assert_eq!(digests.computed(1024, 1, digest(7)), None);
        let record = digests.computed(1024, 0, digest(3)).unwrap();
        assert_eq!(decode(&record), Some((1024, vec![digest(3), digest(7)])));
        assert_eq!(digests.newest().unwrap().0, 1024);
        // The next life replays the same.
        let mut again = Digests::new(2);
        assert_eq!(again.computed(1024, 0, digest(3)), None);
        again.recorded(&record);
        assert_eq!(again.computed(1024, 1, digest(7)), None, "the log has it already");
        assert!(again.differences().is_empty());
        assert_eq!(again.newest(), digests.newest());
    }

    #[test]
    fn a_difference_is_named() {
        let mut digests = Digests::new(2);
        digests.recorded(&encode(2048, &[digest(1), digest(2)]));
        digests.computed(2048, 0, digest(1));
        digests.computed(2048, 1, digest(9));
        assert_eq!(digests.differences(), [(2048, 1)]);
    }

    #[test]
    fn short_records_are_no_records() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0; 9]), None);
        assert_eq!(decode(&[0; 8]), Some((0, vec![])));
    }
}
