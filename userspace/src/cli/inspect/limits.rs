//! `veltrix inspect limits`, and the facts that `format` shows too.

use serde_json::{Value, json};

use super::super::{CliError, ExitStatus, json_line, print};
use super::Looked;
use crate::apply::{Partition, PartitionImage};
use crate::dedupe::false_duplicate_probability;
use crate::log::superblock::Superblock;
use crate::snapshot::partition_limits;

/// Memory that the state of this directory takes, by part, bytes. One image a
/// lane and what lanes keep in flight come on top.
pub fn memory(superblock: &Superblock) -> Vec<(&'static str, u64)> {
    let limits = partition_limits(superblock);
    let bytes = Partition::bytes_of(&limits);
    let all = u64::from(superblock.partitions);
    let state = all * bytes.total();
    vec![
        ("cells, players and hunts", all * bytes.index.total()),
        ("idempotency keys", all * bytes.dedupe.total() as u64),
        ("state in all", state),
        ("snapshot image, each", PartitionImage::bytes_of(&limits)),
    ]
}

/// The superblock without its secrets.
pub fn facts(superblock: &Superblock) -> Value {
    let limits = &superblock.limits;
    json!({
        "format_version": superblock.format_version,
        "cluster_id": format!("{:016x}", superblock.cluster_id),
        "node_id": superblock.node_id,
        "partitions": superblock.partitions,
        "segment_bytes": superblock.segment_bytes,
        "segments_max": superblock.segments_max,
        "cells_max": limits.cells_max,
        "players_max": limits.players_max,
        "hunts_max": limits.hunts_max,
        "definitions_max": limits.definitions_max,
        "deeds_max": limits.deeds_max,
        "dedupe_keys_max": limits.dedupe_keys_max,
        "dedupe_window_ms": limits.dedupe_window_ms,
    })
}

pub(super) fn run(args: &Looked) -> Result<ExitStatus, CliError> {
    let dir = args.open()?;
    let superblock = dir.superblock();
    let limits = partition_limits(superblock);
    let doubled = false_duplicate_probability(&limits.dedupe);
    let mut all = facts(superblock);
    all["wal_bytes"] = json!(superblock.wal_bytes());
    all["false_duplicate_probability"] = json!(doubled);
    all["a_partition"] = json!({
        "cells_max": limits.index.cells_max,
        "players_max": limits.index.players_max,
        "hunts_max": limits.index.hunts_max,
        "definitions_max": limits.index.definitions_max,
        "deeds_max": limits.index.deeds_max,
        "dedupe_keys_max": limits.dedupe.keys_max,
    });
    let parts = memory(superblock);
    if args.json {
        let parts: serde_json::Map<String, Value> =
            parts.into_iter().map(|(part, bytes)| (part.to_owned(), json!(bytes))).collect();
        all["memory_bytes"] = Value::Object(parts);
        all["in_use_by"] = json!(args.user());
        print(&json_line(&all)?)?;
        return Ok(ExitStatus::Ok);
    }
    let mut out = args.user_line();
    if let Value::Object(fields) = &all {
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_object()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.push_str(&format!("{name:<28} {value:>20}\n"));
        }
    }
    for (part, bytes) in parts {
        let bytes = bytesize::ByteSize(bytes).display().iec().to_string();
        out.push_str(&format!("memory: {part:<28} {bytes:>12}\n"));
    }
    print(&out)?;
    Ok(ExitStatus::Ok)
}
