//! `cargo xtask bench ingest`: see `veltrix_tests::bench::ingest`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::json;
use veltrix_abi::wire::Mode;
use veltrix_tests::bench::ingest::phases::{self, Plan};
use veltrix_tests::bench::ingest::redis;
use veltrix_tests::bench::ingest::report::{Report, machine};
use veltrix_tests::bench::service::TempDir;

/// Measures events from the client to the disk and back, on the veth lab, beside
/// Redis Streams on the same cores and disk.
#[derive(Parser)]
struct Args {
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Seconds of the maximum; the parts after it take a quarter each.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Measure one part only: no verdict is given then.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Folder on the disk to measure; what is made there is removed in the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Ack mode: `none` shows what the way costs without a log, and gives no
    /// verdict.
    #[arg(long, value_enum, default_value_t = AckMode::Durable)]
    mode: AckMode,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The node behind AF_XDP: maximum, half of it, single events.
    Xdp,
    /// The node on UDP sockets.
    Socket,
    /// Redis Streams.
    Redis,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AckMode {
    /// Durable and applied.
    Durable,
    /// Received and counted.
    None,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let temporary;
    let dir = match &args.dir {
        Some(dir) => {
            let dir = dir.join(format!("veltrix-bench-{}", std::process::id()));
            std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            temporary = TempDir(dir);
            &temporary.0
        }
        None => {
            temporary = TempDir::new()?;
            &temporary.0
        }
    };
    let cores = veltrix::base::cpu::allowed_cores();
    ensure!(
        cores.starts_with(&[0, 1]),
        "bench ingest wants cores 0 and 1, this process may use {cores:?}"
    );
    let mode = match args.mode {
        AckMode::Durable => Mode::Durable,
        AckMode::None => Mode::None,
    };
    let plan = Plan { mode, seconds: args.seconds, dir };
    let wants = |part: Part| args.only.is_none_or(|only| only == part);
    let say = |what: &str| eprintln!("bench ingest: {what}");
    let mut report = Report::default();
    report.set_value("machine", machine());
    report.set_value("mode", json!(mode.name()));
    if wants(Part::Redis) {
        say("Redis Streams");
        let numbers = redis::measure(dir, &say)?;
        report.set("redis_streams_events_per_s", numbers.streams_events_per_s);
        report.set("redis_benchmark_events_per_s", numbers.benchmark_events_per_s);
        report.set("redis_client_behind", numbers.behind_benchmark());
        report.set("redis_batched_events_per_s", numbers.batched_events_per_s);
        report.set_value("redis_streams_shape", json!(format!("{:?}", numbers.streams_shape)));
        report.set_value("redis_batched_shape", json!(format!("{:?}", numbers.batched_shape)));
    }
    if wants(Part::Xdp) {
        say("the node behind AF_XDP");
        phases::xdp(&plan, &mut report, &say)?;
    }
    if wants(Part::Socket) {
        say("the node on UDP sockets");
        phases::socket(&plan, &mut report, &say)?;
    }
    if let (Some(ours), Some(redis)) =
        (report.get("events_per_s"), report.get("redis_streams_events_per_s"))
    {
        report.set("over_redis", ours / redis);
    }
    print!("{}", report.table());
    if args.only.is_none() && mode == Mode::Durable {
        let missed = report.missed();
        if !missed.is_empty() {
            println!("missed: {}", missed.join(", "));
        }
    }
    if args.json {
        println!("{}", report.json());
    }
    Ok(ExitCode::SUCCESS)
}
