//! The log's part of `veltrix status`: what is durable, and where the time goes.

use std::fmt::Write as _;

use super::Table;
use crate::admin::log_status::{
    EffectsStatus, LogStatus, Quantiles, SnapshotStatus, TenantRow, TenantsStatus,
};
use crate::admin::status::Status;
use crate::config::value::{show_bytes, show_count};

/// Appends the text; nothing for a server without a log.
pub(super) fn log(out: &mut String, status: &Status) {
    let Some(log) = &status.log else { return };
    head(out, log);
    stages(out, log);
    latency(out, log);
    hot(out, log);
    effects(out, &log.effects);
    tenants(out, &log.tenants);
    events(out, status);
}

/// Where the load is; nothing on a server that has none.
fn hot(out: &mut String, log: &LogStatus) {
    if log.hot_partitions.is_empty() {
        return;
    }
    let mut table = Table::new(&["hot partition", "lane", "events/s", "of a core"], &[]);
    for row in &log.hot_partitions {
        table.row(vec![
            row.partition.to_string(),
            row.lane.to_string(),
            show_count(row.events_per_s),
            format!("{:.1} %", row.core_share * 100.0),
        ]);
    }
    let _ = write!(out, "\n{}", table.render());
}

/// What regions of split hunts owe each other; nothing where nobody ever owed anything.
fn effects(out: &mut String, effects: &EffectsStatus) {
    let EffectsStatus { requests, replies, partition_max, repeated } = *effects;
    if requests + replies + repeated > 0 {
        let _ = writeln!(
            out,
            "regions   {} requests under way, {} replies to deliver, at most {} of each a partition; {} came again",
            show_count(requests),
            show_count(replies),
            show_count(partition_max),
            show_count(repeated),
        );
    }
}

/// How many events of each latency class were late; nothing before the first event.
fn latency(out: &mut String, log: &LogStatus) {
    if log.latency.iter().all(|class| class.events == 0) {
        return;
    }
    let mut table = Table::new(&["latency class", "events", "late", "target"], &[0]);
    for class in &log.latency {
        table.row(vec![
            class.class.clone(),
            show_count(class.events),
            show_count(class.late),
            format!("{} ms", class.target_ms),
        ]);
    }
    let _ = write!(out, "\n{}", table.render());
}

/// What each tenant uses of what it may; nothing on a server without hunts.
fn tenants(out: &mut String, tenants: &TenantsStatus) {
    if tenants.rows.is_empty() {
        return;
    }
    let header = ["tenant", "hunts", "cells", "players", "events/s", "events", "over quota"];
    let mut table = Table::new(&header, &[0]);
    let named = |row: &TenantRow| row.tenant.map_or("nobody".into(), |tenant| tenant.to_string());
    let mut rows: Vec<_> = tenants.rows.iter().map(|row| (named(row), row.sums)).collect();
    if tenants.others > 0 {
        rows.push((format!("{} others", show_count(tenants.others)), tenants.others_sums));
    }
    for (name, sums) in rows {
        table.row(vec![
            name,
            show_count(sums.hunts),
            used(sums.cells, sums.cells_max),
            used(sums.players, sums.players_max),
            used(sums.events_per_s, sums.events_per_s_max),
            show_count(sums.events),
            show_count(sums.over_quota),
        ]);
    }
    let _ = write!(out, "\n{}", table.render());
}

/// What is used of a quota, if there is one.
fn used(used: u64, quota: Option<u64>) -> String {
    match quota {
        Some(quota) => format!("{} of {}", show_count(used), show_count(quota)),
        None => show_count(used),
    }
}

fn head(out: &mut String, log: &LogStatus) {
    let state = if log.ready { "taking events" } else { "not taking events" };
    let _ = writeln!(
        out,
        "\nlog       {} of term {}, quorum {}, {state}; epoch {} applied, {} committed, {} in the log",
        log.role,
        log.term,
        log.quorum,
        show_count(log.applied_epoch),
        show_count(log.committed_epoch),
        show_count(log.last_epoch),
    );
    let wal = &log.wal;
    let _ = writeln!(
        out,
        "data      {}: {} of {} segments of {} in use, writes {}; flush p50 {} p99 {} max {}, last 10 s max {}",
        log.data,
        wal.segments_used,
        wal.segments,
        show_bytes(wal.segment_bytes),
        wal.io,
        time(wal.flush_ns.p50),
        time(wal.flush_ns.p99),
        time(wal.flush_ns.max),
        time(wal.flush_ns_recent.max),
    );
    let _ = writeln!(out, "snapshots {}", snapshots(&log.snapshots));
    let recovery = &log.recovery;
    let _ = writeln!(
        out,
        "recovery  snapshot of epoch {} in {} ms, {} entries ({}) replayed in {} ms",
        show_count(recovery.snapshot_epoch),
        show_count(recovery.snapshot_ms),
        show_count(recovery.entries),
        show_bytes(recovery.bytes),
        show_count(recovery.replay_ms),
    );
    if log.digest.epoch > 0 {
        let _ = writeln!(
            out,
            "digest    at epoch {}: outcomes {}, state {}",
            show_count(log.digest.epoch),
            log.digest.outcomes,
            log.digest.state
        );
    }
}

