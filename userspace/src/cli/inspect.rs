//! `veltrix inspect log|snapshot|limits`: looks at a data directory and changes
//! nothing, also beside the server that uses it.

pub mod limits;
pub mod log;
pub mod outcomes;
pub mod snapshot;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, ExitStatus, json_line, print_while_read};
use crate::log::DataDir;
use crate::log::WalOptions;
use crate::log::superblock::Superblock;

/// Look at a data directory: list, verify, dump.
///
/// Nothing is changed. A directory in use may be looked at too; its newest
/// entries may then be missing. Ends with 11 when something is damaged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix inspect log --data DIR                 is it sound, what does it hold
  veltrix inspect log --data DIR --events        every event, a JSON line each
  veltrix inspect log --data DIR --outcomes      what became of each, judged again from snapshot and log
  veltrix inspect snapshot --data DIR --json
  veltrix inspect limits --data DIR")]
pub struct InspectArgs {
    #[command(subcommand)]
    what: InspectCommand,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    /// The write-ahead log.
    Log(log::LogArgs),
    /// The snapshots.
    Snapshot(snapshot::SnapshotArgs),
    /// What was fixed when the directory was formatted, and the memory it takes.
    Limits(Looked),
}

/// Which directory, and how to say it.
#[derive(Clone, Debug, Args)]
pub struct Looked {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Looked {
    fn open(&self) -> Result<DataDir, CliError> {
        Ok(DataDir::look(&self.data)?)
    }

    /// Process that uses the directory, 0 when it does not say which it is.
    fn user(&self) -> Option<u32> {
        DataDir::user(&self.data)
    }

    /// The same for people; empty when nobody uses it.
    fn user_line(&self) -> String {
        match self.user() {
            None => String::new(),
            Some(pid) => format!(
                "in use by process {pid}: what is being written while this looks may be missing\n"
            ),
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// No data directory, one of another version, or the disk's.
pub fn run(args: &InspectArgs) -> Result<ExitStatus, CliError> {
    match &args.what {
        InspectCommand::Log(args) => log::run(args),
        InspectCommand::Snapshot(args) => snapshot::run(args),
        InspectCommand::Limits(args) => limits::run(args),
    }
}

/// Options to read a directory's log with.
pub(super) fn wal_options(superblock: &Superblock) -> Result<WalOptions, CliError> {
    superblock
        .wal_options()
        .map_err(|e| CliError::new(ExitStatus::Error, format!("no random bytes: {e}")))
}

/// Lines gathered for standard output. Once nobody reads any more, or it cannot
/// be written, the rest is dropped.
struct Lines {
    text: String,
    /// The first failure; `Ok(false)` when the reader has gone.
    state: Result<bool, CliError>,
}

/// Bytes of lines that are written at once.
const LINES_BYTES: usize = 64 << 10;

impl Lines {
    fn new() -> Self {
        Self { text: String::new(), state: Ok(true) }
    }

    fn wanted(&self) -> bool {
        matches!(self.state, Ok(true))
    }

    fn push(&mut self, line: &impl serde::Serialize) {
        if !self.wanted() {
            return;
        }
        match json_line(line) {
            Ok(line) => self.text.push_str(&line),
            Err(error) => self.state = Err(error),
        }
        if self.text.len() >= LINES_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.wanted() {
            self.state = print_while_read(&self.text);
        }
        self.text.clear();
    }

    /// Writes the rest.
    fn finish(mut self) -> Result<(), CliError> {
        self.flush();
        self.state.map(|_| ())
    }
}
