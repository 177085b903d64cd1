//! `cargo xtask build`: one release binary with the kernel half inside.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::build_ebpf::{self, Objects};
use crate::context::{Context, run as run_command};
use crate::host::Host;

/// Build the release binary `veltrix` with the eBPF object embedded.
///
/// The result is one file that can be copied to another machine.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the kernel half out: the binary then runs on UDP sockets only and
    /// says so. Needs neither the eBPF compiler nor bpf-linker.
    #[arg(long)]
    without_ebpf: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When either half does not build.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let objects = if args.without_ebpf {
        None
    } else {
        let objects = build_ebpf::build(&context, &Host::this(), false)?;
        eprint!("{}", build_ebpf::report(&objects.xdp)?);
        Some(objects)
    };
    let binary = release(&context, objects.as_ref())?;
    let size = std::fs::metadata(&binary).with_context(|| binary.display().to_string())?.len();
    let inside = if objects.is_some() {
        "kernel half embedded"
    } else {
        "without the kernel half: UDP sockets only"
    };
    println!("{}  {:.1} MiB, {inside}", binary.display(), size as f64 / f64::from(1 << 20));
    Ok(ExitCode::SUCCESS)
}

/// Builds the release `veltrix`, with the object embedded when there is one.
///
/// # Errors
/// When it does not build.
pub fn release(context: &Context, objects: Option<&Objects>) -> Result<PathBuf> {
    build(context, objects, &["--release", "--package", "veltrix", "--bin", "veltrix"])?;
    Ok(context.target.join("release/veltrix"))
}

/// Builds the release `veltrix` and one binary of `veltrix-tests`, in this
/// order, with one call of cargo so that their dependencies are built once.
///
/// # Errors
/// When one does not build.
pub fn release_with_tool(
    context: &Context,
    objects: Option<&Objects>,
    tool: &str,
) -> Result<(PathBuf, PathBuf)> {
    let args = [
        "--release",
        "--package",
        "veltrix",
        "--bin",
        "veltrix",
        "--package",
        "veltrix-tests",
        "--bin",
        tool,
    ];
    build(context, objects, &args)?;
    let directory = context.target.join("release");
    Ok((directory.join("veltrix"), directory.join(tool)))
}

/// `cargo build` with the objects' variables set, or absent without objects.
///
/// # Errors
/// When it does not build.
pub fn build(context: &Context, objects: Option<&Objects>, args: &[&str]) -> Result<()> {
    let mut command = context.cargo();
    command.arg("build").args(args);
    if let Some(objects) = objects {
        command.envs(objects.variables());
    }
    run_command(command.stdout(std::io::stderr()))
}

/// The variables every test, demo and benchmark executable gets.
#[must_use]
pub fn variables<'a>(
    binary: &'a Path,
    objects: Option<&'a Objects>,
) -> Vec<(&'static str, &'a OsStr)> {
    let mut variables = vec![("VELTRIX_BIN", binary.as_os_str())];
    variables.extend(objects.iter().flat_map(|objects| objects.variables()));
    variables
}
