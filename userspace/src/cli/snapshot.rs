//! `veltrix snapshot`: asks a running server to take one now.

use clap::Args;

use super::partition::tell;
use super::{CliError, ExitStatus, ServerArgs};
use crate::admin::protocol::Request;

/// Take a snapshot of a running server now.
///
/// The server takes them by itself as its log fills; one now makes the next
/// start shorter. Traffic runs on meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix snapshot
  veltrix inspect snapshot --data DIR      what it holds, once it is done")]
pub struct SnapshotArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// No server, or its refusal.
pub fn run(args: &SnapshotArgs) -> Result<ExitStatus, CliError> {
    tell(&args.server.ask(&Request::Snapshot)?, args.json)?;
    Ok(ExitStatus::Ok)
}
