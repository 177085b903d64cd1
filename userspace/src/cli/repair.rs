//! `veltrix repair log`: gives up what damage took, when asked to by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, ExitStatus, json_line, print};
use crate::log::DataDir;
use crate::log::repair::repair;

/// Mend a data directory at the price of data.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: RepairCommand,
}

#[derive(Debug, Subcommand)]
enum RepairCommand {
    /// Cut the log at its first damage.
    ///
    /// Everything behind the damage is given up, acknowledged or not. Damaged
    /// segments are copied first. On a node of a cluster, restore it from
    /// another node instead.
    Log {
        /// Data directory; no process may use it.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Yes: acknowledged events behind the damage will be lost.
        #[arg(long)]
        accept_loss: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
///
/// Loss was not accepted; the directory is in use, or not this log's; the
/// disk's.
pub fn run(args: &RepairArgs) -> Result<ExitStatus, CliError> {
    let RepairCommand::Log { data, accept_loss, json } = &args.what;
    if !accept_loss {
        return Err(CliError::new(
            ExitStatus::Usage,
            format!(
                "repair gives up every event behind the damage, acknowledged ones too; `veltrix inspect log --data {}` shows where it is; if that is wanted, give --accept-loss",
                data.display()
            ),
        ));
    }
    let dir = DataDir::open(data)?;
    let options = super::inspect::wal_options(dir.superblock())?;
    let report = repair(&*dir.wal_disk(), &options)?;
    let last = report.base.last.map(|id| id.index);
    if *json {
        let cut =
            report.cut.as_ref().map(|(file, offset)| json!({ "file": file, "offset": offset }));
        print(&json_line(&json!({
            "cut": cut,
            "records_lost": report.records_lost,
            "saved": report.saved,
            "last": last,
        }))?)?;
        return Ok(ExitStatus::Ok);
    }
    print(&match report.cut {
        None => "the log is sound; nothing was changed\n".to_owned(),
        Some((file, offset)) => format!(
            "{file}: cut at byte {offset}; {} sound records behind it were given up; the log ends with entry {}; copies: {}\n",
            report.records_lost,
            last.map_or("none".to_owned(), |index| index.to_string()),
            report.saved.join(", "),
        ),
    })?;
    Ok(ExitStatus::Ok)
}