fn snapshots(snapshots: &SnapshotStatus) -> String {
    let under_way = if snapshots.under_way { ", one under way" } else { "" };
    if snapshots.newest_epoch == 0 {
        return format!("none yet{under_way}");
    }
    format!(
        "newest at epoch {}, {} taken in this life, the last {} in {} ms{under_way}",
        show_count(snapshots.newest_epoch),
        snapshots.taken,
        show_bytes(snapshots.newest_bytes),
        show_count(snapshots.newest_ms),
    )
}

/// One row a stage; the whole last, so that it stands at the eye's end.
fn stages(out: &mut String, log: &LogStatus) {
    let mut table = Table::new(
        &["stage", "datagrams", "p50", "p99", "p99.9", "max", "10 s: p50", "p99", "p99.9", "max"],
        &[0],
    );
    for stage in &log.stages {
        let mut row = vec![stage.stage.clone(), show_count(stage.since_start_ns.count)];
        row.extend(quantiles(&stage.since_start_ns));
        row.extend(quantiles(&stage.last_10s_ns));
        table.row(row);
    }
    let _ = write!(out, "\n{}", table.render());
}

fn quantiles(q: &Quantiles) -> [String; 4] {
    if q.count == 0 {
        return std::array::from_fn(|_| "-".into());
    }
    [q.p50, q.p99, q.p999, q.max].map(time)
}

fn events(out: &mut String, status: &Status) {
    let pending: u64 =
        status.lanes.iter().chain(&status.fallback).map(|lane| lane.acks.events_pending).sum();
    if status.events.is_empty() && pending == 0 {
        return;
    }
    let mut words: Vec<String> =
        status.events.iter().map(|(label, n)| format!("{} {label}", show_count(*n))).collect();
    if pending > 0 {
        words.push(format!("{} waiting for the log", show_count(pending)));
    }
    let _ = writeln!(out, "\nevents    {}", words.join(", "));
}

/// Nanoseconds as people read them.
fn time(ns: u64) -> String {
    let ns_f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns_f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns_f / 1e6),
        _ => format!("{:.2} s", ns_f / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::log_status::{HotPartition, LatencyStatus, StageStatus, TenantSums};

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        assert_eq!([time(7), time(1_500), time(2_340_000)], ["7 ns", "1.5 us", "2.3 ms"]);
        assert_eq!(time(1_230_000_000), "1.23 s");
    }

    #[test]
    fn late_events_stand_beside_the_target_they_missed() {
        let class = |class: &str, target_ms, events, late| LatencyStatus {
            class: class.into(),
            target_ms,
            events,
            late,
        };
        let latency = vec![class("interactive", 10, 12_345, 67), class("relaxed", 50, 8, 0)];
        let mut out = String::new();
        super::latency(&mut out, &LogStatus { latency, ..LogStatus::default() });
        expect_test::expect![[r#"

            latency class  events  late  target
            interactive    12,345    67   10 ms
            relaxed             8     0   50 ms
        "#]]
        .assert_eq(&out);
        out.clear();
        super::latency(&mut out, &LogStatus::default());
        assert_eq!(out, "");
    }

    #[test]
    fn a_tenant_has_what_it_uses_of_what_it_may() {
        let sums = TenantSums {
            hunts: 3,
            cells: 1_200,
            cells_max: Some(5_000),
            players: 17,
            events: 123_456,
            events_per_s: 4_321,
            events_per_s_max: Some(4_500),
            over_quota: 98_765,
            ..TenantSums::default()
        };
        let tenants = TenantsStatus {
            rows: vec![
                TenantRow { tenant: Some(7), sums },
                TenantRow { tenant: None, sums: TenantSums { hunts: 1, ..TenantSums::default() } },
            ],
            others: 5,
            others_sums: TenantSums { hunts: 6, ..TenantSums::default() },
            ..TenantsStatus::default()
        };
        let mut out = String::new();
        super::tenants(&mut out, &tenants);
        expect_test::expect![[r#"

            tenant    hunts           cells  players        events/s   events  over quota
            7             3  1,200 of 5,000       17  4,321 of 4,500  123,456      98,765
            nobody        1               0        0               0        0           0
            5 others      6               0        0               0        0           0
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn every_stage_has_its_row_and_the_flush_its_worst() {
        let q = Quantiles { count: 5, p50: 200_000, p99: 900_000, p999: 900_000, max: 412_000_000 };
        let stage =
            StageStatus { stage: "durable".into(), since_start_ns: q, ..StageStatus::default() };
        let mut log = LogStatus { stages: vec![stage], ready: true, ..LogStatus::default() };
        log.wal.flush_ns = q;
        log.hot_partitions = vec![HotPartition {
            partition: 56,
            lane: 1,
            events_per_s: 412_345,
            core_share: 0.0456,
        }];
        let status = Status { log: Some(Box::new(log)), ..Status::default() };
        let mut out = String::new();
        super::log(&mut out, &status);
        assert!(out.contains("412,345") && out.contains("4.6 %"), "{out}");
        assert!(out.contains("durable") && out.contains("412.0 ms"), "{out}");
        assert!(out.contains("none yet"), "{out}");
    }
}
