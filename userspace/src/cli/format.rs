//! `veltrix format`: makes a data directory.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::inspect::limits::{facts, memory};
use super::{CliError, ExitStatus, json_line, print};
use crate::log::superblock::{DataDir, FormatOptions, Limits, Superblock};

/// Make a data directory: write-ahead log, filled in advance, and snapshots.
///
/// What is fixed here decides outcomes or the layout on disk and does not
/// change afterwards: partitions, capacities, the dedupe window. The log is
/// written once from end to end, so that the disk can never be full for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix format --data /var/lib/veltrix                         sizes chosen to fit the disk
  veltrix format --data /srv/game --segments 16 --cells-max 12000000 --players-max 10000000
  veltrix format --data /tmp/demo --segment-bytes 1048576 --segments 8 --yes")]
pub struct FormatArgs {
    /// Directory to make; it must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Partitions of consistency domains.
    #[arg(long, value_name = "N", default_value_t = veltrix_abi::partition::PARTITIONS_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..=veltrix_abi::partition::PARTITIONS_MAX as i64))]
    partitions: u16,
    /// Bytes of one segment of the log, a multiple of 4,096 [default: 128 MiB, less on a small disk].
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<u64>,
    /// Segments of the log [default: as many as a quarter of the free space holds, at most 32].
    #[arg(long, value_name = "N")]
    segments: Option<u32>,
    /// Hotspots of all hunts.
    #[arg(long, value_name = "N", default_value_t = Limits::default().cells_max)]
    cells_max: u64,
    /// Players, counted once in each hunt they play.
    #[arg(long, value_name = "N", default_value_t = Limits::default().players_max)]
    players_max: u64,
    /// Hunts of one partition.
    #[arg(long, value_name = "N", default_value_t = Limits::default().hunts_max,
        value_parser = clap::value_parser!(u16).range(1..))]
    hunts_max: u16,
    /// Quests and treasure types of all hunts.
    #[arg(long, value_name = "N", default_value_t = Limits::default().definitions_max)]
    definitions_max: u64,
    /// Deeds: quests that players have begun, and their rewards, 256 numbers each.
    #[arg(long, value_name = "N", default_value_t = Limits::default().deeds_max)]
    deeds_max: u64,
    /// Idempotency keys that are remembered.
    #[arg(long, value_name = "N", default_value_t = Limits::default().dedupe_keys_max)]
    dedupe_keys_max: u64,
    /// How long a key is remembered: 90s, 10m, 2h.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    dedupe_window: Duration,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    fn options(&self) -> Result<FormatOptions, CliError> {
        let usage = |text: &str| CliError::new(ExitStatus::Usage, text);
        let window_ms = u64::try_from(self.dedupe_window.as_millis()).unwrap_or(u64::MAX);
        if window_ms == 0 {
            return Err(usage("--dedupe-window is under 1 ms: every key would be too old"));
        }
        for (flag, value) in [
            ("--cells-max", self.cells_max),
            ("--players-max", self.players_max),
            ("--dedupe-keys-max", self.dedupe_keys_max),
        ] {
            if value == 0 {
                return Err(usage(&format!("{flag} is 0, at least 1 is wanted")));
            }
        }
        Ok(FormatOptions {
            partitions: self.partitions,
            segment_bytes: self.segment_bytes,
            segments_max: self.segments,
            limits: Limits {
                cells_max: self.cells_max,
                players_max: self.players_max,
                hunts_max: self.hunts_max,
                definitions_max: self.definitions_max,
                deeds_max: self.deeds_max,
                dedupe_keys_max: self.dedupe_keys_max,
                dedupe_window_ms: window_ms,
            },
            ..FormatOptions::default()
        })
    }
}

/// Runs the command.
///
/// # Errors
///
/// A directory that is not empty, values out of range, no space.
pub fn run(args: &FormatArgs) -> Result<ExitStatus, CliError> {
    let options = args.options()?;
    let plan = DataDir::plan(&args.data, &options)?;
    if !args.json {
        print(&describe(&args.data.display().to_string(), &plan))?;
    }
    if !args.yes && io::stdin().is_terminal() && !confirmed()? {
        return Err(CliError::new(ExitStatus::Error, "nothing was formatted"));
    }
    // The sizes that were shown, whatever became of the free space meanwhile.
    let options = FormatOptions {
        segment_bytes: Some(plan.segment_bytes),
        segments_max: Some(plan.segments_max),
        ..options
    };
    let bar = bar();
    let superblock = DataDir::format(&args.data, &options, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let superblock = superblock?;
    if args.json {
        let memory: serde_json::Map<_, _> = memory(&superblock)
            .into_iter()
            .map(|(part, bytes)| (part.into(), json!(bytes)))
            .collect();
        print(&json_line(&json!({
            "data": args.data,
            "superblock": facts(&superblock),
            "wal_bytes": superblock.wal_bytes(),
            "memory_bytes": memory,
        }))?)?;
    } else {
        print(&format!("formatted; start it with `veltrix run --data {}`\n", args.data.display()))?;
    }
    Ok(ExitStatus::Ok)
}

/// Bar on standard error; nothing where that is no terminal.
fn bar() -> ProgressBar {
    let style = "filling the log {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}";
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    bar
}

fn describe(dir: &str, plan: &Superblock) -> String {
    let show = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
    let mut out = format!(
        "{dir}: {} partitions; log of {} segments of {}, {} on disk\nmemory when it runs:\n",
        plan.partitions,
        plan.segments_max,
        show(plan.segment_bytes),
        show(plan.wal_bytes()),
    );
    for (part, bytes) in memory(plan) {
        out.push_str(&format!("  {part:<28} {:>12}\n", show(bytes)));
    }
    out
}

fn confirmed() -> Result<bool, CliError> {
    let asked = write!(io::stderr(), "Format it? [y/N] ");
    let mut line = String::new();
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut line))
        .map_err(|e| CliError::new(ExitStatus::Error, format!("cannot ask: {e}; give --yes")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
