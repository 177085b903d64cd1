//! `cargo xtask crash`: see `veltrix_tests::crash`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::json;
use veltrix_tests::crash::{self, Spec};

/// Kills the real server at random moments under load, and judges what it kept by
/// what clients were told.
#[derive(Parser)]
struct Args {
    /// Kills while it serves.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// Chooses the moments; random unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Take no snapshots.
    #[arg(long)]
    without_snapshots: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(veltrix_client::codec::random_u64);
    println!("crash: seed {seed}; the moments depend on the machine as well");
    let spec = Spec { kills: args.kills, seed, snapshots: !args.without_snapshots };
    let verdict = crash::run(&spec, &|line| eprintln!("crash: {line}"))?;
    println!(
        "{} kills, {} more while it started, {} snapshots: {} events acknowledged ({} applied, {} as duplicates), {} never; \
         {} judged in the log from epoch {}; longest gap {} ms; {} faults",
        verdict.kills,
        verdict.kills_starting,
        verdict.snapshots,
        verdict.acked,
        verdict.applied,
        verdict.duplicates,
        verdict.unanswered,
        verdict.judged,
        verdict.first_epoch,
        verdict.gap_ms_max,
        verdict.faults_total
    );
    for fault in &verdict.faults {
        println!("  {fault:?}");
    }
    if args.json {
        let object = json!({
            "seed": seed,
            "kills": verdict.kills,
            "kills_starting": verdict.kills_starting,
            "snapshots": verdict.snapshots,
            "acked": verdict.acked,
            "applied": verdict.applied,
            "duplicates": verdict.duplicates,
            "unanswered": verdict.unanswered,
            "judged": verdict.judged,
            "gap_ms_max": verdict.gap_ms_max,
            "faults": verdict.faults_total,
        });
        println!("{object}");
    }
    Ok(if verdict.faults_total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
