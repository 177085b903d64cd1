//! `veltrix inspect snapshot`.

use std::path::Path;

use clap::Args;
use serde_json::{Value, json};
use veltrix_abi::kinds::HotspotKind;

use super::super::status::Table;
use super::super::{CliError, ExitStatus, json_line, print};
use super::{Lines, Looked};
use crate::apply::Partition;
use crate::log::DataDir;
use crate::snapshot::{Identity, LoadOptions, Snapshot, SnapshotError, load_newest, newest_first};

/// What of the snapshots is wanted.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    looked: Looked,
    /// Dump cells and players of the newest sound one, a JSON line each.
    #[arg(long)]
    records: bool,
}

/// What was found of one file.
struct Found {
    name: String,
    bytes: u64,
    /// Epochs, counts and when; absent when even those are damaged.
    facts: Option<Value>,
    fault: Option<SnapshotError>,
}

pub(super) fn run(args: &SnapshotArgs) -> Result<ExitStatus, CliError> {
    let dir = args.looked.open()?;
    let identity = Identity::of(dir.superblock());
    let files = newest_first(&dir.snapshots())?;
    let found: Vec<Found> = files.iter().map(|path| look(path, &identity)).collect();
    if args.records && !found.is_empty() {
        dump(&dir)?;
    }
    let sound = found.iter().all(|file| file.fault.is_none());
    let text = if args.looked.json { json(args, &found)? } else { table(args, &found) };
    if args.records && !args.looked.json {
        eprint!("{text}");
    } else {
        print(&text)?;
    }
    Ok(if sound { ExitStatus::Ok } else { ExitStatus::Damaged })
}

fn look(path: &Path, identity: &Identity) -> Found {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let snapshot = match Snapshot::open(path) {
        Ok(snapshot) => snapshot,
        Err(fault) => return Found { name, bytes, facts: None, fault: Some(fault) },
    };
    let manifest = snapshot.manifest();
    let facts = json!({
        "epoch": manifest.last.index,
        "epoch_max": manifest.epoch_max(),
        "term": manifest.last.term,
        "node": snapshot.header().node,
        "created_ns": snapshot.header().created_ns,
        "partitions": manifest.partitions.len(),
        "state_bytes": manifest.raw_bytes(),
        "cells": manifest.records("cells"),
        "players": manifest.records("players"),
        "keys": manifest.keys(),
    });
    let checked = identity.check(&snapshot).and_then(|()| snapshot.verify(|_| {}));
    Found { name, bytes, facts: Some(facts), fault: checked.err() }
}

fn json(args: &SnapshotArgs, found: &[Found]) -> Result<String, CliError> {
    let files: Vec<Value> = found
        .iter()
        .map(|file| {
            json!({
                "file": file.name,
                "bytes": file.bytes,
                "verdict": if file.fault.is_none() { "sound" } else { "refused" },
                "fault": file.fault.as_ref().map(ToString::to_string),
                "facts": file.facts,
            })
        })
        .collect();
    json_line(&json!({ "snapshots": files, "in_use_by": args.looked.user() }))
}

fn table(args: &SnapshotArgs, found: &[Found]) -> String {
    let mut out = args.looked.user_line();
    if found.is_empty() {
        out.push_str("there is no snapshot\n");
        return out;
    }
    let header = ["file", "epoch", "to", "cells", "players", "keys", "size", "verdict"];
    let mut table = Table::new(&header, &[0, 7]);
    for file in found {
        let fact = |name: &str| match &file.facts {
            Some(facts) => facts[name].to_string(),
            None => "-".to_owned(),
        };
        table.row(vec![
            file.name.clone(),
            fact("epoch"),
            fact("epoch_max"),
            fact("cells"),
            fact("players"),
            fact("keys"),
            bytesize::ByteSize(file.bytes).display().iec().to_string(),
            if file.fault.is_none() { "sound" } else { "REFUSED" }.to_owned(),
        ]);
    }
    out.push_str(&table.render());
    for fault in found.iter().filter_map(|file| file.fault.as_ref()) {
        out.push_str(&format!("{fault}\n"));
    }
    out
}

/// Cells and players of the newest sound one.
fn dump(dir: &DataDir) -> Result<(), CliError> {
    // Whether the log continues it is not asked here.
    let options = LoadOptions::of(dir.superblock(), &dir.snapshots(), 1);
    let loaded = load_newest(&options, &|_| {})?;
    let mut lines = Lines::new();
    loaded.partitions.iter().for_each(|partition| records(partition, &mut lines));
    lines.finish()
}

fn records(partition: &Partition, lines: &mut Lines) {
    let (index, number) = (partition.index(), partition.number());
    // What a cell says of its claimer is the player's place, from 1.
    let players: Vec<u64> = index.players().map(|player| player.player()).collect();
    let claimer = |mark: u32| players.get((mark as usize).checked_sub(1)?).copied();
    for cell in index.cells() {
        lines.push(&json!({
            "record": "cell",
            "partition": number,
            "domain": index.hunt_record(cell.hunt()).domain(),
            "cell": cell.id(),
            "kind": cell.kind().map(kind_name),
            "item": cell.item(),
            "remaining": cell.remaining,
            "reward": cell.reward(),
            "expiry_s": cell.expiry_s,
            "claimed_by": claimer(cell.claimed_by),
        }));
    }
    for player in index.players() {
        lines.push(&json!({
            "record": "player",
            "partition": number,
            "domain": index.hunt_record(player.hunt()).domain(),
            "player": player.player(),
            "wallet": player.wallet,
            "score": player.score,
            "inventory": player.inventory,
        }));
    }
}

const fn kind_name(kind: HotspotKind) -> &'static str {
    match kind {
        HotspotKind::Item => "item",
        HotspotKind::Chest => "chest",
        HotspotKind::Ticket => "ticket",
    }
}
