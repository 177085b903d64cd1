//! `veltrix run`: settles the settings and hands over to [`crate::run`].

use clap::Args;

use super::config::ConfigArgs;
use super::{CliError, ExitStatus};
use crate::run::log::Log;

/// Serve: receive, decode and answer datagrams until told to stop.
///
/// Without `--nic` the datagrams come by ordinary UDP sockets: no privilege is
/// needed, and with no argument at all only this host can reach them. With
/// `--nic` an XDP program and AF_XDP sockets take over every queue of the
/// interface for this port; everything else passes to the kernel as before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  veltrix run                                    loopback, port 4747, UDP sockets
  veltrix run --listen 0.0.0.0:4747              the network, UDP sockets
  sudo veltrix run --nic eth1                    all queues of eth1 by AF_XDP
  sudo veltrix run --nic eth1 --zero-copy require --wait spin --cores 2,3
  veltrix run --data DIR --http 127.0.0.1:4780   with JSON over HTTP: probes, metrics, the game
  veltrix run --config game.toml --json          settings from a file, log lines as JSON

Stop it with Ctrl-C or SIGTERM; `veltrix status` shows it at work.")]
pub struct RunArgs {
    #[command(flatten)]
    settings: Box<ConfigArgs>,
    /// Write log lines as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// Bad settings, or why the server could not start or had to stop.
pub fn run(args: RunArgs) -> Result<ExitStatus, CliError> {
    let resolved = args.settings.resolve()?;
    let log = Log { json: args.json };
    log.info(&format!("settings: {}", resolved.file));
    for remark in &resolved.remarks {
        log.warn(remark);
    }
    crate::run::run(resolved.config, log)
}
