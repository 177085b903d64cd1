//! `cargo xtask bench game`: see `veltrix_tests::bench::game`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use veltrix_tests::bench::game;
use veltrix_tests::bench::ingest::report::machine;
use veltrix_tests::bench::service::TempDir;

/// Measures mixed traffic of a game on the veth lab: events, retries, nonsense and
/// queries, beside the events of `bench ingest`.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Seconds of the maximum, for each of the two traffics, and of the open loop.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=3_600))]
    seconds: u64,
    /// Measure one part only: no verdict is given then.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How the lane waits for packets; its core is its own.
    #[arg(long, default_value = "spin", value_parser = ["wakeup", "spin"])]
    wait: String,
    /// Folder on the disk to measure; what is made there is removed in the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Over veth: maximum and open loop.
    Mixed,
    /// Claims within a region of a split hunt and across two.
    Regions,
    /// Reads of a full node's index, in this process.
    Lane,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let temporary = match &args.dir {
        Some(dir) => {
            let dir = dir.join(format!("veltrix-bench-{}", std::process::id()));
            std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            TempDir(dir)
        }
        None => TempDir::new()?,
    };
    let cores = veltrix::base::cpu::allowed_cores();
    ensure!(
        cores.starts_with(&[0, 1]),
        "bench game wants cores 0 and 1, this process may use {cores:?}"
    );
    let wants = |part: Part| args.only.is_none_or(|only| only == part);
    let say = |what: &str| eprintln!("bench game: {what}");
    let mut report = game::report();
    report.set_value("machine", machine());
    if wants(Part::Mixed) {
        game::mixed(&temporary.0, args.seconds, &args.wait, &mut report, &say)?;
    }
    if wants(Part::Regions) {
        game::regions::measure(&mut report)?;
    }
    if wants(Part::Lane) {
        game::lane(&mut report, &say)?;
    }
    print!("{}", report.table());
    let missed = report.missed();
    if args.only.is_none() && !missed.is_empty() {
        println!("missed: {}", missed.join(", "));
    }
    if args.json {
        println!("{}", report.json());
    }
    Ok(ExitCode::SUCCESS)
}
