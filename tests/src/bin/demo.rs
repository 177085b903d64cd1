//! `cargo xtask demo`: see `veltrix_tests::demo`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use veltrix_tests::demo::{self, Options};

/// Shows Veltrix at work: a durable node under load, kill -9 in the middle and
/// recovery, then a check of log and state against what clients were told.
#[derive(Parser)]
#[command(name = "demo")]
struct Args {
    /// How long to play; the kill comes in the middle. Start, recovery and the
    /// check come on top.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Stay on UDP sockets on loopback: no XDP, no privileges.
    #[arg(long)]
    sockets: bool,
    /// Queues of the network interface, each with a lane; without it half the
    /// cores, so that the load has the other half. Not with --sockets.
    #[arg(long, value_name = "N", conflicts_with = "sockets", value_parser = clap::value_parser!(u32).range(1..=64))]
    queues: Option<u32>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wanted = format!("wanted {:?} to {:?}, such as 10s", demo::RUN_LEAST, demo::RUN_MOST);
    match humantime::parse_duration(text) {
        Ok(time) if (demo::RUN_LEAST..=demo::RUN_MOST).contains(&time) => Ok(time),
        Ok(_) => Err(wanted),
        Err(error) => Err(format!("{error}; {wanted}")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options { duration: args.duration, sockets: args.sockets, queues: args.queues };
    match demo::run(&options) {
        Ok(findings) => {
            print!("{}", findings.text());
            if args.json {
                println!("{}", findings.json());
            }
            if findings.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
