//! `cargo xtask bench recovery`: from the start of the real server to ready.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Map, Value, json};
use veltrix_tests::bench::recovery::directory::{Made, Plan};
use veltrix_tests::bench::recovery::start::{Started, start};

/// Measures how long a server with a full index and a full log takes to be ready.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Cells of the node.
    #[arg(long, default_value_t = 12_000_000)]
    cells: u64,
    /// Players of the node.
    #[arg(long, default_value_t = 10_000_000)]
    players: u64,
    /// Idempotency keys of the node.
    #[arg(long, default_value_t = 29_000_000)]
    keys: u64,
    /// Partitions.
    #[arg(long, default_value_t = 64)]
    partitions: u16,
    /// Bytes of the log, in MiB; it has segments of 64 MiB.
    #[arg(long, default_value_t = 1_024)]
    wal_mib: u64,
    /// How much of the log is behind the snapshot; 100: all but two segments of
    /// what a server takes before it refuses events.
    #[arg(long, default_value_t = 100, value_name = "PERCENT")]
    wal_fill: u64,
    /// Lanes of the server.
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Starts; the figure is the median.
    #[arg(long, default_value_t = 3)]
    loads: usize,
    /// Folder on the disk to measure; removed in the end.
    #[arg(long, value_name = "DIR", default_value = "target/bench-recovery")]
    dir: PathBuf,
    /// Leave the folder there, and take one that an equal run has left.
    #[arg(long)]
    keep: bool,
}

/// Of the whole, seconds.
const RECOVERY_S_MAX: f64 = 5.0;

/// Bytes of a segment of the log, MiB.
const SEGMENT_MIB: u64 = 64;

/// What the folder holds, so that a later run can take it.
const FACTS: &str = "made.json";

/// The folder, removed in the end unless it is kept.
struct Scratch<'a> {
    dir: &'a Path,
    keep: bool,
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(self.dir);
        }
    }
}

/// The data directory: one that is there, or a new one.
fn directory(args: &Args, plan: &Plan) -> Result<Made> {
    let facts = args.dir.join(FACTS);
    if args.keep
        && let Ok(text) = std::fs::read(&facts)
        && let Ok((found, made)) = serde_json::from_slice::<(Plan, Made)>(&text)
        && found == *plan
    {
        return Ok(made);
    }
    // Only what a run of this made is taken away.
    if facts.exists() {
        std::fs::remove_dir_all(&args.dir)?;
    }
    std::fs::create_dir(&args.dir).with_context(|| format!("{}", args.dir.display()))?;
    std::fs::write(&facts, b"")?;
    let data = args.dir.canonicalize()?.join("data");
    let made = plan.make(&data, |what| eprintln!("bench recovery: {what}"))?;
    std::fs::write(&facts, serde_json::to_vec(&(plan, &made))?)?;
    Ok(made)
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

fn mib(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let plan = Plan {
        cells: args.cells,
        players: args.players,
        keys: args.keys,
        partitions: args.partitions,
        segment_bytes: SEGMENT_MIB << 20,
        segments: u32::try_from(args.wal_mib.div_ceil(SEGMENT_MIB))?,
        fill_percent: args.wal_fill,
    };
    let _scratch = Scratch { dir: &args.dir, keep: args.keep };
    let made = directory(&args, &plan)?;
    let mut starts = Vec::new();
    for number in 1..=args.loads.max(1) {
        let started = start(&made, args.lanes)?;
        eprintln!("bench recovery: start {number}: {} s", seconds(started.ready));
        starts.push(started);
    }
    starts.sort_unstable_by_key(|started| started.ready);
    let median = &starts[starts.len() / 2];

    let mut values = Map::new();
    for (key, value, meaning) in figures(&made, median, &starts) {
        println!("{key:<24} {value:>12.3}  {meaning}");
        values.insert(key.to_owned(), json!(value));
    }
    for (at, line) in &median.lines {
        println!("  {:>8.3} s  {line}", at.as_secs_f64());
    }
    let met = seconds(median.ready) <= RECOVERY_S_MAX;
    println!("recovery_s goal: <= {RECOVERY_S_MAX}: {}", if met { "ok" } else { "MISSED" });
    if args.json {
        println!("{}", Value::Object(values));
    }
    Ok(ExitCode::SUCCESS)
}

/// Names, figures and what they mean.
fn figures(
    made: &Made,
    median: &Started,
    starts: &[Started],
) -> Vec<(&'static str, f64, &'static str)> {
    let recovery = &median.log.recovery;
    let [cells, players, keys] = made.records.map(|n| n as f64);
    let ms = |ms: u64| ms as f64 / 1e3;
    let replay_s = seconds(median.replay()).max(0.001);
    let other = seconds(median.ready) - ms(recovery.snapshot_ms) - replay_s;
    let of = |started: Option<&Started>| started.map_or(0.0, |s| seconds(s.ready));
    vec![
        ("cells", cells, "cells in the snapshot"),
        ("players", players, "players in the snapshot"),
        ("keys", keys, "idempotency keys in the snapshot"),
        ("snapshot_mib", mib(made.snapshot_bytes), "size of its file"),
        ("state_mib", mib(made.state_bytes), "state in it"),
        ("wal_mib", mib(made.wal_bytes), "size of the log on disk"),
        ("replay_mib", mib(recovery.bytes), "batches in it, all behind the snapshot"),
        ("replay_entries", recovery.entries as f64, "entries of those"),
        ("replay_events", made.log_events as f64, "events in them"),
        ("recovery_s", seconds(median.ready), "from exec to ready, median"),
        ("recovery_s_min", of(starts.first()), "fastest start"),
        ("recovery_s_max", of(starts.last()), "slowest start"),
        ("snapshot_load_s", ms(recovery.snapshot_ms), "of it: snapshot from disk to partitions"),
        ("replay_s", replay_s, "of it: log read again, committed and applied"),
        ("other_s", other, "of it: log scanned, memory, sockets, lanes"),
        ("replay_events_per_s", (made.log_events as f64 / replay_s).round(), "events replayed"),
        ("cpu_s", seconds(median.cpu), "time of all its threads on a core"),
        ("peak_mib", (median.peak_kib / 1024) as f64, "most memory of the server"),
    ]
}
