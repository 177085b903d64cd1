//! `cargo xtask fuzz TARGET`: random inputs for a decoder, grown from the
//! committed corpus.
//!
//! ```text
//!   tests/corpus/TARGET (read only) ──┐
//!                                     ├──> cargo-fuzz on nightly ──> target/fuzz/artifacts/TARGET
//!   target/fuzz/corpus/TARGET <───────┘
//! ```
//!
//! Nothing is installed here, and nothing under `tests/` is written: a find is
//! named and copied by hand, as `tests/fuzz/src/lib.rs` tells.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::{Context, Keep, clean, shown, status};
use crate::host::Host;

/// Throw random inputs at a decoder.
///
/// Needs cargo-fuzz, a nightly toolchain of rustup and a C++ compiler; says
/// which of them lacks and how to install it. What it learns is kept under
/// target/fuzz and used by the next run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The decoder.
    target: Target,
    /// How long: a whole number with s, m or h.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration)]
    time: Duration,
    /// For libFuzzer: -jobs=2, -seed=1, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "LIBFUZZER ARGS")]
    rest: Vec<String>,
}

/// What can be fuzzed; the names are those of the folders of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Ethernet to UDP payload, as both halves parse it.
    Frame,
    /// Datagrams that a server receives.
    Request,
    /// Datagrams that a client receives.
    Reply,
    /// Files of settings.
    Config,
    /// Batches, as they stand in the log.
    Batch,
    /// Records of the log.
    Record,
    /// Snapshot files.
    Snapshot,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Config => "config",
            Self::Batch => "batch",
            Self::Record => "record",
            Self::Snapshot => "snapshot",
        }
    }

    /// Longest input tried, bytes: past the limits that the decoder checks
    /// (a payload of 1,232 and its headers; what is durable has none so low, and
    /// gets room for several of its parts), and no longer, since time spent on
    /// more is lost.
    const fn input_bytes_max(self) -> usize {
        match self {
            Self::Frame => 1_400,
            Self::Request | Self::Reply => 1_300,
            Self::Config => 1_024,
            Self::Batch | Self::Record => 4_096,
            Self::Snapshot => 8_192,
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Config => "toml",
            Self::Frame
            | Self::Request
            | Self::Reply
            | Self::Batch
            | Self::Record
            | Self::Snapshot => "bin",
        }
    }
}

/// Exit status of a host that lacks something, as in `veltrix`'s own table.
const EXIT_NOT_READY: u8 = 3;

