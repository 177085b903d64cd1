//! What the lane's partitions owe others, into its batches.
//!
//! A node that leads sends: effects that were not sent yet after each turn that applied
//! something, and all that are still owed when nothing has moved for a while, since an
//! entry may never commit. The state says what is new; see `apply/effects.rs`.

use super::ingest::Ingest;
use super::owner::Owner;
use crate::base::port::Port;

/// Effects sent a turn, or a few more: some 100 us.
const EFFECTS_A_TURN: usize = 1_024;

/// After so long without any progress a partition's effects are sent again: an entry
/// takes a millisecond or two.
const SEND_AGAIN_NS: u64 = 100_000_000;

/// How far a lane is in sending.
pub(super) struct Sending {
    /// The partition whose turn is next.
    next: usize,
    /// When what was stuck was last looked for.
    looked_ns: u64,
    /// The oldest that each partition owed then.
    oldest: Vec<(u64, u64)>,
}

impl Sending {
    pub(super) fn new(partitions: usize) -> Self {
        Self { next: 0, looked_ns: 0, oldest: vec![(0, 0); partitions] }
    }
}

impl Owner {
    /// Sends what is owed, as far as there is room and time; how many effects.
    pub(super) fn send_effects<P: Port>(&mut self, ingest: &mut Ingest<P>, now_ns: u64) -> usize {
        // While the log stalls nothing moves, and nothing is lost for that.
        if ingest.oldest_ns(now_ns) < SEND_AGAIN_NS {
            self.send_again(now_ns);
        }
        if !self.has_unsent {
            return 0;
        }
        let mut sent = 0;
        for _ in 0..self.partitions.len() {
            let number = self.sending.next;
            self.sending.next = (number + 1) % self.partitions.len();
            let Some(partition) = &mut self.partitions[number] else { continue };
            while partition.has_unsent() {
                let batch =
                    if sent < EFFECTS_A_TURN { ingest.room_for_effects(now_ns) } else { None };
                let Some((batch, partitions)) = batch else { return sent };
                sent += partition.send_into(batch, partitions);
            }
        }
        self.has_unsent = false;
        sent
    }

    /// What has not moved since the last look is sent again.
    fn send_again(&mut self, now_ns: u64) {
        let sending = &mut self.sending;
        if now_ns.saturating_sub(sending.looked_ns) < SEND_AGAIN_NS {
            return;
        }
        sending.looked_ns = now_ns;
        for (partition, before) in self.partitions.iter_mut().zip(&mut sending.oldest) {
            let Some(partition) = partition else { continue };
            partition.send_stuck_again(*before);
            *before = partition.oldest_owed();
            self.has_unsent |= partition.has_unsent();
        }
    }
}
