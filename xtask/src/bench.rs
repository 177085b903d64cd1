//! `cargo xtask bench NAME`: builds the benchmark of that name and becomes it.

use std::process::ExitCode;

use anyhow::Result;

use crate::context::Context;
use crate::host::Host;
use crate::power::Power;
use crate::setup::Ready;
use crate::{build_ebpf, demo};

/// Measure a part of Veltrix on this machine.
///
/// Every run prints the baselines beside the product, from the same lab, with
/// the same pinning, rings and buffers.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// The packet path: raw AF_XDP, kernel UDP and the whole lane on one veth.
    ///
    /// Arguments after the options go to the benchmark itself: --json for one
    /// JSON object as the last line, --nic IF --queues 1,2,4 for the receiving
    /// half on a named interface; `cargo xtask bench path -- --help` lists them.
    Path(Path),
}

#[derive(clap::Args)]
struct Path {
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
    /// For the benchmark: --json, --nic IF, --queues 1,2,4, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH ARGS")]
    rest: Vec<String>,
}

/// Exit status for what this user may not do, as in `veltrix`'s own table.
const EXIT_NOT_PERMITTED: u8 = 77;
const EXIT_NOT_READY: u8 = 3;

/// Runs the subcommand; on success it does not return, the benchmark takes over.
///
/// # Errors
/// When a half does not build or the benchmark cannot be started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Bench::Path(path) = &args.bench;
    let context = Context::new()?;
    let host = Host::this();
    let power = Power::find(&host);
    if let Power::None(why) = power {
        eprintln!("bench: there is nothing to compare without XDP: {why}; run it as root");
        return Ok(ExitCode::from(EXIT_NOT_PERMITTED));
    }
    if let Ready::No(why) = demo::toolchain(&host, path.yes)? {
        eprintln!("bench: there is nothing to compare without the kernel half: {why}");
        return Ok(ExitCode::from(EXIT_NOT_READY));
    }
    let objects = build_ebpf::build(&context, &host, false)?;
    demo::start(&context, &power, Some(&objects), "bench-path", &path.rest)
}
