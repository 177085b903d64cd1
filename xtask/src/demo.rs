//! `cargo xtask demo`: from a fresh clone to packets through XDP in one command.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::build;
use crate::build_ebpf::{self, Objects};
use crate::context::{Context, shown};
use crate::host::Host;
use crate::power::{self, Power};
use crate::setup::{self, Consent, Part, Ready};

/// Build everything and run real packets through it.
///
/// Sets up what is lacking (after asking), builds both halves, makes a network
/// lab of namespaces and veth pairs, starts a durable `veltrix run` in it, lets
/// players around real cities load it, kills it with kill -9, watches it
/// recover, and checks log and state against what the players were told. Only the finished demo binary is elevated, with sudo, when this
/// user lacks the capabilities. Where they cannot be had it runs the same over
/// UDP sockets and says what it left out.
///
/// Arguments after the options go to the demo itself, for example
/// `cargo xtask demo --for 10s --json`; `cargo xtask demo -- --help` lists them.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
    /// For the demo: --for 10s (of play), --json, --sockets, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "DEMO ARGS")]
    rest: Vec<String>,
}

/// Makes the demo and the benchmarks stay on UDP sockets.
const SOCKETS: &str = "--sockets";

/// Runs the subcommand; on success it does not return, the demo takes over.
///
/// # Errors
/// When a half does not build or the demo cannot be started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let host = Host::this();
    let mut rest = args.rest.clone();
    if rest.iter().any(|arg| arg == SOCKETS) {
        return start(&context, &Power::Own, None, "demo", &rest);
    }
    let why = match Power::find(&host) {
        Power::None(why) => why,
        power => match toolchain(&host, args.yes)? {
            Ready::Yes => {
                let objects = build_ebpf::build(&context, &host, false)?;
                return start(&context, &power, Some(&objects), "demo", &rest);
            }
            Ready::No(why) => why,
        },
    };
    eprintln!(
        "demo: {why}\ndemo: left out: the XDP program, AF_XDP sockets and the network lab; \
         the same lanes run over UDP sockets on loopback"
    );
    rest.push(SOCKETS.into());
    // Over sockets nothing needs a capability, so nothing is elevated.
    start(&context, &Power::Own, None, "demo", &rest)
}

/// What the packet path needs on this machine, set up when it may be.
///
/// # Errors
/// When an installation step was tried and failed.
pub fn toolchain(host: &Host, yes: bool) -> Result<Ready> {
    let consent = if yes { Consent::Given } else { Consent::Implied };
    setup::ensure(host, &[Part::Ebpf, Part::Lab], consent)
}

/// Builds `veltrix` and the named binary of `veltrix-tests`, then becomes it.
///
/// # Errors
/// When something does not build or the binary cannot be started.
pub fn start(
    context: &Context,
    power: &Power,
    objects: Option<&Objects>,
    name: &str,
    args: &[String],
) -> Result<ExitCode> {
    let (veltrix, tool) = build::release_with_tool(context, objects, name)?;
    let mut command = power::command(power, &tool, &build::variables(&veltrix, objects));
    command.args(args).current_dir(&context.root);
    if *power == Power::Sudo {
        eprintln!("{name}: running {} with sudo (the build ran as you)", tool.display());
    }
    let error = command.exec();
    Err(anyhow!(error).context(format!("cannot start {}", shown(&command))))
}
