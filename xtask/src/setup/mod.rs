//! `cargo xtask setup`: finds what the eBPF build, the tests and the lints
//! lack on this machine, shows the plan, and installs it on Debian; elsewhere
//! it prints the commands.
//!
//! The other subcommands call [`ensure`] for the part they need, so that
//! `cargo xtask demo` is the only command a newcomer has to know.

mod plan;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::context::{Keep, clean, run as run_command, shown, status};
use crate::host::Host;
use crate::power;
pub use plan::{ALL, Part, Plan};
use plan::{APT_INSTALL, BPF_LINKER_ARGS, LLVM_PREFIX};

/// Install what building the kernel half, testing and linting need.
///
/// Looks for a compiler with library source, bpf-linker, iproute2, ethtool,
/// shellcheck, the lint tools and Chromium, shows what it would install, and asks.
/// On Debian it uses apt-get (as root or through sudo) and cargo; elsewhere it
/// prints the commands. Without a terminal it wants --yes, or CI=true.
#[derive(clap::Args)]
pub struct Args {
    /// Install without asking.
    #[arg(long)]
    yes: bool,
    /// Only report; exit status 3 when something is lacking.
    #[arg(long, conflicts_with = "yes")]
    check: bool,
}

/// Exit status for a host that is not ready, as in `veltrix`'s own table.
const EXIT_NOT_READY: u8 = 3;

/// Debian packages that rustc-web and its companions cannot stand beside.
const CONFLICTING: [&str; 6] =
    ["rustc", "cargo", "rustup", "rustc-mozilla", "cargo-mozilla", "rust-clippy"];

/// How to behave when something lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// `--yes`.
    Given,
    /// `cargo xtask setup` itself: ask, or on CI go on.
    Ask,
    /// Another subcommand that promises to set itself up: as [`Self::Ask`],
    /// and root without a terminal goes on too.
    Implied,
}

/// Runs the subcommand.
///
/// # Errors
/// When an installation step fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let host = Host::this();
    if args.check {
        let plan = Plan::make(&host, &ALL);
        print!("{}", plan.shown());
        if plan.is_empty() {
            println!("nothing is lacking");
            return Ok(ExitCode::SUCCESS);
        }
        println!("\ninstall it with `cargo xtask setup`, or by hand:");
        plan.commands(&host).iter().for_each(|command| println!("  {command}"));
        return Ok(ExitCode::from(EXIT_NOT_READY));
    }
    let consent = if args.yes { Consent::Given } else { Consent::Ask };
    match ensure(&host, &ALL, consent)? {
        Ready::Yes => {
            eprintln!("setup: nothing is lacking");
            Ok(ExitCode::SUCCESS)
        }
        Ready::No(why) => {
            eprintln!("setup: {why}");
            Ok(ExitCode::from(EXIT_NOT_READY))
        }
    }
}

/// Whether what was asked for is there now.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready {
    /// All of it.
    Yes,
    /// Not all; why, as a clause, after the plan and the commands were printed.
    No(String),
}

/// Installs what `parts` lack, if it may. Prints to standard error only, and
/// nothing when nothing lacks.
///
/// # Errors
/// When an installation step was tried and failed.
pub fn ensure(host: &Host, parts: &[Part], consent: Consent) -> Result<Ready> {
    let plan = Plan::make(host, parts);
    if plan.is_empty() {
        return Ok(Ready::Yes);
    }
    eprintln!("setup: this machine lacks something\n{}", plan.shown());
    if let Err(why) = may_install(host, &plan, consent) {
        eprintln!("by hand:");
        plan.commands(host).iter().for_each(|command| eprintln!("  {command}"));
        return Ok(Ready::No(why));
    }
    install(host, &plan)?;
    let after = Plan::make(host, parts);
    if !after.is_empty() {
        bail!("set-up ran, but this is still lacking:\n{}", after.shown());
    }
    eprintln!("setup: done");
    Ok(Ready::Yes)
}