/// Longest run: libFuzzer's time is a 32-bit number of seconds, and a typing
/// error should not take a machine for years.
const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "wanted a whole number with s, m or h, such as 60s, up to 168h";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let seconds_each = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wanted.into()),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds_each));
    match seconds.map(Duration::from_secs) {
        // To libFuzzer, zero is for ever.
        Some(time) if !time.is_zero() && time <= TIME_MAX => Ok(time),
        _ => Err(wanted.into()),
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When cargo cannot be asked about the workspace, a folder cannot be made or
/// rustup cannot be started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let context = Context::new()?;
    let tools = match Tools::find(&Host::this()) {
        Ok(tools) => tools,
        Err(lacks) => {
            for lack in lacks {
                eprintln!("fuzz: {lack}");
            }
            return Ok(ExitCode::from(EXIT_NOT_READY));
        }
    };
    let plan = Plan::new(&context.root, &context.target, args.target);
    for folder in [&plan.scratch, &plan.artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = clean(&tools.rustup, Keep::Nothing);
    command.args(plan.arguments(&tools, args)).current_dir(&context.root);
    eprintln!("fuzz: {}", shown(&command));
    let before = artifacts(&plan.artifacts)?;
    let verdict = status(&mut command)?;
    let finds: Vec<PathBuf> =
        artifacts(&plan.artifacts)?.into_iter().filter(|path| !before.contains(path)).collect();
    for find in &finds {
        eprintln!("{}", plan.advice(find));
    }
    if verdict.success() && finds.is_empty() {
        eprintln!("fuzz: {}: nothing found", args.target.name());
        return Ok(ExitCode::SUCCESS);
    }
    if finds.is_empty() {
        // A find is named by its hash, so one seen before is not new.
        eprintln!(
            "fuzz: the run ended with {verdict} and no new find; earlier ones are in {}",
            plan.artifacts.display()
        );
    }
    Ok(ExitCode::FAILURE)
}

/// What the host must have.
#[derive(Debug, PartialEq, Eq)]
struct Tools {
    rustup: PathBuf,
    /// Name of the nightly toolchain.
    nightly: String,
}

impl Tools {
    /// Finds them, or says of each that lacks how to install it.
    fn find(host: &Host) -> Result<Self, Vec<String>> {
        let mut lacks = Vec::new();
        if host.find("cargo-fuzz").is_none() {
            lacks.push("cargo-fuzz is not installed: `cargo install --locked cargo-fuzz`".into());
        }
        if ["c++", "g++", "clang++"].iter().all(|name| host.find(name).is_none()) {
            lacks.push("libFuzzer needs a C++ compiler: `sudo apt-get install g++`".into());
        }
        let rustup = host.find("rustup");
        let nightly = rustup.as_deref().and_then(|rustup| {
            let list = host.ask(rustup, &["toolchain", "list"])?;
            let mut names = list.lines().filter_map(|line| line.split_whitespace().next());
            names.find(|name| name.starts_with("nightly")).map(str::to_owned)
        });
        match (rustup, nightly) {
            (Some(rustup), Some(nightly)) if lacks.is_empty() => return Ok(Self { rustup, nightly }),
            (Some(_), Some(_)) => {}
            (None, _) => lacks.push(
                "rustup is not installed, and the sanitizers need its nightly: see https://rustup.rs".into(),
            ),
            (Some(_), None) => lacks.push(
                "rustup has no nightly: `rustup toolchain install nightly --profile minimal`".into(),
            ),
        }
        Err(lacks)
    }
}

/// Where a run reads and writes.
struct Plan {
    target: Target,
    crate_folder: PathBuf,
    seeds: PathBuf,
    build: PathBuf,
    scratch: PathBuf,
    artifacts: PathBuf,
}

impl Plan {
    fn new(root: &Path, target_folder: &Path, target: Target) -> Self {
        let build = target_folder.join("fuzz");
        Self {
            target,
            crate_folder: root.join("tests/fuzz"),
            seeds: root.join("tests/corpus").join(target.name()),
            scratch: build.join("corpus").join(target.name()),
            artifacts: build.join("artifacts").join(target.name()),
            build,
        }
    }

    /// Arguments of rustup.
    fn arguments(&self, tools: &Tools, args: &Args) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec!["run".into(), tools.nightly.clone().into()];
        out.extend(["cargo", "fuzz", "run", "--fuzz-dir"].map(OsString::from));
        out.push(self.crate_folder.clone().into());
        out.push("--target-dir".into());
        out.push(self.build.clone().into());
        out.push(self.target.name().into());
        // libFuzzer writes into the first folder only.
        out.push(self.scratch.clone().into());
        out.push(self.seeds.clone().into());
        out.push("--".into());
        out.push(format!("-max_total_time={}", args.time.as_secs()).into());
        out.push(format!("-max_len={}", self.target.input_bytes_max()).into());
        let mut prefix = OsString::from("-artifact_prefix=");
        prefix.push(&self.artifacts);
        prefix.push("/");
        out.push(prefix);
        // Last, so that they win.
        out.extend(args.rest.iter().map(OsString::from));
        out
    }

    /// How to keep a find.
    fn advice(&self, find: &Path) -> String {
        let (name, extension) = (self.target.name(), self.target.extension());
        format!(
            "fuzz: found {}\nfuzz: keep it by name: cp {} tests/corpus/{name}/WHAT.VERDICT.{extension}\n\
             fuzz: then `cargo test -p veltrix-tests --test corpus` fails until it is mended; \
             tests/fuzz/src/lib.rs tells more",
            find.display(),
            find.display()
        )
    }
}

