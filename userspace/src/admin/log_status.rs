//! The log's part of a [`Status`](super::status::Status): what is durable, what
//! is applied, and where the time goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The log, the state behind it and the disk beneath it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogStatus {
    /// Data directory.
    pub data: String,
    /// Names the cluster.
    pub cluster_id: String,
    /// This node.
    pub node: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: String,
    /// Raft term.
    pub term: u64,
    /// Nodes that must have an entry on disk before it commits.
    pub quorum: u64,
    /// Whether events are taken: the log is replayed and this node leads.
    pub ready: bool,
    /// Log time now, nanoseconds since the Unix epoch.
    pub log_time_ns: u64,
    /// Log time minus wall clock, milliseconds.
    pub log_time_ahead_ms: i64,
    /// Jumps of the wall clock seen since start.
    pub clock_jumps: u64,
    /// Last epoch in the log, durable or not.
    pub last_epoch: u64,
    /// Last epoch that is durable on a majority.
    pub committed_epoch: u64,
    /// Last epoch that every lane has applied.
    pub applied_epoch: u64,
    /// Proposals taken and not committed.
    pub in_flight: u64,
    /// Batches that will never commit: their senders got no answer.
    pub lost: u64,
    /// The write-ahead log.
    pub wal: WalStatus,
    /// Snapshots.
    pub snapshots: SnapshotStatus,
    /// How this start recovered.
    pub recovery: RecoveryStatus,
    /// Time of each stage and of the whole, in order of an event's way.
    pub stages: Vec<StageStatus>,
    /// Partitions by the lane that owns them.
    pub owners: Vec<LaneOwner>,
    /// Partitions with the most events over the last second, most first; at most 8.
    pub hot_partitions: Vec<HotPartition>,
    /// Events by the latency class of their game, and how many were late.
    pub latency: Vec<LatencyStatus>,
    /// Whose hunts they are, and what they use.
    pub tenants: TenantsStatus,
    /// What regions of split hunts owe each other.
    pub effects: EffectsStatus,
    /// Digest over all partitions, outcomes and state, at the last epoch that
    /// is a multiple of 1,024; hexadecimal.
    pub digest: DigestStatus,
    /// Events that partitions have judged in this life, by outcome, replay
    /// included; a reading of the last second. After a move of a partition its
    /// events count with the new owner.
    pub judged: BTreeMap<String, u64>,
    /// Reserved memory by part, bytes.
    pub memory_bytes: BTreeMap<String, u64>,
}

/// The write-ahead log on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WalStatus {
    /// How the disk is written: `direct` or `buffered`.
    pub io: String,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments there are; it never grows.
    pub segments: u64,
    /// Segments that hold what a restart would need.
    pub segments_used: u64,
    /// Times the whole ring was written since start.
    pub times_wrapped: u64,
    /// Records written since start.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// The flush: from the write being issued to the disk having it, nanoseconds.
    pub flush_ns: Quantiles,
    /// The same, over the last ten seconds.
    pub flush_ns_recent: Quantiles,
}

/// Snapshots on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotStatus {
    /// Whether one is being taken.
    pub under_way: bool,
    /// Taken since start.
    pub taken: u64,
    /// That failed since start.
    pub failed: u64,
    /// Least epoch in the newest; 0 without one.
    pub newest_epoch: u64,
    /// Bytes of the newest file.
    pub newest_bytes: u64,
    /// How long the newest took, milliseconds.
    pub newest_ms: u64,
    /// Why the last one failed; empty when it did not.
    pub error: String,
}

/// What the start found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecoveryStatus {
    /// Epoch of the snapshot that was loaded; 0 without one.
    pub snapshot_epoch: u64,
    /// Snapshots that were refused, with the reason.
    pub refused: Vec<String>,
    /// Entries replayed.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Time to load the snapshot, milliseconds.
    pub snapshot_ms: u64,
    /// Time to replay, milliseconds.
    pub replay_ms: u64,
}

