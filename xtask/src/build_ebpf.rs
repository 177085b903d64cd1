//! `cargo xtask build-ebpf`: builds the kernel half, the two objects that the
//! other subcommands embed or hand on.
//!
//! `core` for BPF exists only as source, so this wants a compiler with library
//! source and the unstable `build-std`; [`crate::host`] says where it looks.
//! A debug-log object goes to a target directory of its own: the two never
//! mix, and a release never embeds one that logs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, Keep, clean, run as run_command};
use crate::elf;
use crate::host::{Compiler, Host};

/// Build the kernel half for bpfel-unknown-none.
///
/// Takes Debian's compiler (rustc-web with rust-web-src) or a rustup toolchain
/// with rust-src, says which, and prints each object's path, size and
/// instruction count. `cargo xtask setup` installs what it lacks.
#[derive(clap::Args)]
pub struct Args {
    /// Log every exit through aya-log: for debugging, never for a release.
    #[arg(long)]
    debug_log: bool,
}

/// The target every kernel this project runs on takes.
pub const TARGET: &str = "bpfel-unknown-none";

/// Absolute paths of the objects built.
#[derive(Debug, Clone)]
pub struct Objects {
    /// What `veltrix` embeds.
    pub xdp: PathBuf,
    /// The lab's generator and sink, for tests, demo and benchmarks.
    pub lab: PathBuf,
}

impl Objects {
    /// Where a build puts them, whether or not they are there.
    #[must_use]
    pub fn of(context: &Context, debug_log: bool) -> Self {
        let directory = target_directory(context, debug_log).join(TARGET).join("release");
        Self { xdp: directory.join("veltrix-xdp"), lab: directory.join("veltrix-lab") }
    }

    /// The variables under which builds and tests look for them.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &std::ffi::OsStr); 2] {
        [
            ("VELTRIX_EBPF_OBJECT", self.xdp.as_os_str()),
            ("VELTRIX_LAB_OBJECT", self.lab.as_os_str()),
        ]
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When no compiler is there, or it fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let objects = build(&context, &Host::this(), args.debug_log)?;
    for object in [&objects.xdp, &objects.lab] {
        print!("{}", report(object)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds both objects and says on standard error with which compiler.
///
/// # Errors
/// When no compiler or linker is there, or the build fails.
pub fn build(context: &Context, host: &Host, debug_log: bool) -> Result<Objects> {
    let compiler = match host.bpf_compiler() {
        Ok(compiler) => compiler,
        Err(why) => bail!("no compiler for eBPF ({why}): run `cargo xtask setup`"),
    };
    let (linker, linker_version) = match host.bpf_linker() {
        Ok(found) => found,
        Err(why) => bail!("{why}: run `cargo xtask setup`"),
    };
    eprintln!("build-ebpf: {} ({}), {linker_version}", compiler.name, compiler.version);
    let mut command = cargo(context, &compiler, &linker, &compiler.cargo);
    command.args([
        "build",
        "--release",
        "--package",
        "veltrix-ebpf",
        "--target",
        TARGET,
        "-Zbuild-std=core",
    ]);
    command.arg("--target-dir").arg(target_directory(context, debug_log));
    if debug_log {
        command.args(["--features", "debug-log"]);
    }
    run_command(command.stdout(std::io::stderr())).context("the kernel half did not build")?;
    let objects = Objects::of(context, debug_log);
    for object in [&objects.xdp, &objects.lab] {
        if !object.is_file() {
            bail!("the build succeeded but {} is not there", object.display());
        }
    }
    Ok(objects)
}

/// `program` (a cargo, or cargo-clippy of the same toolchain) set up for the
/// kernel half, at the top of the checkout.
pub fn cargo(context: &Context, compiler: &Compiler, linker: &Path, program: &Path) -> Command {
    let mut command = clean(program, Keep::Nothing);
    command.current_dir(&context.root);
    command.env("CARGO", &compiler.cargo);
    command.env("RUSTC", &compiler.rustc);
    // Lets a stable compiler take -Zbuild-std and aya-ebpf's feature gates.
    command.env("RUSTC_BOOTSTRAP", "1");
    // A wrapper from the user's own cargo configuration does not know BPF.
    command.env("RUSTC_WRAPPER", "");
    command.env(
        "RUSTFLAGS",
        format!(
            "-Cdebuginfo=2 -Clink-arg=--btf --cfg=bpf_target_arch=\"{}\"",
            std::env::consts::ARCH
        ),
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories =
        linker.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(directories) {
        command.env("PATH", path);
    }
    command
}

fn target_directory(context: &Context, debug_log: bool) -> PathBuf {
    if debug_log { context.target.join("debug-log") } else { context.target.clone() }
}

/// Path, size and instruction counts of an object, for people.
///
/// # Errors
/// When the file cannot be read or is no object.
pub fn report(object: &Path) -> Result<String> {
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let sections = elf::program_sections(&bytes).with_context(|| object.display().to_string())?;
    let mut text = format!("{}  {} KiB\n", object.display(), bytes.len().div_ceil(1024));
    if sections.is_empty() {
        text.push_str("  no program in it\n");
    }
    for section in &sections {
        let _ = writeln!(
            text,
            "  section {:<12} {:>6} instructions",
            section.name, section.instructions
        );
        for (name, instructions) in &section.functions {
            let _ = writeln!(text, "    {name:<18} {instructions:>6}");
        }
    }
    Ok(text)
}
