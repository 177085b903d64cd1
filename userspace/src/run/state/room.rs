//! When a snapshot is due, and how much of the log is kept behind snapshots: what
//! keeps the log from running out of room. Pure.
//!
//! ```text
//!   | log behind the older of two snapshots | newest | what comes | short | lacks room |
//!   '------------------- two shares -------------------'          1/8     in flight
//! ```
//!
//! Two snapshots are kept to fall back on, and the log behind the older. A log that
//! is short of room gives that up rather than lack it: then nothing could be taken.

use std::time::Duration;

use crate::log::superblock::room_bytes_min;

/// Least time between two snapshots that were begun because the log is short of
/// room: one that fails is not tried again at once, while events are taken.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the module. Room is in free bytes of the log, whole segments as
/// [`crate::log::wal::WalState::free_bytes`] gives them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of the log from one snapshot to the next.
    snapshot_at_bytes: u64,
    /// Below it nothing may join a batch.
    lacks_below: u64,
    /// Below it the log behind the newest snapshot has to do.
    short_below: u64,
    /// A log that is short is worth another snapshot when so much was written.
    again_bytes: u64,
}

impl Room {
    /// For a log of `log` bytes in segments of `segment`, of which `percent` may come between two snapshots, with so many
    /// batches in flight. Never more comes between them than leaves room for two
    /// shares; a log of a few segments has none to leave.
    pub(super) fn new(log: u64, segment: u64, percent: u16, batches: u64) -> Self {
        let lacks_below = room_bytes_min(log, segment, batches);
        let short_below = lacks_below.saturating_add(log / 8);
        // The log's own reserve is a segment, and what is begun counts as used.
        let kept = short_below.next_multiple_of(segment.max(1)).saturating_add(2 * segment);
        let usable = log.saturating_sub(kept);
        let share = log / 100 * u64::from(percent);
        Self {
            snapshot_at_bytes: share.min((usable / 2).max(log / 8)),
            lacks_below,
            short_below,
            again_bytes: log / 64,
        }
    }

    /// Whether events must be refused.
    pub(super) const fn is_lacking(&self, free: u64) -> bool {
        free < self.lacks_below
    }

    /// Whether the log behind the newest snapshot has to do.
    pub(super) const fn is_short(&self, free: u64) -> bool {
        free < self.short_below
    }

    /// Whether a snapshot should begin: `written` bytes of log and `passed` time
    /// after the last was begun; `is_behind` when entries were applied since the
    /// newest.
    pub(super) fn is_snapshot_due(
        &self,
        free: u64,
        written: u64,
        passed: Duration,
        is_behind: bool,
    ) -> bool {
        let again = written >= self.again_bytes || passed >= AGAIN_AFTER;
        written >= self.snapshot_at_bytes || (self.is_short(free) && is_behind && again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(segment: u64, segments: u64, percent: u16) -> Room {
        Room::new(segment * segments, segment, percent, 64)
    }

    #[test]
    fn two_shares_fit_before_a_log_is_short() {
        for segment_bytes in [8 << 20, 16 << 20, 128 << 20] {
            for segments in [12, 16, 32, 200] {
                for percent in [5, 30, 45] {
                    let room = room(segment_bytes, segments, percent);
                    // Shares begin and end anywhere in a segment; one is reserved.
                    let used = (2 * room.snapshot_at_bytes).div_ceil(segment_bytes) + 1;
                    let free = (segments - used - 1) * segment_bytes;
                    let what = format!("{segments} of {segment_bytes}, {percent} %: {room:?}");
                    assert!(!room.is_short(free), "{what}");
                    assert!(room.is_short(room.lacks_below) && !room.is_lacking(free), "{what}");
                    assert!(room.snapshot_at_bytes >= segment_bytes * segments / 25, "{what}");
                }
            }
        }
        assert_eq!(room(128 << 20, 16, 30).snapshot_at_bytes, (2 << 30) / 100 * 30);
    }

    #[test]
    fn a_log_of_a_few_segments_still_takes_events_and_snapshots() {
        let room = room(1 << 20, 4, 30);
        assert!(!room.is_lacking(2 << 20) && room.is_lacking(0));
        assert!(room.snapshot_at_bytes >= (4 << 20) / 8);
    }

    #[test]
    fn a_log_that_is_short_begins_one_that_failed_again_in_time() {
        let room = room(128 << 20, 16, 30);
        let (short, some) = (room.short_below - 1, Duration::from_secs(1));
        assert!(!room.is_snapshot_due(room.short_below, room.snapshot_at_bytes - 1, some, true));
        assert!(room.is_snapshot_due(u64::MAX, room.snapshot_at_bytes, some, true));
        assert!(!room.is_snapshot_due(short, room.again_bytes - 1, some, true), "just failed");
        assert!(room.is_snapshot_due(short, room.again_bytes, some, true));
        assert!(room.is_snapshot_due(short, 0, AGAIN_AFTER, true), "nothing can be written");
        assert!(!room.is_snapshot_due(short, room.again_bytes, some, false), "nothing is new");
    }
}