/// Median, tail and worst of a time, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// Times measured.
    pub count: u64,
    /// Half took no longer.
    pub p50: u64,
    /// 99 % took no longer.
    pub p99: u64,
    /// 99.9 % took no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Quantiles {
    /// Those of a histogram.
    #[must_use]
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: if histogram.is_empty() { 0 } else { histogram.max() },
        }
    }
}

/// Time of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageStatus {
    /// `rx`, `decoded`, ... `whole`.
    pub stage: String,
    /// Since start, nanoseconds.
    pub since_start_ns: Quantiles,
    /// Over the last ten seconds, nanoseconds.
    pub last_10s_ns: Quantiles,
}

/// What a lane owns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneOwner {
    /// The lane.
    pub lane: u16,
    /// Its partitions.
    pub partitions: Vec<u16>,
    /// Last epoch it has applied.
    pub applied_epoch: u64,
}

/// A partition that has something to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HotPartition {
    /// Its number.
    pub partition: u16,
    /// Lane that owns it.
    pub lane: u16,
    /// Events judged a second, over the last second.
    pub events_per_s: u64,
    /// Share of a core that applying them takes, 0 to 1: the lane's time in applying,
    /// dealt out by events.
    pub core_share: f64,
}

/// What partitions owe each other; a reading of the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectsStatus {
    /// Requests that wait for their reply.
    pub requests: u64,
    /// Replies that wait for delivery.
    pub replies: u64,
    /// Most of either that one partition has room for.
    pub partition_max: u64,
    /// Effects that came again or found no room, in this life.
    pub repeated: u64,
}

/// A latency class, measured from an event's batch being sealed to its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyStatus {
    /// `interactive` or `relaxed`.
    pub class: String,
    /// What takes longer is late, milliseconds.
    pub target_ms: u64,
    /// Events that a rule has decided in this life; a reading of the last second.
    pub events: u64,
    /// Those that were late.
    pub late: u64,
}

/// Tenants of all partitions, as the last walk over all hunts found them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantsStatus {
    /// Those with the most events a second, then with the most cells, first; at most 16.
    /// Hunts of nobody have a row too.
    pub rows: Vec<TenantRow>,
    /// Tenants without a row of their own.
    pub others: u64,
    /// What these have, together.
    pub others_sums: TenantSums,
    /// How long ago the walk ended, milliseconds; none before the first has.
    pub age_ms: Option<u64>,
    /// How long it took, milliseconds.
    pub walk_ms: u64,
}

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantRow {
    /// As `hunt-open` named it; none for hunts of nobody.
    pub tenant: Option<u32>,
    /// What its hunts have, together.
    #[serde(flatten)]
    pub sums: TenantSums,
}

/// Sums over hunts, those that are over or closed among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSums {
    /// Hunts.
    pub hunts: u64,
    /// Cells with a hotspot.
    pub cells: u64,
    /// Players, once for each of their hunts.
    pub players: u64,
    /// Events that a rule has decided since the server was started, replay included:
    /// those that count for the quota.
    pub events: u64,
    /// The same a second, between the last two walks.
    pub events_per_s: u64,
    /// Events refused as `over-quota`, ever.
    pub over_quota: u64,
    /// Cells that the hunts may have by their quotas; none when one has no such bound.
    pub cells_max: Option<u64>,
    /// Players that they may have; none when one has no such bound.
    pub players_max: Option<u64>,
    /// Events a second that they may have; none when one has no such bound.
    pub events_per_s_max: Option<u64>,
}

/// A digest and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DigestStatus {
    /// Epoch it was taken at; 0 before the first.
    pub epoch: u64,
    /// Of all outcomes.
    pub outcomes: String,
    /// Of all changes of state.
    pub state: String,
    /// Where this node's state differs from what the log says it was.
    pub differences: Vec<String>,
}
