//! The command line: `veltrix run`, `status`, `block`, `ping`, `load`,
//! `world`, `config`. One file a command; all end in one [`exit::ExitStatus`].
//!
//! Results go to standard output, everything else to standard error, so that
//! `--json` can be piped. A reader that closes the pipe early is not an error.

pub mod block;
pub mod config;
mod data_errors;
pub mod docs;
pub mod exit;
pub mod format;
pub mod inspect;
pub mod load;
pub mod partition;
pub mod ping;
pub mod repair;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod world;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::admin::client::{CallError, call};
use crate::admin::protocol::{Failure, FailureCode, Reply, Request};
use crate::config::{Inputs, resolve};

pub use exit::{CliError, ExitStatus};

/// Kernel-bypass ingestion for real-time games.
///
/// Takes game events off the network card by XDP and AF_XDP, or by UDP
/// sockets where those cannot be had, and answers each one.
#[derive(Debug, Parser)]
#[command(name = "veltrix", version, after_help = EXAMPLES, after_long_help = after_long_help())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Try it, without root and without a network card:
  veltrix run                          serve on 127.0.0.1:4747 by UDP sockets
  veltrix ping 127.0.0.1:4747          in a second terminal
  veltrix status                       what was received, and that the sums close

Serve a network card:
  sudo veltrix run --nic eth1";

fn after_long_help() -> String {
    format!("{EXAMPLES}\n\n{}", ExitStatus::help_table().trim_end())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: receive, decode and answer datagrams until told to stop.
    Run(run::RunArgs),
    /// Show modes, counters, sums and alarms of a running server.
    Status(status::StatusArgs),
    /// Block sources of datagrams, list and unblock them.
    Block(block::BlockArgs),
    /// Make a data directory: write-ahead log and capacities.
    Format(format::FormatArgs),
    /// Look into a data directory: log, snapshots, limits.
    Inspect(inspect::InspectArgs),
    /// Give up what damage took from a data directory, when asked to.
    Repair(repair::RepairArgs),
    /// Show and change which lane owns a partition of a running server.
    Partition(partition::PartitionArgs),
    /// Take a snapshot of a running server now.
    Snapshot(snapshot::SnapshotArgs),
    /// Measure the way to a server and back.
    Ping(ping::PingArgs),
    /// Send load at a fixed rate and measure from the intended send time.
    Load(load::LoadArgs),
    /// Write and load a realistic world; the same seed gives the same world.
    World(world::WorldArgs),
    /// Check, show and explain settings.
    Config(config::ConfigCommandArgs),
    /// Print the generated documents.
    #[command(hide = true)]
    Docs(docs::DocsArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok };
            // Nothing can be said when standard error is closed too.
            let _ = error.print();
            return status.into();
        }
    };
    let result = match cli.command {
        None => print(&Cli::command().render_help().to_string()).map(|()| ExitStatus::Ok),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Block(args)) => block::run(args),
        Some(Command::Format(args)) => format::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Repair(args)) => repair::run(&args),
        Some(Command::Partition(args)) => partition::run(args),
        Some(Command::Snapshot(args)) => snapshot::run(&args),
        Some(Command::Ping(args)) => ping::run(args),
        Some(Command::Load(args)) => load::run(args),
        Some(Command::World(args)) => world::run(&args),
        Some(Command::Config(args)) => config::run(args),
        Some(Command::Docs(args)) => docs::run(&args),
    };
    match result {
        Ok(status) => status.into(),
        Err(error) => {
            // As above.
            let _ = writeln!(io::stderr(), "veltrix: {error}");
            error.status.into()
        }
    }
}

/// Writes a result to standard output.
///
/// # Errors
///
/// The output cannot be written; a pipe that its reader closed is no error.
pub fn print(text: &str) -> Result<(), CliError> {
    print_while_read(text).map(|_| ())
}

/// As [`print`]; false when nobody reads any more.
fn print_while_read(text: &str) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => {
            let text = format!("standard output cannot be written: {e}");
            Err(CliError::new(ExitStatus::Error, text))
        }
    }
}

/// A value as JSON on one line.
fn json_line(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string(value)
        .map(|text| text + "\n")
        .map_err(|e| CliError::new(ExitStatus::Error, format!("cannot be written as JSON: {e}")))
}

/// Which server a command talks to.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Control socket of the server.
    ///
    /// Without it: `server.control_socket` of the configuration, which by
    /// default is where a server started by the same user has it.
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
    /// Configuration file of the server, if not ./veltrix.toml or /etc/veltrix/veltrix.toml.
    #[arg(long, value_name = "FILE", conflicts_with = "control_socket")]
    pub config: Option<PathBuf>,
}

impl ServerArgs {
    fn socket(&self) -> Result<PathBuf, CliError> {
        match &self.control_socket {
            Some(path) => Ok(path.clone()),
            None => {
                let inputs = Inputs::of_process(self.config.clone(), Vec::new());
                Ok(resolve(&inputs)?.config.server.control_socket)
            }
        }
    }

    /// Asks the server; a refusal becomes an error.
    fn ask(&self, request: &Request) -> Result<Reply, CliError> {
        match call(&self.socket()?, request)? {
            Reply::Error(Failure { code, message }) => Err(CliError::new(
                match code {
                    FailureCode::BadRequest | FailureCode::Version => ExitStatus::Usage,
                    FailureCode::Refused => ExitStatus::Error,
                },
                message,
            )),
            reply => Ok(reply),
        }
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        let status = match error {
            CallError::NotRunning(..) => ExitStatus::HostNotReady,
            CallError::NotPermitted(..) => ExitStatus::NotPermitted,
            CallError::Broken(..) | CallError::Language(..) => ExitStatus::Error,
        };
        Self::new(status, error.to_string())
    }
}

impl From<crate::admin::server::BindError> for CliError {
    fn from(error: crate::admin::server::BindError) -> Self {
        use crate::admin::server::BindError;
        let status = match error {
            BindError::NotPermitted(..) => ExitStatus::NotPermitted,
            _ => ExitStatus::HostNotReady,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_and_config_show_have_a_flag_for_each_key_that_names_one() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        let show = cli.find_subcommand("config").unwrap().find_subcommand("show").unwrap();
        for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
            for command in [run, show] {
                let has = command.get_arguments().any(|arg| arg.get_long() == Some(key.flag));
                assert!(has, "{}: --{}", command.get_name(), key.flag);
            }
        }
    }

    #[test]
    fn long_help_teaches_exit_codes_and_examples() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("78") && help.contains("veltrix run"), "{help}");
    }
}