fn may_install(host: &Host, plan: &Plan, consent: Consent) -> Result<(), String> {
    if !plan.packages.is_empty() {
        if !host.is_debian() {
            return Err("only Debian can be set up by itself".into());
        }
        if !power::is_root() {
            power::sudo(host)
                .map_err(|why| format!("installing packages wants root, and {why}"))?;
        }
        let rivals = conflicts(host, plan);
        if !rivals.is_empty() {
            let list = rivals.join(" ");
            return Err(format!(
                "installed packages conflict with rustc-web; if you do not need them: apt-get remove {list}"
            ));
        }
    }
    let on_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    match consent {
        Consent::Given => Ok(()),
        _ if std::io::stdin().is_terminal() => ask(),
        _ if on_ci => Ok(()),
        Consent::Implied if power::is_root() => Ok(()),
        _ => Err("there is no terminal to ask on: run `cargo xtask setup --yes`".into()),
    }
}

fn ask() -> Result<(), String> {
    eprint!("install this now? [Y/n] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).unwrap_or(0);
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        "" if read > 0 => Ok(()),
        _ => Err("declined".into()),
    }
}

/// Installed packages that would have to go.
fn conflicts(host: &Host, plan: &Plan) -> Vec<&'static str> {
    if !plan.packages.iter().any(|package| package.contains("-web")) {
        return Vec::new();
    }
    let Some(query) = host.find("dpkg-query") else {
        return Vec::new();
    };
    let installed = |package: &&str| {
        let answer = host.ask(&query, &["-W", "-f", "${db:Status-Status}", package]);
        answer.is_some_and(|status| status.trim() == "installed")
    };
    CONFLICTING.into_iter().filter(installed).collect()
}