fn artifacts(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.with_context(cannot)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::Fake;
    use clap::{Parser as _, ValueEnum as _};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(args: &[&str]) -> Result<Args, String> {
        let line = ["fuzz"].iter().chain(args);
        Cli::try_parse_from(line).map(|cli| cli.args).map_err(|e| e.to_string())
    }

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse(&["frame"]).unwrap().time, Duration::from_secs(60));
        for (text, seconds) in [("1s", 1), ("5m", 300), ("168h", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "s", "0s", "60", "-1s", "1.5m", "1 d", "169h", "99999999999999999999s", "1ß"]
        {
            assert!(duration(text).unwrap_err().contains("such as 60s"), "{text}");
        }
        assert!(parse(&["frame", "--for", "0s"]).is_err());
        assert!(parse(&["frames"]).unwrap_err().contains("frame"));
    }

    #[test]
    fn the_plan_writes_under_target_only() {
        let args = parse(&["request", "--for", "2m", "-seed=1"]).unwrap();
        let plan = Plan::new(Path::new("/top"), Path::new("/out"), args.target);
        let tools = Tools { rustup: "/usr/bin/rustup".into(), nightly: "nightly-x".into() };
        let line: Vec<String> = plan
            .arguments(&tools, &args)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect();
        assert_eq!(
            line.join(" "),
            "run nightly-x cargo fuzz run --fuzz-dir /top/tests/fuzz --target-dir /out/fuzz request \
             /out/fuzz/corpus/request /top/tests/corpus/request -- -max_total_time=120 \
             -max_len=1300 -artifact_prefix=/out/fuzz/artifacts/request/ -seed=1"
        );
        let advice = plan.advice(Path::new("/out/fuzz/artifacts/request/crash-1"));
        assert!(advice.contains("crash-1 tests/corpus/request/WHAT.VERDICT.bin"), "{advice}");
    }

    #[test]
    fn every_target_is_in_the_fuzz_crate_and_has_a_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for target in Target::value_variants() {
            let plan = Plan::new(root, Path::new("/out"), *target);
            let source = plan.crate_folder.join(format!("fuzz_targets/{}.rs", target.name()));
            assert!(source.is_file(), "{}", source.display());
            assert!(plan.seeds.is_dir(), "{}", plan.seeds.display());
        }
    }

    #[test]
    fn what_lacks_is_named_with_its_command() {
        let bare = Fake::new("fuzz-bare");
        let lacks = Tools::find(&bare.host()).unwrap_err().join("\n");
        for wanted in ["cargo install --locked cargo-fuzz", "apt-get install g++", "rustup.rs"] {
            assert!(lacks.contains(wanted), "{lacks}");
        }
        let stable = Fake::new("fuzz-stable")
            .file("cargo/bin/cargo-fuzz")
            .file("cargo/bin/rustup")
            .file("usr/bin/c++")
            .answer("rustup toolchain list", "stable-x86_64-unknown-linux-gnu (default)\n");
        let lacks = Tools::find(&stable.host()).unwrap_err();
        assert_eq!(lacks.len(), 1);
        assert!(lacks[0].contains("rustup toolchain install nightly"), "{lacks:?}");
        let ready = Fake::new("fuzz-ready")
            .file("cargo/bin/cargo-fuzz")
            .file("cargo/bin/rustup")
            .file("usr/bin/g++")
            .answer("rustup toolchain list", "stable-x (active, default)\nnightly-x\n1.95.0-x\n");
        let tools = Tools::find(&ready.host()).unwrap();
        assert_eq!(tools.nightly, "nightly-x");
        assert_eq!(tools.rustup, ready.root.join("cargo/bin/rustup"));
    }
}
