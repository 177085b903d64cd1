//! `cargo xtask bench NAME`: builds the benchmark of that name and becomes it.

use std::process::ExitCode;

use anyhow::Result;

use crate::context::Context;
use crate::host::Host;
use crate::power::Power;
use crate::setup::{self, Consent, Part, Ready};
use crate::{build_ebpf, demo, tool};

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
    Path(Rest),
    /// The whole way: durable events a second over veth, beside Redis Streams.
    ///
    /// Wants Debian's redis-tools, whose server it starts on a socket of its own
    /// and stops again; no service is installed. `cargo xtask bench ingest --
    /// --help` lists its arguments.
    Ingest(Rest),
    /// Mixed traffic of a game: events, retries, nonsense and queries over veth,
    /// beside the events of `bench ingest` in datagrams as full.
    ///
    /// `cargo xtask bench game -- --help` lists its arguments.
    Game(Rest),
    /// Decode, dedupe, apply and ack encoding on one core, without a NIC.
    Lane(Rest),
    /// The write-ahead log beside raft-log and plain fdatasync.
    Wal(Rest),
    /// The in-memory index and the dedupe tables.
    Index(Rest),
    /// From a snapshot and a full log to ready.
    Recovery(Rest),
}

#[derive(clap::Args)]
struct Rest {
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
    /// For the benchmark: --json, ...
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
    match &args.bench {
        Bench::Path(args) => in_lab("bench-path", args, &[]),
        Bench::Ingest(args) => in_lab("bench-ingest", args, &[Part::Redis]),
        Bench::Game(args) => in_lab("bench-game", args, &[]),
        Bench::Lane(args) => tool::become_tool("bench-lane", &args.rest),
        Bench::Wal(args) => tool::become_tool("bench-wal", &args.rest),
        Bench::Index(args) => tool::become_tool("bench-index", &args.rest),
        Bench::Recovery(args) => tool::become_tool("bench-recovery", &args.rest),
    }
}

/// One that wants XDP, the network lab and `more`.
fn in_lab(name: &str, args: &Rest, more: &[Part]) -> Result<ExitCode> {
    let context = Context::new()?;
    let host = Host::this();
    let power = Power::find(&host);
    if let Power::None(why) = power {
        eprintln!("bench: there is nothing to compare without XDP: {why}; run it as root");
        return Ok(ExitCode::from(EXIT_NOT_PERMITTED));
    }
    let consent = if args.yes { Consent::Given } else { Consent::Implied };
    let parts = [&[Part::Ebpf, Part::Lab], more].concat();
    if let Ready::No(why) = setup::ensure(&host, &parts, consent)? {
        eprintln!(
            "bench: there is nothing to compare without the kernel half and its rival: {why}"
        );
        return Ok(ExitCode::from(EXIT_NOT_READY));
    }
    let objects = build_ebpf::build(&context, &host, false)?;
    demo::start(&context, &power, Some(&objects), name, &args.rest)
}
