//! The events of a phase cut into datagrams, and the order in which they go.

use super::generator::{Phase, World};

/// Events of one hunt that share a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the hunt.
    pub hunt: usize,
    /// First event, counted within phase and hunt.
    pub first: u64,
    /// Events.
    pub count: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Chunks<'a> {
    world: &'a World,
    /// Whose events they are.
    pub phase: Phase,
    fill: u16,
    /// First datagram of each hunt, and at the end how many there are.
    starts: Vec<u64>,
    stride: u64,
}

impl<'a> Chunks<'a> {
    /// Cuts a phase into datagrams of up to `fill` events, at least 1.
    #[must_use]
    pub fn new(world: &'a World, phase: Phase, fill: u16) -> Self {
        let fill = fill.max(1);
        let mut starts = vec![0];
        for index in 0..world.hunts().len() {
            let datagrams = world.count_in(phase, index).div_ceil(fill.into());
            starts.push(starts[index] + datagrams);
        }
        // Steps of the golden ratio visit hunts by turns, the large ones more often.
        let len = starts[starts.len() - 1];
        let mut stride = (len as f64 * 0.618_033_988_75) as u64;
        while len > 1 && gcd(stride, len) != 1 {
            stride += 1;
        }
        Self { world, phase, fill, starts, stride }
    }

    /// Datagrams.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The `k`th datagram to go; `None` past the last.
    #[must_use]
    pub fn get(&self, k: u64) -> Option<Chunk> {
        let len = self.len();
        if k >= len {
            return None;
        }
        let number = (u128::from(k) * u128::from(self.stride) % u128::from(len)) as u64;
        let hunt = self.starts.partition_point(|start| *start <= number) - 1;
        let first = (number - self.starts[hunt]) * u64::from(self.fill);
        let left = self.world.count_in(self.phase, hunt) - first;
        Some(Chunk { hunt, first, count: left.min(self.fill.into()) as u16 })
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
