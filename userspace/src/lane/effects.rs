//! What the lane's partitions owe others, into its batches; what they have settled, to
//! the lanes that wait.
//!
//! A node that leads sends: effects that were not sent yet after each turn that applied
//! something, and all that are still owed when nothing has moved for a while, since an
//! entry may never commit. The state says what is new; see `apply/effects.rs`.

use veltrix_abi::partition::partition_of;

use super::ingest::Ingest;
use super::owner::Owner;
use crate::apply::effects::{self, EFFECT_BYTES_MAX};
use crate::apply::{Effect, Partition};
use crate::base::port::Port;

/// Effects of a partition that go into one batch together.
const EFFECTS_AT_ONCE: usize = 64;

/// After so long without any progress a partition's effects are sent again: an entry
/// takes a millisecond or two.
const SEND_AGAIN_NS: u64 = 100_000_000;

/// When the partitions of a lane were last looked at, and what was the oldest that each
/// owed then.
pub(super) struct Resending {
    looked_ns: u64,
    oldest: Vec<(u64, u64)>,
}

impl Resending {
    pub(super) fn new(partitions: usize) -> Self {
        Self { looked_ns: 0, oldest: vec![(0, 0); partitions] }
    }
}

impl Owner {
    /// Sends what is owed, as far as there is room; how many effects.
    pub(super) fn send_effects<P: Port>(&mut self, ingest: &mut Ingest<P>, now_ns: u64) -> usize {
        // While the log stalls nothing moves, and nothing is lost for that.
        if ingest.oldest_ns(now_ns) < SEND_AGAIN_NS {
            self.send_again(now_ns);
        }
        if !std::mem::take(&mut self.has_unsent) {
            return 0;
        }
        let mut sent = 0;
        for number in 0..self.partitions.len() {
            let Some(partition) = &mut self.partitions[number] else { continue };
            while partition.has_unsent() {
                let effects = send(partition, ingest, now_ns);
                if effects == 0 {
                    self.has_unsent = true;
                    return sent;
                }
                sent += effects;
            }
        }
        sent
    }

    /// What has not moved since the last look is sent again.
    fn send_again(&mut self, now_ns: u64) {
        let resending = &mut self.resending;
        if now_ns.saturating_sub(resending.looked_ns) < SEND_AGAIN_NS {
            return;
        }
        resending.looked_ns = now_ns;
        for (partition, before) in self.partitions.iter_mut().zip(&mut resending.oldest) {
            let Some(partition) = partition else { continue };
            partition.send_stuck_again(*before);
            *before = partition.oldest_owed();
            self.has_unsent |= partition.has_unsent();
        }
    }
}

/// Sends some effects of a partition; 0 when the lane has no room for any.
fn send<P: Port>(partition: &mut Partition, ingest: &mut Ingest<P>, now_ns: u64) -> usize {
    let partitions = ingest.partitions();
    let own = partition.number();
    let Some(batch) = ingest.room_for_effects(EFFECTS_AT_ONCE + 1, EFFECT_BYTES_MAX, now_ns) else {
        return 0;
    };
    let mut bytes = [0; EFFECT_BYTES_MAX];
    let mut delivered: Option<(u64, u64, u64)> = None;
    let mut sent = 0;
    partition.send(EFFECTS_AT_ONCE, |effect| {
        let len = effects::write(&effect, &mut bytes);
        let to = match effect {
            Effect::Request(request) => request.to,
            Effect::Reply(reply) => reply.home,
        };
        let appended = batch.append_effect(partition_of(to, partitions), to, &bytes[..len]);
        if let (Some(_), Effect::Reply(reply)) = (appended, effect) {
            let first = delivered.map_or(reply.number, |(first, ..)| first);
            delivered = Some((first, reply.number, reply.from));
        }
        sent += usize::from(appended.is_some());
        appended.is_some()
    });
    // In the same entry as the replies: it commits with them, or neither does.
    if let Some((from, to, domain)) = delivered {
        let len = effects::write_delivered(from, to, &mut bytes);
        let noted = batch.append_effect(own, domain, &bytes[..len]).is_some();
        debug_assert!(noted, "there was room for one more");
    }
    // Requests that were replied meanwhile are passed over.
    sent.max(1)
}
