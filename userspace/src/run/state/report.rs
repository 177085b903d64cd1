//! The state as `veltrix status` tells of it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use veltrix_abi::Outcome;

use super::live::Live;
use crate::admin::log_status::{
    DigestStatus, EffectsStatus, LaneOwner, LatencyStatus, LogStatus, SnapshotStatus, WalStatus,
};
use crate::apply::games::{ClassCounts, Latency};
use crate::apply::{DUPLICATES, EFFECTS_MAX};
use crate::base::clock::{monotonic_ns, unix_ns};
use crate::lane::link::LaneLink;
use crate::replicate::{ReplicatedLog as _, Role};

impl Live {
    /// For the operator.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        let raft = self.raft.status();
        let superblock = self.dir.superblock();
        let log_time_ns = self.raft.log_time_ns();
        let lanes = self.owners.borrow();
        let owners = lanes.lanes.iter().enumerate().map(|(lane, (link, _))| LaneOwner {
            lane: lane as u16,
            partitions: (0..self.owner_of.len() as u16)
                .filter(|p| usize::from(self.owner_of[usize::from(*p)].load(Relaxed)) == lane)
                .collect(),
            applied_epoch: link.applied_epoch(),
        });
        let owed = |of: fn(&LaneLink) -> &AtomicU64| {
            lanes.lanes.iter().map(|(link, _)| of(link).load(Relaxed)).sum()
        };
        let effects = EffectsStatus {
            requests: owed(|link| &link.requests_owed),
            replies: owed(|link| &link.replies_owed),
            partition_max: EFFECTS_MAX as u64,
            repeated: owed(|link| &link.effects_repeated),
        };
        let digests = self.digests.borrow();
        let (epoch, digest) = digests.newest().unwrap_or_default();
        let differences = digests.differences().iter();
        let digest = DigestStatus {
            epoch,
            outcomes: format!("{:016x}", digest.outcomes),
            state: format!("{:016x}", digest.state),
            differences: differences.map(|(e, p)| format!("partition {p} at epoch {e}")).collect(),
        };
        LogStatus {
            data: self.dir.path().display().to_string(),
            cluster_id: format!("{:016x}", superblock.cluster_id),
            node: superblock.node_id,
            role: role_name(raft.role).into(),
            term: raft.term,
            quorum: raft.quorum() as u64,
            ready: self.facts.ready.load(Relaxed),
            log_time_ns,
            log_time_ahead_ms: (i128::from(log_time_ns) - i128::from(unix_ns())) as i64 / 1_000_000,
            clock_jumps: self.jumps.get(),
            last_epoch: raft.last_index.unwrap_or(0),
            committed_epoch: raft.committed_index.unwrap_or(0),
            applied_epoch: self.owners.borrow().applied_epoch(),
            in_flight: raft.in_flight,
            lost: raft.lost,
            wal: self.wal_status(),
            snapshots: self.snapshot_status(),
            recovery: self.recovery.borrow().clone(),
            stages: self.times.borrow().stages(),
            owners: owners.collect(),
            hot_partitions: self.load.borrow().hottest(),
            latency: self.latency_status(),
            tenants: self.tenants.borrow().status(monotonic_ns()),
            effects,
            digest,
            judged: self.judged_by_outcome(),
            memory_bytes: self.memory_bytes.clone(),
        }
    }

    pub(super) fn judged_by_outcome(&self) -> BTreeMap<String, u64> {
        let sum = |code: usize| self.judged.borrow().iter().map(|lane| lane[code]).sum::<u64>();
        let labels = Outcome::ALL.iter().map(|o| (usize::from(o.code()), o.label()));
        labels
            .chain([(DUPLICATES, "duplicate")])
            .map(|(code, label)| (label.to_owned(), sum(code)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn latency_status(&self) -> Vec<LatencyStatus> {
        let mut sum = ClassCounts::default();
        self.classes.borrow().iter().for_each(|lane| sum.add(lane));
        let row = |class: Latency| LatencyStatus {
            class: class.name().to_owned(),
            target_ms: class.target().as_millis() as u64,
            events: sum.events[class as usize],
            late: sum.late[class as usize],
        };
        Latency::ALL.map(row).into()
    }

    fn wal_status(&self) -> WalStatus {
        let (state, counters) = (self.wal.state(), self.wal.counters());
        let (flush_ns, flush_ns_recent) = self.times.borrow().flushes();
        WalStatus {
            io: self.wal.mode().name().into(),
            segment_bytes: self.dir.superblock().segment_bytes,
            segments: self.dir.superblock().segments_max.into(),
            segments_used: state.segments_used.into(),
            times_wrapped: counters.bytes / self.dir.superblock().wal_bytes(),
            records: counters.records,
            entries: counters.entries,
            bytes: counters.bytes,
            flush_ns,
            flush_ns_recent,
        }
    }

    fn snapshot_status(&self) -> SnapshotStatus {
        let status = self.snapshots.borrow().status();
        SnapshotStatus {
            under_way: status.running.is_some(),
            taken: status.written,
            failed: status.failed,
            newest_epoch: status.newest(),
            newest_bytes: status.last.as_ref().map_or(0, |l| l.bytes),
            newest_ms: status.last.as_ref().map_or(0, |l| l.took_ms),
            error: status.alarm.unwrap_or_default(),
        }
    }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}
