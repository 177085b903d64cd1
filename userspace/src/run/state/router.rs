//! From the log to the lanes: every committed entry goes to every lane that
//! owns state, in epoch order.
//!
//! A lane learns of entries without a range of its own too: so its epoch moves
//! on, digests and captures stand at the same epochs everywhere, and who owns
//! what is known to the lanes alone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rtrb::Producer;

use crate::base::clock::monotonic_ns;
use crate::batch::Payload;
use crate::batch::pool::Stamp;
use crate::lane::link::{LaneCommand, LaneLink};
use crate::log::{Body, LogEntry};
use crate::replicate::Committed;

use super::digests::Digests;

/// Entries routed and not applied at the most, beyond those that lanes can have
/// in flight: while a start replays, so many are held in memory.
const AHEAD_ENTRIES: u64 = 128;

/// Times the router lets others run before it sleeps for a millisecond.
const YIELDS_MAX: u32 = 200;

/// The writing ends of the lanes that own state.
pub(super) struct Owners {
    pub(super) lanes: Vec<(Arc<LaneLink>, Producer<LaneCommand>)>,
    /// Entries that may be routed and not applied.
    window: u64,
}

impl Owners {
    /// `batches` may be in flight by all lanes together.
    pub(super) fn new(lanes: Vec<(Arc<LaneLink>, Producer<LaneCommand>)>, batches: u64) -> Self {
        Self { lanes, window: batches + AHEAD_ENTRIES }
    }

    /// Whether every lane has room for a command and is not too far behind.
    fn can_take(&self, epoch: u64) -> bool {
        self.lanes.iter().all(|(link, commands)| {
            !commands.is_full() && epoch.saturating_sub(link.applied_epoch()) <= self.window
        })
    }

    /// Tells one lane; false when its ring is full.
    pub(super) fn tell(&mut self, lane: usize, command: LaneCommand) -> bool {
        let Some((link, commands)) = self.lanes.get_mut(lane) else { return false };
        let told = commands.push(command).is_ok();
        link.waker.wake();
        told
    }

    /// Last epoch that every lane has applied.
    pub(super) fn applied_epoch(&self) -> u64 {
        self.lanes.iter().map(|(link, _)| link.applied_epoch()).min().unwrap_or(0)
    }

    fn wake_all(&self) {
        self.lanes.iter().for_each(|(link, _)| {
            link.waker.wake();
        });
    }
}

/// What the log has committed goes through here.
pub(super) struct Router {
    pub(super) owners: Rc<RefCell<Owners>>,
    pub(super) digests: Rc<RefCell<Digests>>,
    pub(super) routed: Rc<RefCell<Routed>>,
}

/// Totals of what was routed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routed {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) epoch: u64,
}

impl Committed for Router {
    async fn committed(&mut self, entry: LogEntry) {
        let epoch = entry.id.index;
        let mut yields = 0;
        while !self.owners.borrow().can_take(epoch) {
            self.owners.borrow().wake_all();
            yields += 1;
            if yields < YIELDS_MAX {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        {
            let mut routed = self.routed.borrow_mut();
            routed.entries += 1;
            routed.bytes += entry.body.as_slice().len() as u64;
            routed.epoch = epoch;
        }
        let batch = match entry.body {
            Body::Batch(batch) => Some(batch),
            Body::Digests(bytes) => {
                self.digests.borrow_mut().recorded(&bytes);
                None
            }
            Body::Blank | Body::Membership(_) => None,
        };
        let mut owners = self.owners.borrow_mut();
        if let Some(slots) = batch.as_ref().and_then(Payload::slots) {
            slots.stamp(Stamp::Committed, monotonic_ns());
            slots.committed(epoch, owners.lanes.len() as u32);
        }
        let log_time_ns = entry.log_time_ns;
        for lane in 0..owners.lanes.len() {
            // Asked for above: there is room.
            owners.tell(lane, LaneCommand::Apply { epoch, log_time_ns, batch: batch.clone() });
        }
    }
}
