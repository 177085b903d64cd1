//! Conditions an operator must act on: raised with a sentence that names the
//! mending command, logged when they come and when they go.

use std::collections::BTreeMap;
use std::time::Instant;

use super::log::Log;
use crate::admin::log_status::LogStatus;
use crate::admin::status::{Alarm, Status};

/// Judgements in a row that must agree before the sums raise an alarm: frames
/// in flight can make one reading differ.
const UNACCOUNTED_READINGS: u32 = 3;

/// Share of the write-ahead log's segments in use at which its operator hears
/// of it, percent.
const WAL_USED_PERCENT: u64 = 90;

/// A flush this long is told of: a hundred times what a disk takes that this
/// is made for.
const FLUSH_NS_SLOW: u64 = 50_000_000;

fn log_alarms(log: &LogStatus, seen: &mut BTreeMap<&'static str, String>) {
    let (used, segments) = (log.wal.segments_used, log.wal.segments);
    if segments > 0 && used * 100 >= segments * WAL_USED_PERCENT {
        seen.insert(
            "log-nearly-full",
            format!("{used} of {segments} segments of the write-ahead log are in use; it is purged behind snapshots (under way: {}, failed: {}): when none is left, events are refused with `busy`. Take one with `veltrix snapshot`, or format a larger log", log.snapshots.under_way, log.snapshots.failed),
        );
    }
    if !log.snapshots.error.is_empty() {
        seen.insert(
            "snapshot-failed",
            format!("{}; the one before stays, and the log grows until one succeeds: mend the cause, then `veltrix snapshot`", log.snapshots.error),
        );
    }
    let slowest = log.wal.flush_ns_recent.max;
    if slowest >= FLUSH_NS_SLOW {
        seen.insert(
            "flush-slow",
            format!("the disk took {} ms for a write within the last ten seconds; answers waited for it: look for other writers on the disk of {}", slowest / 1_000_000, log.data),
        );
    }
    if log.wal.io == "buffered" {
        seen.insert(
            "disk-buffered",
            format!("the file system of {} refuses O_DIRECT; every flush goes through the page cache and fdatasync: put the data directory on ext4 or xfs of a local disk", log.data),
        );
    }
    if !log.recovery.refused.is_empty() {
        seen.insert(
            "snapshot-refused",
            format!(
                "{}; an older one was used: keep the file for a report, then remove it",
                log.recovery.refused.join("; ")
            ),
        );
    }
    if !log.digest.differences.is_empty() {
        seen.insert(
            "state-differs",
            format!("state or outcomes differ from what the log says they were: {}; memory is damaged, or this is a bug: `veltrix status --json` and the data directory are what a report needs", log.digest.differences.join(", ")),
        );
    }
    if !log.ready {
        seen.insert(
            "not-ready",
            format!("no events are taken: this node is {}, and {used} of {segments} segments of its log are in use; a log without room is purged behind the next snapshot", log.role),
        );
    }
}

/// The alarms that are raised.
#[derive(Debug, Default)]
pub struct Alarms {
    raised: BTreeMap<&'static str, (Instant, String)>,
    unaccounted_readings: u32,
}

impl Alarms {
    /// Raises and clears alarms by what is seen now; `dead_lanes` threads have
    /// ended.
    pub fn judge(&mut self, status: &Status, dead_lanes: usize, log: &Log) {
        let mut seen = BTreeMap::new();
        if dead_lanes > 0 {
            seen.insert(
                "lane-dead",
                format!("{dead_lanes} lane threads have ended by a fault; the server ends too: restart it, and report what it printed"),
            );
        }
        if let Some(nic) = &status.nic {
            let name = &nic.name;
            if nic.rx_queues != nic.queues_at_start {
                seen.insert(
                    "queue-count-changed",
                    format!(
                        "`{name}` has {} receive queues, the lanes serve {}; frames of other queues fall back to the kernel socket, on some drivers (veth) past the XDP program and its blocklist: scripts/nic-queues.sh apply {name} {}, or restart `veltrix run`",
                        nic.rx_queues, nic.queues_at_start, nic.queues_at_start,
                    ),
                );
            }
            if nic.xdp_mode == "none" {
                seen.insert(
                    "program-detached",
                    format!("the XDP program is no longer attached to `{name}`: nothing reaches the lanes; restart `veltrix run` (`ip -d link show dev {name}` says what is there)"),
                );
            }
        }
        if let Some(log) = &status.log {
            log_alarms(log, &mut seen);
        }
        let unaccounted = !status.accounting.closes;
        self.unaccounted_readings = if unaccounted { self.unaccounted_readings + 1 } else { 0 };
        if self.unaccounted_readings >= UNACCOUNTED_READINGS {
            seen.insert(
                "unaccounted-frames",
                format!(
                    "the sums differ by {} frames: a bug in Veltrix or the kernel; `veltrix status --json` is what a report needs",
                    status.accounting.unaccounted
                ),
            );
        }
        let strange: u64 = status
            .lanes
            .iter()
            .map(|l| {
                l.alien_frames
                    + l.xdp_statistics.rx_invalid_descs
                    + l.xdp_statistics.tx_invalid_descs
                    + l.exits.get("lane_disagrees").copied().unwrap_or(0)
            })
            .sum();
        if strange > 0 {
            seen.insert(
                "halves-disagree",
                format!("{strange} frames or descriptors were refused by one half and passed by the other: a bug in Veltrix or the kernel"),
            );
        }
        self.replace(seen, log);
    }

    fn replace(&mut self, seen: BTreeMap<&'static str, String>, log: &Log) {
        self.raised.retain(|name, _| {
            let stays = seen.contains_key(name);
            if !stays {
                log.info(&format!("alarm cleared: {name}"));
            }
            stays
        });
        for (name, message) in seen {
            let entry = self.raised.entry(name).or_insert_with(|| {
                log.warn(&format!("{name}: {message}"));
                (Instant::now(), String::new())
            });
            entry.1 = message;
        }
    }

    /// What is raised now.
    #[must_use]
    pub fn raised(&self) -> Vec<Alarm> {
        self.raised
            .iter()
            .map(|(name, (since, message))| Alarm {
                name: (*name).to_owned(),
                since_s: since.elapsed().as_secs(),
                message: message.clone(),
            })
            .collect()
    }
}