fn install(host: &Host, plan: &Plan) -> Result<()> {
    if !plan.packages.is_empty() {
        if lists_are_stale(&host.at("/var/lib/apt/lists"), SystemTime::now())
            || !all_known(host, plan)
        {
            update()?;
        }
        if !all_known(host, plan) {
            bail!(
                "apt does not know all of {}: the newest compiler and LLVM come from bookworm-security, so a line\n  \
                 deb http://deb.debian.org/debian-security bookworm-security main\nmust be in /etc/apt/sources.list",
                plan.packages.iter().copied().collect::<Vec<_>>().join(" ")
            );
        }
        let mut command = apt_get();
        command.args(APT_INSTALL).args(&plan.packages);
        step(&mut command)?;
    }
    if plan.bpf_linker {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = clean(cargo, Keep::Toolchain);
        // The checkout's target directory and flags are not for it.
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        command.env("LLVM_PREFIX", LLVM_PREFIX).args(BPF_LINKER_ARGS).arg("--force");
        eprintln!("+ LLVM_PREFIX={LLVM_PREFIX} {}", shown(&command));
        run_command(command.stdout(std::io::stderr()))?;
    }
    if plan.rustup_components {
        let rustup = host
            .find("rustup")
            .context("rustfmt and clippy come with rustup, which is not on PATH")?;
        step(clean(rustup, Keep::Toolchain).args(["component", "add", "rustfmt", "clippy"]))?;
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command;
    if power::is_root() {
        command = clean("apt-get", Keep::Toolchain);
        command.env("DEBIAN_FRONTEND", "noninteractive");
    } else {
        command = clean("sudo", Keep::Toolchain);
        command.args(["--", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command
}

/// A list that cannot be fetched is no reason to stop: the packages may come
/// from another, and the install that follows says so if not.
fn update() -> Result<()> {
    let mut command = apt_get();
    command.arg("update");
    eprintln!("+ {}", shown(&command));
    if !status(command.stdout(std::io::stderr()))?.success() {
        eprintln!("setup: apt-get update had errors; going on with the lists there are");
    }
    Ok(())
}

fn step(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    run_command(command.stdout(std::io::stderr()))
}

/// Whether apt's lists are absent (a fresh container) or over a day old.
fn lists_are_stale(directory: &Path, now: SystemTime) -> bool {
    const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return true;
    };
    let any =
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
    let written = std::fs::metadata(directory).and_then(|meta| meta.modified());
    let age = written.ok().and_then(|time| now.duration_since(time).ok()).unwrap_or_default();
    !any || age > AGE_MAX
}

/// Whether apt has a candidate for every package of the plan.
fn all_known(host: &Host, plan: &Plan) -> bool {
    let Some(cache) = host.find("apt-cache") else {
        return true;
    };
    plan.packages.iter().all(|package| {
        let policy = host.ask(&cache, &["policy", package]).unwrap_or_default();
        policy
            .lines()
            .any(|line| line.trim().strip_prefix("Candidate: ").is_some_and(|c| c != "(none)"))
    })
}

#[cfg(test)]
mod tests {
    use super::plan::tests::{debian, with_compiler};
    use super::*;
    use crate::host::tests::Fake;

    #[test]
    fn complete_machine_has_an_empty_plan() {
        let fake = with_compiler(debian("plan-full"))
            .file("cargo/bin/bpf-linker")
            .file("usr/bin/ip")
            .file("usr/bin/ethtool")
            .answer("bpf-linker --version", "bpf-linker 0.13.0\n");
        let plan = Plan::make(&fake.host(), &[Part::Ebpf, Part::Lab]);
        assert!(plan.is_empty(), "{plan:?}");
        assert_eq!(
            ensure(&fake.host(), &[Part::Ebpf, Part::Lab], Consent::Ask).unwrap(),
            Ready::Yes
        );
    }

    #[test]
    fn elsewhere_the_commands_name_rustup_and_the_plan_is_not_run() {
        let fake = Fake::new("plan-elsewhere").file("usr/bin/cc");
        let host = fake.host();
        let plan = Plan::make(&host, &[Part::Ebpf]);
        let commands = plan.commands(&host).join("\n");
        assert!(
            commands.contains("rustup toolchain install nightly --component rust-src"),
            "{commands}"
        );
        assert!(!commands.contains("apt-get"), "{commands}");
        let Ready::No(why) = ensure(&host, &[Part::Ebpf], Consent::Given).unwrap() else {
            panic!("nothing can be installed on this machine");
        };
        assert!(why.contains("Debian"), "{why}");
    }

    #[test]
    fn rival_packages_are_named_and_left_alone() {
        let fake = debian("plan-rival")
            .file("usr/bin/cc")
            .file("usr/bin/dpkg-query")
            .answer("dpkg-query -W -f ${db:Status-Status} rustc", "installed")
            .answer("dpkg-query -W -f ${db:Status-Status} rustup", "not-installed");
        let host = fake.host();
        assert_eq!(conflicts(&host, &Plan::make(&host, &[Part::Ebpf])), ["rustc"]);
        assert!(conflicts(&host, &Plan::make(&host, &[Part::Lab])).is_empty());
    }

    #[test]
    fn unknown_packages_are_noticed() {
        let fake = debian("plan-known").file("usr/bin/apt-cache").file("usr/bin/ip").answer(
            "apt-cache policy ethtool",
            "ethtool:\n  Installed: (none)\n  Candidate: (none)\n",
        );
        let host = fake.host();
        assert!(!all_known(&host, &Plan::make(&host, &[Part::Lab])));
    }

    #[test]
    fn empty_and_old_lists_are_stale() {
        let fake = Fake::new("lists").directory("lists");
        let lists = fake.root.join("lists");
        let now = SystemTime::now();
        assert!(lists_are_stale(&lists, now), "empty");
        std::fs::write(lists.join("deb_main_binary-amd64_Packages.lz4"), "").unwrap();
        assert!(!lists_are_stale(&lists, now), "fresh");
        assert!(lists_are_stale(&lists, now + Duration::from_secs(90_000)), "a day old");
        assert!(lists_are_stale(&fake.root.join("nowhere"), now), "not there");
    }
}
