//! `cargo xtask sim`: see `veltrix_tests::sim`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use veltrix_tests::sim::{self, Summary};

/// Runs seeded simulations of a node over disks and clocks that misbehave.
///
/// A seed always does the same. One that breaks a promise prints what was
/// broken, what happened before, and the command that repeats it.
#[derive(Parser)]
#[command(name = "sim")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000, conflicts_with = "seed")]
    seeds: u64,
    /// First of them.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// How often a long run says where it is.
const PROGRESS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args = Args::parse();
    let (first, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let (begun, mut told) = (Instant::now(), Instant::now());
    let (mut all, mut failed) = (Summary::default(), Vec::new());
    for seed in (first..=u64::MAX).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        match sim::run(seed) {
            Ok(summary) => all.add(&summary),
            Err(failure) => {
                eprintln!("{failure}");
                failed.push(seed);
            }
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            eprintln!("sim: {} of {count} seeds", seed - first + 1);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s, {} failed", failed.len());
    println!("{all:#?}");
    if args.json {
        let Summary { entries, events, duplicates, crashes, .. } = all;
        let line = json!({
            "seeds": count,
            "seconds": seconds,
            "failed": failed,
            "entries": entries,
            "events_acked": events,
            "duplicates_acked": duplicates,
            "crashes": crashes,
            "crashes_in_recovery": all.crashes_in_recovery,
            "restored": all.restored,
            "snapshots": all.snapshots,
            "snapshots_refused": all.snapshots_refused,
            "fenced": all.fenced,
            "moves": all.moves,
            "log_full": all.log_full,
            "clock_jumps": all.jumps,
        });
        println!("{line}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
