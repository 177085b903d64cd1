//! `cargo xtask lint`: everything that must hold before a change is taken, one
//! line per step.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use crate::build_ebpf::{self, TARGET};
use crate::context::{Context, run as run_command};
use crate::host::{Compiler, Host};
use crate::setup::{self, Consent, Part};
use crate::tidy;

/// Check formatting, lints, scripts and the tree's own rules.
///
/// Steps: cargo fmt, clippy on the workspace (stable, without the eBPF
/// toolchain), clippy on the kernel half for BPF where the toolchain is there,
/// shellcheck, and `cargo xtask tidy`. All steps run even when one fails.
#[derive(clap::Args)]
pub struct Args {
    /// Install what is lacking without asking.
    #[arg(long)]
    yes: bool,
}

/// What a step came to.
enum Step {
    Done,
    LeftOut(String),
}

/// Runs the subcommand.
///
/// # Errors
/// When cargo cannot be asked about the workspace.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let host = Host::this();
    let consent = if args.yes { Consent::Given } else { Consent::Implied };
    // What cannot be installed is named by the step that wants it.
    setup::ensure(&host, &[Part::Lint], consent)?;
    let steps: [(&str, &dyn Fn() -> Result<Step>); 5] = [
        ("fmt", &|| fmt(&context)),
        ("clippy", &|| clippy(&context)),
        ("clippy for eBPF", &|| clippy_ebpf(&context, &host)),
        ("shellcheck", &|| shellcheck(&context, &host)),
        ("tidy", &|| tidy::check(&context).map(|()| Step::Done)),
    ];
    let mut failed = false;
    let mut lines = Vec::new();
    for (name, step) in steps {
        let started = Instant::now();
        let verdict = match step() {
            Ok(Step::Done) => "ok".to_owned(),
            Ok(Step::LeftOut(why)) => format!("left out: {why}"),
            Err(error) => {
                failed = true;
                format!("FAILED: {error:#}")
            }
        };
        let line =
            format!("lint: {name:<16} {:>6.1} s  {verdict}", started.elapsed().as_secs_f64());
        eprintln!("{line}");
        lines.push(line);
    }
    if failed {
        eprintln!("\nlint: there are findings");
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fmt(context: &Context) -> Result<Step> {
    run_command(context.cargo().args(["fmt", "--all", "--check"]))
        .map_err(|_| anyhow!("run `cargo fmt --all`"))?;
    Ok(Step::Done)
}

fn clippy(context: &Context) -> Result<Step> {
    run_command(context.cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))?;
    Ok(Step::Done)
}

/// Clippy has to come from the compiler's own toolchain, since it reads the
/// `core` that the compiler builds. Without one the warnings of plain `check`
/// are still denied.
fn clippy_ebpf(context: &Context, host: &Host) -> Result<Step> {
    let compiler = match host.bpf_compiler() {
        Ok(compiler) => compiler,
        Err(why) => {
            return Ok(Step::LeftOut(format!("{why}; `cargo xtask setup` installs one")));
        }
    };
    let linker = match host.bpf_linker() {
        Ok((linker, _)) => linker,
        Err(why) => {
            return Ok(Step::LeftOut(format!("{why}; `cargo xtask setup` installs it")));
        }
    };
    let clippy = clippy_beside(&compiler);
    let program = clippy.as_deref().unwrap_or(&compiler.cargo);
    let mut command = build_ebpf::cargo(context, &compiler, &linker, program);
    command.arg(if clippy.is_some() { "clippy" } else { "check" });
    command.args(["--quiet", "--release", "--package", "veltrix-ebpf", "--package", "veltrix-abi"]);
    command.args(["--target", TARGET, "-Zbuild-std=core"]).arg("--target-dir").arg(&context.target);
    if clippy.is_some() {
        command.args(["--", "-Dwarnings"]);
    } else {
        let flags =
            command.get_envs().find(|(key, _)| *key == "RUSTFLAGS").and_then(|(_, value)| value);
        let denied = format!("{} -Dwarnings", flags.unwrap_or_default().to_string_lossy());
        command.env("RUSTFLAGS", denied);
    }
    run_command(&mut command)?;
    match clippy {
        Some(_) => Ok(Step::Done),
        None => Ok(Step::LeftOut(format!(
            "{} has no clippy; its own warnings were denied",
            compiler.name
        ))),
    }
}

fn clippy_beside(compiler: &Compiler) -> Option<std::path::PathBuf> {
    let directory = compiler.cargo.parent()?;
    let (clippy, driver) = (directory.join("cargo-clippy"), directory.join("clippy-driver"));
    (clippy.is_file() && driver.is_file()).then_some(clippy)
}

fn shellcheck(context: &Context, host: &Host) -> Result<Step> {
    let scripts: Vec<_> = tidy::files(context)?
        .into_iter()
        .filter(|path| path == ".ci/run" || path.ends_with(".sh"))
        .collect();
    if scripts.is_empty() {
        return Ok(Step::LeftOut("there is no script".into()));
    }
    let Some(program) = host.find("shellcheck") else {
        bail!("shellcheck is not installed: run `cargo xtask setup`");
    };
    let mut command = crate::context::clean(program, crate::context::Keep::Toolchain);
    run_command(command.args(scripts).current_dir(&context.root))?;
    Ok(Step::Done)
}
