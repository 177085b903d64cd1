//! Developer commands, run as `cargo xtask NAME`. Each subcommand is a file of
//! its own here; what several share is below them:
//!
//! ```text
//!   setup  build-ebpf  build  demo  bench  sim, crash  test  fuzz  lint  tidy      subcommands
//!     |        |         |      |     |        |         |     |     |     |
//!     +--------+---------+------+-----+--------+---------+-----+-----+-----+
//!        context (paths, clean environment)   host (what is installed)
//!        power (capabilities, sudo)           elf, libtest (parsers)
//! ```
//!
//! Nothing here runs on a user's appliance, and nothing here is needed to
//! build with plain cargo: it finds the eBPF compiler, sets variables and
//! calls cargo.

mod bench;
mod build;
mod build_ebpf;
mod context;
mod demo;
mod elf;
mod fuzz;
mod host;
mod libtest;
mod lint;
mod power;
mod setup;
mod test;
mod tidy;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Veltrix's developer commands.
///
/// Start with `cargo xtask demo`: it sets up what is lacking (after showing
/// the plan and asking), builds both halves and runs real packets through
/// them. `cargo xtask test` runs every test the same way.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Build(build::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Sim(tool::SimArgs),
    Crash(tool::CrashArgs),
    Test(test::Args),
    Fuzz(fuzz::Args),
    Lint(lint::Args),
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(args) => tool::sim(&args),
        Command::Crash(args) => tool::crash(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Tidy(args) => tidy::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
