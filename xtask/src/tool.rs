//! `cargo xtask sim` and `cargo xtask crash`, and the benchmarks that need no
//! lab: build one binary of `veltrix-tests` and become it.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::build_ebpf::{self, Objects};
use crate::context::{Context, shown};
use crate::host::Host;
use crate::power::{self, Power};
use crate::setup::Ready;
use crate::{build, demo};

/// Exit status for what this user may not do, as in `veltrix`'s own table.
const EXIT_NOT_PERMITTED: u8 = 77;
const EXIT_NOT_READY: u8 = 3;

/// Run the seeded simulation: batches, log, dedupe, apply and snapshots over a
/// faulty disk and clock, judged by an oracle.
///
/// A seed that fails prints the command that repeats it.
#[derive(clap::Args)]
pub struct SimArgs {
    /// For the simulation: --seeds N, --seed S, --json, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SIM ARGS")]
    rest: Vec<String>,
}

/// Kill the real server at random moments under load and judge what it kept.
///
/// Each acknowledged event must be there exactly once with the outcome and epoch
/// that were acknowledged, each other one at most once.
#[derive(clap::Args)]
pub struct CrashArgs {
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
    /// For the crash test: --kills N, --seed S, --json, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CRASH ARGS")]
    rest: Vec<String>,
}

/// Runs `sim`.
///
/// # Errors
/// When it does not build or cannot be started.
pub fn sim(args: &SimArgs) -> Result<ExitCode> {
    become_tool("sim", &args.rest)
}

/// Runs `crash`.
///
/// # Errors
/// When something does not build or it cannot be started.
pub fn crash(args: &CrashArgs) -> Result<ExitCode> {
    let context = Context::new()?;
    let host = Host::this();
    let power = Power::find(&host);
    if let Power::None(why) = power {
        eprintln!("crash: it wants the network lab: {why}; run it as root");
        return Ok(ExitCode::from(EXIT_NOT_PERMITTED));
    }
    if let Ready::No(why) = demo::toolchain(&host, args.yes)? {
        eprintln!("crash: it wants the network lab: {why}");
        return Ok(ExitCode::from(EXIT_NOT_READY));
    }
    let objects = build_ebpf::build(&context, &host, false)?;
    demo::start(&context, &power, Some(&objects), "crash", &args.rest)
}

/// Builds `veltrix` and the named binary of `veltrix-tests`, then becomes it: one
/// that needs no capability.
///
/// # Errors
/// When something does not build or the binary cannot be started.
pub fn become_tool(name: &str, args: &[String]) -> Result<ExitCode> {
    let context = Context::new()?;
    // Built before or not at all: these do not look at packets, and the same
    // objects as last time spare a build of everything that embeds them.
    let objects = Some(Objects::of(&context, false)).filter(|objects| objects.xdp.is_file());
    let (veltrix, tool) = build::release_with_tool(&context, objects.as_ref(), name)?;
    let variables = build::variables(&veltrix, objects.as_ref());
    let mut command = power::command(&Power::Own, &tool, &variables);
    command.args(args).current_dir(&context.root);
    let error = command.exec();
    Err(anyhow!(error).context(format!("cannot start {}", shown(&command))))
}
