//! `veltrix partition list|move`: which lane owns which partition of a running
//! server.

use clap::{Args, Subcommand};

use super::status::Table;
use super::{CliError, ExitStatus, ServerArgs, json_line, print};
use crate::admin::protocol::{Reply, Request};

/// Show and change which lane owns a partition of a running server.
///
/// A partition has one owner, which alone applies its events. It changes owner
/// between two epochs while traffic runs: the old lane hands its state over,
/// the new one waits for it, and no answer is lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix partition list
  veltrix partition move 17 --lane 1")]
pub struct PartitionArgs {
    #[command(subcommand)]
    command: PartitionCommand,
}

#[derive(Debug, Subcommand)]
enum PartitionCommand {
    /// List the lanes with their partitions.
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a partition to a lane.
    Move {
        /// Number of the partition, from 0.
        #[arg(value_name = "PARTITION")]
        partition: u16,
        /// Number of the lane, from 0.
        #[arg(long, value_name = "LANE")]
        lane: u16,
        #[command(flatten)]
        server: ServerArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
///
/// No server, or its refusal.
pub fn run(args: PartitionArgs) -> Result<ExitStatus, CliError> {
    match args.command {
        PartitionCommand::List { server, json } => list(&server, json)?,
        PartitionCommand::Move { partition, lane, server, json } => {
            tell(&server.ask(&Request::PartitionMove { partition, lane })?, json)?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// Prints a sentence of the server.
pub(super) fn tell(reply: &Reply, json: bool) -> Result<(), CliError> {
    let Reply::Done(said) = reply else { return Err(unexpected()) };
    if json {
        print(&json_line(&serde_json::json!({ "done": said }))?)
    } else {
        print(&format!("{said}\n"))
    }
}

fn unexpected() -> CliError {
    CliError::new(ExitStatus::Error, "the server answered something else than was asked for")
}

fn list(server: &ServerArgs, json: bool) -> Result<(), CliError> {
    let Reply::Status(status) = server.ask(&Request::Status)? else { return Err(unexpected()) };
    let Some(log) = status.log else {
        return Err(CliError::new(
            ExitStatus::Error,
            "this server keeps no state: start it with --data DIR (made by `veltrix format --data DIR`)",
        ));
    };
    if json {
        return print(&json_line(&log.owners)?);
    }
    let mut table = Table::new(&["lane", "applied epoch", "partitions"], &[2]);
    for owner in &log.owners {
        table.row(vec![
            owner.lane.to_string(),
            owner.applied_epoch.to_string(),
            ranges(&owner.partitions),
        ]);
    }
    print(&table.render())
}

/// `0-3 7 9-12`.
fn ranges(numbers: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let words: Vec<String> = parts
        .into_iter()
        .map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") })
        .collect();
    if words.is_empty() { "none".into() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2 5 7-8");
        assert_eq!(ranges(&[]), "none");
        assert_eq!(ranges(&[u16::MAX]), "65535");
    }
}
